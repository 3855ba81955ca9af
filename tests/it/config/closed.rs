//! EDGE-7: what cannot be meant is refused, what has no effect is told, and no secret is shown.

use std::path::Path;

use breakerbox::Settings;

use super::check::check;
use super::{NO_VARIABLES, folder_with, of_text, problems};

/// A dependency that can be served.
const WEB: &str = "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n";

/// Runs `check` with a named folder, from another working directory.
fn named(folder: &Path, variables: &[(&str, &str)]) -> (i32, String, String) {
    let elsewhere = folder_with(&[]);
    let config = folder.to_str().expect("a path in UTF-8");
    check(elsewhere.path(), &["--config", config], variables)
}

#[test]
fn edge_7_e8a_a_named_folder_without_a_configuration_is_refused() {
    let empty = folder_with(&[]);
    let (code, out, err) = named(empty.path(), &[]);
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(
        err.contains("there is no such file") && err.contains("default.toml"),
        "{err}"
    );
    let only_production = folder_with(&[("production.toml", WEB)]);
    let (code, ..) = named(only_production.path(), &[("BREAKERBOX_ENV", "production")]);
    assert_eq!(code, 2);
    let folder = folder_with(&[("default.toml/inner", "")]);
    let (code, _, err) = named(folder.path(), &[]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("it is not a file"), "{err}");
}

#[cfg(unix)]
#[test]
fn edge_7_e8a_a_file_that_is_none_is_told_in_every_folder() {
    for name in ["default.toml", "development.toml"] {
        let folder = folder_with(&[("config/other.toml", "")]);
        let link = folder.path().join("config").join(name);
        std::os::unix::fs::symlink("/nowhere/at/all.toml", link).unwrap();
        let (code, _, err) = check(folder.path(), &[], &[]);
        assert_eq!(code, 2, "{err}");
        assert!(
            err.contains("it is a link to nothing") && err.contains(name),
            "{err}"
        );
    }
}

#[test]
fn edge_7_e8a_nothing_is_simulated_outside_of_development() {
    let folder = folder_with(&[]);
    let (code, out, err) = check(folder.path(), &[], &[]);
    assert_eq!((code, &*err), (0, ""));
    assert!(out.contains("the built-in default.toml:"), "{out}");
    assert!(out.contains("is valid: 3 dependencies"), "{out}");
    for environment in ["production", "staging", "test"] {
        let (code, out, err) = check(folder.path(), &["--env", environment], &[]);
        assert_eq!((code, &*out), (2, ""), "{err}");
        assert!(err.contains("there is no configuration"), "{err}");
    }
    // On request they are.
    let kind = [("BREAKERBOX__DEPENDENCIES__WEB__KIND", "simulated")];
    let (code, out, err) = check(folder.path(), &["--env", "production"], &kind);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("is valid: 1 dependency"), "{out}");
}

#[test]
fn edge_7_e8b_of_dotenv_only_our_lines_are_read() {
    let foreign = [
        "APP_NAME=My App",
        "GREETING=it's fine",
        "export PATH=$PATH:/opt",
        "KEY: value",
        "OPEN=\"never closed",
        "no value at all",
    ];
    let ours = "export BREAKERBOX__DEPENDENCIES__WEB__BULKHEAD__MAX_CONCURRENT=3\n  BREAKERBOX__DEPENDENCIES__WEB__RETRY__MAX_ATTEMPTS='2'\n";
    let text = format!(
        "\u{feff}{}\n{ours}{}\n",
        foreign.join("\n"),
        foreign.join("\r\n")
    );
    let files = [("config/default.toml", WEB), (".env", &text)];
    let folder = folder_with(&files);
    let mut bytes = std::fs::read(folder.path().join(".env")).unwrap();
    bytes.extend(b"LATIN=\xe9\n");
    std::fs::write(folder.path().join(".env"), bytes).unwrap();
    let (code, out, err) = check(folder.path(), &[], &[]);
    assert_eq!((code, &*err), (0, ""));
    assert!(out.contains("read .env\n"), "{out}");
    let line = out.lines().find(|line| line.contains("retry.max_attempts"));
    assert!(line.is_some_and(|line| line.contains("\"2\"")), "{line:?}");

    let several = "BREAKERBOX__OTEL__SERVICE_NAME=\"one\nOTHER=two\"\nX=\"\n";
    std::fs::write(folder.path().join(".env"), several).unwrap();
    let (code, out, err) = check(folder.path(), &[], &[]);
    assert_eq!(code, 0, "{err}");
    // SEC-1: a text in several lines is not shown.
    let name = out
        .lines()
        .find(|line| line.starts_with("otel.service_name"));
    assert!(name.is_some_and(|line| line.contains("= ***")), "{out}");
}

#[test]
fn edge_7_e8b_dotenv_is_read_from_the_folder_of_the_configuration_only() {
    let token = "BREAKERBOX__ADMIN__TOKEN=a-token-of-many-letters\n";
    let folder = folder_with(&[("own/default.toml", WEB), (".env", token)]);
    let (code, out, _) = check(folder.path(), &["--config", "own"], &[]);
    assert_eq!(code, 0);
    assert!(!out.contains("***") && !out.contains(".env"), "{out}");
    std::fs::write(folder.path().join("own/.env"), token).unwrap();
    let (code, out, _) = check(folder.path(), &["--config", "own"], &[]);
    assert_eq!(code, 0);
    assert!(
        out.contains("read own/.env") && out.contains("***"),
        "{out}"
    );
}

#[cfg(unix)]
#[test]
fn edge_7_e8b_a_dotenv_of_others_is_ignored_with_a_warning() {
    let token = "BREAKERBOX__ADMIN__TOKEN=a-token-of-many-letters\n";
    let folder = folder_with(&[("default.toml", WEB), (".env", token)]);
    let path = folder.path().join(".env");
    let ignored = |reason: &str| {
        let (code, out, err) = named(folder.path(), &[]);
        assert_eq!(code, 0, "{err}");
        assert!(
            err.contains("warning: it is ignored") && err.contains(reason),
            "{err}"
        );
        assert!(!out.contains("***") && !out.contains(".env"), "{out}");
    };
    for mode in [0o666, 0o620, 0o602] {
        super::credentials::set_mode(&path, mode);
        ignored("others than its owner may write it");
    }
    super::credentials::set_mode(&path, 0o644);
    // Only the superuser may give a file away.
    if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
        ignored("another user owns it");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    ignored("it is not a file");
}

#[test]
fn edge_7_e8d_names_are_bounded_before_they_take_memory() {
    let long = "A__".repeat(4000);
    let odd = ["999999999", "-1", "", "x", "+1", "1000", " 1"];
    let odd = odd.map(|index| format!("DEPENDENCIES__WEB__FALLBACK[{index}]__KIND"));
    for name in odd.iter().chain([&long]) {
        let name = format!("BREAKERBOX__{name}");
        let found = problems(of_text(WEB).env_vars([(&*name, "fixed")]));
        assert_eq!(found.len(), 1, "{name}");
        assert!(found[0].len() < 600, "{name}");
    }
    let sane = "BREAKERBOX__DEPENDENCIES__WEB__FALLBACK[0]__KIND";
    of_text(WEB).env_vars([(sane, "fixed")]).load().unwrap();
}

#[test]
fn edge_7_e8e_no_secret_is_shown_wherever_it_was_written() {
    let words = [
        "args = ['--token', 'hunter2secret']",
        "args = ['--api-key=hunter2secret', '-p', 'hunter2secret']",
        "args = '--password hunter2secret'",
        "args = ['postgresql+asyncpg://me:hunter2secret@host/db']",
        "command = 'x --token=hunter2secret'",
        "env = { A = 'hunter2secret' }",
        "env = 'hunter2secret'",
        "url = 'me:hunter2secret@host'",
        "url = 'http://me:hunter2secret|x@host'",
        "url = { a = 'hunter2secret' }",
        "passphrase = 'hunter2secret'",
        "unknwon = 'hunter2secret'",
        "unknown = { deep = ['hunter2secret'] }",
        "[dependencies.d.breaker]\nwindow = ['hunter2secret']\npin = 'hunter2secret'",
        "[hunter]\nx = 'hunter2secret'",
    ];
    for words in words {
        let command = if words.starts_with("command") {
            ""
        } else {
            "command = 'x'\n"
        };
        let text = format!("[dependencies.d]\nkind = 'mcp_stdio'\n{command}{words}\n");
        let folder = folder_with(&[("default.toml", &text)]);
        let (_, out, err) = named(folder.path(), &[]);
        assert!(
            !format!("{out}{err}").contains("hunter2secret"),
            "{words}: {out}{err}"
        );
        assert!(
            format!("{out}{err}").contains("***") || words.contains("window"),
            "{words}"
        );
    }
    let variables = [
        ("BREAKERBOX_ADMIN_TOKEN", "hunter2secret"),
        ("BREAKERBOX__ADMIN__TOKN", "hunter2secret"),
    ];
    let folder = folder_with(&[("default.toml", WEB)]);
    let (code, out, err) = named(folder.path(), &variables);
    assert_eq!(code, 2);
    assert!(!format!("{out}{err}").contains("hunter2secret"), "{err}");
}

#[test]
fn edge_7_e8e_no_name_moves_a_terminal() {
    let text = "\"a\\u001b[2J\\u202e\" = 1\n[dependencies.web]\nkind = \"http\"\n\
                url = \"http://127.0.0.1:9\"\n\
                fallback = [{ kind = \"fixed\", body = \"\\u202e\\u009b2J\" }]\n";
    let folder = folder_with(&[("default.toml", text)]);
    let (_, out, err) = named(folder.path(), &[]);
    assert!(err.contains(r"a\u{1b}[2J\u{202e}: given"), "{err}");
    let folder = folder_with(&[("default.toml", text.split_once('\n').unwrap().1)]);
    let (code, shown, _) = named(folder.path(), &[]);
    assert_eq!(code, 0);
    assert!(shown.contains(r"\u{202e}\u{9b}2J"), "{shown}");
    let moving = ['\u{1b}', '\u{202e}', '\u{9b}'];
    assert!(!format!("{out}{err}{shown}").contains(moving));
}

/// The warnings about a dependency with these keys.
fn warnings(keys: &str) -> Vec<String> {
    let text = format!("{WEB}{keys}\n[dependencies.other]\nkind = \"simulated\"\n");
    let settings = of_text(&text)
        .load()
        .unwrap_or_else(|error| panic!("{error}"));
    settings
        .warnings()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn edge_8_e9b_a_setting_without_effect_is_told() {
    let cases = [
        (
            "idempotent = []\nretry.max_attempts = 3",
            "retry.max_attempts",
        ),
        ("idempotent = []\nhedge.delay = \"50ms\"", "hedge.delay"),
        ("retry.on_open = true", "retry.on_open"),
        (
            "fallback = [{ kind = \"dependency\", name = \"other\" }]",
            "fallback[0].name",
        ),
        ("breaker.slow_call = \"1s\"", "breaker.slow_call"),
        ("breaker.minimum_calls = 5", "breaker.minimum_calls"),
        (
            "breaker.failure_threshold = \"off\"",
            "breaker.failure_threshold",
        ),
        ("classify.failure = []", "classify.failure"),
        (
            "retry = { max_attempts = 2, budget = \"off\" }",
            "retry.budget",
        ),
        (
            "retry = { max_attempts = 2, respect_retry_after = false }",
            "retry.respect_retry_after",
        ),
        (
            "timeout = { attempt = \"off\", total = \"off\", first_byte = \"off\" }",
            "timeout.total",
        ),
        (
            "fallback = [{ kind = \"fixed\", status = 204, body = \"x\" }]",
            "fallback[0].body",
        ),
        (
            "fallback = [{ kind = \"fixed\", status = 304, body = \"x\" }]",
            "fallback[0].body",
        ),
        (
            "fallback = [{ kind = \"stale_cache\", headers = [\"x-a\", \"!x-a\"] }]",
            "fallback[0].headers: !x-a has no effect",
        ),
        (
            "headers = { x-a = \"b\" }\nremove_headers = [\"X-A\"]",
            "remove_headers",
        ),
        (
            "headers = { authorization = \"\" }",
            "headers.authorization",
        ),
        ("probe = { path = \"/../x\" }", "probe.path"),
    ];
    for (keys, key) in cases {
        let found = warnings(keys);
        assert_eq!(found.len(), 1, "{keys}: {found:?}");
        let begin = format!("dependencies.web.{key}");
        assert!(found[0].starts_with(&begin), "{keys}: {found:?}");
    }
    for keys in [
        "",
        "retry.max_attempts = 3",
        "hedge.delay = \"50ms\"",
        "fallback = [{ kind = \"fixed\", status = 204 }]",
        "headers = { x-a = \"\" }\nremove_headers = [\"x-b\"]",
        "fallback = [{ kind = \"dependency\", name = \"other\", writes = true }]",
        "fallback = [{ kind = \"dependency\", name = \"other\", writes = false }]",
    ] {
        assert_eq!(warnings(keys), Vec::<String>::new(), "{keys}");
    }
}

#[test]
fn edge_8_e9b_the_safe_methods_of_http_are_idempotent() {
    let methods = |keys: &str| {
        let settings = of_text(&format!("{WEB}{keys}")).load().unwrap();
        settings.dependencies["web"].idempotent.clone()
    };
    assert_eq!(methods(""), ["GET", "HEAD", "OPTIONS"]);
    assert_eq!(methods("idempotent = [\"PUT\"]"), ["PUT"]);
    assert!(methods("idempotent = []").is_empty());
    let none = of_text("[dependencies.web]\n").load().unwrap();
    assert!(none.dependencies["web"].idempotent.is_empty());
}

#[test]
fn edge_7_e9b_unknown_variables_of_ours_are_told() {
    let variables = [
        ("BREAKERBOX_ADMIN_TOKEN", "a-token-of-many-letters"),
        ("Breakerbox__Admin__Bind", "127.0.0.1:1"),
        ("BREAKERBOX_ENVIRONMENT", "production"),
        ("BREAKERBOX_COLOUR", "red"),
        ("BREAKERBOX_SERVICE_HOST", "10.0.0.1"),
        ("BREAKERBOX_PORT", "tcp://10.0.0.1:7070"),
        ("BREAKERBOX_PORT_7070_TCP_ADDR", "10.0.0.1"),
        ("OTHER_BREAKERBOX_X", "1"),
    ];
    let settings = of_text(WEB).env_vars(variables).load().unwrap();
    let found: Vec<String> = settings
        .warnings()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found.len(), 4, "{found:?}");
    let advice = [
        (
            "BREAKERBOX_ADMIN_TOKEN)",
            "did you mean BREAKERBOX__ADMIN__TOKEN?",
        ),
        (
            "Breakerbox__Admin__Bind)",
            "did you mean BREAKERBOX__ADMIN__BIND?",
        ),
        ("BREAKERBOX_ENVIRONMENT)", "did you mean BREAKERBOX_ENV?"),
        (
            "BREAKERBOX_COLOUR)",
            "allowed: BREAKERBOX_ENV, or BREAKERBOX__SECTION__KEY",
        ),
    ];
    for (name, text) in advice {
        let mut all = found.iter();
        assert!(
            all.any(|line| line.contains(name) && line.contains(text)),
            "{name}: {found:?}"
        );
    }
    let folder = folder_with(&[("default.toml", WEB), (".env", "BREAKERBOX_COLOUR=red\n")]);
    let (code, _, err) = named(folder.path(), &[]);
    assert_eq!(code, 0);
    assert!(
        err.contains("warning: unknown variable") && err.contains(".env: BREAKERBOX_COLOUR)"),
        "{err}"
    );
}

#[test]
fn edge_7_e8a_check_refuses_what_serve_refuses() {
    let cases = [
        (
            "[dependencies.web]\n",
            "dependencies.web.kind: it is missing",
        ),
        ("[admin]\nbind = \"0.0.0.0:7071\"\n", "admin.bind"),
        (
            "[dependencies.web]\nkind = \"http\"\nurl = \"http://a:b:1\"\n",
            "dependencies.web.url",
        ),
    ];
    for (text, told) in cases {
        let folder = folder_with(&[("default.toml", text)]);
        let (code, out, err) = named(folder.path(), &[]);
        assert_eq!((code, &*out), (2, ""), "{text}{err}");
        assert!(err.contains(told), "{text}{err}");
    }
    let folder = folder_with(&[("default.toml", WEB)]);
    let (code, _, err) = named(folder.path(), &[("RUST_LOG", "breakerbox=loud")]);
    assert_eq!(code, 2, "{err}");
    // A program with its own code needs no kind.
    let folder = folder_with(&[("config/default.toml", "[dependencies.web]\n")]);
    let (code, _, err) = check(folder.path(), &["--library"], &[]);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn edge_7_e8c_check_sees_what_the_recorder_would_refuse() {
    let header = "{\"header\":{\"format\":1,\"version\":\"0.1.0\",\"started\":\"today\"}}\n";
    for (name, text, code) in [
        ("precious/file", "x", 2),
        ("precious", "notes of mine\n", 2),
        ("precious.1", "notes of mine\n", 2),
        ("precious", header, 0),
        ("precious", "", 0),
        ("other", "x", 0),
    ] {
        let folder = folder_with(&[(name, text)]);
        let path = folder.path().join("precious");
        let text = format!("[recorder]\npath = {:?}\n{WEB}", path.to_str().unwrap());
        let own = folder_with(&[("default.toml", &text)]);
        let (ended, _, err) = named(own.path(), &[]);
        assert_eq!(ended, code, "{name}: {err}");
        assert!(code == 0 || err.contains("recorder.path: given"), "{err}");
    }
}

#[test]
fn edge_7_e8b_a_library_reads_dotenv_from_its_folder_too() {
    let line = "BREAKERBOX__DEPENDENCIES__WEB__RETRY__MAX_ATTEMPTS=2\n";
    let folder = folder_with(&[("default.toml", WEB), ("named.env", line)]);
    let loader = Settings::loader().dir(folder.path()).env_vars(NO_VARIABLES);
    let attempts = |settings: Settings| settings.dependencies["web"].settings.retry.max_attempts;
    assert_eq!(attempts(loader.load().unwrap()).get(), 1);
    let named = loader.dotenv(folder.path().join("named.env"));
    assert_eq!(attempts(named.load().unwrap()).get(), 2);
}
