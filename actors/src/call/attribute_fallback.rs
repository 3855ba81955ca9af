//! Closure calls with a fallback, for the attribute's `fallback`.
//!
//! The rules of [`ask`](super::ask) for fallbacks apply, in the caller's own task: which errors
//! they serve, their time limit, and their accounting. Only the attribute knows how to call the
//! fallback.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use breakerbox_policy::{Executed, Time};

use super::FailedAttempt;
use super::run::run_or_fail;
use super::run_mut::run_mut_or_fail;
use crate::call_options::CallOptions;
use crate::deadline::{self, CallScope, DeadlineScope};
use crate::error::CallError;
use crate::fallback::{note_outage, patience};
use crate::state::Shared;
use crate::state::call_record::{CallRecord, CallResult};
use crate::verdict::Verdict;

/// Runs a closure. Without an answer, the caller asks the fallback or gives up.
///
/// # Cancel safety   Dropped, the closure's future is dropped; counted as cancelled.
pub(crate) async fn run_with_fallback<T, E, F>(
    shared: &Arc<Shared>,
    options: CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    work: impl FnMut() -> F,
) -> Result<T, Unanswered<'_, T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let around = CallScope::present().deadline(&shared.clock);
    let ended = run_or_fail(shared, &options, classify, work).await;
    ended.map_err(|failed| Unanswered::of(failed, shared, around))
}

/// Runs a closure that lends its state to each attempt, as [`run_with_fallback`] does.
///
/// # Cancel safety   Dropped, the closure's future is dropped; counted as cancelled.
pub(crate) async fn run_mut_with_fallback<T, E>(
    shared: &Arc<Shared>,
    options: CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    work: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, Unanswered<'_, T, E>> {
    let around = CallScope::present().deadline(&shared.clock);
    let ended = run_mut_or_fail(shared, &options, classify, work).await;
    ended.map_err(|failed| Unanswered::of(failed, shared, around))
}

/// A call that has no answer yet. Dropped, it counts as cancelled by the caller.
#[must_use = "it ends with `end` or `give_up`"]
pub struct Unanswered<'a, T, E> {
    error: CallError<E>,
    /// An answer that counts as a failure, for want of a better one.
    answer: Option<T>,
    may_fall_back: bool,
    record: CallRecord<&'a Shared>,
    patience: Patience<'a>,
}

impl<'a, T, E> Unanswered<'a, T, E> {
    fn of(
        (failed, record): (Box<FailedAttempt<T, E>>, CallRecord<&'a Shared>),
        shared: &'a Shared,
        around: Option<Time>,
    ) -> Self {
        Self {
            may_fall_back: failed.may_fall_back(),
            error: failed.error,
            answer: failed.answer,
            record,
            patience: Patience { shared, around },
        }
    }

    /// Returns true if a fallback may answer: never for the caller's own mistakes (rule FBK-2).
    #[must_use]
    pub fn may_fall_back(&self) -> bool {
        self.may_fall_back
    }

    /// The reason why there is no answer.
    #[must_use]
    pub fn why(&self) -> &CallError<E> {
        &self.error
    }

    /// The time limit of the fallback.
    #[must_use]
    pub fn patience(&self) -> Patience<'a> {
        self.patience
    }

    /// Ends the call with its own error, or with an answer that counts as a failure.
    ///
    /// # Errors  The dependency has given no answer at all.
    pub fn give_up(self) -> Result<T, CallError<E>> {
        self.record.close_failed(&self.error);
        // CALL-8: a bad answer, where there is no better one.
        self.answer.ok_or(self.error)
    }

    /// Ends the call with the result of the fallback of this name.
    ///
    /// # Errors  The fallback has failed too.
    pub fn end(self, name: &str, answer: Result<T, String>) -> Result<T, CallError<E>>
    where
        E: fmt::Display,
    {
        if answer.is_err() && self.answer.is_some() {
            return self.give_up();
        }
        let Self { error, record, .. } = self;
        let shared = self.patience.shared;
        let fallback = Arc::from(name);
        match answer {
            Ok(value) => {
                note_outage(shared, &fallback, &error);
                record.close(CallResult::Fallback);
                Ok(value)
            }
            Err(message) => {
                let name = Arc::clone(&shared.name);
                // It has run, and only its own error knows how far.
                let error = error.fallback_failed(name, (fallback, message), Executed::Maybe);
                record.close_failed(&error);
                Err(error)
            }
        }
    }
}

impl<T, E: fmt::Debug> fmt::Debug for Unanswered<'_, T, E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Unanswered")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// The time limit of a fallback: that of an attempt, and at most the time left for the surrounding
/// work.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    shared: &'a Shared,
    around: Option<Time>,
}

impl Patience<'_> {
    /// Starts the fallback and waits for it up to the limit. The future keeps nothing of `begin`,
    /// so it is `Send` even if the error that `begin` borrows is not `Sync`.
    ///
    /// # Errors  The fallback failed, or took too long.
    /// # Panics  If the fallback panics.
    pub fn wait<T, X, W>(self, begin: impl FnOnce() -> W) -> impl Future<Output = Result<T, String>>
    where
        X: fmt::Display,
        W: Future<Output = Result<T, X>>,
    {
        let Self { shared, around } = self;
        let now = shared.clock.now();
        let scope = around.map(|end| shared.clock.moment(end));
        let work = deadline::within(scope, begin);
        async move {
            let own = shared.settings().timeout.attempt;
            let work = std::pin::pin!(work);
            let work = DeadlineScope::new(scope, work);
            tokio::select! {
                biased;
                answer = work => answer.map_err(|error| error.to_string()),
                impatience = patience(shared, (now, own), around) => Err(impatience),
            }
        }
    }
}

impl fmt::Debug for Patience<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Patience")
            .field("around", &self.around)
            .finish_non_exhaustive()
    }
}
