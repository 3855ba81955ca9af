//! A streamed call: the layers of a closure call, with the slot and the permit held until the
//! stream has ended.
//!
//! Before the first item it is an attempt like any other, and may be retried. From then on the
//! stream belongs to the caller and is never repeated: delivered items stay delivered.

mod hold;

mod streamed;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use breakerbox_policy::Time;
use futures_util::TryStream;

pub use streamed::Streamed;

use super::admit::AttemptPermits;
use super::drive::{
    EndedAttempt, FailedRound, count_attempt, drive, end_attempt, try_begin, wait_to_begin,
};
use super::hedge::hedged;
use super::plan::CallPlan;
use super::{FailedAttempt, refuse_at_once};
use crate::attempt_progress::{AttemptProgress, SlotDemand};
use crate::breaker::hedge_member::HedgeMember;
use crate::call_options::CallOptions;
use crate::clock::earliest;
use crate::deadline::bounded;
use crate::deadline::{self, CallScope, DeadlineScope};
use crate::error::CallError;
use crate::limits::bulkhead::BulkheadSlot;
use crate::limits::chaos::{InjectedFailure, apply_fault};
use crate::state::Shared;
use crate::state::call_hold::{CallHold, FindOpenAnswer};
use crate::state::call_record::{CallRecord, CallResult};
use crate::sync::{LockExt, Mutex};
use crate::time_limit::TimeLimit;
use crate::verdict::{AttemptError, Verdict};
use hold::StreamHold;

/// An open stream, its first item, and the permits that it holds; `None` for an empty stream, which
/// is counted already.
type Opened<S> = Option<(Pin<Box<S>>, <S as TryStream>::Ok, StreamHold)>;

/// Opens a stream under the same breaker and limits as a closure.
///
/// # Cancel safety   Dropped, the opened stream is dropped; counted as cancelled.
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
    if let Some(refused) = refuse_at_once(shared, || options.key.is_some()) {
        return Err(CallError::Open(refused));
    }
    let record = CallRecord::open(Arc::clone(shared));
    let plan = CallPlan::of_closure(shared, &options);
    let opened = open_stream(shared, &plan, record, |_| None, classify, open).await;
    opened.or_else(UnopenedStream::give_up)
}

/// A stream that could not be opened. Its caller has no answer yet.
pub(super) struct UnopenedStream<S: TryStream> {
    pub(super) failed: Box<FailedAttempt<(), S::Error>>,
    /// An empty stream that counts as a failure, for want of a better answer.
    pub(super) empty: Option<Streamed<S>>,
    /// Number of attempts, hedges and refusals included; 0 if no attempt was allowed.
    pub(super) attempts: u32,
    pub(super) record: CallRecord<Arc<Shared>>,
}

impl<S: TryStream> UnopenedStream<S> {
    /// Ends the call with its error, or with the empty stream that counts as one.
    pub(super) fn give_up(self) -> Result<Streamed<S>, CallError<S::Error>> {
        self.record.close_failed(&self.failed.error);
        self.empty.ok_or(self.failed.error)
    }
}

/// Opens a stream for a call that is open in the totals already. `find`: finds the open answer in
/// an error.
pub(super) async fn open_stream<S, F>(
    shared: &Arc<Shared>,
    plan: &CallPlan<'_>,
    mut record: CallRecord<Arc<Shared>>,
    find: FindOpenAnswer<S::Error>,
    classify: impl Fn(Result<&S, &S::Error>) -> Verdict + Send + Sync + 'static,
    open: impl FnMut() -> F,
) -> Result<Streamed<S>, UnopenedStream<S>>
where
    F: Future<Output = Result<S, S::Error>>,
    S: TryStream,
{
    let open = Mutex::new(open);
    let (begin, classified) = (&|| open.acquire()(), (find, &classify));
    let mut attempts = 0;
    let result = drive(
        shared,
        plan,
        &mut attempts,
        |attempts, asked_at| async move {
            let attempt = |member, asked_at| {
                *attempts += 1;
                Some(open_once(shared, plan, asked_at, member, classified, begin))
            };
            let ended = hedged(shared, plan, asked_at, attempt).await;
            FailedRound::of(ended, attempts)
        },
    )
    .await;
    match result {
        Ok(Some((stream, first, hold))) => {
            let classify = Box::new(classify);
            Ok(Streamed::begun(stream, first, classify, hold, record))
        }
        Ok(None) => {
            record.close(CallResult::Primary);
            Ok(Streamed::empty(Box::new(classify)))
        }
        Err(mut failed) => {
            failed.note_end(shared, plan, &mut record);
            let empty = failed.answer.take();
            Err(UnopenedStream {
                failed: failed.without_answer(),
                empty: empty.map(|_| Streamed::empty(Box::new(classify))),
                attempts,
                record,
            })
        }
    }
}

/// Opens a stream and waits for its first item; `None` if the stream is empty.
async fn until_first<S, F>(
    scope: CallScope,
    begin: impl FnOnce() -> F,
) -> Result<(Pin<Box<S>>, Option<S::Ok>), S::Error>
where
    F: Future<Output = Result<S, S::Error>>,
    S: TryStream,
{
    let opening = deadline::within(scope, begin);
    let mut stream = Box::pin(DeadlineScope::new(scope, std::pin::pin!(opening)).await?);
    let first = poll_fn(|cx| stream.as_mut().try_poll_next(cx));
    let first = DeadlineScope::new(scope, first).await.transpose()?;
    Ok((stream, first))
}

/// Runs an attempt within its limits up to the first item: from its begin, or from its last
/// progress. Returns `None` if a limit came first.
async fn bounded_until_first<T>(
    shared: &Shared,
    plan: &CallPlan<'_>,
    began: Time,
    work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let first_byte = shared.settings().timeout.first_byte;
    let Some(progress) = plan.progress else {
        let until = earliest(
            first_byte.map(|span| began.after(span)),
            plan.attempt_ends(began),
        );
        return bounded(&shared.clock, until, work).await;
    };
    let limit = first_byte.into_iter().chain(plan.attempt_limit).min();
    let limits = (limit, plan.deadline);
    bounded_silence(shared, progress, limits, work).await
}

/// Returns the limit by which an attempt without its first item has run out of time at `now`.
#[cold]
fn exceeded_by_first(shared: &Shared, plan: &CallPlan<'_>, now: Time) -> TimeLimit {
    let first_byte = shared.settings().timeout.first_byte;
    let is_shorter = |first| plan.attempt_limit.is_none_or(|attempt| first < attempt);
    match plan.exceeded(shared, now) {
        TimeLimit::Attempt | TimeLimit::CallAttempt if first_byte.is_some_and(is_shorter) => {
            TimeLimit::FirstByte
        }
        limit => limit,
    }
}

/// Runs an attempt until the dependency has been silent for `limit`, or until the deadline. Returns
/// `None` if either came first.
pub(super) async fn bounded_silence<T>(
    shared: &Shared,
    progress: &AttemptProgress,
    (limit, deadline): (Option<Duration>, Option<Time>),
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let began = shared.clock.now();
    loop {
        let now = shared.clock.now();
        let whole = now.since(began);
        // A note may be of an earlier attempt.
        let silent = progress
            .silent_for()
            .map_or(whole, |silent| silent.min(whole));
        let left = limit.map(|limit| limit.saturating_sub(silent));
        if left.is_some_and(|left| left.is_zero()) {
            return None;
        }
        // EDGE-1: a user that is asked has time, which is not the dependency's.
        let end = |now| deadline.map(|end| AttemptProgress::moved(Some(progress), end, now));
        let until = earliest(left.map(|left| now.after(left)), end(now));
        if let Some(done) = bounded(&shared.clock, until, work.as_mut()).await {
            return Some(done);
        }
        let now = shared.clock.now();
        if end(now).is_some_and(|end| now >= end) {
            return None;
        }
    }
}

/// Notes in the progress of a call that an attempt begins: with the time in which the caller's part has
/// to be over, if it is a probe.
fn note_begin(shared: &Arc<Shared>, plan: &CallPlan<'_>, permits: &AttemptPermits<'_>) {
    if let Some(progress) = plan.progress {
        // EDGE-1: a probe's silence is that of the dependency only once it has the request.
        let is_probe = permits.admission.probe().is_some();
        let lease = shared.settings().breaker.half_open.probe_lease;
        // EDGE-4: a caller that sends slowly gives its slot up only if others need it.
        let shared: Arc<dyn SlotDemand> = Arc::clone(shared) as _;
        let slot = (Arc::downgrade(&shared), plan.ticket);
        progress.begin_attempt(is_probe.then_some(lease / 2), slot);
    }
}

/// Runs an attempt that cannot be overdue while its caller's part is on its way (rule BRK-9).
async fn while_uploading<T>(
    shared: &Shared,
    progress: &AttemptProgress,
    permits: &mut AttemptPermits<'_>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> T {
    // EDGE-1: a caller that sends slowly is no slow dependency.
    permits.admission.pause_age();
    let either = poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => progress.poll_uploaded(cx).map(|()| None),
    });
    if let Some(done) = either.await {
        return done;
    }
    permits.admission.mark_started(Some(shared.clock.now()));
    work.await
}

/// Returns the moment from which an attempt waited for its dependency, and not for its caller.
fn dependency_began(
    plan: &CallPlan<'_>,
    permits: &AttemptPermits<'_>,
    began: Time,
    ended: Time,
) -> Time {
    let Some(silent) = plan.progress.and_then(AttemptProgress::silent_for) else {
        return began;
    };
    // EDGE-1: what the caller took counts neither as slow nor for the adaptive limit.
    let began = permits.admission.started_at().unwrap_or(began).max(began);
    let silent = u64::try_from(silent.as_nanos()).unwrap_or(u64::MAX);
    began.max(Time::from_nanos(ended.as_nanos().saturating_sub(silent)))
}

/// One attempt, which ends with the first item. The closure is not called before the call may go
/// out.
async fn open_once<S, F>(
    shared: &Arc<Shared>,
    plan: &CallPlan<'_>,
    asked_at: Time,
    mut member: HedgeMember,
    (find, classify): (
        FindOpenAnswer<S::Error>,
        &impl Fn(Result<&S, &S::Error>) -> Verdict,
    ),
    begin: impl FnOnce() -> F,
) -> Result<Opened<S>, Box<FailedAttempt<Opened<S>, S::Error>>>
where
    F: Future<Output = Result<S, S::Error>>,
    S: TryStream,
{
    let mut permits = AttemptPermits::none(shared);
    match try_begin(shared, plan, &mut member, asked_at, &mut permits) {
        Some(begun) => begun?,
        None => permits = Box::pin(wait_to_begin(shared, plan, member, asked_at)).await?,
    }
    count_attempt(shared, &permits);
    let began = permits.admission.begin().unwrap_or(asked_at);
    let scope = plan.scope(shared, permits.admission.probe());
    note_begin(shared, plan, &permits);
    // Pinned here: a future that is an argument takes its place twice.
    let work = std::pin::pin!(async {
        if let Some(fault) = shared.chaos.draw_for_closure(began) {
            apply_fault(&shared.clock, fault).await?;
        }
        Ok::<_, InjectedFailure>(until_first(scope, begin).await)
    });
    let mut result = std::pin::pin!(bounded_until_first(shared, plan, began, work));
    let result = match plan.progress.filter(|progress| progress.is_uploading()) {
        None => result.await,
        Some(progress) => while_uploading(shared, progress, &mut permits, result.as_mut()).await,
    };
    let ended = shared.clock.now();
    let times = (dependency_began(plan, &permits, began, ended), ended);
    let (result, verdict) = match result {
        Some(Ok(Ok((stream, Some(first))))) => {
            let hold = StreamHold::new(
                shared,
                permits.admission.take_permit(),
                permits.slot.take().map(BulkheadSlot::into_ticket),
                times,
                (plan, scope),
                shared.settings().timeout.idle,
            );
            return Ok(Some((stream, first, hold)));
        }
        Some(Ok(Ok((stream, None)))) => (Ok(None), shared.judge(classify(Ok(&stream)))),
        Some(Ok(Err(mut error))) => {
            let verdict = shared.judge(classify(Err(&error)));
            if let Some(answer) = find(&mut error)
                && let Some(slot) = permits.slot.take()
            {
                // EDGE-4: the slot goes with the answer, to its last byte.
                answer.hold(CallHold::slot(shared, slot.into_ticket()));
            }
            (Err(AttemptError::Failed(error)), verdict)
        }
        Some(Err(InjectedFailure)) => (Err(AttemptError::Injected), InjectedFailure.verdict()),
        None => {
            let limit = exceeded_by_first(shared, plan, times.1);
            let executed = AttemptProgress::executed(plan.progress);
            let error = AttemptError::TimedOut(limit, executed);
            (Err(error), shared.timed_out(limit))
        }
    };
    let ended = match end_attempt(shared, plan, &mut permits, result, &verdict, times) {
        EndedAttempt::Counted(answer) => answer,
        EndedAttempt::Reported(attempt) => attempt.counted(shared),
    };
    ended.map_err(|mut failed| {
        failed.open_answer = Some(find);
        failed
    })
}
