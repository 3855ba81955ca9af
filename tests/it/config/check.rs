//! `breakerbox check` as a user runs it.

use std::path::Path;
use std::process::Command;

use super::folder_with;

/// Runs the command in its own folder: exit code, standard output, standard error.
pub(super) fn check(
    folder: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    command
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BREAKERBOX_") {
            command.env_remove(name);
        }
    }
    let output = command.envs(variables.iter().copied()).output();
    let output = output.expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    let code = output.status.code().expect("it ends by itself");
    (code, text(output.stdout), text(output.stderr))
}

/// The displayed value and origin of a key.
fn shown<'o>(out: &'o str, key: &str) -> (&'o str, &'o str) {
    let line = out.lines().find(|line| line.split(' ').next() == Some(key));
    let line = line.unwrap_or_else(|| panic!("{key} is not shown:\n{out}"));
    let (_, rest) = line.split_once(" = ").expect("a value");
    let (value, origin) = rest.split_once("  # ").expect("an origin");
    (value.trim(), origin)
}

#[test]
fn item_93_check_shows_every_value_and_who_gave_it() {
    let timeout = "BREAKERBOX__DEPENDENCIES__WEB__BREAKER__RECOVERY_TIMEOUT";
    let calls = "BREAKERBOX__DEPENDENCIES__WEB__BREAKER__MINIMUM_CALLS";
    let token = "a-token-of-many-letters";
    let dotenv = format!("{timeout}=4s\n{calls}=4\nBREAKERBOX__ADMIN__TOKEN={token}\n");
    let breaker = "[dependencies.web.breaker]\nfailure_threshold = 3\n\
                   recovery_timeout = \"3s\"\nminimum_calls = 3\n";
    let folder = folder_with(&[("config/default.toml", breaker), (".env", &dotenv)]);
    let (code, out, err) = check(folder.path(), &["--library", "--all"], &[(timeout, "5s")]);
    assert_eq!(code, 0, "{err}");
    let warning = "breakerbox: warning: dependencies.web.breaker.minimum_calls: it has no effect";
    assert!(
        err.starts_with(warning) && err.lines().count() == 1,
        "{err}"
    );
    let head = "environment development\nread config/default.toml\nread .env\n";
    assert!(out.starts_with(head), "{out}");
    let of = |key: &str| shown(&out, &format!("dependencies.web.breaker.{key}"));
    assert_eq!(of("failure_threshold"), ("3", "config/default.toml:2"));
    assert_eq!(of("minimum_calls").0, "\"4\"");
    assert_eq!(of("minimum_calls").1, format!(".env: {calls}"));
    assert_eq!(of("recovery_timeout").0, "\"5s\"");
    assert_eq!(
        of("recovery_timeout").1,
        format!("environment variable {timeout}")
    );
    assert_eq!(of("half_open_max_calls"), ("1", "built-in default"));
    assert_eq!(
        shown(&out, "dependencies.web.hedge"),
        ("\"off\"", "built-in default")
    );
    assert_eq!(shown(&out, "admin.token").0, "***");
    assert!(!out.contains(token), "a secret is shown: {out}");
    let keys: Vec<&str> = out.lines().filter(|line| line.contains("  # ")).collect();
    assert!(keys.is_sorted() && keys.len() > 80, "{out}");
    let last = out.lines().last().expect("a summary");
    let expected = format!(
        "the configuration is valid: 1 dependency, 4 of {} values set",
        keys.len()
    );
    assert_eq!(last, expected);
}

#[test]
fn item_94_check_ends_with_2_and_tells_everything_at_once() {
    let default = "[dependencies.web.breaker]\nfailure_threshold = 0\nrecovery_tmeout = \"3s\"\n";
    let staging = "[dependencies.web.timeout]\ntotal = \"-1s\"\n";
    let files = [
        ("config/default.toml", default),
        ("config/staging.toml", staging),
    ];
    let folder = folder_with(&files);
    let (code, out, err) = check(folder.path(), &["--env", "staging"], &[]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    for place in ["default.toml:2)", "default.toml:3)", "staging.toml:2)"] {
        assert!(err.contains(place), "{place}: {err}");
    }
    let tail = "environment staging\nread config/default.toml\nread config/staging.toml\n";
    assert!(err.ends_with(tail), "{err}");
}

#[cfg(unix)]
#[test]
fn item_95_check_tells_of_keys_that_cannot_be_used_or_are_exposed() {
    let text = "[dependencies.web]\ncredentials = \"key.json\"\n";
    let folder = folder_with(&[("config/default.toml", text), ("key.json", "{}")]);
    let (code, _, err) = check(folder.path(), &["--library"], &[]);
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("credentials: given \"key.json\", it lacks type, project_id"),
        "{err}"
    );

    let path = folder.path().join("key.json");
    std::fs::write(&path, super::credentials::key(&[])).unwrap();
    super::credentials::set_mode(&path, 0o644);
    let (code, out, err) = check(folder.path(), &["--library"], &[]);
    assert_eq!(code, 0, "{err}");
    let warning =
        "breakerbox: warning: dependencies.web.credentials: others than its owner may read it";
    assert!(
        err.starts_with(warning) && err.lines().count() == 1,
        "{err}"
    );
    assert!(
        !format!("{out}{err}").contains(super::credentials::SECRET),
        "{out}{err}"
    );
}

#[test]
fn item_97_check_shows_the_environment_and_what_it_changes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut timeouts = Vec::new();
    for name in ["development", "test", "production"] {
        for (arguments, variables) in [
            (&["--env", name][..], &[][..]),
            (&[], &[("BREAKERBOX_ENV", name)]),
        ] {
            let (code, out, err) = check(folder, arguments, variables);
            assert_eq!(code, 0, "{err}");
            let head =
                format!("environment {name}\nread config/default.toml\nread config/{name}.toml\n");
            assert!(out.starts_with(&head), "{out}");
            let timeout = shown(&out, "dependencies.vector_search.breaker.recovery_timeout");
            timeouts.push(timeout.0.to_owned());
        }
    }
    assert_eq!(
        timeouts,
        [
            "\"5s\"",
            "\"5s\"",
            "\"100ms\"",
            "\"100ms\"",
            "\"30s\"",
            "\"30s\""
        ]
    );
}

#[test]
fn item_93_check_shows_what_is_set_unless_all_is_asked_for() {
    let text = "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n\
                timeout.attempt = 5000\n[dependencies.other]\nkind = \"http\"\n\
                url = \"http://127.0.0.1:9\"\n";
    let folder = folder_with(&[("config/default.toml", text)]);
    let (code, out, err) = check(folder.path(), &[], &[]);
    assert_eq!(code, 0, "{err}");
    let keys: Vec<&str> = out.lines().filter(|line| line.contains("  # ")).collect();
    assert_eq!(keys.len(), 5, "{out}");
    let attempt = shown(&out, "dependencies.web.timeout.attempt");
    assert_eq!(attempt, ("5000 s (1h 23m 20s)", "config/default.toml:4"));
    assert!(err.contains("did you mean \"5000ms\"?"), "{err}");
    assert!(
        out.ends_with("values set; --all shows every one\n"),
        "{out}"
    );

    let (code, all, _) = check(folder.path(), &["--all"], &[]);
    assert_eq!(code, 0);
    assert!(all.lines().count() > 200, "{all}");
    let (code, one, _) = check(folder.path(), &["web"], &[]);
    assert_eq!(code, 0);
    assert!(
        one.contains("dependencies.web.breaker.failure_threshold"),
        "{one}"
    );
    assert!(
        !one.contains("dependencies.other") && !one.contains("gateway.bind"),
        "{one}"
    );
    let (code, out, err) = check(folder.path(), &["wab"], &[]);
    assert_eq!((code, &*out), (2, ""));
    assert!(
        err.contains("there is no dependency wab, did you mean web?"),
        "{err}"
    );
}

#[test]
fn edge_7_a_program_without_any_configuration_is_warned() {
    let folder = folder_with(&[]);
    let (code, _, err) = check(folder.path(), &["--library"], &[]);
    assert_eq!(code, 0);
    assert!(
        err.contains("nothing is configured: there is neither a file"),
        "{err}"
    );
    let retries = [("BREAKERBOX__DEPENDENCIES__WEB__RETRY__MAX_ATTEMPTS", "2")];
    let (_, _, err) = check(folder.path(), &["--library"], &retries);
    assert!(!err.contains("nothing is configured"), "{err}");
}

#[test]
fn item_93_check_prints_json_for_programs() {
    let text = "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n";
    let folder = folder_with(&[("config/default.toml", text)]);
    let (code, out, err) = check(folder.path(), &["--json"], &[]);
    assert_eq!((code, &*err), (0, ""));
    let valid: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&valid["valid"], &valid["environment"]),
        (&true.into(), &"development".into())
    );
    assert_eq!(valid["dependencies"], serde_json::json!(["web"]));
    assert_eq!(valid["values"][0]["key"], "dependencies.web.kind");
    assert_eq!(valid["values"][0]["origin"], "config/default.toml:2");
    let (_, all, _) = check(folder.path(), &["--json", "--all"], &[]);
    let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
    assert!(
        all["values"]
            .as_array()
            .is_some_and(|values| values.len() > 100),
        "{all}"
    );

    let bad = format!("{text}retries = 3\n");
    std::fs::write(folder.path().join("config/default.toml"), bad).unwrap();
    let (code, out, err) = check(folder.path(), &["--json"], &[]);
    assert_eq!((code, &*err), (2, ""));
    let refused: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let problem = &refused["problems"][0];
    assert_eq!(
        (&refused["valid"], &problem["key"]),
        (&false.into(), &"dependencies.web.retries".into())
    );
    assert_eq!(problem["origin"], "config/default.toml:4");
    // What can be read and cannot be served.
    std::fs::write(
        folder.path().join("config/default.toml"),
        "[dependencies.web]\n",
    )
    .unwrap();
    let (code, out, _) = check(folder.path(), &["--json"], &[]);
    assert_eq!(code, 2);
    let refused: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let text = refused["problems"][0]["text"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("dependencies.web.kind: it is missing"),
        "{out}"
    );
}

#[test]
fn edge_6_edge_7_json_has_every_warning_of_the_text() {
    let folder = folder_with(&[("config/default.toml", "")]);
    let filter = [("RUST_LOG", "inof")];
    let (code, out, err) = check(folder.path(), &["--json", "--library"], &filter);
    assert_eq!((code, &*err), (0, ""));
    let valid: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let warnings = valid["warnings"].as_array().expect("a list");
    let has = |key: &str, words: &str| {
        let mut all = warnings.iter();
        all.any(|one| one["key"] == key && one["text"].as_str().unwrap().contains(words))
    };
    assert!(has("RUST_LOG", "did you mean info?"), "{out}");
    assert!(has("dependencies", "nothing can be called"), "{out}");
}

#[test]
fn whoever_has_read_enough_is_not_scolded() {
    let folder = folder_with(&[]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BREAKERBOX_") {
            command.env_remove(name);
        }
    }
    let output = command
        .arg("check")
        .current_dir(folder.path())
        .stdout(writer)
        .output();
    let output = output.expect("the command starts");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
