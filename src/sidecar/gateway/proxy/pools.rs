//! A call of a pool: its members are asked one after another, each once.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Class, Executed};
use http::{HeaderValue, Method, Response};
use hyper::body::Body as _;
use tokio::time::Instant;

use super::ProxiedCall;
use super::prepared::{CallerRequest, PreparedCall};
use super::replies::own;
use crate::sidecar::gateway::head_rules::refuse_trace;
use crate::sidecar::gateway::headers::{IDEMPOTENCY, SOURCE};
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::http::error::HttpError;
use crate::sidecar::gateway::http::response_stream;
use crate::sidecar::gateway::model_route::ModelRoute;
use crate::sidecar::gateway::pool_route::PoolRoute;
use crate::sidecar::gateway::problem::{GatewayProblem, ProblemKind};
use crate::sidecar::gateway::route::{HttpRoute, ThreadContext};
use crate::sidecar::gateway::trace::RequestSpan;
use crate::{CallError, CallOptions};

/// A call of a pool.
struct PoolCall<'a> {
    lane: &'a ThreadContext,
    span: Option<&'a RequestSpan>,
    prepared: &'a PreparedCall,
    attempts: Cell<u32>,
}

/// A call of a member that has no answer.
struct MemberFailure<'a> {
    call: ProxiedCall<'a>,
    error: CallError<HttpError>,
}

/// Responds to a request to a pool. `length`: of its name.
pub(super) async fn answer(
    (lane, span): (&ThreadContext, Option<&RequestSpan>),
    pool: &PoolRoute,
    started: Instant,
    (length, request): (usize, CallerRequest),
) -> (Response<ReplyBody>, bool) {
    let is_empty = request.body.is_end_stream();
    let members = pool.members(&lane.routes.load());
    let Some(lead) = members.first() else {
        let detail = "none of its members is there";
        let problem = GatewayProblem::of(ProblemKind::UNAVAILABLE, Some(&pool.name), detail);
        return (own(problem.into_response(), 0), is_empty);
    };
    if let Some(span) = span {
        span.concerns(&pool.name);
    }
    let is_trace = request.head.method == Method::TRACE;
    if is_trace && members.iter().any(|member| member.holds_credentials()) {
        return (own(refuse_trace(), 0), is_empty);
    }
    let first = ProxiedCall {
        lane,
        route: lead,
        started,
        span,
    };
    let terms = match first.terms(&request.head, length) {
        Ok(terms) => terms,
        Err(detail) => {
            let problem = GatewayProblem::of(ProblemKind::BAD_REQUEST, Some(&pool.name), detail);
            return (own(problem.into_response(), 0), is_empty);
        }
    };
    let tail = request.tail();
    let prepared = match first.prepare(terms, request, &members).await {
        Ok(prepared) => prepared,
        Err(response) => return (response, false),
    };
    let call = PoolCall {
        lane,
        span,
        prepared: &prepared,
        attempts: Cell::default(),
    };
    let response = call.ask_all(&members).await;
    tail.ended(response, prepared.deferred).await
}

/// Returns true for the answer to a wrong key of ours: with it, nothing was done (LLM-3).
fn has_wrong_key(error: &CallError<HttpError>) -> bool {
    matches!(error, CallError::Failed { error, .. } if error.verdict().class == Class::Misconfigured)
}

impl PoolCall<'_> {
    async fn ask_all(&self, members: &[Arc<HttpRoute>]) -> Response<ReplyBody> {
        let mut failed: Option<MemberFailure<'_>> = None;
        let mut refusing: Option<(Duration, &Arc<HttpRoute>)> = None;
        // LLM-21: each member once, and only one that would take the call now.
        for member in members {
            if let Some(wait) = self.wait_for(member) {
                if refusing.is_none_or(|(least, _)| wait < least) {
                    refusing = Some((wait, member));
                }
                continue;
            }
            let call = self.of(member);
            match self.ask(&call).await {
                Ok(response) => return response,
                Err(error) => {
                    let ends = !self.may_go_on(member, &error);
                    // CALL-2: an error that says no does not hide a member that may have done it.
                    let hides = |one: &MemberFailure<'_>| {
                        let may_be_done = one.error.executed() != Executed::No;
                        may_be_done
                            && error.executed() == Executed::No
                            && !has_wrong_key(&one.error)
                    };
                    let is_better = failed
                        .as_ref()
                        .is_none_or(|one| !error.is_refusal() && !hides(one));
                    if is_better {
                        failed = Some(MemberFailure { call, error });
                    }
                    if ends {
                        break;
                    }
                }
            }
        }
        let MemberFailure { call, error } = match (failed, refusing) {
            (Some(failed), _) => failed,
            // LLM-22: the refusal with the shortest wait, in its own words.
            (None, Some((_, member))) => {
                let call = self.of(member);
                match self.ask(&call).await {
                    Ok(response) => return response,
                    Err(error) => MemberFailure { call, error },
                }
            }
            // The pool has a member.
            (None, None) => {
                let problem = GatewayProblem::of(ProblemKind::UNAVAILABLE, None, "no member");
                return own(problem.into_response(), 0);
            }
        };
        let ended = (self.attempts.get(), call.ends(self.prepared.own_time));
        self.signed(call.route, call.fail(error, ended))
    }

    fn of<'b>(&'b self, member: &'b Arc<HttpRoute>) -> ProxiedCall<'b> {
        ProxiedCall {
            lane: self.lane,
            route: member,
            // LLM-21: the limits of a member are its own, and begin with its call.
            started: Instant::now(),
            span: self.span,
        }
    }

    /// Returns the key of the member's breaker.
    fn key(&self, member: &HttpRoute) -> Option<Arc<str>> {
        let given = self.prepared.given_key.clone();
        match (&member.model, self.prepared.request.model_call()) {
            (Some(model), Some(call)) => model.key_of(call, given),
            _ => given,
        }
    }

    /// Returns the time until a member would take the call; `None` if it would take it now.
    fn wait_for(&self, member: &Arc<HttpRoute>) -> Option<Duration> {
        let readiness = member.client.readiness(self.key(member).as_deref());
        let of_layers =
            (readiness.available == 0).then(|| readiness.retry_after.unwrap_or(Duration::MAX));
        let tokens = self.of(member).tokens(&self.prepared.request);
        // LLM-21: nor does a member without tokens.
        let of_tokens = tokens.map(|tokens| tokens.wait().unwrap_or(Duration::MAX));
        of_layers.max(of_tokens.filter(|wait| !wait.is_zero()))
    }

    /// Asks a member by its call, in one attempt.
    async fn ask(
        &self,
        call: &ProxiedCall<'_>,
    ) -> Result<Response<ReplyBody>, CallError<HttpError>> {
        let member = call.route;
        let request = &self.prepared.request;
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        let tokens = call.tokens(request);
        let options = CallOptions {
            metered: tokens.as_ref().map(|tokens| tokens.metered.clone()),
            timeout: self.prepared.own_time.map(left),
            key: self.key(member),
            max_attempts: Some(NonZeroU32::MIN),
            write: Some(request.is_write()),
            ..self.prepared.options.clone()
        };
        let until = call.ends(self.prepared.own_time);
        let open = || call.attempt(request, &self.attempts, until, tokens.as_ref());
        let client = &member.client;
        let calling = client.run_stream_with(options, response_stream::verdict, open);
        let stream = Box::pin(calling).await?;
        let response = call.relay(stream, request, self.attempts.get()).await?;
        Ok(self.signed(member, response))
    }

    /// Returns true if another member may be asked after the error of one.
    fn may_go_on(&self, failed: &HttpRoute, error: &CallError<HttpError>) -> bool {
        let is_late = self
            .prepared
            .own_time
            .is_some_and(|end| end <= Instant::now());
        if let CallError::Failed { error, .. } = error {
            let verdict = error.verdict();
            // What speaks of the caller is its answer.
            if matches!(verdict.class, Class::Rejected | Class::Cancelled)
                && verdict.executed != Executed::No
            {
                return false;
            }
        }
        // Pools serve such a call in any case.
        if has_wrong_key(error) {
            return !is_late;
        }
        let may_repeat = self.prepared.request.is_idempotent() && self.repeats(failed);
        !is_late && (may_repeat || error.executed() == Executed::No)
    }

    /// Returns true if the work of a member may be done again, by its settings or the caller's
    /// word.
    fn repeats(&self, member: &HttpRoute) -> bool {
        // CALL-7: the member that is asked first does not speak for the others.
        let request = &self.prepared.request;
        member.idempotent.contains(request.method())
            || member.model.as_ref().is_some_and(ModelRoute::repeats)
            || request.headers().contains_key(IDEMPOTENCY)
    }

    /// Names the member as the source of a response.
    fn signed(&self, member: &HttpRoute, mut response: Response<ReplyBody>) -> Response<ReplyBody> {
        let headers = response.headers_mut();
        // FBK-3: an answer that a gateway beyond has made itself keeps its source.
        let is_its_own = headers
            .get(SOURCE)
            .is_some_and(|source| source == "primary");
        let name = format!("pool:{}", member.name);
        if let (true, Ok(source)) = (is_its_own, HeaderValue::try_from(name)) {
            // LLM-24: the answer names its member.
            headers.insert(SOURCE, source);
        }
        response
    }
}
