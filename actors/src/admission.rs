//! Leave to make one call, and the duty to say what it came to.
//!
//! The gate is read here and nowhere else. The permit goes back exactly once, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Class, Outcome, Permit, PermitKind, RefusalState, Time};

use crate::dependency::{Shared, Verdict};
use crate::error::Refused;
use crate::flight::Seat;
use crate::gate::{GateWord, Mode, tag_of};
use crate::message::{Acquire, Flush, Release, Report};

/// What the gate said.
pub(crate) enum Passage {
    /// Go.
    Granted(Admission),
    /// Only the breaker itself can say.
    AskBreaker,
    /// No.
    Refused(Refused),
}

/// A permit in somebody's hands.
///
/// Dropped unsettled it is `cancelled`: nothing when the caller left early, a failure when its
/// deadline had passed or a panic unwinds through it (rule BRK-6).
#[derive(Debug)]
pub(crate) struct Admission {
    shared: Arc<Shared>,
    /// Taken when it is settled.
    permit: Option<Permit>,
    started: Time,
    deadline: Option<Time>,
    /// Where it is counted while it is in flight.
    slot: Option<Seat>,
}

/// How an admission was settled.
pub(crate) enum Settled {
    /// It is counted.
    Counted,
    /// It must be counted by the breaker before anyone hears of it.
    Owed(Report),
}

impl Shared {
    /// Asks the gate; no message, no wait.
    pub(crate) fn pass(self: &Arc<Self>, now: Time, deadline: Option<Time>) -> Passage {
        let word = self.gate.read();
        match word.mode() {
            Mode::Closed | Mode::Watchful => {
                let permit = Permit::normal(word.tag(), now);
                Passage::Granted(Admission::new(self, permit, now, deadline))
            }
            Mode::Disabled => {
                let permit = Permit::unrecorded(word.tag(), now);
                Passage::Granted(Admission::new(self, permit, now, deadline))
            }
            Mode::HalfOpen => Passage::AskBreaker,
            Mode::Open if retry_at(word) <= now => Passage::AskBreaker,
            Mode::Open | Mode::ForcedOpen => Passage::Refused(self.refusal(word, now)),
        }
    }

    /// The refusal of whoever asks now; `None` when the gate lets calls through, or would ask the
    /// breaker.
    pub(crate) fn refuses(&self, now: Time) -> Option<Refused> {
        let word = self.gate.read();
        let refuses = match word.mode() {
            Mode::Closed | Mode::Watchful | Mode::Disabled | Mode::HalfOpen => false,
            Mode::Open => retry_at(word) > now,
            Mode::ForcedOpen => true,
        };
        refuses.then(|| self.refusal(word, now))
    }

    /// The refusal of a call whose permit was given before the breaker moved.
    pub(crate) fn overtaken(&self, now: Time) -> Refused {
        self.refusal(self.gate.read(), now)
    }

    fn refusal(&self, word: GateWord, now: Time) -> Refused {
        let state = match word.mode() {
            Mode::ForcedOpen => RefusalState::ForcedOpen,
            Mode::HalfOpen => RefusalState::HalfOpen,
            Mode::Open | Mode::Closed | Mode::Watchful | Mode::Disabled => RefusalState::Open,
        };
        let until = retry_at(word);
        let known = state == RefusalState::Open || until > now;
        self.refused(state, known.then(|| until.since(now)))
    }

    fn refused(&self, state: RefusalState, retry_after: Option<Duration>) -> Refused {
        Refused {
            dependency: Arc::clone(&self.name),
            state,
            reason: self.notice(),
            retry_after,
        }
    }

    /// Asks the breaker actor for a permit.
    ///
    /// # Cancel safety   Dropped while it waits, a permit that was granted goes back.
    pub(crate) async fn ask_for_permit(
        &self,
        deadline: Option<Time>,
    ) -> Result<Admission, Refused> {
        let gone = || self.refused(RefusalState::Open, None);
        let port = self.breaker.get().ok_or_else(gone)?;
        match port.acquire.send(Acquire { deadline }).await {
            Ok(Ok(admission)) => Ok(admission),
            Ok(Err(refusal)) => Err(Refused {
                dependency: Arc::clone(&self.name),
                state: refusal.state,
                reason: refusal.reason,
                retry_after: refusal.retry_after,
            }),
            Err(_closed) => Err(gone()),
        }
    }
}

fn retry_at(word: GateWord) -> Time {
    Time::from_millis(word.retry_at_ms())
}

impl Admission {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        permit: Permit,
        started: Time,
        deadline: Option<Time>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            permit: Some(permit),
            started,
            deadline,
            slot: None,
        }
    }

    /// Notes that the call has its place and is on its way to the dependency: from here on it can
    /// be overdue (rule BRK-9).
    pub(crate) fn depart(&mut self, now: Time) {
        if let (Some(ring), Some(permit)) = (&self.shared.in_flight, &self.permit) {
            self.slot = ring.start(now, tag_of(permit.generation()));
        }
    }

    /// When it was given.
    pub(crate) fn started(&self) -> Time {
        self.started
    }

    /// Whether the breaker has moved since, and lets only probes through, or nobody. What has not
    /// begun by then must not reach a dependency that is known to be sick.
    pub(crate) fn is_overtaken(&self) -> bool {
        let word = self.shared.gate.read();
        let shut = matches!(word.mode(), Mode::Open | Mode::HalfOpen | Mode::ForcedOpen);
        let permit = self.permit.as_ref();
        shut && permit.is_some_and(|permit| tag_of(permit.generation()) != word.tag())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes the clock's word that the call begins now: waiting for a place is not the
    /// dependency's time.
    pub(crate) fn begin(&mut self, now: Time) {
        self.started = now;
    }

    /// Gives the permit back unused: an inner layer refused, the dependency was not asked.
    pub(crate) fn release(mut self) {
        if let Some(permit) = self.permit.take() {
            // A gate's permit holds no place in the breaker; only a probe has to go back.
            if matches!(permit.kind(), PermitKind::Probe(_))
                && let Some(port) = self.shared.breaker.get()
            {
                port.release.do_send(Release(permit));
            }
        }
    }

    /// Says what the attempt came to.
    pub(crate) fn settle(mut self, verdict: Verdict, now: Time) -> Settled {
        let Some(permit) = self.permit.take() else {
            return Settled::Counted;
        };
        self.count(permit, verdict, now)
    }

    /// Counts a quick success at the gate; everything else is owed to the breaker.
    fn count(&self, permit: Permit, verdict: Verdict, now: Time) -> Settled {
        let elapsed = now.since(self.started);
        self.shared.totals.observe(elapsed);
        if matches!(permit.kind(), PermitKind::Unrecorded) {
            return Settled::Counted;
        }
        let settings = &self.shared.settings.breaker;
        let slow = settings.slow_call.is_some_and(|slow| elapsed >= slow);
        if verdict.class == Class::Success
            && !slow
            && matches!(permit.kind(), PermitKind::Normal)
            && self.shared.gate.read().mode() == Mode::Closed
        {
            let bucket = now.as_nanos() / self.shared.bucket_nanos.max(1);
            let bucket = if self.shared.bucket_nanos == 0 {
                0
            } else {
                bucket
            };
            let flushed = self.shared.gate.count_success(permit.generation(), bucket);
            if let (Some(successes), Some(port)) = (flushed, self.shared.breaker.get()) {
                port.flush.do_send(Flush(successes));
            }
            return Settled::Counted;
        }
        Settled::Owed(Report {
            permit: Some(permit),
            outcome: Outcome {
                class: verdict.class,
                elapsed,
                retry_after: verdict.retry_after,
            },
            then: None,
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let (Some(slot), Some(ring)) = (self.slot.take(), &self.shared.in_flight) {
            ring.end(slot);
        }
        if let Some(permit) = self.permit.take() {
            let now = self.shared.clock.now();
            let too_late = self.deadline.is_some_and(|deadline| now >= deadline);
            let class = if too_late || std::thread::panicking() {
                Class::Failure
            } else {
                Class::Cancelled
            };
            if let Settled::Owed(report) = self.count(permit, Verdict::from(class), now) {
                self.shared.report(report);
            }
        }
    }
}

impl Shared {
    /// Sends a report; what follows it runs even when there is no breaker any more.
    pub(crate) fn report(&self, report: Report) {
        if let Some(port) = self.breaker.get() {
            port.report.do_send(report);
        }
    }

    /// Sends a report and waits until it is counted (rule CALL-3).
    ///
    /// # Cancel safety   Dropped while it waits, the report is counted all the same.
    pub(crate) async fn report_and_wait(&self, report: Report) {
        if let Some(port) = self.breaker.get() {
            // A closed mailbox means that nobody counts any more.
            let _ = port.report.send(report).await;
        }
    }
}
