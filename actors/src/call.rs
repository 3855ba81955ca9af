//! The way of one call: fallback( total deadline( retry with budget( breaker( bulkhead( attempt
//! timeout( worker)))))).
//!
//! The order is fixed (rule CALL-5). Rate limits will stand between breaker and bulkhead.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use breakerbox_policy::{
    Attempt, AttemptEnd, Class, Executed, Retry, RetryDecision, Time, WhileRestarting,
};

use crate::admission::{Admission, Passage, Settled};
use crate::bulkhead::{NoPlace, Place};
use crate::client::{Answer, Core, Source};
use crate::clock::random;
use crate::dependency::{CallContext, Dependency, Route, Shared, Verdict};
use crate::error::{Absence, CallError, Refused};
use crate::event::EventKind;
use crate::reply::{TooLate, bounded, reply, timed_out};
use crate::totals::{Ending, Entry};
use crate::worker::{Duty, Work};

/// What one call asks beyond its dependency's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// Time for the whole call; the dependency's own total timeout can only shorten it.
    pub timeout: Option<Duration>,
    /// Whether it may be executed twice; `None` leaves it to the dependency.
    pub idempotent: Option<bool>,
    /// Its fingerprint for the quarantine; `None` leaves it to the dependency.
    pub fingerprint: Option<u64>,
}

/// An attempt that gave no answer.
struct Lost<E> {
    error: CallError<E>,
    end: AttemptEnd,
    retry_after: Option<Duration>,
}

impl<E> Lost<E> {
    fn refused(error: CallError<E>) -> Self {
        Self {
            end: AttemptEnd::RefusedLocally,
            retry_after: None,
            error,
        }
    }

    fn failed(error: CallError<E>, verdict: Verdict) -> Self {
        Self {
            end: AttemptEnd::Ended(verdict.class),
            retry_after: verdict.retry_after,
            error,
        }
    }
}

/// Makes a call and answers it, one way or another.
///
/// # Cancel safety   Dropped before a worker began, it costs the dependency nothing; dropped
/// later, the work is dropped too. Either way it is counted as cancelled.
pub(crate) async fn ask<D: Dependency>(
    core: &Arc<Core<D>>,
    request: D::Request,
    options: CallOptions,
) -> Result<Answer<D::Response>, CallError<D::Error>> {
    let shared = &core.shared;
    let entry = Entry::open(shared);
    let started = shared.clock.now();
    let deadline = deadline(shared, started, options.timeout);
    let mut kept = core.keeps_requests().then(|| request.clone());
    let (result, attempts) = match come_in(shared) {
        Ok(()) => primary(core, request, &mut kept, options, deadline).await,
        Err(refused) => (Err(refused), 1),
    };
    let lost = match result {
        Ok(value) => {
            if let Some(request) = &kept {
                core.fallbacks.remember(request, &value, shared.clock.now());
            }
            end_outage(shared);
            entry.close(Ending::Primary);
            return Ok(Answer {
                value,
                source: Source::Primary,
                age: None,
                attempts,
                elapsed: shared.clock.now().since(started),
            });
        }
        Err(lost) => lost,
    };
    let refused = lost.error.is_refusal();
    let served = match kept {
        Some(request) if may_fall_back(&lost) => core.fall_back(request, lost.error).await,
        _ => Err(lost.error),
    };
    match served {
        Ok(fallback) => {
            entry.close(Ending::Fallback);
            Ok(Answer {
                value: fallback.value,
                source: Source::Fallback(fallback.name),
                age: fallback.age,
                attempts,
                elapsed: shared.clock.now().since(started),
            })
        }
        Err(error) => {
            entry.close(if refused {
                Ending::Refused
            } else {
                Ending::Failed
            });
            Err(error)
        }
    }
}

/// Takes no new call while the dependency drains (rule SUP-7); those that came before go on.
fn come_in<E>(shared: &Shared) -> Result<(), Lost<E>> {
    match shared.route() {
        Route::Draining => Err(Lost::refused(absent(shared, Absence::ShuttingDown))),
        _ => Ok(()),
    }
}

/// The caller's own mistakes are never covered up (rule FBK-2).
fn may_fall_back<E>(lost: &Lost<E>) -> bool {
    !matches!(lost.error, CallError::Quarantined { .. })
        && lost.end != AttemptEnd::Ended(Class::Rejected)
}

/// Notes that the dependency answers by itself again.
fn end_outage(shared: &Shared) {
    if shared.outage.load(Ordering::Relaxed) != 0 {
        let served = shared.outage.swap(0, Ordering::Relaxed);
        if served > 0 {
            let kind = EventKind::FallbackOver { served };
            shared.events.emit(&shared.name, kind);
        }
    }
}

fn deadline(shared: &Shared, started: Time, timeout: Option<Duration>) -> Option<Time> {
    let span = match (timeout, shared.settings.timeout.total) {
        (Some(own), Some(total)) => Some(own.min(total)),
        (own, total) => own.or(total),
    };
    span.map(|span| started.after(span))
}

/// Tries the dependency as often as its settings allow; says how often that was.
async fn primary<D: Dependency>(
    core: &Arc<Core<D>>,
    request: D::Request,
    kept: &mut Option<D::Request>,
    options: CallOptions,
    deadline: Option<Time>,
) -> (Result<D::Response, Lost<D::Error>>, u32) {
    let shared = &core.shared;
    if shared.settings.retry.max_attempts.get() == 1 {
        let result = attempt(core, request, options.fingerprint, 1, deadline).await;
        return (result, 1);
    }
    let idempotent = options
        .idempotent
        .unwrap_or_else(|| D::is_idempotent(&request));
    let mut next = request;
    let mut number = 1;
    loop {
        let spare = kept.as_mut().map(|kept| kept.clone());
        let lost = match attempt(core, next, options.fingerprint, number, deadline).await {
            Ok(value) => return (Ok(value), number),
            Err(lost) => lost,
        };
        // Requests are kept whenever there may be another attempt.
        let Some(spare) = spare else {
            return (Err(lost), number);
        };
        match wait_before_next(shared, deadline, idempotent, number, lost) {
            Ok(wait) => pause(shared, wait).await,
            Err(lost) => return (Err(lost), number),
        }
        next = spare;
        number += 1;
    }
}

/// Decides whether there is another attempt (rule LIM-4), and how long to wait for it.
fn wait_before_next<E>(
    shared: &Arc<Shared>,
    deadline: Option<Time>,
    idempotent: bool,
    number: u32,
    lost: Lost<E>,
) -> Result<Duration, Lost<E>> {
    let settings = &shared.settings.retry;
    if settings.max_attempts.get() == 1 {
        return Err(lost);
    }
    let attempt = Attempt {
        number,
        end: lost.end,
        executed: lost.error.executed(),
        idempotent,
        retry_after: lost.retry_after,
    };
    let now = shared.clock.now();
    let decision = {
        let mut budget = shared.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = budget.as_mut() {
            let submitted = shared.totals.submitted.load(Ordering::Relaxed);
            let calls = submitted.saturating_sub(budget.deposited);
            budget.kernel.deposit(now, calls);
            budget.deposited = submitted;
        }
        let budget = budget.as_mut().map(|budget| &mut budget.kernel);
        Retry::new(settings, deadline).decide(now, &attempt, budget, &mut random())
    };
    let RetryDecision::Again { after } = decision else {
        return Err(lost);
    };
    if !settings.on_open
        && let Passage::Refused(refused) = shared.pass(now, deadline)
    {
        // It opened meanwhile, perhaps by this very call: waiting would be for nothing.
        return Err(Lost::refused(CallError::Open(refused)));
    }
    Ok(after)
}

async fn pause(shared: &Shared, wait: Duration) {
    if !wait.is_zero() {
        let until = shared.clock.now().after(wait);
        shared.clock.sleep_until(until).await;
    }
}

/// Breaker, then bulkhead. Whatever is refused further in gives the permit back.
async fn admit<E>(
    shared: &Shared,
    now: Time,
    deadline: Option<Time>,
) -> Result<(Admission<&Shared>, Place<'_>), Lost<E>> {
    if shared.route() == Route::Stopped {
        return Err(Lost::refused(absent(shared, Absence::ShuttingDown)));
    }
    let refused = |refused: Refused| Lost {
        retry_after: refused.retry_after,
        error: CallError::Open(refused),
        end: AttemptEnd::RefusedByBreaker,
    };
    let held = match shared.pass(now, deadline) {
        Passage::Granted(held) => Some(held),
        Passage::AskBreaker => {
            // The breaker's thread may be blocked: the deadline holds all the same.
            let ask = shared.ask_for_permit(deadline);
            let Some(asked) = bounded(&shared.clock, deadline, ask).await else {
                return Err(Lost::refused(no_place(shared, NoPlace::Deadline)));
            };
            asked.map_err(refused)?.into_held()
        }
        Passage::Refused(why) => return Err(refused(why)),
    };
    let Some(held) = held else {
        // An admission that was just given holds its permit.
        return Err(Lost::refused(absent(shared, shared.absence())));
    };
    let admission = Admission::new(shared, held);
    let place = match shared.bulkhead.try_enter() {
        Some(place) => Ok(place),
        None => shared.bulkhead.enter(&shared.clock, deadline).await,
    };
    match place {
        Ok(place) => Ok((admission, place)),
        Err(reason) => {
            admission.release();
            Err(Lost::refused(no_place(shared, reason)))
        }
    }
}

fn no_place<E>(shared: &Shared, reason: NoPlace) -> CallError<E> {
    let dependency = Arc::clone(&shared.name);
    match reason {
        NoPlace::Overloaded => CallError::Overloaded {
            dependency,
            max_concurrent: shared.bulkhead.max_concurrent(),
            max_queue: shared.bulkhead.max_queue(),
        },
        NoPlace::Deadline => CallError::TimedOut {
            dependency,
            after: Duration::ZERO,
            executed: Executed::No,
        },
    }
}

fn absent<E>(shared: &Shared, reason: Absence) -> CallError<E> {
    CallError::NotExecuted {
        dependency: Arc::clone(&shared.name),
        reason,
        retry_after: None,
    }
}

/// One attempt by a worker.
async fn attempt<D: Dependency>(
    core: &Arc<Core<D>>,
    request: D::Request,
    fingerprint: Option<u64>,
    number: u32,
    deadline: Option<Time>,
) -> Result<D::Response, Lost<D::Error>> {
    let shared = &core.shared;
    let fingerprint = fingerprint.or_else(|| D::fingerprint(&request));
    quarantine(shared, fingerprint).map_err(Lost::refused)?;
    let sent = shared.clock.now();
    let (admission, place) = admit(shared, sent, deadline).await?;
    let Some(worker) = core.pick() else {
        admission.release();
        let absence = shared.absence();
        return Err(Lost::refused(absent(shared, absence)));
    };
    shared.totals.attempts.fetch_add(1, Ordering::Relaxed);
    let Some(held) = admission.into_held() else {
        return Err(Lost::refused(absent(shared, shared.absence())));
    };
    let (replier, waiting) = reply(Arc::clone(shared), held, deadline, !worker.is_here());
    place.hand_over();
    worker.queue.push(Work {
        request,
        context: CallContext {
            shared: Arc::clone(shared),
            attempt: number,
            deadline,
        },
        fingerprint,
        duty: Duty::new(replier),
    });
    match waiting.await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(lost_by::<D>(error)),
        Err(too_late) => Err(give_up(shared, too_late, sent).await),
    }
}

fn quarantine<E>(shared: &Shared, fingerprint: Option<u64>) -> Result<(), CallError<E>> {
    let refused = fingerprint
        .zip(shared.quarantine.as_ref())
        .and_then(|(fingerprint, table)| table.refuses(fingerprint, shared.clock.now()));
    match refused {
        None => Ok(()),
        Some(retry_after) => Err(CallError::Quarantined {
            dependency: Arc::clone(&shared.name),
            retry_after,
        }),
    }
}

/// The caller's clock ran out: counted, like every outcome, before anyone hears of it.
async fn give_up<E>(shared: &Arc<Shared>, too_late: TooLate, sent: Time) -> Lost<E> {
    let now = shared.clock.now();
    if let Some(admission) = too_late.admission
        && let Settled::Owed(report) = admission.settle(timed_out(), now)
    {
        shared.report_and_wait(report).await;
    }
    let error = CallError::TimedOut {
        dependency: Arc::clone(&shared.name),
        after: now.since(sent),
        executed: too_late.executed,
    };
    Lost::failed(error, timed_out())
}

fn lost_by<D: Dependency>(error: CallError<D::Error>) -> Lost<D::Error> {
    match &error {
        CallError::Failed { error: own, .. } => {
            let verdict = D::classify(Err(own));
            Lost::failed(error, verdict)
        }
        CallError::NotExecuted {
            reason: Absence::Parked | Absence::ShuttingDown,
            ..
        } => Lost::refused(error),
        _ => Lost::failed(error, Verdict::from(Class::Failure)),
    }
}

/// Runs a closure under the same breaker and limits, in the caller's own task.
///
/// # Cancel safety   Dropped, the closure's future is dropped; counted as cancelled.
pub(crate) async fn run<T, E, F>(
    shared: &Arc<Shared>,
    options: CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    mut work: impl FnMut() -> F,
) -> Result<T, CallError<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let entry = Entry::open(shared);
    if let Err(refused) = come_in(shared) {
        entry.close(Ending::Refused);
        return Err(refused.error);
    }
    let deadline = deadline(shared, shared.clock.now(), options.timeout);
    let idempotent = options.idempotent.unwrap_or(false);
    let mut number = 1;
    let error = loop {
        let lost = match run_once(shared, deadline, &classify, &mut work).await {
            Ok(value) => {
                entry.close(Ending::Primary);
                return Ok(value);
            }
            Err(lost) => lost,
        };
        match wait_before_next(shared, deadline, idempotent, number, lost) {
            Ok(wait) => pause(shared, wait).await,
            Err(lost) => break lost.error,
        }
        number += 1;
    };
    entry.close(if error.is_refusal() {
        Ending::Refused
    } else {
        Ending::Failed
    });
    Err(error)
}

async fn run_once<T, E, F>(
    shared: &Arc<Shared>,
    deadline: Option<Time>,
    classify: &impl Fn(&Result<T, E>) -> Verdict,
    work: &mut impl FnMut() -> F,
) -> Result<T, Lost<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let asked = shared.clock.now();
    let (mut admission, place) = admit(shared, asked, deadline).await?;
    shared.totals.attempts.fetch_add(1, Ordering::Relaxed);
    let began = shared.clock.now();
    admission.begin(began);
    let attempt = shared
        .settings
        .timeout
        .attempt
        .map(|span| began.after(span));
    let until = match (attempt, deadline) {
        (Some(attempt), Some(total)) => Some(attempt.min(total)),
        (one, other) => one.or(other),
    };
    // Some futures do their work while they are made, so not before there is a permit.
    let result = bounded(&shared.clock, until, work()).await;
    let now = shared.clock.now();
    let verdict = result.as_ref().map_or_else(timed_out, classify);
    drop(place);
    if let Settled::Owed(report) = admission.settle(verdict, now) {
        shared.report_and_wait(report).await;
    }
    let dependency = Arc::clone(&shared.name);
    match result {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => {
            let error = CallError::Failed { dependency, error };
            Err(Lost::failed(error, verdict))
        }
        None => {
            let error = CallError::TimedOut {
                dependency,
                after: now.since(began),
                executed: Executed::Maybe,
            };
            Err(Lost::failed(error, verdict))
        }
    }
}

/// Whether calls may wait for a worker that is being restarted.
pub(crate) fn holds(shared: &Shared) -> bool {
    shared.settings.workers.while_restarting == WhileRestarting::Hold
}
