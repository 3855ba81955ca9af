//! Tables of dependencies, for operators.

use std::io::{self, Write};
use std::time::Duration;

use breakerbox_actors::{printable, redact};
use breakerbox_policy::{CountedNoun, RoundedDuration};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::overview::{Column, Overview};
use super::terminal::Terminal;

/// Writes the sums, and a row for each dependency: as wide as the terminal, or else whole.
pub(super) fn all(overview: &Overview, out: &mut dyn Write) -> io::Result<()> {
    if let Some(terminal) = Terminal::of_stdout() {
        return terminal.write(overview, out);
    }
    if let Some(head) = &overview.head {
        writeln!(out, "{head}")?;
    }
    let mut table = new(Column::ALL.map(Column::title));
    for row in &overview.rows {
        table.add_row(Column::ALL.map(|column| row.cell(column)));
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

/// Writes a row for each pool, and one for each member.
pub(super) fn pools(pools: &[Value], out: &mut dyn Write) -> io::Result<()> {
    let mut table = new(["pool", "member", "health", "in flight", "asked next", "why"]);
    for pool in pools {
        table.add_row([
            text(&pool["name"]),
            String::new(),
            text(&pool["health"]),
            String::new(),
            text(&pool["next"]),
            text(&pool["health_reason"]),
        ]);
        for member in pool["members"].as_array().into_iter().flatten() {
            table.add_row([
                text(&pool["name"]),
                text(&member["name"]),
                text(&member["health"]),
                text(&member["in_flight"]),
                String::new(),
                text(&member["health_reason"]),
            ]);
        }
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// Writes the details of one dependency that fit on a screen.
pub(super) fn one(dependency: &Value, out: &mut dyn Write) -> io::Result<()> {
    all(&Overview::single(dependency), out)?;
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
        if outage["probes"].as_u64() > Some(0) {
            writeln!(out, "probes: {}, {} failed", probes.0, probes.1)?;
        }
    }
    writeln!(out, "\nsince {}: {}", field("since"), field("reason"))?;
    writeln!(out, "window: {}", text(&dependency["window"]["text"]))?;
    if dependency["next_probe_at"].is_string() {
        writeln!(out, "next probe at {}", field("next_probe_at"))?;
    }
    probe(&dependency["probe"], out)?;
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

/// Writes the active probes, if there are any.
fn probe(probe: &Value, out: &mut dyn Write) -> io::Result<()> {
    let (Some(request), Some(every)) = (probe["request"].as_str(), probe["every_ms"].as_u64())
    else {
        return Ok(());
    };
    let every = RoundedDuration(Duration::from_millis(every));
    write!(out, "probe: {} every {every}", plain(request))?;
    let last = &probe["last"];
    match last["at"].as_str() {
        Some(at) => writeln!(out, "; at {}: {}", plain(at), text(&last["text"])),
        None => writeln!(out),
    }
}

fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    if let Some(width) = Terminal::of_stdout().and_then(|now| u16::try_from(now.width).ok()) {
        // Long texts continue in further lines of their cell.
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    table.set_header(header);
    table
}

/// Returns the state, with the override if there is one.
pub(super) fn state(one: &Value) -> String {
    let state = text(&one["state"]);
    match one["override"]["mode"].as_str() {
        Some(mode) => format!("{} ({state})", plain(mode)),
        None => match open_keys(one) {
            0 => state,
            open => format!("{state}, {} open", CountedNoun(open as u64, "key")),
        },
    }
}

/// Returns the number of keys that have an open breaker of their own.
fn open_keys(one: &Value) -> usize {
    let keys = one["keys"].as_array().into_iter().flatten();
    keys.filter(|key| key["state"] == "open").count()
}

/// Returns the reason why a dependency is not healthy.
pub(super) fn why(one: &Value) -> String {
    // HLT-2: a shadow and a disabled breaker let all calls through, so the calls' ends come first.
    let is_refused = one["override"]["mode"] == "forced_open";
    if one["override"].is_object() && (is_refused || !one["line"].is_string()) {
        return text(&one["override"]["reason"]);
    }
    if one["line"].is_string() {
        let line = text(&one["line"]);
        // The column of the health says the first word already.
        let word = text(&one["health"]);
        let rest = line.strip_prefix(&*word).filter(|_| !word.is_empty());
        let rest = rest.map(|rest| rest.trim_start_matches([':', ' ']));
        return rest.map_or_else(|| line.clone(), str::to_owned);
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

pub(super) fn millis(value: &Value) -> String {
    let millis = value.as_f64();
    millis.map_or_else(String::new, |millis| format!("{millis:.1} ms"))
}

pub(super) fn text(value: &Value) -> String {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{state, why};

    #[test]
    fn hlt_2_an_outage_is_told_before_the_override_that_lets_calls_through() {
        let told = |mode: &str, line: serde_json::Value| {
            why(&json!({"override": {"mode": mode, "reason": "trial"}, "line": line}))
        };
        let line = "down 2 min: 500 from the dependency; shadow by operator: trial";
        assert_eq!(told("shadow", json!(line)), line);
        assert_eq!(told("disabled", json!(line)), line);
        assert_eq!(told("shadow", json!(null)), "trial");
        assert_eq!(told("forced_open", json!("down: trial")), "trial");
    }

    #[test]
    fn ops_l_the_reason_does_not_repeat_the_health() {
        let told = |health: &str, line: &str| why(&json!({"health": health, "line": line}));
        assert_eq!(
            told("down", "down 2 min: 500; no calls"),
            "2 min: 500; no calls"
        );
        assert_eq!(told("down", "down: no worker runs"), "no worker runs");
        assert_eq!(told("ok", "recovering 2 s: 500"), "recovering 2 s: 500");
    }

    #[test]
    fn item_15_open_keys_are_told_beside_a_closed_breaker() {
        let key = |state: &str| json!({"key": "m", "state": state});
        let told = |keys: serde_json::Value| {
            state(&json!({"state": "closed", "override": null, "keys": keys}))
        };
        assert_eq!(told(json!([])), "closed");
        assert_eq!(
            told(json!([key("closed"), key("open")])),
            "closed, 1 key open"
        );
        assert_eq!(
            told(json!([key("open"), key("open")])),
            "closed, 2 keys open"
        );
    }
}
