//! Tables of dependencies, for operators.

use std::io::{self, Write};

use breakerbox_actors::{printable, redact};
use comfy_table::{Table, presets};
use serde_json::Value;

/// Writes a row for each dependency.
pub(super) fn all(dependencies: &Value, out: &mut dyn Write) -> io::Result<()> {
    let mut table = new([
        "name",
        "state",
        "health",
        "in flight",
        "queued",
        "calls",
        "primary",
        "fallback",
        "refused",
        "failed",
        "p99",
        "why",
    ]);
    for one in dependencies.as_array().into_iter().flatten() {
        let (totals, limits) = (&one["totals"], &one["limits"]);
        let of = |now: &Value, most: &Value| plain(&format!("{now}/{most}"));
        table.add_row([
            text(&one["name"]),
            state(one),
            text(&one["health"]),
            of(&one["in_flight"], &limits["concurrent"]),
            of(&one["queued"], &limits["max_queue"]),
            text(&totals["submitted"]),
            text(&totals["primary"]),
            text(&totals["fallback"]),
            text(&totals["refused"]),
            text(&totals["failed"]),
            millis(&one["latency_ms"]["p99"]),
            why(one),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// Writes a row for each group of MCP servers, and one for each member.
pub(super) fn groups(groups: &[Value], out: &mut dyn Write) -> io::Result<()> {
    let mut table = new(["group", "member", "prefix", "health", "sessions", "why"]);
    for group in groups {
        table.add_row([
            text(&group["name"]),
            String::new(),
            String::new(),
            text(&group["health"]),
            text(&group["sessions"]),
            text(&group["health_reason"]),
        ]);
        for member in group["members"].as_array().into_iter().flatten() {
            table.add_row([
                text(&group["name"]),
                text(&member["name"]),
                text(&member["prefix"]),
                text(&member["health"]),
                String::new(),
                text(&member["health_reason"]),
            ]);
        }
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// Writes the details of one dependency that fit on a screen.
pub(super) fn one(dependency: &Value, out: &mut dyn Write) -> io::Result<()> {
    all(&Value::Array(vec![dependency.clone()]), out)?;
    let field = |name: &str| text(&dependency[name]);
    if let Some(line) = dependency["line"].as_str() {
        writeln!(out, "\n{}", plain(line))?;
    }
    let outage = &dependency["outage"];
    if outage.is_object() {
        writeln!(
            out,
            "outage since {}: {}",
            text(&outage["since"]),
            text(&outage["cause"]["rule"])
        )?;
        let probes = (text(&outage["probes"]), text(&outage["probes_failed"]));
        writeln!(out, "probes: {}, {} failed", probes.0, probes.1)?;
    }
    writeln!(out, "\nsince {}: {}", field("since"), field("reason"))?;
    writeln!(out, "window: {}", text(&dependency["window"]["text"]))?;
    if dependency["next_probe_at"].is_string() {
        writeln!(out, "next probe at {}", field("next_probe_at"))?;
    }
    let mut workers = new(["worker", "state", "life", "restarts", "last exit"]);
    for one in dependency["workers"].as_array().into_iter().flatten() {
        workers.add_row([
            text(&one["id"]),
            text(&one["state"]),
            text(&one["incarnation"]),
            text(&one["restarts"]),
            text(&one["last_exit"]),
        ]);
    }
    writeln!(out, "\n{workers}")?;
    let fallbacks = dependency["fallbacks"].as_array();
    if fallbacks.is_some_and(|fallbacks| !fallbacks.is_empty()) {
        let mut table = new(["fallback", "answers"]);
        for one in fallbacks.into_iter().flatten() {
            table.add_row([text(&one["name"]), text(&one["served"])]);
        }
        writeln!(out, "\n{table}")?;
    }
    Ok(())
}

fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table
}

/// Returns the state, with the override if there is one.
fn state(one: &Value) -> String {
    let state = text(&one["state"]);
    match one["override"]["mode"].as_str() {
        Some(mode) => format!("{} ({state})", plain(mode)),
        None => state,
    }
}

/// Returns the reason why a dependency is not healthy.
fn why(one: &Value) -> String {
    if one["override"].is_object() {
        return text(&one["override"]["reason"]);
    }
    let mut why = text(&one["health_reason"]);
    if let Some(wait) = one["retry_after_ms"].as_u64() {
        why = format!("{why}; next try in {:.1} s", seconds(wait));
    }
    why
}

#[expect(
    clippy::cast_precision_loss,
    reason = "displayed to a tenth of a second only"
)]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}

fn millis(value: &Value) -> String {
    let millis = value.as_f64();
    millis.map_or_else(String::new, |millis| format!("{millis:.1} ms"))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

/// Masks addresses and writes out characters that move a terminal: the text is not ours.
pub(super) fn plain(text: &str) -> String {
    printable(&redact(text)).into_owned()
}
