//! Serper: the results of Google's web search as JSON, from a service that is not Google's.

use http::HeaderName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Freshness, Hit, WebPort, WebProvider, WebQuery};
use crate::CallContext;
use crate::agents::{ServiceError, ServiceFuture, ServiceRequest, ServiceResponse};
use crate::config::Secret;

const BASE: &str = "https://google.serper.dev";
const NAME: &str = "web_serper";
const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Provider for Serper's web search.
#[derive(Debug, Clone)]
pub struct SerperSearch {
    base: String,
    key: Secret,
}

impl SerperSearch {
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

fn body(query: &WebQuery) -> Value {
    let mut body = json!({ "q": query.text_with_domains(), "num": query.count });
    if let Some(freshness) = query.freshness {
        body["tbs"] = Value::from(match freshness {
            Freshness::Day => "qdr:d",
            Freshness::Week => "qdr:w",
            Freshness::Month => "qdr:m",
            Freshness::Year => "qdr:y",
        });
    }
    if let Some(country) = &query.country {
        body["gl"] = Value::from(&**country);
    }
    body
}

/// Returns the error of a response that is not a success.
fn failed(answer: &ServiceResponse) -> ServiceError {
    // Serper answers 400 both for a query that it refuses and for credits that are used up.
    let is_out_of_credits = answer.message().to_ascii_lowercase().contains("credits");
    if answer.status == 400 && is_out_of_credits {
        return answer.failure_as(crate::Verdict::quota_used_up());
    }
    answer.failure()
}

#[derive(Deserialize)]
struct SerperResponse {
    /// Marks the JSON as a search response: `organic` is omitted when nothing was found.
    #[serde(rename = "searchParameters")]
    _asked: Value,
    #[serde(default)]
    organic: Vec<SerperResult>,
}

#[derive(Deserialize)]
struct SerperResult {
    #[serde(default)]
    title: String,
    link: String,
    #[serde(default)]
    snippet: String,
    #[serde(default)]
    date: Option<String>,
}

impl From<SerperResult> for Hit {
    fn from(found: SerperResult) -> Self {
        let mut hit = Self::new(NAME, found.title, found.link, found.snippet);
        hit.published = found.date;
        hit
    }
}

impl WebProvider for SerperSearch {
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
            let asked = ServiceRequest::post_json(format!("{}/search", self.base), &body(query));
            let asked = asked.secret_header(KEY, self.key.expose())?;
            let answer = port.send(asked, call).await?;
            if !answer.is_success() {
                return Err(failed(&answer).without(&self.key));
            }
            let answer: SerperResponse = answer.json()?;
            // Google may return more than the number that it was asked for.
            let count = usize::try_from(query.count).unwrap_or(usize::MAX);
            let found = answer.organic.into_iter().take(count);
            Ok(found.map(Hit::from).collect())
        })
    }
}
