//! Permits for one call, and the obligation to report its outcome.
//!
//! Each permit is returned exactly once, on every path.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Class, Executed, Outcome, Pause, Permit, PermitKind, Symptom, Time};

use super::gate::{GateMode, tag_of};
use super::gate_decision::{deciding_gate, stale_refusal};
use super::hedge_member::HedgeMember;
use super::in_flight::InFlightTicket;
use super::judgement;
use super::message::Report;
use super::shared::SharedBreaker;
use crate::deadline::{BreakerNumber, CallDeadline};
use crate::error::Refused;
use crate::state::Shared;
use crate::state::recorder::{AttemptRecord, record_attempt};
use crate::verdict::Verdict;

/// A permit, and the obligation to return it: the owner must settle, release or abandon it.
#[derive(Debug)]
#[must_use = "a permit has to go back"]
pub(crate) struct PermitGuard {
    permit: Permit,
    started: Time,
    deadline: CallDeadline,
    /// The ticket under which the call is counted while it is in flight.
    ticket: Option<InFlightTicket>,
    /// The breaker of the call's key; `None` for a call without one.
    key: Option<Arc<SharedBreaker>>,
    /// True if the dependency's own breaker granted it, and not that of the key.
    is_for_all: bool,
    /// The generation of the dependency's own breaker when a call with a key went out.
    tag_for_all: Option<u64>,
    /// The attempt's membership in a hedge group.
    member: HedgeMember,
}

/// Returns true for a rejection that the dependency itself has told by a status, such as 404. What
/// speaks of the caller, such as a refused credential, says nothing (EDGE-1).
fn is_own_answer(verdict: &Verdict) -> bool {
    let status = match verdict.symptom {
        Some(Symptom::Status(status)) => status,
        _ => return false,
    };
    let is_told = verdict.class == Class::Rejected && verdict.executed == Executed::Yes;
    is_told && !verdict.is_for_caller && !matches!(status, 401 | 403 | 407)
}

impl PermitGuard {
    #[inline(always)]
    pub(crate) fn new(
        key: Option<Arc<SharedBreaker>>,
        permit: Permit,
        started: Time,
        deadline: CallDeadline,
    ) -> Self {
        Self {
            permit,
            started,
            deadline,
            ticket: None,
            key,
            is_for_all: false,
            tag_for_all: None,
            member: HedgeMember::default(),
        }
    }

    /// Marks the permit as one of the dependency's own breaker.
    pub(super) fn of_all(self) -> Self {
        Self {
            is_for_all: true,
            ..self
        }
    }

    /// The breaker of the key that granted it; `None` if the dependency's own did.
    fn granting_key(&self) -> Option<&Arc<SharedBreaker>> {
        self.key.as_ref().filter(|_| !self.is_for_all)
    }

    /// The breaker that granted it.
    #[inline]
    fn breaker<'a>(&'a self, shared: &'a Shared) -> &'a SharedBreaker {
        match &self.key {
            Some(key) if !self.is_for_all => key,
            _ => &shared.breaker,
        }
    }

    /// Time at which the permit was granted, or the call went out if that was later.
    pub(crate) fn started(&self) -> Time {
        self.started
    }

    /// Notes that the call has its bulkhead slot and goes out to the dependency. From this time on
    /// it can be overdue (rule BRK-9).
    pub(crate) fn mark_started(&mut self, shared: &Shared, now: Time) {
        self.started = now;
        self.ticket = self.ticket(shared, now);
        // A call that is marked again has gone out before.
        self.tag_for_all = self.tag_for_all.or_else(|| self.generation_for_all(shared));
    }

    /// Returns the present generation of the dependency's own breaker, for a call with a key.
    #[inline(always)]
    fn generation_for_all(&self, shared: &Shared) -> Option<u64> {
        self.key.as_ref().map(|_| shared.breaker.gate.read().tag())
    }

    /// Counts the call as in flight from `now` on.
    #[inline(always)]
    fn ticket(&self, shared: &Shared, now: Time) -> Option<InFlightTicket> {
        // An unrecorded call belongs to no generation, so it cannot be overdue in one.
        if matches!(self.permit.kind(), PermitKind::Unrecorded) {
            return None;
        }
        let tag = tag_of(self.permit.generation());
        self.breaker(shared).start(now, tag)
    }

    /// Returns true if the breaker has changed state since it granted the permit, and admits only
    /// probes or no call at all. A call that has not begun by then must not reach a dependency that
    /// is known to be sick.
    pub(crate) fn is_stale(&self, shared: &Shared) -> bool {
        let (of, word) = deciding_gate(shared, self.key.as_ref());
        match word.mode() {
            // No permit is ever granted in this mode.
            GateMode::ForcedOpen => true,
            GateMode::Open | GateMode::HalfOpen => {
                !std::ptr::eq(of, self.breaker(shared))
                    || tag_of(self.permit.generation()) != word.tag()
            }
            GateMode::Closed | GateMode::ClosedReportAll | GateMode::Disabled => false,
        }
    }

    /// The refusal of a call with a stale permit.
    pub(crate) fn stale_refusal(&self, shared: &Shared, now: Time) -> Refused {
        stale_refusal(shared, self.key.as_ref(), now)
    }

    /// Notes that the first part of the answer has arrived. The time that later parts take does not
    /// count as slow (rule BRK-9).
    pub(crate) fn answered(&mut self, shared: &Shared) {
        if let Some(ticket) = self.ticket.take() {
            self.breaker(shared).end(ticket);
        }
    }

    /// Returns the number of the breaker of which the call is a probe.
    #[inline]
    fn probe(&self, shared: &Shared) -> Option<BreakerNumber> {
        self.is_probe().then(|| self.breaker(shared).number)
    }

    /// Returns true if the permit is a probe: the breaker waits for its outcome to decide.
    pub(crate) fn is_probe(&self) -> bool {
        self.permit.is_probe()
    }

    /// The report of the call's end to the breaker.
    #[cold]
    fn report(self, shared: &Shared, elapsed: Duration, verdict: &Verdict) -> Box<Report> {
        let counts_for_all = self.granting_key().is_some_and(|key| match verdict.class {
            Class::Failure => shared.keys.counts_for_all(key, true) || verdict.is_for_all_keys,
            Class::Success => !key.is_slow(elapsed),
            _ => false,
        });
        let counts_for_all = self.tag_for_all.filter(|_| counts_for_all);
        let outcome = self.outcome(shared, verdict, elapsed);
        Box::new(Report {
            key: self.key.filter(|_| !self.is_for_all),
            permit: Some(self.permit),
            outcome,
            counts_for_all,
            asked: verdict.retry_after,
            then: None,
        })
    }

    /// Sets the start of the call to `now`: time spent waiting for a slot is not the dependency's.
    pub(crate) fn begin(&mut self, now: Time) {
        self.started = now;
    }

    /// Returns the pause that keeps its call from going out, if there is one.
    pub(crate) fn pause(&self, shared: &Shared, now: Time) -> Option<Pause> {
        shared.pauses_of(self.key.as_deref()).current(now)
    }

    /// Returns the permit unused: an inner layer refused the call, and the dependency was not
    /// asked.
    pub(crate) fn release(self, shared: &Shared) {
        self.untrack(shared);
        // BRK-6: the breaker reserves nothing for a permit from the gate; a probe frees its slot.
        if self.permit.is_probe() {
            let key = self.key.filter(|_| !self.is_for_all);
            judgement::release(shared, &key, self.permit);
        }
    }

    /// Ends an attempt without an answer from the dependency. The class is `cancelled`, which
    /// counts for nothing, if the caller left early. It is a failure if the deadline had passed or
    /// the work panicked (rule BRK-6).
    pub(crate) fn abandon(self, shared: &Shared, panicked: bool) {
        if self.member.is_lost() && !panicked {
            return self.release(shared);
        }
        let now = shared.clock.now();
        // BRK-6: a dropped permit is neutral while its caller still had time.
        let too_late = self.deadline.has_passed(now) && !self.deadline.is_callers;
        let class = if too_late || panicked {
            Class::Failure
        } else {
            // EDGE-1: nothing for the breaker; many of them in a silence are told in the health. One
            // that gave less time than the settings says nothing at all.
            if !self.deadline.has_passed(now) {
                let caller = self.deadline.caller;
                shared.note_given_up(now.since(self.started), caller, now);
            }
            Class::Cancelled
        };
        if let Settled::NeedsReport(report) = self.settle(shared, &Verdict::from(class), now) {
            judgement::count(shared, *report);
        }
    }

    /// Returns true if the caller's own deadline has ended the attempt, before a limit of the
    /// settings could.
    #[inline]
    fn is_cut_by_caller(&self, verdict: &Verdict, now: Time) -> bool {
        // EDGE-1: an attempt that its caller gave less time than the settings is no outcome.
        self.deadline.is_callers
            && verdict.symptom == Some(Symptom::Timeout)
            && self.deadline.has_passed(now)
    }

    /// Counts a fast success at the gate. Every other outcome must be reported to the breaker.
    pub(crate) fn settle(self, shared: &Shared, verdict: &Verdict, now: Time) -> Settled {
        let elapsed = now.since(self.started);
        self.settle_after(shared, elapsed, verdict, now)
    }

    /// Settles an attempt that is to count as one that took `elapsed`.
    pub(crate) fn settle_after(
        self,
        shared: &Shared,
        elapsed: Duration,
        verdict: &Verdict,
        now: Time,
    ) -> Settled {
        let cancelled = Verdict::from(Class::Cancelled);
        let is_cut = self.is_cut_by_caller(verdict, now);
        let verdict = if is_cut { &cancelled } else { verdict };
        if self.record(shared, elapsed, verdict, now) {
            return Settled::Counted;
        }
        Settled::NeedsReport(self.report(shared, elapsed, verdict))
    }

    /// Records the end of an attempt. Returns false if the breaker needs a report too.
    #[inline]
    fn record(&self, shared: &Shared, elapsed: Duration, verdict: &Verdict, now: Time) -> bool {
        self.untrack(shared);
        shared.totals.observe(elapsed, now);
        shared.note_traffic(self.key.as_deref(), verdict, (self.started, elapsed), now);
        shared.note_configuration(verdict);
        shared.bulkhead.sample(now, elapsed, verdict.class);
        let kind = self.permit.kind();
        if let Some(recorder) = &shared.recorder {
            let ended = AttemptRecord {
                dependency: &shared.name,
                at: now,
                outcome: self.outcome(shared, verdict, elapsed),
                permit: kind,
            };
            record_attempt(&**recorder, ended);
        }
        if matches!(kind, PermitKind::Unrecorded) {
            return true;
        }
        let of = self.breaker(shared);
        if of.key.is_some() {
            of.mark_used(now);
        }
        // CALL-3: only a fast success of a closed breaker is counted without its lock.
        let is_quiet = verdict.class == Class::Success
            && !of.is_slow(elapsed)
            && matches!(kind, PermitKind::Normal)
            && of.gate.read().mode() == GateMode::Closed;
        let key = self.granting_key();
        if let Some(key) = key
            && verdict.class == Class::Success
        {
            shared.keys.counts_for_all(key, false);
            if !is_quiet || !count_for_all(shared, self.tag_for_all, now) {
                return false;
            }
        }
        if is_quiet {
            let flushed = of.count_success(self.permit.generation(), now);
            if let Some(successes) = flushed {
                judgement::flush(shared, &key.cloned(), successes);
            }
        }
        is_quiet
    }

    /// Returns the outcome that the breaker counts.
    #[inline]
    fn outcome(&self, shared: &Shared, verdict: &Verdict, elapsed: Duration) -> Outcome {
        let mut outcome = shared.outcome(verdict, elapsed);
        if self.is_probe() && is_own_answer(verdict) {
            // BRK-5: a dependency that answers its probes is not kept half-open by their callers'
            // mistakes.
            outcome.class = Class::Success;
        }
        outcome
    }

    #[inline(always)]
    fn untrack(&self, shared: &Shared) {
        if let Some(ticket) = self.ticket {
            self.breaker(shared).end(ticket);
        }
    }
}

/// Counts the success of a key at the gate of the whole dependency. Returns false if the breaker
/// must be told of it.
fn count_for_all(shared: &Shared, tag: Option<u64>, now: Time) -> bool {
    let whole = shared.breaker.gate.read();
    match whole.mode() {
        // BRK-3: of a call that went out before the last transition, it is late for all.
        _ if Some(whole.tag()) != tag => true,
        GateMode::Closed => {
            if let Some(successes) = shared.breaker.count_success(whole.tag(), now) {
                judgement::flush(shared, &None, successes);
            }
            true
        }
        GateMode::ClosedReportAll => false,
        // An outcome of a key says nothing to a breaker that waits for its probes.
        GateMode::Open | GateMode::HalfOpen | GateMode::ForcedOpen | GateMode::Disabled => true,
    }
}

/// A permit that is returned on drop: released if the call has not gone out, else abandoned.
#[derive(Debug)]
pub(crate) struct Admission<S: Deref<Target = Shared>> {
    shared: S,
    permit: Option<PermitGuard>,
    /// True once the call has gone out to the dependency.
    has_gone_out: bool,
    /// True once the work itself runs under the permit, in this task.
    begun: bool,
}

impl<S: Deref<Target = Shared>> Admission<S> {
    pub(crate) fn new(shared: S, permit: PermitGuard) -> Self {
        Self {
            shared,
            permit: Some(permit),
            has_gone_out: false,
            begun: false,
        }
    }

    /// An admission without a permit so far.
    #[inline(always)]
    pub(crate) fn none(shared: S) -> Self {
        Self {
            shared,
            permit: None,
            has_gone_out: false,
            begun: false,
        }
    }

    /// Takes a permit for a call that goes out at the moment it was granted; see
    /// [`PermitGuard::mark_started`].
    #[inline(always)]
    pub(crate) fn start_with(&mut self, permit: PermitGuard) {
        let ticket = permit.ticket(&self.shared, permit.started);
        let tag_for_all = permit.generation_for_all(&self.shared);
        let before = self.permit.replace(PermitGuard {
            ticket,
            tag_for_all,
            ..permit
        });
        // Not dropped: an admission without a permit has none to give back, and to look costs more.
        std::mem::forget(before);
        self.has_gone_out = true;
    }

    /// Takes the permit out, and with it the obligation to return it.
    pub(crate) fn take_permit(&mut self) -> Option<PermitGuard> {
        self.permit.take()
    }

    /// Notes that the work runs under the permit from now on, in this task. Returns the time at
    /// which the call went out, which is just before.
    pub(crate) fn begin(&mut self) -> Option<Time> {
        self.begun = true;
        self.permit.as_ref().map(PermitGuard::started)
    }

    /// Returns the number of the breaker of which the call is a probe.
    #[inline]
    pub(crate) fn probe(&self) -> Option<BreakerNumber> {
        let permit = self.permit.as_ref();
        permit.and_then(|permit| permit.probe(&self.shared))
    }

    /// Time at which the call went out.
    pub(crate) fn started_at(&self) -> Option<Time> {
        self.permit.as_ref().map(PermitGuard::started)
    }

    /// See [`PermitGuard::mark_started`]. Without a time, the call goes out at the moment the
    /// permit was granted.
    pub(crate) fn mark_started(&mut self, now: Option<Time>) {
        self.has_gone_out = true;
        if let Some(permit) = &mut self.permit {
            let now = now.unwrap_or(permit.started());
            permit.mark_started(&self.shared, now);
        }
    }

    /// Takes the call out of those that can be overdue: it waits for its caller.
    pub(crate) fn pause_age(&mut self) {
        if let Some(permit) = &mut self.permit {
            permit.answered(&self.shared);
        }
    }

    /// Returns true while it holds a permit.
    pub(crate) fn has_permit(&self) -> bool {
        self.permit.is_some()
    }

    /// Returns true if its permit is a probe.
    pub(crate) fn is_probe(&self) -> bool {
        self.permit.as_ref().is_some_and(PermitGuard::is_probe)
    }

    /// See [`PermitGuard::is_stale`].
    pub(crate) fn is_stale(&self) -> bool {
        let permit = self.permit.as_ref();
        permit.is_some_and(|permit| permit.is_stale(&self.shared))
    }

    /// Records the attempt's membership in a hedge group. When another attempt of the group wins,
    /// this permit is returned as if it had not been used.
    pub(crate) fn join_group(&mut self, member: HedgeMember) {
        if let Some(permit) = &mut self.permit {
            permit.member = member;
        }
    }

    /// The attempt's membership in a hedge group.
    pub(crate) fn hedge_member(&self) -> Option<&HedgeMember> {
        self.permit.as_ref().map(|permit| &permit.member)
    }

    pub(crate) fn release(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.release(&self.shared);
        }
    }

    /// Settles an attempt that its caller has cut short. Apart: few calls need it, and every call
    /// would make the other verdict.
    #[cold]
    fn settle_cut(&mut self, verdict: &Verdict, now: Time) -> Settled {
        let permit = self.permit.take();
        let settled = permit.map(|permit| permit.settle(&self.shared, verdict, now));
        settled.unwrap_or(Settled::Counted)
    }

    /// See [`PermitGuard::settle`].
    #[inline(always)]
    pub(crate) fn settle(&mut self, verdict: &Verdict, now: Time) -> Settled {
        let Some(permit) = &self.permit else {
            return Settled::Counted;
        };
        let elapsed = now.since(permit.started);
        if permit.is_cut_by_caller(verdict, now) {
            return self.settle_cut(verdict, now);
        }
        if permit.record(&self.shared, elapsed, verdict, now) {
            self.permit = None;
            return Settled::Counted;
        }
        let report = self
            .permit
            .take()
            .map(|permit| permit.report(&self.shared, elapsed, verdict));
        report.map_or(Settled::Counted, Settled::NeedsReport)
    }
}

impl<S: Deref<Target = Shared>> Drop for Admission<S> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            if !self.has_gone_out {
                // The call was waiting for a slot, and the dependency has not seen it (rule
                // CALL-4).
                return permit.release(&self.shared);
            }
            let panicked = self.begun && std::thread::panicking();
            permit.abandon(&self.shared, panicked);
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
