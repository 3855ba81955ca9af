//! Tavily's search for agents: results with scores and, if wanted, with the text of their pages.

use serde::Deserialize;
use serde_json::{Value, json};

use super::searxng::range;
use super::{Hit, WebPort, WebProvider, WebQuery};
use crate::CallContext;
use crate::agents::{ServiceError, ServiceFuture, ServiceRequest, ServiceResponse};
use crate::config::Secret;
use crate::policy::Class;

const BASE: &str = "https://api.tavily.com";
const NAME: &str = "web_tavily";

/// Names of countries as Tavily takes them. Of others, it is not told.
const COUNTRIES: [(&str, &str); 36] = [
    ("ar", "argentina"),
    ("at", "austria"),
    ("au", "australia"),
    ("be", "belgium"),
    ("br", "brazil"),
    ("ca", "canada"),
    ("ch", "switzerland"),
    ("cl", "chile"),
    ("cn", "china"),
    ("co", "colombia"),
    ("cz", "czech republic"),
    ("de", "germany"),
    ("dk", "denmark"),
    ("es", "spain"),
    ("fi", "finland"),
    ("fr", "france"),
    ("gb", "united kingdom"),
    ("gr", "greece"),
    ("hu", "hungary"),
    ("ie", "ireland"),
    ("il", "israel"),
    ("in", "india"),
    ("it", "italy"),
    ("jp", "japan"),
    ("kr", "south korea"),
    ("mx", "mexico"),
    ("nl", "netherlands"),
    ("no", "norway"),
    ("nz", "new zealand"),
    ("pl", "poland"),
    ("pt", "portugal"),
    ("se", "sweden"),
    ("sg", "singapore"),
    ("tr", "turkey"),
    ("us", "united states"),
    ("za", "south africa"),
];

/// Provider for Tavily's search.
#[derive(Debug, Clone)]
pub struct TavilySearch {
    base: String,
    key: Secret,
    with_content: bool,
}

impl TavilySearch {
    /// Creates a provider with this key.
    #[must_use]
    pub fn new(key: Secret) -> Self {
        Self {
            base: BASE.to_owned(),
            key,
            with_content: false,
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

    /// Asks for the text of each page, in Markdown; responses are longer and slower.
    #[must_use]
    pub fn with_content(self) -> Self {
        Self {
            with_content: true,
            ..self
        }
    }

    fn body(&self, query: &WebQuery) -> Value {
        let mut body = json!({ "query": &*query.text, "max_results": query.count });
        if let Some(freshness) = query.freshness {
            body["time_range"] = Value::from(range(freshness));
        }
        let country = query.country.as_deref();
        let country = country.and_then(|code| COUNTRIES.iter().find(|(known, _)| *known == code));
        if let Some((_, country)) = country {
            body["country"] = Value::from(*country);
        }
        if !query.domains.is_empty() {
            body["include_domains"] =
                json!(query.domains.iter().map(|one| &**one).collect::<Vec<_>>());
        }
        if self.with_content {
            body["include_raw_content"] = Value::from("markdown");
        }
        body
    }
}

/// Returns the error of a response that is not a success.
fn failed(answer: &ServiceResponse) -> ServiceError {
    match answer.status {
        // The plan's limit, or that of its pay-as-you-go: no wait of seconds helps.
        432 | 433 => answer.failure_as(crate::Verdict::quota_used_up()),
        // Options are made here; a refusal of the text alone is the caller's.
        422 => answer.failure_of(Class::Rejected),
        _ => answer.failure(),
    }
}

#[derive(Deserialize)]
struct TavilyResponse {
    results: Vec<TavilyResult>,
}

#[derive(Deserialize)]
struct TavilyResult {
    #[serde(default)]
    title: String,
    url: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    raw_content: Option<String>,
    #[serde(default)]
    published_date: Option<String>,
}

impl From<TavilyResult> for Hit {
    fn from(found: TavilyResult) -> Self {
        let mut hit = Self::new(NAME, found.title, found.url, found.content);
        hit.score = found.score;
        hit.content = found.raw_content;
        hit.published = found.published_date;
        hit
    }
}

impl WebProvider for TavilySearch {
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
            let url = format!("{}/search", self.base);
            let asked = ServiceRequest::post_json(url, &self.body(query)).bearer(&self.key)?;
            let answer = port.send(asked, call).await?;
            if !answer.is_success() {
                return Err(failed(&answer).without(&self.key));
            }
            let answer: TavilyResponse = answer.json()?;
            Ok(answer.results.into_iter().map(Hit::from).collect())
        })
    }
}
