//! Completion of arguments by the shell: subcommands, options, and the names of dependencies of the
//! Breakerbox that runs.
//!
//! The script that `breakerbox completions` prints calls the command back while an argument is typed.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Command, ValueEnum};
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{CompletionCandidate, Shell};

use super::ExitReason;
use super::operator::names_of_running;

/// Variable by which a shell asks for completions. Other programs set `COMPLETE` for their own.
const VARIABLE: &str = "_BREAKERBOX_COMPLETE";
/// Time that a shell waits for the names of dependencies.
const PATIENCE: Duration = Duration::from_millis(500);

/// Answers a shell that asks for completions, and ends the process; returns if no shell asks.
pub(crate) fn answer_shell(command: impl Fn() -> Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// Writes the script for a shell.
pub(crate) fn write_script(shell: Shell, out: &mut dyn Write) -> io::Result<ExitReason> {
    let name = shell.to_possible_value();
    let name = name.as_ref().map_or("", |value| value.get_name());
    let shells = Shells::builtins();
    let Some(completer) = shells.completer(name) else {
        return Err(io::Error::other(format!(
            "there are no completions for {name}"
        )));
    };
    let command = "breakerbox";
    let mut text = Vec::new();
    completer.write_registration(VARIABLE, command, command, command, &mut text)?;
    out.write_all(&text)?;
    Ok(ExitReason::Done)
}

/// Returns the names of the dependencies that run; none if no Breakerbox answers at the configured
/// address.
pub(crate) fn dependency_names() -> Vec<CompletionCandidate> {
    let names = names_of_running(PATIENCE);
    names.into_iter().map(CompletionCandidate::new).collect()
}
