//! Replays the scenario files: facts that other projects' tests, or a running Erlang/OTP,
//! require. `BREAKERBOX_SCENARIOS` names another folder of files in the same formats.
//!
//! It prints a line a scenario and a line a file, and fails when anything failed.

#![allow(clippy::print_stdout, reason = "the lines are the report")]

mod breaker;
mod report;
mod supervision;

use std::path::{Path, PathBuf};

use report::{Tally, Verdict};
use serde_json::{Value, json};

/// Scenarios of this repository that ask for something that the product does not have. The replay
/// names the word; any other one that is skipped fails.
const WITHOUT_COUNTERPART: [&str; 2] = [
    // A window that is judged only at the result after the one that filled it.
    "rec-01", // A limit divided among kinds of calls.
    "ncl-03",
];

#[test]
fn every_scenario_file_is_replayed_without_a_failure() {
    let elsewhere = std::env::var_os("BREAKERBOX_SCENARIOS").map(PathBuf::from);
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let folder = elsewhere.clone().unwrap_or_else(own);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    assert!(
        !files.is_empty(),
        "no scenario file in {}",
        folder.display()
    );
    let tallies: Vec<Tally> = files.iter().map(|file| replay_file(file)).collect();
    let failed: u32 = tallies.iter().map(|tally| tally.failed).sum();
    assert_eq!(failed, 0, "scenarios failed; their lines stand above");
    let unread = tallies.iter().flat_map(|tally| &tally.without_counterpart);
    let unread: Vec<&String> = unread.collect();
    assert!(
        elsewhere.is_some() || unread == WITHOUT_COUNTERPART,
        "skipped: {unread:?}"
    );
}

/// Replays one file and prints its lines.
fn replay_file(path: &Path) -> Tally {
    let text = std::fs::read_to_string(path).expect("a readable scenario file");
    let file: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{} is not JSON: {error}", path.display()));
    let mut tally = Tally::default();
    for scenario in file["scenarios"].as_array().into_iter().flatten() {
        let id = scenario["id"].as_str().unwrap_or("(no id)");
        tally.note(id, &replay(scenario));
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    println!("{}", tally.line(&name));
    tally
}

/// Picks the machine by the shape of the scenario; a panic in a replay is a failure of its own.
fn replay(scenario: &Value) -> Verdict {
    let run = std::panic::AssertUnwindSafe(|| {
        if scenario.get("tree").is_some() {
            supervision::replay(scenario)
        } else if scenario.get("area").is_some() {
            breaker::replay(scenario)
        } else {
            Verdict::Prose
        }
    });
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default();
        Verdict::fail(0, "no panic", message)
    })
}

#[test]
fn a_permit_that_is_given_back_in_a_later_step_is_no_execution() {
    let scenario = json!({
        "id": "own-01",
        "area": "breaker",
        "config": { "trip_any_of": [{ "rule": "consecutive_failures", "count": 1 }] },
        "steps": [
            { "t": 0, "op": "start", "id": "a", "expect": { "executions": 1 } },
            {
                "t": 0, "op": "finish", "id": "a", "outcome": "released",
                "expect": { "executions": 0, "state": "closed" },
            },
        ],
    });
    assert_eq!(replay(&scenario), Verdict::Ok);
}

#[test]
fn a_call_that_leaves_the_queue_was_no_execution_and_takes_no_slot() {
    let scenario = json!({
        "id": "own-02",
        "area": "breaker",
        "config": {
            "order": ["bulkhead"],
            "bulkhead": { "max_concurrent": 1, "queue": 1 },
        },
        "steps": [
            { "t": 0, "op": "start", "id": "a", "expect": { "propagates": "running" } },
            { "t": 0, "op": "start", "id": "b", "expect": { "propagates": "queued" } },
            {
                "t": 0, "op": "finish", "id": "b", "outcome": "released",
                "expect": { "executions": 1 },
            },
            { "t": 0, "op": "finish", "id": "a", "outcome": "success" },
            { "t": 0, "op": "start", "id": "c", "expect": { "propagates": "running" } },
        ],
    });
    assert_eq!(replay(&scenario), Verdict::Ok);
}
