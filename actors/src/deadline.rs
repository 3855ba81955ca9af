//! Deadline of the call being executed, which also limits the calls that it makes.
//!
//! While a dependency's work is polled, its deadline is in a thread-local; a call made meanwhile
//! inherits it. A task that the work spawns is polled by itself, and inherits none.

mod timer;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use breakerbox_policy::Time;

use crate::clock::{Clock, Moment};

pub(crate) use timer::{Timer, bounded};

/// The deadline of a call, and whether it is the caller's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallDeadline {
    /// [`Time::MAX`] if there is none.
    at: Time,
    /// True if the caller gives the call less time than the settings do. Its end by this deadline
    /// says nothing about the dependency.
    pub(crate) is_callers: bool,
}

impl CallDeadline {
    pub(crate) fn new(at: Option<Time>, is_callers: bool) -> Self {
        let at = at.unwrap_or(Time::MAX);
        Self { at, is_callers }
    }

    pub(crate) fn has_passed(self, now: Time) -> bool {
        now >= self.at
    }
}

thread_local! {
    static AROUND: Cell<Option<Moment>> = const { Cell::new(None) };
}

/// The deadline of the surrounding work, if there is one.
pub(crate) fn around(clock: &Clock) -> Option<Time> {
    AROUND.get().and_then(|deadline| clock.time_of(deadline))
}

/// The deadline of the surrounding work, for later use elsewhere.
pub(crate) fn present() -> Option<Moment> {
    AROUND.get()
}

/// Polls under a deadline; without one, under that of the surrounding work.
pub(crate) fn within<T>(deadline: Option<Moment>, poll: impl FnOnce() -> T) -> T {
    /// Restores the previous deadline, after a panic too.
    struct Back(Option<Moment>);

    impl Drop for Back {
        fn drop(&mut self) {
            AROUND.set(self.0);
        }
    }

    if deadline.is_none() {
        return poll();
    }
    let _back = Back(AROUND.replace(deadline));
    poll()
}

/// A future that is always polled under a deadline.
pub(crate) struct DeadlineScope<F> {
    deadline: Option<Moment>,
    future: F,
}

impl<F> DeadlineScope<F> {
    pub(crate) fn new(deadline: Option<Moment>, future: F) -> Self {
        Self { deadline, future }
    }
}

impl<F: Future + Unpin> Future for DeadlineScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        within(this.deadline, || Pin::new(&mut this.future).poll(cx))
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
        around(clock).map(|time| time.since(Time::ZERO).as_secs())
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
