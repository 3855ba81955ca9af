//! The repository's structure: sizes, borders and names, imports, language and rules.
//!
//! All is counted by patterns in the sources; nothing here compiles or runs them.

use std::path::{Path, PathBuf};

mod circles;
mod facade;
mod functions;
mod imports;
mod language;
mod layout;
mod names;
mod packaging;
mod repeats;
mod rules;
mod source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    let text = std::fs::read_to_string(path);
    text.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Returns every file of a folder whose name has this ending, as paths below the root.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a readable folder entry").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(
                    path.strip_prefix(root())
                        .expect("below the root")
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

/// Fails with a headline and a line for each offence.
#[track_caller]
fn expect_none(headline: &str, offences: &[String]) {
    let (count, lines) = (offences.len(), offences.join("\n  "));
    assert!(offences.is_empty(), "{headline}\n  {lines}\n{count} in all");
}

fn sources() -> Vec<PathBuf> {
    let folders = [
        "policy", "actors", "macros", "src", "tests", "examples", "benches",
    ];
    folders
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .collect()
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let lines = |path: &PathBuf| read(&root().join(path)).lines().count();
    let long: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| lines(path) > 600)
        .collect();
    assert_eq!(long, Vec::<PathBuf>::new());
}

#[test]
fn no_module_is_called_mod() {
    let old: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| path.ends_with("mod.rs"))
        .collect();
    assert_eq!(old, Vec::<PathBuf>::new());
}

/// The map has a table for each package; a row names a module and the parts below it.
#[test]
fn every_module_is_on_the_map() {
    let map = read(&root().join("docs/architecture.md"));
    let mut missing = Vec::new();
    for package in ["policy/src", "actors/src", "macros/src", "src"] {
        let heading = format!("\n### {package}\n");
        let (_, table) = map.split_once(&heading).expect("a table for each package");
        let table = table.split("\n#").next().unwrap_or(table);
        for path in files(package, ".rs") {
            let below = path.strip_prefix(package).expect("a file of the package");
            let below = below.with_extension("");
            let names: Vec<_> = below.iter().map(|name| name.to_string_lossy()).collect();
            let test = names
                .iter()
                .any(|name| name == "tests" || name == "gate_tests");
            if test || names == ["lib"] {
                continue;
            }
            let row = format!("| `{}` |", names[0]);
            let row = table
                .lines()
                .find(|line| line.starts_with(&row))
                .unwrap_or("");
            if !names.iter().all(|name| row.contains(&format!("`{name}`"))) {
                missing.push(path);
            }
        }
    }
    assert_eq!(
        missing,
        Vec::<PathBuf>::new(),
        "not in docs/architecture.md"
    );
}

#[test]
fn the_kernel_knows_no_clock_and_no_runtime() {
    let banned = [
        "std::time::Instant",
        "SystemTime",
        "tokio",
        "actix",
        "rand::",
        "fastrand",
    ];
    let mut found = Vec::new();
    for path in files("policy/src", ".rs") {
        let text = read(&root().join(&path));
        let code = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("//"));
        found.extend(code.filter_map(|line| {
            let word = banned.iter().find(|word| line.contains(**word))?;
            Some(format!("{}: {word}", path.display()))
        }));
    }
    let manifest = read(&root().join("policy/Cargo.toml"));
    found.extend(
        banned
            .iter()
            .filter(|word| manifest.contains(**word))
            .map(|w| (*w).to_owned()),
    );
    assert_eq!(found, Vec::<String>::new());
}

/// The connector of hyper-util waits for each address of a server in its turn, however long it is silent.
#[test]
fn edge_3_e12a_each_client_asks_the_addresses_of_a_server_side_by_side() {
    let waits = |path: &PathBuf| read(&root().join(path)).contains("HttpConnector");
    let found: Vec<PathBuf> = files("src", ".rs").into_iter().filter(waits).collect();
    assert_eq!(
        found,
        Vec::<PathBuf>::new(),
        "TcpConnector is the one to use"
    );
}

#[test]
fn no_file_knows_a_place_on_somebodys_machine() {
    // Put together here, so that this file does not hold what it looks for.
    let places = ["work", "home", "root", "Users"].map(|place| format!("/{place}/"));
    let worktree = ["/tmp", "wt-"].join("/");
    let endings = [
        ".rs", ".md", ".toml", ".json", ".yml", ".html", ".js", ".css", "run",
    ];
    let mut found = Vec::new();
    for path in endings.iter().flat_map(|ending| files("", ending)) {
        let text = read(&root().join(&path));
        let known = places.iter().chain([&worktree]);
        if let Some(place) = known
            .into_iter()
            .find(|place| text.contains(place.as_str()))
        {
            found.push(format!("{}: {place}", path.display()));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
