//! The rules by which the layer judges answers, sets options and copies requests.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;

use breakerbox_policy::{Class, Executed, Symptom};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use hyper_util::client::legacy;

use crate::grpc_details::{DETAILS, wait_in_text};
use crate::integrations::{error_chain, grpc_code, http_head};
use crate::{CallOptions, Verdict};

/// Rules of a layer for one kind of service: requests, responses, errors.
///
/// # Source  Rules CALL-7 and CALL-8 in docs/rules.md.
pub trait CallRules<Req, Res, E> {
    /// Classifies the result of one attempt.
    fn classify(&self, result: Result<&Res, &E>) -> Verdict;

    /// Returns the options of a request's call.
    fn options(&self, request: &Req) -> CallOptions {
        let _ = request;
        CallOptions::default()
    }

    /// Copies a request, so that it can be sent again; `None` sends it once. The settings decide how
    /// often, and [`CallOptions::idempotent`] whether after an attempt that may have been executed.
    fn repeat(&self, request: &Req) -> Option<Req> {
        let _ = request;
        None
    }

    /// Classifies the trailers of a body that ended well; `None` is a success. Only a layer for
    /// [whole bodies](super::BreakerLayer::whole_bodies) reads them.
    fn classify_trailers(&self, trailers: &HeaderMap) -> Option<Verdict> {
        let _ = trailers;
        None
    }
}

/// Rules for HTTP: a status has the class that the settings give it, by default 5xx a failure, 429 a
/// throttle with its `Retry-After`, other 4xx the caller's mistake. Errors are failures. Methods
/// that HTTP defines as idempotent are.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpRules;

impl<A, B, E: 'static> CallRules<Request<A>, Response<B>, E> for HttpRules {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Verdict {
        match result {
            Ok(response) => http_head::verdict_on(response.status(), response.headers()),
            Err(error) => verdict_on_error(error),
        }
    }

    fn options(&self, request: &Request<A>) -> CallOptions {
        http_head::options_of(request.method())
    }
}

/// Rules for gRPC: a status has the class of the HTTP status that says the same. The head has a
/// status only if nothing else follows; to count the others, judge
/// [whole bodies](super::BreakerLayer::whole_bodies). No method counts as idempotent.
#[derive(Debug, Clone, Copy, Default)]
pub struct GrpcRules;

/// Returns the verdict on the status of gRPC in these headers or trailers, if there is one.
fn verdict_on_status(headers: &HeaderMap) -> Option<Verdict> {
    let code = headers.get("grpc-status")?.to_str().ok()?;
    // A code that is no number is an unknown one.
    let verdict = grpc_code::verdict_on(code.trim().parse().unwrap_or(-1));
    let details = headers.get(DETAILS).and_then(|value| value.to_str().ok());
    let in_details = details.and_then(wait_in_text);
    Some(grpc_code::with_wait(verdict, headers, in_details))
}

impl<A, B, E: 'static> CallRules<Request<A>, Response<B>, E> for GrpcRules {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Verdict {
        let response = match result {
            Ok(response) => response,
            Err(error) => return verdict_on_error(error),
        };
        let media = response.headers().get(CONTENT_TYPE);
        let is_grpc = media.is_some_and(|media| media.as_bytes().starts_with(b"application/grpc"));
        verdict_on_status(response.headers())
            .filter(|_| is_grpc)
            // A proxy on the way answers by HTTP alone.
            .unwrap_or_else(|| http_head::verdict_on(response.status(), response.headers()))
    }

    fn classify_trailers(&self, trailers: &HeaderMap) -> Option<Verdict> {
        verdict_on_status(trailers)
    }
}

/// Rules for any service: every error is a failure, and every response a success.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResultRules;

impl<Req, Res, E: 'static> CallRules<Req, Res, E> for ResultRules {
    fn classify(&self, result: Result<&Res, &E>) -> Verdict {
        match result {
            Ok(_) => Verdict::from(Class::Success),
            Err(error) => verdict_on_error(error),
        }
    }
}

/// Returns the verdict on an error of a service, by what is known of its type.
fn verdict_on_error<E: 'static>(error: &E) -> Verdict {
    let any = error as &dyn Any;
    if let Some(error) = any.downcast_ref::<legacy::Error>() {
        return verdict_on_source(error);
    }
    if let Some(error) = any.downcast_ref::<Box<dyn Error + Send + Sync>>() {
        return verdict_on_source(&**error);
    }
    if let Some(error) = any.downcast_ref::<std::io::Error>() {
        return verdict_on_source(error);
    }
    #[cfg(feature = "tonic")]
    if let Some(status) = any.downcast_ref::<tonic::Status>() {
        return crate::integrations::tonic::verdict_on_status(status);
    }
    #[cfg(feature = "tonic")]
    if let Some(error) = any.downcast_ref::<tonic::transport::Error>() {
        return verdict_on_source(error);
    }
    Verdict::from(Class::Failure)
}

fn verdict_on_source(error: &(dyn Error + 'static)) -> Verdict {
    let is_connect = |one: &(dyn Error + 'static)| {
        #[cfg(feature = "tonic")]
        if one.is::<tonic::ConnectError>() {
            return true;
        }
        let client = one.downcast_ref::<legacy::Error>();
        client.is_some_and(legacy::Error::is_connect)
    };
    // CALL-2: without a connection there was nothing to send the request on.
    if error_chain::sources(error).any(is_connect) {
        return Verdict::from(Symptom::Connect).executed(Executed::No);
    }
    error_chain::verdict_on(error)
}

/// Rules with a function that classifies in their place.
#[derive(Debug)]
pub struct ClassifyRule<R, F> {
    pub(super) rules: Arc<R>,
    pub(super) classify: F,
}

impl<R, F, Req, Res, E> CallRules<Req, Res, E> for ClassifyRule<R, F>
where
    R: CallRules<Req, Res, E>,
    F: Fn(Result<&Res, &E>) -> Verdict,
{
    fn classify(&self, result: Result<&Res, &E>) -> Verdict {
        (self.classify)(result)
    }

    fn options(&self, request: &Req) -> CallOptions {
        self.rules.options(request)
    }

    fn repeat(&self, request: &Req) -> Option<Req> {
        self.rules.repeat(request)
    }

    fn classify_trailers(&self, trailers: &HeaderMap) -> Option<Verdict> {
        self.rules.classify_trailers(trailers)
    }
}

/// Rules with a function that sets the options in their place.
#[derive(Debug)]
pub struct OptionsRule<R, F> {
    pub(super) rules: Arc<R>,
    pub(super) options: F,
}

impl<R, F, Req, Res, E> CallRules<Req, Res, E> for OptionsRule<R, F>
where
    R: CallRules<Req, Res, E>,
    F: Fn(&Req) -> CallOptions,
{
    fn classify(&self, result: Result<&Res, &E>) -> Verdict {
        self.rules.classify(result)
    }

    fn options(&self, request: &Req) -> CallOptions {
        (self.options)(request)
    }

    fn repeat(&self, request: &Req) -> Option<Req> {
        self.rules.repeat(request)
    }

    fn classify_trailers(&self, trailers: &HeaderMap) -> Option<Verdict> {
        self.rules.classify_trailers(trailers)
    }
}

/// Rules with a function that copies requests.
#[derive(Debug)]
pub struct RepeatRule<R, F> {
    pub(super) rules: Arc<R>,
    pub(super) repeat: F,
}

impl<R, F, Req, Res, E> CallRules<Req, Res, E> for RepeatRule<R, F>
where
    R: CallRules<Req, Res, E>,
    F: Fn(&Req) -> Option<Req>,
{
    fn classify(&self, result: Result<&Res, &E>) -> Verdict {
        self.rules.classify(result)
    }

    fn options(&self, request: &Req) -> CallOptions {
        self.rules.options(request)
    }

    fn repeat(&self, request: &Req) -> Option<Req> {
        (self.repeat)(request)
    }

    fn classify_trailers(&self, trailers: &HeaderMap) -> Option<Verdict> {
        self.rules.classify_trailers(trailers)
    }
}
