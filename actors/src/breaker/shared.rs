//! Shared side of one breaker: its gate, its machine, and its measurements.
//!
//! A dependency has one, and one more for each key of its requests if they have keys. The machine
//! changes under its lock, on the thread on which an outcome or a question arises.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use breakerbox_policy::{BreakerCommand, BreakerSettings, Override, OverrideMode, State, Time};
use thread_local::ThreadLocal;

pub(crate) use crate::sync::LockExt;

use crate::breaker::gate::{Gate, GateMode, GateWord, SuccessBatch, tag_of};
use crate::breaker::in_flight::AgeTracker;
use crate::breaker::thread_counters::ThreadCounters;
use crate::clock::random;
use crate::deadline::BreakerNumber;
use crate::event::EventKind;
use crate::limits::pause::PauseState;
use crate::refusal_reason::RefusalReason;
use crate::state::thread_cached::ThreadCached;

/// The shared side of one breaker.
#[derive(Debug)]
pub(crate) struct SharedBreaker {
    /// Its number within the process.
    pub(crate) number: BreakerNumber,
    /// The key it belongs to; `None` for the dependency as a whole.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) gate: Gate,
    /// The kernel's breaker. It is stored here so that a restarted actor does not forget that the
    /// dependency is sick (rule BRK-12).
    pub(crate) machine: Mutex<breakerbox_policy::Breaker>,
    /// Reason for its present state, in words; replaced at each transition.
    reason: ThreadCached<RefusalReason>,
    /// The pauses of the key it belongs to; unused for the dependency as a whole.
    pub(crate) pauses: PauseState,
    /// Ages of the calls in flight.
    pub(crate) watch: AgeTracker,
    /// Counters of each thread.
    pub(super) shards: ThreadLocal<Box<ThreadCounters>>,
    /// Duration in nanoseconds from which a call is slow; `u64::MAX` if none is.
    slow_nanos: AtomicU64,
    /// Width of a time bucket of the window, in nanoseconds; 0 when it has none.
    bucket_nanos: AtomicU64,
    /// Time in nanoseconds at which it was last looked up for a call or got an outcome.
    used: AtomicU64,
    /// The deadline that the keeper knows of, in nanoseconds; `u64::MAX` for none. It changes under
    /// the lock of the machine.
    armed: AtomicU64,
    /// True if the override of a key's breaker was passed down from the whole dependency.
    has_inherited_override: AtomicBool,
    /// True if the last outcome of a key was a failure.
    is_failing: AtomicBool,
    /// Latest begin of an attempt with a reported success, in nanoseconds; 0 for none.
    pub(super) success: AtomicU64,
}

impl SharedBreaker {
    pub(crate) fn new(
        dependency: Arc<str>,
        key: Option<Arc<str>>,
        settings: &BreakerSettings,
        now: Time,
    ) -> Self {
        let machine = breakerbox_policy::Breaker::new(settings.clone(), now);
        let reason = ThreadCached::new(RefusalReason {
            dependency,
            key: key.clone(),
            reason: "started".to_owned(),
        });
        let breaker = Self {
            number: next_number(),
            key,
            gate: Gate::new(word_of(&machine, now)),
            reason,
            pauses: PauseState::default(),
            watch: AgeTracker::default(),
            shards: ThreadLocal::new(),
            slow_nanos: AtomicU64::new(u64::MAX),
            bucket_nanos: AtomicU64::new(0),
            used: AtomicU64::new(now.as_nanos()),
            armed: AtomicU64::new(u64::MAX),
            has_inherited_override: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            success: AtomicU64::new(0),
            machine: Mutex::new(machine),
        };
        breaker.apply_measurement_settings(&breaker.lock());
        breaker
    }

    /// Takes over the measurement settings of the machine.
    pub(crate) fn apply_measurement_settings(&self, machine: &breakerbox_policy::Breaker) {
        let settings = machine.settings();
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let slow = settings.slow_call.map_or(u64::MAX, nanos);
        self.slow_nanos.store(slow, Ordering::Relaxed);
        let bucket = machine.success_bucket().map_or(0, nanos);
        self.bucket_nanos.store(bucket, Ordering::Relaxed);
        self.watch.set(settings.slow_rate.and(settings.slow_call));
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, breakerbox_policy::Breaker> {
        // Poisoned means that the actor crashed; its next incarnation repairs the machine.
        self.machine.acquire()
    }

    /// Notes the deadline of the machine. Its lock is held. Returns true if it is a new one.
    pub(super) fn set_armed(&self, deadline: Option<Time>) -> bool {
        let nanos = deadline.map_or(u64::MAX, Time::as_nanos);
        let old = self.armed.load(Ordering::Relaxed);
        if old == nanos {
            return false;
        }
        self.armed.store(nanos, Ordering::Relaxed);
        true
    }

    /// Notes that the keeper's timer is over. The lock of the machine is held.
    pub(super) fn disarm(&self) {
        self.armed.store(u64::MAX, Ordering::Relaxed);
    }

    pub(crate) fn is_slow(&self, elapsed: Duration) -> bool {
        elapsed.as_nanos() >= u128::from(self.slow_nanos.load(Ordering::Relaxed))
    }

    /// Number of the window's time bucket for successes; 0 when it has none.
    pub(super) fn bucket(&self, now: Time) -> u64 {
        match self.bucket_nanos() {
            0 => 0,
            width => now.as_nanos() / width,
        }
    }

    pub(crate) fn bucket_nanos(&self) -> u64 {
        self.bucket_nanos.load(Ordering::Relaxed)
    }

    /// The reason for its present state. All refusals since the last transition share it.
    #[inline(always)]
    pub(crate) fn reason(&self) -> Arc<RefusalReason> {
        self.reason.read(Arc::clone)
    }

    pub(crate) fn set_reason(&self, reason: String) {
        let old = self.reason.load();
        self.reason.replace(RefusalReason {
            dependency: Arc::clone(&old.dependency),
            key: old.key.clone(),
            reason,
        });
    }

    /// Notes that its key is in use.
    pub(crate) fn mark_used(&self, now: Time) {
        self.used.fetch_max(now.as_nanos(), Ordering::Relaxed);
    }

    /// Notes an outcome of a key. Returns true for the first failure after a success, or after the
    /// key became known.
    pub(super) fn begins_to_fail(&self, failed: bool) -> bool {
        if self.is_failing.load(Ordering::Relaxed) == failed {
            return false;
        }
        self.is_failing.swap(failed, Ordering::Relaxed) != failed && failed
    }

    pub(super) fn used(&self) -> Time {
        Time::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Returns true if its override was passed down from the dependency.
    pub(crate) fn has_inherited_override(&self) -> bool {
        self.has_inherited_override.load(Ordering::Relaxed)
    }

    /// Marks its override as its own from here on.
    pub(crate) fn clear_inherited_mark(&self) {
        self.has_inherited_override.store(false, Ordering::Relaxed);
    }

    /// Applies the dependency's shadow to a key's breaker, or removes it. An override set on the
    /// key itself stays.
    pub(crate) fn apply_shadow(
        &self,
        machine: &mut breakerbox_policy::Breaker,
        shadow: Option<&Override>,
        now: Time,
    ) {
        if machine.overridden().is_some() && !self.has_inherited_override() {
            return;
        }
        let command = match shadow {
            Some(shadow) => BreakerCommand::Shadow {
                reason: shadow.reason.clone(),
                until: shadow.until,
            },
            None if machine.overridden().is_some() => BreakerCommand::Clear,
            None => return,
        };
        self.has_inherited_override.store(true, Ordering::Relaxed);
        // Neither command depends on the state.
        let _ = machine.command(now, command, &mut random());
    }

    /// Returns its name in events and log lines. `dependency`: the name of its dependency.
    pub(crate) fn subject(&self, dependency: &Arc<str>) -> Arc<str> {
        match &self.key {
            None => Arc::clone(dependency),
            Some(key) => Arc::from(format!("{dependency}[{key}]")),
        }
    }

    /// Returns the automatic state.
    pub(super) fn state(&self) -> State {
        self.lock().state()
    }

    /// Returns the event of its eviction. `None` where nothing that was told before has an end
    /// outstanding: it is closed, and no quota of its key is used up.
    pub(crate) fn forgotten(&self) -> Option<EventKind> {
        let state = self.state();
        let is_over = state == State::Closed && !self.pauses.awaits_quota();
        (!is_over).then_some(EventKind::KeyForgotten { state })
    }

    /// Returns true if eviction loses nothing: it has no override of its own, and is not refusing.
    pub(super) fn is_forgettable(&self, now: Time) -> bool {
        let machine = self.lock();
        let refuses = machine.state() == State::Open && {
            let wait = machine.view(now).retry_after;
            wait.is_none_or(|wait| !wait.is_zero())
        };
        let refuses = refuses || self.pauses.current(now).is_some();
        !refuses && (machine.overridden().is_none() || self.has_inherited_override())
    }
}

/// Returns the number of a new breaker. Numbers come back after four thousand million breakers.
fn next_number() -> BreakerNumber {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    BreakerNumber::new(number).unwrap_or(BreakerNumber::MAX)
}

/// The gate word for the present state of this machine.
pub(crate) fn word_of(machine: &breakerbox_policy::Breaker, now: Time) -> GateWord {
    let go = || {
        if machine.needs_every_success() {
            GateMode::ClosedReportAll
        } else {
            GateMode::Closed
        }
    };
    let mode = match (machine.overridden().map(|one| one.mode), machine.state()) {
        (Some(OverrideMode::ForcedOpen), _) => GateMode::ForcedOpen,
        (Some(OverrideMode::Disabled), _) => GateMode::Disabled,
        (Some(OverrideMode::Shadow), _) | (None, State::Closed) => go(),
        (None, State::Open) => GateMode::Open,
        (None, State::HalfOpen) => GateMode::HalfOpen,
    };
    let wait = match mode {
        GateMode::Open | GateMode::ForcedOpen => machine.view(now).retry_after,
        _ => None,
    };
    // Rounded up, so that no caller asks early.
    let retry_at = wait.map_or(0, |wait| now.after(wait).as_nanos().div_ceil(1_000_000));
    GateWord::new(mode, machine.generation(), retry_at)
}

/// Records the successes counted at the gate so far.
pub(crate) fn record_counted(
    machine: &mut breakerbox_policy::Breaker,
    target: &SharedBreaker,
    now: Time,
) {
    for successes in target.take_successes() {
        record_batch(machine, target, successes, now);
    }
}

/// Records a batch of successes for the time and generation in which it was counted.
pub(super) fn record_batch(
    machine: &mut breakerbox_policy::Breaker,
    target: &SharedBreaker,
    successes: SuccessBatch,
    now: Time,
) {
    let at = match target.bucket_nanos() {
        0 => now,
        width => {
            let bucket = successes.bucket_before(now.as_nanos() / width);
            Time::from_nanos(bucket.saturating_mul(width))
        }
    };
    let generation = generation_of(machine, successes.tag());
    machine.record_successes(at, generation, successes.count(), &mut random());
}

/// Returns the generation of a gate's tag; `u64::MAX` for any other than the present one, which is
/// late.
pub(super) fn generation_of(machine: &breakerbox_policy::Breaker, tag: u64) -> u64 {
    let present = machine.generation();
    if tag_of(present) == tag {
        present
    } else {
        u64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(name: &str) -> SharedBreaker {
        let settings = BreakerSettings::default();
        SharedBreaker::new(Arc::from(name), None, &settings, Time::ZERO)
    }

    #[test]
    fn brk_11_every_thread_sees_the_reason_of_the_last_transition() {
        let (one, other) = (breaker("one"), breaker("other"));
        let held = one.reason();
        one.set_reason("it failed".to_owned());
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| one.reason()).join().unwrap());
        for now in [one.reason(), elsewhere] {
            assert_eq!((&*now.dependency, &*now.reason), ("one", "it failed"));
        }
        assert_eq!(held.reason, "started", "a refusal keeps its own reason");
        assert_eq!(other.reason().reason, "started", "never another breaker's");
    }
}
