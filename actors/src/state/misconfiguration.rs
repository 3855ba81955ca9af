//! Detection of a misconfiguration: the dependency refuses our keys, names or models.
//!
//! It opens no breaker and pauses no caller: each caller gets the dependency's own answer. The
//! event is emitted once, since only a person can correct the configuration.

use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox_policy::Class;

use crate::event::EventKind;
use crate::state::Shared;
use crate::verdict::Verdict;

/// Misconfiguration, as the latest attempts show it.
#[derive(Debug, Default)]
pub(crate) struct MisconfigurationState {
    refused: AtomicBool,
}

impl MisconfigurationState {
    /// Returns true if the configuration was refused and no attempt has succeeded since.
    #[inline]
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Records whether the configuration is refused. Returns true if that has changed.
    fn note(&self, refused: bool) -> bool {
        self.refused.swap(refused, Ordering::Relaxed) != refused
    }
}

impl Shared {
    /// Updates the misconfiguration by the result of an attempt (rule BRK-7).
    #[inline]
    pub(crate) fn note_configuration(&self, verdict: &Verdict) {
        let symptom = verdict.symptom;
        let kind = match verdict.class {
            Class::Misconfigured => EventKind::Misconfigured { symptom },
            Class::Success if self.misconfiguration.is_refused() => EventKind::SetRight,
            _ => return,
        };
        if self
            .misconfiguration
            .note(verdict.class == Class::Misconfigured)
        {
            self.note_refused_configuration(verdict);
            self.events.emit(&self.name, kind);
        }
    }
}
