//! How Google's services say that something went wrong, and what that counts for.
//!
//! One envelope for all of them; front ends answer with pages for browsers instead. Nothing here
//! decides what follows: it names class, symptom and hint.

use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::ServiceError;
use super::failure::said;
use super::http::Said;
use crate::policy::{Class, Symptom};
use crate::{Verdict, hint};

/// An error of a Google service.
///
/// # Source  `google.rpc.Status`, as the REST interfaces write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleError {
    /// The status of the HTTP answer.
    pub http: u16,
    /// The canonical status, such as `RESOURCE_EXHAUSTED`.
    pub status: Option<String>,
    /// The reason, such as `SERVICE_DISABLED`: of the details, else of the older list.
    pub reason: Option<String>,
    /// The words, on one line and without addresses' queries.
    pub message: String,
    /// How long it asks to be left alone: the larger one of `Retry-After` and `RetryInfo`.
    pub retry_after: Option<Duration>,
    /// Whether what is used up is a quota of a day.
    pub per_day: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    error: Inner,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Inner {
    message: String,
    status: Option<String>,
    errors: Vec<Older>,
    details: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Older {
    reason: Option<String>,
}

/// Reasons of a quota that is used up until tomorrow, in the older interfaces.
const USED_UP: [&str; 3] = [
    "dailyLimitExceeded",
    "dailyLimitExceededUnreg",
    "quotaExceeded",
];
/// Reasons of too much traffic, which older interfaces answer with 403.
const TOO_FAST: [&str; 2] = ["rateLimitExceeded", "userRateLimitExceeded"];
/// Reasons of a wrong key, which comes as 400.
const WRONG_KEY: [&str; 2] = ["API_KEY_INVALID", "keyInvalid"];

impl GoogleError {
    /// Reads an answer that is no success.
    #[must_use]
    pub fn read(http: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let envelope: Option<Envelope> = serde_json::from_slice(body).ok();
        let Some(Envelope { error }) = envelope else {
            return Self {
                http,
                status: None,
                reason: None,
                message: said(&String::from_utf8_lossy(body)),
                retry_after: hint::read(headers, None),
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
            message: said(&error.message),
            retry_after: hint::read(headers, Some(body)),
            per_day,
        }
    }

    /// What it counts for.
    ///
    /// # Source  Rule BRK-7; the 5xx are the settings' own to judge.
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
            // A wrong name, and a model that is no more, are wrong for every call.
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

/// Such answers name a few seconds too, which end before the day does.
fn used_up(symptom: Symptom) -> Verdict {
    Verdict::quota_used_up().symptom(symptom)
}

fn is(detail: &Value, kind: &str) -> bool {
    let given = detail.get("@type").and_then(Value::as_str);
    given.is_some_and(|given| given.ends_with(&format!("google.rpc.{kind}")))
}

impl From<&Said> for GoogleError {
    fn from(answer: &Said) -> Self {
        Self::read(answer.status, &answer.headers, &answer.body)
    }
}

impl From<GoogleError> for ServiceError {
    fn from(error: GoogleError) -> Self {
        let mut text = format!("it answered {}", error.http);
        for part in [&error.status, &error.reason].into_iter().flatten() {
            text.push(' ');
            text.push_str(&said(part));
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
