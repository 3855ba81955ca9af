//! The way of a closure: the same layers as a call, without a worker and without fallbacks.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use breakerbox_policy::{Executed, Ticket, Time};

use super::admit::{absent, admit};
use super::retry::{Next, most_telling, pause, wait_before_next};
use super::{CallOptions, Lost, closed_to_new, deadline, refuse_at_once};
use crate::admission::Settled;
use crate::dependency::{Shared, Verdict};
use crate::error::CallError;
use crate::reply::{bounded, timed_out};
use crate::totals::{Ending, Entry};

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
    refuse_at_once(shared)?;
    let entry = Entry::open(shared);
    let mut now = shared.clock.now();
    let deadline = deadline(shared, now, options.timeout);
    let idempotent = options.idempotent.unwrap_or(false);
    let ticket = Ticket {
        priority: options.priority,
        write: options.write.unwrap_or(false),
    };
    let mut number = 1;
    let mut before = None;
    let error = loop {
        if let Some(reason) = closed_to_new(shared).filter(|_| number == 1) {
            break absent(shared, reason);
        }
        let lost = match run_once(shared, (now, deadline), ticket, &classify, &mut work).await {
            Ok(value) => {
                entry.close(Ending::Primary);
                return Ok(value);
            }
            Err(lost) => most_telling(before, lost),
        };
        match wait_before_next(shared, deadline, idempotent, number, &lost) {
            Next::After(wait) => pause(shared, wait).await,
            Next::Stop => break lost.error,
            Next::Opened(refused) => {
                break most_telling(Some(lost), Lost::by_breaker(refused)).error;
            }
        }
        before = Some(lost);
        number += 1;
        now = shared.clock.now();
    };
    entry.close(if error.is_refusal() {
        Ending::Refused
    } else {
        Ending::Failed
    });
    Err(error)
}

/// One attempt. The closure is not called before the call may go out: it may begin its work
/// before its future is polled.
async fn run_once<T, E, F>(
    shared: &Arc<Shared>,
    (now, deadline): (Time, Option<Time>),
    ticket: Ticket,
    classify: &impl Fn(&Result<T, E>) -> Verdict,
    work: &mut impl FnMut() -> F,
) -> Result<T, Lost<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let (mut admission, place) = admit(shared, now, deadline, ticket).await?;
    shared.totals.attempts.fetch_add(1, Ordering::Relaxed);
    let began = admission.begin().unwrap_or(now);
    let attempt = shared
        .settings
        .timeout
        .attempt
        .map(|span| began.after(span));
    let until = match (attempt, deadline) {
        (Some(attempt), Some(total)) => Some(attempt.min(total)),
        (one, other) => one.or(other),
    };
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
