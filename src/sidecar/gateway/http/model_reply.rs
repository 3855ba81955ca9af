//! Requests of workers to a language model, and their whole answers: the same key, model and judgement
//! as for the streams of callers.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::HeaderMap;
use http::response::Parts;

use super::content_coding;
use super::error::{ErrorResponse, HttpError, ModelFailure};
use super::error_body::ErrorBody;
use super::model_verdict::{KeyOwner, is_event_stream, verdict_of};
use super::target::WorkerRoute;
use crate::model::{ApiShape, ModelVerdict, StreamEnd, StreamWatch, WatchEvent, judge};
use crate::sidecar::gateway::message::{ContentFailure, HttpFailure, HttpRequest};

/// Maximum size of an answer that is judged, in bytes.
const MAX_JUDGED: usize = 8_000_000;

/// Returns the request as its server gets it.
pub(super) fn provided(route: &WorkerRoute, request: HttpRequest) -> HttpRequest {
    match &route.model {
        // LLM-14: a worker sends our key too, and none of a caller.
        Some(model) => (model.provide)(&request),
        None => request,
    }
}

/// Judges a whole answer. Returns the error that it is, if it is one.
pub(super) fn error_of(
    route: &WorkerRoute,
    request: &HttpRequest,
    head: &Parts,
    body: &Bytes,
) -> Option<HttpError> {
    let model = route.model.as_ref()?;
    let call = request.model_call();
    let shape = call.map_or(ApiShape::Other(model.api), |call| call.shape);
    let plain = content_coding::decoded_up_to(&head.headers, body, MAX_JUDGED)?;
    let judged = match head.status.as_u16() < 400 && is_event_stream(&head.headers) {
        true => match judge_stream(shape, &head.headers, &plain) {
            Ok(judged) => judged,
            Err(failure) => return Some(failure.into()),
        },
        false => judge(shape, head.status.as_u16(), &head.headers, &plain),
    };
    if judged.is_good() {
        return None;
    }
    let has_key = model.has_key || route.target.holds_credentials.load(Ordering::Relaxed);
    let owner = KeyOwner::of(has_key, model.keys_by);
    Some(HttpError {
        failure: HttpFailure::Status(judged.status),
        executed: None,
        retry_after: judged.retry_after,
        model: Some(ModelFailure::new(verdict_of(&judged, owner))),
        said: Some(Box::new(ErrorResponse {
            head: head.clone(),
            body: ErrorBody::whole(body.clone(), None),
        })),
    })
}

/// Judges a stream that was read to its end.
fn judge_stream(
    shape: ApiShape,
    headers: &HeaderMap,
    plain: &[u8],
) -> Result<ModelVerdict, HttpFailure> {
    let mut watch = StreamWatch::new(shape).with_head(headers);
    let mut events = watch.feed(plain);
    let (end, last) = watch.finish();
    events.extend(last);
    let error = events.into_iter().find_map(|event| match event {
        WatchEvent::Error(error) => Some(error.verdict),
        _ => None,
    });
    match (error, end) {
        (Some(error), _) => Ok(error),
        (None, StreamEnd::Good) => Ok(judge(shape, 200, headers, b"")),
        // LLM-8: an end without its mark is none.
        (None, _) => Err(HttpFailure::Content(ContentFailure::Truncated)),
    }
}
