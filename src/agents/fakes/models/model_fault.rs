//! Faults of the fake model provider, and the responses with them.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::{Stream, StreamExt as _, stream};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::LeavingCaller;
use super::model_answers::ModelAnswer;
use super::model_errors::{error, event};
use crate::model::{Api, ApiShape, ModelErrorKind};

/// The part of an answer behind which a fault begins. Of a whole answer there is only its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamPart {
    /// The head.
    Head,
    /// The events before the first content.
    Opening,
    /// The first piece of content.
    Content,
}

/// A fault of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelFault {
    /// An error in the dialect's words.
    Error(ModelErrorKind),
    /// An error with further headers, such as hints.
    ErrorWith(ModelErrorKind, Vec<(&'static str, String)>),
    /// A rate limit with Google's `RetryInfo` in its body.
    RetryInfo(Duration),
    /// A page for browsers, as proxies on the way return.
    Html(u16),
    /// Status 200, and the error instead of an answer.
    ErrorWithin(ModelErrorKind),
    /// An error event; instead of a whole answer: [`ModelFault::ErrorWithin`].
    ErrorEvent(StreamPart, ModelErrorKind),
    /// A good end of the body, without the end of the answer.
    Truncated(StreamPart),
    /// A broken connection.
    Cut(StreamPart),
    /// Silence, for ever.
    Stall(StreamPart),
    /// Nothing but pings or comments from there on, one after each of this time.
    Pings(StreamPart, Duration),
    /// A request that is accepted and never answered.
    Hang,
}

fn response(status: u16, media: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    let id = HeaderValue::from_static("req_fake");
    headers.insert(HeaderName::from_static("request-id"), id.clone());
    headers.insert(HeaderName::from_static("x-request-id"), id);
    response
}

fn whole(status: u16, body: &Value) -> Response {
    response(status, "application/json", Body::from(body.to_string()))
}

/// Returns the response to a request.
pub(super) async fn respond(
    answer: &ModelAnswer,
    fault: Option<ModelFault>,
    pace: Duration,
    leaving: &impl Fn() -> LeavingCaller,
) -> Response {
    let api = answer.shape.api();
    match fault {
        Some(ModelFault::Error(kind)) => {
            let (status, body) = error(api, kind);
            whole(status, &body)
        }
        Some(ModelFault::ErrorWith(kind, lines)) => {
            let (status, body) = error(api, kind);
            let mut response = whole(status, &body);
            for (name, value) in lines {
                if let Ok(value) = HeaderValue::try_from(value) {
                    response.headers_mut().append(name, value);
                }
            }
            response
        }
        Some(ModelFault::RetryInfo(delay)) => {
            let (status, mut body) = error(Api::Google, ModelErrorKind::RateLimit);
            body["error"]["details"] = json!([{
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{}s", delay.as_secs_f64()),
            }]);
            whole(status, &body)
        }
        Some(ModelFault::Html(status)) => {
            let page = "<!DOCTYPE html><html><title>Error</title></html>";
            response(status, "text/html", Body::from(page))
        }
        Some(ModelFault::ErrorWithin(kind)) => whole(200, &error(api, kind).1),
        Some(ModelFault::ErrorEvent(_, kind)) if !answer.is_streamed => {
            whole(200, &error(api, kind).1)
        }
        Some(ModelFault::Hang) => {
            let _leaving = leaving();
            std::future::pending().await
        }
        fault => {
            let media = match answer.shape {
                _ if !answer.is_streamed => "application/json",
                ApiShape::ContentArray => "application/json",
                _ => "text/event-stream; charset=utf-8",
            };
            let parts = parts(answer, fault);
            let body = Body::from_stream(paced(parts, pace, leaving()));
            response(200, media, body)
        }
    }
}

/// A step of a body.
#[derive(Debug, Clone)]
enum BodyStep {
    Piece(String),
    /// The answer has been sent.
    Done,
    Break,
    Silence,
    Pings(&'static str, Duration),
}

/// Returns the steps of a body, up to its fault.
fn parts(answer: &ModelAnswer, fault: Option<ModelFault>) -> Vec<BodyStep> {
    let piece = |text: String| BodyStep::Piece(text);
    if !answer.is_streamed {
        let text = answer.whole().to_string();
        let half = text.len() / 2;
        let end = match fault {
            Some(ModelFault::Truncated(_)) => BodyStep::Done,
            Some(ModelFault::Cut(_)) => BodyStep::Break,
            Some(ModelFault::Stall(_)) => BodyStep::Silence,
            Some(ModelFault::Pings(_, every)) => BodyStep::Pings(" ", every),
            _ => return vec![piece(text), BodyStep::Done],
        };
        return vec![piece(text[..half].to_owned()), end];
    }
    let events = answer.events();
    let (part, end) = match fault {
        Some(ModelFault::ErrorEvent(part, kind)) => {
            let event = piece(event(answer.shape, kind));
            (part, vec![event, BodyStep::Done])
        }
        Some(ModelFault::Truncated(part)) => (part, vec![BodyStep::Done]),
        Some(ModelFault::Cut(part)) => (part, vec![BodyStep::Break]),
        Some(ModelFault::Stall(part)) => (part, vec![BodyStep::Silence]),
        Some(ModelFault::Pings(part, every)) => (part, vec![BodyStep::Pings(events.ping, every)]),
        _ => {
            let mut steps = vec![piece(events.opening)];
            steps.extend(events.content.into_iter().map(piece));
            steps.extend([piece(events.end), BodyStep::Done]);
            return steps;
        }
    };
    let mut steps = Vec::new();
    if part != StreamPart::Head {
        steps.push(piece(events.opening));
    }
    if part == StreamPart::Content {
        steps.extend(events.content.into_iter().take(1).map(piece));
    }
    steps.extend(end);
    steps
}

/// Sends the steps, each but the first after a pause.
fn paced(
    steps: Vec<BodyStep>,
    pace: Duration,
    leaving: LeavingCaller,
) -> impl Stream<Item = Result<Bytes, io::Error>> {
    let state = (steps.into_iter(), leaving, true);
    let pieces = stream::unfold(
        state,
        move |(mut steps, mut leaving, is_first)| async move {
            let step = steps.next()?;
            if !is_first && !pace.is_zero() && matches!(step, BodyStep::Piece(_)) {
                tokio::time::sleep(pace).await;
            }
            let sent = match step {
                BodyStep::Piece(text) => Ok(Bytes::from(text)),
                BodyStep::Done => {
                    leaving.done();
                    return None;
                }
                BodyStep::Break => {
                    leaving.done();
                    // The earlier pieces get out first.
                    tokio::task::yield_now().await;
                    Err(io::Error::other("the fake breaks off"))
                }
                BodyStep::Silence => std::future::pending().await,
                BodyStep::Pings(ping, every) => {
                    tokio::time::sleep(every).await;
                    let again = vec![BodyStep::Pings(ping, every)];
                    return Some((
                        Ok(Bytes::from_static(ping.as_bytes())),
                        (again.into_iter(), leaving, false),
                    ));
                }
            };
            Some((sent, (steps, leaving, false)))
        },
    );
    // Google has no events before its content.
    pieces.filter(|piece| {
        let is_some = !matches!(piece, Ok(bytes) if bytes.is_empty());
        std::future::ready(is_some)
    })
}
