//! Streamed calls with fallbacks, which answer if the stream could not be opened.
//!
//! From the first item on, no fallback replaces the stream: delivered items stay delivered.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::TryStream;

use super::attempt::lost_by;
use super::plan::Plan;
use super::stream::{Unopened, open_stream};
use super::{CallOptions, Streamed, end_outage, last_resort, may_fall_back, refuse_at_once};
use crate::client::{Answer, AnswerSource, Client, Core};
use crate::dependency::{Dependency, Verdict};
use crate::error::CallError;
use crate::totals::{CallRecord, CallResult};

/// The result of a streamed call, by [`Client::stream_or_answer`].
#[expect(
    clippy::large_enum_variant,
    reason = "the large variant is the usual one, and a box would cost an allocation per call"
)]
pub enum Served<S: TryStream, T> {
    /// The dependency's own answer, as a stream.
    Stream(Streamed<S>),
    /// A whole answer: a fallback's, or a worker's as the last resort.
    Answer(Answer<T>),
}

impl<S: TryStream, T: fmt::Debug> fmt::Debug for Served<S, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(stream) => out.debug_tuple("Stream").field(stream).finish(),
            Self::Answer(answer) => out.debug_tuple("Answer").field(answer).finish(),
        }
    }
}

impl<D: Dependency> Client<D> {
    /// Opens a stream as [`Client::run_stream_with`] does, in the caller's own task. If that ends
    /// without a first item, the fallbacks answer `request`, by the rules of [`Client::ask_with`].
    /// All of it is counted as one call.
    ///
    /// Options left open are derived from `request` by the dependency. The last attempt of
    /// `when_all_down = "try"` runs on a worker.
    ///
    /// # Errors  As [`Client::ask_with`].
    /// # Panics  As [`Client::run_stream`].
    /// # Cancel safety   As [`Client::run_stream`]; a running fallback is dropped too.
    /// # Source  Rules FBK-1 to FBK-3 in docs/rules.md.
    pub async fn stream_or_answer<S, F>(
        &self,
        request: D::Request,
        options: CallOptions,
        classify: impl Fn(Result<&S, &D::Error>) -> Verdict + Send + Sync + 'static,
        open: impl FnMut() -> F,
    ) -> Result<Served<S, D::Response>, CallError<D::Error>>
    where
        F: Future<Output = Result<S, D::Error>>,
        S: TryStream<Error = D::Error>,
    {
        serve(&self.core, request, options, classify, open).await
    }

    /// Passes a good answer of the dependency that came as a stream to the fallbacks, for those
    /// that cache such answers. They get answers of workers anyway. Never pass the answer of a
    /// fallback (rule FBK-3).
    pub fn remember(&self, request: &D::Request, response: &D::Response) {
        let now = self.core.shared.clock.now();
        self.core.fallbacks.remember(request, response, now);
    }
}

async fn serve<D, S, F>(
    core: &Arc<Core<D>>,
    request: D::Request,
    options: CallOptions,
    classify: impl Fn(Result<&S, &D::Error>) -> Verdict + Send + Sync + 'static,
    open: impl FnMut() -> F,
) -> Result<Served<S, D::Response>, CallError<D::Error>>
where
    D: Dependency,
    F: Future<Output = Result<S, D::Error>>,
    S: TryStream<Error = D::Error>,
{
    let shared = &core.shared;
    if core.fallbacks.is_empty() {
        let keyed = options.key.is_some() || D::key(&request).is_some();
        if let Some(refused) = refuse_at_once(shared, keyed) {
            return Err(CallError::Open(refused));
        }
    }
    let entry = CallRecord::open(Arc::clone(shared));
    let plan = Plan::of_request::<D>(shared, &options, &request);
    let Unopened {
        error,
        attempts,
        entry,
    } = match open_stream(shared, &plan, entry, classify, open).await {
        Ok(stream) => {
            end_outage(shared);
            return Ok(Served::Stream(stream));
        }
        Err(unopened) => unopened,
    };
    let answer = |value, source, age, attempts| {
        Served::Answer(Answer {
            value,
            source,
            age,
            attempts,
            elapsed: shared.clock.now().since(plan.started),
        })
    };
    let lost = lost_by::<D>(shared, error);
    let last = last_resort::request::<D>(&plan, &lost, Some(&request));
    let served = if may_fall_back(&lost) {
        let asked = (request, plan.ticket.write);
        core.fall_back(asked, lost.error, plan.callers).await
    } else {
        Err(lost.error)
    };
    let error = match served {
        Ok(fallback) => {
            entry.close(CallResult::Fallback);
            let source = AnswerSource::Fallback(fallback.name);
            return Ok(answer(fallback.value, source, fallback.age, attempts));
        }
        Err(error) => error,
    };
    match last_resort::answer(core, last, &plan, error).await {
        Ok(value) => {
            entry.close(CallResult::Primary);
            Ok(answer(value, AnswerSource::Primary, None, attempts + 1))
        }
        Err(error) => Err(Unopened {
            error,
            attempts,
            entry,
        }
        .give_up()),
    }
}
