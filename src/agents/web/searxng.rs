//! SearXNG, a metasearch engine that one runs oneself. Its format `json` must be enabled in the
//! instance's settings (`search.formats`).

use serde::Deserialize;

use super::{Freshness, Hit, WebPort, WebProvider, WebQuery};
use crate::CallContext;
use crate::agents::{ServiceError, ServiceFuture, ServiceRequest};
use crate::policy::Class;

const NAME: &str = "web_searxng";

/// Provider for an instance of SearXNG. It has no option for a country.
#[derive(Debug, Clone)]
pub struct SearxngSearch {
    base: String,
}

impl SearxngSearch {
    /// Creates a provider for an instance, such as `http://localhost:8888`.
    #[must_use]
    pub fn new(base: impl Into<String>) -> Self {
        let base = base.into();
        Self {
            base: base.trim_end_matches('/').to_owned(),
        }
    }
}

#[derive(Deserialize)]
struct SearxngResponse {
    results: Vec<SearxngResult>,
    /// Engines that did not answer, with their reasons.
    #[serde(default)]
    unresponsive_engines: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SearxngResult {
    #[serde(default)]
    title: String,
    url: String,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    published_date: Option<String>,
}

impl From<SearxngResult> for Hit {
    fn from(found: SearxngResult) -> Self {
        let snippet = found.content.unwrap_or_default();
        let mut hit = Self::new(NAME, found.title, found.url, snippet);
        hit.score = found.score;
        hit.published = found.published_date;
        hit
    }
}

impl WebProvider for SearxngSearch {
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
            let mut asked = ServiceRequest::get(format!("{}/search", self.base))
                .query("q", query.text_with_domains())
                .query("format", "json");
            if let Some(freshness) = query.freshness {
                asked = asked.query("time_range", range(freshness));
            }
            let answer = port.send(asked, call).await?;
            if !answer.is_success() {
                return Err(answer.failure());
            }
            let answer: SearxngResponse = answer.json()?;
            if answer.results.is_empty() && !answer.unresponsive_engines.is_empty() {
                // Nothing was searched: not the same as nothing found.
                let text = "none of its engines answered";
                return Err(ServiceError::new(Class::Failure.into(), text));
            }
            let count = usize::try_from(query.count).unwrap_or(usize::MAX);
            Ok(answer
                .results
                .into_iter()
                .take(count)
                .map(Hit::from)
                .collect())
        })
    }
}

/// Returns the word of a freshness that most engines use.
pub(super) fn range(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Day => "day",
        Freshness::Week => "week",
        Freshness::Month => "month",
        Freshness::Year => "year",
    }
}
