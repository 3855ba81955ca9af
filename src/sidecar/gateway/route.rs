//! The dependencies that callers can reach, by name.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::watch;

use super::AddError;
use super::access_log::AccessLog;
use super::call_cut::CallCut;
use super::caller_auth::AuthTable;
use super::caller_limits::CallerTable;
use super::fallback::{CacheBound, FallbackCaches, FormerCache, narrowed};
use super::http::address::UpstreamAddress;
use super::http::cache::{self, CacheRules, HttpCache, HttpCacheFallback};
use super::http::cache_key::KeyHeaders;
use super::http::dependency::HttpDependency;
use super::http::model_fallback::ModelFallback;
use super::http::substitute::SubstituteDependency;
use super::http::target::{UpstreamTarget, WorkerModel, WorkerRoute};
use super::http::upstream::UpstreamClient;
use super::mcp::endpoint::McpEndpoint;
use super::mcp::group::McpGroup;
use super::message::{HttpReply, HttpRequest};
use super::model_figures::ModelFigureTable;
use super::model_route::ModelRoute;
use super::own_tls::ListenerTls;
use super::pool_route::PoolRoute;
use super::token_limits::TokenLimits;
use super::trace::{AttemptTracer, Tracing};
use crate::buffer_budget::BufferBudget;
use crate::config::{
    DependencyConfig, FallbackConfig, FallbackKind, FallbackOn, GatewayConfig, ModelConfig,
    OutboundConfig, UpstreamConfig, UpstreamTls,
};
use crate::mcp::McpSettings;
use crate::{AnswerMemory, ByName, Client, Fallback, FallbackRule, Fixed, Readiness, Runtime};

/// A snapshot of the routes.
pub(super) type RouteTable = HashMap<Arc<str>, RouteKind>;

/// Kind of a route.
#[derive(Clone)]
pub(super) enum RouteKind {
    /// Any request is passed on.
    Http(Arc<HttpRoute>),
    /// Its tools are called.
    Mcp(Arc<McpEndpoint>),
    /// Requests go to its members.
    Group(Arc<McpGroup>),
    /// One of its members answers each request.
    Pool(Arc<PoolRoute>),
}

impl RouteKind {
    /// Returns true for an endpoint of MCP servers.
    pub(super) fn is_mcp(&self) -> bool {
        matches!(self, Self::Mcp(_) | Self::Group(_))
    }

    /// Returns true for a dependency of the runtime. Groups and pools are none.
    pub(super) fn is_of_runtime(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Mcp(_))
    }

    /// Returns true if a configuration needs another route in place of this one: it cannot be followed
    /// while the dependency runs.
    pub(super) fn is_replaced_by(&self, config: &DependencyConfig) -> bool {
        let (members, pool) = (&config.members, &config.pool);
        match (self, McpSettings::of_config(config)) {
            (Self::Group(group), _) => !members.as_ref().is_some_and(|own| group.is_of(own)),
            (Self::Pool(own), _) => !pool.as_ref().is_some_and(|pool| own.is_of(pool)),
            _ if members.is_some() || pool.is_some() => true,
            (Self::Http(_), settings) => settings.is_some(),
            (Self::Mcp(endpoint), settings) => {
                settings.is_none_or(|settings| endpoint.needs_start((config, settings)))
            }
        }
    }

    /// Applies a configuration by which it is not [replaced](Self::is_replaced_by), while the dependency
    /// runs. Returns the route as it is changed, if callers need another one. `checks` follows with the
    /// checks of callers.
    pub(super) fn follow(
        &self,
        runtime: &Runtime,
        (config, url): (&DependencyConfig, &str),
        gateway: RouteShared<'_>,
        checks: &dyn Fn(),
    ) -> Result<Option<Self>, AddError> {
        match (self, McpSettings::of_config(config)) {
            (Self::Http(route), _) => {
                let followed = route.follow(runtime, (config, url), gateway, checks)?;
                Ok(followed.map(|route| Self::Http(Arc::new(route))))
            }
            (Self::Mcp(endpoint), Some(settings)) => {
                endpoint.follow(runtime, (config, settings))?;
                checks();
                Ok(None)
            }
            _ => {
                checks();
                Ok(None)
            }
        }
    }

    /// Returns true if a key of callers has a breaker of its own at present.
    pub(super) fn has_key(&self, key: &str) -> bool {
        match self {
            Self::Http(route) => route.client.has_key(key),
            Self::Mcp(endpoint) => endpoint.client.client().has_key(key),
            // Its members are not known here, so that each of its keys counts as a new one.
            Self::Group(_) | Self::Pool(_) => false,
        }
    }

    /// Waits until a call could begin, for up to `wait`. Returns `None` for a group or a pool: its
    /// members are asked one by one.
    pub(super) async fn ready(&self, key: Option<&str>, wait: Duration) -> Option<Readiness> {
        match self {
            Self::Http(route) => Some(route.client.ready(key, wait).await),
            Self::Mcp(endpoint) => Some(endpoint.client.client().ready(key, wait).await),
            Self::Group(_) | Self::Pool(_) => None,
        }
    }

    /// Resolves when no request uses the route any more, or after the drain time.
    pub(super) async fn unused(self) {
        const PAUSE: Duration = Duration::from_millis(20);
        let drain = match &self {
            Self::Http(route) => route.client.settings().workers.drain,
            Self::Mcp(endpoint) => endpoint.client.client().settings().workers.drain,
            Self::Group(_) | Self::Pool(_) => return,
        };
        let is_used = || match &self {
            Self::Http(route) => Arc::strong_count(route) > 1,
            Self::Mcp(endpoint) => Arc::strong_count(endpoint) > 1,
            Self::Group(_) | Self::Pool(_) => false,
        };
        let waiting = async {
            while is_used() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        // After the drain time it is ended all the same.
        let _ = tokio::time::timeout(drain, waiting).await;
    }
}

/// The state of one gateway thread.
pub(super) struct ThreadContext {
    pub(super) number: usize,
    pub(super) routes: Arc<ArcSwap<RouteTable>>,
    pub(super) config: Arc<ArcSwap<GatewayConfig>>,
    pub(super) auth: Arc<ArcSwap<AuthTable>>,
    pub(super) tracing: Tracing,
    pub(super) tls: Arc<ListenerTls>,
    pub(super) budget: BufferBudget,
    /// The figures of all models.
    pub(super) figures: ModelFigureTable,
    /// Names of dependencies that the start has not come to yet.
    pub(super) awaited: Arc<ArcSwap<BTreeSet<String>>>,
    pub(super) callers: Arc<CallerTable>,
    /// True once the gateway ends.
    pub(super) stopping: watch::Receiver<bool>,
    /// The access log, if there is one.
    pub(super) access: Option<AccessLog>,
    /// The end of the calls that still wait when the gateway has to end.
    pub(super) cut: CallCut,
}

/// Parts of the gateway that all its routes share.
#[derive(Clone, Copy)]
pub(super) struct RouteShared<'a> {
    /// Number of the gateway's threads.
    pub(super) threads: usize,
    pub(super) tracing: &'a Tracing,
    pub(super) budget: &'a BufferBudget,
}

/// One HTTP dependency that callers can reach. A reload replaces it as a whole; requests in flight
/// keep the one they began with.
pub(super) struct HttpRoute {
    pub(super) name: Arc<str>,
    pub(super) client: Client<HttpDependency>,
    pub(super) idempotent: Vec<Method>,
    /// Its stale caches.
    pub(super) caches: Arc<[Arc<HttpCache>]>,
    /// The way of answers into these caches.
    pub(super) memory: AnswerMemory<HttpDependency>,
    pub(super) attempts: AttemptTracer,
    /// The dialect of a model.
    pub(super) model: Option<ModelRoute>,
    /// The limits of a model's tokens.
    pub(super) tokens: Option<Arc<TokenLimits>>,
    /// Its inputs.
    spec: HttpRouteSpec,
    kept: Arc<FallbackCaches<HttpCache>>,
    target: Arc<UpstreamTarget>,
    /// The present target and caches, as the workers see them; the same for all routes of the
    /// dependency.
    of_workers: Arc<ArcSwap<WorkerRoute>>,
}

/// The settings from which a route is made.
#[derive(Debug, Clone, PartialEq)]
struct HttpRouteSpec {
    url: String,
    tls: Option<UpstreamTls>,
    upstream: UpstreamConfig,
    outbound: OutboundConfig,
    idempotent: Vec<String>,
    fallbacks: Vec<FallbackConfig>,
    fallback_only: bool,
    model: Option<ModelConfig>,
}

impl HttpRouteSpec {
    fn of(config: &DependencyConfig, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            tls: config.tls.clone(),
            upstream: config.upstream.clone(),
            outbound: config.outbound.clone(),
            idempotent: config.idempotent.clone(),
            fallbacks: config.fallbacks.clone(),
            fallback_only: config.settings.fallback_only,
            model: config.model.clone(),
        }
    }

    /// Returns true if the dependency gets the requests of callers from the same sender, on the same
    /// way: the same server, and the same headers and credentials of ours.
    fn asks_as(&self, other: &Self) -> bool {
        // EDGE-2: with another credential it may answer the same request differently.
        (&self.url, &self.tls, &self.upstream, &self.outbound)
            == (&other.url, &other.tls, &other.upstream, &other.outbound)
    }

    /// Returns true if a model is asked as it was: by the same key, under the same names.
    fn asks_model_as(&self, other: &Self) -> bool {
        let asked = |spec: &Self| {
            let model = spec.model.as_ref()?;
            let key = (model.key.clone(), model.key_header.clone());
            Some((model.api, key, model.names.clone()))
        };
        asked(self) == asked(other)
    }

    fn model(&self) -> Option<ModelRoute> {
        let model = self.model.as_ref()?;
        Some(ModelRoute::of(model, &self.fallbacks))
    }

    /// Returns the requests of workers to a model.
    fn worker_model(&self) -> Option<WorkerModel> {
        let model = self.model()?;
        Some(WorkerModel {
            api: model.api,
            has_key: model.has_key(),
            keys_by: model.keys_by,
            provide: Box::new(move |request| model.outbound(request)),
        })
    }

    /// Returns the limits of tokens of the dependency of this name. `former`: those before a reload.
    fn tokens(
        &self,
        former: Option<&Arc<TokenLimits>>,
        place: (&Runtime, &str),
    ) -> Option<Arc<TokenLimits>> {
        let model = self.model.as_ref()?;
        TokenLimits::of(&model.token_limits, model.api, former, place)
    }

    fn methods(&self) -> Vec<Method> {
        let method = |name: &String| Method::from_bytes(name.as_bytes()).ok();
        self.idempotent.iter().filter_map(method).collect()
    }
}

impl HttpRoute {
    /// Starts the dependency with its workers and fallbacks. `replaces`: in the place of the running
    /// one.
    pub(super) async fn start(
        runtime: &Runtime,
        name: &str,
        (config, url): (&DependencyConfig, &str),
        gateway: RouteShared<'_>,
        replaces: bool,
    ) -> Result<Self, AddError> {
        let spec = HttpRouteSpec::of(config, url);
        let target = Arc::new(target(name, (config, url), gateway)?);
        let made_by = (runtime, gateway.budget);
        let is_model = config.model.is_some();
        let fallbacks = HttpFallbacks::new(made_by, (&config.fallbacks, is_model), None);
        let caches: Arc<[_]> = fallbacks.caches.into();
        let of_workers = Arc::new(ArcSwap::from_pointee(WorkerRoute {
            target: Arc::clone(&target),
            caches: Arc::clone(&caches),
            model: spec.worker_model(),
        }));
        let own = Arc::clone(&of_workers);
        let new = runtime.dependency(name).settings(config.settings.clone());
        let new = if replaces { new.replacing() } else { new };
        let builder = new.workers(move || HttpDependency::new(Arc::clone(&own)));
        let rules = fallbacks.rules.into_iter();
        let builder = rules.fold(builder.replaceable_fallbacks(), |builder, rule| {
            builder.fallback_rule(rule)
        });
        let client = builder.start().await?;
        Ok(Self {
            name: Arc::from(name),
            idempotent: spec.methods(),
            caches,
            memory: client.memory(),
            attempts: target.attempts.clone(),
            client,
            model: spec.model(),
            tokens: spec.tokens(None, (runtime, name)),
            spec,
            kept: Arc::new(fallbacks.kept),
            target,
            of_workers,
        })
    }

    /// Returns true if a fallback may ask for the headers as the caller sent them.
    pub(super) fn has_fallbacks(&self) -> bool {
        !self.spec.fallbacks.is_empty()
    }

    /// Returns true if another dependency may answer in place of this one.
    pub(super) fn has_substitutes(&self) -> bool {
        let mut kinds = self.spec.fallbacks.iter().map(|fallback| &fallback.kind);
        kinds.any(|kind| matches!(kind, FallbackKind::Dependency { .. }))
    }

    /// Returns true if the gateway adds credentials of its own to the requests. A 401 or 403 is
    /// then a fault of the configuration, else of the caller.
    pub(super) fn holds_credentials(&self) -> bool {
        let has_key = self.model.as_ref().is_some_and(ModelRoute::has_key);
        has_key || self.target.holds_credentials.load(Ordering::Relaxed)
    }

    /// Notes the head of a response in the caches; see [`cache::note`]. `is_failure`: by the
    /// settings.
    pub(super) fn note(
        &self,
        request: &HttpRequest,
        head: (StatusCode, &HeaderMap),
        is_failure: bool,
    ) {
        cache::note(&self.caches, request, head, is_failure);
        let present = self.of_workers.load();
        // EDGE-2: the caches of a later configuration learn of it too.
        if !Arc::ptr_eq(&present.caches, &self.caches) {
            cache::note(&present.caches, request, head, is_failure);
        }
    }

    /// Returns the server behind the dependency.
    pub(super) fn target(&self) -> &UpstreamTarget {
        &self.target
    }

    /// Returns the server behind the dependency, to be kept.
    pub(super) fn shared_target(&self) -> Arc<UpstreamTarget> {
        Arc::clone(&self.target)
    }

    /// Returns the connections of one thread.
    pub(super) fn upstream(&self, thread: usize) -> &UpstreamClient {
        self.target.of_thread(thread)
    }

    /// Applies a configuration while the dependency runs: its breaker, its counters and its workers
    /// go on. Returns the new route, if another one is needed.
    fn follow(
        &self,
        runtime: &Runtime,
        (config, url): (&DependencyConfig, &str),
        gateway: RouteShared<'_>,
        checks: &dyn Fn(),
    ) -> Result<Option<Self>, AddError> {
        let spec = HttpRouteSpec::of(config, url);
        if spec == self.spec {
            checks();
            self.target.follow(config);
            return Ok(None);
        }
        let new = if spec.asks_as(&self.spec) {
            Arc::clone(&self.target)
        } else {
            Arc::new(target(&self.name, (config, url), gateway)?)
        };
        let mut changed = Self {
            name: Arc::clone(&self.name),
            client: self.client.clone(),
            idempotent: spec.methods(),
            caches: Arc::clone(&self.caches),
            memory: self.memory.clone(),
            attempts: new.attempts.clone(),
            model: spec.model(),
            tokens: spec.tokens(self.tokens.as_ref(), (runtime, &self.name)),
            spec,
            kept: Arc::clone(&self.kept),
            target: new,
            of_workers: Arc::clone(&self.of_workers),
        };
        changed.follow_fallbacks(runtime, self, checks)?;
        changed.target.follow(config);
        Ok(Some(changed))
    }

    /// Replaces the fallbacks of the dependency, and the server of its workers, by this route's, if
    /// they differ from those of the `former` route. Calls `checks` before that.
    ///
    /// # Errors  The fallbacks cannot be used; nothing is changed then.
    fn follow_fallbacks(
        &mut self,
        runtime: &Runtime,
        former: &Self,
        checks: &dyn Fn(),
    ) -> Result<(), AddError> {
        let same_server = Arc::ptr_eq(&self.target, &former.target);
        let (old, new) = (&former.spec, &self.spec);
        let same = (&old.fallbacks, old.fallback_only) == (&new.fallbacks, new.fallback_only);
        if same && same_server && old.model == new.model {
            checks();
            return Ok(());
        }
        // EDGE-2: the answers of one server, or to one credential of ours, are not served as those
        // of another.
        let may_keep = same_server && new.asks_model_as(old);
        let kept = may_keep.then_some(&*former.kept);
        let made_by = (runtime, &self.target.budget);
        let fallbacks = HttpFallbacks::new(made_by, (&new.fallbacks, new.model.is_some()), kept);
        let caches: Arc<[_]> = fallbacks.caches.into();
        let workers = WorkerRoute {
            target: Arc::clone(&self.target),
            caches: Arc::clone(&caches),
            model: self.spec.worker_model(),
        };
        // The workers see the new server before callers have the new route, so they may still make a call
        // that was admitted before its check has changed.
        let first = || {
            // MCP-6: after all that can fail, and before callers could use credentials of ours.
            checks();
            // EDGE-2: before the new caches, so that no answer of the former server reaches them.
            self.of_workers.store(Arc::new(workers));
        };
        let rules = (fallbacks.rules, new.fallback_only);
        runtime.set_fallbacks_after(&self.client, rules, first)?;
        self.caches = caches;
        self.kept = Arc::new(fallbacks.kept);
        self.memory = self.client.memory();
        Ok(())
    }
}

/// Creates the target of a configuration, without connections.
fn target(
    name: &str,
    (config, url): (&DependencyConfig, &str),
    gateway: RouteShared<'_>,
) -> Result<UpstreamTarget, AddError> {
    let address = UpstreamAddress::new(url, config.tls.as_ref(), &config.upstream);
    let address = address.map_err(|problem| AddError::Address {
        name: name.to_owned(),
        problem,
    })?;
    let address = address.named(name);
    let attempts = gateway.tracing.attempts(name, url);
    let budget = gateway.budget.clone();
    let target = UpstreamTarget::new(address, attempts, gateway.threads, budget);
    target.follow(config);
    Ok(target)
}

/// The fallbacks of an HTTP dependency.
#[derive(Default)]
struct HttpFallbacks {
    rules: Vec<FallbackRule<HttpDependency>>,
    /// The caches among them, in their order.
    caches: Vec<Arc<HttpCache>>,
    kept: FallbackCaches<HttpCache>,
}

impl HttpFallbacks {
    /// Creates them. The answers of `former` caches are kept.
    fn new(
        made_by: (&Runtime, &BufferBudget),
        (configs, is_model): (&[FallbackConfig], bool),
        former: Option<&FallbackCaches<HttpCache>>,
    ) -> Self {
        let mut all = Self::default();
        for config in configs {
            let on = is_model.then_some(&*config.on);
            let rule = all.rule(made_by, (&config.kind, on), former);
            all.rules.push(narrowed(rule, config));
        }
        all
    }

    /// Returns the next cache: the former one in its place, if its answers may be kept.
    fn cache(
        &mut self,
        kind: &FallbackKind,
        (rules, budget): (CacheRules, &BufferBudget),
        former: Option<&FallbackCaches<HttpCache>>,
    ) -> Arc<HttpCache> {
        let former = former.and_then(|former| former.former(&self.kept, kind, CacheBound::Bytes));
        let cache = match former {
            Some(FormerCache::Same(cache)) => cache,
            Some(FormerCache::OtherLimits(cache)) => Arc::new(cache.with_limits(&rules)),
            None => Arc::new(HttpCache::new(rules, budget)),
        };
        cache.give_way();
        self.kept.push(kind, &cache);
        self.caches.push(Arc::clone(&cache));
        cache
    }

    fn rule(
        &mut self,
        (runtime, budget): (&Runtime, &BufferBudget),
        (kind, on): (&FallbackKind, Option<&[FallbackOn]>),
        former: Option<&FallbackCaches<HttpCache>>,
    ) -> FallbackRule<HttpDependency> {
        match kind {
            FallbackKind::StaleCache {
                max_age,
                max_entries,
                refresh,
                max_body,
                max_bytes,
                headers,
                obey,
            } => {
                let rules = CacheRules {
                    max_age: *max_age,
                    max_entries: usize::try_from(max_entries.get()).unwrap_or(usize::MAX),
                    refresh: *refresh,
                    max_body: usize::try_from(*max_body).unwrap_or(usize::MAX),
                    max_bytes: *max_bytes,
                    headers: KeyHeaders::of(headers),
                    obey: *obey,
                };
                rule_of(
                    HttpCacheFallback(self.cache(kind, (rules, budget), former)),
                    on,
                )
            }
            FallbackKind::Dependency { name, credentials } => {
                let other = ByName::new(runtime, name);
                rule_of(
                    SubstituteDependency::new(other, *credentials == Some(true)),
                    on,
                )
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
                // The configuration accepts only valid statuses.
                let status = StatusCode::from_u16(*status).unwrap_or_default();
                rule_of(
                    Fixed(HttpReply::new(status, headers, body.clone().into())),
                    on,
                )
            }
        }
    }
}

/// Returns the rule of a fallback. `on`: the ends of calls of a model for which it serves.
fn rule_of(
    fallback: impl Fallback<HttpDependency>,
    on: Option<&[FallbackOn]>,
) -> FallbackRule<HttpDependency> {
    match on {
        Some(on) => FallbackRule::new(ModelFallback::new(fallback, on)),
        None => FallbackRule::new(fallback),
    }
}

#[cfg(test)]
mod tests;
