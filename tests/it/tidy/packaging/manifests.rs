//! The configurations in manifests, as `breakerbox check` judges them.

use std::process::Command;

use super::text;

/// Returns the text below the key `default.toml` or `production.toml` of a manifest, without
/// its indentation.
fn block(manifest: &str, key: &str) -> String {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut lines = manifest.lines();
    lines
        .by_ref()
        .find(|line| line.trim_start().starts_with(&format!("{key}:")))
        .unwrap_or_else(|| panic!("no {key}"));
    let lines: Vec<&str> = lines.filter(|line| line.trim() != "content: |").collect();
    let deep = indentation(lines[0]);
    assert!(deep > 0, "no text below {key}");
    let end = lines
        .iter()
        .position(|line| !line.trim().is_empty() && indentation(line) < deep);
    let inside = lines[..end.unwrap_or(lines.len())].iter();
    inside
        .map(|line| line.get(deep..).unwrap_or_default().to_owned() + "\n")
        .collect()
}

/// Returns the variables that a manifest sets; one from a secret is a token.
fn variables(manifest: &str) -> Vec<(String, String)> {
    let lines = manifest
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let found = lines.filter_map(|line| {
        let (_, rest) = line.split_once("BREAKERBOX__")?;
        let end = rest.find([',', ':', '=']).unwrap_or(rest.len());
        let name = format!("BREAKERBOX__{}", &rest[..end]);
        let value = rest[end..].trim_start_matches([',', ':', '=', ' ']);
        let value = value
            .trim_start_matches("value: ")
            .trim_end_matches([' ', '}']);
        let value = value.trim_matches('"');
        let is_secret = value.is_empty() || value.contains('$');
        let value = if is_secret {
            "a-token-of-many-letters"
        } else {
            value
        };
        Some((name, value.to_owned()))
    });
    found.collect()
}

/// Runs `check` on two files and these variables: its exit code and what it says.
fn check(default: &str, production: &str, variables: &[(String, String)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::write(folder.path().join("default.toml"), default).expect("written");
    std::fs::write(folder.path().join("production.toml"), production).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    command.args(["check", "--env", "production", "--config"]);
    command.arg(folder.path()).current_dir(folder.path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BREAKERBOX_") {
            command.env_remove(name);
        }
    }
    let all = variables.iter().map(|(name, value)| (name, value));
    let output = command.envs(all).output().expect("the command starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), told)
}

/// Checks what was judged: it can be used, each variable is known, and each setting has an effect.
#[track_caller]
fn expect_use(place: &str, (code, told): &(Option<i32>, String)) {
    assert_eq!(*code, Some(0), "{place}: {told}");
    let odd = ["BREAKERBOX__", "no effect"];
    assert!(!odd.iter().any(|odd| told.contains(odd)), "{place}: {told}");
}

#[test]
fn every_manifest_has_a_configuration_that_can_be_used() {
    let image = variables(&text("packaging/Containerfile"));
    assert_eq!(image.len(), 1, "{image:?}");
    for (path, own) in [
        ("packaging/kubernetes/deployment.yaml", 3),
        ("packaging/kubernetes/sidecar.yaml", 3),
        ("packaging/compose.yaml", 3),
    ] {
        let manifest = text(path);
        let set = variables(&manifest);
        assert_eq!(set.len(), own, "{path}: {set:?}");
        let default = block(&manifest, "default.toml");
        assert!(default.contains("[dependencies.payments]\n"), "{default}");
        let all = [image.clone(), set].concat();
        let judged = check(&default, &block(&manifest, "production.toml"), &all);
        expect_use(path, &judged);
    }
}

#[test]
fn the_debian_configuration_can_be_used_once_it_is_filled_in() {
    let marked = text("packaging/debian/default.toml");
    let production = text("packaging/debian/production.toml");
    let is_setting = |line: &&str| line.starts_with("# [") || line.contains(" = ");
    let filled = marked.lines().filter(is_setting);
    let filled = filled.map(|line| line.trim_start_matches("# ").to_owned() + "\n");
    let filled: String = filled.collect();
    assert!(filled.contains("\nurl = "), "{filled}");
    expect_use(&filled, &check(&filled, &production, &[]));
}

#[test]
fn a_manifest_with_a_mistake_is_found() {
    let manifest = text("packaging/compose.yaml").replace("failure_threshold", "failures");
    let (code, told) = check(&block(&manifest, "default.toml"), "", &[]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("failures"), "{told}");
}
