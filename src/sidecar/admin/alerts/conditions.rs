//! The conditions that an alert has at present, and the keys among their subjects.
//!
//! It raises no alert and ends none.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::sidecar::names::key_of;

/// The kind of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AlertKind {
    BreakerOpen,
    Parked,
    Misconfigured,
    QuotaUsedUp,
    Errors,
    NoAnswers,
    ConsumerPaused,
    DeadLetters,
}

impl AlertKind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Parked => "parked",
            Self::Misconfigured => "misconfigured",
            Self::QuotaUsedUp => "quota_used_up",
            Self::Errors => "errors",
            Self::NoAnswers => "no_answers",
            Self::ConsumerPaused => "consumer_paused",
            Self::DeadLetters => "dead_letters",
        }
    }
}

/// A condition that lasts.
#[derive(Debug, Clone)]
pub(super) struct LastingCondition {
    kind: AlertKind,
    pub(super) subject: Arc<str>,
    pub(super) message: String,
    /// Number of its events: for a breaker, of the times that it has opened.
    times: u32,
}

/// All conditions of one alert, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct LastingConditions {
    all: Vec<LastingCondition>,
    /// Maximum number of keys at one time.
    most_keys: usize,
}

impl LastingConditions {
    /// Adds a condition, or counts one more event of it.
    pub(super) fn add(&mut self, kind: AlertKind, subject: &Arc<str>, message: String) {
        let mut known = self.all.iter_mut();
        if let Some(known) = known.find(|one| one.kind == kind && one.subject == *subject) {
            known.times = known.times.saturating_add(1);
            known.message = message;
            return;
        }
        self.all.push(LastingCondition {
            kind,
            subject: Arc::clone(subject),
            message,
            times: 1,
        });
        self.most_keys = self.most_keys.max(self.present_keys());
    }

    pub(super) fn remove(&mut self, kind: AlertKind, subject: &str) {
        self.all
            .retain(|one| one.kind != kind || *one.subject != *subject);
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns the number of keys: at present, or at most once none is left.
    pub(super) fn keys(&self) -> usize {
        if self.is_empty() {
            self.most_keys
        } else {
            self.present_keys()
        }
    }

    fn present_keys(&self) -> usize {
        let keyed = self.all.iter().filter_map(|one| key_of(&one.subject));
        keyed.collect::<BTreeSet<_>>().len()
    }

    /// Returns the condition of the worst key: that of the most events, of several the oldest.
    pub(super) fn worst_key(&self) -> Option<&LastingCondition> {
        let keyed = self.all.iter().filter(|one| key_of(&one.subject).is_some());
        keyed.rev().max_by_key(|one| one.times)
    }
}
