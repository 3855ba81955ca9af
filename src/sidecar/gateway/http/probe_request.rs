//! One active probe of an HTTP dependency: its request, and the judgement of the answer.
//!
//! It goes the way of calls, with the dependency's own headers and credentials. It decides neither
//! when it is made nor what follows from it.

use std::time::Duration;

use breakerbox_policy::{Class, Symptom};
use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::error::HttpError;
use super::pool::PooledBody;
use super::request_body::Upload;
use super::send_mark::SendMark;
use super::upstream::UpstreamClient;
use crate::TimeLimit;
use crate::config::ProbeConfig;
use crate::sidecar::gateway::message::{HttpFailure, HttpRequest, RequestBody};
use crate::{Verdict, retry_after};

/// Maximum size of an answer that is read to its end, in bytes; the connection of a longer one is
/// closed.
const MAX_ANSWER: usize = 64 * 1024;

const AGENT: HeaderValue = HeaderValue::from_static(concat!(
    "breakerbox/",
    env!("CARGO_PKG_VERSION"),
    " (probe)"
));

/// Answer to a probe.
pub(crate) struct ProbeAnswer {
    pub(crate) verdict: Verdict,
    /// The answer in words that hold no secret.
    pub(crate) text: String,
    /// The dependency asked to be left alone for this time.
    pub(crate) retry_after: Option<Duration>,
    /// True if the probe asked wrongly: it is no answer of a dependency that is well or sick.
    pub(crate) is_misplaced: bool,
}

/// Sends a probe and judges its answer. `limit`: of the whole probe.
pub(crate) async fn send(
    upstream: &UpstreamClient,
    config: &ProbeConfig,
    limit: Duration,
) -> ProbeAnswer {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, AGENT);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let to = (Method::GET, config.path.clone());
    let request = HttpRequest::new(to, headers, RequestBody::Whole(Bytes::new()), true);
    let body = Upload::Whole(Some(Bytes::new()));
    let asking = async {
        let limits = (Instant::now(), Some(limit));
        let mark = SendMark::begin(request.progress());
        let response = upstream.send(&request, body, limits, &mark).await?;
        Ok::<_, HttpError>(read(response).await)
    };
    match tokio::time::timeout(limit, asking).await {
        Ok(Ok((status, hint))) => judge(config, status, hint),
        Ok(Err(error)) => failed(error),
        Err(_) => failed(HttpFailure::Late(TimeLimit::Probe).into()),
    }
}

/// Reads the answer to its end if it is short, so that the connection can be used again.
async fn read(response: Response<PooledBody>) -> (StatusCode, Option<Duration>) {
    let (head, mut body) = response.into_parts();
    let mut length = 0;
    // An answer that breaks off has a status all the same.
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
        if length > MAX_ANSWER {
            break;
        }
    }
    let hint = retry_after::read(head.status.as_u16(), &head.headers, None);
    (head.status, hint)
}

fn judge(config: &ProbeConfig, status: StatusCode, hint: Option<Duration>) -> ProbeAnswer {
    let number = status.as_u16();
    let is_good = config.status.iter().any(|range| range.contains(number));
    let class = match number {
        _ if is_good => Class::Success,
        429 => Class::Throttled,
        500.. => Class::Failure,
        // BRK-13: a wrong path or key is no sickness, and must not keep a breaker open.
        _ => Class::Rejected,
    };
    let verdict = Verdict::from(class).symptom(Symptom::Status(number));
    ProbeAnswer {
        verdict: match hint {
            Some(wait) if class == Class::Failure => verdict.retry_after(wait),
            _ => verdict,
        },
        text: format!("it answered {number}"),
        retry_after: hint.filter(|_| class == Class::Throttled),
        is_misplaced: class == Class::Rejected,
    }
}

fn failed(error: HttpError) -> ProbeAnswer {
    let mut verdict = error.verdict();
    // EDGE-1: our own lack of descriptors or memory says nothing about it.
    if verdict.class != Class::Cancelled {
        verdict.class = Class::Failure;
    }
    ProbeAnswer {
        verdict,
        text: error.to_string(),
        retry_after: None,
        is_misplaced: false,
    }
}
