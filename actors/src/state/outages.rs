//! The outages of a dependency, noted where their conditions arise.
//!
//! Transitions of the breaker, the loss of the last worker and a refused configuration are noted as
//! they happen. The share of errors is looked at when a call ends with an error, at most once a
//! second, and whenever the status is read: no call that succeeds pays for it.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::{
    Acknowledgement, AnswerCounts, BreakerCause, BreakerEvent, CauseKind, Class, CommandSource,
    FailureNote, GIVE_UP_MINIMUM, HEALTH_SPAN, HangFigures, Outage, OutageCause, OutageCondition,
    OutageEnding, OutageLog, Outcome, Override, OverrideMode, ProbeNote, Rate, ServiceLevel, State,
    Symptom, Time, UnansweredCalls, limit_reached,
};

use super::counts::CountsView;
use super::{Route, Shared};
use crate::breaker::active_probe::ActiveProbeResult;
use crate::bulkhead_limit::BulkheadLimit;
use crate::error::NotExecutedReason;
use crate::event::EventKind;
use crate::redact::redact;
use crate::sync::{LockExt, Mutex};
use crate::time_limit::TimeLimit;
use crate::verdict::Verdict;

/// Time between two looks at the share of errors that errors themselves cause.
const LOOK: Duration = Duration::from_secs(1);

/// The outages of a dependency, and what their causes are told from.
#[derive(Debug, Default)]
pub(crate) struct OutageState {
    log: Mutex<OutageLog>,
    last_failure: Mutex<Option<FailureNote>>,
    /// The reason of an order that refuses every call, while one stands.
    refusing_order: Mutex<Option<String>>,
    unanswered: Mutex<UnansweredCalls>,
    /// Time of the last look at the share of errors, in nanoseconds; zero before the first.
    looked_at: AtomicU64,
    /// True while half of the latest answers, or more, were errors when they were looked at.
    was_down: AtomicBool,
    /// The good answers when a call got an error last.
    good_answers_at_last_error: AtomicU64,
}

impl OutageState {
    /// Returns the latest failure of an attempt.
    fn last_failure(&self) -> Option<FailureNote> {
        *self.last_failure.acquire()
    }
}

impl Shared {
    /// Notes an attempt that failed after this time, as the cause of an outage that it may begin.
    pub(crate) fn note_failure(&self, verdict: &Verdict, after: Duration) {
        self.set_last_failure(self.failure_note(verdict, after));
    }

    /// Returns the outcome of an attempt that took this time, as its breaker records it.
    #[inline]
    pub(crate) fn outcome(&self, verdict: &Verdict, elapsed: Duration) -> Outcome {
        // EDGE-8: a status and a timeout are told with a trip, as a refused connection is.
        let is_told = verdict.class == Class::Failure
            && (verdict.symptom.is_some() || verdict.cause.is_some());
        Outcome {
            class: verdict.class,
            elapsed,
            retry_after: self.believed(verdict.retry_after),
            cause: is_told.then(|| self.failure_note(verdict, elapsed)),
        }
    }

    fn failure_note(&self, verdict: &Verdict, after: Duration) -> FailureNote {
        let is_timeout = verdict.symptom == Some(Symptom::Timeout);
        let settings = self.settings();
        let limit = verdict.limit.filter(|_| is_timeout);
        let reached = || limit_reached(&settings.timeout, after).filter(|_| is_timeout);
        // EDGE-8: the figure is the span of the setting, not the part of it that was left.
        let span = limit.and_then(|limit| limit.span(&settings.timeout));
        FailureNote {
            symptom: verdict.symptom,
            words: verdict.cause,
            after: span.unwrap_or(after),
            limit: limit.map(TimeLimit::name).or_else(reached),
            is_likened: verdict.is_likened,
            // The duration of a stream is that until its first part.
            has_begun: limit == Some(TimeLimit::Attempt) && span.is_some_and(|span| after < span),
            ..FailureNote::default()
        }
    }

    /// Notes a call that found no room in the bulkhead, as the cause of an outage that such calls may
    /// begin.
    pub(crate) fn note_overload(&self, limit: &BulkheadLimit) {
        self.set_last_failure(FailureNote {
            limit: Some(limit.keys().0),
            is_overload: true,
            ..FailureNote::default()
        });
    }

    fn set_last_failure(&self, note: FailureNote) {
        *self.outages.last_failure.acquire() = Some(note);
    }

    /// Notes the results of the probes of a breaker: the dependency's own, or that of a key. Its lock
    /// is held.
    pub(crate) fn note_probes_of(&self, event: &BreakerEvent, now: Time) {
        match event {
            BreakerEvent::Transition {
                from: State::HalfOpen,
                to,
                cause,
                counts,
                ..
            } => self.note_probes(*to, cause, (counts.calls, counts.failures), now),
            BreakerEvent::HalfOpenProgress {
                successes, needed, ..
            } => {
                let text = format!("succeeded, {successes} of {needed}");
                let note = probe_note(now, true, text);
                self.outages.log.acquire().probes(0, 0, note);
            }
            _ => {}
        }
    }

    /// Notes a change of the dependency's own breaker. Its lock is held.
    pub(crate) fn note_breaker(&self, event: &BreakerEvent, now: Time) {
        if let BreakerEvent::Transition { to, cause, .. } = event {
            match to {
                State::Open => self.begin_outage(OutageCondition::BreakerOpen, now, || {
                    OutageCause::of_trip(cause, self.outages.last_failure().as_ref())
                }),
                State::HalfOpen => {}
                State::Closed => {
                    // HLT-2: an order is no recovery.
                    let by = match cause {
                        BreakerCause::Commanded(_) => OutageEnding::Order,
                        _ => OutageEnding::Recovery,
                    };
                    self.end_condition_by(OutageCondition::BreakerOpen, now, by);
                    // What failed before says nothing of the dependency that is well again.
                    self.totals.judge_from(now);
                    if matches!(
                        cause,
                        BreakerCause::Recovered { .. } | BreakerCause::FleetRecovered { .. }
                    ) {
                        self.outages.was_down.store(false, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Notes the override of the dependency's own breaker that is in force now. Its lock is held.
    pub(crate) fn note_override(&self, set: Option<&Override>) {
        // HLT-2: an event tells of one override, and another one may stand beneath or above it.
        let order = set.filter(|set| {
            set.mode == OverrideMode::ForcedOpen && set.by != CommandSource::Supervisor
        });
        let reason = order.map(|set| redact(&set.reason).into_owned());
        *self.outages.refusing_order.acquire() = reason;
    }

    /// Notes the results of a half-open period that ends.
    fn note_probes(&self, to: State, cause: &BreakerCause, (tried, failed): (u64, u64), now: Time) {
        let is_over = match cause {
            BreakerCause::Tripped { .. } | BreakerCause::Recovered { .. } => true,
            // An operator has ended the period.
            _ => false,
        };
        if !is_over {
            return;
        }
        let succeeded = to == State::Closed;
        let text = match self.outages.last_failure().filter(|_| failed > 0) {
            Some(failure) if !succeeded => failure.to_string(),
            _ => cause.to_string(),
        };
        // A probe that was slow or lost has no result that counts, and has been tried.
        let (tried, failed) = match succeeded {
            true => (tried.max(1), failed),
            false => (tried.max(1), failed.max(1)),
        };
        let note = probe_note(now, succeeded, text);
        self.outages.log.acquire().probes(tried, failed, note);
    }

    /// Notes that no worker is left, for this reason.
    pub(crate) fn note_no_worker(&self, cause: &str, rule: &str) {
        let now = self.clock.now();
        self.begin_outage(OutageCondition::NoWorker, now, || {
            let text = format!("no worker runs: {cause}");
            OutageCause::of_kind(CauseKind::Parked, text, rule.to_owned())
        });
    }

    /// Notes that a worker runs again.
    pub(crate) fn note_worker(&self) {
        let now = self.clock.now();
        self.end_condition(OutageCondition::NoWorker, now);
        self.totals.judge_from(now);
    }

    /// Notes whether the dependency refuses our configuration, by the verdict on an attempt.
    pub(super) fn note_refused_configuration(&self, verdict: &Verdict) {
        let now = self.clock.now();
        if verdict.class == Class::Misconfigured {
            let note = self.failure_note(verdict, Duration::ZERO);
            self.begin_outage(OutageCondition::Misconfigured, now, || {
                OutageCause::of_refused_configuration(&note)
            });
        } else {
            self.end_condition(OutageCondition::Misconfigured, now);
            self.totals.judge_from(now);
            self.outages.was_down.store(false, Ordering::Relaxed);
        }
    }

    /// Notes a call that ended with an error: it may be one too many.
    pub(super) fn note_error(&self) {
        self.mark_good_answers();
        let now = self.clock.now();
        let looked = self.outages.looked_at.load(Ordering::Relaxed);
        if looked != 0 && now.since(Time::from_nanos(looked)) < LOOK {
            return;
        }
        self.look_at_answers();
    }

    /// Looks at the answers of the last seconds: too large a share of errors is an outage, with an
    /// event, although the breaker is closed. Hold no lock.
    pub(crate) fn look_at_answers(&self) {
        let now = self.clock.now();
        let nanos = now.as_nanos().max(1);
        self.outages.looked_at.store(nanos, Ordering::Relaxed);
        let told = [self.look_at_errors(now), self.look_at_silence(now)];
        for kind in told.into_iter().flatten() {
            self.events.emit(&self.name, kind);
        }
    }

    fn look_at_errors(&self, now: Time) -> Option<EventKind> {
        let recent = self.totals.recent_answers(now).counts;
        let level = recent.judge(&self.settings().health);
        let mut log = self.outages.log.acquire();
        let answers = self.totals.answers();
        let lasts = log.has(OutageCondition::Errors);
        if level != ServiceLevel::Good {
            let is_down = level == ServiceLevel::Down;
            self.outages.was_down.store(is_down, Ordering::Relaxed);
        }
        match level {
            // HLT-1: silence after errors is no answer, so it ends nothing.
            ServiceLevel::Good if lasts && self.is_silent_after_errors(&recent, &log, now) => None,
            ServiceLevel::Good if lasts => {
                let by = match self.given(&recent) {
                    // Some of its calls failed, and none has come since.
                    0 if !self.outages.was_down.load(Ordering::Relaxed) => OutageEnding::Silence,
                    _ => OutageEnding::Recovery,
                };
                log.end(now, OutageCondition::Errors, by, answers);
                Some(EventKind::ErrorsOver)
            }
            // Another condition explains the errors.
            ServiceLevel::Degraded | ServiceLevel::Down if !lasts && !log.stands() => {
                let kind = EventKind::ErrorShare {
                    errors: recent.errors,
                    calls: recent.calls(),
                    is_down: level == ServiceLevel::Down,
                };
                // It is read long after these seconds.
                let rule = format!("{recent} within 30 s when it began");
                let has_begun = log.begin(now, OutageCondition::Errors, answers, || {
                    (self.events.next_outage(), self.cause_of_errors(rule))
                });
                if has_begun {
                    // HLT-2: the errors that are too many are its own.
                    log.count_from(answers.since(recent));
                }
                Some(kind)
            }
            _ => None,
        }
    }

    /// Returns the cause of an outage that errors begin. `rule`: their share.
    fn cause_of_errors(&self, rule: String) -> OutageCause {
        // HLT-2: the first cause is the refusal of the calls, not a failure from before it.
        if let Some(reason) = self.outages.refusing_order.acquire().as_ref() {
            let text = format!("an order refuses its calls: {reason}");
            return OutageCause::of_kind(CauseKind::Ordered, text, rule);
        }
        if self.route() == Route::FallbackOnly {
            let text = format!(
                "no fallback answers, and {}",
                NotExecutedReason::FallbackOnly
            );
            return OutageCause::of_kind(CauseKind::Other, text, rule);
        }
        OutageCause::of_failure(&self.outages.last_failure().unwrap_or_default(), rule)
    }

    /// Number of the answers that callers are to get: the dependency's own, or those of its fallbacks
    /// if they alone answer.
    fn given(&self, answers: &AnswerCounts) -> u64 {
        match self.route() {
            Route::FallbackOnly => answers.by_fallback,
            _ => answers.own,
        }
    }

    /// Returns true if most callers got errors last, and the dependency has given no good answer
    /// since: neither to a call nor to an active probe.
    fn is_silent_after_errors(&self, recent: &AnswerCounts, log: &OutageLog, now: Time) -> bool {
        let is_answered = self.given(recent) > 0 && !recent.are_mostly_errors();
        let is_ordered = log.cause_kind() == Some(CauseKind::Ordered);
        self.outages.was_down.load(Ordering::Relaxed)
            && !(is_answered || is_ordered)
            && (recent.errors > 0 || !(self.has_answered_since() || self.is_probed_well(now)))
    }

    /// Returns true if the dependency has given a good answer since a call got an error last.
    fn has_answered_since(&self) -> bool {
        let marked = &self.outages.good_answers_at_last_error;
        self.good_answers() > marked.load(Ordering::Relaxed)
    }

    /// Marks the good answers so far: only later ones count as given since.
    pub(super) fn mark_good_answers(&self) {
        let marked = &self.outages.good_answers_at_last_error;
        marked.store(self.good_answers(), Ordering::Relaxed);
    }

    /// Returns true if the latest active probe was a success of the last seconds.
    fn is_probed_well(&self, now: Time) -> bool {
        let probes = self.active_probes.load();
        let last = probes.as_ref().and_then(|probes| probes.last.as_ref());
        last.is_some_and(|(at, result, _)| {
            *result == ActiveProbeResult::Succeeded && now.since(*at) < HEALTH_SPAN
        })
    }

    /// Number of good answers so far: to calls, and to callers' mistakes.
    fn good_answers(&self) -> u64 {
        self.given(&self.totals.answers()) + self.counts.rejected()
    }

    /// Returns true while an outage by errors stands.
    pub(crate) fn errors_stand(&self) -> bool {
        self.outages.log.acquire().has(OutageCondition::Errors)
    }

    /// Looks at the callers that gave up while no call was answered.
    fn look_at_silence(&self, now: Time) -> Option<EventKind> {
        let hang = self.hang(now);
        let mut log = self.outages.log.acquire();
        let lasts = log.has(OutageCondition::Unanswered);
        let answers = self.totals.answers();
        match hang {
            None if lasts => {
                // EDGE-1: callers that leave prove little, so the hang is over without them.
                let by = match self
                    .outages
                    .unanswered
                    .acquire()
                    .is_answered(self.answers_begun())
                {
                    true => OutageEnding::Recovery,
                    false => OutageEnding::Silence,
                };
                log.end(now, OutageCondition::Unanswered, by, answers);
                // What failed before says nothing of the dependency that answers again.
                self.totals.judge_from(now);
                Some(EventKind::NoAnswersOver)
            }
            // HLT-1: calls that hang for all callers are an outage, although no attempt has failed.
            Some(figures) if !lasts && !log.stands() => {
                log.begin(now, OutageCondition::Unanswered, answers, || {
                    (self.events.next_outage(), OutageCause::of_hang(figures))
                });
                Some(EventKind::NoAnswers { figures })
            }
            _ => None,
        }
    }

    /// Returns the figures of callers that gave up, if the dependency hangs for all of them.
    fn hang(&self, now: Time) -> Option<HangFigures> {
        let calls = self.outages.unanswered.acquire();
        calls
            .is_suspected()
            .then(|| calls.hang(now, self.answers_begun()))?
    }

    /// Returns the figures of the hang that is a part of the present outage.
    pub(crate) fn noted_hang(&self) -> Option<HangFigures> {
        let is_noted = self.outages.log.acquire().has(OutageCondition::Unanswered);
        self.hang(self.clock.now()).filter(|_| is_noted)
    }

    /// Number of attempts that the dependency has answered, or begun to answer.
    fn answers_begun(&self) -> u64 {
        let counts = CountsView::of(self);
        let ended = counts.success + counts.rejected + counts.throttled + counts.misconfigured;
        ended + self.totals.begun()
    }

    /// Notes a caller that left an attempt after this wait, without an answer. `caller`: if it is
    /// known. Hold no lock.
    #[cold]
    pub(crate) fn note_given_up(&self, waited: Duration, caller: Option<NonZeroU64>, now: Time) {
        if waited < GIVE_UP_MINIMUM {
            return;
        }
        let usual = || self.totals.recent(Rate::NEARLY_ALL, now);
        let counted = {
            let answered = self.answers_begun();
            let mut calls = self.outages.unanswered.acquire();
            calls.give_up(now, (waited, caller), answered, usual)
        };
        if counted > 0 {
            // Before they are counted, so that they belong to the outage.
            self.look_at_answers();
            self.totals.count_unanswered(counted, now);
            self.mark_good_answers();
        }
    }

    fn begin_outage(
        &self,
        condition: OutageCondition,
        now: Time,
        cause: impl FnOnce() -> OutageCause,
    ) {
        let answers = self.totals.answers();
        let mut log = self.outages.log.acquire();
        log.begin(now, condition, answers, || {
            let mut cause = cause();
            // SEC-1: the words of other parties may hold secrets.
            cause.text = redact(&cause.text).into_owned();
            cause.rule = redact(&cause.rule).into_owned();
            (self.events.next_outage(), cause)
        });
    }

    fn end_condition(&self, condition: OutageCondition, now: Time) {
        self.end_condition_by(condition, now, OutageEnding::Recovery);
    }

    fn end_condition_by(&self, condition: OutageCondition, now: Time, by: OutageEnding) {
        let answers = self.totals.answers();
        self.outages.log.acquire().end(now, condition, by, answers);
    }

    /// Returns the outage that stands.
    pub(crate) fn standing_outage(&self) -> Option<Outage> {
        let answers = self.totals.answers();
        self.outages.log.acquire().standing(answers)
    }

    /// Returns the outages that are kept: the one that stands, then the ended ones, newest first.
    pub(crate) fn kept_outages(&self) -> Vec<Outage> {
        let answers = self.totals.answers();
        let log = self.outages.log.acquire();
        let standing = log.standing(answers).into_iter();
        standing.chain(log.ended().cloned()).collect()
    }

    /// Notes that an operator looks after the outage of this number. Returns false if it is not kept.
    pub(crate) fn acknowledge_outage(&self, id: u64, by: &str, note: &str) -> bool {
        let note = Acknowledgement {
            by: by.to_owned(),
            note: redact(note).into_owned(),
            at: self.clock.now(),
        };
        self.outages.log.acquire().acknowledge(id, note)
    }

    /// Returns true if an attempt of this class failed in a way that can begin an outage.
    #[inline]
    pub(super) fn is_failure(class: Class) -> bool {
        matches!(
            class,
            Class::Failure | Class::Throttled | Class::Misconfigured
        )
    }
}

fn probe_note(at: Time, succeeded: bool, text: String) -> ProbeNote {
    ProbeNote {
        at,
        succeeded,
        text,
    }
}
