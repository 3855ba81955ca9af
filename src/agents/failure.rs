//! Errors of agent services: texts without secrets, and their classification.

use crate::Verdict;
use crate::config::Secret;
use crate::policy::{Class, Executed};

/// Maximum length of a service's message that is passed on, in characters.
const MAX_SAID: usize = 300;
/// Length of the fragments of a key that a text must not contain, in characters.
const PART: usize = 5;

/// An attempt without a usable response.
///
/// Its text never contains a URL, a key, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ServiceError {
    text: String,
    verdict: Verdict,
}

impl ServiceError {
    /// Creates an error with its classification.
    #[must_use]
    pub fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            verdict,
        }
    }

    /// Creates the error of a set-up mistake: a key, a name, an address. Every call fails until an
    /// operator corrects it.
    #[must_use]
    pub fn misconfigured(text: impl Into<String>) -> Self {
        Self::new(Verdict::from(Class::Misconfigured), text)
    }

    /// Creates the error of a request that is the mistake of its caller. It says nothing about the
    /// service.
    #[must_use]
    pub fn rejected(text: impl Into<String>) -> Self {
        Self::new(Verdict::from(Class::Rejected), text)
    }

    /// Creates the error of a complete response that cannot be used.
    #[must_use]
    pub fn malformed(text: impl Into<String>) -> Self {
        let verdict = Verdict::from(Class::Failure).executed(Executed::Yes);
        Self::new(verdict, text)
    }

    /// Returns the classification.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns true if our own configuration is wrong: a key, a name, a retired model.
    #[must_use]
    pub fn is_misconfigured(&self) -> bool {
        self.verdict.class == Class::Misconfigured
    }

    /// Replaces the text if it contains a fragment of `secret`.
    #[must_use]
    pub fn without(self, secret: &Secret) -> Self {
        if !holds_part_of(&self.text, secret.expose()) {
            return self;
        }
        Self {
            text: "its message is left out: it contains a part of the API key".to_owned(),
            ..self
        }
    }

    pub(super) fn without_key(self, key: Option<&Secret>) -> Self {
        match key {
            Some(key) => self.without(key),
            None => self,
        }
    }
}

fn holds_part_of(text: &str, secret: &str) -> bool {
    let letters: Vec<char> = secret.chars().collect();
    let mut parts = letters.windows(PART.min(letters.len().max(1)));
    parts.any(|part| text.contains(&part.iter().collect::<String>()))
}

/// Returns a service's message redacted, on one line and cut; HTML becomes a placeholder.
#[must_use]
pub fn clean_message(text: &str) -> String {
    let text = text.trim();
    if text.starts_with('<') {
        return "(a page for browsers)".to_owned();
    }
    let clean = breakerbox_actors::redact(text);
    let letters = clean.chars().take(MAX_SAID);
    letters
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// An invalid argument of the caller. No call was made and no outcome recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: given {given}, allowed {allowed}")]
#[non_exhaustive]
pub struct InvalidInput {
    /// The argument.
    pub what: &'static str,
    /// The given value.
    pub given: String,
    /// The allowed values.
    pub allowed: String,
}

impl InvalidInput {
    pub(crate) fn new(
        what: &'static str,
        given: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            what,
            given: given.into(),
            allowed: allowed.into(),
        }
    }
}

/// Errors of the agent clients.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The caller's mistake, found before any call was made.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// Any other end: refused, failed, timed out and so on.
    #[error(transparent)]
    Call(#[from] crate::CallError<ServiceError>),
}

impl AgentError {
    /// Returns the error of the call; `None` if no call was made.
    #[must_use]
    pub fn call(&self) -> Option<&crate::CallError<ServiceError>> {
        match self {
            Self::Call(error) => Some(error),
            Self::Invalid(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_62_a_text_with_a_part_of_the_key_is_left_out() {
        let key = Secret::new("AIzaSyQx7");
        let error = |text: &str| ServiceError::new(Verdict::from(Class::Failure), text);
        let clean = error("it answered 500: out of memory");
        assert_eq!(clean.clone().without(&key), clean);
        let leaky = error("no such key: ...zaSyQ...").without(&key);
        assert!(leaky.to_string().contains("left out"), "{leaky}");
        assert_eq!(leaky.verdict(), clean.verdict());
        let short = error("anything").without(&Secret::new(""));
        assert_eq!(short.to_string(), "anything");
    }

    #[test]
    fn item_62_what_a_service_said_is_cut_and_masked() {
        assert_eq!(clean_message("<html>"), "(a page for browsers)");
        assert_eq!(
            clean_message("at https://a/b?key=SECRET\nx"),
            "at https://a/b?*** x"
        );
        assert_eq!(clean_message(&"y".repeat(999)).len(), MAX_SAID);
    }
}
