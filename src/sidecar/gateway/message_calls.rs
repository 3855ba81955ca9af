//! Calls of HTTP dependencies for messages: the same dependency, with every layer that requests of
//! callers pass, without a caller who waits.
//!
//! It knows no queue, and decides nothing about a message.

use std::sync::Arc;

use arc_swap::ArcSwap;
use breakerbox_actors::{CallOptions, MessageEnding};
use breakerbox_policy::DependencySettings;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Version};
use serde_json::Value;

use super::Gateway;
use super::headers::{DEADLINE, IDEMPOTENCY, KEY, PRIORITY, append_via, strip_one_hop};
use super::http::dependency::AttemptNumber;
use super::http::error::HttpError;
use super::mcp::call_headers::call_options;
use super::message::{HttpRequest, RequestBody};
use super::path::has_dot_segment;
use super::problem::GatewayProblem;
use super::route::{HttpRoute, RouteKind, RouteTable};
use crate::buffer_budget::BufferBudget;
use crate::{CallError, Readiness};

/// The way of messages to the dependencies of a gateway. It follows changes of the routes.
#[derive(Clone)]
pub(crate) struct MessageCalls {
    routes: Arc<ArcSwap<RouteTable>>,
    budget: BufferBudget,
}

/// A request that was made of a message.
#[derive(Debug, Clone)]
pub(crate) struct MessageRequest {
    pub(crate) method: Method,
    /// Path and query relative to the dependency's own address.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) is_idempotent: bool,
    pub(crate) options: CallOptions,
}

/// A response to such a request.
#[derive(Debug)]
pub(crate) struct MessageReply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) source: String,
    pub(crate) attempts: u32,
}

/// The end of a call that was made for a message.
pub(crate) struct MessageCallResult {
    pub(crate) ending: Option<MessageEnding>,
    /// The response, if the dependency or a fallback has given one.
    pub(crate) reply: Option<MessageReply>,
    /// The problem document of an error.
    pub(crate) problem: Option<Value>,
}

impl Gateway {
    /// Returns the way of messages to its dependencies.
    pub(crate) fn message_calls(&self) -> MessageCalls {
        MessageCalls {
            routes: Arc::clone(&self.directory.routes),
            budget: self.directory.budget.clone(),
        }
    }
}

impl MessageCalls {
    fn route(&self, name: &str) -> Option<Arc<HttpRoute>> {
        match self.routes.load().get(name)? {
            RouteKind::Http(route) => Some(Arc::clone(route)),
            RouteKind::Mcp(_) | RouteKind::Group(_) | RouteKind::Pool(_) => None,
        }
    }

    /// Returns whether calls could begin now; `None` if there is no such dependency at present.
    pub(crate) fn readiness(&self, name: &str) -> Option<Readiness> {
        Some(self.route(name)?.client.readiness(None))
    }

    /// Returns the settings of a dependency.
    pub(crate) fn settings(&self, name: &str) -> Option<Arc<DependencySettings>> {
        Some(self.route(name)?.client.settings())
    }

    /// Returns true if the dependency's own settings permit to repeat this method.
    pub(crate) fn is_idempotent(&self, name: &str, method: &Method) -> bool {
        let route = self.route(name);
        route.is_some_and(|route| route.idempotent.contains(method))
    }

    /// Makes a call.
    pub(crate) async fn call(&self, name: &str, request: MessageRequest) -> MessageCallResult {
        let Some(route) = self.route(name) else {
            return MessageCallResult {
                ending: None,
                reply: None,
                problem: None,
            };
        };
        // EDGE-4: a body that is kept for a call counts against the budget of the process.
        let mut share = self.budget.share();
        if !share.grow_to(request.body.len()) {
            let problem = GatewayProblem::of_memory(name).into_data();
            return MessageCallResult {
                ending: None,
                reply: None,
                problem: Some(problem),
            };
        }
        let MessageRequest {
            method,
            target,
            mut headers,
            body,
            is_idempotent,
            mut options,
        } = request;
        let sent = route.has_fallbacks().then(|| headers.clone());
        append_via(&mut headers, Version::HTTP_11);
        let body = RequestBody::Whole(body);
        let request = HttpRequest::new((method, target), headers, body, is_idempotent);
        let request = request.sent_as(sent);
        // CALL-2: the runtime learns from it whether an attempt has sent anything.
        options.progress = Some(request.progress());
        let (result, ending) =
            breakerbox_actors::ask_for_message(&route.client, request, options).await;
        let (reply, problem) = match result {
            Ok(answer) => {
                let reply = MessageReply {
                    status: answer.value.status,
                    headers: answer.value.headers,
                    body: answer.value.body,
                    source: answer.source.to_string(),
                    attempts: answer.attempts,
                };
                (Some(reply), None)
            }
            Err(error) => {
                let state = route.client.state();
                let problem = GatewayProblem::of_call(&error, name).state(state);
                let problem = problem.into_data();
                (said(error), Some(problem))
            }
        };
        MessageCallResult {
            ending: Some(ending),
            reply,
            problem,
        }
    }
}

/// Returns the dependency's own unsuccessful response, if that made the call fail.
fn said(error: CallError<HttpError>) -> Option<MessageReply> {
    match error {
        CallError::Failed { error, .. } => {
            let said = error.said?;
            let attempts = said.head.extensions.get::<AttemptNumber>();
            let attempts = attempts.map_or(1, |attempt| attempt.0);
            Some(MessageReply {
                status: said.head.status,
                body: said.body.into_bytes(),
                headers: said.head.headers,
                source: "primary".to_owned(),
                attempts,
            })
        }
        CallError::FallbackFailed { cause, .. } => said(*cause),
        _ => None,
    }
}

/// Reads the head of a message's request: its options, and the headers that are passed on.
///
/// # Errors  The text of the rule that it breaks.
pub(crate) fn read_head(
    target: &str,
    headers: &mut HeaderMap,
) -> Result<CallOptions, &'static str> {
    // MSG-11: else the call would fail, as if the dependency were at fault.
    let is_path = target.starts_with('/')
        && target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && PathAndQuery::try_from(target).is_ok();
    if !is_path {
        return Err("breakerbox-path does not begin with / or has letters that no path has");
    }
    let path = target.split('?').next().unwrap_or_default();
    // EDGE-5: a path goes no further if any server could read it as leading elsewhere.
    if has_dot_segment(path) {
        return Err("the path contains a segment . or .., perhaps encoded");
    }
    let options = call_options(headers)?;
    strip_one_hop(headers);
    // The length is that of the payload.
    for name in [PRIORITY, KEY, DEADLINE, CONTENT_LENGTH] {
        headers.remove(name);
    }
    Ok(options)
}

/// Returns true if a message carries the word that it may be done twice.
pub(crate) fn has_idempotency_key(headers: &HeaderMap) -> bool {
    headers.contains_key(IDEMPOTENCY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_11_a_path_that_no_request_can_have_is_malformed() {
        for (target, is_taken) in [
            ("/", true),
            ("/v1/find?q=a%20b&c=d", true),
            ("/a<b>", false),
            ("/a`b", false),
            ("/a#b", false),
            ("a", false),
            ("", false),
            ("/a b", false),
        ] {
            let read = read_head(target, &mut HeaderMap::new());
            assert_eq!(read.is_ok(), is_taken, "{target:?}");
        }
    }
}
