//! Error responses of Google's services, and their classification.
//!
//! All services use one JSON envelope; front ends return HTML pages instead. This module names
//! class, symptom and hint; it never decides what to do about them.

use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::ServiceError;
use super::failure::clean_message;
use super::http::ServiceResponse;
use crate::policy::{Class, Symptom};
use crate::{Verdict, retry_after};

/// An error of a Google service.
///
/// # Source  `google.rpc.Status`, as the REST interfaces write it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GoogleError {
    /// The HTTP status.
    pub http: u16,
    /// The canonical status, such as `RESOURCE_EXHAUSTED`.
    pub status: Option<String>,
    /// The reason, such as `SERVICE_DISABLED`: from `details`, else from the older `errors`.
    pub reason: Option<String>,
    /// The message, on one line and without the query strings of URLs.
    pub message: String,
    /// The wait that the service asks for: the larger of `Retry-After` and `RetryInfo`.
    pub retry_after: Option<Duration>,
    /// True if the response names a daily quota.
    pub per_day: bool,
}

#[derive(Debug, Default, Deserialize)]
struct GoogleEnvelope {
    #[serde(default)]
    error: GoogleErrorBody,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GoogleErrorBody {
    message: String,
    status: Option<String>,
    errors: Vec<OlderErrorBody>,
    details: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OlderErrorBody {
    reason: Option<String>,
}

/// Reasons for a quota that is used up until the next day, in the older APIs.
const USED_UP: [&str; 3] = [
    "dailyLimitExceeded",
    "dailyLimitExceededUnreg",
    "quotaExceeded",
];
/// Reasons for too much traffic, which older APIs return with 403.
const TOO_FAST: [&str; 2] = ["rateLimitExceeded", "userRateLimitExceeded"];
/// Reasons for a wrong key, returned with 400.
const WRONG_KEY: [&str; 2] = ["API_KEY_INVALID", "keyInvalid"];

impl GoogleError {
    /// Parses a response that is not a success.
    #[must_use]
    pub fn read(http: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let envelope: Option<GoogleEnvelope> = serde_json::from_slice(body).ok();
        let Some(GoogleEnvelope { error }) = envelope else {
            return Self {
                http,
                status: None,
                reason: None,
                message: clean_message(&String::from_utf8_lossy(body)),
                retry_after: retry_after::read(http, headers, None),
                per_day: false,
            };
        };
        let info = error.details.iter().find(|detail| is(detail, "ErrorInfo"));
        let text = |key: &str| info?.get(key)?.as_str().map(str::to_owned);
        let older = || error.errors.iter().find_map(|one| one.reason.clone());
        let quota = info.and_then(|info| info.pointer("/metadata/quota_limit"));
        let names_a_day = |text: &str| {
            let text = text.to_ascii_lowercase();
            text.contains("per day") || text.contains("perday")
        };
        let per_day = names_a_day(&error.message)
            || quota.and_then(Value::as_str).is_some_and(names_a_day)
            || error
                .details
                .iter()
                .filter(|one| is(one, "QuotaFailure"))
                .any(|failure| names_a_day(&failure.to_string()));
        Self {
            http,
            reason: text("reason").or_else(older),
            status: error.status,
            message: clean_message(&error.message),
            retry_after: retry_after::read(http, headers, Some(body)),
            per_day,
        }
    }

    /// Returns the classification of the error.
    ///
    /// # Source  Rule BRK-7; the settings classify the 5xx.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let symptom = Symptom::Status(self.http);
        let of = |class| Verdict::from(class).symptom(symptom);
        let reason = self.reason.as_deref().unwrap_or_default();
        let verdict = match self.http {
            429 if self.per_day || USED_UP.contains(&reason) => return used_up(symptom),
            403 if USED_UP.contains(&reason) || (self.per_day && TOO_FAST.contains(&reason)) => {
                return used_up(symptom);
            }
            429 => of(Class::Throttled),
            403 if TOO_FAST.contains(&reason) => of(Class::Throttled),
            400 if WRONG_KEY.contains(&reason) => of(Class::Misconfigured),
            // Not about the request: a model that is not served by this method, a project without
            // billing, a place that is not served.
            400 if self.status.as_deref() == Some("FAILED_PRECONDITION") => {
                of(Class::Misconfigured)
            }
            // A wrong name or a retired model fails every call.
            401 | 403 | 404 => of(Class::Misconfigured),
            408 | 499 => of(Class::Failure),
            400..=499 => of(Class::Rejected),
            _ => Verdict::from(symptom),
        };
        match self.retry_after {
            Some(wait) => verdict.retry_after(wait),
            None => verdict,
        }
    }
}

/// Returns the verdict for a used-up quota. The response's hint of a few seconds is ignored: it
/// ends before the day does.
fn used_up(symptom: Symptom) -> Verdict {
    Verdict::quota_used_up().symptom(symptom)
}

fn is(detail: &Value, kind: &str) -> bool {
    let given = detail.get("@type").and_then(Value::as_str);
    given.is_some_and(|given| given.ends_with(&format!("google.rpc.{kind}")))
}

impl From<&ServiceResponse> for GoogleError {
    fn from(answer: &ServiceResponse) -> Self {
        Self::read(answer.status, &answer.headers, &answer.body)
    }
}

impl From<GoogleError> for ServiceError {
    fn from(error: GoogleError) -> Self {
        let mut text = format!("it answered {}", error.http);
        for part in [&error.status, &error.reason].into_iter().flatten() {
            text.push(' ');
            text.push_str(&clean_message(part));
        }
        if !error.message.is_empty() {
            text.push_str(": ");
            text.push_str(&error.message);
        }
        Self::new(error.verdict(), text)
    }
}

#[cfg(test)]
mod tests;
