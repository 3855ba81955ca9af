//! Spans of requests, and their context in the caller's trace (feature `otel`).
//!
//! A request has one span, which ends with its response. Each attempt at a dependency has a child
//! span, and its context is sent to the dependency. This module does not know where spans are
//! exported. Their attributes are bounded, and contain no query and no header values.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tokio::time::Instant;

use super::call_note::CallNote;
use super::credentials::without_secrets;
use super::headers::{ATTEMPTS, SOURCE};
use super::message::{HttpFailure, HttpRequest};
use super::own_tls::OverTls;
use super::path::begin_of;
use crate::config::unix_socket;
use crate::model::AnswerFigures;

static PARENT: HeaderName = HeaderName::from_static("traceparent");
static STATE: HeaderName = HeaderName::from_static("tracestate");

/// Maximum length of an address in a span.
const MAX_PATH: usize = 1024;
/// Tolerance for the limit of an attempt: its timer started a little before the span.
const EARLY: Duration = Duration::from_millis(1);
/// Maximum length of the name of a model in a span.
const MAX_MODEL: usize = 256;
/// Maximum length of an unknown method in a span.
const MAX_METHOD: usize = 32;

/// Makes spans of requests. The default makes none and passes the callers' trace headers through.
#[derive(Clone, Default)]
pub struct Tracing(Option<Arc<SdkTracer>>);

impl Tracing {
    /// Uses a tracer; its provider does the sampling and the export.
    pub(crate) fn by(tracer: SdkTracer) -> Self {
        Self(Some(Arc::new(tracer)))
    }

    /// Begins the span of a request.
    pub(super) fn begin<B>(&self, request: &Request<B>, peer: SocketAddr) -> Option<RequestSpan> {
        let tracer = self.0.as_deref()?;
        let (method, other) = method_of(request.method());
        let builder = SpanBuilder::from_name(method).with_kind(SpanKind::Server);
        let mut span = tracer.build_with_context(builder, &parent(request.headers()));
        if span.is_recording() {
            span.set_attribute(KeyValue::new("http.request.method", method));
            if let Some(other) = other {
                span.set_attribute(KeyValue::new("http.request.method_original", other));
            }
            let path = without_secrets(begin_of(request.uri().path(), MAX_PATH));
            span.set_attribute(KeyValue::new("url.path", path));
            let is_tls = request.extensions().get::<OverTls>().is_some();
            let scheme = if is_tls { "https" } else { "http" };
            span.set_attribute(KeyValue::new("url.scheme", scheme));
            span.set_attribute(KeyValue::new("network.protocol.version", version(request)));
            let address = peer.ip().to_canonical().to_string();
            span.set_attribute(KeyValue::new("client.address", address));
        }
        Some(RequestSpan(Box::new(RequestSpanInner {
            method,
            context: span.span_context().clone(),
            span: RefCell::new(span),
            is_answered: false,
        })))
    }

    /// Returns the factory for spans of attempts at a dependency.
    pub(super) fn attempts(&self, name: &str, url: &str) -> AttemptTracer {
        let target = self.0.as_ref().map(|tracer| {
            let socket = unix_socket(url).map(|(_, prefix)| format!("http://localhost{prefix}"));
            let uri: Uri = socket.as_deref().unwrap_or(url).parse().unwrap_or_default();
            let scheme = uri.scheme_str().unwrap_or("http");
            let port = uri.port_u16();
            let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
            let host = uri.host().unwrap_or_default();
            let prefix = uri.path().trim_end_matches('/');
            Arc::new(AttemptTarget {
                tracer: Arc::clone(tracer),
                dependency: name.to_owned(),
                base: format!("{scheme}://{host}:{port}{prefix}"),
                host: host.trim_matches(['[', ']']).to_owned(),
                port,
            })
        });
        AttemptTracer(target)
    }
}

impl fmt::Debug for Tracing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_on = self.0.is_some();
        out.debug_tuple("Tracing").field(&is_on).finish()
    }
}

/// The span of a request, until its response has been delivered.
pub(super) struct RequestSpan(Box<RequestSpanInner>);

struct RequestSpanInner {
    method: &'static str,
    context: SpanContext,
    span: RefCell<Span>,
    is_answered: bool,
}

impl RequestSpan {
    /// Sets the dependency.
    pub(super) fn concerns(&self, dependency: &str) {
        let mut span = self.0.span.borrow_mut();
        if span.is_recording() {
            span.update_name(format!("{} /{dependency}", self.0.method));
            span.set_attribute(KeyValue::new("http.route", format!("/{dependency}/*")));
            let name = dependency.to_owned();
            span.set_attribute(KeyValue::new("breakerbox.dependency", name));
        }
    }

    /// Returns the id of the trace.
    pub(super) fn trace_id(&self) -> Option<String> {
        Some(self.0.context.trace_id().to_string())
    }

    /// Sets the state of the breaker after the call.
    pub(super) fn left(&self, state: &'static str) {
        let mut span = self.0.span.borrow_mut();
        if span.is_recording() {
            span.set_attribute(KeyValue::new("breakerbox.state", state));
        }
    }

    /// Makes this span the parent of the receiver's spans.
    pub(super) fn pass_on(&self, headers: &mut HeaderMap) {
        write(&self.0.context, headers);
    }

    /// Sets the request of the Model Context Protocol that is answered, by the conventions for it.
    fn answers(&self, note: &CallNote) {
        let mut span = self.0.span.borrow_mut();
        if !span.is_recording() {
            return;
        }
        let route = format!("/{}/mcp", note.dependency);
        span.update_name(format!("{} {route}", self.0.method));
        span.set_attribute(KeyValue::new("http.route", route));
        let name = note.dependency.clone();
        span.set_attribute(KeyValue::new("breakerbox.dependency", name));
        span.set_attribute(KeyValue::new("mcp.method.name", note.method.clone()));
        if let Some(tool) = &note.tool {
            span.set_attribute(KeyValue::new("gen_ai.operation.name", "execute_tool"));
            span.set_attribute(KeyValue::new("gen_ai.tool.name", tool.clone()));
        }
    }

    /// Records the response. The span goes on with its body.
    pub(super) fn answered<B>(&mut self, response: &Response<B>) {
        if let Some(note) = response.extensions().get::<CallNote>() {
            self.answers(note);
        }
        let inner = &mut *self.0;
        inner.is_answered = true;
        let span = inner.span.get_mut();
        if span.is_recording() {
            let status = response.status();
            note_status(span, status.as_u16(), status.is_server_error());
            let word = |name: &HeaderName| {
                let value = response.headers().get(name)?;
                value.to_str().ok()
            };
            if let Some(source) = word(&SOURCE) {
                span.set_attribute(KeyValue::new("breakerbox.source", source.to_owned()));
            }
            let attempts = word(&ATTEMPTS).and_then(|count| count.parse::<i64>().ok());
            if let Some(attempts) = attempts {
                span.set_attribute(KeyValue::new("breakerbox.attempts", attempts));
            }
        }
    }

    /// Records that the response broke off.
    pub(super) fn broke_off(&mut self) {
        note_error(self.0.span.get_mut(), "broke_off");
    }
}

impl Drop for RequestSpanInner {
    fn drop(&mut self) {
        if !self.is_answered {
            // The caller disconnected before there was a response.
            let span = self.span.get_mut();
            span.set_attribute(KeyValue::new("breakerbox.cancelled", true));
        }
    }
}

/// Makes spans of the attempts at one dependency. Cheap to clone.
#[derive(Clone)]
pub(super) struct AttemptTracer(Option<Arc<AttemptTarget>>);

struct AttemptTarget {
    tracer: Arc<SdkTracer>,
    dependency: String,
    /// Its address without the path of the request.
    base: String,
    host: String,
    port: u16,
}

impl AttemptTracer {
    /// Begins the span of an attempt, as a child of the context in the request. `number`: of the
    /// attempt, from 1. `limit`: time limit of the attempt.
    pub(super) fn begin(
        &self,
        request: &HttpRequest,
        number: u32,
        limit: impl FnOnce() -> Option<Duration>,
    ) -> Option<AttemptSpan> {
        let target = self.0.as_deref()?;
        let (method, other) = method_of(request.method());
        let builder = SpanBuilder::from_name(method).with_kind(SpanKind::Client);
        let parent = parent(request.headers());
        let mut span = target.tracer.build_with_context(builder, &parent);
        if span.is_recording() {
            span.set_attribute(KeyValue::new("http.request.method", method));
            if let Some(other) = other {
                span.set_attribute(KeyValue::new("http.request.method_original", other));
            }
            let path = request.target().split('?').next().unwrap_or_default();
            let path = without_secrets(begin_of(path, MAX_PATH));
            let full = format!("{}{path}", target.base);
            span.set_attribute(KeyValue::new("url.full", full));
            span.set_attribute(KeyValue::new("server.address", target.host.clone()));
            span.set_attribute(KeyValue::new("server.port", i64::from(target.port)));
            let name = target.dependency.clone();
            span.set_attribute(KeyValue::new("breakerbox.dependency", name));
            if number > 1 {
                let again = i64::from(number - 1);
                span.set_attribute(KeyValue::new("http.request.resend_count", again));
            }
        }
        let mut headers = request.headers().clone();
        write(span.span_context(), &mut headers);
        Some(AttemptSpan(Box::new(AttemptSpanInner {
            span,
            request: request.with_headers(headers),
            due: limit().map(|limit| Instant::now() + limit.saturating_sub(EARLY)),
            is_over: false,
        })))
    }
}

impl fmt::Debug for AttemptTracer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.as_ref().map(|target| &target.dependency);
        out.debug_tuple("Attempts").field(&name).finish()
    }
}

/// The span of an attempt, until its response has arrived.
pub(super) struct AttemptSpan(Box<AttemptSpanInner>);

struct AttemptSpanInner {
    span: Span,
    request: HttpRequest,
    due: Option<Instant>,
    /// True if the result is recorded.
    is_over: bool,
}

impl AttemptSpan {
    /// Returns the request to send, with the context of this span.
    pub(super) fn request(&self) -> HttpRequest {
        self.0.request.clone()
    }

    /// Records the result, as far as the head of the response tells.
    pub(super) fn came_to(&mut self, answered: Result<StatusCode, HttpFailure>) {
        self.0.is_over = true;
        let span = &mut self.0.span;
        match answered {
            Ok(status) => {
                let status = status.as_u16();
                note_status(span, status, status >= 400);
            }
            Err(failure) => note_error(span, word_of(failure)),
        }
    }

    /// Sets the model that is asked for, by the conventions for generative AI.
    pub(super) fn asks_model(&mut self, model: &str, operation: &'static str) {
        let span = &mut self.0.span;
        if span.is_recording() {
            span.set_attribute(KeyValue::new("gen_ai.operation.name", operation));
            span.set_attribute(KeyValue::new(
                "gen_ai.request.model",
                begin_of(model, MAX_MODEL).to_owned(),
            ));
        }
    }

    /// Records the model that has answered, and its tokens: never a prompt or an answer.
    pub(super) fn generated(&mut self, figures: &AnswerFigures) {
        let span = &mut self.0.span;
        if !span.is_recording() {
            return;
        }
        if let Some(model) = &figures.model {
            span.set_attribute(KeyValue::new(
                "gen_ai.response.model",
                begin_of(model, MAX_MODEL).to_owned(),
            ));
        }
        for (name, count) in [
            ("gen_ai.usage.input_tokens", figures.usage.input),
            ("gen_ai.usage.output_tokens", figures.usage.output),
        ] {
            if let Some(count) = count.and_then(|count| i64::try_from(count).ok()) {
                span.set_attribute(KeyValue::new(name, count));
            }
        }
    }

    /// Records that the response broke off.
    pub(super) fn broke_off(&mut self) {
        note_error(&mut self.0.span, word_of(HttpFailure::Reset));
    }
}

impl Drop for AttemptSpanInner {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // Dropped after its limit, the attempt has timed out.
        if self.due.is_some_and(|due| Instant::now() >= due) {
            note_error(&mut self.span, "timeout");
        } else {
            self.span
                .set_attribute(KeyValue::new("breakerbox.cancelled", true));
        }
    }
}

fn note_status(span: &mut Span, status: u16, is_error: bool) {
    span.set_attribute(KeyValue::new(
        "http.response.status_code",
        i64::from(status),
    ));
    if is_error {
        span.set_attribute(KeyValue::new("error.type", status.to_string()));
        span.set_status(Status::error(""));
    }
}

fn note_error(span: &mut Span, kind: &'static str) {
    span.set_attribute(KeyValue::new("error.type", kind));
    span.set_status(Status::error(""));
}

fn word_of(failure: HttpFailure) -> &'static str {
    match failure {
        HttpFailure::Status(_) | HttpFailure::Declined | HttpFailure::Grpc(_) => "status",
        HttpFailure::Connect(_) => "connect",
        HttpFailure::Reset
        | HttpFailure::Answer(_)
        | HttpFailure::UploadCut
        | HttpFailure::ClosedOnReuse
        | HttpFailure::Unprocessed
        | HttpFailure::Leaving => "reset",
        HttpFailure::Late(_) => "timeout",
        HttpFailure::Content(failure) if failure.is_silence() => "timeout",
        HttpFailure::Content(_) => "no_content",
        HttpFailure::TooLong => "too_long",
        HttpFailure::BodyTooLarge(_)
        | HttpFailure::BodyTooSlow(_)
        | HttpFailure::BodyCut
        | HttpFailure::BodyGone
        | HttpFailure::Unsent(_) => "request_body",
        HttpFailure::NoMemory => "no_memory",
    }
}

/// Returns a method by the convention: a known method, else `_OTHER` and the original.
fn method_of(method: &Method) -> (&'static str, Option<String>) {
    const KNOWN: [&str; 9] = [
        "GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "CONNECT",
    ];
    match KNOWN.into_iter().find(|known| *known == method.as_str()) {
        Some(known) => (known, None),
        None => (
            "_OTHER",
            Some(begin_of(method.as_str(), MAX_METHOD).to_owned()),
        ),
    }
}

fn version<B>(request: &Request<B>) -> &'static str {
    match request.version() {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

/// Reads the context from headers; empty if they do not follow the standard.
fn parent(headers: &HeaderMap) -> Context {
    // Several `tracestate` lines form one list. Two `traceparent` lines are invalid.
    let mut parents = headers.get_all(&PARENT).iter();
    let first = parents.next().and_then(|value| value.to_str().ok());
    let states = headers.get_all(&STATE).iter();
    let states: Vec<&str> = states.filter_map(|value| value.to_str().ok()).collect();
    let carried = ParentHeaders {
        parent: first.filter(|text| parents.next().is_none() && has_whole_ids(text)),
        state: (!states.is_empty()).then(|| states.join(",")),
    };
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carried)
}

/// Returns true if each part has its required length, which the propagator does not check.
fn has_whole_ids(text: &str) -> bool {
    let mut parts = text.trim().split('-').map(str::len);
    [2, 32, 16, 2]
        .into_iter()
        .all(|length| parts.next() == Some(length))
}

/// Writes a context, replacing the one in the headers.
fn write(context: &SpanContext, headers: &mut HeaderMap) {
    headers.remove(&PARENT);
    headers.remove(&STATE);
    let context = Context::new().with_remote_span_context(context.clone());
    TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
}

struct ParentHeaders<'a> {
    parent: Option<&'a str>,
    state: Option<String>,
}

impl Extractor for ParentHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if key == PARENT.as_str() {
            self.parent
        } else if key == STATE.as_str() {
            self.state.as_deref()
        } else {
            None
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT.as_str(), STATE.as_str()]
    }
}

struct HeaderInjector<'a>(&'a mut HeaderMap);

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        let value = HeaderValue::try_from(value);
        let value = value.ok().filter(|value| !value.is_empty());
        if let (Ok(name), Some(value)) = (HeaderName::try_from(key), value) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn passed_on(lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let context = parent(&headers);
        let context = context.span().span_context().clone();
        write(&context, &mut headers);
        let lines = headers.iter();
        let lines = lines.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        lines.collect()
    }

    #[test]
    fn a_context_is_read_as_the_standard_has_it() {
        let parent = format!("traceparent: {ID}");
        assert_eq!(passed_on(&[("traceparent", ID)]), [parent.as_str()]);
        let found = passed_on(&[
            ("traceparent", ID),
            ("tracestate", "a=1,b=2"),
            ("tracestate", "c=3"),
            ("baggage", "user=7"),
        ]);
        let expected = [
            "baggage: user=7".to_owned(),
            parent,
            "tracestate: a=1,b=2,c=3".to_owned(),
        ];
        let mut found = found;
        found.sort();
        assert_eq!(found, expected);
        // An invalid context is dropped, and its state with it.
        for bad in [
            "",
            "00-1-2-01",
            "00-00000000000000000000000000000000-0000000000000000-01",
        ] {
            assert!(passed_on(&[("traceparent", bad), ("tracestate", "a=1")]).is_empty());
        }
        assert!(passed_on(&[("traceparent", ID), ("traceparent", ID)]).is_empty());
    }

    #[test]
    fn what_a_span_shows_is_bounded() {
        let long = Method::from_bytes("X".repeat(1000).as_bytes()).unwrap();
        let (word, other) = method_of(&long);
        assert_eq!((word, other.unwrap().len()), ("_OTHER", MAX_METHOD));
        assert_eq!(method_of(&Method::PATCH), ("PATCH", None));
    }
}
