//! The way of a streamed answer: the layers of a closure, with the place and the permit held
//! until the stream has ended.
//!
//! Before the first item it is an attempt like any other, and may be tried again. From then on it
//! is the caller's, and nothing repeats it: what was delivered stays delivered.

mod hold;

mod streamed;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use breakerbox_policy::{Class, Executed, Time};
use futures_util::TryStream;

pub use streamed::Streamed;

use super::admit::{AttemptPermits, absent, charge};
use super::attempt::count_attempt;
use super::hedge::{HedgeMember, hedged};
use super::plan::{Plan, least};
use super::retry::RetryState;
use super::{CallOptions, FailedAttempt, closed_to_new, refuse_at_once};
use crate::admission::Settled;
use crate::bulkhead::BulkheadSlot;
use crate::chaos::{Injected, struck};
use crate::clock::Moment;
use crate::deadline::{self, Within};
use crate::dependency::{Shared, Verdict};
use crate::error::CallError;
use crate::reply::{bounded, timed_out};
use crate::totals::{CallRecord, CallResult};
use hold::Hold;

/// A stream that was opened, its first item, and what it holds; `None` for an empty one, which is
/// counted.
type Opened<S> = Option<(Pin<Box<S>>, <S as TryStream>::Ok, Hold)>;

/// Opens a stream under the same breaker and limits as a closure.
///
/// # Cancel safety   Dropped, what was opened is dropped; counted as cancelled.
pub(crate) async fn run_stream<S, F>(
    shared: &Arc<Shared>,
    options: CallOptions,
    classify: impl Fn(Result<&S, &S::Error>) -> Verdict + Send + Sync + 'static,
    open: impl FnMut() -> F,
) -> Result<Streamed<S>, CallError<S::Error>>
where
    F: Future<Output = Result<S, S::Error>>,
    S: TryStream,
{
    if let Some(refused) = refuse_at_once(shared, options.key.is_some()) {
        return Err(CallError::Open(refused));
    }
    let entry = CallRecord::open(Arc::clone(shared));
    let plan = Plan::of_closure(shared, &options);
    let opened = open_stream(shared, &plan, entry, classify, open).await;
    opened.map_err(Unopened::give_up)
}

/// A stream that could not be opened. Nobody has been answered yet.
pub(super) struct Unopened<E> {
    pub(super) error: CallError<E>,
    /// How many attempts there were, refusals included.
    pub(super) attempts: u32,
    pub(super) entry: CallRecord<Arc<Shared>>,
}

impl<E> Unopened<E> {
    /// Books what the caller hears.
    pub(super) fn give_up(self) -> CallError<E> {
        self.entry.close(if self.error.is_refusal() {
            CallResult::Refused
        } else {
            CallResult::Failed
        });
        self.error
    }
}

/// Opens a stream for a call that is in the books already.
pub(super) async fn open_stream<S, F>(
    shared: &Arc<Shared>,
    plan: &Plan<'_>,
    entry: CallRecord<Arc<Shared>>,
    classify: impl Fn(Result<&S, &S::Error>) -> Verdict + Send + Sync + 'static,
    open: impl FnMut() -> F,
) -> Result<Streamed<S>, Unopened<S::Error>>
where
    F: Future<Output = Result<S, S::Error>>,
    S: TryStream,
{
    let open = Mutex::new(open);
    let begin = || open.lock().unwrap_or_else(PoisonError::into_inner)();
    let mut tries = RetryState::new(plan.started);
    let error = loop {
        if let Some(reason) = closed_to_new(shared).filter(|_| tries.is_first()) {
            break absent(shared, reason);
        }
        let now = tries.began();
        let one_more = |race| Some(open_once(shared, plan, now, race, &classify, begin));
        let lost = match hedged(shared, plan, one_more).await {
            Some(Ok(Some((stream, first, hold)))) => {
                let classify = Box::new(classify);
                return Ok(Streamed::begun(stream, first, classify, hold, entry));
            }
            Some(Ok(None)) => {
                entry.close(CallResult::Primary);
                return Ok(Streamed::empty(Box::new(classify)));
            }
            Some(Err(lost)) => Some(lost),
            None => None,
        };
        if let Err(lost) = tries.next(shared, plan, lost).await {
            break lost.error;
        }
    };
    shared.counts.refuse(&error);
    let attempts = tries.number();
    Err(Unopened {
        error,
        attempts,
        entry,
    })
}

/// Opens a stream and waits for its first item; without one it was empty.
async fn until_first<S, F>(
    scope: Option<Moment>,
    begin: impl FnOnce() -> F,
) -> Result<(Pin<Box<S>>, Option<S::Ok>), S::Error>
where
    F: Future<Output = Result<S, S::Error>>,
    S: TryStream,
{
    let opening = deadline::within(scope, begin);
    let mut stream = Box::pin(Within::new(scope, std::pin::pin!(opening)).await?);
    let first = poll_fn(|cx| stream.as_mut().try_poll_next(cx));
    let first = Within::new(scope, first).await.transpose()?;
    Ok((stream, first))
}

/// One attempt, which is over with the first item. The closure is not called before it may go out.
async fn open_once<S, F>(
    shared: &Arc<Shared>,
    plan: &Plan<'_>,
    now: Time,
    mut race: HedgeMember,
    classify: &impl Fn(Result<&S, &S::Error>) -> Verdict,
    begin: impl FnOnce() -> F,
) -> Result<Opened<S>, Box<FailedAttempt<S::Error>>>
where
    F: Future<Output = Result<S, S::Error>>,
    S: TryStream,
{
    let mut leave = AttemptPermits::none(shared);
    if !race.at_once(shared, plan, now, &mut leave) {
        // On the heap: what few calls come to must not make every call's future larger.
        leave = Box::pin(race.admit(shared, plan, now)).await?;
    }
    if let Err(error) = charge(shared, plan) {
        leave.admission.release();
        return Err(FailedAttempt::refused(error));
    }
    count_attempt(shared, leave.admission.race_of());
    let began = leave.admission.begin().unwrap_or(now);
    let timeout = shared.settings().timeout;
    let until = least(
        timeout.first_byte.map(|span| began.after(span)),
        plan.attempt_ends(began),
    );
    let scope = plan.deadline.map(|end| shared.clock.moment(end));
    let work = async {
        if let Some(strike) = shared.strike_closure(began) {
            struck(shared, strike).await?;
        }
        Ok::<_, Injected>(until_first(scope, begin).await)
    };
    let result = bounded(&shared.clock, until, work).await;
    let now = shared.clock.now();
    let dependency = Arc::clone(&shared.name);
    let (verdict, error) = match result {
        Some(Ok(Ok((stream, Some(first))))) => {
            let hold = Hold::new(
                shared,
                leave.admission.take_held(),
                leave.place.take().map(BulkheadSlot::hand_over),
                (began, now),
                plan,
                timeout.idle,
            );
            return Ok(Some((stream, first, hold)));
        }
        Some(Ok(Ok((stream, None)))) => (classify(Ok(&stream)).judged(shared), None),
        Some(Ok(Err(error))) => {
            let verdict = classify(Err(&error)).judged(shared);
            let executed = verdict.executed;
            let failed = CallError::Failed {
                dependency,
                error,
                executed,
            };
            (verdict, Some(failed))
        }
        Some(Err(Injected)) => {
            let failure = Class::Failure.into();
            (failure, Some(CallError::Injected { dependency }))
        }
        None => (
            timed_out(shared),
            Some(CallError::TimedOut {
                dependency,
                after: now.since(began),
                executed: Executed::Maybe,
            }),
        ),
    };
    leave.place = None;
    if let Settled::NeedsReport(report) = leave.admission.settle(&verdict, now) {
        shared.report_and_wait(report).await;
    }
    error.map_or(Ok(None), |error| {
        Err(FailedAttempt::failed(error, &verdict))
    })
}
