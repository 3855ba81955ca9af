//! Streamed calls with fallbacks, which answer if the stream could not be opened.
//!
//! From the first item on, no fallback replaces the stream: delivered items stay delivered.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::TryStream;

use super::core::DependencyCore;
use super::plan::CallPlan;
use super::stream::{UnopenedStream, open_stream};
use super::{Streamed, answer_otherwise, end_outage, refuse_at_once, request_has_key};
use crate::answer::Answer;
use crate::call_options::CallOptions;
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::state::call_hold::close_failed;
use crate::state::call_record::CallRecord;
use crate::verdict::Verdict;

/// The result of a streamed call, by [`Client::stream_or_answer`](crate::Client::stream_or_answer).
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

/// Opens a stream, or has the fallbacks answer; see
/// [`Client::stream_or_answer`](crate::Client::stream_or_answer).
pub(crate) async fn stream_or_answer<D, S, F>(
    core: &Arc<DependencyCore<D>>,
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
        let has_key = || options.key.is_some() || request_has_key::<D>(shared, &request);
        if let Some(refused) = refuse_at_once(shared, has_key) {
            return Err(CallError::Open(refused));
        }
    }
    let begun_with = core.fallbacks.of_call();
    let record = CallRecord::open(Arc::clone(shared));
    let plan = CallPlan::of_request::<D>(shared, &options, &request);
    let UnopenedStream {
        failed,
        empty,
        attempts,
        record,
    } = match open_stream(shared, &plan, record, D::open_answer, classify, open).await {
        Ok(stream) => {
            end_outage(shared);
            return Ok(Served::Stream(stream));
        }
        Err(unopened) => unopened,
    };
    let kept = (Some(request), begun_with);
    let failed = failed.without_answer();
    let ended = {
        let record = (record, |_: &CallError<D::Error>| ());
        // Boxed: the future of every call would be larger for what few calls need.
        Box::pin(answer_otherwise(
            core,
            &plan,
            kept,
            (failed, attempts),
            record,
        ))
        .await
    };
    let (mut error, record) = match (ended, empty) {
        (Ok(answer), _) => return Ok(Served::Answer(answer)),
        (Err((error, record)), Some(empty)) => {
            record.close_failed(&error);
            return Ok(Served::Stream(empty));
        }
        (Err(unanswered), None) => unanswered,
    };
    close_failed(&mut error, D::open_answer, record);
    Err(error)
}
