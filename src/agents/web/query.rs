//! Queries of web search with their options, and results.

use std::borrow::Cow;
use std::sync::Arc;

use crate::agents::InvalidInput;

/// Maximum number of domains in one query: search engines ignore the rest of a long query.
const MAX_DOMAINS: usize = 10;

/// A search query. Options that a provider does not have are ignored by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WebQuery {
    /// The search text.
    pub text: Arc<str>,
    /// Number of results wanted, 1 to 10.
    pub count: u32,
    /// Greatest age of the pages.
    pub freshness: Option<Freshness>,
    /// Country of the preferred pages: two letters of ISO 3166, such as `de`.
    pub country: Option<Arc<str>>,
    /// Domains to which the search is limited; none: the whole web.
    pub domains: Vec<Arc<str>>,
}

/// Greatest age of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Freshness {
    /// The last 24 hours.
    Day,
    /// The last seven days.
    Week,
    /// The last month.
    Month,
    /// The last year.
    Year,
}

impl WebQuery {
    /// Creates a query without options.
    #[must_use]
    pub fn new(text: &str, count: u32) -> Self {
        Self {
            text: Arc::from(text.trim()),
            count,
            freshness: None,
            country: None,
            domains: Vec::new(),
        }
    }

    /// Sets the greatest age of the pages.
    #[must_use]
    pub fn freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = Some(freshness);
        self
    }

    /// Sets the country of the preferred pages: two letters of ISO 3166.
    #[must_use]
    pub fn country(mut self, country: &str) -> Self {
        self.country = Some(Arc::from(country.trim().to_ascii_lowercase()));
        self
    }

    /// Adds a domain to which the search is limited, such as `example.org`.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Self {
        self.domains.push(Arc::from(domain.trim()));
        self
    }

    /// Returns the text with the domains in the operators that most engines read.
    #[must_use]
    pub fn text_with_domains(&self) -> String {
        let sites: Vec<String> = self
            .domains
            .iter()
            .map(|one| format!("site:{one}"))
            .collect();
        match &sites[..] {
            [] => self.text.to_string(),
            [site] => format!("{} {site}", self.text),
            sites => format!("{} ({})", self.text, sites.join(" OR ")),
        }
    }

    /// Checks text, country and domains.
    pub(super) fn checked(self) -> Result<Self, InvalidInput> {
        if self.text.trim().is_empty() {
            let allowed = "a text that is not empty";
            return Err(InvalidInput::new("the query", "none", allowed));
        }
        let letters =
            |text: &str| text.len() == 2 && text.bytes().all(|one| one.is_ascii_alphabetic());
        if let Some(country) = self.country.as_deref().filter(|given| !letters(given)) {
            let allowed = "two letters of ISO 3166, such as de";
            return Err(InvalidInput::new(
                "the country",
                format!("{country:?}"),
                allowed,
            ));
        }
        let is_domain = |text: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
            text.contains('.') && text.bytes().all(|byte| known(byte) || !byte.is_ascii())
        };
        if let Some(domain) = self.domains.iter().find(|given| !is_domain(given)) {
            let allowed = "a domain, such as example.org";
            return Err(InvalidInput::new(
                "the domain",
                format!("{domain:?}"),
                allowed,
            ));
        }
        if self.domains.len() > MAX_DOMAINS {
            let (given, allowed) = (
                self.domains.len().to_string(),
                format!("0 to {MAX_DOMAINS}"),
            );
            return Err(InvalidInput::new("the number of domains", given, allowed));
        }
        Ok(self)
    }
}

/// A search result.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The title.
    pub title: String,
    /// The URL.
    pub url: String,
    /// An excerpt of the page.
    pub snippet: String,
    /// The provider that found it.
    pub source: Cow<'static, str>,
    /// Date of the page, as the provider writes it.
    pub published: Option<String>,
    /// Relevance, as the provider measures it.
    pub score: Option<f64>,
    /// Text of the page, from providers that return it.
    pub content: Option<String>,
}

impl Hit {
    /// Creates a result of a provider, by its name.
    #[must_use]
    pub fn new(
        source: impl Into<Cow<'static, str>>,
        title: impl Into<String>,
        url: impl Into<String>,
        snippet: impl Into<String>,
    ) -> Self {
        Self {
            title: title.into(),
            url: url.into(),
            snippet: snippet.into(),
            source: source.into(),
            published: None,
            score: None,
            content: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_options_of_a_query_are_checked_before_any_call() {
        let query = || WebQuery::new(" breakers ", 3);
        assert_eq!(query().text_with_domains(), "breakers");
        let two = query().domain("a.org").domain("b.org");
        assert_eq!(
            two.text_with_domains(),
            "breakers (site:a.org OR site:b.org)"
        );
        assert!(
            two.country("DE")
                .freshness(Freshness::Week)
                .checked()
                .is_ok()
        );
        let refused = |query: WebQuery| query.checked().unwrap_err().to_string();
        assert_eq!(
            refused(query().country("germany")),
            "the country: given \"germany\", allowed two letters of ISO 3166, such as de"
        );
        for domain in ["a b.org", "localhost", "https://a.org"] {
            let error = refused(query().domain(domain));
            assert!(error.starts_with("the domain: given "), "{error}");
        }
    }
}
