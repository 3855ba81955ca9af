//! Web search: one client over any number of providers.
//!
//! Each provider is its own dependency. They are tried in order until one answers. A provider that
//! is open, paused or out of quota is skipped without waiting, and is tried in its turn again as
//! soon as it recovers. Providers come and go: Google's ends with 2026.

mod ending;
mod query;
mod variables;

mod brave;
mod exa;
mod google;
mod searxng;
mod serper;
mod tavily;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;

use super::{AgentError, InvalidInput, ServiceError, ServicePort};
use crate::policy::{Class, QuotaReset, ThrottleSettings};
use crate::{
    Answer, CallContext, Client, Dependency, Runtime, StaleCache, StartError, Verdict, tls,
};

pub use brave::Brave;
pub use ending::ServiceEnd;
pub use exa::ExaSearch;
pub use google::CustomSearch;
pub use query::{Freshness, Hit, WebQuery};
pub use searxng::SearxngSearch;
pub use serper::SerperSearch;
pub use tavily::TavilySearch;
pub use variables::web_providers;

/// Maximum number of results in one request.
const MAX_COUNT: u32 = 10;
/// Maximum age and number of cached responses for the case that no provider answers.
const STALE: (Duration, usize) = (Duration::from_secs(3600), 1_000);

/// HTTP connections of a worker to its provider, as of every service.
pub type WebPort = ServicePort;

/// A provider of web search: it makes one attempt and classifies the outcome.
pub trait WebProvider: Send + Sync + 'static {
    /// Returns the name of its dependency, such as `web_google`.
    fn name(&self) -> &str;

    /// Makes one attempt. An empty result is not an error.
    fn search<'a>(
        &'a self,
        query: &'a WebQuery,
        port: &'a WebPort,
        call: &'a CallContext,
    ) -> BoxFuture<'a, Result<Vec<Hit>, ServiceError>>;

    /// Returns the time of the quota reset, used if neither the response nor the settings give it.
    fn quota_reset(&self) -> Option<QuotaReset> {
        None
    }

    /// Returns the announced end of the service. It warns at each start, and a provider that has
    /// ended is left out.
    fn ends(&self) -> Option<ServiceEnd> {
        None
    }
}

/// A worker for one provider.
pub(crate) struct ProviderWorker {
    provider: Arc<dyn WebProvider>,
    port: WebPort,
}

impl Dependency for ProviderWorker {
    type Request = WebQuery;
    type Response = Vec<Hit>;
    type Error = ServiceError;

    async fn call(&self, query: WebQuery, call: &CallContext) -> Result<Vec<Hit>, ServiceError> {
        self.provider.search(&query, &self.port, call).await
    }

    fn classify(result: Result<&Vec<Hit>, &ServiceError>) -> Verdict {
        match result {
            Ok(_) => Verdict::from(Class::Success),
            Err(error) => error.verdict(),
        }
    }

    fn is_idempotent(_: &WebQuery) -> bool {
        true
    }
}

/// Errors of starting web search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebStartError {
    /// No provider was given.
    #[error("web search was given no provider, allowed: one or more")]
    NoProvider,
    /// All given providers have ended.
    #[error("web search was given providers that have ended: {0}")]
    Ended(String),
    /// Variables are missing or cannot be used.
    #[error("web search cannot be configured: {0}")]
    Variables(String),
    /// TLS cannot be used.
    #[error("web search cannot be started: {0}")]
    Unusable(String),
    /// The runtime did not start a dependency.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Protected client for web search. Cheap to clone.
#[derive(Clone)]
pub struct WebSearch {
    first: Client<ProviderWorker>,
    names: Arc<[Arc<str>]>,
}

impl WebSearch {
    /// Starts a dependency for each provider, in the order in which they are tried. The last one
    /// falls back on cached responses of up to an hour ago.
    ///
    /// Providers that have ended are left out, with an error in the log.
    ///
    /// # Errors  There is no provider, all have ended, or a dependency did not start.
    pub async fn start(
        runtime: &Runtime,
        providers: Vec<Arc<dyn WebProvider>>,
    ) -> Result<Self, WebStartError> {
        let tls = tls::client().map_err(WebStartError::Unusable)?;
        let providers = ending::without_ended(providers, runtime.clock().wall())?;
        let names: Vec<Arc<str>> = providers.iter().map(|one| Arc::from(one.name())).collect();
        let mut next: Option<Client<ProviderWorker>> = None;
        // The last one first: each falls back on the next one in the order.
        for provider in providers.into_iter().rev() {
            next = Some(start(runtime, provider, &tls, next).await?);
        }
        Ok(Self {
            first: next.ok_or(WebStartError::NoProvider)?,
            names: Arc::from(names),
        })
    }

    /// Searches the web. The maximum is 10 results: a larger `count` returns 10 and logs a warning.
    ///
    /// # Errors  The input is invalid, or neither a provider nor the cache answered.
    pub async fn search(&self, text: &str, count: u32) -> Result<Answer<Vec<Hit>>, AgentError> {
        self.search_with(WebQuery::new(text, count)).await
    }

    /// Searches the web with options: freshness, country, domains.
    ///
    /// # Errors  As [`WebSearch::search`].
    pub async fn search_with(&self, query: WebQuery) -> Result<Answer<Vec<Hit>>, AgentError> {
        let mut query = query.checked()?;
        let count = query.count;
        if count == 0 {
            let invalid = InvalidInput::new("the number of results", "0", "1 to 10");
            return Err(invalid.into());
        }
        if count > MAX_COUNT {
            tracing::warn!("{count} web results were requested; the maximum is {MAX_COUNT}");
        }
        query.count = count.min(MAX_COUNT);
        Ok(self.first.ask(query).await?)
    }

    /// Returns the names of the dependencies, in the order in which they are tried.
    #[must_use]
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

impl fmt::Debug for WebSearch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WebSearch")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

async fn start(
    runtime: &Runtime,
    provider: Arc<dyn WebProvider>,
    tls: &ClientConfig,
    next: Option<Client<ProviderWorker>>,
) -> Result<Client<ProviderWorker>, StartError> {
    let mut connect = None;
    let new = runtime.dependency(provider.name()).configure(|settings| {
        connect = settings.timeout.connect;
        let unsaid = settings.throttle.quota_reset == ThrottleSettings::default().quota_reset;
        if let (true, Some(reset)) = (unsaid, provider.quota_reset()) {
            settings.throttle.quota_reset = reset;
        }
    });
    let tls = tls.clone();
    let builder = new.workers(move || ProviderWorker {
        provider: Arc::clone(&provider),
        port: ServicePort::with_tls(tls.clone(), connect),
    });
    match next {
        Some(next) => builder.fallback(next),
        None => builder.fallback(StaleCache::new(STALE.0, STALE.1)),
    }
    .start()
    .await
}
