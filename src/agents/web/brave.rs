//! Brave's web search API: JSON, with the key in a header.

use http::HeaderName;
use serde::Deserialize;
use serde_json::Value;

use super::{Freshness, Hit, WebPort, WebProvider, WebQuery};
use crate::agents::{ServiceError, ServiceFuture, ServiceRequest, ServiceResponse, clean_message};
use crate::config::Secret;
use crate::policy::{Class, Symptom};
use crate::{CallContext, Verdict};

const BASE: &str = "https://api.search.brave.com";
const NAME: &str = "web_brave";
const KEY: HeaderName = HeaderName::from_static("x-subscription-token");

/// Provider for Brave's web search.
#[derive(Debug, Clone)]
pub struct Brave {
    base: String,
    key: Secret,
}

impl Brave {
    /// Creates a provider with this key.
    #[must_use]
    pub fn new(key: Secret) -> Self {
        Self {
            base: BASE.to_owned(),
            key,
        }
    }

    /// Sets another base URL, such as that of a fake.
    #[must_use]
    pub fn at(self, base: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            ..self
        }
    }
}

#[derive(Deserialize)]
struct BraveResponse {
    /// Marks the JSON as a search response: `web` is omitted when nothing was found.
    #[serde(rename = "type")]
    _kind: String,
    #[serde(default)]
    web: Option<BraveResults>,
}

#[derive(Deserialize)]
struct BraveResults {
    #[serde(default)]
    results: Vec<BraveResult>,
}

#[derive(Deserialize)]
struct BraveResult {
    #[serde(default)]
    title: String,
    url: String,
    #[serde(default)]
    description: String,
    /// Date and time of the page.
    #[serde(default)]
    page_age: Option<String>,
}

impl From<BraveResult> for Hit {
    fn from(found: BraveResult) -> Self {
        let mut hit = Self::new(NAME, found.title, found.url, found.description);
        hit.published = found.page_age;
        hit
    }
}

/// Returns the error for a response that is not a success.
fn failed(answer: &ServiceResponse) -> ServiceError {
    let status = answer.status;
    let symptom = Symptom::Status(status);
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |path: &str| {
        body.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let code = text("/error/code");
    let verdict = match status {
        // The plan's quota, not the limit per second.
        429 if code == "QUOTA_LIMITED" => Verdict::quota_used_up().symptom(symptom),
        429 => Verdict::from(Class::Throttled).symptom(symptom),
        401 | 403 | 404 => Verdict::from(Class::Misconfigured).symptom(symptom),
        422 if code.contains("TOKEN") => Verdict::from(Class::Misconfigured).symptom(symptom),
        400..=499 => Verdict::from(Class::Rejected).symptom(symptom),
        _ => Verdict::from(symptom),
    };
    let verdict = match answer.retry_hint() {
        Some(wait) => verdict.retry_after(wait),
        None => verdict,
    };
    let words = format!(
        "it answered {status} {} {}",
        clean_message(code),
        clean_message(text("/error/detail"))
    );
    ServiceError::new(verdict, words.trim_end())
}

impl WebProvider for Brave {
    fn name(&self) -> &str {
        NAME
    }

    fn search<'a>(
        &'a self,
        query: &'a WebQuery,
        port: &'a WebPort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, Vec<Hit>> {
        Box::pin(async move {
            let mut asked = ServiceRequest::get(format!("{}/res/v1/web/search", self.base))
                .query("q", query.text_with_domains())
                .query("count", query.count.to_string());
            if let Some(freshness) = query.freshness {
                let age = match freshness {
                    Freshness::Day => "pd",
                    Freshness::Week => "pw",
                    Freshness::Month => "pm",
                    Freshness::Year => "py",
                };
                asked = asked.query("freshness", age);
            }
            if let Some(country) = &query.country {
                asked = asked.query("country", country.to_ascii_uppercase());
            }
            let asked = asked
                .header("accept", "application/json")
                .secret_header(KEY, self.key.expose())?;
            let answer = port.send(asked, call).await?;
            if answer.status != 200 {
                return Err(failed(&answer).without(&self.key));
            }
            let answer: BraveResponse = answer.json()?;
            let found = answer.web.map(|web| web.results).unwrap_or_default();
            Ok(found.into_iter().map(Hit::from).collect())
        })
    }
}
