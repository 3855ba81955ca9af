//! `breakerbox fleet`: the replicas of a fleet, as one of them sees them.

use std::io::{self, Write};
use std::time::Duration;

use breakerbox_actors::printable_json;
use breakerbox_policy::RoundedDuration;
use clap::Args;
use comfy_table::{Table, presets};
use serde_json::Value;

use super::client::RemoteAdmin;
use super::table::plain;
use super::{AdminTarget, run, tell};
use crate::cli::ExitReason;

/// Arguments of `fleet`.
#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    /// Prints the response of the admin side as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: AdminTarget,
}

/// Runs `fleet`.
pub(crate) fn fleet(
    args: &FleetArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    run(err, async |err| {
        let remote = match RemoteAdmin::new(&args.place, false) {
            Ok(remote) => remote,
            Err(failure) => return tell(&failure, err),
        };
        match remote.get(&["api", "fleet"]).await {
            Ok(Value::Null) => {
                let why =
                    "this process is in no fleet, allowed: the section fleet in its configuration";
                writeln!(err, "breakerbox: {why}")?;
                Ok(ExitReason::Failed)
            }
            Ok(fleet) if args.json => {
                writeln!(out, "{}", printable_json(&format!("{fleet:#}")))?;
                Ok(ExitReason::Done)
            }
            Ok(fleet) => show(&fleet, out).map(|()| ExitReason::Done),
            Err(failure) => tell(&failure, err),
        }
    })
}

fn show(fleet: &Value, out: &mut dyn Write) -> io::Result<()> {
    let text = |value: &Value| value.as_str().map(plain).unwrap_or_default();
    let name = text(&fleet["name"]);
    if fleet["connected"] == true {
        writeln!(out, "fleet {name}, as {} sees it", text(&fleet["replica"]))?;
    } else {
        let reason = text(&fleet["reason"]);
        let reason = if reason.is_empty() {
            "not yet"
        } else {
            &reason
        };
        writeln!(
            out,
            "fleet {name}: the board is not reached ({reason}); {} decides alone",
            text(&fleet["replica"])
        )?;
    }
    let empty = serde_json::Map::new();
    let dependencies = fleet["dependencies"].as_object().unwrap_or(&empty);
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let mut head = vec!["replica".to_owned(), "seen".to_owned()];
    head.extend(dependencies.keys().map(|name| plain(name)));
    table.set_header(head);
    for replica in fleet["replicas"].as_array().into_iter().flatten() {
        let own = if replica["self"] == true { " *" } else { "" };
        let seen = replica["seen_ms"].as_u64().unwrap_or_default();
        let mut row = vec![
            format!("{}{own}", text(&replica["name"])),
            format!("{} ago", RoundedDuration(Duration::from_millis(seen))),
        ];
        row.extend(
            dependencies
                .keys()
                .map(|name| cell(&replica["dependencies"][name])),
        );
        table.add_row(row);
    }
    let mut last = vec!["fleet".to_owned(), String::new()];
    last.extend(dependencies.values().map(shared));
    table.add_row(last);
    writeln!(out, "{}", table.trim_fmt())
}

/// The state of one replica's breaker; `!` marks evidence of its own.
fn cell(told: &Value) -> String {
    let state = told["state"].as_str().map(plain);
    let mark = if told["evidence"] == true { " !" } else { "" };
    format!("{}{mark}", state.unwrap_or_else(|| "-".to_owned()))
}

/// Returns the fleet's knowledge of one dependency.
fn shared(told: &Value) -> String {
    let text = |value: &Value| value.as_str().map(plain);
    let mut parts = Vec::new();
    if let Some(order) = text(&told["override"]) {
        parts.push(order);
    }
    if let Some(count) = told["evidence"].as_u64().filter(|count| *count > 0) {
        parts.push(format!("{count} open"));
    }
    if let Some(holder) = text(&told["lease"]["holder"]) {
        parts.push(format!("{holder} probes"));
    } else if let Some(by) = text(&told["verdict"]["by"]) {
        let result = text(&told["verdict"]["result"]).unwrap_or_default();
        parts.push(format!("{result}, by {by}"));
    }
    match parts.is_empty() {
        true => "-".to_owned(),
        false => parts.join("; "),
    }
}
