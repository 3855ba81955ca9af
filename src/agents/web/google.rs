//! Google's Custom Search JSON API. The key is part of the URL, so no URL ever leaves this file.
//! The API is closed to new customers; it ends for all on 2027-01-01.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::{Hit, WebPort, WebProvider, WebQuery, escaped};
use crate::CallContext;
use crate::agents::ServiceError;
use crate::agents::google::GoogleError;
use crate::agents::http::ServiceRequest;
use crate::config::Secret;
use crate::policy::QuotaReset;

const BASE: &str = "https://customsearch.googleapis.com";
const NAME: &str = "web_google";

/// Provider for Google's custom search.
#[derive(Debug, Clone)]
pub struct CustomSearch {
    base: String,
    key: Secret,
    engine: String,
}

impl CustomSearch {
    /// Creates a provider with this key and search engine id.
    #[must_use]
    pub fn new(key: Secret, engine: impl Into<String>) -> Self {
        Self {
            base: BASE.to_owned(),
            key,
            engine: engine.into(),
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

    fn url(&self, query: &WebQuery) -> String {
        let Self { base, key, engine } = self;
        let (key, engine) = (escaped(key.expose()), escaped(engine));
        let (text, count) = (escaped(&query.text), query.count);
        format!("{base}/customsearch/v1?key={key}&cx={engine}&q={text}&num={count}")
    }
}

#[derive(Deserialize)]
struct GoogleResponse {
    /// Marks the JSON as a search response: `items` is omitted when nothing was found.
    kind: String,
    #[serde(default)]
    items: Vec<GoogleItem>,
}

#[derive(Deserialize)]
struct GoogleItem {
    #[serde(default)]
    title: String,
    link: String,
    #[serde(default)]
    snippet: String,
}

impl From<GoogleItem> for Hit {
    fn from(item: GoogleItem) -> Self {
        Self {
            title: item.title,
            url: item.link,
            snippet: item.snippet,
            source: NAME,
        }
    }
}

impl WebProvider for CustomSearch {
    fn name(&self) -> &'static str {
        NAME
    }

    fn search<'a>(
        &'a self,
        query: &'a WebQuery,
        port: &'a WebPort,
        call: &'a CallContext,
    ) -> BoxFuture<'a, Result<Vec<Hit>, ServiceError>> {
        let asked = ServiceRequest::get(self.url(query));
        async move {
            let answer = port.send(asked, call).await?;
            if answer.status != 200 {
                let error = ServiceError::from(GoogleError::from(&answer));
                return Err(error.without(&self.key));
            }
            let GoogleResponse { kind, items } = answer.json()?;
            if !kind.starts_with("customsearch#") {
                return Err(crate::agents::http::malformed(
                    "its response has another format",
                ));
            }
            Ok(items.into_iter().map(Hit::from).collect())
        }
        .boxed()
    }

    /// Returns a daily reset: the day of the quota begins at midnight in California.
    fn quota_reset(&self) -> Option<QuotaReset> {
        Some(QuotaReset::Daily {
            hour: 0,
            minute: 0,
            zone: "America/Los_Angeles".to_owned(),
        })
    }
}
