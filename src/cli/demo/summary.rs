//! The end of the demo: the table of results, and checks of it.
//!
//! It trusts no single source: the runtime's counters must add up, and agree with the agents' own.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox::DependencyStatus;
use breakerbox::policy::State;
use comfy_table::{CellAlignment, Table};

use super::agent::CallTally;

/// Writes the table, with a row for each dependency and one for all.
pub(crate) fn write(statuses: &[DependencyStatus], out: &mut dyn Write) -> io::Result<()> {
    let any_cancelled = statuses.iter().any(|one| one.totals.cancelled > 0);
    let mut header = vec![
        "dependency",
        "submitted",
        "primary",
        "fallback",
        "refused",
        "failed",
    ];
    if any_cancelled {
        header.push("cancelled");
    }
    header.extend(["p50", "p99", "trips", "restarts"]);
    let columns = header.len();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(header);
    let mut all = [0; 8];
    for status in statuses {
        let counts = counts(status);
        for (sum, count) in all.iter_mut().zip(counts) {
            *sum += count;
        }
        let (p50, p99) = (status.latency.p50, status.latency.p99);
        table.add_row(row(&status.name, counts, any_cancelled, p50, p99));
    }
    table.add_row(row("all", all, any_cancelled, None, None));
    for column in 1..columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "\n{}", table.trim_fmt())
}

/// Returns submitted, the five results, trips and restarts.
fn counts(status: &DependencyStatus) -> [u64; 8] {
    let totals = &status.totals;
    [
        totals.submitted,
        totals.primary,
        totals.fallback,
        totals.refused,
        totals.failed,
        totals.cancelled,
        totals.trips,
        totals.restarts,
    ]
}

fn row(
    name: &str,
    [
        submitted,
        primary,
        fallback,
        refused,
        failed,
        cancelled,
        trips,
        restarts,
    ]: [u64; 8],
    any_cancelled: bool,
    p50: Option<Duration>,
    p99: Option<Duration>,
) -> Vec<String> {
    let millis = |span: Option<Duration>| {
        span.map_or_else(String::new, |span| {
            format!("{:.1} ms", span.as_secs_f64() * 1e3)
        })
    };
    let mut row = vec![name.to_owned()];
    row.extend([submitted, primary, fallback, refused, failed].map(|count| count.to_string()));
    if any_cancelled {
        row.push(cancelled.to_string());
    }
    row.extend([millis(p50), millis(p99)]);
    row.extend([trips, restarts].map(|count| count.to_string()));
    row
}

/// Reports all inconsistencies of a dependency's counters.
pub(crate) fn audit(status: &DependencyStatus, ledger: &CallTally) -> Vec<String> {
    let (name, totals) = (&status.name, &status.totals);
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Acquire);
    let mut wrong = Vec::new();
    let mut same = |what: &str, given: u64, allowed: u64| {
        if given != allowed {
            wrong.push(format!("{name}: {what}: given {given}, allowed {allowed}"));
        }
    };
    same(
        "submitted must equal primary + fallback + refused + failed + cancelled",
        totals.submitted,
        totals.ended(),
    );
    let asked = read(&ledger.asked);
    same("submitted, by the agents' count", totals.submitted, asked);
    let primary = read(&ledger.primary);
    same("primary, by the agents' count", totals.primary, primary);
    let fallback = read(&ledger.fallback);
    same("fallback, by the agents' count", totals.fallback, fallback);
    let errors = read(&ledger.errors);
    same(
        "refused and failed, by the agents' count",
        totals.refused + totals.failed,
        errors,
    );
    wrong
}

/// Reports all differences between a dependency's history and the script.
pub(crate) fn review(status: &DependencyStatus, crashes: bool) -> Vec<String> {
    let (name, totals) = (&status.name, &status.totals);
    let facts = [
        (totals.trips > 0, "its breaker never opened"),
        (totals.fallback > 0, "no fallback ever answered for it"),
        (status.state == State::Closed, "its breaker is not closed"),
        (!status.parked, "its workers are parked"),
        (
            !crashes || totals.restarts > 0,
            "its workers were never restarted",
        ),
    ];
    let wrong = facts.into_iter().filter(|(holds, _)| !holds);
    wrong.map(|(_, text)| format!("{name}: {text}")).collect()
}
