//! `breakerbox alerts`: the alerts of a running Breakerbox with their outages, `alerts ack` and `alerts
//! clear`.

use std::collections::BTreeSet;
use std::io::{self, Write};

use breakerbox_actors::{did_you_mean, printable_json};
use breakerbox_policy::CountedNoun;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use serde_json::{Value, json};

use super::client::{ClientError, RemoteAdmin};
use super::table::plain;
use super::{AdminTarget, dependency_name, run, tell};
use crate::cli::ExitReason;
use crate::cli::completion::dependency_names;

/// Arguments of `alerts`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Alerts {
    #[command(subcommand)]
    step: Option<AlertStep>,
    /// Shows alerts that are over or cleared too, and the outages of before the last start
    #[arg(long)]
    all: bool,
    /// Prints the alerts as JSON, each with its outage
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: AdminTarget,
}

#[derive(Debug, Subcommand)]
enum AlertStep {
    /// Acknowledges the alerts of a dependency: you look after it
    Ack(AckArgs),
    /// Clears the alerts of a dependency: they are done with, such as dead letters that are put back
    Clear(AckArgs),
}

#[derive(Debug, Args)]
struct AckArgs {
    /// Name of the dependency
    #[arg(value_parser = dependency_name, add = ArgValueCandidates::new(dependency_names))]
    name: String,
    /// Note for the others, recorded with the outage and in the audit event
    #[arg(long, value_name = "TEXT")]
    note: String,
    #[command(flatten)]
    place: AdminTarget,
}

/// Runs `alerts`.
pub(crate) fn alerts(
    alerts: &Alerts,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    run(err, async |err| {
        let done = match &alerts.step {
            None => list(alerts, err).await,
            Some(AlertStep::Ack(ack)) => acknowledge(ack).await,
            Some(AlertStep::Clear(clear)) => clear_all(clear).await,
        };
        match done {
            Ok(text) => write!(out, "{text}").map(|()| ExitReason::Done),
            Err(failure) => tell(&failure, err),
        }
    })
}

/// Reads the alerts, each with its outage in place of the outage's number. With `earlier`, the ended
/// outages that have no alert follow.
async fn read(remote: &RemoteAdmin, earlier: bool) -> Result<Vec<Value>, ClientError> {
    // In this order each alert's outage is there.
    let mut alerts = remote.list(&["api", "alerts"], "state").await?;
    let outages = remote.list(&["api", "outages"], "since").await?;
    let mut without: Vec<&Value> = outages.iter().collect();
    for alert in &mut alerts {
        let id = alert["outage"].take();
        let own = outages.iter().find(|one| id.is_u64() && one["id"] == id);
        without.retain(|one| one["id"] != id);
        alert["outage"] = own.cloned().unwrap_or(Value::Null);
    }
    if earlier {
        // HLT-2: an outage outlives the process, and its alert does not.
        let ended = without.into_iter().filter(|one| one["ended"].is_string());
        alerts.extend(ended.map(alert_of));
        let raised = |alert: &Value| alert["raised_at"].as_str().map(str::to_owned);
        alerts.sort_by_key(|alert| std::cmp::Reverse(raised(alert)));
    }
    Ok(alerts)
}

/// Returns an ended outage without an alert in the form of one.
fn alert_of(outage: &Value) -> Value {
    json!({
        "id": null,
        "dependency": outage["dependency"],
        "subject": outage["dependency"],
        "kind": "outage",
        "state": "resolved",
        "message": outage["cause"]["text"],
        "outage": outage,
        "paused_consumers": [],
        "raised_at": outage["since"],
        "over_at": outage["ended"],
        "by": outage["ack"]["by"],
        "note": outage["ack"]["note"],
    })
}

fn is_pending(alert: &Value) -> bool {
    matches!(alert["state"].as_str(), Some("active" | "acknowledged"))
}

async fn list(wanted: &Alerts, err: &mut dyn Write) -> Result<String, ClientError> {
    let remote = RemoteAdmin::new(&wanted.place, false)?;
    // The alerts count for more than a note that cannot be written.
    let _ = super::tell_of_refused_files(&remote, err).await;
    let mut alerts = read(&remote, wanted.all).await?;
    alerts.retain(|alert| wanted.all || is_pending(alert));
    if wanted.json {
        let text = format!("{:#}", Value::Array(alerts));
        return Ok(format!("{}\n", printable_json(&text)));
    }
    if alerts.is_empty() {
        let which = if wanted.all {
            "no alerts"
        } else {
            "no alert is active"
        };
        return Ok(format!("{which}\n"));
    }
    let blocks: Vec<String> = alerts.iter().map(block).collect();
    Ok(blocks.join("\n"))
}

/// Returns an alert in a few lines: what, since when, why, what callers get, and what to do.
fn block(alert: &Value) -> String {
    let text = |value: &Value| value.as_str().map(plain).unwrap_or_default();
    let (name, outage) = (text(&alert["subject"]), &alert["outage"]);
    let mut lines = vec![format!(
        "{name}: {}, since {}",
        text(&alert["state"]),
        text(if outage.is_object() {
            &outage["since"]
        } else {
            &alert["raised_at"]
        })
    )];
    match outage["line"].as_str() {
        Some(line) => lines.push(plain(line)),
        None if outage.is_object() => lines.push(text(&outage["cause"]["text"])),
        None => {}
    }
    lines.push(format!("why: {}", text(&alert["message"])));
    if outage.is_object() {
        let affected = &outage["affected"];
        lines.push(format!(
            "callers: {}, {} of fallbacks, of {}",
            counted(&affected["errors"], "error"),
            counted(&affected["by_fallback"], "answer"),
            counted(&affected["calls"], "call"),
        ));
        if outage["probes"].as_u64().is_some_and(|probes| probes > 0) {
            lines.push(format!(
                "probes: {}, {} failed; last: {}",
                outage["probes"],
                outage["probes_failed"],
                text(&outage["last_probe"]["text"])
            ));
        }
    }
    for consumer in alert["paused_consumers"].as_array().into_iter().flatten() {
        lines.push(format!(
            "consumer {} fetches nothing, waiting: {}",
            text(&consumer["name"]),
            counted(&consumer["pending"], "message"),
        ));
    }
    if let Some(over) = alert["over_at"].as_str().map(plain) {
        lines.push(match outage["ended_by"].as_str() {
            // HLT-3: only the start is known, after which it was not seen.
            Some("restart") => {
                format!("its end was not seen: the process was started again at {over}")
            }
            _ => format!("over since {over}"),
        });
    }
    if let Some(by) = alert["by"].as_str() {
        lines.push(format!("{}: {}", plain(by), text(&alert["note"])));
    }
    if is_pending(alert) {
        lines.push(next_step(alert));
    }
    let mut block = lines.join("\n  ");
    block.push('\n');
    block
}

/// Returns a count with its noun.
fn counted(count: &Value, noun: &'static str) -> CountedNoun {
    CountedNoun(count.as_u64().unwrap_or_default(), noun)
}

/// Returns the next step of an operator.
fn next_step(alert: &Value) -> String {
    let name = alert["dependency"].as_str().map(plain).unwrap_or_default();
    let look = format!("breakerbox status {name}");
    if alert["kind"] == "dead_letters" {
        let consumer = text_after(alert["subject"].as_str().unwrap_or_default());
        return format!(
            "to do: breakerbox dead list {consumer}; then breakerbox alerts clear {name} --note \"...\""
        );
    }
    if alert["state"] == "active" {
        format!("to do: {look}; then breakerbox alerts ack {name} --note \"...\"")
    } else {
        format!("to do: {look}")
    }
}

/// Returns the name of the consumer that an alert speaks of.
fn text_after(subject: &str) -> String {
    let consumer = subject.rsplit_once("/consumer:");
    consumer.map_or_else(String::new, |(_, name)| plain(name))
}

/// Clears the alerts of a dependency.
async fn clear_all(clear: &AckArgs) -> Result<String, ClientError> {
    let remote = RemoteAdmin::new(&clear.place, true)?;
    let alerts = read(&remote, false).await?;
    let own = alerts
        .iter()
        .filter(|alert| alert["dependency"] == *clear.name && is_pending(alert));
    let body = json!({ "reason": clear.note });
    let mut told = String::new();
    let mut refused = None;
    for alert in own {
        let id = alert["id"].to_string();
        let subject = alert["subject"].as_str().map(plain).unwrap_or_default();
        let path = ["api", "alerts", &id, "clear"];
        match remote.post(&path, &body, "id").await {
            Ok(_) => {
                let line = format!("{subject}: cleared\n");
                told.push_str(&line);
            }
            // Others of this dependency can be cleared all the same.
            Err(ClientError::Refused(why)) => {
                refused.get_or_insert(format!("{subject}: not cleared: {why}"));
            }
            Err(error) => return Err(error),
        }
    }
    match (told.is_empty(), refused) {
        (true, Some(why)) => Err(ClientError::Refused(why)),
        (false, Some(why)) => {
            let line = format!("{why}\n");
            told.push_str(&line);
            Ok(told)
        }
        (true, None) => {
            let known = names(&remote).await;
            Err(none_pending(&clear.name, &alerts, &known, is_pending))
        }
        (false, None) => Ok(told),
    }
}

/// Returns the names of all dependencies; none if they cannot be read.
async fn names(remote: &RemoteAdmin) -> Vec<String> {
    let all = remote.list(&["api", "dependencies"], "name").await;
    let all = all.unwrap_or_default().into_iter();
    all.filter_map(|one| one["name"].as_str().map(plain))
        .collect()
}

/// Returns the refusal of a step for a dependency without such an alert, with those that have one.
/// `known`: the names of all dependencies.
fn none_pending(
    name: &str,
    alerts: &[Value],
    known: &[String],
    is_it: impl Fn(&Value) -> bool,
) -> ClientError {
    let own = alerts.iter().filter(|alert| is_it(alert));
    let own = own.filter_map(|alert| alert["dependency"].as_str().map(plain));
    let names: BTreeSet<String> = own.collect();
    let given = plain(name);
    let is_known = known.contains(&given);
    let mut near = did_you_mean(&given, names.iter().map(String::as_str));
    if near.is_empty() && !is_known {
        near = did_you_mean(&given, known.iter().map(String::as_str));
    }
    let why = match is_known || known.is_empty() {
        true => "no alert of this dependency is active",
        false => "no dependency has this name",
    };
    let names: Vec<String> = names.into_iter().collect();
    let allowed = match names.is_empty() {
        true => "none, no alert is active".to_owned(),
        false => names.join(", "),
    };
    ClientError::Refused(format!("{why}: given {given}{near}, allowed: {allowed}"))
}

/// Acknowledges the active alerts of a dependency.
async fn acknowledge(ack: &AckArgs) -> Result<String, ClientError> {
    let remote = RemoteAdmin::new(&ack.place, true)?;
    let alerts = read(&remote, false).await?;
    let of_it = |alert: &&Value| alert["dependency"] == *ack.name && alert["state"] == "active";
    let ids: Vec<String> = alerts
        .iter()
        .filter(of_it)
        .map(|alert| alert["id"].to_string())
        .collect();
    let seen = alerts
        .iter()
        .find(|alert| alert["dependency"] == *ack.name && alert["state"] == "acknowledged");
    if let Some(seen) = seen.filter(|_| ids.is_empty()) {
        let by = seen["by"].as_str().map(plain).unwrap_or_default();
        let text = format!("{} is acknowledged already, by {by}", plain(&ack.name));
        return Err(ClientError::Refused(text));
    }
    if ids.is_empty() {
        let is_active = |alert: &Value| alert["state"] == "active";
        let known = names(&remote).await;
        return Err(none_pending(&ack.name, &alerts, &known, is_active));
    }
    let body = json!({ "reason": ack.note });
    let mut told = String::new();
    for id in ids {
        let path = ["api", "alerts", &id, "ack"];
        let alert = remote.post(&path, &body, "id").await?;
        let by = alert["by"].as_str().map(plain).unwrap_or_default();
        let line = format!("{}: acknowledged by {by}\n", plain(&ack.name));
        told.push_str(&line);
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_1_a_name_without_an_alert_gets_those_that_have_one() {
        let alert = |name: &str, state: &str| json!({"dependency": name, "state": state});
        let alerts = [
            alert("web", "acknowledged"),
            alert("search", "active"),
            alert("over", "resolved"),
        ];
        let said = none_pending("serch", &alerts, &[], is_pending).to_string();
        assert!(
            said.ends_with("given serch, did you mean search?, allowed: search, web"),
            "{said}"
        );
        let known = ["payments".to_owned(), "web".to_owned()];
        let said = none_pending("paymets", &[], &known, is_pending).to_string();
        assert!(
            said.starts_with("no dependency has this name: given paymets, did you mean payments?"),
            "{said}"
        );
        let said = none_pending("web", &[], &known, is_pending).to_string();
        assert!(
            said.ends_with("allowed: none, no alert is active"),
            "{said}"
        );
    }

    #[test]
    fn hlt_2_an_outage_of_before_a_restart_is_told_with_what_is_known_of_its_end() {
        let mut outage = json!({
            "id": 1, "dependency": "web", "since": "2026-01-01T00:00:00.000Z",
            "ended": "2026-01-01T00:05:00.000Z", "ended_by": "restart",
            "cause": {"text": "no connection"}, "line": null, "probes": 0,
            "affected": {"calls": 3, "errors": 3, "by_fallback": 0},
            "ack": {"by": "me", "note": "on it"},
        });
        let told = block(&alert_of(&outage));
        for words in [
            "web: resolved, since 2026-01-01T00:00:00.000Z\n",
            "why: no connection",
            "its end was not seen: the process was started again at 2026-01-01T00:05:00.000Z",
            "me: on it",
        ] {
            assert!(told.contains(words), "{words:?}: {told}");
        }
        assert!(
            !told.contains("to do") && !told.contains("over since"),
            "{told}"
        );
        assert!(
            told.contains("callers: 3 errors, 0 answers of fallbacks, of 3 calls"),
            "{told}"
        );
        outage["affected"] = json!({"calls": 1, "errors": 1, "by_fallback": 1});
        let one = block(&alert_of(&outage));
        let said = "callers: 1 error, 1 answer of fallbacks, of 1 call\n";
        assert!(one.contains(said), "OPS-1: {one}");
        outage["ended_by"] = "recovery".into();
        let told = block(&alert_of(&outage));
        assert!(
            told.contains("over since 2026-01-01T00:05:00.000Z"),
            "{told}"
        );
    }
}
