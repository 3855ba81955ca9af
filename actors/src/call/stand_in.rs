//! A closure's way with somebody to stand in for it: what the attribute's `fallback` goes by.
//!
//! It keeps to the rules of [`ask`](super::ask) for fallbacks, in the caller's own task: whom they
//! serve, how long they may take, how they are booked. It does not know how the fallback is
//! called; only the attribute knows that.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use breakerbox_policy::Time;

use super::run::{end, run_or_lose};
use super::{CallOptions, may_fall_back};
use crate::deadline::{self, Within};
use crate::dependency::{Shared, Verdict};
use crate::error::CallError;
use crate::fallback::{note_outage, patience};
use crate::totals::{Ending, Entry};

/// Runs a closure; without an answer, the caller has somebody else asked, or gives up.
///
/// # Cancel safety   Dropped, the closure's future is dropped; counted as cancelled.
pub(crate) async fn run_to_stand_in<T, E, F>(
    shared: &Arc<Shared>,
    options: CallOptions,
    classify: impl Fn(&Result<T, E>) -> Verdict,
    work: impl FnMut() -> F,
) -> Result<T, Unanswered<'_, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let around = deadline::around(&shared.clock);
    let lost = run_or_lose(shared, &options, classify, work).await;
    lost.map_err(|(lost, entry)| Unanswered {
        may_fall_back: may_fall_back(&lost),
        error: lost.error,
        entry,
        patience: Patience { shared, around },
    })
}

/// A call that has no answer yet. Dropped, it is the caller who went away.
#[must_use = "it ends with `end` or `give_up`"]
pub struct Unanswered<'a, E> {
    error: CallError<E>,
    may_fall_back: bool,
    entry: Entry<&'a Shared>,
    patience: Patience<'a>,
}

impl<'a, E> Unanswered<'a, E> {
    /// Whether somebody may stand in: never for the caller's own mistakes (rule FBK-2).
    #[must_use]
    pub fn may_fall_back(&self) -> bool {
        self.may_fall_back
    }

    /// Why there is no answer.
    #[must_use]
    pub fn why(&self) -> &CallError<E> {
        &self.error
    }

    /// How long the one who stands in may take.
    #[must_use]
    pub fn patience(&self) -> Patience<'a> {
        self.patience
    }

    /// Ends the call with its own error.
    pub fn give_up(self) -> CallError<E> {
        end(self.entry, &self.error);
        self.error
    }

    /// Ends the call with what the fallback of this name came to.
    ///
    /// # Errors  The fallback has failed too.
    pub fn end<T>(self, name: &str, answer: Result<T, String>) -> Result<T, CallError<E>>
    where
        E: fmt::Display,
    {
        let Self { error, entry, .. } = self;
        let shared = self.patience.shared;
        let fallback = Arc::from(name);
        match answer {
            Ok(value) => {
                note_outage(shared, &fallback, &error);
                entry.close(Ending::Fallback);
                Ok(value)
            }
            Err(message) => {
                let error = CallError::FallbackFailed {
                    dependency: Arc::clone(&shared.name),
                    fallback,
                    message,
                    cause: Box::new(error),
                };
                end(entry, &error);
                Err(error)
            }
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for Unanswered<'_, E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Unanswered")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// How long a fallback may take: the time of an attempt, and no longer than the work around it has.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    shared: &'a Shared,
    around: Option<Time>,
}

impl Patience<'_> {
    /// Has the fallback begin, and waits for it so long. Nothing of `begin` is kept: an error that
    /// may not be looked at from other threads does not keep the call on its own.
    ///
    /// # Errors  It failed, or took too long.
    /// # Panics  When the fallback does.
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
            let work = std::pin::pin!(work);
            let work = Within::new(scope, work);
            tokio::select! {
                biased;
                answer = work => answer.map_err(|error| error.to_string()),
                impatience = patience(shared, now, around) => Err(impatience),
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
