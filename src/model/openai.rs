//! The dialect of OpenAI: its error codes.

pub(super) mod chat;
pub(super) mod responses;

use super::envelope::ErrorEnvelope;
use super::json_walk::{JsonStep, Leaf};
use super::{ModelErrorKind, TokenUsage};

/// Returns the kind of an error by its code; `None` for an unknown one. `is_late`: no status says
/// more than the error's type.
pub(super) fn kind(envelope: &ErrorEnvelope, is_late: bool) -> Option<ModelErrorKind> {
    let codes = [&envelope.inner, &envelope.code, &envelope.kind];
    let by_code = codes
        .into_iter()
        .flatten()
        .find_map(|code| kind_of_code(code));
    by_code.or_else(|| {
        let kind = envelope.kind.as_deref().filter(|_| is_late)?;
        kind_of_type(kind)
    })
}

fn kind_of_code(code: &str) -> Option<ModelErrorKind> {
    Some(match code {
        "rate_limit_exceeded" | "slow_down" | "too_many_requests" => ModelErrorKind::RateLimit,
        "insufficient_quota"
        | "credit_balance_exhausted"
        | "organization_usage_limit_exceeded"
        | "organization_spend_limit_exceeded"
        | "project_spend_limit_exceeded"
        | "billing_hard_limit_reached"
        | "billing_not_active" => ModelErrorKind::QuotaUsedUp,
        "server_is_overloaded" | "engine_overloaded" | "overloaded_error" => {
            ModelErrorKind::Overloaded
        }
        "server_error" | "internal_error" | "internal_server_error" => ModelErrorKind::Failure,
        "invalid_api_key" | "account_deactivated" | "invalid_issuer" => ModelErrorKind::WrongKey,
        "unsupported_country_region_territory" => ModelErrorKind::NotPermitted,
        "model_not_found" | "DeploymentNotFound" => ModelErrorKind::UnknownModel,
        "context_length_exceeded" => ModelErrorKind::TooLong,
        "content_filter" | "content_policy_violation" | "ResponsibleAIPolicyViolation" => {
            ModelErrorKind::Filtered
        }
        // A 404 that is about no model.
        "previous_response_not_found" => ModelErrorKind::Rejected,
        _ => return None,
    })
}

/// Returns the kind of an error that has neither a known code nor a status.
fn kind_of_type(kind: &str) -> Option<ModelErrorKind> {
    Some(match kind {
        "rate_limit_error" | "requests" | "tokens" => ModelErrorKind::RateLimit,
        "service_unavailable_error" => ModelErrorKind::Overloaded,
        "authentication_error" => ModelErrorKind::WrongKey,
        "permission_error" => ModelErrorKind::NotPermitted,
        "not_found_error" => ModelErrorKind::UnknownModel,
        "invalid_request_error" => ModelErrorKind::Rejected,
        _ => return None,
    })
}

impl TokenUsage {
    /// Takes one member of a usage object, of Chat Completions or of Responses.
    pub(super) fn take_openai(&mut self, path: &[JsonStep<'_>], leaf: Leaf<'_>) {
        let Leaf::Count(count) = leaf else { return };
        match path {
            [JsonStep::Key("prompt_tokens" | "input_tokens")] => self.input = Some(count),
            [JsonStep::Key("completion_tokens" | "output_tokens")] => self.output = Some(count),
            [
                JsonStep::Key("prompt_tokens_details" | "input_tokens_details"),
                JsonStep::Key("cached_tokens"),
            ] => self.cached_input = count,
            _ => {}
        }
    }
}
