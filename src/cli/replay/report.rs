//! Output of a replay: a table for people, or one JSON object for machines.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use breakerbox::policy::{CountedNoun, RoundedDuration, Time};
use breakerbox::recorder::Trace;
use breakerbox_actors::{printable, printable_json};
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::machine::{ReplayMove, ReplayResult};

/// One dependency under several settings, one run for each.
pub(crate) struct PlayedDependency {
    pub(crate) name: String,
    pub(crate) runs: Vec<ReplayRun>,
}

/// One dependency under one set of settings.
pub(crate) struct ReplayRun {
    /// Label of the settings.
    pub(crate) label: String,
    pub(crate) books: ReplayResult,
}

/// Writes a summary of the trace, a table with a row per run, and all transitions by time.
pub(crate) fn write(
    trace: &Trace,
    played: &[PlayedDependency],
    out: &mut dyn Write,
) -> io::Result<()> {
    let calls: usize = trace.recordings.iter().map(|one| one.outcomes.len()).sum();
    writeln!(
        out,
        "started at {}: {} of {}, the last one at {:.2} s",
        printable(&trace.started),
        CountedNoun(calls as u64, "outcome"),
        CountedNoun(trace.recordings.len() as u64, "dependency"),
        seconds(super::end_of(trace)),
    )?;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    let header = [
        "dependency",
        "settings",
        "calls",
        "failures",
        "trips",
        "refused",
        "failures saved",
        "successes lost",
        "open",
    ];
    let columns = header.len();
    table.set_header(header);
    for (one, run) in each(played) {
        let books = &run.books;
        let counts = [
            books.calls,
            books.failures,
            books.trips,
            books.refused,
            books.refused_failures,
            books.refused_successes,
        ];
        let names = [printable(&one.name).into_owned(), run.label.clone()];
        let open = format!("{:.2} s", books.open.as_secs_f64());
        let cells = names
            .into_iter()
            .chain(counts.iter().map(u64::to_string))
            .chain([open]);
        table.add_row(cells);
    }
    for column in 2..columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "\n{}", table.trim_fmt())?;
    write_moves(played, out)
}

fn write_moves(played: &[PlayedDependency], out: &mut dyn Write) -> io::Result<()> {
    let mut moves: Vec<(Cow<'_, str>, &str, &ReplayMove)> = each(played)
        .flat_map(|(one, run)| {
            let named = |moved| (printable(&one.name), &*run.label, moved);
            run.books.moves.iter().map(named)
        })
        .collect();
    if moves.is_empty() {
        return writeln!(out, "\nno breaker would have moved");
    }
    moves.sort_by_key(|(.., moved)| moved.at);
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let names = longest(&mut moves.iter().map(|(name, ..)| name.chars().count()));
    let labels = longest(&mut moves.iter().map(|(_, label, _)| label.chars().count()));
    writeln!(out)?;
    for (name, label, moved) in moves {
        let at = seconds(moved.at);
        let ReplayMove {
            from, to, cause, ..
        } = moved;
        write!(
            out,
            "{at:>10.3} s  {name:names$}  {label:labels$}  {from} -> {to}: {cause}"
        )?;
        match moved.wait {
            Some(wait) => writeln!(out, "; next try in {}", RoundedDuration(wait))?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// Writes the same as one JSON object. Times are milliseconds since the runtime's start.
pub(crate) fn write_json(
    trace: &Trace,
    played: &[PlayedDependency],
    out: &mut dyn Write,
) -> io::Result<()> {
    let dependencies: Vec<Value> = played
        .iter()
        .map(|one| {
            let runs: Vec<Value> = one.runs.iter().map(run_to_json).collect();
            json!({ "name": one.name, "runs": runs })
        })
        .collect();
    let object = json!({
        "started": trace.started,
        "cut_off": trace.is_cut_off,
        "dependencies": dependencies,
    });
    writeln!(out, "{}", printable_json(&object.to_string()))
}

fn run_to_json(run: &ReplayRun) -> Value {
    let books = &run.books;
    let moves = books.moves.iter().map(|moved| {
        json!({
            "at_ms": millis(moved.at.since(Time::ZERO)),
            "from": moved.from.to_string(),
            "to": moved.to.to_string(),
            "reason": moved.cause.to_string(),
            "retry_after_ms": moved.wait.map(millis),
        })
    });
    json!({
        "settings": run.label,
        "calls": books.calls,
        "failures": books.failures,
        "trips": books.trips,
        "refused": books.refused,
        "refused_failures": books.refused_failures,
        "refused_successes": books.refused_successes,
        "open_ms": millis(books.open),
        "moves": moves.collect::<Vec<Value>>(),
    })
}

fn each(played: &[PlayedDependency]) -> impl Iterator<Item = (&PlayedDependency, &ReplayRun)> {
    played
        .iter()
        .flat_map(|one| one.runs.iter().map(move |run| (one, run)))
}

fn seconds(at: Time) -> f64 {
    at.since(Time::ZERO).as_secs_f64()
}

/// Converts to milliseconds with at most three places.
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds are exact for 285 years"
)]
fn millis(span: Duration) -> f64 {
    // A division of whole numbers leaves no debris of floating point.
    let micros = (span.as_nanos() + 500) / 1_000;
    micros as f64 / 1e3
}
