//! Web search: one port, any number of providers behind it.
//!
//! Each provider is a dependency of its own. The first one that answers does; a provider that is
//! open, paused or out of quota is passed by without waiting, and is asked first again as soon as
//! it answers again. Providers come and go: Google's closes in 2027.

mod brave;
mod google;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;

use super::http::{Asked, Http, Said};
use super::{AgentError, InvalidInput, ServiceError};
use crate::policy::{Class, QuotaReset, ThrottleSettings};
use crate::{
    Answer, CallContext, Client, Dependency, Runtime, StaleCache, StartError, Verdict, tls,
};

pub use brave::Brave;
pub use google::CustomSearch;

/// Results in one request at most.
const MAX_COUNT: u32 = 10;
/// How long, and how many, last good answers may stand in when no provider answers.
const STALE: (Duration, usize) = (Duration::from_secs(3600), 1_000);

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WebQuery {
    /// The words.
    pub text: Arc<str>,
    /// How many results are wanted, 1 to 10.
    pub count: u32,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Its title.
    pub title: String,
    /// Where it is.
    pub url: String,
    /// A few words of it.
    pub snippet: String,
    /// The provider that found it.
    pub source: &'static str,
}

/// A worker's connections, over which a provider is asked.
#[derive(Debug)]
pub struct WebPort {
    http: Http,
}

impl WebPort {
    /// Asks once and reads the whole answer, whatever it is, within the limits of the call.
    ///
    /// # Errors  There was none.
    /// # Cancel safety   Dropped, the request is given up where it is.
    pub async fn send(&self, asked: Asked, call: &CallContext) -> Result<Said, ServiceError> {
        self.http.send(asked, Some(call)).await
    }
}

/// A provider of web search: one attempt, and what it came to.
pub trait WebProvider: Send + Sync + 'static {
    /// The name of its dependency, such as `web_google`.
    fn name(&self) -> &'static str;

    /// Makes one attempt. Nothing found is no error.
    fn search<'a>(
        &'a self,
        query: &'a WebQuery,
        port: &'a WebPort,
        call: &'a CallContext,
    ) -> BoxFuture<'a, Result<Vec<Hit>, ServiceError>>;

    /// When its quota is full again, where it does not say so and the settings do not either.
    fn quota_reset(&self) -> Option<QuotaReset> {
        None
    }
}

/// A worker for one provider.
pub(crate) struct Worker {
    provider: Arc<dyn WebProvider>,
    port: WebPort,
}

impl Dependency for Worker {
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

/// Why web search cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebStartError {
    /// There is nobody to ask.
    #[error("web search was given no provider, allowed: one or more")]
    NoProvider,
    /// TLS cannot be used.
    #[error("web search cannot be started: {0}")]
    Unusable(String),
    /// The runtime did not start a dependency.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Web search, protected. Cheap to clone.
#[derive(Clone)]
pub struct WebSearch {
    first: Client<Worker>,
    names: Arc<[&'static str]>,
}

impl WebSearch {
    /// Starts a dependency for each provider, in the order in which they are asked. The last of
    /// them falls back on answers of up to an hour ago.
    ///
    /// # Errors  There is no provider, or a dependency did not start.
    pub async fn start(
        runtime: &Runtime,
        providers: Vec<Arc<dyn WebProvider>>,
    ) -> Result<Self, WebStartError> {
        let tls = tls::client().map_err(WebStartError::Unusable)?;
        let names: Vec<&'static str> = providers.iter().map(|one| one.name()).collect();
        let mut next: Option<Client<Worker>> = None;
        // The last one first: each falls back on the one behind it.
        for provider in providers.into_iter().rev() {
            next = Some(start(runtime, provider, &tls, next).await?);
        }
        Ok(Self {
            first: next.ok_or(WebStartError::NoProvider)?,
            names: Arc::from(names),
        })
    }

    /// Looks for something. More than 10 results at once are not to be had: then there are 10, and
    /// a warning.
    ///
    /// # Errors  The input is none, or nobody could answer.
    pub async fn search(&self, text: &str, count: u32) -> Result<Answer<Vec<Hit>>, AgentError> {
        if text.trim().is_empty() {
            let invalid = InvalidInput::new("the query", "none", "a text that is not empty");
            return Err(invalid.into());
        }
        if count == 0 {
            let invalid = InvalidInput::new("the number of results", "0", "1 to 10");
            return Err(invalid.into());
        }
        if count > MAX_COUNT {
            tracing::warn!("{count} web results were asked for; at most {MAX_COUNT} are to be had");
        }
        let query = WebQuery {
            text: Arc::from(text.trim()),
            count: count.min(MAX_COUNT),
        };
        Ok(self.first.ask(query).await?)
    }

    /// The names of its dependencies, in the order in which they are asked.
    #[must_use]
    pub fn names(&self) -> &[&'static str] {
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
    next: Option<Client<Worker>>,
) -> Result<Client<Worker>, StartError> {
    let mut connect = None;
    let new = runtime.dependency(provider.name()).configure(|settings| {
        connect = settings.timeout.connect;
        let unsaid = settings.throttle.quota_reset == ThrottleSettings::default().quota_reset;
        if let (true, Some(reset)) = (unsaid, provider.quota_reset()) {
            settings.throttle.quota_reset = reset;
        }
    });
    let tls = tls.clone();
    let builder = new.workers(move || Worker {
        provider: Arc::clone(&provider),
        port: WebPort {
            http: Http::new(tls.clone(), connect),
        },
    });
    match next {
        Some(next) => builder.fallback(next),
        None => builder.fallback(StaleCache::new(STALE.0, STALE.1)),
    }
    .start()
    .await
}

/// A text as a part of an address.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
