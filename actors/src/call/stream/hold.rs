//! The permit and slot that an open stream holds at its dependency, and the limits of its waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use breakerbox_policy::{Class, Executed, Ticket, Time};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::breaker::admission::{PermitGuard, Settled};
use crate::breaker::judgement;
use crate::breaker::message::Report;
use crate::call::plan::CallPlan;
use crate::clock::earliest;
use crate::deadline::CallScope;
use crate::error::CallError;
use crate::state::Shared;
use crate::time_limit::TimeLimit;
use crate::verdict::Verdict;

/// The permit, the bulkhead slot and the clock of an open stream.
///
/// The clock runs while the stream waits for the dependency, and stops while the caller processes
/// an item: a slow reader must not open the breaker for all callers.
pub(super) struct StreamHold {
    shared: Arc<Shared>,
    /// `None` once the outcome is settled.
    permit: Option<PermitGuard>,
    slot: Option<Ticket>,
    scope: CallScope,
    /// Start of the call.
    called: Time,
    began: Time,
    /// Time until the first item: the duration that counts for the breaker.
    elapsed: Duration,
    /// Maximum duration of one wait.
    idle: Option<Duration>,
    /// Limit of the attempt, as it was set.
    attempt_span: Option<Duration>,
    /// Time left for all further waits together; `None` for no limit.
    attempt_limit: Option<Duration>,
    /// Deadline of the whole stream, whether it waits for the dependency or for the caller.
    deadline: Option<Time>,
    /// True if that is the caller's own, and less than the settings allow.
    is_callers_deadline: bool,
    deadline_limit: TimeLimit,
    /// Start of the current wait for the dependency; `None` while the stream waits for the caller.
    asked: Option<Time>,
    alarm: Option<(Time, Pin<Box<Sleep>>)>,
}

impl StreamHold {
    /// Takes over from an attempt; the times are its start and the arrival of its first item.
    pub(super) fn new(
        shared: &Arc<Shared>,
        mut permit: Option<PermitGuard>,
        slot: Option<Ticket>,
        (began, now): (Time, Time),
        (plan, scope): (&CallPlan<'_>, CallScope),
        idle: Option<Duration>,
    ) -> Self {
        if let Some(permit) = &mut permit {
            permit.answered(shared);
        }
        shared.totals.count_begun();
        let elapsed = now.since(began);
        let left = |limit: Duration| limit.saturating_sub(elapsed);
        Self {
            shared: Arc::clone(shared),
            permit,
            slot,
            scope,
            called: plan.started,
            began,
            elapsed,
            idle,
            attempt_span: plan.attempt_limit,
            attempt_limit: plan.attempt_limit.map(left),
            deadline: plan.deadline,
            is_callers_deadline: plan.call_deadline().is_callers,
            deadline_limit: plan.deadline_limit,
            asked: None,
            alarm: None,
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Returns the conditions of the calls that the stream makes.
    pub(super) fn scope(&self) -> CallScope {
        self.scope
    }

    /// Removes the attempt's limit. A probe is reported at once.
    pub(super) fn end_attempt_limit(&mut self, verdict: impl FnOnce() -> Verdict) {
        self.remove_attempt_limit();
        self.report_probe(verdict);
    }

    /// Removes the attempt's limit.
    pub(super) fn remove_attempt_limit(&mut self) {
        self.attempt_limit = None;
    }

    /// Reports a probe: it has its result, and its lease would expire before the stream ends (rule
    /// BRK-5).
    pub(super) fn report_probe(&mut self, verdict: impl FnOnce() -> Verdict) {
        if let Some(permit) = self.permit.take_if(|permit| permit.is_probe()) {
            let verdict = self.shared.judge(verdict());
            if let Some(report) = self.record(permit, verdict) {
                judgement::count(&self.shared, *report);
            }
        }
    }

    /// Returns the time left until the deadline, if there is one.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let now = || self.shared.clock.now();
        self.deadline.map(|deadline| deadline.since(now()))
    }

    /// Returns true if the deadline passed before the caller polled again.
    pub(super) fn is_too_late(&self) -> bool {
        let too_late = |deadline| self.shared.clock.now() > deadline;
        self.asked.is_none() && self.deadline.is_some_and(too_late)
    }

    /// Checks the limits while the dependency has no item: ready with an error once its time is
    /// over.
    pub(super) fn poll_wait<E>(&mut self, cx: &mut Context<'_>) -> Poll<CallError<E>> {
        let asked = *self.asked.get_or_insert_with(|| self.shared.clock.now());
        let silence = self.idle.map(|idle| asked.after(idle));
        let end = earliest(
            self.attempt_limit.map(|left| asked.after(left)),
            self.deadline,
        );
        let Some(until) = earliest(silence, end) else {
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
        let now = self.shared.clock.now();
        // EDGE-8: each limit is told with the time that it counts.
        let exceeded = match self.deadline {
            Some(deadline) if deadline <= now => (self.deadline_limit, now.since(self.called)),
            _ => {
                let limit = self.shared.limit_of_attempt(self.attempt_span);
                let after = self.attempt_span.unwrap_or(now.since(self.began));
                (limit, after)
            }
        };
        CallError::timed_out(Arc::clone(&self.shared.name), exceeded, Executed::Maybe)
    }

    /// Polls the one timer of all waits. It is set again only when it is due, not for each item.
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

    /// Ends the wait for the dependency, which has sent something.
    pub(super) fn end_wait(&mut self) {
        if let (Some(asked), Some(left)) = (self.asked.take(), &mut self.attempt_limit) {
            *left = left.saturating_sub(self.shared.clock.now().since(asked));
        }
    }

    /// Gives the slot back and reports the outcome to the breaker. Returns a receiver that resolves
    /// once it is counted (rule CALL-3), or `None` if it already is.
    pub(super) fn settle(mut self, verdict: Verdict) -> Option<oneshot::Receiver<()>> {
        self.release_slot();
        let permit = self.permit.take()?;
        let mut report = self.record(permit, verdict)?;
        let (counting, counted) = oneshot::channel::<()>();
        // CALL-3: the last item of a stream waits until its outcome is counted.
        report.then = Some(Box::new(move || drop(counting)));
        judgement::count(&self.shared, *report);
        Some(counted)
    }

    /// Settles the outcome of a stream that panicked.
    pub(super) fn crash(self) {
        // The caller gets the panic instead of a result, so there is no wait until it is counted.
        drop(self.settle(Verdict::from(Class::Failure)));
    }

    fn record(&self, permit: PermitGuard, verdict: Verdict) -> Option<Box<Report>> {
        let now = self.shared.clock.now();
        let settled = permit.settle_after(&self.shared, self.elapsed, &verdict, now);
        match settled {
            Settled::Counted => None,
            Settled::NeedsReport(report) => Some(report),
        }
    }

    fn release_slot(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.bulkhead.release(slot);
        }
    }
}

/// Reports that the caller left (rule BRK-6). After the deadline this is the dependency's failure
/// only if the stream was waiting for the dependency.
impl Drop for StreamHold {
    fn drop(&mut self) {
        self.release_slot();
        let Some(permit) = self.permit.take() else {
            return;
        };
        let now = self.shared.clock.now();
        let is_over = self.deadline.is_some_and(|deadline| now >= deadline);
        let is_over = is_over && !self.is_callers_deadline;
        let class = if is_over && self.asked.is_some() {
            Class::Failure
        } else {
            Class::Cancelled
        };
        if let Some(report) = self.record(permit, Verdict::from(class)) {
            judgement::count(&self.shared, *report);
        }
    }
}
