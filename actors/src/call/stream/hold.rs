//! What an open stream holds of its dependency, and how long the dependency may keep it waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use breakerbox_policy::{Class, Executed, Ticket, Time};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::admission::{Held, Settled};
use crate::call::plan::{Plan, least};
use crate::clock::Moment;
use crate::dependency::{Shared, Verdict};
use crate::error::CallError;
use crate::message::Report;

/// The permit and the place of an open stream, and its clock.
///
/// The clock runs while the dependency is waited for, and stands while the caller is busy with
/// what it has: one that reads slowly must not open the breaker for everybody.
pub(super) struct Hold {
    shared: Arc<Shared>,
    /// Gone once the outcome is settled.
    held: Option<Held>,
    place: Option<Ticket>,
    began: Time,
    /// How long it took until the first item: what it counts for.
    elapsed: Duration,
    /// How long one wait may be.
    idle: Option<Duration>,
    /// How long all waits from now on may be together; `None` for no limit.
    attempt: Option<Duration>,
    /// When all is over, whoever is waited for.
    deadline: Option<Time>,
    /// Since when the dependency is waited for; `None` while the caller is.
    asked: Option<Time>,
    alarm: Option<(Time, Pin<Box<Sleep>>)>,
}

impl Hold {
    /// Takes over from an attempt that `began` at the first of the times, and had its first item
    /// at the second.
    pub(super) fn new(
        shared: &Arc<Shared>,
        mut held: Option<Held>,
        place: Option<Ticket>,
        (began, now): (Time, Time),
        plan: &Plan<'_>,
        idle: Option<Duration>,
    ) -> Self {
        if let Some(held) = &mut held {
            held.answered(shared);
        }
        let elapsed = now.since(began);
        let left = |attempt: Duration| attempt.saturating_sub(elapsed);
        Self {
            shared: Arc::clone(shared),
            held,
            place,
            began,
            elapsed,
            idle,
            attempt: plan.attempt.map(left),
            deadline: plan.deadline,
            asked: None,
            alarm: None,
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What calls that are made meanwhile must keep to.
    pub(super) fn scope(&self) -> Option<Moment> {
        let deadline = self.deadline;
        deadline.map(|end| self.shared.clock.moment(end))
    }

    /// Takes the attempt's limit off. A probe has told what it was sent for: it would be lost by
    /// the end of its lease (rule BRK-5).
    pub(super) fn live_long(&mut self, verdict: impl FnOnce() -> Verdict) {
        self.attempt = None;
        if let Some(held) = self.held.take_if(|held| held.is_probe()) {
            let verdict = verdict().judged(&self.shared);
            if let Some(report) = self.owed(held, verdict) {
                self.shared.report(*report);
            }
        }
    }

    /// Whether the time was over before the caller asked for more.
    pub(super) fn is_too_late(&self) -> bool {
        let too_late = |deadline| self.shared.clock.now() > deadline;
        self.asked.is_none() && self.deadline.is_some_and(too_late)
    }

    /// The dependency has nothing yet: ready with an error when it has had its time.
    pub(super) fn poll_wait<E>(&mut self, cx: &mut Context<'_>) -> Poll<CallError<E>> {
        let asked = *self.asked.get_or_insert_with(|| self.shared.clock.now());
        let silence = self.idle.map(|idle| asked.after(idle));
        let end = least(self.attempt.map(|left| asked.after(left)), self.deadline);
        let Some(until) = least(silence, end) else {
            return Poll::Pending;
        };
        ready!(self.poll_alarm(until, cx));
        Poll::Ready(if end == Some(until) {
            self.timed_out()
        } else {
            CallError::Stalled {
                dependency: Arc::clone(&self.shared.name),
                after: self.shared.clock.now().since(asked),
            }
        })
    }

    pub(super) fn timed_out<E>(&self) -> CallError<E> {
        CallError::TimedOut {
            dependency: Arc::clone(&self.shared.name),
            after: self.shared.clock.now().since(self.began),
            executed: Executed::Maybe,
        }
    }

    /// One timer for all the waits: it is set anew only when it is due, not for each item.
    fn poll_alarm(&mut self, until: Time, cx: &mut Context<'_>) -> Poll<()> {
        let clock = &self.shared.clock;
        loop {
            let early = self.alarm.as_mut().filter(|(at, _)| *at <= until);
            match early {
                Some((_, sleep)) => ready!(sleep.as_mut().poll(cx)),
                None => {
                    self.alarm = Some((until, Box::pin(clock.sleep_until(until))));
                    continue;
                }
            }
            self.alarm = None;
            if clock.now() >= until {
                return Poll::Ready(());
            }
        }
    }

    /// The dependency has sent something.
    pub(super) fn go_on(&mut self) {
        if let (Some(asked), Some(left)) = (self.asked.take(), &mut self.attempt) {
            *left = left.saturating_sub(self.shared.clock.now().since(asked));
        }
    }

    /// Gives the place back and the outcome to the breaker; what comes back resolves when it is
    /// counted (rule CALL-3), and is `None` when it is already.
    pub(super) fn settle(mut self, verdict: Verdict) -> Option<oneshot::Receiver<()>> {
        self.leave();
        let held = self.held.take()?;
        let mut report = self.owed(held, verdict)?;
        let (counting, counted) = oneshot::channel::<()>();
        report.then = Some(Box::new(move || drop(counting)));
        self.shared.report(*report);
        Some(counted)
    }

    /// The stream panicked.
    pub(super) fn crash(self) {
        // Nobody hears of it by us, so nobody waits until it is counted.
        drop(self.settle(Verdict::from(Class::Failure)));
    }

    fn owed(&self, held: Held, verdict: Verdict) -> Option<Box<Report>> {
        let now = self.shared.clock.now();
        let settled = self.shared.settle_after(held, self.elapsed, &verdict, now);
        match settled {
            Settled::Counted => None,
            Settled::Owed(report) => Some(report),
        }
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.shared.bulkhead.leave(place);
        }
    }
}

/// The caller left (rule BRK-6). After the deadline it is the dependency's fault only where that
/// was waited for.
impl Drop for Hold {
    fn drop(&mut self) {
        self.leave();
        let Some(held) = self.held.take() else {
            return;
        };
        let now = self.shared.clock.now();
        let is_over = self.deadline.is_some_and(|deadline| now >= deadline);
        let class = if is_over && self.asked.is_some() {
            Class::Failure
        } else {
            Class::Cancelled
        };
        if let Some(report) = self.owed(held, Verdict::from(class)) {
            self.shared.report(*report);
        }
    }
}
