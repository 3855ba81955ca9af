//! Whether a dependency takes our set-up: keys, names, models.
//!
//! It opens no breaker and pauses nobody: whoever asks gets the dependency's own word. It is told
//! once, since only a person can set it right.

use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox_policy::Class;

use crate::dependency::{Shared, Verdict};
use crate::event::EventKind;

/// What the last attempts said of it.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    refused: AtomicBool,
}

impl Setup {
    /// Whether it is refused, and nothing has succeeded since.
    #[inline]
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes whether it is; true when that is new.
    fn note(&self, refused: bool) -> bool {
        self.refused.swap(refused, Ordering::Relaxed) != refused
    }
}

impl Shared {
    /// Takes in what an attempt said of our set-up (rule BRK-7).
    #[inline]
    pub(crate) fn note_setup(&self, verdict: &Verdict) {
        let symptom = verdict.symptom;
        let kind = match verdict.class {
            Class::Misconfigured => EventKind::Misconfigured { symptom },
            Class::Success if self.setup.is_refused() => EventKind::SetRight,
            _ => return,
        };
        if self.setup.note(verdict.class == Class::Misconfigured) {
            self.events.emit(&self.name, kind);
        }
    }
}
