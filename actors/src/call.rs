//! The way of one call: fallback( total deadline( retry with budget( breaker( rate limit( bulkhead(
//! attempt timeout( worker))))))).
//!
//! The order is fixed (rule CALL-5); only the last resort goes past the breaker. A hedge stands
//! around the breaker, inside of the retries.

#![allow(
    clippy::manual_async_fn,
    reason = "an async function moves its arguments once more than a block does"
)]

mod admit;

mod attempt;

mod hedge;

mod last_resort;

mod plan;

mod refresh;

mod retry;

mod run;

mod served;

mod stand_in;

mod stream;

use std::borrow::Borrow;
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox_policy::{AttemptEnd, Class, Priority, Symptom, Time, WhileRestarting};

pub(crate) use hedge::HedgeMember;
pub(crate) use plan::{Plan, least};
pub(crate) use refresh::refresh;
pub(crate) use run::run;
pub use served::Served;
pub(crate) use stand_in::run_with_fallback;
pub use stand_in::{Patience, Unanswered};
pub use stream::Streamed;
pub(crate) use stream::run_stream;

use crate::client::{Answer, AnswerSource, Core};
use crate::dependency::{Dependency, Route, Shared, Verdict};
use crate::error::{CallError, Fault, NotExecutedReason, Refused};
use crate::event::EventKind;
use crate::gate::Mode;
use crate::session::Session;
use crate::totals::{CallRecord, CallResult};
use admit::absent;
use attempt::attempt;
use hedge::hedged;
use retry::RetryState;

/// What one call asks beyond its dependency's settings.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// Time for the whole call; the dependency's own total timeout, and the deadline of a call
    /// that this one is made for, can only shorten it.
    pub timeout: Option<Duration>,
    /// Whether it may be executed twice; `None` leaves it to the dependency.
    pub idempotent: Option<bool>,
    /// Its fingerprint for the quarantine; `None` leaves it to the dependency.
    pub fingerprint: Option<u64>,
    /// How much it matters beside others that wait for a place.
    pub priority: Priority,
    /// Whether it takes a place among the writes (rule LIM-3); `None` leaves it to the dependency,
    /// and a closure is none then.
    pub write: Option<bool>,
    /// Whose breaker it goes by; `None` leaves it to the dependency.
    pub key: Option<Arc<str>>,
    /// How much of the rate limit it takes; `None` leaves it to the dependency.
    pub weight: Option<NonZeroU32>,
    /// What it is paid from; `None` for nothing.
    pub session: Option<Session>,
}

impl CallOptions {
    /// What a call without options goes by; nothing is moved or dropped for it.
    pub(crate) const fn usual() -> &'static Self {
        static USUAL: CallOptions = CallOptions {
            timeout: None,
            idempotent: None,
            fingerprint: None,
            priority: Priority::Normal,
            write: None,
            key: None,
            weight: None,
            session: None,
        };
        &USUAL
    }
}

/// An attempt that gave no answer.
struct FailedAttempt<E> {
    error: CallError<E>,
    end: AttemptEnd,
    retry_after: Option<Duration>,
    symptom: Option<Symptom>,
}

/// On the heap from the start: few attempts are lost, and every one hands its result on.
impl<E> FailedAttempt<E> {
    fn refused(error: CallError<E>) -> Box<Self> {
        Box::new(Self {
            end: AttemptEnd::RefusedLocally,
            retry_after: None,
            symptom: None,
            error,
        })
    }

    fn by_breaker(refused: Refused) -> Box<Self> {
        Box::new(Self {
            retry_after: refused.retry_after,
            error: CallError::Open(refused),
            symptom: None,
            end: AttemptEnd::RefusedByBreaker,
        })
    }

    #[cold]
    fn failed(error: CallError<E>, verdict: &Verdict) -> Box<Self> {
        Box::new(Self {
            end: AttemptEnd::Ended(verdict.class),
            retry_after: verdict.retry_after,
            symptom: verdict.symptom,
            error,
        })
    }
}

/// A dependency's answer, and when it was booked.
struct Completed<T> {
    value: T,
    at: Time,
}

/// What one attempt came to, or all of them.
type Attempted<D> =
    Result<Completed<<D as Dependency>::Response>, Box<FailedAttempt<<D as Dependency>::Error>>>;

/// Makes a call and answers it, one way or another.
///
/// # Cancel safety   Dropped before a worker began, it costs the dependency nothing; dropped
/// later, the work is dropped too. Either way it is counted as cancelled.
pub(crate) fn ask<D: Dependency, O: Borrow<CallOptions>>(
    core: &Arc<Core<D>>,
    request: D::Request,
    options: O,
) -> impl Future<Output = Result<Answer<D::Response>, CallError<D::Error>>> {
    async move {
        let shared = &core.shared;
        if core.fallbacks.is_empty() {
            let keyed = options.borrow().key.is_some() || D::key(&request).is_some();
            if let Some(refused) = refuse_at_once(shared, keyed) {
                return Err(CallError::Open(refused));
            }
        }
        let entry = CallRecord::open(&**shared);
        let plan = Plan::of_request::<D>(shared, options.borrow(), &request);
        let again = plan.max_attempts > 1 || plan.is_hedged || plan.last_resort;
        let mut kept = (again || !core.fallbacks.is_empty()).then(|| request.clone());
        let (result, attempts) = match closed_to_new(shared) {
            None => primary(core, request, &mut kept, &plan).await,
            Some(reason) => (Err(FailedAttempt::refused(absent(shared, reason))), 0),
        };
        match result {
            Ok(Completed { value, at }) => {
                if let Some(request) = kept.as_ref().filter(|_| !plan.ticket.write) {
                    core.fallbacks.remember(request, &value, at);
                }
                end_outage(shared);
                entry.close(CallResult::Primary);
                Ok(Answer {
                    value,
                    source: AnswerSource::Primary,
                    age: None,
                    attempts,
                    elapsed: at.since(plan.started),
                })
            }
            // On the heap: what few calls come to must not make every call's future larger.
            Err(lost) => Box::pin(unanswered(core, &plan, kept, (lost, attempts), entry)).await,
        }
    }
}

/// Ends a call that the dependency has not answered: somebody stands in, or there is one attempt
/// left past the breaker, or it has failed.
async fn unanswered<D: Dependency>(
    core: &Arc<Core<D>>,
    plan: &Plan<'_>,
    kept: Option<D::Request>,
    (lost, attempts): (Box<FailedAttempt<D::Error>>, u32),
    entry: CallRecord<&Shared>,
) -> Result<Answer<D::Response>, CallError<D::Error>> {
    let shared = &core.shared;
    shared.counts.refuse(&lost.error);
    let last = last_resort::request::<D>(plan, &lost, kept.as_ref());
    let served = match kept {
        Some(request) if may_fall_back(&lost) => {
            let asked = (request, plan.ticket.write);
            core.fall_back(asked, lost.error, plan.callers).await
        }
        _ => Err(lost.error),
    };
    let error = match served {
        Ok(fallback) => {
            entry.close(CallResult::Fallback);
            return Ok(Answer {
                value: fallback.value,
                source: AnswerSource::Fallback(fallback.name),
                age: fallback.age,
                attempts,
                elapsed: shared.clock.now().since(plan.started),
            });
        }
        Err(error) => error,
    };
    let ended = last_resort::answer(core, last, plan, error).await;
    entry.close(match &ended {
        Ok(_) => CallResult::Primary,
        Err(error) if error.is_refusal() => CallResult::Refused,
        Err(_) => CallResult::Failed,
    });
    ended.map(|value| Answer {
        value,
        source: AnswerSource::Primary,
        age: None,
        attempts: attempts + 1,
        elapsed: shared.clock.now().since(plan.started),
    })
}

/// Why a call that was made just now is not to reach a worker. Those made before may go on, with
/// their retries.
#[inline]
fn closed_to_new(shared: &Shared) -> Option<NotExecutedReason> {
    match shared.route() {
        Route::Workers | Route::Parked => None,
        Route::FallbackOnly => Some(NotExecutedReason::FallbackOnly),
        Route::Draining | Route::Stopped => Some(NotExecutedReason::ShuttingDown),
    }
}

/// The shortest way: nobody else answers, and nothing is to be waited for.
#[inline(always)]
fn refuse_at_once(shared: &Shared, keyed: bool) -> Option<Refused> {
    let shut = shared.refuses(None)?;
    // A key goes by its own breaker, unless somebody's word lies over all of them.
    if keyed && !shut.is_forced() {
        return None;
    }
    let terms = shared.terms();
    if terms.waits_on_open || terms.last_resort {
        return None;
    }
    shared.totals.refuse_at_once();
    Some(shut.refusal())
}

/// The caller's own mistakes are never covered up (rule FBK-2).
fn may_fall_back<E>(lost: &FailedAttempt<E>) -> bool {
    lost.error.fault() != Fault::Caller && lost.end != AttemptEnd::Ended(Class::Rejected)
}

/// For how long no fallback must have answered for an outage to be over, unless the breaker has
/// closed since. A dependency that fails every other call has one outage and one warning, not one
/// for each call.
const QUIET: Duration = Duration::from_secs(1);

/// Notes that the dependency answers by itself again.
fn end_outage(shared: &Shared) {
    if shared.outage.load(Ordering::Relaxed) != 0 {
        let last = Time::from_nanos(shared.last_fallback.load(Ordering::Relaxed));
        let gate = shared.circuit.gate.read();
        let has_closed = matches!(gate.mode(), Mode::Closed | Mode::ClosedReportAll)
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

/// Tries the dependency as often as its settings allow; says how often that was, hedges included.
///
/// `kept` is there whenever there may be more than one attempt.
fn primary<D: Dependency>(
    core: &Arc<Core<D>>,
    request: D::Request,
    kept: &mut Option<D::Request>,
    plan: &Plan<'_>,
) -> impl Future<Output = (Attempted<D>, u32)> {
    async move {
        let shared = &core.shared;
        let mut first = Some(request);
        // By a reference that is nobody else's: a request need not be one that threads may share.
        let mut next = || {
            let again = || kept.as_mut().map(|kept| kept.clone());
            first.take().or_else(again)
        };
        let mut sent = 0;
        let mut tries = RetryState::new(plan.started);
        loop {
            let asked = tries.began();
            let ended = if plan.is_hedged {
                let one_more = |race: HedgeMember| {
                    let request = next()?;
                    sent += 1;
                    let began = if race.is_hedge() {
                        shared.clock.now()
                    } else {
                        asked
                    };
                    Some(attempt(core, request, plan, (sent, began), race))
                };
                Box::pin(hedged(shared, plan, one_more)).await
            } else if let Some(request) = next() {
                sent += 1;
                Some(attempt(core, request, plan, (sent, asked), HedgeMember::default()).await)
            } else {
                // A request that there is none of any more is tried no more.
                None
            };
            let lost = match ended {
                Some(Ok(done)) => return (Ok(done), sent),
                Some(Err(lost)) => Some(lost),
                None => None,
            };
            if let Err(lost) = Box::pin(tries.next(shared, plan, lost)).await {
                return (Err(lost), sent);
            }
        }
    }
}

fn nothing_left<E>(
    shared: &Shared,
    before: Option<Box<FailedAttempt<E>>>,
) -> Box<FailedAttempt<E>> {
    before.unwrap_or_else(|| FailedAttempt::refused(absent(shared, shared.absence())))
}

/// Whether calls may wait for a worker that is being restarted.
pub(crate) fn holds(shared: &Shared) -> bool {
    shared.settings().workers.while_restarting == WhileRestarting::Hold
}
