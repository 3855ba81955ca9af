//! The dependencies that callers can reach, by name.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::AddError;
use super::fallback::narrowed;
use super::http::cache::{CacheRules, HttpCache, HttpCacheFallback};
use super::http::cache_key::KeyHeaders;
use super::http::connector::UpstreamAddress;
use super::http::dependency::HttpDependency;
use super::http::outbound::OutboundHeaders;
use super::http::substitute::SubstituteDependency;
use super::http::upstream::UpstreamClient;
use super::mcp::endpoint::McpEndpoint;
use super::message::HttpReply;
use super::trace::{AttemptTracer, Tracing};
use crate::config::{DependencyConfig, FallbackConfig, FallbackKind, GatewayConfig, UpstreamTls};
use crate::mcp::McpSettings;
use crate::{ByName, Client, FallbackRule, Fixed, Runtime};

/// A snapshot of the routes.
pub(super) type RouteTable = HashMap<Arc<str>, RouteKind>;

/// Kind of a route.
#[derive(Clone)]
pub(super) enum RouteKind {
    /// Any request is passed on.
    Http(Arc<HttpRoute>),
    /// Its tools are called.
    Mcp(Arc<McpEndpoint>),
}

impl RouteKind {
    /// Returns true if it can take over a configuration while it runs.
    pub(super) fn fits(&self, config: &DependencyConfig, url: &str) -> bool {
        match self {
            Self::Http(route) => route.fits(config, url),
            Self::Mcp(endpoint) => endpoint.fits(config),
        }
    }

    /// Applies the settings that are not the runtime's.
    pub(super) fn follow(&self, config: &DependencyConfig) {
        if let Self::Http(route) = self {
            route.follow(config);
        }
    }
}

/// The state of one gateway thread.
pub(super) struct ThreadContext {
    pub(super) number: usize,
    pub(super) routes: Arc<ArcSwap<RouteTable>>,
    pub(super) config: Arc<ArcSwap<GatewayConfig>>,
    pub(super) tracing: Tracing,
}

/// One HTTP dependency that callers can reach.
pub(super) struct HttpRoute {
    pub(super) name: Arc<str>,
    pub(super) client: Client<HttpDependency>,
    pub(super) idempotent: Vec<Method>,
    /// Its stale caches.
    pub(super) caches: Arc<[Arc<HttpCache>]>,
    /// Its inputs; a change of them needs a new route.
    spec: HttpRouteSpec,
    address: Arc<UpstreamAddress>,
    pub(super) attempts: AttemptTracer,
    /// Connections of each thread.
    upstreams: Box<[OnceLock<UpstreamClient>]>,
}

/// Settings that only a restart can change.
#[derive(Debug, PartialEq)]
struct HttpRouteSpec {
    url: String,
    tls: Option<UpstreamTls>,
    idempotent: Vec<String>,
    fallbacks: Vec<FallbackConfig>,
    fallback_only: bool,
}

impl HttpRouteSpec {
    fn of(config: &DependencyConfig, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            tls: config.tls.clone(),
            idempotent: config.idempotent.clone(),
            fallbacks: config.fallbacks.clone(),
            fallback_only: config.settings.fallback_only,
        }
    }
}

impl HttpRoute {
    /// Starts the dependency with its workers and fallbacks.
    pub(super) async fn start(
        runtime: &Runtime,
        name: &str,
        (config, url): (&DependencyConfig, &str),
        (threads, tracing): (usize, &Tracing),
    ) -> Result<Self, AddError> {
        let address = UpstreamAddress::new(url, config.tls.as_ref()).map_err(|problem| {
            AddError::Address {
                name: name.to_owned(),
                problem,
            }
        })?;
        follow(&address, config);
        let address = Arc::new(address);
        let attempts = tracing.attempts(name, url);
        let caches = caches(&config.fallbacks);
        let (own, traced, kept) = (Arc::clone(&address), attempts.clone(), Arc::clone(&caches));
        let new = runtime.dependency(name).settings(config.settings.clone());
        let mut builder = new.workers(move || {
            let upstream = UpstreamClient::new(Arc::clone(&own));
            HttpDependency::new(upstream, traced.clone(), Arc::clone(&kept))
        });
        for rule in rules(runtime, &config.fallbacks, &caches) {
            builder = builder.fallback_rule(rule);
        }
        let client = builder.start().await?;
        let method = |name: &String| Method::from_bytes(name.as_bytes()).ok();
        Ok(Self {
            name: Arc::from(name),
            client,
            idempotent: config.idempotent.iter().filter_map(method).collect(),
            caches,
            spec: HttpRouteSpec::of(config, url),
            address,
            attempts,
            upstreams: (0..threads).map(|_| OnceLock::new()).collect(),
        })
    }

    /// Returns true if a fallback may ask for the headers as the caller sent them.
    pub(super) fn has_fallbacks(&self) -> bool {
        !self.spec.fallbacks.is_empty()
    }

    /// Returns the connections of one thread, created with the first call.
    pub(super) fn upstream(&self, thread: usize) -> &UpstreamClient {
        self.upstreams[thread].get_or_init(|| UpstreamClient::new(Arc::clone(&self.address)))
    }

    /// Returns true if it can take over a configuration while it runs.
    fn fits(&self, config: &DependencyConfig, url: &str) -> bool {
        let is_http = McpSettings::of_config(config).is_none();
        is_http && self.spec == HttpRouteSpec::of(config, url)
    }

    /// Applies the settings that are not the runtime's.
    fn follow(&self, config: &DependencyConfig) {
        follow(&self.address, config);
    }

    /// Returns true if the gateway adds credentials of its own to the requests. A 401 or 403 is
    /// then a fault of the configuration, else of the caller.
    pub(super) fn holds_credentials(&self) -> bool {
        let has_certificate = self.spec.tls.as_ref().is_some_and(|tls| tls.cert.is_some());
        has_certificate || self.address.outbound.load().holds_credentials()
    }
}

/// Applies the settings of requests that may change at any time.
fn follow(address: &UpstreamAddress, config: &DependencyConfig) {
    address.set_limits(&config.settings.timeout);
    let outbound = OutboundHeaders::of(&config.outbound);
    address.outbound.store(Arc::new(outbound));
}

/// Creates the caches of a dependency, in the order of its fallbacks.
fn caches(configs: &[FallbackConfig]) -> Arc<[Arc<HttpCache>]> {
    let cache = |config: &FallbackConfig| match &config.kind {
        FallbackKind::StaleCache {
            max_age,
            max_entries,
            refresh,
            max_body,
            max_bytes,
            headers,
            obey,
        } => Some(Arc::new(HttpCache::new(CacheRules {
            max_age: *max_age,
            max_entries: usize::try_from(max_entries.get()).unwrap_or(usize::MAX),
            refresh: *refresh,
            max_body: usize::try_from(*max_body).unwrap_or(usize::MAX),
            max_bytes: *max_bytes,
            headers: KeyHeaders::of(headers),
            obey: *obey,
        }))),
        _ => None,
    };
    configs.iter().filter_map(cache).collect()
}

/// Returns the rules of the fallbacks. `caches`: those of the same configuration.
fn rules(
    runtime: &Runtime,
    configs: &[FallbackConfig],
    caches: &[Arc<HttpCache>],
) -> Vec<FallbackRule<HttpDependency>> {
    let mut caches = caches.iter();
    let rule = |config: &FallbackConfig| {
        let rule = match &config.kind {
            FallbackKind::StaleCache { .. } => {
                FallbackRule::new(HttpCacheFallback(Arc::clone(caches.next()?)))
            }
            FallbackKind::Dependency { name, credentials } => {
                let other = ByName::new(runtime, name);
                FallbackRule::new(SubstituteDependency::new(other, *credentials == Some(true)))
            }
            FallbackKind::Fixed {
                status,
                content_type,
                body,
            } => {
                let mut headers = HeaderMap::new();
                if let Ok(media) = HeaderValue::try_from(content_type) {
                    headers.insert(CONTENT_TYPE, media);
                }
                FallbackRule::new(Fixed(HttpReply {
                    // The configuration accepts only valid statuses.
                    status: StatusCode::from_u16(*status).unwrap_or_default(),
                    headers,
                    body: body.clone().into(),
                }))
            }
        };
        Some(narrowed(rule, config))
    };
    configs.iter().filter_map(rule).collect()
}
