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

/// Number of dependencies above which those that all replicas have closed are only counted: a line of the
/// terminal has no room for them.
const MANY: usize = 12;
/// A cell of which nothing is known.
const NOTHING: &str = "-";

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
        let told = match remote.get(&["api", "fleet"]).await {
            Ok(fleet) if !fleet.is_null() => remote.with_field(fleet, "replicas"),
            other => other,
        };
        match told {
            Ok(Value::Null) => {
                let why =
                    "this Breakerbox belongs to no fleet: its configuration has no section [fleet]";
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
    writeln!(out, "{}", grid(fleet))
}

/// Returns the replicas with their states, and what they have together.
fn grid(fleet: &Value) -> String {
    let text = |value: &Value| value.as_str().map(plain).unwrap_or_default();
    let empty = serde_json::Map::new();
    let all = fleet["dependencies"].as_object().unwrap_or(&empty);
    let is_shown = |name: &str| all.len() <= MANY || !is_calm(fleet, name, &all[name]);
    let dependencies = all.iter().filter(|(name, _)| is_shown(name));
    let dependencies: Vec<(&String, &Value)> = dependencies.collect();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let mut head = vec!["replica".to_owned(), "seen".to_owned()];
    head.extend(dependencies.iter().map(|(name, _)| plain(name)));
    table.set_header(head);
    for replica in fleet["replicas"].as_array().into_iter().flatten() {
        let own = if replica["self"] == true { " *" } else { "" };
        let seen = replica["seen_ms"].as_u64().unwrap_or_default();
        let mut row = vec![
            format!("{}{own}", text(&replica["name"])),
            format!("{} ago", RoundedDuration(Duration::from_millis(seen))),
        ];
        let told = dependencies.iter();
        row.extend(told.map(|(name, _)| cell(&replica["dependencies"][name.as_str()])));
        table.add_row(row);
    }
    let mut last = vec!["fleet".to_owned(), String::new()];
    last.extend(dependencies.iter().map(|(_, told)| shared(told)));
    table.add_row(last);
    let left_out = all.len() - dependencies.len();
    let rest = match left_out {
        0 => String::new(),
        1 => "\none more is closed at every replica".to_owned(),
        more => format!("\n{more} more are closed at every replica"),
    };
    format!("{}{rest}{}", table.trim_fmt(), sick_keys(fleet))
}

/// Returns a line for each key that a replica's own outcomes hold open.
fn sick_keys(fleet: &Value) -> String {
    let mut lines = String::new();
    for (name, told) in fleet["dependencies"].as_object().into_iter().flatten() {
        let keys = told["keys"].as_array().into_iter().flatten();
        for key in keys.filter(|key| key["evidence"] != 0) {
            let hash = || format!("#{}", key["hash"].as_str().unwrap_or_default());
            let known = key["key"].as_str().map_or_else(hash, str::to_owned);
            lines.push_str(&format!(
                "\n{}[{}]: {}",
                plain(name),
                plain(&known),
                shared(key)
            ));
        }
    }
    lines
}

/// Returns true if no replica says anything else than that it lets calls through.
fn is_calm(fleet: &Value, name: &str, told: &Value) -> bool {
    let mut replicas = fleet["replicas"].as_array().into_iter().flatten();
    shared(told) == NOTHING
        && replicas.all(|replica| {
            let told = cell(&replica["dependencies"][name]);
            told == "closed" || told == NOTHING
        })
}

/// The state of one replica's breaker; `!` marks evidence of its own.
fn cell(told: &Value) -> String {
    let state = told["state"].as_str().map(plain);
    let mark = if told["evidence"] == true { " !" } else { "" };
    format!("{}{mark}", state.unwrap_or_else(|| NOTHING.to_owned()))
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
    // A lease outlasts the probe that has closed the breakers.
    let is_over = told["evidence"] == 0 && told["verdict"]["result"] == "recovered";
    let holder = text(&told["lease"]["holder"]).filter(|_| !is_over);
    if let Some(holder) = holder {
        parts.push(format!("{holder} probes"));
    } else if let Some(by) = text(&told["verdict"]["by"]) {
        let result = text(&told["verdict"]["result"]).unwrap_or_default();
        parts.push(format!("{result}, by {by}"));
    }
    match parts.is_empty() {
        true => NOTHING.to_owned(),
        false => parts.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known_keys(fleet: &mut Value) {
        fleet["dependencies"]["api-9"]["keys"] = json!([
            {"key": "tenant", "hash": "07", "evidence": 2},
            {"key": null, "hash": "ab12", "evidence": 1},
            {"key": "well", "hash": "08", "evidence": 0},
        ]);
    }

    #[test]
    fn item_15_of_many_dependencies_only_those_that_differ_are_columns() {
        let names: Vec<String> = (0..100).map(|number| format!("api-{number}")).collect();
        let quiet = json!({"override": null, "evidence": 0, "lease": null, "verdict": null});
        let closed = json!({"state": "closed", "evidence": false});
        let all = |of: &Value| -> Value {
            let each = names.iter().map(|name| (name.clone(), of.clone()));
            each.collect::<serde_json::Map<_, _>>().into()
        };
        let (mut known, mut told) = (all(&quiet), all(&closed));
        told["api-7"] = json!({"state": "open", "evidence": true});
        known["api-9"]["override"] = "open".into();
        let replica = json!({"name": "one", "self": true, "seen_ms": 10, "dependencies": told});
        let mut fleet = json!({"dependencies": known, "replicas": [replica]});
        let shown = grid(&fleet);
        let head = shown.lines().next().unwrap();
        assert!(head.contains("api-7") && head.contains("api-9"), "{head}");
        assert!(!head.contains("api-8"), "{head}");
        assert!(
            shown.ends_with("98 more are closed at every replica"),
            "{shown}"
        );
        known_keys(&mut fleet);
        let shown = grid(&fleet);
        assert!(
            shown.ends_with("\napi-9[tenant]: 2 open\napi-9[#ab12]: 1 open"),
            "{shown}"
        );
        // A few are all shown.
        let few = fleet["dependencies"].as_object_mut().unwrap();
        few.retain(|name, _| ["api-1", "api-2"].contains(&name.as_str()));
        let shown = grid(&fleet);
        assert!(
            shown.contains("api-1") && !shown.contains("more"),
            "{shown}"
        );
    }
}
