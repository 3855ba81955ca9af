//! The timers of a supervisor: one sleep for all of them, so that each costs the same however many
//! there are.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, Waker};

use breakerbox_policy::Time;
use breakerbox_policy::supervision::TimerId;
use tokio::time::Sleep;

use crate::clock::Clock;

/// Timers in the order in which they are due.
#[derive(Default)]
pub(super) struct TimerQueue {
    timers: BTreeSet<(Time, TimerId)>,
    /// The sleep until the first of them.
    sleep: Option<(Time, Pin<Box<Sleep>>)>,
    waker: Option<Waker>,
}

impl TimerQueue {
    pub(super) fn set(&mut self, timer: TimerId, at: Time) {
        self.timers.insert((at, timer));
        // It may be set outside of the poll that looks at the timers.
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Returns a timer that is due, or arranges to be polled when one is.
    pub(super) fn poll_due(&mut self, clock: &Clock, cx: &mut TaskContext<'_>) -> Option<TimerId> {
        self.waker = Some(cx.waker().clone());
        loop {
            let (at, timer) = *self.timers.first()?;
            if at <= clock.now() {
                self.timers.pop_first();
                return Some(timer);
            }
            let sleep = match &mut self.sleep {
                Some((until, sleep)) if *until == at => sleep,
                sleep => {
                    let (_, sleep) = sleep.insert((at, Box::pin(clock.sleep_until(at))));
                    sleep
                }
            };
            if sleep.as_mut().poll(cx) == Poll::Pending {
                return None;
            }
            self.sleep = None;
        }
    }
}
