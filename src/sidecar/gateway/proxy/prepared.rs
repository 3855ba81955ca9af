//! The gateway's own request, made of that of a caller.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http::{Response, Version};
use hyper::body::Body as _;
use tokio::time::Instant;

use super::replies::own;
use super::request_head::rewrite;
use super::{ProxiedCall, RequestOptions};
use crate::CallOptions;
use crate::sidecar::gateway::caller_limits::caller_number;
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::http::caller_body::CallerBody;
use crate::sidecar::gateway::http::deferred_body::{BodyKeeping, DeferredBody};
use crate::sidecar::gateway::http::grpc;
use crate::sidecar::gateway::http::request_body::BodyLimits;
use crate::sidecar::gateway::message::{HttpFailure, HttpRequest, RequestBody};
use crate::sidecar::gateway::model_route::ModelRoute;
use crate::sidecar::gateway::problem::GatewayProblem;
use crate::sidecar::gateway::route::HttpRoute;

/// A request of a caller.
pub(super) struct CallerRequest {
    pub(super) head: Parts,
    pub(super) body: CallerBody,
    pub(super) peer: SocketAddr,
}

/// The facts that decide about the rest of a request.
pub(super) struct RequestTail {
    is_http2: bool,
    /// True if the caller waits for leave to send the body.
    waits: bool,
}

/// The known facts of a body's use: whether the call is idempotent and whether it is one of gRPC;
/// whether the body is kept in any case, and the longest one that a model reads, if one does.
type BodyUse = ((bool, bool), (bool, Option<u64>));

/// The gateway's own request, made of that of a caller.
pub(super) struct PreparedCall {
    pub(super) request: HttpRequest,
    pub(super) deferred: Option<Arc<DeferredBody>>,
    pub(super) options: CallOptions,
    /// Key that the caller gives.
    pub(super) given_key: Option<Arc<str>>,
    /// End of the caller's own time.
    pub(super) own_time: Option<Instant>,
    /// End of the call.
    pub(super) until: Option<Instant>,
}

impl CallerRequest {
    pub(super) fn tail(&self) -> RequestTail {
        RequestTail {
            is_http2: self.head.version == Version::HTTP_2,
            waits: self.head.headers.contains_key(EXPECT),
        }
    }
}

impl RequestTail {
    /// Returns the response, and true if the whole request was read.
    pub(super) async fn ended(
        self,
        response: Response<ReplyBody>,
        body: Option<Arc<DeferredBody>>,
    ) -> (Response<ReplyBody>, bool) {
        let Some(body) = body else {
            return (response, true);
        };
        if !self.is_http2 && !self.waits && !body.status().has_ended() {
            Box::pin(body.discard()).await;
        }
        (response, body.status().has_ended())
    }
}

impl ProxiedCall<'_> {
    /// Makes the gateway's own request of that of a caller. `members`: those of the pool that is asked.
    ///
    /// # Errors  The response to a body that cannot be read.
    pub(super) async fn prepare(
        &self,
        terms: RequestOptions,
        request: CallerRequest,
        members: &[Arc<HttpRoute>],
    ) -> Result<PreparedCall, Response<ReplyBody>> {
        let RequestOptions {
            target,
            mut options,
            is_idempotent,
        } = terms;
        let CallerRequest {
            mut head,
            body,
            peer,
        } = request;
        let own_time = options.timeout.map(|timeout| self.started + timeout);
        let until = self.ends(own_time);
        let model = self.route.model.as_ref();
        let reads = model.filter(|model| model.reads(&head.method, &target, &head.headers));
        let most = reads.map(|model| longest(model, members));
        // Any member may be the one that needs the body.
        let kept = (!members.is_empty(), most);
        // On the heap, as is everything that few calls need: it must not enlarge every call's
        // future.
        let is_empty = body.is_end_stream();
        let refused = |failure| {
            let problem = GatewayProblem::of_body(failure, &self.route.name);
            let problem = problem.state(self.route.client.state());
            own(problem.into_response(), 0)
        };
        let is_grpc = grpc::media_of(&head.headers).is_some();
        let how = (is_idempotent, is_grpc);
        let deferred = (!is_empty).then(|| self.deferred(body, (how, kept), until));
        let deferred = deferred.transpose().map_err(refused)?;
        let may_repeat = is_idempotent && deferred.as_ref().is_none_or(|(_, is_kept)| *is_kept);
        let deferred = deferred.map(|(body, _)| body);
        let sent = rewrite(&mut head, peer, self.route.has_fallbacks());
        if let Some(span) = self.span {
            span.pass_on(&mut head.headers);
        }
        let body = match &deferred {
            Some(body) => RequestBody::Deferred(Arc::clone(body)),
            None => RequestBody::Whole(Bytes::new()),
        };
        let request = HttpRequest::new((head.method, target), head.headers, body, may_repeat);
        let mut request = request.sent_as(sent);
        options.caller = Some(caller_number(peer.ip()));
        // CALL-2: the runtime learns from it whether an attempt has sent anything.
        options.progress = Some(request.progress());
        let given_key = options.key.clone();
        if let Some(model) = model {
            let how = (reads.is_some(), is_idempotent, &mut options);
            let read = Box::pin(self.read_model(model, request, how)).await;
            request = read.map_err(refused)?;
        }
        options.timeout = own_time.map(|end| end.saturating_duration_since(Instant::now()));
        Ok(PreparedCall {
            request,
            deferred,
            options,
            given_key,
            own_time,
            until,
        })
    }

    /// Returns the body of a call, of which nothing is read yet, and true if it is kept to be sent
    /// again unless it turns out to be too long.
    fn deferred(
        &self,
        body: CallerBody,
        ((is_idempotent, is_grpc), (must_keep, most)): BodyUse,
        until: Option<Instant>,
    ) -> Result<(Arc<DeferredBody>, bool), HttpFailure> {
        let is_needed = must_keep || most.is_some() || self.may_send_again(is_idempotent);
        let keeping = match is_needed {
            true => BodyKeeping::Needed,
            // A stream of gRPC may go on only once it is answered.
            false if is_idempotent && !is_grpc => BodyKeeping::IfQuick,
            false => BodyKeeping::Short,
        };
        let places = self.route.client.settings().bulkhead;
        if places.adaptive.is_some() {
            // EDGE-4: slow bodies have their share of what there is at present.
            let most = self.route.client.status().limit;
            let bodies = &self.route.target().pending;
            bodies.set_places(most, places.max_concurrent_writes);
        }
        let mut limits = BodyLimits {
            // The messages of a gRPC stream come when there is something to say.
            is_of_messages: is_grpc,
            is_hedged: self.route.client.settings().hedge.is_some(),
            ..BodyLimits::of(&self.lane.config.load())
        };
        if let Some(most) = most {
            limits.max_replay = most;
        }
        DeferredBody::begin(body, limits, (keeping, until), &self.lane.budget)
    }

    /// Returns true if a body that is kept may be sent again: by a retry, or to a fallback.
    fn may_send_again(&self, is_idempotent: bool) -> bool {
        let settings = self.route.client.settings();
        let has_retries = settings.retry.max_attempts.get() > 1 || settings.hedge.is_some();
        (is_idempotent && has_retries) || self.route.has_fallbacks()
    }
}

/// Returns the length of the longest body that is read for a model, or for the `members` of a pool.
fn longest(model: &ModelRoute, members: &[Arc<HttpRoute>]) -> u64 {
    // LLM-21: whichever member is asked first, the same bodies are refused.
    let members = members.iter().filter_map(|member| member.model.as_ref());
    let all = members.map(|member| member.max_replay_body);
    all.fold(model.max_replay_body, u64::max)
}
