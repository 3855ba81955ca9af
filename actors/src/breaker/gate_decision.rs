//! Admission by the gate: whether a call may go out, must ask the breaker, or is refused.
//!
//! Nothing here takes a lock, except [`ask_for_permit`].

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Executed, Permit, RefusalState, Time};

use super::admission::PermitGuard;
use super::gate::{GateMode, GateWord};
use super::judgement;
use super::shared::SharedBreaker;
use crate::deadline::CallDeadline;
use crate::error::Refused;
use crate::state::Shared;

/// The gate's decision on one call.
pub(crate) enum GateDecision {
    /// The call may go out.
    Granted(PermitGuard),
    /// Only the breaker can decide.
    AskBreaker,
    /// The call is refused.
    Refused(Refused),
}

/// Returns the gate that decides on a call. While the breaker of the whole dependency lets calls
/// through, that of the key decides, else the one that refuses for longer. A state set by an
/// operator or the supervisor for the whole dependency takes precedence.
#[inline]
pub(crate) fn deciding_gate<'a>(
    shared: &'a Shared,
    key: Option<&'a Arc<SharedBreaker>>,
) -> (&'a SharedBreaker, GateWord) {
    let whole = shared.breaker.gate.read();
    if let Some(key) = key {
        let word = key.gate.read();
        if !is_decided_for_all(whole, word) {
            return (key, word);
        }
    }
    (&shared.breaker, whole)
}

/// Returns true if the breaker of the dependency, and not that of the key, decides on a call with
/// a key. `whole`, `key`: their gates.
#[inline]
fn is_decided_for_all(whole: GateWord, key: GateWord) -> bool {
    match (whole.mode(), key.mode()) {
        // BRK-10: an override of the dependency holds for each of its keys.
        (GateMode::ForcedOpen | GateMode::Disabled, _) => true,
        (GateMode::Closed | GateMode::ClosedReportAll, _)
        | (GateMode::Open | GateMode::HalfOpen, GateMode::ForcedOpen | GateMode::Disabled) => false,
        // BRK-4: a key that refuses for longer is no probe of the dependency.
        (GateMode::Open | GateMode::HalfOpen, GateMode::Open) => {
            key.retry_at_ms() <= whole.retry_at_ms()
        }
        // EDGE-5: a new key is no way around a breaker that is open.
        (GateMode::Open | GateMode::HalfOpen, _) => true,
    }
}

/// Returns true if a call with a key, which its gate cannot decide on, asks the breaker of the
/// dependency and not that of the key.
pub(crate) fn is_asked_for_all(shared: &Shared, key: &SharedBreaker) -> bool {
    let (whole, word) = (shared.breaker.gate.read(), key.gate.read());
    let is_shut = matches!(whole.mode(), GateMode::Open | GateMode::HalfOpen);
    // An open time that is over refuses no longer, even if its timer is still to come.
    let is_over = word.mode() == GateMode::Open && retry_at(word) <= shared.clock.now();
    is_decided_for_all(whole, word) || (is_shut && is_over)
}

/// Returns a permit from the gate itself, if the gate lets every call through. Sends no message
/// and never waits.
#[inline(always)]
pub(crate) fn normal_permit(
    shared: &Shared,
    key: Option<&Arc<SharedBreaker>>,
    now: Time,
) -> Option<Permit> {
    let (_, word) = deciding_gate(shared, key);
    match word.mode() {
        GateMode::Closed | GateMode::ClosedReportAll => Some(Permit::normal(word.tag(), now)),
        GateMode::Disabled => Some(Permit::unrecorded(word.tag(), now)),
        GateMode::Open | GateMode::HalfOpen | GateMode::ForcedOpen => None,
    }
}

/// Decides by the gate alone. Sends no message and never waits.
pub(crate) fn try_admit(
    shared: &Shared,
    key: Option<&Arc<SharedBreaker>>,
    now: Time,
    deadline: CallDeadline,
) -> GateDecision {
    if let Some(permit) = normal_permit(shared, key, now) {
        return GateDecision::Granted(PermitGuard::new(key.cloned(), permit, now, deadline));
    }
    let (of, word) = deciding_gate(shared, key);
    match word.mode() {
        // Half-open, or the gate began to let calls through after the first read: the breaker
        // decides.
        GateMode::Closed | GateMode::ClosedReportAll | GateMode::Disabled | GateMode::HalfOpen => {
            GateDecision::AskBreaker
        }
        GateMode::Open if retry_at(word) <= now => GateDecision::AskBreaker,
        GateMode::Open | GateMode::ForcedOpen => {
            GateDecision::Refused(RefusingGate { of, word, now }.refusal())
        }
    }
}

/// Returns the gate, if it refuses calls at present; `None` if it lets calls through, or the
/// breaker must be asked. The clock is read only where the time matters.
#[inline]
pub(crate) fn refusing_gate<'a>(
    shared: &'a Shared,
    key: Option<&'a Arc<SharedBreaker>>,
) -> Option<RefusingGate<'a>> {
    let (of, word) = deciding_gate(shared, key);
    let now = match word.mode() {
        GateMode::Closed | GateMode::ClosedReportAll | GateMode::Disabled | GateMode::HalfOpen => {
            return None;
        }
        GateMode::ForcedOpen if word.retry_at_ms() == 0 => Time::ZERO,
        GateMode::Open | GateMode::ForcedOpen => shared.clock.now(),
    };
    let is_over = word.mode() == GateMode::Open && retry_at(word) <= now;
    (!is_over).then_some(RefusingGate { of, word, now })
}

/// Returns the refusal of a call that got its permit before the breaker changed state.
pub(crate) fn stale_refusal(
    shared: &Shared,
    key: Option<&Arc<SharedBreaker>>,
    now: Time,
) -> Refused {
    let (of, word) = deciding_gate(shared, key);
    RefusingGate { of, word, now }.refusal()
}

/// Asks the breaker itself for a permit, where its gate cannot decide.
pub(crate) fn ask_for_permit(
    shared: &Shared,
    key: Option<&Arc<SharedBreaker>>,
    deadline: CallDeadline,
) -> Result<PermitGuard, Refused> {
    let (of, _) = deciding_gate(shared, key);
    let asked = judgement::acquire(shared, key, deadline);
    asked.map_err(|refusal| refused(of, refusal.state, refusal.retry_after))
}

fn retry_at(word: GateWord) -> Time {
    Time::from_millis(word.retry_at_ms())
}

/// A gate that refuses a call.
pub(crate) struct RefusingGate<'a> {
    of: &'a SharedBreaker,
    word: GateWord,
    now: Time,
}

impl RefusingGate<'_> {
    /// Returns true if an override holds it open, rather than the breaker's own judgement.
    pub(crate) fn is_forced(&self) -> bool {
        self.word.mode() == GateMode::ForcedOpen
    }

    /// Returns the time of the decision, or zero where no clock was read.
    #[inline]
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Returns the time until it may let calls through, if that is known.
    #[inline]
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let until = retry_at(self.word);
        let is_known = self.state() == RefusalState::Open || until > self.now;
        is_known.then(|| until.since(self.now))
    }

    /// Returns the refusal of a call.
    #[inline(always)]
    pub(crate) fn refusal(&self) -> Refused {
        refused(self.of, self.state(), self.retry_after())
    }

    fn state(&self) -> RefusalState {
        match self.word.mode() {
            GateMode::ForcedOpen => RefusalState::ForcedOpen,
            GateMode::HalfOpen => RefusalState::HalfOpen,
            GateMode::Open | GateMode::Closed | GateMode::ClosedReportAll | GateMode::Disabled => {
                RefusalState::Open
            }
        }
    }
}

// BRK-11: each refusal carries the dependency, the state, the reason and the time to wait.
#[inline(always)]
fn refused(of: &SharedBreaker, state: RefusalState, retry_after: Option<Duration>) -> Refused {
    Refused {
        state,
        retry_after,
        executed: Executed::No,
        after_attempt: false,
        reason: of.reason(),
    }
}
