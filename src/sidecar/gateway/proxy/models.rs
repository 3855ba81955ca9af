//! The parts of a call that only language models have.

use std::cell::Cell;
use std::sync::Arc;

use breakerbox_policy::Executed;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::time::{Instant, timeout};

use super::ProxiedCall;
use crate::model::ApiShape;
use crate::sidecar::gateway::http::body::{ContentEnding, ReplyBody};
use crate::sidecar::gateway::http::connect_failure::ConnectFailure;
use crate::sidecar::gateway::http::error::{HttpError, ModelFailure};
use crate::sidecar::gateway::http::request_body::Upload;
use crate::sidecar::gateway::http::response_stream::ResponseStream;
use crate::sidecar::gateway::message::{ContentFailure, HttpFailure, HttpRequest};
use crate::sidecar::gateway::model_route::ModelRoute;
use crate::sidecar::gateway::problem::{ProblemFacts, told_in};
use crate::sidecar::gateway::route::{RouteKind, ThreadContext};
use crate::sidecar::gateway::token_limits::{AttemptTokens, CallTokens};
use crate::{CallOptions, Streamed, TimeLimit};

/// Words a problem of ours for the callers of a model.
pub(super) fn told_to(
    lane: &ThreadContext,
    path: &str,
    response: Response<ReplyBody>,
) -> Response<ReplyBody> {
    if ProblemFacts::told_with(&response).is_none() {
        return response;
    }
    let routes = lane.routes.load();
    let model = match routes.get(path.split('/').nth(1).unwrap_or_default()) {
        Some(RouteKind::Http(route)) => route.model.clone(),
        Some(RouteKind::Pool(pool)) => pool.model(&routes),
        _ => None,
    };
    match model {
        Some(model) => told_in(model.api, model.callers_retry, response),
        None => response,
    }
}

impl ProxiedCall<'_> {
    /// Reads a request to a model, and sets the key of its breaker. `reads`: its body may name a
    /// model.
    ///
    /// # Errors  The body cannot be read.
    pub(super) async fn read_model(
        &self,
        model: &ModelRoute,
        request: HttpRequest,
        (reads, is_idempotent, options): (bool, bool, &mut CallOptions),
    ) -> Result<HttpRequest, HttpFailure> {
        if reads && let Upload::Passing(_) = request.upload(None, self.route.target()).await? {
            return Err(HttpFailure::BodyTooLarge("max_replay_body"));
        }
        let call = model.call(request.method(), request.target(), request.body());
        options.key = model.key_of(&call, options.key.take());
        let is_idempotent = is_idempotent || call.is_repeatable;
        Ok(request.with_model_call(call, is_idempotent))
    }

    /// Returns the tokens that each attempt of a call sets aside, if they are limited.
    pub(super) fn tokens(&self, request: &HttpRequest) -> Option<CallTokens> {
        let limits = self.route.tokens.as_ref()?;
        let call = request.model_call()?;
        let is_limited = call.shape.is_generating();
        // LLM-19: what an attempt may take is set aside before it.
        is_limited.then(|| limits.of_call(|output| ModelRoute::estimate(call, output)))
    }

    /// Sends the request once, and waits for the answer: for the head of its response, or for the
    /// first content of a model. `tokens`: of the call.
    pub(super) async fn attempt(
        &self,
        request: &HttpRequest,
        attempts: &Cell<u32>,
        until: Option<Instant>,
        tokens: Option<&CallTokens>,
    ) -> Result<ResponseStream, HttpError> {
        let held = AttemptTokens::new(tokens.map(CallTokens::take));
        let Some(model) = &self.route.model else {
            return self
                .attempt_once(request, attempts, until, held.held())
                .await;
        };
        let provided = model.outbound(request);
        // On the heap: it must not enlarge the future of every call.
        let once = Box::pin(self.attempt_once(&provided, attempts, until, held.held()));
        let is_stream = request.model_call().is_some_and(|call| call.is_stream);
        let limit = self.route.client.settings().timeout.first_token;
        let answered = match limit.filter(|_| is_stream) {
            // LLM-9: from the start of the attempt to the first content.
            Some(limit) => timeout(limit, once).await.unwrap_or_else(|_| {
                // CALL-2: no connection may have taken the request.
                let failure = match request.progress().is_unsent() {
                    true => HttpFailure::Connect(ConnectFailure::Late(TimeLimit::FirstToken)),
                    false => HttpFailure::Content(ContentFailure::NoContent),
                };
                Err(failure.into())
            }),
            None => once.await,
        };
        match &answered {
            // LLM-19: nothing was seen of it, and the prompt may have been read.
            Err(error) if error.verdict().executed != Executed::No => drop(held),
            _ => held.give_back(),
        }
        answered.map_err(|mut error| {
            let failure = error.failure;
            if matches!(failure, HttpFailure::Connect(cause) if !matches!(cause, ConnectFailure::NoResources(_)))
            {
                // LLM-18: no model of the provider can be reached.
                error.model = Some(ModelFailure::new(error.verdict().for_all_keys()));
            }
            error
        })
    }

    /// Returns the model that the provider is asked for, and the name of the operation in traces.
    pub(super) fn asked_model<'r>(
        &'r self,
        request: &'r HttpRequest,
    ) -> Option<(&'r str, &'static str)> {
        let model = self.route.model.as_ref()?;
        let call = request.model_call()?;
        let operation = match call.shape {
            ApiShape::Chat | ApiShape::Responses | ApiShape::Messages => "chat",
            ApiShape::Content | ApiShape::ContentArray => "generate_content",
            _ => return None,
        };
        Some((model.sent(call.asked.as_deref()?), operation))
    }

    /// Returns the key of a model's breaker, for a request that names none itself.
    pub(super) fn key_of_model(&self, request: &HttpRequest) -> Option<Arc<str>> {
        self.route
            .model
            .as_ref()?
            .key_of(request.model_call()?, None)
    }

    /// Returns the end of a model's stream for the case that its provider does not end it.
    pub(super) fn content_ending(
        &self,
        request: &HttpRequest,
        stream: &Streamed<ResponseStream>,
    ) -> Option<Box<ContentEnding>> {
        let model = self.route.model.as_ref()?;
        let is_content = stream.get_ref().is_some_and(ResponseStream::is_content);
        let call = request.model_call().filter(|_| is_content)?;
        let settings = (model.callers_retry, model.probe_stream);
        Some(Box::new(ContentEnding::new(
            call.shape,
            &self.route.name,
            settings,
        )))
    }

    /// Tells client libraries not to retry an error of a model.
    pub(super) fn forbid_retries(&self, status: StatusCode, headers: &mut HeaderMap) {
        let model = self.route.model.as_ref();
        if status.as_u16() >= 400 && model.is_some_and(|model| !model.callers_retry) {
            // LLM-12: one retry loop.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
    }
}
