//! Deadline of the call being executed, which also limits the calls that it makes, the breakers of
//! which it is a probe, and the runtime that has accepted it.
//!
//! While a dependency's work is polled, they are in a thread-local; a call made meanwhile inherits
//! them. A task that the work spawns is polled by itself, and inherits none.

mod timer;

use std::cell::Cell;
use std::future::Future;
use std::num::{NonZeroU32, NonZeroU64};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use breakerbox_policy::Time;

use crate::clock::{Clock, Moment};

pub(crate) use timer::{Timer, bounded};

/// The deadline of a call, whether it is the caller's own, and the caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallDeadline {
    /// [`Time::MAX`] if there is none.
    at: Time,
    /// True if the caller gives the call less time than the settings do. Its end by this deadline
    /// says nothing about the dependency.
    pub(crate) is_callers: bool,
    /// The caller, if it is known.
    pub(crate) caller: Option<NonZeroU64>,
}

impl CallDeadline {
    pub(crate) fn new(at: Option<Time>, is_callers: bool, caller: Option<NonZeroU64>) -> Self {
        let at = at.unwrap_or(Time::MAX);
        Self {
            at,
            is_callers,
            caller,
        }
    }

    pub(crate) fn has_passed(self, now: Time) -> bool {
        now >= self.at
    }
}

/// Number of a breaker, unique within the process.
pub(crate) type BreakerNumber = NonZeroU32;

/// The breakers of which the work is a probe: the innermost ones, which is one for nearly all work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProbeScope([Option<BreakerNumber>; 2]);

impl ProbeScope {
    /// Adds the innermost breaker.
    #[inline]
    pub(crate) fn with(self, breaker: Option<BreakerNumber>) -> Self {
        match breaker {
            Some(_) if !self.0.contains(&breaker) => Self([breaker, self.0[0]]),
            _ => self,
        }
    }

    pub(crate) fn contains(self, breaker: BreakerNumber) -> bool {
        self.0.contains(&Some(breaker))
    }

    fn is_empty(self) -> bool {
        self.0[0].is_none()
    }
}

/// Number of a runtime, unique within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuntimeNumber(NonZeroU32);

impl RuntimeNumber {
    /// Returns another number at each call. They come back after four thousand million runtimes.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        Self(NonZeroU32::new(number).unwrap_or(NonZeroU32::MAX))
    }
}

/// The conditions of the work being executed. They hold for the calls that it makes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CallScope {
    deadline: Option<Moment>,
    probes: ProbeScope,
    /// The runtime that has accepted the work.
    accepted_by: Option<RuntimeNumber>,
}

impl CallScope {
    pub(crate) fn new(deadline: Option<Moment>, probes: ProbeScope) -> Self {
        Self {
            deadline,
            probes,
            accepted_by: None,
        }
    }

    /// Adds the runtime that has accepted the work.
    #[inline]
    pub(crate) fn accepted_by(self, runtime: RuntimeNumber) -> Self {
        Self {
            accepted_by: Some(runtime),
            ..self
        }
    }

    /// Sets the deadline of the work.
    pub(crate) fn ending_by(self, deadline: Moment) -> Self {
        Self {
            deadline: Some(deadline),
            ..self
        }
    }

    /// Returns true if this runtime has accepted the work: a drain does not refuse its calls.
    pub(crate) fn is_accepted_by(self, runtime: RuntimeNumber) -> bool {
        self.accepted_by == Some(runtime)
    }

    /// The conditions of the surrounding work.
    #[inline]
    pub(crate) fn present() -> Self {
        AROUND.get()
    }

    /// The deadline of the work, if there is one.
    #[inline]
    pub(crate) fn deadline(self, clock: &Clock) -> Option<Time> {
        self.deadline.and_then(|deadline| clock.time_of(deadline))
    }

    /// The breakers of which the work is a probe.
    pub(crate) fn probes(self) -> ProbeScope {
        self.probes
    }
}

impl From<Option<Moment>> for CallScope {
    fn from(deadline: Option<Moment>) -> Self {
        Self::new(deadline, ProbeScope::default())
    }
}

thread_local! {
    static AROUND: Cell<CallScope> = const {
        Cell::new(CallScope {
            deadline: None,
            probes: ProbeScope([None; 2]),
            accepted_by: None,
        })
    };
}

/// Polls under these conditions; those that they leave open are the surrounding work's.
pub(crate) fn within<T>(scope: impl Into<CallScope>, poll: impl FnOnce() -> T) -> T {
    /// Restores the previous conditions, after a panic too.
    struct Back(CallScope);

    impl Drop for Back {
        fn drop(&mut self) {
            AROUND.set(self.0);
        }
    }

    let scope = scope.into();
    if scope.deadline.is_none() && scope.probes.is_empty() && scope.accepted_by.is_none() {
        return poll();
    }
    let around = AROUND.get();
    let [inner, outer] = scope.probes.0;
    let _back = Back(around);
    AROUND.set(CallScope {
        deadline: scope.deadline.or(around.deadline),
        probes: around.probes.with(outer).with(inner),
        accepted_by: scope.accepted_by.or(around.accepted_by),
    });
    poll()
}

/// A future that is always polled under the conditions of its work.
pub(crate) struct DeadlineScope<F> {
    scope: CallScope,
    future: F,
}

impl<F> DeadlineScope<F> {
    pub(crate) fn new(scope: impl Into<CallScope>, future: F) -> Self {
        let scope = scope.into();
        Self { scope, future }
    }
}

impl<F: Future + Unpin> Future for DeadlineScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        within(this.scope, || Pin::new(&mut this.future).poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use super::*;

    fn at(clock: &Clock, seconds: u64) -> Option<Moment> {
        let time = Time::ZERO.after(Duration::from_secs(seconds));
        Some(clock.moment(time))
    }

    fn seconds(clock: &Clock) -> Option<u64> {
        CallScope::present()
            .deadline(clock)
            .map(|time| time.since(Time::ZERO).as_secs())
    }

    #[test]
    fn lim_2_a_panic_leaves_no_deadline_behind() {
        let clock = Clock::real();
        let panics = || within(at(&clock, 9), || panic!("told to"));
        let inside = || {
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            seconds(&clock)
        };
        assert_eq!(within(at(&clock, 5), inside), Some(5));
        assert_eq!(seconds(&clock), None);
    }

    #[test]
    fn lim_2_work_without_a_deadline_keeps_to_that_of_the_work_around_it() {
        let clock = Clock::real();
        let inside = || within(None, || seconds(&clock));
        assert_eq!(within(at(&clock, 5), inside), Some(5));
    }

    #[test]
    fn brk_6_work_is_a_probe_of_the_two_innermost_breakers() {
        let number = |number| BreakerNumber::new(number).unwrap();
        let probe = |of| CallScope::new(None, ProbeScope::default().with(Some(number(of))));
        let of = || (1..=3).map(|of| CallScope::present().probes().contains(number(of)));
        let inside = || within(probe(2), || within(probe(3), || of().collect::<Vec<_>>()));
        assert_eq!(within(probe(1), inside), [false, true, true]);
        let again = || within(probe(2), || within(probe(2), || of().collect::<Vec<_>>()));
        assert_eq!(within(probe(1), again), [true, true, false]);
        assert!(of().all(|is| !is));
    }

    #[tokio::test(start_paused = true)]
    async fn lim_2_tasks_that_take_turns_have_their_own_deadlines() {
        let clock = Clock::tokio();
        let work = async |own: u64| {
            for _ in 0..5 {
                assert_eq!(seconds(&clock), Some(own));
                tokio::task::yield_now().await;
            }
        };
        let (one, other) = (std::pin::pin!(work(1)), std::pin::pin!(work(2)));
        let (one, other) = (
            DeadlineScope::new(at(&clock, 1), one),
            DeadlineScope::new(at(&clock, 2), other),
        );
        let nobodys = async {
            for _ in 0..5 {
                assert_eq!(seconds(&clock), None);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(one, nobodys, other);
    }

    #[tokio::test(start_paused = true)]
    async fn lim_2_a_moment_is_the_same_on_every_clock_of_its_kind() {
        let early = Clock::tokio();
        tokio::time::advance(Duration::from_secs(100)).await;
        let late = Clock::tokio();
        let moment = early.moment(Time::ZERO.after(Duration::from_secs(130)));
        assert_eq!(
            late.time_of(moment),
            Some(Time::ZERO.after(Duration::from_secs(30)))
        );
        let gone = early.moment(Time::ZERO.after(Duration::from_secs(50)));
        assert_eq!(late.time_of(gone), Some(Time::ZERO), "long over");
        assert_eq!(Clock::real().time_of(moment), None);
    }
}
