//! Recording of call outcomes, for later analysis.
//!
//! The runtime only passes them on. Without a recorder, a call pays one branch for it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use breakerbox_policy::{BreakerSettings, Outcome, PermitKind, Time};

use crate::state::Shared;

/// An attempt that has ended, as reported to its breaker.
#[derive(Debug, Clone, Copy)]
pub struct AttemptRecord<'a> {
    /// The dependency's name.
    pub dependency: &'a Arc<str>,
    /// Time at which it ended, since the runtime's start.
    pub at: Time,
    /// Its result, and its duration without its waits.
    pub outcome: Outcome,
    /// The kind of permit under which it ran.
    pub permit: PermitKind,
}

/// Receives the outcomes of attempts; see [`crate::RuntimeSettings::recorder`].
///
/// It is called on the path of every call, on the thread where the attempt ended: it must never
/// block. A refusal by the runtime itself is no outcome and is not recorded (rule BRK-7). A panic
/// in a recorder affects no call.
pub trait OutcomeRecorder: Send + Sync + 'static {
    /// Takes one outcome. Each is reported once, before its caller can see the answer.
    fn record(&self, ended: AttemptRecord<'_>);

    /// Takes the breaker's settings in force from this time on: once when a dependency starts, and
    /// at each change.
    fn settings(&self, dependency: &Arc<str>, at: Time, breaker: &BreakerSettings) {
        let _ = (dependency, at, breaker);
    }
}

impl fmt::Debug for dyn OutcomeRecorder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Record").finish_non_exhaustive()
    }
}

/// Passes on one outcome. This may run while a panic unwinds, so no panic may escape from here.
#[inline(never)]
pub(crate) fn record_attempt(recorder: &dyn OutcomeRecorder, ended: AttemptRecord<'_>) {
    guard(|| recorder.record(ended));
}

impl Shared {
    /// Reports the settings in force from now on to the recorder, if there is one.
    pub(crate) fn record_settings(&self) {
        if let Some(recorder) = &self.recorder {
            let (at, settings) = (self.clock.now(), self.settings());
            let breaker = &settings.breaker;
            guard(|| recorder.settings(&self.name, at, breaker));
        }
    }
}

fn guard(run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!("a recorder panicked; its runtime goes on");
    }
}
