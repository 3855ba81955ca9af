//! The ways in which a start can fail.

use std::fmt;

use breakerbox_policy::SettingProblem;
use breakerbox_policy::supervision::StopCause;

/// The reason why a dependency or a child could not be started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name is taken: one dependency has one breaker.
    #[error("{name} is already running; a dependency has one breaker, share its handle")]
    AlreadyRegistered {
        /// The name.
        name: String,
    },
    /// A child's first start failed; the children before it were stopped again.
    #[error("{child} did not start: {cause}")]
    Failed {
        /// The child's name.
        child: String,
        /// The cause of the failure.
        cause: StopCause,
    },
    /// The fallbacks form a cycle, so no fallback at the end of the chain could answer.
    #[error("the fallbacks of {name} would come back to it: {circle}")]
    FallbackCycle {
        /// The name.
        name: String,
        /// The cycle, such as `a->b->a`.
        circle: String,
    },
    /// Attributes name dependencies that are neither configured nor started.
    #[error("{}", list(.names))]
    UnknownNames {
        /// The unknown names.
        names: Vec<UnknownName>,
    },
    /// Another runtime is already installed in this process.
    #[error("a runtime is installed already, and a process has one; enter this one instead")]
    AlreadyInstalled,
    /// The runtime is shutting down, or its thread is gone.
    #[error("the runtime is shutting down; nothing can be started any more")]
    ShuttingDown,
    /// The threads of the runtime could not be started.
    #[error("a thread of the runtime could not be started: {0}")]
    Thread(String),
    /// The program aborts on a panic, so nothing could be restarted after one.
    #[error("this program is built with panic = \"abort\"; supervision needs panic = \"unwind\"")]
    PanicAborts,
    /// A setting has a value that cannot work; nothing is started or changed.
    #[error("the settings of {name} cannot work: {problem}")]
    BadSetting {
        /// The name of the dependency.
        name: String,
        /// The setting, and its allowed values.
        problem: SettingProblem,
    },
    /// The specification contradicts itself.
    #[error("{name} cannot be supervised: {reason}")]
    BadSpec {
        /// The name.
        name: String,
        /// The contradiction.
        reason: String,
    },
}

/// A name that an attribute gives and that is not configured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownName {
    /// The name.
    pub name: String,
    /// The place of the attribute: the file, as passed to the compiler, and the line.
    pub place: String,
    /// The most similar known name, if one is similar enough.
    pub near: Option<String>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{}\" at {}", self.name, self.place)?;
        match &self.near {
            Some(near) => write!(out, ", did you mean \"{near}\"?"),
            None => Ok(()),
        }
    }
}

/// Lists all of them in one line.
fn list(names: &[UnknownName]) -> String {
    let each: Vec<String> = names.iter().map(UnknownName::to_string).collect();
    let are = if names.len() == 1 {
        "a dependency that an attribute names is"
    } else {
        "dependencies that attributes name are"
    };
    format!("{are} neither configured nor started: {}", each.join("; "))
}
