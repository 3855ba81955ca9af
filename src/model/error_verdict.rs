//! The verdict on an error: by the provider's code, then by the status; and its hint.

use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;

use super::envelope::ErrorEnvelope;
use super::verdict::{ModelErrorKind, ModelVerdict};
use super::{Api, ApiShape, anthropic, google, openai};
use crate::retry_after;

/// The shortest wait that is taken for the reset of a used-up quota. Providers say seconds there
/// that end long before the day or the month does.
const SHORTEST_RESET: Duration = Duration::from_secs(3_600);

/// An error of a provider, with all that is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProviderError<'a> {
    pub(super) shape: ApiShape,
    /// The status; `None` for an error in a stream, or instead of an answer.
    pub(super) status: Option<u16>,
    pub(super) headers: Option<&'a HeaderMap>,
    pub(super) body: &'a [u8],
    pub(super) envelope: Option<&'a ErrorEnvelope>,
    pub(super) now: Timestamp,
}

impl ProviderError<'_> {
    /// Returns the verdict.
    pub(super) fn verdict(&self) -> ModelVerdict {
        let kind = self.kind();
        ModelVerdict {
            kind: Some(kind),
            status: self.status.unwrap_or_else(|| self.late_status(kind)),
            retry_after: self.hint(kind),
            code: self.envelope.and_then(ErrorEnvelope::shown_code),
            is_own: self.envelope.is_some_and(|envelope| envelope.is_own),
            is_late: self.status.is_none(),
        }
    }

    fn kind(&self) -> ModelErrorKind {
        // LLM-2: the code decides, and an unknown one leaves it to the status.
        let said = self.envelope.and_then(|envelope| {
            let is_late = self.status.is_none();
            match self.shape.api() {
                // Google's envelope, behind any shape that it serves.
                _ if envelope.status.is_some() => google::kind(envelope),
                Api::OpenAi => openai::kind(envelope, is_late),
                Api::Anthropic => anthropic::kind(envelope, is_late),
                Api::Google => google::kind(envelope),
            }
        });
        let number = self.envelope.and_then(|envelope| envelope.number);
        let number = number.filter(|number| (400..600).contains(number));
        let by_status = || kind_of_status(self.status.or(number).unwrap_or(500));
        match said.unwrap_or_else(by_status) {
            // A file or a batch that is not there says nothing about the model.
            ModelErrorKind::UnknownModel if !self.shape.is_generating() => ModelErrorKind::Rejected,
            kind => kind,
        }
    }

    /// Returns the status of an error that came without one.
    fn late_status(&self, kind: ModelErrorKind) -> u16 {
        let number = self.envelope.and_then(|envelope| envelope.number);
        let number = number.filter(|number| (400..600).contains(number));
        number.unwrap_or(match (self.shape.api(), kind) {
            (Api::Anthropic, ModelErrorKind::Overloaded) => 529,
            _ => kind.status(),
        })
    }

    /// Returns the wait that the provider asks for.
    fn hint(&self, kind: ModelErrorKind) -> Option<Duration> {
        let none = HeaderMap::new();
        let headers = self.headers.unwrap_or(&none);
        let asked = retry_after::asked(headers, self.body, self.now);
        match kind {
            ModelErrorKind::QuotaUsedUp => {
                // LLM-4: until the provider's own time, and not until a hint of seconds.
                let asked = asked.filter(|wait| *wait >= SHORTEST_RESET);
                let said = self.envelope.filter(|_| self.shape.api() == Api::Anthropic);
                asked.max(said.and_then(|said| anthropic::quota_reset(said, self.now)))
            }
            // LLM-5: a limit's reset counts only where the provider asks for no wait.
            ModelErrorKind::RateLimit | ModelErrorKind::Overloaded => {
                asked.or_else(|| retry_after::used_up_resets(headers, self.now))
            }
            _ => asked,
        }
    }
}

/// Returns the kind of an error by its status alone.
fn kind_of_status(status: u16) -> ModelErrorKind {
    match status {
        // LLM-4: payment is required until an account is filled up.
        402 => ModelErrorKind::QuotaUsedUp,
        429 => ModelErrorKind::RateLimit,
        503 | 529 => ModelErrorKind::Overloaded,
        401 => ModelErrorKind::WrongKey,
        403 => ModelErrorKind::NotPermitted,
        404 => ModelErrorKind::UnknownModel,
        413 => ModelErrorKind::TooLong,
        // LLM-3: neither is the caller's mistake.
        408 | 409 | 499 => ModelErrorKind::Failure,
        400..=498 => ModelErrorKind::Rejected,
        _ => ModelErrorKind::Failure,
    }
}
