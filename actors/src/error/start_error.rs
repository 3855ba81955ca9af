//! The ways in which a start can fail.

use std::fmt;

use breakerbox_policy::SettingProblem;
use breakerbox_policy::supervision::StopCause;

/// The reason why a dependency or a child could not be started.
#[derive(Clone, PartialEq, thiserror::Error)]
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

/// Shows the text for people: a `main` that returns this error prints it so, and so does `unwrap`.
impl fmt::Debug for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
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
    let told = format!("{are} neither configured nor started: {}", each.join("; "));
    // A name that is like a known one is mistyped.
    match names.iter().find(|unknown| unknown.near.is_none()) {
        Some(new) => format!(
            "{told}; a section [dependencies.{}] in config/default.toml is enough, an empty one too",
            new.name
        ),
        None => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_in_words_with_its_cure() {
        let unknown = UnknownName {
            name: "web_search".to_owned(),
            place: "src/main.rs:5".to_owned(),
            near: None,
        };
        let near = Some("web_find".to_owned());
        let mistyped = UnknownName {
            near,
            ..unknown.clone()
        };
        let names = vec![mistyped.clone()];
        let told = StartError::UnknownNames { names }.to_string();
        assert!(told.ends_with("did you mean \"web_find\"?"), "{told}");
        let names = vec![mistyped, unknown];
        let error = StartError::UnknownNames { names };
        let printed = format!("{error:?}");
        assert_eq!(printed, error.to_string());
        assert!(
            printed.contains("\"web_search\" at src/main.rs:5"),
            "{printed}"
        );
        assert!(printed.contains("[dependencies.web_search]"), "{printed}");
    }
}
