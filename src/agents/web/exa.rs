//! Exa's search for agents: results by meaning, with excerpts or with the text of their pages.

use http::HeaderName;
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Freshness, Hit, WebPort, WebProvider, WebQuery};
use crate::CallContext;
use crate::agents::{ServiceError, ServiceFuture, ServiceRequest, ServiceResponse};
use crate::config::Secret;
use crate::policy::Class;

const BASE: &str = "https://api.exa.ai";
const NAME: &str = "web_exa";
const KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Length of the excerpt that is taken from the text of a page, in characters.
const EXCERPT: usize = 300;

/// Provider for Exa's search.
#[derive(Debug, Clone)]
pub struct ExaSearch {
    base: String,
    key: Secret,
    with_content: bool,
}

impl ExaSearch {
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

    /// Asks for the text of each page in place of excerpts; responses are longer. Exa counts each
    /// of the two, so that both are never asked for.
    #[must_use]
    pub fn with_content(self) -> Self {
        Self {
            with_content: true,
            ..self
        }
    }

    fn body(&self, query: &WebQuery, now: Timestamp) -> Value {
        let contents = if self.with_content {
            "text"
        } else {
            "highlights"
        };
        let mut body = json!({ "query": &*query.text, "numResults": query.count,
            "contents": { contents: true } });
        if let Some(freshness) = query.freshness {
            body["startPublishedDate"] = Value::from(earliest(freshness, now).to_string());
        }
        if let Some(country) = &query.country {
            body["userLocation"] = Value::from(country.to_ascii_uppercase());
        }
        if !query.domains.is_empty() {
            body["includeDomains"] =
                json!(query.domains.iter().map(|one| &**one).collect::<Vec<_>>());
        }
        body
    }
}

/// Returns the earliest time of a page of this freshness, to the second.
fn earliest(freshness: Freshness, now: Timestamp) -> Timestamp {
    let age = match freshness {
        Freshness::Day => 1.day(),
        Freshness::Week => 7.days(),
        Freshness::Month => 1.month(),
        Freshness::Year => 1.year(),
    };
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let begin = seconds.to_zoned_datetime(TimeZone::UTC).checked_sub(age);
    begin.map_or(Timestamp::MIN, |begin| begin.timestamp())
}

/// Returns the error of a response that is not a success.
fn failed(answer: &ServiceResponse) -> ServiceError {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (answer.status, body["tag"].as_str()) {
        // The credits of the account, or the budget of the key: no wait of seconds helps.
        (402, _) => answer.failure_as(crate::Verdict::quota_used_up()),
        // The text of the query is refused; other queries are not.
        (403, Some("PROHIBITED_CONTENT")) => answer.failure_of(Class::Rejected),
        _ => answer.failure(),
    }
}

#[derive(Deserialize)]
struct ExaResponse {
    results: Vec<ExaResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExaResult {
    #[serde(default)]
    title: Option<String>,
    url: String,
    #[serde(default)]
    published_date: Option<String>,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    highlights: Vec<String>,
}

impl From<ExaResult> for Hit {
    fn from(found: ExaResult) -> Self {
        let snippet = match &found.text {
            Some(text) if found.highlights.is_empty() => text.chars().take(EXCERPT).collect(),
            _ => found.highlights.join(" … "),
        };
        let title = found.title.unwrap_or_default();
        let mut hit = Self::new(NAME, title, found.url, snippet);
        hit.score = found.score;
        hit.content = found.text;
        hit.published = found.published_date;
        hit
    }
}

impl WebProvider for ExaSearch {
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
            let body = self.body(query, Timestamp::now());
            let asked = ServiceRequest::post_json(format!("{}/search", self.base), &body);
            let asked = asked.secret_header(KEY, self.key.expose())?;
            let answer = port.send(asked, call).await?;
            if !answer.is_success() {
                return Err(failed(&answer).without(&self.key));
            }
            let answer: ExaResponse = answer.json()?;
            Ok(answer.results.into_iter().map(Hit::from).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_a_freshness_of_exa_is_a_date_of_the_calendar() {
        let now: Timestamp = "2028-02-29T12:00:00.5Z".parse().unwrap();
        for (freshness, begin) in [
            (Freshness::Day, "2028-02-28T12:00:00Z"),
            (Freshness::Week, "2028-02-22T12:00:00Z"),
            (Freshness::Month, "2028-01-29T12:00:00Z"),
            (Freshness::Year, "2027-02-28T12:00:00Z"),
        ] {
            assert_eq!(earliest(freshness, now).to_string(), begin);
        }
    }
}
