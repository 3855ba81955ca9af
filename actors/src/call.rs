//! The layers around one call, from the fallbacks to the worker.
//!
//! Their order is fixed (rule CALL-5; docs/layers.md); only the last resort bypasses the breaker. Hedging is outside
//! of the breaker and inside of the retries. [`drive`] holds the loop and the frame of an attempt
//! for all kinds of calls.

#![allow(
    clippy::manual_async_fn,
    reason = "an async function moves its arguments once more than a block does"
)]

pub(crate) mod core;

mod admit;

mod attempt;

mod attribute_fallback;

mod drive;

pub(crate) mod failed_attempt;

mod hedge;

mod last_resort;

mod plan;

mod refresh;

mod retry;

mod run;

mod run_mut;

mod stream;

mod stream_fallback;

use std::borrow::Borrow;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use breakerbox_policy::{Time, WhileRestarting};

pub use attribute_fallback::{Patience, Unanswered};
pub(crate) use attribute_fallback::{run_mut_with_fallback, run_with_fallback};
pub(crate) use refresh::refresh;
pub(crate) use run::{run, run_once};
pub(crate) use run_mut::run_mut;
pub use stream::Streamed;
pub(crate) use stream::run_stream;
pub use stream_fallback::Served;
pub(crate) use stream_fallback::stream_or_answer;

use self::core::DependencyCore;
use crate::answer::{Answer, AnswerSource};
use crate::breaker::gate::GateMode;
use crate::breaker::gate_decision::refusing_gate;
use crate::breaker::hedge_member::HedgeMember;
use crate::breaker::message::{AnswerFuture, Call, CallMaker};
use crate::call_options::CallOptions;
use crate::deadline::{self, CallScope};
use crate::dependency::Dependency;
use crate::error::{CallError, NotExecutedReason, Refused};
use crate::event::EventKind;
use crate::fallback::FallbackSet;
use crate::state::call_record::{CallRecord, CallResult};
use crate::state::{Route, Shared};
use attempt::attempt;
use drive::{FailedRound, drive};
use failed_attempt::{CountedAt, FailedAttempt};
use hedge::hedged;
use plan::CallPlan;

/// A dependency's answer, and the time at which it was counted.
struct CompletedCall<T> {
    value: T,
    at: CountedAt,
}

/// Result of one attempt, or of all of them.
type Attempted<D> = Result<
    CompletedCall<<D as Dependency>::Response>,
    Box<FailedAttempt<<D as Dependency>::Response, <D as Dependency>::Error>>,
>;

/// Makes a call and answers it.
///
/// # Cancel safety   Dropped before a worker began, it costs the dependency nothing; dropped
/// later, the work is dropped too. Either way it is counted as cancelled.
pub(crate) fn ask<D: Dependency, O: Borrow<CallOptions>>(
    core: &Arc<DependencyCore<D>>,
    request: D::Request,
    options: O,
) -> impl Future<Output = Result<Answer<D::Response>, CallError<D::Error>>> {
    ask_noting(core, request, options, |_: &CallError<D::Error>| ())
}

/// Makes a call as [`ask`] does. `note_bad` is told why, if the answer counts as a failure and is
/// given for want of a better one.
pub(crate) fn ask_noting<D: Dependency, O: Borrow<CallOptions>>(
    core: &Arc<DependencyCore<D>>,
    request: D::Request,
    options: O,
    note_bad: impl FnOnce(&CallError<D::Error>),
) -> impl Future<Output = Result<Answer<D::Response>, CallError<D::Error>>> {
    async move {
        let shared = &core.shared;
        if core.fallbacks.is_empty() {
            let has_key =
                || options.borrow().key.is_some() || request_has_key::<D>(shared, &request);
            if let Some(refused) = refuse_at_once(shared, has_key) {
                return Err(CallError::Open(refused));
            }
        }
        let mut record = CallRecord::open(&**shared);
        let plan = CallPlan::of_request::<D>(shared, options.borrow(), &request);
        let again = plan.may_ask_again();
        let version = core.fallbacks.version();
        let begun_with = core.fallbacks.of_call();
        let falls_back = begun_with.is_some() || !core.fallbacks.is_empty();
        let mut kept = (again || falls_back).then(|| request.clone());
        let (result, attempts) = ask_workers(core, request, &mut kept, &plan).await;
        match result {
            Ok(CompletedCall { value, at }) => {
                let remembered = kept.as_ref().filter(|_| !plan.ticket.write);
                if let Some(request) = remembered.filter(|_| at.is_success()) {
                    core.fallbacks.remember(version, request, &value, at.time());
                }
                end_outage(shared);
                if !at.is_success() {
                    record.set_neutral();
                }
                record.close_at(CallResult::Primary, at.time());
                Ok(Answer {
                    value,
                    source: AnswerSource::Primary,
                    age: None,
                    attempts,
                    elapsed: at.time().since(plan.started),
                })
            }
            // Boxed: the future of every call would be larger for what few calls need.
            Err(mut failed) => {
                failed.note_end(shared, &plan, &mut record);
                let ended = Box::pin(answer_otherwise(
                    core,
                    &plan,
                    (kept, begun_with),
                    (failed, attempts),
                    (record, note_bad),
                ));
                ended.await.map_err(|(error, record)| {
                    record.close_failed(&error);
                    error
                })
            }
        }
    }
}

/// The last attempt of a call that has no primary answer.
type FailedLast<D> = Box<FailedAttempt<<D as Dependency>::Response, <D as Dependency>::Error>>;

/// Ends a call without a primary answer: by a fallback, by one attempt past the breaker, or with
/// its error. The caller closes the record of a call that ends with its error.
async fn answer_otherwise<D: Dependency, S: std::ops::Deref<Target = Shared>>(
    core: &Arc<DependencyCore<D>>,
    plan: &CallPlan<'_>,
    (kept, begun_with): (Option<D::Request>, Option<Arc<FallbackSet<D>>>),
    (mut failed, attempts): (FailedLast<D>, u32),
    (record, note_bad): (CallRecord<S>, impl FnOnce(&CallError<D::Error>)),
) -> Result<Answer<D::Response>, (CallError<D::Error>, CallRecord<S>)> {
    let shared = &core.shared;
    let answer = |value, source, age, attempts| Answer {
        value,
        source,
        age,
        attempts,
        elapsed: shared.clock.now().since(plan.started),
    };
    let own = failed.answer.take();
    let last = last_resort::request::<D>(plan, &failed, kept.as_ref());
    let served = match kept {
        Some(request) if failed.may_fall_back() => {
            let asked = (request, plan.ticket.write);
            core.fall_back(begun_with, asked, failed.error, plan.caller_deadline)
                .await
        }
        _ => Err((failed.error, None)),
    };
    let (error, spare) = match served {
        Ok(fallback) => {
            record.close(CallResult::Fallback);
            let source = AnswerSource::Fallback(fallback.name);
            return Ok(answer(fallback.value, source, fallback.age, attempts));
        }
        Err(unserved) => unserved,
    };
    let (error, late) = match last_resort::answer(core, last, plan, error).await {
        Ok(value) => {
            record.close(CallResult::Primary);
            return Ok(answer(value, AnswerSource::Primary, None, attempts + 1));
        }
        Err(unanswered) => unanswered,
    };
    // CALL-8: an answer that counts as a failure is given only where there is no better one.
    let bad = match own.or(late) {
        Some(value) => answer(value, AnswerSource::Primary, None, attempts),
        None => match spare {
            Some(spare) => {
                let source = AnswerSource::Fallback(spare.name);
                answer(spare.value, source, spare.age, attempts)
            }
            None => return Err((error, record)),
        },
    };
    note_bad(&error);
    record.close(CallResult::Failed);
    Ok(bad)
}

impl<D: Dependency> CallMaker<D> for DependencyCore<D> {
    fn make(self: Arc<Self>, call: Call<D>) -> AnswerFuture<D> {
        Box::pin(async move {
            let options = call.options.as_deref().unwrap_or(CallOptions::usual());
            let mut asked = pin!(ask(&self, call.request, options));
            poll_fn(|cx| deadline::within(call.around, || asked.as_mut().poll(cx))).await
        })
    }

    fn fallback_time(&self) -> Option<Duration> {
        if self.fallbacks.is_empty() {
            return Some(Duration::ZERO);
        }
        self.fallbacks.max_time(&self.shared)
    }
}

/// Returns the reason why a call that is made now must not reach a worker. Calls made before may go
/// on, with their retries.
#[inline]
fn closed_to_new(shared: &Shared) -> Option<NotExecutedReason> {
    match shared.route() {
        Route::Workers | Route::Parked => None,
        Route::FallbackOnly => Some(NotExecutedReason::FallbackOnly),
        // CALL-10: what accepted work asks for further in counts as accepted.
        Route::Draining if CallScope::present().is_accepted_by(shared.events.runtime()) => None,
        Route::Draining | Route::Stopped => Some(NotExecutedReason::ShuttingDown),
    }
}

/// Returns true if a request has a key by the dependency's own function. A call that ends by a panic
/// of this function is counted as cancelled.
#[cold]
fn request_has_key<D: Dependency>(shared: &Shared, request: &D::Request) -> bool {
    let asked = catch_unwind(AssertUnwindSafe(|| D::key(request).is_some()));
    asked.unwrap_or_else(|panic| {
        // CALL-1: no call was counted yet.
        drop(CallRecord::open(shared));
        resume_unwind(panic)
    })
}

/// Refuses a call before anything else, if no fallback could answer and no setting makes it wait.
/// `has_key` is asked only while the dependency's own breaker refuses.
#[inline(always)]
fn refuse_at_once(shared: &Shared, has_key: impl FnOnce() -> bool) -> Option<Refused> {
    let refusing = refusing_gate(shared, None)?;
    // A key has its own breaker, unless an override holds for all of them.
    if !refusing.is_forced() && has_key() {
        return None;
    }
    let settings = shared.call_settings();
    if settings.waits_on_open || settings.last_resort {
        return None;
    }
    shared.totals.count_refused_at_once(refusing.now());
    Some(refusing.refusal())
}

/// Time without a fallback answer after which an outage is over, unless the breaker has closed
/// since. A dependency that fails every other call then has one outage and one warning, not one for
/// each call.
const QUIET: Duration = Duration::from_secs(1);

/// Notes an answer of the dependency itself, which may end an outage.
fn end_outage(shared: &Shared) {
    if shared.outage.load(Ordering::Relaxed) != 0 {
        let last = Time::from_nanos(shared.last_fallback.load(Ordering::Relaxed));
        let gate = shared.breaker.gate.read();
        let has_closed = matches!(gate.mode(), GateMode::Closed | GateMode::ClosedReportAll)
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

/// Asks the workers as often as the settings allow. Returns the number of attempts too, hedges
/// included.
///
/// `kept` is there whenever there may be more than one attempt.
fn ask_workers<'a, D: Dependency>(
    core: &'a Arc<DependencyCore<D>>,
    request: D::Request,
    kept: &'a mut Option<D::Request>,
    plan: &'a CallPlan<'_>,
) -> impl Future<Output = (Attempted<D>, u32)> {
    async move {
        let mut requests = NextRequest::<D> {
            first: Some(request),
            kept,
            taken: 0,
        };
        let result = drive(
            &core.shared,
            plan,
            &mut requests,
            |requests, asked_at| async move {
                let ended = if plan.is_hedged {
                    let next = |member, asked_at| {
                        let (number, request) = requests.take()?;
                        Some(attempt(core, request, plan, (number, asked_at), member))
                    };
                    Box::pin(hedged(&core.shared, plan, asked_at, next)).await
                } else if let Some((number, request)) = requests.take() {
                    // Made where it is awaited: a future in an option takes its place twice.
                    let member = HedgeMember::default();
                    Some(attempt(core, request, plan, (number, asked_at), member).await)
                } else {
                    None
                };
                FailedRound::of(ended, requests)
            },
        )
        .await;
        (result, requests.taken)
    }
}

/// The request of each attempt of a call.
struct NextRequest<'a, D: Dependency> {
    first: Option<D::Request>,
    /// Borrowed exclusively, because a request need not be `Sync`.
    kept: &'a mut Option<D::Request>,
    /// Number of requests taken.
    taken: u32,
}

impl<D: Dependency> NextRequest<'_, D> {
    /// Returns the number of the next attempt, from 1, and its request.
    fn take(&mut self) -> Option<(u32, D::Request)> {
        let request = self.first.take().or_else(|| self.kept.clone())?;
        self.taken += 1;
        Some((self.taken, request))
    }
}

/// Returns true if calls may wait for a worker that is being restarted.
pub(crate) fn queues_while_restarting(shared: &Shared) -> bool {
    shared.settings().workers.while_restarting == WhileRestarting::Hold
}

#[cfg(all(test, feature = "testing"))]
mod tests;
