//! Replaces `trace` in a build without the feature `otel`: no spans, and no cost.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};

use super::message::{HttpFailure, HttpRequest};
use crate::model::AnswerFigures;

/// Makes spans of requests. In this build it makes none and passes the callers' trace headers
/// through.
#[derive(Debug, Clone, Default)]
pub struct Tracing(());

impl Tracing {
    pub(super) fn begin<B>(&self, _: &Request<B>, _: SocketAddr) -> Option<RequestSpan> {
        None
    }

    pub(super) fn attempts(&self, _: &str, _: &str) -> AttemptTracer {
        AttemptTracer(())
    }
}

/// Never constructed.
pub(super) struct RequestSpan(Infallible);

impl RequestSpan {
    pub(super) fn concerns(&self, _: &str) {
        match self.0 {}
    }

    pub(super) fn trace_id(&self) -> Option<String> {
        match self.0 {}
    }

    pub(super) fn left(&self, _: &'static str) {
        match self.0 {}
    }

    pub(super) fn pass_on(&self, _: &mut HeaderMap) {
        match self.0 {}
    }

    pub(super) fn answered<B>(&mut self, _: &Response<B>) {
        match self.0 {}
    }

    pub(super) fn broke_off(&mut self) {
        match self.0 {}
    }
}

/// Makes no spans.
#[derive(Debug, Clone)]
pub(super) struct AttemptTracer(());

impl AttemptTracer {
    pub(super) fn begin(
        &self,
        _: &HttpRequest,
        _: u32,
        _: impl FnOnce() -> Option<Duration>,
    ) -> Option<AttemptSpan> {
        None
    }
}

/// Never constructed.
pub(super) struct AttemptSpan(Infallible);

impl AttemptSpan {
    pub(super) fn request(&self) -> HttpRequest {
        match self.0 {}
    }

    pub(super) fn came_to(&mut self, _: Result<StatusCode, HttpFailure>) {
        match self.0 {}
    }

    pub(super) fn asks_model(&mut self, _: &str, _: &'static str) {
        match self.0 {}
    }

    pub(super) fn generated(&mut self, _: &AnswerFigures) {
        match self.0 {}
    }

    pub(super) fn broke_off(&mut self) {
        match self.0 {}
    }
}
