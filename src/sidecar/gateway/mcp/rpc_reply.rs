//! Answers to callers: the server's own as they came, those of fallbacks with a label, and errors.

use breakerbox_policy::Executed;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::caller_message::CallerMessage;
use crate::mcp::json_text::{JsonText, MemberEdit, edited, joined};
use crate::mcp::message::{RawReply, RpcError, answer, code};
use crate::mcp::pieces_body::PiecesBody;
use crate::mcp::request_meta;
use crate::mcp::{McpClient, McpError};
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::problem::{GatewayProblem, ProblemKind};
use crate::{AnswerSource, CallError, TimeLimit};

/// Code of every error that the runtime raises. Its `data` names the kind, as `type`.
///
/// It lies outside of the range that JSON-RPC and the protocol reserve for themselves.
const OWN_CODE: i64 = -31050;
/// The end of a call at a server that asks for input that it cannot get. CALL-2: it may have done a part of
/// the work before.
pub(super) const UNANSWERED: (ProblemKind, Executed) =
    (ProblemKind::INPUT_REQUIRED, Executed::Maybe);
/// Key in a result's metadata for the source of the answer.
const SOURCE: &str = "breakerbox/source";
/// Key in a result's metadata for the age of the answer.
const AGE: &str = "breakerbox/age_ms";
/// Key in a server's error data for what the runtime adds.
const ADDED: &str = "breakerbox";
/// Methods with results that say how long they may be kept, in the newer dialect.
const KEPT: [&str; 6] = [
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "prompts/list",
    "resources/read",
    "server/discover",
];

/// The source of an answer, and its age in milliseconds.
pub(super) type AnswerLabel = Option<(AnswerSource, Option<u64>)>;

/// Result of a request: the pieces of its result, or an error.
pub(super) type RequestAnswer = Result<Vec<Bytes>, RpcError>;

/// Returns a result as its caller gets it.
pub(super) fn finished(
    reply: &RawReply,
    (method, is_newer): (&str, bool),
    label: AnswerLabel,
) -> Vec<Bytes> {
    if !reply.text.is_object() {
        return vec![reply.text.bytes().clone()];
    }
    let add = |name, value: &'static [u8]| MemberEdit {
        name,
        present: None,
        value: Bytes::from_static(value),
    };
    let mut edits = Vec::new();
    if is_newer {
        // Servers of the older dialect omit what callers of the newer one require.
        if !reply.head.has_kind {
            edits.push(add("resultType", b"\"complete\""));
        }
        if KEPT.contains(&method) && !reply.head.asks_for_input() {
            if !reply.head.has_ttl {
                edits.push(add("ttlMs", b"0"));
            }
            if !reply.head.has_scope {
                edits.push(add("cacheScope", b"\"private\""));
            }
        }
    }
    if let Some((source, age)) = label.filter(|(source, _)| *source != AnswerSource::Primary) {
        let meta = reply.head.meta.as_ref();
        let mut members = meta.and_then(request_meta::members).unwrap_or_default();
        let source = JsonText::of(&Value::from(source.to_string()));
        members.insert(SOURCE.to_owned(), source);
        if let Some(age) = age {
            members.insert(AGE.to_owned(), JsonText::of(&json!(age)));
        }
        edits.push(MemberEdit {
            name: "_meta",
            present: meta,
            value: request_meta::written(&members),
        });
    }
    if edits.is_empty() {
        return vec![reply.text.bytes().clone()];
    }
    edited(&reply.text, edits)
}

/// Converts the error of a call for its caller. `time_key`: the key of the time that its tool has, if it
/// is one of the tool's own.
pub(super) fn of_call(
    error: &CallError<McpError>,
    client: &McpClient,
    (is_newer, time_key): (bool, Option<&str>),
) -> RpcError {
    let name = client.client().name();
    let mut problem = GatewayProblem::of_mcp(error, name);
    if let Some(key) = time_key {
        // EDGE-8: the limit of the call is that of its tool.
        problem = problem.naming(TimeLimit::CallAttempt, key);
    }
    let problem = match error {
        CallError::Open(refused) => problem.state(refused.state),
        _ => problem.state(client.client().state()),
    };
    let text = problem.detail().to_owned();
    let problem = problem.into_data();
    let own = match error {
        CallError::Failed { error, .. } => error,
        _ => return RpcError::new(OWN_CODE, text).with_data(&problem),
    };
    match own {
        McpError::Server {
            code: told,
            message,
            data,
            has_problem,
            ..
        } => {
            let code = match *told {
                // MCP-3: the newer dialect has another code for it.
                code::RESOURCE_NOT_FOUND if is_newer => code::INVALID_PARAMS,
                told => told,
            };
            RpcError {
                code,
                message: message.clone(),
                data: with_problem((data.as_ref(), *has_problem), &problem),
            }
        }
        McpError::InvalidRequest { .. } => {
            RpcError::new(code::INVALID_PARAMS, own.to_string()).with_data(&problem)
        }
        _ => RpcError::new(OWN_CODE, error.to_string()).with_data(&problem),
    }
}

/// Builds the error of a call that its server did not end.
pub(super) fn of_end(
    client: &McpClient,
    end: (ProblemKind, Executed),
    detail: impl Into<String>,
) -> RpcError {
    let client = client.client();
    let problem = GatewayProblem::ended(end, client.name(), detail.into());
    own_error(problem.state(client.state()))
}

/// Builds an error of the gateway's own.
///
/// EDGE-8: each of them has the problem document.
pub(super) fn own_error(problem: GatewayProblem<'_>) -> RpcError {
    RpcError::new(OWN_CODE, problem.detail()).with_data(&problem.into_data())
}

/// Adds the line that the server wrote meanwhile and that is no message, if the call ended by its time.
pub(super) fn with_stray(
    mut told: RpcError,
    error: &CallError<McpError>,
    stray: Option<&String>,
) -> RpcError {
    let is_late = matches!(
        error,
        CallError::TimedOut { .. }
            | CallError::Failed {
                error: McpError::Silent(_),
                ..
            }
    );
    if let Some(line) = stray.filter(|_| is_late) {
        // EDGE-8: the line may be the answer, which the connection could not read.
        let text = format!("; the server's output is no message: {line}");
        told.message.push_str(&text);
    }
    told
}

/// MCP-5: the data of a server's error stays; ours goes under a key of its own. `has_problem`: the server
/// has used the key, as another gateway does.
fn with_problem(
    (data, has_problem): (Option<&JsonText>, bool),
    problem: &Value,
) -> Option<JsonText> {
    let Some(data) = data else {
        return Some(JsonText::of(&json!({ ADDED: problem })));
    };
    if has_problem || !data.is_object() {
        return Some(data.clone());
    }
    let edit = MemberEdit {
        name: ADDED,
        present: None,
        value: JsonText::of(problem).into_bytes(),
    };
    Some(JsonText::checked(joined(&edited(data, vec![edit]))))
}

/// Returns the status of an answer.
pub(super) fn status_of(error: Option<&RpcError>, is_newer: bool) -> StatusCode {
    match error.map(|error| error.code) {
        Some(code::METHOD_NOT_FOUND) if is_newer => StatusCode::NOT_FOUND,
        Some(code::HEADER_MISMATCH | code::MISSING_CAPABILITY | code::UNSUPPORTED_VERSION)
            if is_newer =>
        {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    }
}

/// Builds a response that consists of one message.
pub(super) fn message_response(status: StatusCode, message: CallerMessage) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::ours(PiecesBody::new(message)));
    *response.status_mut() = status;
    let media = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// Builds the response of an error. `id`: as the request had it, or `null`.
pub(super) fn error_response(
    status: StatusCode,
    id: Option<&str>,
    error: &RpcError,
) -> Response<ReplyBody> {
    message_response(status, answer(id.unwrap_or("null"), Err(error)))
}

/// Builds the response of the gateway's own refusal, with the wait after which it may pass.
pub(super) fn refused(id: Option<&str>, problem: GatewayProblem<'_>) -> Response<ReplyBody> {
    let (status, wait) = (problem.status(), problem.wait_seconds());
    let mut response = error_response(status, id, &own_error(problem));
    if let Some(wait) = wait {
        response.headers_mut().insert(RETRY_AFTER, wait);
    }
    response
}

/// Builds a response without a body.
pub(super) fn empty_response(status: StatusCode) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn reply(text: &'static str) -> RawReply {
        RawReply::of(JsonText::checked(Bytes::from_static(text.as_bytes())))
    }

    fn value(pieces: &[Bytes]) -> Value {
        serde_json::from_slice(&joined(pieces)).unwrap()
    }

    #[test]
    fn mcp_2_m14_an_answer_passes_as_it_came() {
        let text = "{ \"content\" : [] }";
        let passed = finished(&reply(text), ("tools/call", false), None);
        assert_eq!(passed, [Bytes::from_static(text.as_bytes())]);
        let passed = value(&finished(&reply(text), ("tools/list", true), None));
        let expected = json!({ "content": [], "resultType": "complete", "ttlMs": 0,
            "cacheScope": "private" });
        assert_eq!(passed, expected);
    }

    #[test]
    fn edge_8_m9_an_error_of_the_gateways_own_has_the_problem_document() {
        let end = (ProblemKind::CANCELLED, Executed::Maybe);
        let problem = GatewayProblem::ended(end, "kg", "it was cancelled".to_owned());
        let error = own_error(problem.state("open"));
        assert_eq!(
            (error.code, &*error.message),
            (OWN_CODE, "it was cancelled")
        );
        let data = error.data.unwrap().to_value();
        assert_eq!(data["type"], "urn:breakerbox:cancelled");
        assert_eq!(
            (&data["state"], &data["executed"]),
            (&json!("open"), &json!("maybe"))
        );
        assert_eq!(data["dependency"], "kg");
    }

    #[test]
    fn fbk_3_an_answer_of_a_fallback_says_so_beside_the_servers_own_words() {
        let text = r#"{"content":[],"_meta":{"own/key":1}}"#;
        let label = Some((AnswerSource::Fallback(Arc::from("stale_cache")), Some(7)));
        let passed = value(&finished(&reply(text), ("tools/call", false), label));
        let meta = json!({ "own/key": 1, AGE: 7, SOURCE: "fallback:stale_cache" });
        assert_eq!(passed["_meta"], meta);
    }

    #[test]
    fn mcp_5_m9_data_of_an_error_is_kept() {
        let problem = json!({ "executed": "no" });
        let data = JsonText::of(&json!({ "uri": "x" }));
        let kept = with_problem((Some(&data), false), &problem);
        let expected = json!({ "uri": "x", "breakerbox": problem });
        assert_eq!(kept.unwrap().to_value(), expected);
        let data = JsonText::of(&json!(["x"]));
        assert_eq!(with_problem((Some(&data), false), &problem), Some(data));
        let added = with_problem((None, false), &problem).unwrap().to_value();
        assert_eq!(added, json!({ "breakerbox": problem }));
        // No member is there twice, and the one of the gateway next to the server stays.
        let data = JsonText::of(&json!({ "breakerbox": { "executed": "yes" } }));
        assert_eq!(with_problem((Some(&data), true), &problem), Some(data));
    }
}
