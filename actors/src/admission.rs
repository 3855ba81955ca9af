//! Permits for one call, and the obligation to report its outcome.
//!
//! The gate is read only here. Each permit is returned exactly once, on every path.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Class, Executed, Outcome, Permit, PermitKind, RefusalState, Time};

use crate::call::HedgeMember;
use crate::circuit::SharedBreaker;
use crate::dependency::{Shared, Verdict};
use crate::error::Refused;
use crate::flight::InFlightTicket;
use crate::gate::{GateWord, Mode, tag_of};
use crate::message::{Acquire, Flush, Release, Report};
use crate::record::{AttemptRecord, tell};

/// The gate's decision on one call.
pub(crate) enum GateDecision {
    /// The call may go out.
    Granted(PermitGuard),
    /// Only the breaker actor can decide.
    AskBreaker,
    /// The call is refused.
    Refused(Refused),
}

/// A permit, and the obligation to return it: the owner must settle, release or abandon it.
#[derive(Debug)]
#[must_use = "a permit has to go back"]
pub(crate) struct PermitGuard {
    permit: Permit,
    started: Time,
    /// [`Time::MAX`] if there is none.
    deadline: Time,
    /// The ticket under which the call is counted while it is in flight.
    seat: Option<InFlightTicket>,
    /// The key's breaker that granted it; `None` for the dependency's own.
    circuit: Option<Arc<SharedBreaker>>,
    /// The attempt's membership in a hedge group.
    race: HedgeMember,
}

impl PermitGuard {
    pub(crate) fn new(
        circuit: Option<Arc<SharedBreaker>>,
        permit: Permit,
        started: Time,
        deadline: Option<Time>,
    ) -> Self {
        Self {
            permit,
            started,
            deadline: deadline.unwrap_or(Time::MAX),
            seat: None,
            circuit,
            race: HedgeMember::default(),
        }
    }

    fn circuit<'a>(&'a self, shared: &'a Shared) -> &'a SharedBreaker {
        self.circuit.as_deref().unwrap_or(&shared.circuit)
    }

    /// Time at which the permit was granted, or the call went out if that was later.
    pub(crate) fn started(&self) -> Time {
        self.started
    }

    /// Notes that the call has its bulkhead slot and goes out to the dependency. From this time on
    /// it can be overdue (rule BRK-9).
    pub(crate) fn mark_started(&mut self, shared: &Shared, now: Time) {
        self.started = now;
        self.seat = self.seat(shared, now);
    }

    /// Counts the call as in flight from `now` on.
    #[inline(always)]
    fn seat(&self, shared: &Shared, now: Time) -> Option<InFlightTicket> {
        // An unrecorded call belongs to no generation, so it cannot be overdue in one.
        if matches!(self.permit.kind(), PermitKind::Unrecorded) {
            return None;
        }
        let tag = tag_of(self.permit.generation());
        self.circuit(shared).start(now, tag)
    }

    /// Returns true if the breaker has changed state since it granted the permit, and admits only
    /// probes or no call at all. A call that has not begun by then must not reach a dependency that
    /// is known to be sick.
    pub(crate) fn is_stale(&self, shared: &Shared) -> bool {
        let (_, word) = shared.word(self.circuit.as_ref());
        match word.mode() {
            // No permit is ever granted in this mode.
            Mode::ForcedOpen => true,
            Mode::Open | Mode::HalfOpen => tag_of(self.permit.generation()) != word.tag(),
            Mode::Closed | Mode::ClosedReportAll | Mode::Disabled => false,
        }
    }

    /// The refusal of a call with a stale permit.
    pub(crate) fn stale_refusal(&self, shared: &Shared, now: Time) -> Refused {
        shared.stale_refusal(self.circuit.as_ref(), now)
    }

    /// Notes that the first part of the answer has arrived. The time that later parts take does not
    /// count as slow (rule BRK-9).
    pub(crate) fn answered(&mut self, shared: &Shared) {
        if let Some(seat) = self.seat.take() {
            self.circuit(shared).end(seat);
        }
    }

    /// Returns true if the permit is a probe: the breaker waits for its outcome to decide.
    pub(crate) fn is_probe(&self) -> bool {
        self.permit.is_probe()
    }

    /// The report of the call's end to the breaker.
    #[cold]
    fn report(self, elapsed: Duration, verdict: &Verdict) -> Box<Report> {
        Box::new(Report {
            circuit: self.circuit,
            permit: Some(self.permit),
            outcome: outcome(elapsed, verdict),
            then: None,
        })
    }

    /// Sets the start of the call to `now`: time spent waiting for a slot is not the dependency's.
    pub(crate) fn begin(&mut self, now: Time) {
        self.started = now;
    }
}

/// A permit that is returned on drop: released if the call has not gone out, else abandoned.
#[derive(Debug)]
pub(crate) struct Admission<S: Deref<Target = Shared>> {
    shared: S,
    held: Option<PermitGuard>,
    /// True once the call has gone out to the dependency.
    departed: bool,
    /// True once the work itself runs under the permit, in this task.
    begun: bool,
}

impl<S: Deref<Target = Shared>> Admission<S> {
    pub(crate) fn new(shared: S, held: PermitGuard) -> Self {
        Self {
            shared,
            held: Some(held),
            departed: false,
            begun: false,
        }
    }

    /// An admission without a permit so far.
    #[inline(always)]
    pub(crate) fn none(shared: S) -> Self {
        Self {
            shared,
            held: None,
            departed: false,
            begun: false,
        }
    }

    /// Takes a permit for a call that goes out at the moment it was granted; see
    /// [`PermitGuard::mark_started`].
    #[inline(always)]
    pub(crate) fn start_with(&mut self, held: PermitGuard) {
        let seat = held.seat(&self.shared, held.started);
        self.held = Some(PermitGuard { seat, ..held });
        self.departed = true;
    }

    /// Takes the permit out, and with it the obligation to return it.
    pub(crate) fn into_held(mut self) -> Option<PermitGuard> {
        self.take_held()
    }

    /// See [`Admission::into_held`].
    pub(crate) fn take_held(&mut self) -> Option<PermitGuard> {
        self.held.take()
    }

    /// Notes that the work runs under the permit from now on, in this task. Returns the time at
    /// which the call went out, which is just before.
    pub(crate) fn begin(&mut self) -> Option<Time> {
        self.begun = true;
        self.held.as_ref().map(PermitGuard::started)
    }

    /// Time at which the call went out.
    pub(crate) fn started_at(&self) -> Option<Time> {
        self.held.as_ref().map(PermitGuard::started)
    }

    /// See [`PermitGuard::mark_started`]. Without a time, the call goes out at the moment the
    /// permit was granted.
    pub(crate) fn mark_started(&mut self, now: Option<Time>) {
        self.departed = true;
        if let Some(held) = &mut self.held {
            let now = now.unwrap_or(held.started());
            held.mark_started(&self.shared, now);
        }
    }

    /// See [`PermitGuard::is_stale`].
    pub(crate) fn is_stale(&self) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| held.is_stale(&self.shared))
    }

    /// Records the attempt's membership in a hedge group. When another attempt of the group wins,
    /// this permit is returned as if it had not been used.
    pub(crate) fn race(&mut self, race: HedgeMember) {
        if let Some(held) = &mut self.held {
            held.race = race;
        }
    }

    /// The attempt's membership in a hedge group.
    pub(crate) fn race_of(&self) -> Option<&HedgeMember> {
        self.held.as_ref().map(|held| &held.race)
    }

    pub(crate) fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.shared.release(held);
        }
    }

    /// See [`Shared::settle`].
    #[inline(always)]
    pub(crate) fn settle(&mut self, verdict: &Verdict, now: Time) -> Settled {
        let Some(held) = &self.held else {
            return Settled::Counted;
        };
        let elapsed = now.since(held.started);
        if self.shared.record(held, elapsed, verdict, now) {
            self.held = None;
            return Settled::Counted;
        }
        let owed = self.held.take().map(|held| held.report(elapsed, verdict));
        owed.map_or(Settled::Counted, Settled::NeedsReport)
    }
}

impl<S: Deref<Target = Shared>> Drop for Admission<S> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            if !self.departed {
                // The call was waiting for a slot, and the dependency has not seen it (rule
                // CALL-4).
                return self.shared.release(held);
            }
            let panicked = self.begun && std::thread::panicking();
            self.shared.abandon(held, panicked);
        }
    }
}

/// Result of settling an admission.
pub(crate) enum Settled {
    /// The outcome is counted.
    Counted,
    /// The breaker must count the outcome before the caller learns of it. Boxed, because few calls
    /// need a report and all of them pass this value on.
    NeedsReport(Box<Report>),
}

impl Shared {
    /// Returns a permit from the gate itself, if the gate lets every call through. Sends no message
    /// and never waits.
    #[inline(always)]
    pub(crate) fn normal_permit(
        &self,
        circuit: Option<&Arc<SharedBreaker>>,
        now: Time,
    ) -> Option<Permit> {
        let (_, word) = self.word(circuit);
        match word.mode() {
            Mode::Closed | Mode::ClosedReportAll => Some(Permit::normal(word.tag(), now)),
            Mode::Disabled => Some(Permit::unrecorded(word.tag(), now)),
            Mode::Open | Mode::HalfOpen | Mode::ForcedOpen => None,
        }
    }

    /// Decides by the gate alone. Sends no message and never waits.
    pub(crate) fn try_admit(
        &self,
        circuit: Option<&Arc<SharedBreaker>>,
        now: Time,
        deadline: Option<Time>,
    ) -> GateDecision {
        if let Some(permit) = self.normal_permit(circuit, now) {
            return GateDecision::Granted(PermitGuard::new(
                circuit.cloned(),
                permit,
                now,
                deadline,
            ));
        }
        let (of, word) = self.word(circuit);
        match word.mode() {
            // Half-open, or the gate began to let calls through after the first read: the breaker
            // decides.
            Mode::Closed | Mode::ClosedReportAll | Mode::Disabled | Mode::HalfOpen => {
                GateDecision::AskBreaker
            }
            Mode::Open if retry_at(word) <= now => GateDecision::AskBreaker,
            Mode::Open | Mode::ForcedOpen => {
                GateDecision::Refused(RefusingGate { of, word, now }.refusal())
            }
        }
    }

    /// The gate that decides on a call. A state set by an operator or the supervisor for the whole
    /// dependency takes precedence over the key's own breaker.
    #[inline]
    pub(crate) fn word<'a>(
        &'a self,
        circuit: Option<&'a Arc<SharedBreaker>>,
    ) -> (&'a SharedBreaker, GateWord) {
        let whole = self.circuit.gate.read();
        match circuit {
            Some(key) if !matches!(whole.mode(), Mode::ForcedOpen | Mode::Disabled) => {
                (key, key.gate.read())
            }
            _ => (&self.circuit, whole),
        }
    }

    /// The gate, if it refuses calls at present; `None` if it lets calls through, or the breaker
    /// must be asked. The clock is read only where the time matters.
    #[inline]
    pub(crate) fn refuses<'a>(
        &'a self,
        circuit: Option<&'a Arc<SharedBreaker>>,
    ) -> Option<RefusingGate<'a>> {
        let (of, word) = self.word(circuit);
        let now = match word.mode() {
            Mode::Closed | Mode::ClosedReportAll | Mode::Disabled | Mode::HalfOpen => return None,
            Mode::ForcedOpen if word.retry_at_ms() == 0 => Time::ZERO,
            Mode::Open | Mode::ForcedOpen => self.clock.now(),
        };
        let is_over = word.mode() == Mode::Open && retry_at(word) <= now;
        (!is_over).then_some(RefusingGate { of, word, now })
    }

    /// The refusal of a call that got its permit before the breaker changed state.
    pub(crate) fn stale_refusal(&self, circuit: Option<&Arc<SharedBreaker>>, now: Time) -> Refused {
        let (of, word) = self.word(circuit);
        RefusingGate { of, word, now }.refusal()
    }

    /// Asks the breaker actor for a permit.
    ///
    /// # Cancel safety   If the future is dropped while it waits, a granted permit is returned.
    pub(crate) async fn ask_for_permit(
        &self,
        circuit: Option<&Arc<SharedBreaker>>,
        deadline: Option<Time>,
    ) -> Result<Admission<Arc<Shared>>, Refused> {
        let (of, _) = self.word(circuit);
        let gone = || refused(of, RefusalState::Open, None);
        let port = self.breaker.get().ok_or_else(gone)?;
        let circuit = circuit.cloned();
        match port.acquire.send(Acquire { circuit, deadline }).await {
            Ok(Ok(admission)) => Ok(admission),
            Ok(Err(refusal)) => Err(refused(of, refusal.state, refusal.retry_after)),
            Err(_closed) => Err(gone()),
        }
    }

    /// Returns a permit unused: an inner layer refused the call, and the dependency was not asked.
    pub(crate) fn release(&self, held: PermitGuard) {
        self.untrack(&held);
        // The breaker reserves nothing for a permit from the gate; only a probe must be returned.
        if held.permit.is_probe()
            && let Some(port) = self.breaker.get()
        {
            port.release.do_send(Release {
                permit: held.permit,
                circuit: held.circuit,
            });
        }
    }

    /// Ends an attempt without an answer from the dependency. The class is `cancelled`, which
    /// counts for nothing, if the caller left early. It is a failure if the deadline had passed or
    /// the work panicked (rule BRK-6).
    pub(crate) fn abandon(&self, held: PermitGuard, panicked: bool) {
        if held.race.is_lost() && !panicked {
            return self.release(held);
        }
        let now = self.clock.now();
        let too_late = now >= held.deadline;
        let class = if too_late || panicked {
            Class::Failure
        } else {
            Class::Cancelled
        };
        if let Settled::NeedsReport(report) = self.settle(held, &Verdict::from(class), now) {
            self.report(*report);
        }
    }

    /// Counts a fast success at the gate. Every other outcome must be reported to the breaker.
    pub(crate) fn settle(&self, held: PermitGuard, verdict: &Verdict, now: Time) -> Settled {
        let elapsed = now.since(held.started);
        self.settle_after(held, elapsed, verdict, now)
    }

    /// Settles an attempt that is to count as one that took `elapsed`.
    pub(crate) fn settle_after(
        &self,
        held: PermitGuard,
        elapsed: Duration,
        verdict: &Verdict,
        now: Time,
    ) -> Settled {
        if self.record(&held, elapsed, verdict, now) {
            return Settled::Counted;
        }
        Settled::NeedsReport(held.report(elapsed, verdict))
    }

    /// Records the end of an attempt. Returns false if the breaker needs a report too.
    #[inline]
    fn record(&self, held: &PermitGuard, elapsed: Duration, verdict: &Verdict, now: Time) -> bool {
        self.untrack(held);
        self.totals.observe(elapsed);
        self.note_traffic(verdict, held.started, now);
        self.note_setup(verdict);
        self.bulkhead.sample(now, elapsed, verdict.class);
        let kind = held.permit.kind();
        if let Some(recorder) = &self.recorder {
            let ended = AttemptRecord {
                dependency: &self.name,
                at: now,
                outcome: outcome(elapsed, verdict),
                permit: kind,
            };
            tell(&**recorder, ended);
        }
        if matches!(kind, PermitKind::Unrecorded) {
            return true;
        }
        let of = held.circuit(self);
        if of.key.is_some() {
            of.use_now(now);
        }
        let is_quiet = verdict.class == Class::Success
            && !of.is_slow(elapsed)
            && matches!(kind, PermitKind::Normal)
            && of.gate.read().mode() == Mode::Closed;
        if is_quiet {
            let flushed = of.count_success(held.permit.generation(), now);
            if let (Some(successes), Some(port)) = (flushed, self.breaker.get()) {
                port.flush.do_send(Flush {
                    successes,
                    circuit: held.circuit.clone(),
                });
            }
        }
        is_quiet
    }

    #[inline(always)]
    fn untrack(&self, held: &PermitGuard) {
        if let Some(seat) = held.seat {
            held.circuit(self).end(seat);
        }
    }

    /// Sends a report. Its follow-up runs even if the breaker is gone.
    pub(crate) fn report(&self, report: Report) {
        if let Some(port) = self.breaker.get() {
            port.report.do_send(report);
        }
    }

    /// Sends a report and waits until it is counted (rule CALL-3).
    ///
    /// # Cancel safety   If the future is dropped while it waits, the report is still counted.
    pub(crate) async fn report_and_wait(&self, report: Box<Report>) {
        if let Some(port) = self.breaker.get() {
            // A closed mailbox means that there is no breaker to count it.
            let _ = port.report.send(*report).await;
        }
    }
}

fn outcome(elapsed: Duration, verdict: &Verdict) -> Outcome {
    Outcome {
        class: verdict.class,
        elapsed,
        retry_after: verdict.retry_after,
    }
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
        self.word.mode() == Mode::ForcedOpen
    }

    /// Returns the time until it may let calls through, if that is known.
    #[inline]
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let until = retry_at(self.word);
        let is_known = self.state() == RefusalState::Open || until > self.now;
        is_known.then(|| until.since(self.now))
    }

    #[inline(always)]
    pub(crate) fn refusal(&self) -> Refused {
        refused(self.of, self.state(), self.retry_after())
    }

    fn state(&self) -> RefusalState {
        match self.word.mode() {
            Mode::ForcedOpen => RefusalState::ForcedOpen,
            Mode::HalfOpen => RefusalState::HalfOpen,
            Mode::Open | Mode::Closed | Mode::ClosedReportAll | Mode::Disabled => {
                RefusalState::Open
            }
        }
    }
}

#[inline(always)]
fn refused(of: &SharedBreaker, state: RefusalState, retry_after: Option<Duration>) -> Refused {
    Refused {
        state,
        retry_after,
        executed: Executed::No,
        notice: of.notice(),
    }
}
