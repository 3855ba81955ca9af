//! EDGE-7 and EDGE-8: what is there in place of a configuration, files that others may write, files
//! that are none, and numbers that would take memory.

use std::path::Path;

use breakerbox::Settings;

use super::check::check;
use super::{dependency, folder_with};

const WEB: &str = "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n";

/// Checks that the usual folder is refused, and returns the words.
fn refused(folder: &Path) -> String {
    let (code, out, err) = check(folder, &[], &[]);
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("has no default.toml"), "{err}");
    assert!(
        err.contains("--config") && err.contains("--simulate"),
        "{err}"
    );
    err
}

#[test]
fn edge_7_f5_nothing_is_simulated_beside_a_folder_that_has_another_file() {
    for (name, found) in [
        ("config/breakerbox.toml", "it has breakerbox.toml"),
        ("config/default.yaml", "it has default.yaml"),
        ("config/production.toml", "it has production.toml"),
    ] {
        let folder = folder_with(&[(name, WEB)]);
        let said = refused(folder.path());
        assert!(said.contains(found), "{said}");
    }
    let folder = folder_with(&[]);
    std::fs::create_dir(folder.path().join("config")).unwrap();
    assert!(refused(folder.path()).contains("it is empty"));
    let folder = folder_with(&[("config", WEB)]);
    assert!(refused(folder.path()).contains("it is a file, not a folder"));
}

#[test]
fn edge_7_f5_what_is_asked_for_or_set_otherwise_is_served_all_the_same() {
    let folder = folder_with(&[("config/app.toml", "")]);
    let (code, out, err) = check(folder.path(), &["--simulate"], &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("3 dependencies"), "{out}");
    let variables = [
        ("BREAKERBOX__DEPENDENCIES__WEB__KIND", "http"),
        ("BREAKERBOX__DEPENDENCIES__WEB__URL", "http://127.0.0.1:9"),
    ];
    let (code, out, err) = check(folder.path(), &[], &variables);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("1 dependency"), "{out}");
    let own = folder_with(&[("config/production.toml", WEB)]);
    let (code, _, err) = check(own.path(), &["--env", "production"], &[]);
    assert_eq!(code, 0, "{err}");
}

#[cfg(unix)]
#[test]
fn edge_7_f17_a_configuration_that_others_may_write_is_told() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = folder_with(&[("config/default.toml", WEB)]);
    let path = folder.path().join("config/default.toml");
    let warned = |mode: u32| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, _, err) = check(folder.path(), &[], &[]);
        assert_eq!(code, 0, "{err}");
        err
    };
    assert_eq!(warned(0o644), "");
    assert_eq!(warned(0o600), "");
    let said = warned(0o666);
    let words = "warning: others than its owner can change what is configured, its mode is 666";
    assert!(
        said.contains(words) && said.contains("default.toml"),
        "{said}"
    );
    if nix::unistd::geteuid().is_root() {
        warned(0o644);
        std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).unwrap();
        let said = warned(0o644);
        assert!(said.contains("warning: another user owns it"), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn edge_8_f11_a_state_that_is_no_file_is_refused_at_once() {
    let folder = folder_with(&[]);
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [pipe.to_str().unwrap(), "/dev/null"] {
        let text = format!("{WEB}[admin]\ntoken = \"0123456789abcdef\"\nstate = \"{path}\"\n");
        let folder = folder_with(&[("config/default.toml", &text)]);
        let (code, _, err) = check(folder.path(), &[], &[]);
        assert_eq!(code, 2, "{err}");
        assert!(
            err.contains("admin.state") && err.contains("it is not a file"),
            "{err}"
        );
    }
}

#[test]
fn mcp_6_f12_a_file_of_keys_that_no_token_could_use_is_refused() {
    let empty = folder_with(&[("keys.json", "{\"keys\": []}"), ("no.json", "hunter2")]);
    let place = |name: &str| empty.path().join(name).display().to_string();
    for (path, reason) in [
        ("/nope/keys.json".to_owned(), "there is no such file"),
        (place(""), "it is not a file"),
        (place("keys.json"), "it has no key for signatures"),
        (place("no.json"), "it is no set of keys"),
    ] {
        let jwt = format!(
            "auth = {{ jwt = {{ issuer = \"https://i\", audience = [\"a\"], jwks_file = \"{path}\" }} }}"
        );
        for (text, key) in [
            (
                format!("{WEB}{jwt}\n"),
                "dependencies.web.auth.jwt.jwks_file",
            ),
            (
                format!("{WEB}[gateway]\n{jwt}\n"),
                "gateway.auth.jwt.jwks_file",
            ),
        ] {
            let folder = folder_with(&[("config/default.toml", &text)]);
            let (code, _, err) = check(folder.path(), &[], &[]);
            assert_eq!(code, 2, "{path}: {err}");
            assert!(err.contains(key) && err.contains(reason), "{path}: {err}");
            assert!(!err.contains("hunter2"), "{err}");
        }
    }
}

#[test]
fn edge_8_f21_a_file_of_any_size_is_not_read_whole() {
    let folder = folder_with(&[("config/default.toml", WEB)]);
    let path = folder.path().join("config/default.toml");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    // No disk is taken: it has no content.
    file.set_len(3 << 30).unwrap();
    let (code, _, err) = check(folder.path(), &[], &[]);
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("it has 3072 MB") && err.contains("at most 16 MB"),
        "{err}"
    );
}

#[test]
fn edge_7_f21_no_query_of_a_probe_and_no_attached_password_is_shown() {
    let text = format!(
        "{WEB}probe.path = \"/health?token=hunter2\"\n[dependencies.kg]\nkind = \"mcp_stdio\"\n\
         command = \"mysql\"\nargs = [\"-phunter2\", \"-uroot:Hunter2\"]\n"
    );
    let folder = folder_with(&[("config/default.toml", &text)]);
    let (code, out, err) = check(folder.path(), &["--all"], &[]);
    assert_eq!(code, 0, "{err}");
    assert!(
        !(out.clone() + &err).to_lowercase().contains("hunter2"),
        "{out}"
    );
    assert!(
        out.contains("\"/health?***\"") && out.contains("[\"-p***\", \"-u***\"]"),
        "{out}"
    );
}

#[cfg(unix)]
#[test]
fn edge_8_f21_an_access_log_follows_no_link_to_nothing() {
    let folder = folder_with(&[]);
    let link = folder.path().join("access.log");
    let target = folder.path().join("elsewhere");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let text = format!("{WEB}[gateway]\naccess_log = \"{}\"\n", link.display());
    let folder = folder_with(&[("config/default.toml", &text)]);
    let (code, _, err) = check(folder.path(), &[], &[]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("it is a link to nothing"), "{err}");
    assert!(!target.exists());
}

#[test]
fn cfg_2_f8_a_change_is_told_with_a_key_and_a_value_that_a_file_can_have() {
    let old = dependency("").settings;
    let known = Settings::keys();
    for lines in [
        "breaker = { recovery_timeout = \"10s\", half_open_max_calls = 2, cancelled = \"failure\" }",
        "breaker = { window = { kind = \"count\", size = 50 } }",
        "breaker = { half_open_limit = { after = \"1m\", then = \"closes\" } }",
        "breaker.recovery_backoff = { factor = 2.0, max = \"1h\", jitter = 0.1 }",
        "classify = { throttled = [429, 420], rejected = [] }",
        "retry = { max_attempts = 2, backoff = { base = \"10ms\", jitter = 0.5 }, on = [\"connect\", 503] }",
        "hedge = { delay = \"50ms\" }",
        "rate_limit = { rate = 5, per = \"1s\" }",
        "bulkhead = { adaptive = { rule = \"aimd\", backoff = 0.5 } }",
        "throttle = { quota_reset = { at = \"00:30\", zone = \"Europe/Berlin\" } }",
        "keys = { idle = \"1m\" }",
        "workers = { quarantine = \"off\", give_up = \"retry\", intensity = { max = 9 } }",
        "override = { mode = \"open\", reason = \"a move\" }",
        "chaos = { error_rate = 0.1 }",
    ] {
        let new = dependency(lines).settings;
        let changes = [old.changes(&new), old.worker_changes(&new)].concat();
        assert!(!changes.is_empty(), "{lines}");
        for change in changes {
            let (key, values) = change.split_once(": ").expect("a key and its values");
            let (_, value) = values.split_once(" -> ").expect("both values");
            let key = format!("dependencies.*.{key}");
            let is_known =
                |known: &&String| **known == key || known.starts_with(&format!("{key}."));
            assert!(known.iter().any(|one| is_known(&one)), "{change}");
            // The new value, set by its key alone, is the same change.
            let quoted = match value.parse::<f64>().is_ok() || value.starts_with(['{', '[']) {
                true => value.to_owned(),
                false if ["true", "false"].contains(&value) => value.to_owned(),
                false => format!("{value:?}"),
            };
            let short = key.trim_start_matches("dependencies.*.");
            let again = dependency(&format!("{short} = {quoted}")).settings;
            let again = [old.changes(&again), old.worker_changes(&again)].concat();
            assert!(again.contains(&change), "{change}: {again:?}");
        }
    }
}
