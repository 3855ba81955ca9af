//! Leave to make one call, and the duty to say what it came to.
//!
//! The gate is read here and nowhere else. The permit goes back exactly once, whatever happens.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Class, Executed, Outcome, Permit, PermitKind, RefusalState, Time};

use crate::dependency::{Shared, Verdict};
use crate::error::Refused;
use crate::flight::Seat;
use crate::gate::{GateWord, Mode, tag_of};
use crate::message::{Acquire, Flush, Release, Report};
use crate::record::{Ended, tell};

/// What the gate said.
pub(crate) enum Passage {
    /// Go.
    Granted(Held),
    /// Only the breaker itself can say.
    AskBreaker,
    /// No.
    Refused(Refused),
}

/// A permit in somebody's hands. Whoever holds it must settle, release or forsake it.
#[derive(Debug)]
#[must_use = "a permit has to go back"]
pub(crate) struct Held {
    permit: Permit,
    started: Time,
    deadline: Option<Time>,
    /// Where it is counted while it is in flight.
    seat: Option<Seat>,
}

impl Held {
    pub(crate) fn new(permit: Permit, started: Time, deadline: Option<Time>) -> Self {
        Self {
            permit,
            started,
            deadline,
            seat: None,
        }
    }

    /// When it was given.
    pub(crate) fn started(&self) -> Time {
        self.started
    }

    /// Notes that the call has its place and is on its way to the dependency: from here on it can
    /// be overdue (rule BRK-9).
    pub(crate) fn depart(&mut self, shared: &Shared, now: Time) {
        self.started = now;
        if let Some(ring) = &shared.in_flight {
            self.seat = ring.start(now, tag_of(self.permit.generation()));
        }
    }

    /// Whether the breaker has moved since, and lets only probes through, or nobody. What has not
    /// begun by then must not reach a dependency that is known to be sick.
    pub(crate) fn is_overtaken(&self, shared: &Shared) -> bool {
        let word = shared.gate.read();
        let shut = matches!(word.mode(), Mode::Open | Mode::HalfOpen | Mode::ForcedOpen);
        shut && tag_of(self.permit.generation()) != word.tag()
    }

    /// Takes the clock's word that the call begins now: waiting for a place is not the
    /// dependency's time.
    pub(crate) fn begin(&mut self, now: Time) {
        self.started = now;
    }
}

/// A permit that is forsaken when it is dropped.
#[derive(Debug)]
pub(crate) struct Admission<S: Deref<Target = Shared>> {
    shared: S,
    held: Option<Held>,
    /// Whether the work itself runs under it, in this very task.
    begun: bool,
}

impl<S: Deref<Target = Shared>> Admission<S> {
    pub(crate) fn new(shared: S, held: Held) -> Self {
        Self {
            shared,
            held: Some(held),
            begun: false,
        }
    }

    /// Takes the permit out, and the duty with it.
    pub(crate) fn into_held(mut self) -> Option<Held> {
        self.held.take()
    }

    /// Notes that the work runs under it from now on, in this very task; it has departed just
    /// now, at the time that is given back.
    pub(crate) fn begin(&mut self) -> Option<Time> {
        self.begun = true;
        self.held.as_ref().map(Held::started)
    }

    /// See [`Held::depart`]; without a time, at the moment the permit was given.
    pub(crate) fn depart(&mut self, now: Option<Time>) {
        if let Some(held) = &mut self.held {
            let now = now.unwrap_or(held.started());
            held.depart(&self.shared, now);
        }
    }

    /// See [`Held::is_overtaken`].
    pub(crate) fn is_overtaken(&self) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| held.is_overtaken(&self.shared))
    }

    pub(crate) fn release(mut self) {
        if let Some(held) = self.held.take() {
            self.shared.release(held);
        }
    }

    pub(crate) fn settle(mut self, verdict: Verdict, now: Time) -> Settled {
        match self.held.take() {
            Some(held) => self.shared.settle(held, verdict, now),
            None => Settled::Counted,
        }
    }
}

impl<S: Deref<Target = Shared>> Drop for Admission<S> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let panicked = self.begun && std::thread::panicking();
            self.shared.forsake(held, panicked);
        }
    }
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
    pub(crate) fn pass(&self, now: Time, deadline: Option<Time>) -> Passage {
        let word = self.gate.read();
        match word.mode() {
            Mode::Closed | Mode::Watchful => {
                let permit = Permit::normal(word.tag(), now);
                Passage::Granted(Held::new(permit, now, deadline))
            }
            Mode::Disabled => {
                let permit = Permit::unrecorded(word.tag(), now);
                Passage::Granted(Held::new(permit, now, deadline))
            }
            Mode::HalfOpen => Passage::AskBreaker,
            Mode::Open if retry_at(word) <= now => Passage::AskBreaker,
            Mode::Open | Mode::ForcedOpen => Passage::Refused(self.refusal(word, now)),
        }
    }

    /// The refusal of whoever asks now; `None` when the gate lets calls through, or would ask the
    /// breaker. Where the time does not matter, nobody is asked for it.
    pub(crate) fn refuses(&self) -> Option<Refused> {
        let word = self.gate.read();
        match word.mode() {
            Mode::Closed | Mode::Watchful | Mode::Disabled | Mode::HalfOpen => None,
            Mode::ForcedOpen if word.retry_at_ms() == 0 => {
                Some(self.refused(RefusalState::ForcedOpen, None))
            }
            Mode::Open | Mode::ForcedOpen => {
                let now = self.clock.now();
                let over = word.mode() == Mode::Open && retry_at(word) <= now;
                (!over).then(|| self.refusal(word, now))
            }
        }
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
            state,
            retry_after,
            executed: Executed::No,
            notice: self.notice(),
        }
    }

    /// Asks the breaker actor for a permit.
    ///
    /// # Cancel safety   Dropped while it waits, a permit that was granted goes back.
    pub(crate) async fn ask_for_permit(
        &self,
        deadline: Option<Time>,
    ) -> Result<Admission<Arc<Shared>>, Refused> {
        let gone = || self.refused(RefusalState::Open, None);
        let port = self.breaker.get().ok_or_else(gone)?;
        match port.acquire.send(Acquire { deadline }).await {
            Ok(Ok(admission)) => Ok(admission),
            Ok(Err(refusal)) => Err(self.refused(refusal.state, refusal.retry_after)),
            Err(_closed) => Err(gone()),
        }
    }

    /// Gives a permit back unused: an inner layer refused, the dependency was not asked.
    pub(crate) fn release(&self, held: Held) {
        self.land(held.seat);
        // A gate's permit holds no place in the breaker; only a probe has to go back.
        if held.permit.is_probe()
            && let Some(port) = self.breaker.get()
        {
            port.release.do_send(Release(held.permit));
        }
    }

    /// Ends an attempt without a word from the dependency: `cancelled`, which counts for nothing,
    /// when the caller left early; a failure when its deadline had passed or the work panicked
    /// (rule BRK-6).
    pub(crate) fn forsake(&self, held: Held, panicked: bool) {
        let now = self.clock.now();
        let too_late = held.deadline.is_some_and(|deadline| now >= deadline);
        let class = if too_late || panicked {
            Class::Failure
        } else {
            Class::Cancelled
        };
        if let Settled::Owed(report) = self.settle(held, Verdict::from(class), now) {
            self.report(report);
        }
    }

    /// Counts a quick success at the gate; everything else is owed to the breaker.
    pub(crate) fn settle(&self, held: Held, verdict: Verdict, now: Time) -> Settled {
        self.land(held.seat);
        let elapsed = now.since(held.started);
        self.totals.observe(elapsed);
        let permit = held.permit;
        let outcome = Outcome {
            class: verdict.class,
            elapsed,
            retry_after: verdict.retry_after,
        };
        if let Some(recorder) = &self.recorder {
            tell(
                &**recorder,
                Ended {
                    dependency: &self.name,
                    at: now,
                    outcome,
                    permit: permit.kind(),
                },
            );
        }
        if matches!(permit.kind(), PermitKind::Unrecorded) {
            return Settled::Counted;
        }
        let slow = self.settings.breaker.slow_call;
        if verdict.class == Class::Success
            && slow.is_none_or(|slow| elapsed < slow)
            && matches!(permit.kind(), PermitKind::Normal)
            && self.gate.read().mode() == Mode::Closed
        {
            let bucket = match self.bucket_nanos {
                0 => 0,
                width => now.as_nanos() / width,
            };
            let flushed = self.gate.count_success(permit.generation(), bucket);
            if let (Some(successes), Some(port)) = (flushed, self.breaker.get()) {
                port.flush.do_send(Flush(successes));
            }
            return Settled::Counted;
        }
        Settled::Owed(Report {
            permit: Some(permit),
            outcome,
            then: None,
        })
    }

    fn land(&self, seat: Option<Seat>) {
        if let (Some(seat), Some(ring)) = (seat, &self.in_flight) {
            ring.end(seat);
        }
    }

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

fn retry_at(word: GateWord) -> Time {
    Time::from_millis(word.retry_at_ms())
}
