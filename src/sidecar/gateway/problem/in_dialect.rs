//! The gateway's own errors in the words of a model's API.

use std::time::Duration;

use breakerbox_policy::Executed;
use bytes::Bytes;
use http::{Response, StatusCode};

use super::{GatewayProblem, ReplyBody, kind_of, kind_of_failure};
use crate::CallError;
use crate::model::{Api, ModelProblem, error_body};
use crate::sidecar::gateway::http::error::HttpError;

/// The facts of a problem, for callers that do not read its document: they speak gRPC, or the API of
/// a model.
#[derive(Debug, Clone)]
pub(in crate::sidecar::gateway) struct ProblemFacts {
    code: &'static str,
    pub(in crate::sidecar::gateway) grpc_code: u8,
    pub(in crate::sidecar::gateway) message: String,
    dependency: Option<String>,
    state: Option<String>,
    executed: Executed,
    retry_after: Option<Duration>,
}

impl ProblemFacts {
    pub(super) fn of(problem: GatewayProblem<'_>) -> Box<Self> {
        Box::new(Self {
            code: problem.error.code,
            grpc_code: problem.grpc_code,
            message: problem.error.message,
            dependency: problem.dependency.map(str::to_owned),
            state: problem.state,
            executed: match problem.executed {
                "no" => Executed::No,
                "yes" => Executed::Yes,
                _ => Executed::Maybe,
            },
            retry_after: problem.wait,
        })
    }

    /// Returns the facts of a response that is a problem of the gateway.
    pub(in crate::sidecar::gateway) fn told_with(response: &Response<ReplyBody>) -> Option<&Self> {
        response.extensions().get::<Box<Self>>().map(Box::as_ref)
    }
}

/// Returns the code and the status of a call's error.
pub(in crate::sidecar::gateway) fn code_and_status(
    error: &CallError<HttpError>,
) -> (&'static str, StatusCode) {
    let kind = kind_of(error, &|error| kind_of_failure(error.failure));
    (kind.0, kind.1)
}

/// Turns a problem of the gateway into an error of the API. Other responses stay as they are.
///
/// # Source  Rule LLM-13 in docs/rules.md.
pub(in crate::sidecar::gateway) fn told_in(
    api: Api,
    may_retry: bool,
    mut response: Response<ReplyBody>,
) -> Response<ReplyBody> {
    let Some(facts) = ProblemFacts::told_with(&response) else {
        return response;
    };
    let status = response.status();
    // LLM-13: the shape is the API's, and status and headers are as for HTTP.
    let told = error_body(
        api,
        &ModelProblem {
            status: status.as_u16(),
            code: facts.code,
            message: &facts.message,
            dependency: facts.dependency.as_deref(),
            state: facts.state.as_deref(),
            executed: facts.executed,
            retry_after: facts.retry_after,
            may_retry,
        },
    );
    let (head, body) = told.into_parts();
    if may_retry {
        response.headers_mut().remove("x-should-retry");
    }
    response.headers_mut().extend(head.headers);
    response.map(|_| ReplyBody::whole(Bytes::from(body)))
}
