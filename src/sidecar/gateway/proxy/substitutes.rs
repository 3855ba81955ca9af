//! Calls of other dependencies in place of the one that a caller has named, made in the caller's own
//! task.
//!
//! The fallbacks of a dependency decide which of them is asked, and when. Here the call is made as
//! any other: under the breaker, the limits and the fallbacks of the other dependency.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use http::header::AGE;
use http::{HeaderValue, Method, Response};
use tokio::sync::mpsc;
use tokio::time::Instant;

use breakerbox_policy::Executed;

use super::ProxiedCall;
use super::replies::{in_one_piece, signed};
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::http::error::HttpError;
use crate::sidecar::gateway::http::response_stream;
use crate::sidecar::gateway::message::{HttpReply, HttpRequest, SubstituteCall, SubstituteResult};
use crate::sidecar::gateway::route::RouteKind;
use crate::{Answer, CallError, CallOptions, Served};

/// The calls of other dependencies that one call needs.
pub(super) struct SubstituteCalls<'a> {
    call: &'a ProxiedCall<'a>,
    /// End of the caller's own time.
    until: Option<Instant>,
    asked: mpsc::UnboundedReceiver<SubstituteCall>,
    /// The answer of the last one.
    answer: Option<Response<ReplyBody>>,
}

/// An answer of another dependency, and its age if it was kept.
type SubstituteAnswer = Result<(Response<ReplyBody>, Option<Duration>), SubstituteResult>;

impl<'a> SubstituteCalls<'a> {
    /// Returns the request with the way to its substitutes, if it may need any.
    pub(super) fn begin(
        call: &'a ProxiedCall<'a>,
        request: HttpRequest,
        until: Option<Instant>,
    ) -> (HttpRequest, Option<Box<Self>>) {
        if !call.route.has_substitutes() {
            return (request.with_substitutes(None), None);
        }
        let (way, asked) = mpsc::unbounded_channel();
        let this = Self {
            call,
            until,
            asked,
            answer: None,
        };
        (request.with_substitutes(Some(way)), Some(Box::new(this)))
    }

    /// Makes the calls that are asked for until `calling` has ended.
    pub(super) async fn during<T>(&mut self, calling: impl Future<Output = T>) -> T {
        let mut calling = pin!(calling);
        loop {
            let asked = tokio::select! {
                biased;
                ended = &mut calling => return ended,
                Some(asked) = self.asked.recv() => asked,
            };
            // An answer that was not taken is given up.
            self.answer = None;
            let (call, until) = (self.call, self.until);
            let mut reply = asked.reply;
            let substitute = async {
                tokio::select! {
                    biased;
                    () = reply.closed() => None,
                    answer = call.substitute(&asked.name, asked.request, until) => Some(answer),
                }
            };
            let answer = tokio::select! {
                biased;
                ended = &mut calling => return ended,
                answer = substitute => answer,
            };
            let result = match answer {
                None => continue,
                Some(Ok((response, age))) => {
                    self.answer = Some(response);
                    SubstituteResult::Answered(age)
                }
                Some(Err(result)) => result,
            };
            // The fallbacks may have given up at this moment; the answer is then dropped.
            let _ = reply.send(result);
        }
    }

    /// Returns the response of a call that was answered otherwise.
    fn response(&mut self, answer: Answer<HttpReply>, attempts: u32) -> Response<ReplyBody> {
        let Some(mut response) = self.answer.take().filter(|_| answer.value.is_elsewhere) else {
            return in_one_piece(answer, attempts);
        };
        if let Some(age) = answer.age {
            let age = HeaderValue::from(age.as_secs());
            response.headers_mut().insert(AGE, age);
        }
        signed(response, &answer.source, attempts)
    }
}

/// Returns the response of a call that was answered otherwise than by a stream.
pub(super) fn answered(
    calls: &mut Option<Box<SubstituteCalls<'_>>>,
    answer: Answer<HttpReply>,
    attempts: u32,
) -> Response<ReplyBody> {
    match calls {
        Some(calls) => calls.response(answer, attempts),
        None => in_one_piece(answer, attempts),
    }
}

impl ProxiedCall<'_> {
    /// Calls another dependency. `until`: the end of the caller's own time.
    fn substitute<'b>(
        &'b self,
        name: &'b str,
        request: HttpRequest,
        until: Option<Instant>,
    ) -> Pin<Box<dyn Future<Output = SubstituteAnswer> + 'b>> {
        Box::pin(async move {
            // EDGE-6: a reload may have replaced it since the last call.
            let other = self.lane.routes.load().get(name).cloned();
            let Some(RouteKind::Http(route)) = other else {
                return Err(SubstituteResult::Unknown);
            };
            if *request.method() == Method::TRACE && route.holds_credentials() {
                // EDGE-5: its answer would show them.
                let refused = "it is not asked by TRACE".to_owned();
                return Err(SubstituteResult::Failed(refused, Executed::No));
            }
            let call = ProxiedCall {
                lane: self.lane,
                route: &route,
                started: Instant::now(),
                span: None,
            };
            call.in_place(request, until).await
        })
    }

    /// Makes the call in place of another one.
    async fn in_place(&self, request: HttpRequest, until: Option<Instant>) -> SubstituteAnswer {
        // CALL-2: it may have done what the first dependency has not.
        let failed = |error: &CallError<HttpError>| {
            SubstituteResult::Failed(error.to_string(), error.executed())
        };
        let (request, mut calls) = SubstituteCalls::begin(self, request, until);
        let ends = self.ends(until);
        let tokens = self.tokens(&request);
        let options = CallOptions {
            metered: tokens.as_ref().map(|tokens| tokens.metered.clone()),
            timeout: until.map(|end| end.saturating_duration_since(Instant::now())),
            key: self.key_of_model(&request),
            // EDGE-1: a slow body is the caller's, also if this call is the first to need it.
            progress: Some(request.progress()),
            ..CallOptions::default()
        };
        let attempts = Cell::default();
        let budget = &self.lane.budget;
        let open = || {
            let opening = self.attempt(&request, &attempts, ends, tokens.as_ref());
            async move {
                let response = opening.await?;
                // Another dependency's error is no answer to this caller.
                if response.is_error() {
                    return Err(response.into_error((None, budget)).await);
                }
                Ok(response)
            }
        };
        let client = &self.route.client;
        let mut calling =
            pin!(client.stream_or_answer(request.clone(), options, response_stream::verdict, open));
        let served = match &mut calls {
            None => calling.await,
            Some(calls) => calls.during(calling.as_mut()).await,
        };
        match served {
            // EDGE-3: its answer is streamed as that of the first one would be.
            Ok(Served::Stream(stream)) => {
                let relayed = self.relay(stream, &request, attempts.get()).await;
                relayed
                    .map(|response| (response, None))
                    .map_err(|error| failed(&error))
            }
            Ok(Served::Answer(answer)) => {
                let age = answer.age;
                Ok((answered(&mut calls, answer, attempts.get()), age))
            }
            Err(error) => Err(failed(&error)),
        }
    }
}
