//! The verdict on a provider's answer: the kind of its error, and what follows from the kind.

use std::time::Duration;

use crate::Verdict;
use crate::policy::{Class, Executed, Symptom};

/// The kind of a provider's error, the same in all dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelErrorKind {
    /// Too many requests or tokens in a short time.
    RateLimit,
    /// Credit, spend, contract or the day's quota is used up.
    QuotaUsedUp,
    /// The provider has no capacity at present.
    Overloaded,
    /// The provider failed.
    Failure,
    /// The key is wrong or missing.
    WrongKey,
    /// The key is not permitted to do this: a project, a place, a model without quota.
    NotPermitted,
    /// There is no such model.
    UnknownModel,
    /// The prompt is longer than the model allows.
    TooLong,
    /// A filter has rejected the prompt or the answer.
    Filtered,
    /// Any other mistake in the request.
    Rejected,
}

/// The part of a dependency that an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorScope {
    /// The model that was asked for.
    Model,
    /// The dependency as a whole, with all its models.
    Dependency,
}

impl ModelErrorKind {
    /// Returns the class for the breaker.
    ///
    /// # Source  Rule LLM-3 in docs/rules.md.
    #[must_use]
    pub const fn class(self) -> Class {
        // LLM-3: too much traffic is no failure, and a mistake of the set-up is none of the caller.
        match self {
            Self::RateLimit | Self::QuotaUsedUp => Class::Throttled,
            Self::Overloaded | Self::Failure => Class::Failure,
            Self::WrongKey | Self::NotPermitted | Self::UnknownModel => Class::Misconfigured,
            Self::TooLong | Self::Filtered | Self::Rejected => Class::Rejected,
        }
    }

    /// Returns the scope.
    #[must_use]
    pub const fn scope(self) -> ErrorScope {
        // LLM-18: credit and key are of the account; a limit is of a model.
        match self {
            Self::QuotaUsedUp | Self::WrongKey => ErrorScope::Dependency,
            _ => ErrorScope::Model,
        }
    }

    /// Returns the kind in a few words, for events and alerts.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::RateLimit => "its rate limit is exceeded",
            Self::QuotaUsedUp => "its quota is used up",
            Self::Overloaded => "it is overloaded",
            Self::Failure => "it failed",
            Self::WrongKey => "its key is wrong",
            Self::NotPermitted => "its key is not permitted to do this",
            Self::UnknownModel => "it has no such model",
            Self::TooLong => "the prompt is too long",
            Self::Filtered => "a filter has rejected the content",
            Self::Rejected => "it rejected the request",
        }
    }

    /// Returns the status of an error that came without one, in a stream or with a 200.
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::RateLimit | Self::QuotaUsedUp => 429,
            Self::Overloaded => 503,
            Self::Failure => 500,
            Self::WrongKey => 401,
            Self::NotPermitted => 403,
            Self::UnknownModel => 404,
            Self::TooLong | Self::Filtered | Self::Rejected => 400,
        }
    }
}

/// The verdict on a provider's answer, or on an error event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelVerdict {
    /// The kind of the error; `None` for a good answer.
    pub kind: Option<ModelErrorKind>,
    /// The answer's status; for an error that came with a status below 400 the one that such an
    /// error has.
    pub status: u16,
    /// The wait that the provider asks for. With a used-up quota: the time until its reset, if the
    /// provider says it.
    pub retry_after: Option<Duration>,
    /// The provider's code, such as `insufficient_quota`; at most 64 letters, digits and `_-.`.
    pub code: Option<String>,
    /// True if the error came in the dialect's own envelope, and not from a proxy on the way.
    pub is_own: bool,
    /// True if the error came with a status below 400, in a stream or instead of an answer.
    pub is_late: bool,
}

impl ModelVerdict {
    /// The verdict on a good answer.
    pub(super) const fn good(status: u16) -> Self {
        Self {
            kind: None,
            status,
            retry_after: None,
            code: None,
            is_own: false,
            is_late: false,
        }
    }

    /// The verdict on an answer that only says that the prompt was blocked.
    pub(super) fn blocked(status: u16) -> Self {
        Self {
            kind: Some(ModelErrorKind::Filtered),
            is_own: true,
            ..Self::good(status)
        }
    }

    /// Returns true if the answer is one.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.kind.is_none()
    }

    /// Returns the class of the answer.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self.kind {
            Some(kind) => kind.class(),
            None => Class::Success,
        }
    }

    /// Returns the part of the dependency that the error speaks of.
    #[must_use]
    pub const fn scope(&self) -> ErrorScope {
        match self.kind {
            Some(kind) => kind.scope(),
            None => ErrorScope::Model,
        }
    }

    /// Returns whether the provider did the work.
    ///
    /// # Source  Rule LLM-11.
    #[must_use]
    pub const fn executed(&self) -> Executed {
        use ModelErrorKind as Kind;
        match self.kind {
            None => Executed::Yes,
            // LLM-11: a provider that turns a request away in its own words has not begun it.
            Some(Kind::RateLimit | Kind::QuotaUsedUp) if self.is_own => Executed::No,
            Some(Kind::Overloaded) if self.is_own && !self.is_late => Executed::No,
            Some(Kind::Overloaded | Kind::Failure) if self.is_late => Executed::Maybe,
            Some(_) => Executed::Yes,
        }
    }

    /// Returns the verdict for the runtime: class, hint, execution and cause. The settings decide
    /// about statuses of 500 and more (`classify`).
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Some(kind) = self.kind else {
            return Verdict::from(Class::Success);
        };
        let symptom = Symptom::Status(self.status);
        let verdict = match kind {
            // LLM-4: the pause lasts until the quota is reset.
            ModelErrorKind::QuotaUsedUp => Verdict::quota_used_up().symptom(symptom),
            ModelErrorKind::Overloaded | ModelErrorKind::Failure if self.status >= 500 => {
                Verdict::from(symptom)
            }
            _ => Verdict::from(kind.class()).symptom(symptom),
        };
        let mut verdict = verdict.executed(self.executed()).cause(kind.words());
        if self.is_late {
            // EDGE-8: no such status was answered.
            verdict = verdict.likened();
        }
        match self.retry_after {
            Some(wait) => verdict.retry_after(wait),
            None => verdict,
        }
    }
}

/// An error that came as an event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamError {
    /// The verdict, with the status that the error would have as an answer.
    pub verdict: ModelVerdict,
    /// The error as the body of an answer with that status: the provider's own words in the
    /// dialect's envelope.
    pub body: String,
}

impl From<&ModelVerdict> for Verdict {
    fn from(verdict: &ModelVerdict) -> Self {
        verdict.verdict()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: ModelErrorKind, is_own: bool, is_late: bool) -> ModelVerdict {
        ModelVerdict {
            kind: Some(kind),
            status: kind.status(),
            is_own,
            is_late,
            ..ModelVerdict::good(200)
        }
    }

    #[test]
    fn llm_11_a_request_turned_away_was_not_executed() {
        use ModelErrorKind as Kind;
        for (kind, is_own, is_late, executed) in [
            (Kind::RateLimit, true, false, Executed::No),
            (Kind::RateLimit, false, false, Executed::Yes),
            (Kind::Overloaded, true, false, Executed::No),
            (Kind::Overloaded, true, true, Executed::Maybe),
            (Kind::Overloaded, false, false, Executed::Yes),
            (Kind::QuotaUsedUp, true, true, Executed::No),
            (Kind::Failure, true, false, Executed::Yes),
            (Kind::Failure, true, true, Executed::Maybe),
            (Kind::Rejected, true, false, Executed::Yes),
        ] {
            let verdict = of(kind, is_own, is_late);
            assert_eq!(verdict.executed(), executed, "{verdict:?}");
            assert_eq!(verdict.verdict().executed, executed, "{verdict:?}");
        }
        assert_eq!(ModelVerdict::good(200).executed(), Executed::Yes);
    }

    #[test]
    fn llm_4_a_used_up_quota_is_one_for_the_runtime() {
        let mut verdict = of(ModelErrorKind::QuotaUsedUp, true, false);
        verdict.retry_after = Some(Duration::from_secs(7_200));
        let runtime = Verdict::from(&verdict);
        assert!(runtime.quota_used_up);
        assert_eq!(runtime.class, Class::Throttled);
        assert_eq!(runtime.retry_after, Some(Duration::from_secs(7_200)));
        assert_eq!(runtime.cause, Some("its quota is used up"));
    }

    #[test]
    fn llm_18_credit_and_key_are_of_the_whole_dependency() {
        for kind in [ModelErrorKind::QuotaUsedUp, ModelErrorKind::WrongKey] {
            assert_eq!(of(kind, true, false).scope(), ErrorScope::Dependency);
        }
        for kind in [ModelErrorKind::RateLimit, ModelErrorKind::UnknownModel] {
            assert_eq!(of(kind, true, false).scope(), ErrorScope::Model);
        }
        assert_eq!(ModelVerdict::good(200).scope(), ErrorScope::Model);
        assert!(ModelVerdict::good(200).is_good());
        assert_eq!(ModelVerdict::good(200).verdict().class, Class::Success);
    }
}
