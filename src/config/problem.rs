//! Problems of a configuration: all at once, each with its origin.

use std::fmt;

use breakerbox_actors::printable;
use breakerbox_policy::CountedNoun;

/// A configuration that cannot be used.
///
/// It contains all problems, so that they can be fixed in one pass.
///
/// # Source  Rule CFG-1 in docs/rules.md.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Problem {
    /// The full key, such as `dependencies.web_search.breaker.slow_rate`; empty if a whole layer
    /// could not be read.
    pub key: String,
    /// The given value; `None` if there was none. Secrets are masked.
    pub given: Option<String>,
    /// The reason, if the value alone does not show it.
    pub reason: Option<String>,
    /// The allowed values.
    pub allowed: String,
    /// The layer of the value: `file:line`, a variable of the environment or of `.env`, a flag.
    pub origin: String,
    /// The line of a file that cannot be read, with a mark at the column; secrets are masked.
    pub excerpt: Option<String>,
}

/// A value that is usable, but suspicious.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The full key; empty if it concerns a file or a variable as a whole.
    pub key: String,
    /// The reason for the warning.
    pub text: String,
    /// The layer of the value.
    pub origin: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(out, "{}: ", printable(&self.key))?;
        }
        let (text, origin) = (printable(&self.text), printable(&self.origin));
        write!(out, "{text} ({origin})")
    }
}

impl Problem {
    /// Returns the problem of a whole layer, or of a name in it.
    pub(super) fn of_layer(reason: impl ToString, allowed: &str, origin: &str) -> Self {
        Self {
            key: String::new(),
            given: None,
            reason: Some(reason.to_string()),
            allowed: allowed.to_owned(),
            origin: origin.to_owned(),
            excerpt: None,
        }
    }
}

impl ConfigError {
    /// Sorts the problems by key, so that the text does not depend on the order of reading.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { problems }
    }

    /// All problems, sorted by key.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = CountedNoun(self.problems.len() as u64, "problem");
        write!(out, "{count} in the configuration")?;
        self.problems
            .iter()
            .try_for_each(|problem| write!(out, "\n  {problem}"))
    }
}

/// Shows the text for people: a `main` that returns this error prints it so, and so does `unwrap`.
impl fmt::Debug for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys and names come from files and variables: they may hold any character.
        if !self.key.is_empty() {
            write!(out, "{}: ", printable(&self.key))?;
        }
        if let Some(given) = &self.given {
            write!(out, "given {}, ", printable(given))?;
        }
        if let Some(reason) = &self.reason {
            write!(out, "{}, ", printable(reason))?;
        }
        let (allowed, origin) = (printable(&self.allowed), printable(&self.origin));
        write!(out, "allowed: {allowed} ({origin})")?;
        // Its maker has written out what is not printable.
        let lines = self.excerpt.iter().flat_map(|excerpt| excerpt.lines());
        lines
            .into_iter()
            .try_for_each(|line| write!(out, "\n    {line}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::Settings;

    #[test]
    fn cfg_1_a_main_that_returns_the_error_prints_the_text_for_people() {
        let text = "[dependencies.web]\nretries = 3\n";
        let error = Settings::loader().bare().toml(text).load().unwrap_err();
        let printed = format!("{error:?}");
        assert_eq!(printed, error.to_string());
        assert!(
            printed.contains("did you mean retry.max_attempts?"),
            "{printed}"
        );
    }
}
