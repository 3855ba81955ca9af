//! Where the outcomes of calls go to be kept, for whoever wants to look at them later.
//!
//! It only hands them on. Without a recorder a call pays one branch for it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use breakerbox_policy::{BreakerSettings, Outcome, PermitKind, Time};

use crate::dependency::Shared;

/// An attempt that has ended, as its breaker is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The dependency's name.
    pub dependency: &'a Arc<str>,
    /// When it ended, since the runtime's start.
    pub at: Time,
    /// How it ended, and how long it took without its waits.
    pub outcome: Outcome,
    /// Under which kind of permit it ran.
    pub permit: PermitKind,
}

/// Takes in what attempts came to; see [`crate::RuntimeSettings::recorder`].
///
/// It is told on the path of every call, by whichever thread the attempt ended on: it must never
/// block. What the runtime refuses itself is no outcome and is not told (rule BRK-7). One that
/// panics disturbs nobody.
pub trait Record: Send + Sync + 'static {
    /// Takes one outcome; each is told once, before its caller can see the answer.
    fn record(&self, ended: Ended<'_>);

    /// Takes the breaker's settings that hold from this time on: once when a dependency starts,
    /// and at each change.
    fn settings(&self, dependency: &Arc<str>, at: Time, breaker: &BreakerSettings) {
        let _ = (dependency, at, breaker);
    }
}

impl fmt::Debug for dyn Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Record").finish_non_exhaustive()
    }
}

/// Hands one outcome over. It may be told while a panic unwinds, so none may come out of here.
#[inline(never)]
pub(crate) fn tell(recorder: &dyn Record, ended: Ended<'_>) {
    guard(|| recorder.record(ended));
}

impl Shared {
    /// Tells the recorder, where there is one, which settings hold from now on.
    pub(crate) fn tell_settings(&self) {
        if let Some(recorder) = &self.recorder {
            let (at, settings) = (self.clock.now(), self.settings());
            let breaker = &settings.breaker;
            guard(|| recorder.settings(&self.name, at, breaker));
        }
    }
}

fn guard(told: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(told)).is_err() {
        tracing::error!("a recorder panicked; its runtime goes on");
    }
}
