//! Responses that are whole, and the labels of all responses.

use breakerbox_actors::nearest_word;
use bytes::Bytes;
use http::header::{AGE, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body::Body as _;

use crate::sidecar::gateway::head_rules::refuse_without_tls;
use crate::sidecar::gateway::headers::{ATTEMPTS, SOURCE, source_beyond};
use crate::sidecar::gateway::http::body::{ReplyBody, RestLimits};
use crate::sidecar::gateway::http::error_body::ErrorBody;
use crate::sidecar::gateway::http::grpc;
use crate::sidecar::gateway::http::response_stream::has_no_content;
use crate::sidecar::gateway::mcp::endpoint::refused_by_protocol;
use crate::sidecar::gateway::message::HttpReply;
use crate::sidecar::gateway::problem::{GatewayProblem, ProblemFacts, ProblemKind};
use crate::sidecar::gateway::route::ThreadContext;
use crate::{Answer, AnswerSource};

/// Returns the response to a call that was not answered when the time of a shutdown was over.
pub(super) fn cut_off(lane: &ThreadContext, uri: &Uri) -> Response<ReplyBody> {
    let first = uri.path().split('/').nth(1).unwrap_or_default();
    let routes = lane.routes.load();
    let route = routes.get(first);
    // CALL-2: it may have gone out already.
    let problem = GatewayProblem::cut_off(route.map(|_| first));
    let response = problem.into_response();
    own(
        match route {
            Some(route) if route.is_mcp() => refused_by_protocol(response),
            _ => response,
        },
        0,
    )
}

/// Lists the names of the dependencies, one a line.
pub(super) fn list(lane: &ThreadContext) -> Response<ReplyBody> {
    let routes = lane.routes.load();
    let mut names: Vec<&str> = routes.keys().map(|name| &**name).collect();
    names.sort_unstable();
    let text: String = names.iter().map(|name| format!("/{name}/\n")).collect();
    let mut response = Response::new(ReplyBody::whole(Bytes::from(text)));
    let media = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// Returns the problem of a path that names no dependency that is there.
pub(super) fn not_there<'a>(lane: &ThreadContext, asked: Option<&'a str>) -> GatewayProblem<'a> {
    if let Some(name) = asked.filter(|name| lane.awaited.load().contains(*name)) {
        // EDGE-6: a name that the file has is never unknown.
        return GatewayProblem::starting(name);
    }
    let detail = unknown(lane, asked.unwrap_or_default());
    GatewayProblem::of(ProblemKind::UNKNOWN, asked, detail)
}

/// Describes a path that names no dependency.
fn unknown(lane: &ThreadContext, asked: &str) -> String {
    let detail = "the first part of the path is the name of a dependency; / lists them";
    let routes = lane.routes.load();
    match nearest_word(asked, routes.keys().map(|name| &**name)) {
        // Its length is bounded by that of the known one.
        Some(near) => format!("{detail}; did you mean /{near}/?"),
        None => detail.to_owned(),
    }
}

/// Builds the response of a whole answer.
pub(super) fn in_one_piece(answer: Answer<HttpReply>, attempts: u32) -> Response<ReplyBody> {
    let Answer {
        value, source, age, ..
    } = answer;
    let mut response = Response::new(whole_body(value.body, value.trailers));
    *response.status_mut() = value.status;
    *response.headers_mut() = value.headers;
    if let Some(age) = age {
        let age = HeaderValue::from(age.as_secs());
        response.headers_mut().insert(AGE, age);
    }
    signed(response, &source, attempts)
}

/// Returns a whole body with its trailers, if it has any.
pub(super) fn whole_body(body: Bytes, trailers: Option<HeaderMap>) -> ReplyBody {
    match trailers {
        None => ReplyBody::whole(body),
        trailers => {
            let body = ErrorBody::whole(body, trailers);
            ReplyBody::failed(body, RestLimits::default())
        }
    }
}

/// Labels a response of the gateway itself.
pub(super) fn own(response: Response<ReplyBody>, attempts: u32) -> Response<ReplyBody> {
    let source = HeaderValue::from_static("gateway");
    with_signs(response, source, attempts)
}

/// Labels a response with the source of its answer.
pub(super) fn signed(
    response: Response<ReplyBody>,
    source: &AnswerSource,
    attempts: u32,
) -> Response<ReplyBody> {
    let source = match source {
        // FBK-3: a gateway in between has named the source.
        AnswerSource::Primary => match source_beyond(response.headers()) {
            Some(beyond) => beyond.clone(),
            None => HeaderValue::from_static("primary"),
        },
        // The names of fallbacks are plain ASCII.
        source => HeaderValue::try_from(source.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("fallback")),
    };
    with_signs(response, source, attempts)
}

/// Adds the source of the answer and the number of attempts.
fn with_signs(
    mut response: Response<ReplyBody>,
    source: HeaderValue,
    attempts: u32,
) -> Response<ReplyBody> {
    let headers = response.headers_mut();
    headers.insert(SOURCE, source);
    let attempts = match attempts {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(more),
    };
    headers.insert(ATTEMPTS, attempts);
    response
}

/// Responds to a request without TLS where TLS is spoken.
pub(in crate::sidecar::gateway) fn refuse_unencrypted() -> Response<ReplyBody> {
    let mut response = own(refuse_without_tls(), 0);
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// Removes the content of an answer that has none by its method or its status, as hyper does for
/// HTTP/1.1 alone. `method`: of the request that it answers.
pub(super) fn without_content(
    mut response: Response<ReplyBody>,
    method: &Method,
) -> Response<ReplyBody> {
    if !has_no_content(method, response.status()) || response.body().is_end_stream() {
        return response;
    }
    // EDGE-3: the head tells what GET would bring.
    let length = response.body().size_hint().exact();
    if let Some(length) = length.filter(|_| *method == Method::HEAD) {
        let headers = response.headers_mut();
        headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    *response.body_mut() = ReplyBody::whole(Bytes::new());
    response
}

/// Turns a problem of the gateway into an answer of headers only, as gRPC clients need it. Other
/// responses stay as they are. `media`: the media type of the request.
///
/// # Source  PROTOCOL-HTTP2.md of gRPC, "Trailers-Only".
pub(super) fn trailers_only(
    mut response: Response<ReplyBody>,
    media: &HeaderValue,
) -> Response<ReplyBody> {
    let Some(facts) = ProblemFacts::told_with(&response) else {
        return response;
    };
    let code = HeaderValue::from(u16::from(facts.grpc_code));
    let message = HeaderValue::try_from(grpc::encoded(&facts.message));
    *response.status_mut() = StatusCode::OK;
    *response.body_mut() = ReplyBody::whole(Bytes::new());
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, media.clone());
    headers.insert(grpc::STATUS, code);
    if let Ok(message) = message {
        headers.insert(grpc::MESSAGE, message);
    }
    response
}
