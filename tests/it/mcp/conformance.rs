//! The official conformance suite in front of the gateway, in both dialects.
//!
//! It needs node 22, which comes as a package beside the suite.

use std::process::{Command, Stdio};

use super::install::NodeProgram;
use super::*;
use crate::gateway::serve::{Sidecar, command, configured};
use crate::tools;

/// Runs the scenarios of a revision. Returns the failed ones and the number of those that passed.
fn run(suite: &NodeProgram, url: &str, revision: &str) -> (Vec<String>, usize) {
    let program = "@modelcontextprotocol/conformance/dist/index.js";
    let program = suite.modules.join(program);
    let mut command = Command::new(&suite.node);
    command.arg(program).args(["server", "--url", url]);
    let ended = command
        .args(["--requirements", revision])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let summary = said.split("=== SUMMARY ===").nth(1);
    let summary = summary.unwrap_or_else(|| panic!("{said}"));
    // Scenarios of extensions are not scored.
    let (scored, others) = summary.split_once("\nNot scored").unwrap_or((summary, ""));
    let names = |text: &str, mark: &str| {
        let lines = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(mark));
        let names = lines.filter_map(|line| line.split([':', ' ']).find(|name| !name.is_empty()));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let unscored = [names(others, "✗"), names(others, "✓")].concat();
    let scored = |mark| {
        let mut names = names(scored, mark);
        names.retain(|name| !unscored.contains(name));
        names
    };
    (scored("✗"), scored("✓").len())
}

fn holds(revision: &str, least: usize) {
    let folder = folder();
    let Some(suite) = install::conformance() else {
        return;
    };
    if tools::find(&["python3"]).is_none() {
        return;
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mcp_conformance.py");
    let text = format!(
        "[dependencies.fixture]\nkind = \"mcp_stdio\"\ncommand = \"python3\"\n\
         args = [\"-u\", {program:?}, {revision:?}]\n"
    );
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let (failed, passed) = run(&suite, &sidecar.url("/fixture/mcp"), revision);
    assert_eq!(failed, <[&str; 0]>::default(), "{passed} scenarios passed");
    assert!(passed >= least, "{passed} scenarios passed");
}

#[test]
fn mcp_5_m12_every_scenario_of_2025_11_25_passes() {
    holds("2025-11-25", 30);
}

#[test]
fn mcp_5_m12_every_scenario_of_2026_07_28_passes() {
    holds("2026-07-28", 37);
}
