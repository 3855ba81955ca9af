//! The command's own modules: one for each subcommand.

// arguments
pub(crate) mod advice;
mod config_args;
// about the command itself
pub(crate) mod completion;
pub(crate) mod man;

// without a network
pub(crate) mod check;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod replay;

// of the queues
#[cfg(feature = "fleet")]
pub(crate) mod dead;

// of a running Breakerbox
pub(crate) mod operator;

// what runs
pub(crate) mod demo;
pub(crate) mod serve;

use std::process::ExitCode;

pub(crate) use config_args::{ConfigArgs, path};

/// Result of a command, as exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitReason {
    Done = 0,
    Failed = 1,
    WrongUse = 2,
    Interrupted = 130,
}

impl From<ExitReason> for ExitCode {
    fn from(end: ExitReason) -> Self {
        Self::from(end as u8)
    }
}
