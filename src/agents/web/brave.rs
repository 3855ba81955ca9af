//! Brave's web search API: JSON, with the key in a header.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::HeaderName;
use serde::Deserialize;
use serde_json::Value;

use super::{Hit, WebPort, WebProvider, WebQuery, escaped};
use crate::agents::ServiceError;
use crate::agents::failure::said;
use crate::agents::http::{ServiceRequest, ServiceResponse};
use crate::config::Secret;
use crate::policy::{Class, Symptom};
use crate::{CallContext, Verdict, retry_after};

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
}

impl From<BraveResult> for Hit {
    fn from(found: BraveResult) -> Self {
        Self {
            title: found.title,
            url: found.url,
            snippet: found.description,
            source: NAME,
        }
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
    let verdict = match retry_after::read(status, &answer.headers, None) {
        Some(wait) => verdict.retry_after(wait),
        None => verdict,
    };
    let words = format!(
        "it answered {status} {} {}",
        said(code),
        said(text("/error/detail"))
    );
    ServiceError::new(verdict, words.trim_end())
}

impl WebProvider for Brave {
    fn name(&self) -> &'static str {
        NAME
    }

    fn search<'a>(
        &'a self,
        query: &'a WebQuery,
        port: &'a WebPort,
        call: &'a CallContext,
    ) -> BoxFuture<'a, Result<Vec<Hit>, ServiceError>> {
        async move {
            let (text, count) = (escaped(&query.text), query.count);
            let url = format!("{}/res/v1/web/search?q={text}&count={count}", self.base);
            let asked = ServiceRequest::get(url)
                .header("accept", "application/json")
                .secret_header(KEY, self.key.expose())?;
            let answer = port.send(asked, call).await?;
            if answer.status != 200 {
                return Err(failed(&answer).without(&self.key));
            }
            let answer: BraveResponse = answer.json()?;
            let found = answer.web.map(|web| web.results).unwrap_or_default();
            Ok(found.into_iter().map(Hit::from).collect())
        }
        .boxed()
    }
}
