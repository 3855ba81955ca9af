//! Google's Custom Search JSON API. The key is part of the URL, so no URL ever leaves this file.
//! The API is closed to new customers; it ends for all on 2027-01-01.

use serde::Deserialize;

use super::{Freshness, Hit, ServiceEnd, WebPort, WebProvider, WebQuery};
use crate::CallContext;
use crate::agents::google::GoogleError;
use crate::agents::{ServiceError, ServiceFuture, ServiceRequest};
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

    fn request(&self, query: &WebQuery) -> ServiceRequest {
        let mut asked = ServiceRequest::get(format!("{}/customsearch/v1", self.base))
            .query("key", self.key.expose())
            .query("cx", &self.engine)
            .query("q", query.text_with_domains())
            .query("num", query.count.to_string());
        if let Some(freshness) = query.freshness {
            let age = match freshness {
                Freshness::Day => "d1",
                Freshness::Week => "w1",
                Freshness::Month => "m1",
                Freshness::Year => "y1",
            };
            asked = asked.query("dateRestrict", age);
        }
        if let Some(country) = &query.country {
            asked = asked.query("gl", country);
        }
        asked
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
        Self::new(NAME, item.title, item.link, item.snippet)
    }
}

impl WebProvider for CustomSearch {
    fn name(&self) -> &str {
        NAME
    }

    fn search<'a>(
        &'a self,
        query: &'a WebQuery,
        port: &'a WebPort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, Vec<Hit>> {
        let asked = self.request(query);
        Box::pin(async move {
            let answer = port.send(asked, call).await?;
            if answer.status != 200 {
                let error = ServiceError::from(GoogleError::from(&answer));
                return Err(error.without(&self.key));
            }
            let GoogleResponse { kind, items } = answer.json()?;
            if !kind.starts_with("customsearch#") {
                return Err(ServiceError::malformed("its response has another format"));
            }
            Ok(items.into_iter().map(Hit::from).collect())
        })
    }

    /// Returns the end that Google has announced. Another base URL is another service.
    fn ends(&self) -> Option<ServiceEnd> {
        ServiceEnd::on(2027, 1, 1).filter(|_| self.base == BASE)
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
