//! `breakerbox note`: leaves a mark on the dashboard's charts.

use std::io::{self, Write};

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::json;

use super::client::RemoteAdmin;
use super::table::plain;
use super::{AdminTarget, dependency_name, run, tell};
use crate::cli::ExitReason;
use crate::cli::completion::dependency_names;

/// Arguments of `note`.
#[derive(Debug, Args)]
pub(crate) struct NoteArgs {
    /// Text, such as "deploy 1.2", at most 200 letters
    text: String,
    /// Dependency that it concerns [default: all]
    #[arg(long, value_name = "NAME", value_parser = dependency_name, add = ArgValueCandidates::new(dependency_names))]
    dependency: Option<String>,
    #[command(flatten)]
    place: AdminTarget,
}

/// Runs `note`.
pub(crate) fn note(
    note: &NoteArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitReason> {
    run(err, async |err| {
        let remote = match RemoteAdmin::new(&note.place, true) {
            Ok(remote) => remote,
            Err(failure) => return tell(&failure, err),
        };
        let body = json!({ "text": note.text, "dependency": note.dependency });
        match remote.post(&["api", "notes"], &body, "text").await {
            Ok(answer) => {
                let text = |field: &str| plain(answer[field].as_str().unwrap_or_default());
                writeln!(out, "{}  {}", text("time"), text("text"))?;
                Ok(ExitReason::Done)
            }
            Err(failure) => tell(&failure, err),
        }
    })
}
