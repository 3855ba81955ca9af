//! `breakerbox status`, `open`, `close`, `disable`, `shadow`, `reset`, `restart`, `events`, `alerts` and
//! `note`: operator commands for a running Breakerbox, over its admin side.
//!
//! The commands make no decisions: the server validates, carries out and records.

mod alerts;

mod client;

mod follow;
mod groups;

mod note;

mod table;

use std::io::{self, IsTerminal as _, Write, stdout};
use std::path::PathBuf;
use std::time::Duration;

use breakerbox_actors::printable_json;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::ExitReason;
pub(crate) use alerts::{Alerts, alerts};
use client::{ClientError, RemoteAdmin};
pub(crate) use note::{NoteArgs, note};

/// Refresh interval of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// Address of the running Breakerbox, and credentials for it.
#[derive(Debug, Args)]
pub(crate) struct AdminTarget {
    /// Address of its admin side [default: admin.bind of the configuration]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// File with the admin token, for commands that make changes [default:
    /// $BREAKERBOX__ADMIN__TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Directory of the configuration files [default: config, if it exists]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Environment, such as production [default: $BREAKERBOX_ENV or development]
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Shows one dependency instead of all
    name: Option<String>,
    /// Prints the response of the admin side as JSON
    #[arg(long)]
    json: bool,
    /// Repeats until interrupted: redraws on a terminal, else prints changes
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    place: AdminTarget,
}

/// Arguments of `open`, `close`, `disable`, `shadow`, `reset` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct OperateArgs {
    /// Name of the dependency
    name: String,
    /// Reason, recorded in the audit event
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Duration, such as 10m [default: until an operator closes it]. Ignored by close, reset and restart
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    for_: Option<Duration>,
    #[command(flatten)]
    place: AdminTarget,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Follows new events until interrupted
    #[arg(long)]
    follow: bool,
    /// Shows only events with an id above this
    #[arg(long, value_name = "ID")]
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
            return watch(status, &remote, out, err).await;
        }
        match ask(status, &remote).await {
            Ok(answer) => {
                show(status, &answer, out)?;
                groups::show_all(status, &remote, out).await?;
                Ok(ExitReason::Done)
            }
            Err(failure) => match groups::find(status, &remote).await {
                Some(group) => groups::show_one(status, &group, out).map(|()| ExitReason::Done),
                None => tell(&failure, err),
            },
        }
    })
}

async fn ask(status: &Status, remote: &RemoteAdmin) -> Result<Value, ClientError> {
    match &status.name {
        Some(name) => remote.get(&["api", "dependencies", name]).await,
        None => remote.get(&["api", "dependencies"]).await,
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
        None => table::all(answer, out),
    }
}

/// Shows the status repeatedly, and waits for a server that is away for a while.
async fn watch(
    status: &Status,
    remote: &RemoteAdmin,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    let redraws = stdout().is_terminal() && !status.json;
    let mut shown = None;
    loop {
        match ask(status, remote).await {
            Ok(answer) if shown.as_ref() != Some(&answer) => {
                if redraws {
                    // Move to the corner and clear; the terminal keeps earlier output.
                    write!(out, "\u{1b}[H\u{1b}[2J")?;
                }
                show(status, &answer, out)?;
                if !redraws && !status.json {
                    writeln!(out)?;
                }
                out.flush()?;
                shown = Some(answer);
            }
            Ok(_as_before) => {}
            Err(failure) if failure.is_away() && shown.is_some() => {
                writeln!(err, "breakerbox: {failure}")?;
            }
            Err(failure) => return tell(&failure, err),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitReason::Interrupted),
        }
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
        let path = ["api", "dependencies", &order.name, operation];
        match remote.post(&path, &body).await {
            Ok(answer) => {
                writeln!(out, "{operation}: done")?;
                if let Some(note) = answer["note"].as_str() {
                    writeln!(err, "breakerbox: {}", table::plain(note))?;
                }
                table::all(&json!([answer["dependency"]]), out)?;
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
            .get_with(&["api", "events"], &[("since", &since), ("fold", fold)])
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
