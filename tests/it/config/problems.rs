//! CFG-1: all problems are reported at once, with advice.

use breakerbox::config::Settings;

use super::{NO_VARIABLES, folder, folder_with, of_text, problems};

const BREAKER_KEYS: &str = "cancelled, cancelled_probe_reopens, consecutive_failures, failure_rate, failure_threshold, half_open_attempt_limit, half_open_limit, half_open_max_admitted, half_open_max_calls, half_open_rule, lost_probe, minimum_calls, probe_lease, probe_stream, recovery_backoff, recovery_timeout, slow_call, slow_rate, window";

#[test]
fn item_94_every_problem_is_reported_at_once() {
    let text = r#"
[gateway]
bind = "localhost"
[dependencies.web]
kind = "http"
[dependencies.web.breaker]
failure_treshold = 3
failure_threshold = 0
failure_rate = 1.5
slow_rate = 0.5
recovery_timeout = "-3s"
window = { kind = "count", size = 10 }
half_open_attempt_limit = 4
half_open_rule = { kind = "k_of_n", of = 3 }
[dependencies.web.timeout]
attempt = "soon"
[dependencies.web.retry]
backoff = { base = "5s", max = "1s" }
[[dependencies.web.fallback]]
kind = "dependency"
name = "webb"
"#;
    let threshold = "BREAKERBOX__DEPENDENCIES__WEB__WORKERS__COUNT";
    let loader =
        of_text(text).env_vars([(threshold, "none"), ("BREAKERBOX__ADMIN__TOKEN", "short")]);
    let duration = "a duration such as \"250ms\", or a number of seconds, from 1ms to 1year";
    let expected = [
        "admin.token: given ***, allowed: a text of at least 16 letters, all of ASCII (environment variable BREAKERBOX__ADMIN__TOKEN)".to_owned(),
        "dependencies.web.breaker.failure_rate: given 1.5, allowed: a number from 0 to 1, or \"off\" (the given text:9)".to_owned(),
        "dependencies.web.breaker.failure_threshold: given 0, allowed: a whole number from 1 to 1000000, or \"off\" (the given text:8)".to_owned(),
        "dependencies.web.breaker.failure_treshold: given 3, unknown key, did you mean failure_threshold?, allowed: ".to_owned() + BREAKER_KEYS + " (the given text:7)",
        "dependencies.web.breaker.half_open_rule.of: given 3, 4 of 3 cannot succeed, half_open_attempt_limit is 4, allowed: a whole number of at least 4 (the given text:14)".to_owned(),
        "dependencies.web.breaker.minimum_calls: 20 calls never fit into a window of 10, allowed: a whole number from 1 to 10, or a larger window.size (the given text:7)".to_owned(),
        format!("dependencies.web.breaker.recovery_timeout: given \"-3s\", allowed: {duration} (the given text:11)"),
        "dependencies.web.breaker.slow_rate: given 0.5, no call is slow without slow_call, allowed: to set slow_call too (the given text:10)".to_owned(),
        "dependencies.web.fallback[0].name: given \"webb\", there is no such dependency, did you mean web?, allowed: one of web (the given text:21)".to_owned(),
        "dependencies.web.retry.backoff.base: given \"5s\", it is longer than max, which is 1s, allowed: a duration of at most 1s (the given text:18)".to_owned(),
        format!("dependencies.web.timeout.attempt: given \"soon\", allowed: {duration}, or \"off\" (the given text:16)"),
        "dependencies.web.url: kind = \"http\" needs it, allowed: an address such as \"http://127.0.0.1:9001\", without user and query (the given text:5)".to_owned(),
        format!("dependencies.web.workers.count: given \"none\", allowed: a whole number from 1 to 1024 (environment variable {threshold})"),
        "gateway.bind: given \"localhost\", allowed: an address with a port, such as \"127.0.0.1:7070\" (the given text:3)".to_owned(),
    ];
    assert_eq!(problems(loader.clone()), expected);
    let text = loader.load().unwrap_err().to_string();
    assert!(text.starts_with("14 problems in the configuration\n  admin.token: given ***"));
    assert!(!text.contains("short"));
}

#[test]
fn item_94_each_problem_names_its_file_and_its_line() {
    let default = r#"
[dependencies.web.breaker]
failure_threshold = 0
recovery_timeout = "-3s"

[dependencies.web.timeout]
attempt = "soon"
"#;
    let staging = r#"# a comment
[dependencies.web.retry]
max_attempt = 2

[[dependencies.web.fallback]]
kind = "dependency"
name = "nobody"
"#;
    let dotenv = "# a comment\nNAME=value\nBREAKERBOX no value\n";
    let files = [
        ("default.toml", default),
        ("staging.toml", staging),
        ("local.env", dotenv),
    ];
    let folder = folder_with(&files);
    let error = Settings::loader()
        .dir(folder.path())
        .environment("staging")
        .env_vars(NO_VARIABLES)
        .dotenv(folder.path().join("local.env"))
        .load()
        .expect_err("nothing of it can be used");
    let places: Vec<String> = error
        .problems()
        .iter()
        .map(|problem| {
            let key = problem.key.rsplit('.').next().unwrap();
            let file = problem.origin.rsplit('/').next().unwrap();
            format!("{key} {file}")
        })
        .collect();
    let expected = [
        " local.env:3",
        "failure_threshold default.toml:3",
        "recovery_timeout default.toml:4",
        "name staging.toml:7",
        "max_attempt staging.toml:3",
        "attempt default.toml:7",
    ];
    assert_eq!(places, expected, "{error}");
    assert!(!error.to_string().contains("no value"), "{error}");
}

#[test]
fn cfg_1_relations_that_cannot_work_are_refused() {
    let cases = [
        (
            "breaker.recovery_backoff = { max = \"1s\" }",
            "breaker.recovery_backoff.max",
        ),
        ("breaker.probe_lease = \"1s\"", "breaker.probe_lease"),
        ("breaker.failure_rate = 0.5", "breaker.failure_rate"),
        (
            "breaker.half_open_rule = \"rate\"",
            "breaker.half_open_rule",
        ),
        (
            "breaker.half_open_rule = \"k_of_n\"",
            "breaker.half_open_rule.kind",
        ),
        ("breaker.window = \"count\"", "breaker.window.kind"),
        (
            "breaker.window = { kind = \"time\" }",
            "breaker.window.kind",
        ),
        (
            "breaker.window = { kind = \"consecutive\", size = 3 }",
            "breaker.window.size",
        ),
        (
            "breaker.window = { kind = \"count\", size = 3 }",
            "breaker.failure_threshold",
        ),
        ("breaker.cancelled = \"rate\"", "breaker.cancelled.kind"),
        (
            "breaker = { half_open_max_admitted = 2, half_open_attempt_limit = 3 }",
            "breaker.half_open_max_admitted",
        ),
        (
            "timeout = { attempt = \"5s\", total = \"1s\" }",
            "timeout.attempt",
        ),
        (
            "bulkhead.max_concurrent_writes = 33",
            "bulkhead.max_concurrent_writes",
        ),
        ("workers.stuck_after = \"1s\"", "workers.stuck_after"),
        (
            "workers.backoff = { base = \"1m\", max = \"1s\" }",
            "workers.backoff.base",
        ),
        ("rate_limit.burst = 3", "rate_limit.rate"),
        ("classify.throttled = [429, \"5xx\"]", "classify.throttled"),
        ("fallback = [{ kind = \"dependency\" }]", "fallback[0].name"),
        (
            "fallback = [{ kind = \"fixed\", max_age = \"1s\" }]",
            "fallback[0].max_age",
        ),
        (
            "fallback = [{ kind = \"fixed\", on = [] }]",
            "fallback[0].on",
        ),
        ("kind = \"http\"\nurl = \"ftp://host\"", "url"),
        ("kind = \"http\"\nurl = \"http://me:secret@host\"", "url"),
        (
            "kind = \"http\"\nurl = \"http://host/path?key=secret\"",
            "url",
        ),
        ("breaker = 3", "breaker"),
    ];
    for (text, key) in cases {
        let text = format!("[dependencies.web]\n{text}");
        let error = of_text(&text).load().expect_err(&text);
        let keys: Vec<&str> = error
            .problems()
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        assert_eq!(keys, [format!("dependencies.web.{key}")], "{error}");
    }
}

#[test]
fn cfg_1_a_circle_of_fallbacks_is_shown() {
    let falls_back = |from: &str, to: &str| {
        format!("[[dependencies.{from}.fallback]]\nkind = \"dependency\"\nname = \"{to}\"\n")
    };
    let circle = falls_back("a", "b") + &falls_back("b", "c") + &falls_back("c", "a");
    let expected = "dependencies.c.fallback[0].name: given \"a\", a circle, a->b->c->a, \
                    allowed: dependencies that do not fall back on each other (the given text:9)";
    assert_eq!(problems(of_text(&circle)), [expected]);
    let itself = problems(of_text(&falls_back("a", "a")));
    assert!(itself[0].contains("a circle, a->a"), "{itself:?}");
    let diamond = falls_back("a", "b") + &falls_back("a", "c") + &falls_back("b", "c");
    of_text(&(diamond + "[dependencies.c]\n")).load().unwrap();
}

#[test]
fn cfg_1_a_layer_that_cannot_be_read_is_a_problem_like_others() {
    let broken = problems(of_text("[gateway\nbind = 3").toml("[admin]\nbnd = 3"));
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert!(broken[0].starts_with("line 1, column "), "{broken:?}");
    let nowhere = problems(
        Settings::loader()
            .dir("no/such/folder")
            .env_vars(NO_VARIABLES),
    );
    assert_eq!(
        nowhere,
        ["there is no such folder, allowed: a folder (no/such/folder)"]
    );
    let environment = Settings::loader()
        .dir(folder())
        .env_vars([("BREAKERBOX_ENV", "prodution")]);
    let typo = problems(environment);
    assert!(
        typo[0].contains("there is no file for the environment \"prodution\""),
        "{typo:?}"
    );
    let outside = of_text("").environment("../secrets");
    assert_eq!(problems(outside).len(), 1);
    let dotenv = problems(of_text("").dotenv("no/such/.env"));
    assert!(dotenv[0].ends_with("(no/such/.env)"), "{dotenv:?}");
}

#[test]
fn cfg_1_no_value_of_any_key_is_too_odd() {
    let odd = [
        "",
        " ",
        "off",
        "0",
        "-1",
        "1e400",
        "nan",
        "99999999999999999999",
        "1e9y",
        ",,",
        "é",
    ];
    for key in Settings::keys() {
        let key = key.replace('*', "web");
        for value in odd {
            // The value is valid, or the problem names the flag or a related key.
            let Err(error) = of_text("").flag(&key, value).load() else {
                continue;
            };
            let shown = error.to_string();
            assert!(
                !error.problems().is_empty() && shown.contains("flag"),
                "{key}: {shown}"
            );
        }
    }
    for key in [
        "",
        ".",
        "a..b",
        "dependencies",
        "dependencies.web",
        "gateway.bind.port",
        "a[0]",
    ] {
        assert!(of_text("").flag(key, "1").load().is_err(), "{key}");
    }
    for index in ["4000000000", "-1", "", "x"] {
        let flag = of_text("").flag(format!("dependencies.web.fallback[{index}].kind"), "fixed");
        assert_eq!(problems(flag).len(), 1, "{index}");
    }
}

#[test]
fn cfg_1_a_misspelt_dependency_in_a_variable_is_noticed() {
    let text = "[dependencies.vector_search]\n";
    let name = "BREAKERBOX__DEPENDENCIES__VECTOR_SERACH__RETRY__MAX_ATTEMPTS";
    let found =
        problems(of_text(&(text.to_owned() + "kind = \"simulated\"")).env_vars([(name, "3")]));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("did you mean vector_search?"),
        "{found:?}"
    );
}
