//! Checks of the scenario's result, by the counters, the events, the services and the system.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox::agents::fakes::Operation;
use breakerbox::policy::supervision::StopCause;
use breakerbox::policy::{BreakerEvent, State, Time};
use breakerbox::prelude::*;
use comfy_table::Table;

use super::agents::{Crew, DEADLINE, Task};
use super::script::Observations;
use super::{GRAPH, ResearchRuntime};

/// Time limit for the recovery of the index: its breaker's open time with jitter, and a probe.
const INDEX_BACK: Duration = Duration::from_millis(2_000);
/// Time limit until the graph answers again.
const GRAPH_BACK: Duration = Duration::from_secs(2);
/// Time limit for a process to end.
const PROCESS_GONE: Duration = Duration::from_secs(3);

/// Kills a process immediately.
#[cfg(unix)]
pub(super) fn kill(process: u32) -> io::Result<()> {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let process = i32::try_from(process).map_err(io::Error::other)?;
    kill(Pid::from_raw(process), Signal::SIGKILL).map_err(io::Error::from)
}

/// Unsupported on other systems.
#[cfg(not(unix))]
pub(super) fn kill(_: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(unix)]
fn is_there(process: u32) -> bool {
    use nix::sys::signal::kill;
    use nix::unistd::Pid;
    i32::try_from(process).is_ok_and(|process| kill(Pid::from_raw(process), None).is_ok())
}

#[cfg(not(unix))]
fn is_there(_: u32) -> bool {
    false
}

/// Reports processes that are left over.
pub(super) async fn of_the_processes(processes: &[u32]) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + PROCESS_GONE;
    while processes.iter().any(|one| is_there(*one)) {
        if tokio::time::Instant::now() >= deadline {
            return vec![format!("processes are left: {processes:?}")];
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut distinct = processes.to_vec();
    distinct.dedup();
    if distinct.len() < 2 {
        return vec![format!("{GRAPH}: its server was never replaced")];
    }
    Vec::new()
}

/// One step of the story: an expected event and its subject.
struct Step {
    what: &'static str,
    subject: &'static str,
    is: fn(&EventKind) -> bool,
}

/// The expected events, in this order.
const STORY: [Step; 6] = [
    Step {
        what: "the index's breaker opens",
        subject: "vector_find",
        is: |kind| moved(kind, State::Open),
    },
    Step {
        what: "the graph's server is gone",
        subject: "knowledge_graph/worker-1",
        is: |kind| matches!(kind, EventKind::Ended { cause, .. } if !matches!(cause, StopCause::Shutdown)),
    },
    Step {
        what: "the graph's server runs again",
        subject: "knowledge_graph/worker-1",
        is: |kind| matches!(kind, EventKind::Started { incarnation } if *incarnation > 1),
    },
    Step {
        what: "the index's breaker closes",
        subject: "vector_find",
        is: |kind| moved(kind, State::Closed),
    },
    Step {
        what: "the broken configuration is refused",
        subject: "",
        is: |kind| matches!(kind, EventKind::ReloadRefused { .. }),
    },
    Step {
        what: "the mended configuration is taken over",
        subject: GRAPH,
        is: |kind| matches!(kind, EventKind::Reloaded { .. }),
    },
];

fn moved(kind: &EventKind, into: State) -> bool {
    matches!(kind, EventKind::Breaker(BreakerEvent::Transition { to, .. }) if *to == into)
}

/// Reports expected events that are missing or late.
pub(super) fn of_the_story(seen: &Observations, story: &[Event]) -> Vec<String> {
    let mut wrong = seen.missed.clone();
    let mut events = story.iter();
    for step in STORY {
        let fits = |event: &&Event| {
            let subject = step.subject.is_empty() || *event.subject == *step.subject;
            subject && (step.is)(&event.kind)
        };
        if !events.any(|event| fits(&event)) {
            wrong.push(format!(
                "the events do not tell, or not in this order: {}",
                step.what
            ));
        }
    }
    let after = |then: Option<Time>, subject: &str, is: &dyn Fn(&EventKind) -> bool| {
        let then = then?;
        let mut events = story.iter();
        let found =
            events.find(|event| event.at >= then && &*event.subject == subject && is(&event.kind));
        found.map(|event| event.at.since(then))
    };
    let closed = after(seen.healed, "vector_find", &|kind| {
        moved(kind, State::Closed)
    });
    if closed.is_none_or(|took| took > INDEX_BACK) {
        wrong.push(format!(
            "vector_find closed {closed:?} after it was healed, allowed {INDEX_BACK:?}"
        ));
    }
    let paused = after(seen.quota, "web_google", &|kind| {
        matches!(kind, EventKind::Paused { .. })
    });
    if paused.is_none() {
        wrong.push("web_google was not paused after its quota was used up".to_owned());
    }
    if seen.graph_back.is_none_or(|took| took > GRAPH_BACK) {
        let took = seen.graph_back;
        wrong.push(format!(
            "{GRAPH} answered {took:?} after it was killed, allowed {GRAPH_BACK:?}"
        ));
    }
    wrong
}

/// Reports differences between the counters of the runtime, the callers and the services.
pub(super) fn of_the_books(stage: &ResearchRuntime, seen: &Observations) -> Vec<String> {
    let mut wrong = Vec::new();
    for status in stage.runtime.statuses() {
        let totals = &status.totals;
        if totals.submitted != totals.ended() {
            let (submitted, ended) = (totals.submitted, totals.ended());
            wrong.push(format!(
                "{}: {submitted} submitted, {ended} ended",
                status.name
            ));
        }
    }
    for task in Task::ALL {
        let ledger = stage.crew.ledger(task);
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Acquire);
        let (asked, late, panics) = (
            read(&ledger.asked),
            read(&ledger.late),
            read(&ledger.panics),
        );
        if late + panics > 0 {
            wrong.push(format!(
                "{task}: {late} calls took longer than {DEADLINE:?}, {panics} panics reached callers"
            ));
        }
        // Writes have no fallback.
        let errors = read(&ledger.errors);
        if task != Task::Write && errors * 100 > asked {
            wrong.push(format!(
                "{task}: {errors} errors of {asked} calls, allowed 1 in 100"
            ));
        }
        if task == Task::Write && read(&ledger.fallback) > 0 {
            wrong.push("a write was answered by a fallback".to_owned());
        }
        if asked < 50 {
            wrong.push(format!("{task}: only {asked} calls were made"));
        }
    }
    wrong.extend(labels(stage));
    let now = stage.fakes.calls(Operation::CustomSearch);
    if seen.asked_before != Some(now) {
        let before = seen.asked_before;
        wrong.push(format!(
            "web_google was asked {now} times, and {before:?} times when its quota was used up"
        ));
    }
    wrong
}

/// Reports a difference between the fallback answers that callers saw and those that fallbacks
/// gave.
fn labels(stage: &ResearchRuntime) -> Vec<String> {
    let fallbacks = |name: &str| {
        let status = stage.runtime.status(name);
        status.map_or(0, |status| status.totals.fallback)
    };
    let mut wrong = Vec::new();
    for (task, names) in [
        (Task::Vector, &["vector_embed", "vector_find"][..]),
        (Task::Web, &["web_google"]),
        (Task::Read, &[GRAPH]),
    ] {
        let given: u64 = names.iter().map(|name| fallbacks(name)).sum();
        let told = stage.crew.ledger(task).fallback.load(Ordering::Acquire);
        // The graph's server may be back before a fallback was needed.
        let some = told > 0 || task == Task::Read;
        if given != told || !some {
            wrong.push(format!(
                "{task}: {told} answers said they are a fallback's, {given} were"
            ));
        }
    }
    wrong
}

/// Writes the callers' table.
pub(super) fn write(crew: &Crew, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["callers", "asked", "primary", "fallback", "errors", "late"]);
    for task in Task::ALL {
        let ledger = crew.ledger(task);
        let counts = [
            &ledger.asked,
            &ledger.primary,
            &ledger.fallback,
            &ledger.errors,
            &ledger.late,
        ];
        let counts = counts.map(|count| count.load(Ordering::Acquire).to_string());
        let mut row = vec![task.to_string()];
        row.extend(counts);
        table.add_row(row);
    }
    for column in 1..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    writeln!(out, "\n{}", table.trim_fmt())
}
