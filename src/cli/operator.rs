//! `breakerbox status`, `open`, `close`, `disable`, `shadow`, `reset`, `restart`, `events`, `alerts` and
//! `note`: operator commands for a running Breakerbox, over its admin side.
//!
//! The commands make no decisions: the server validates, carries out and records.

mod alerts;

mod client;

mod consumers;

mod fleet;

mod follow;
mod groups;

mod note;

mod overview;

mod table;

mod terminal;

mod watch;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use breakerbox_actors::printable_json;
use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::{Value, json};

use crate::cli::completion::dependency_names;
use crate::cli::{ExitReason, path};
pub(crate) use alerts::{Alerts, alerts};
use client::{ClientError, RemoteAdmin};
pub(crate) use fleet::{FleetArgs, fleet};
pub(crate) use note::{NoteArgs, note};
use overview::Overview;

/// Address of the running Breakerbox, and credentials for it.
#[derive(Debug, Default, Args)]
pub(crate) struct AdminTarget {
    /// Address of its admin side [default: admin.bind of the configuration]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// File with the admin token, for commands that make changes [default:
    /// $BREAKERBOX__ADMIN__TOKEN]
    #[arg(long, value_name = "FILE", value_parser = path())]
    token_file: Option<PathBuf>,
    /// Directory of the configuration files [default: config, if it exists]
    #[arg(long, value_name = "DIR", value_parser = path())]
    config: Option<PathBuf>,
    /// Environment, such as production [default: $BREAKERBOX_ENV or development]
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Shows one dependency instead of all
    #[arg(conflicts_with = "sick", value_parser = dependency_name,
          add = ArgValueCandidates::new(dependency_names))]
    name: Option<String>,
    /// Prints the response of the admin side as JSON
    #[arg(long)]
    json: bool,
    /// Repeats until interrupted: on a screen of its own on a terminal, else prints changes
    #[arg(long)]
    watch: bool,
    /// Leaves out the dependencies that are well and have no override
    #[arg(long)]
    sick: bool,
    #[command(flatten)]
    place: AdminTarget,
}

/// Arguments of `open`, `close`, `disable`, `shadow`, `reset` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct OperateArgs {
    /// Name of the dependency
    #[arg(value_parser = dependency_name, add = ArgValueCandidates::new(dependency_names))]
    name: String,
    /// Reason, recorded in the audit event
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Duration, such as 10m [default: until an operator closes it]. Ignored by close, reset and restart
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    for_: Option<Duration>,
    /// In a fleet, only for the replica that is asked [default: for all replicas]. Ignored by restart
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    place: AdminTarget,
}

/// Parses a duration. A number without a unit is not guessed.
fn duration(text: &str) -> Result<Duration, String> {
    /// As the admin side has it.
    const MOST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let span = breakerbox::config::parse_duration(text);
    let span = span.map_err(|error| match text.parse::<f64>() {
        Ok(_) => format!("it needs a unit: {text}s, {text}m or {text}h"),
        Err(_) => format!("{error}; allowed: a number with a unit, such as 90s, 10m or 1h 30m"),
    })?;
    match (Duration::from_millis(1)..=MOST).contains(&span) {
        true => Ok(span),
        false => Err("allowed: from 1ms to 365 days".to_owned()),
    }
}

/// Parses the name of a dependency. A shell's variable that is not set is an empty one, which would be
/// another address of the admin side, as `.` and `..` are.
fn dependency_name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" | "." | ".." => {
            Err("allowed: the name of a dependency, as breakerbox status lists them".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

/// Parses the id of an event.
fn event_id(text: &str) -> Result<u64, String> {
    let id = text.parse();
    id.map_err(|_| "allowed: the number of an event, as --json shows it in id".to_owned())
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Follows new events until interrupted, after the last ten
    #[arg(long)]
    follow: bool,
    /// Shows only events with an id above this
    #[arg(long, value_name = "ID", value_parser = event_id)]
    since: Option<u64>,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: AdminTarget,
}

/// Runs `status`.
pub(crate) fn status(
    status: &Status,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    run(err, async |err| {
        let remote = match RemoteAdmin::new(&status.place, false) {
            Ok(remote) => remote,
            Err(failure) => return tell(&failure, err),
        };
        if status.watch {
            return watch::watch(status, &remote, out, err).await;
        }
        match ask(status, &remote).await {
            Ok(answer) => {
                tell_of_refused_files(&remote, err).await?;
                show(status, &answer, out)?;
                groups::show_all(status, &remote, out).await?;
                consumers::show(status, &remote, out).await?;
                Ok(ExitReason::Done)
            }
            Err(failure) => match groups::find(status, &remote).await {
                Some(group) => groups::show_one(status, &group, out).map(|()| ExitReason::Done),
                None => tell(&failure, err),
            },
        }
    })
}

/// Tells that the files of the configuration do not hold at present, as a whole or in part.
async fn tell_of_refused_files(remote: &RemoteAdmin, err: &mut dyn Write) -> io::Result<()> {
    // A process that starts or ends is not ready, and has no such note.
    let ready = remote.get(&["readyz"]).await.unwrap_or(Value::Null);
    if let Some(note) = ready["configuration"].as_str() {
        writeln!(err, "breakerbox: {}", table::plain(note))?;
    }
    let waits = ready["waits"].as_array().into_iter().flatten();
    let waits: Vec<String> = waits.filter_map(Value::as_str).map(table::plain).collect();
    match waits.is_empty() {
        true => Ok(()),
        false => writeln!(
            err,
            "breakerbox: it waits for a restart: {}",
            waits.join(", ")
        ),
    }
}

async fn ask(status: &Status, remote: &RemoteAdmin) -> Result<Value, ClientError> {
    match &status.name {
        Some(name) => {
            let path = ["api", "dependencies", name];
            remote.object(&path, &[], "health").await
        }
        None => {
            let all = remote.list(&["api", "dependencies"], "health").await?;
            Ok(Value::Array(all))
        }
    }
}

fn show(status: &Status, answer: &Value, out: &mut dyn Write) -> io::Result<()> {
    if status.json && status.watch {
        return writeln!(out, "{}", printable_json(&answer.to_string()));
    }
    if status.json {
        return writeln!(out, "{}", printable_json(&format!("{answer:#}")));
    }
    match status.name {
        Some(_) => table::one(answer, out),
        None => table::all(&Overview::of(answer, status.sick), out),
    }
}

/// Runs `open`, `close`, `disable`, `shadow`, `reset` or `restart`.
pub(crate) fn operate(
    operation: &str,
    order: &OperateArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    run(err, async |err| {
        let remote = match RemoteAdmin::new(&order.place, true) {
            Ok(remote) => remote,
            Err(failure) => return tell(&failure, err),
        };
        let mut body = json!({ "reason": order.reason });
        if let Some(for_) = order.for_ {
            body["for_ms"] = json!(u64::try_from(for_.as_millis()).unwrap_or(u64::MAX));
        }
        if order.here {
            body["scope"] = json!("replica");
        }
        let path = ["api", "dependencies", &order.name, operation];
        match remote.post(&path, &body, "done").await {
            Ok(answer) => {
                match answer["holds"].as_str() {
                    Some(holds) => writeln!(out, "{operation}: done, {}", table::plain(holds))?,
                    None => writeln!(out, "{operation}: done")?,
                }
                if let Some(note) = answer["note"].as_str() {
                    writeln!(err, "breakerbox: {}", table::plain(note))?;
                }
                table::all(&Overview::single(&answer["dependency"]), out)?;
                Ok(ExitReason::Done)
            }
            Err(failure) => tell(&failure, err),
        }
    })
}

/// Runs `events`.
pub(crate) fn events(
    events: &Events,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    run(err, async |err| {
        let remote = match RemoteAdmin::new(&events.place, false) {
            Ok(remote) => remote,
            Err(failure) => return tell(&failure, err),
        };
        if events.follow {
            return follow::follow(&remote, events.since, events.json, out, err).await;
        }
        let since = events.since.unwrap_or(0).to_string();
        let fold = if events.json { "false" } else { "true" };
        match remote
            .object(
                &["api", "events"],
                &[("since", &since), ("fold", fold)],
                "events",
            )
            .await
        {
            Ok(page) => {
                for event in page["events"].as_array().into_iter().flatten() {
                    follow::write(event, events.json, out)?;
                }
                Ok(ExitReason::Done)
            }
            Err(failure) => tell(&failure, err),
        }
    })
}

/// Returns the names of the dependencies of the Breakerbox at the configured address; none if it does
/// not answer within `patience`.
pub(crate) fn names_of_running(patience: Duration) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (Ok(runtime), Ok(remote)) = (runtime, RemoteAdmin::silent(&AdminTarget::default())) else {
        return Vec::new();
    };
    let path = ["api", "dependencies"];
    let asked = runtime.block_on(async { tokio::time::timeout(patience, remote.get(&path)).await });
    let Ok(Ok(Value::Array(all))) = asked else {
        return Vec::new();
    };
    let names = all.iter().filter_map(|one| one["name"].as_str());
    names.map(table::plain).collect()
}

fn tell(failure: &ClientError, err: &mut dyn Write) -> io::Result<ExitReason> {
    writeln!(err, "breakerbox: {failure}")?;
    Ok(failure.end())
}

/// Runs one command to its end on this thread.
fn run(
    err: &mut dyn Write,
    command: impl AsyncFnOnce(&mut dyn Write) -> io::Result<ExitReason>,
) -> io::Result<ExitReason> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(command(err)),
        Err(error) => {
            writeln!(err, "breakerbox: the command cannot run: {error}")?;
            Ok(ExitReason::Failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_1_what_the_admin_side_would_refuse_is_told_in_the_words_of_the_command_line() {
        for bad in ["0s", "366days", "10", "soon"] {
            let said = duration(bad).unwrap_err();
            assert!(
                said.contains("allowed: ") || said.contains("needs a unit"),
                "{said}"
            );
        }
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5_400)));
        for bad in ["", " ", ".", ".."] {
            assert!(dependency_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(dependency_name("web-search").as_deref(), Ok("web-search"));
    }
}
