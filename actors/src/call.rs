//! The way of one call: fallback( total deadline( retry with budget( breaker( bulkhead( attempt
//! timeout( worker)))))).
//!
//! The order is fixed (rule CALL-5); only the last resort goes past the breaker. Rate limits will
//! stand between breaker and bulkhead.

mod admit;

mod last_resort;
mod renew;
mod retry;

mod run;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox_policy::{AttemptEnd, Class, Time, WhileRestarting};

pub(crate) use renew::renew;
pub(crate) use run::run;

use crate::admission::{Admission, Settled};
use crate::bulkhead::Place;
use crate::client::{Answer, Core, Source};
use crate::dependency::{CallContext, Dependency, Route, Shared, Verdict};
use crate::error::{Absence, CallError, Refused};
use crate::event::EventKind;
use crate::gate::Mode;
use crate::reply::{TooLate, reply, timed_out};
use crate::totals::{Ending, Entry};
use crate::worker::{Duty, Work};
use admit::{absent, admit};
use retry::{Next, most_telling, pause, wait_before_next};

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

    fn by_breaker(refused: Refused) -> Self {
        Self {
            retry_after: refused.retry_after,
            error: CallError::Open(refused),
            end: AttemptEnd::RefusedByBreaker,
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
    if core.fallbacks.is_empty() && !last_resort::is_wanted(shared) {
        refuse_at_once(shared)?;
    }
    let entry = Entry::open(shared);
    let started = shared.clock.now();
    let deadline = deadline(shared, started, options.timeout);
    let mut kept = core.keeps_requests().then(|| request.clone());
    let (result, attempts) = match closed_to_new(shared) {
        None => primary(core, request, &mut kept, options, (started, deadline)).await,
        Some(reason) => (Err(Lost::refused(absent(shared, reason))), 0),
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
    let last = last_resort::request::<D>(shared, &lost, kept.as_ref());
    let own = options.timeout.map(|span| started.after(span));
    let served = match kept {
        Some(request) if may_fall_back(&lost) => core.fall_back(request, lost.error, own).await,
        _ => Err(lost.error),
    };
    let error = match served {
        Ok(fallback) => {
            entry.close(Ending::Fallback);
            return Ok(Answer {
                value: fallback.value,
                source: Source::Fallback(fallback.name),
                age: fallback.age,
                attempts,
                elapsed: shared.clock.now().since(started),
            });
        }
        Err(error) => error,
    };
    let ended = last_resort::answer(core, last, options, deadline, error).await;
    entry.close(match &ended {
        Ok(_) => Ending::Primary,
        Err(error) if error.is_refusal() => Ending::Refused,
        Err(_) => Ending::Failed,
    });
    ended.map(|value| Answer {
        value,
        source: Source::Primary,
        age: None,
        attempts: attempts + 1,
        elapsed: shared.clock.now().since(started),
    })
}

/// Why a call that was made just now is not to reach a worker. Those made before may go on, with
/// their retries.
fn closed_to_new(shared: &Shared) -> Option<Absence> {
    match shared.route() {
        Route::Workers | Route::Parked => None,
        Route::FallbackOnly => Some(Absence::FallbackOnly),
        Route::Draining | Route::Stopped => Some(Absence::ShuttingDown),
    }
}

/// The shortest way: nobody else answers, and nothing is to be waited for.
fn refuse_at_once<E>(shared: &Shared) -> Result<(), CallError<E>> {
    let waits = shared.settings.retry.on_open && shared.settings.retry.max_attempts.get() > 1;
    match shared.refuses() {
        Some(refused) if !waits => {
            shared.totals.submitted.fetch_add(1, Ordering::Release);
            shared.totals.refused.fetch_add(1, Ordering::Release);
            Err(CallError::Open(refused))
        }
        _ => Ok(()),
    }
}

/// The caller's own mistakes are never covered up (rule FBK-2).
fn may_fall_back<E>(lost: &Lost<E>) -> bool {
    !matches!(lost.error, CallError::Quarantined { .. })
        && lost.end != AttemptEnd::Ended(Class::Rejected)
}

/// For how long no fallback must have answered for an outage to be over, unless the breaker has
/// closed since. A dependency that fails every other call has one outage and one warning, not one
/// for each call.
const QUIET: Duration = Duration::from_secs(1);

/// Notes that the dependency answers by itself again.
fn end_outage(shared: &Shared) {
    if shared.outage.load(Ordering::Relaxed) != 0 {
        let last = Time::from_nanos(shared.last_fallback.load(Ordering::Relaxed));
        let gate = shared.gate.read();
        let has_closed = matches!(gate.mode(), Mode::Closed | Mode::Watchful)
            && gate.tag() != shared.last_fallback_tag.load(Ordering::Relaxed);
        if !has_closed && shared.clock.now().since(last) < QUIET {
            return;
        }
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
    (mut now, deadline): (Time, Option<Time>),
) -> (Result<D::Response, Lost<D::Error>>, u32) {
    let shared = &core.shared;
    if shared.settings.retry.max_attempts.get() == 1 {
        let result = attempt(core, request, options.fingerprint, 1, (now, deadline)).await;
        return (result, 1);
    }
    let idempotent = options
        .idempotent
        .unwrap_or_else(|| D::is_idempotent(&request));
    let mut next = request;
    let mut number = 1;
    let mut before = None;
    loop {
        let spare = kept.as_mut().map(|kept| kept.clone());
        let lost = match attempt(core, next, options.fingerprint, number, (now, deadline)).await {
            Ok(value) => return (Ok(value), number),
            Err(lost) => most_telling(before, lost),
        };
        let wait = match wait_before_next(shared, deadline, idempotent, number, &lost) {
            Next::After(wait) => wait,
            Next::Stop => return (Err(lost), number),
            Next::Opened(refused) => {
                let opened = Lost::by_breaker(refused);
                return (Err(most_telling(Some(lost), opened)), number);
            }
        };
        // Requests are kept whenever there may be another attempt.
        let Some(spare) = spare else {
            return (Err(lost), number);
        };
        pause(shared, wait).await;
        before = Some(lost);
        next = spare;
        number += 1;
        now = shared.clock.now();
    }
}

/// One attempt by a worker.
async fn attempt<D: Dependency>(
    core: &Arc<Core<D>>,
    request: D::Request,
    fingerprint: Option<u64>,
    number: u32,
    (sent, deadline): (Time, Option<Time>),
) -> Result<D::Response, Lost<D::Error>> {
    let shared = &core.shared;
    let fingerprint = fingerprint.or_else(|| D::fingerprint(&request));
    quarantine(shared, fingerprint).map_err(Lost::refused)?;
    let admitted = admit(shared, sent, deadline).await?;
    send(
        core,
        request,
        fingerprint,
        number,
        (sent, deadline),
        admitted,
    )
    .await
}

/// Hands an attempt that may go out to a worker, and waits for what comes of it.
async fn send<D: Dependency>(
    core: &Arc<Core<D>>,
    request: D::Request,
    fingerprint: Option<u64>,
    number: u32,
    (sent, deadline): (Time, Option<Time>),
    (admission, place): (Admission<&Shared>, Place<'_>),
) -> Result<D::Response, Lost<D::Error>> {
    let shared = &core.shared;
    let Some(worker) = core.pick() else {
        admission.release();
        let reason = shared.absence();
        let wait = core.back_in(shared.clock.now());
        return Err(Lost::refused(CallError::NotExecuted {
            dependency: Arc::clone(&shared.name),
            reason,
            retry_after: wait.filter(|_| reason == Absence::Restarting),
        }));
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
        CallError::Open(refused) => Lost::by_breaker(refused.clone()),
        CallError::Failed { error: own, .. } => {
            let verdict = D::classify(Err(own));
            Lost::failed(error, verdict)
        }
        CallError::NotExecuted {
            reason: Absence::Parked | Absence::ShuttingDown | Absence::FallbackOnly,
            ..
        } => Lost::refused(error),
        _ => Lost::failed(error, Verdict::from(Class::Failure)),
    }
}

/// Whether calls may wait for a worker that is being restarted.
pub(crate) fn holds(shared: &Shared) -> bool {
    shared.settings.workers.while_restarting == WhileRestarting::Hold
}
