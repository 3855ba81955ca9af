//! Errors in the words of each dialect.

use serde_json::{Value, json};

use crate::model::{Api, ApiShape, ModelErrorKind};

/// An error's status, type and code.
struct ErrorWords {
    status: u16,
    kind: &'static str,
    code: Value,
}

fn openai(kind: ModelErrorKind) -> ErrorWords {
    use ModelErrorKind as Kind;
    let (status, kind, code) = match kind {
        Kind::RateLimit => (429, "tokens", "rate_limit_exceeded"),
        Kind::QuotaUsedUp => (429, "insufficient_quota", "insufficient_quota"),
        Kind::Overloaded => (503, "server_error", "server_is_overloaded"),
        Kind::WrongKey => (401, "invalid_request_error", "invalid_api_key"),
        Kind::NotPermitted => (
            403,
            "invalid_request_error",
            "unsupported_country_region_territory",
        ),
        Kind::UnknownModel => (404, "invalid_request_error", "model_not_found"),
        Kind::TooLong => (400, "invalid_request_error", "context_length_exceeded"),
        Kind::Filtered => (400, "invalid_request_error", "content_filter"),
        Kind::Rejected => (400, "invalid_request_error", "invalid_value"),
        _ => (500, "server_error", "server_error"),
    };
    ErrorWords {
        status,
        kind,
        code: code.into(),
    }
}

fn anthropic(kind: ModelErrorKind) -> ErrorWords {
    use ModelErrorKind as Kind;
    let (status, of_type) = match kind {
        Kind::RateLimit | Kind::QuotaUsedUp => (429, "rate_limit_error"),
        Kind::Overloaded => (529, "overloaded_error"),
        Kind::WrongKey => (401, "authentication_error"),
        Kind::NotPermitted => (403, "permission_error"),
        Kind::UnknownModel => (404, "not_found_error"),
        Kind::TooLong => (413, "request_too_large"),
        Kind::Filtered | Kind::Rejected => (400, "invalid_request_error"),
        _ => (500, "api_error"),
    };
    let code = match kind {
        Kind::QuotaUsedUp => "enforced_spend_limit_reached".into(),
        _ => Value::Null,
    };
    ErrorWords {
        status,
        kind: of_type,
        code,
    }
}

fn google(kind: ModelErrorKind) -> ErrorWords {
    use ModelErrorKind as Kind;
    let (status, canonical) = match kind {
        Kind::RateLimit | Kind::QuotaUsedUp => (429, "RESOURCE_EXHAUSTED"),
        Kind::Overloaded => (503, "UNAVAILABLE"),
        Kind::WrongKey => (401, "UNAUTHENTICATED"),
        Kind::NotPermitted => (403, "PERMISSION_DENIED"),
        Kind::UnknownModel => (404, "NOT_FOUND"),
        Kind::TooLong | Kind::Filtered | Kind::Rejected => (400, "INVALID_ARGUMENT"),
        _ => (500, "INTERNAL"),
    };
    ErrorWords {
        status,
        kind: canonical,
        code: status.into(),
    }
}

/// Returns the message; in some dialects only its words tell the kind.
fn message(api: Api, kind: ModelErrorKind) -> &'static str {
    match (api, kind) {
        (Api::Anthropic, ModelErrorKind::Filtered) => "Output blocked by content filtering policy",
        (Api::Google, ModelErrorKind::TooLong) => {
            "The input token count (9) exceeds the maximum number of tokens allowed (8)."
        }
        _ => "an error of the fake provider",
    }
}

/// Returns an error's status and body.
pub(super) fn error(api: Api, kind: ModelErrorKind) -> (u16, Value) {
    let message = message(api, kind);
    let words = match api {
        Api::OpenAi => openai(kind),
        Api::Anthropic => anthropic(kind),
        Api::Google => google(kind),
    };
    let body = match api {
        Api::OpenAi => json!({ "error": {
            "message": message, "type": words.kind, "param": null, "code": words.code,
        }}),
        Api::Anthropic => {
            let mut error = json!({ "type": words.kind, "message": message });
            if !words.code.is_null() {
                error["details"] = json!({ "error_code": words.code });
            }
            json!({ "type": "error", "error": error, "request_id": "req_fake" })
        }
        Api::Google => {
            let mut error = json!({ "code": words.code, "message": message, "status": words.kind });
            if kind == ModelErrorKind::QuotaUsedUp {
                error["details"] = json!([{
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [{ "quotaId": "GenerateRequestsPerDayPerProjectPerModel" }],
                }]);
            }
            json!({ "error": error })
        }
    };
    (words.status, body)
}

/// Returns an error as an event of a stream.
pub(super) fn event(shape: ApiShape, kind: ModelErrorKind) -> String {
    let (_, body) = error(shape.api(), kind);
    match shape {
        ApiShape::Responses => {
            let mut event = body["error"].clone();
            event["type"] = "error".into();
            event["sequence_number"] = 1.into();
            format!("event: error\ndata: {event}\n\n")
        }
        ApiShape::Messages => format!("event: error\ndata: {body}\n\n"),
        ApiShape::ContentArray => body.to_string(),
        _ => format!("data: {body}\n\n"),
    }
}
