//! The dependencies that callers can reach, by name.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::AddError;
use super::cache::{Kept, Rules};
use super::dependency::{Http, HttpReply};
use super::door::Door;
use super::trace::{Attempts, Tracing};
use super::upstream::{Place, Upstream};
use crate::config::{DependencyConfig, FallbackConfig, FallbackKind, FallbackOn, GatewayConfig};
use crate::mcp::McpSettings;
use crate::{ByName, Client, Dependency, Fixed, On, Rule, Runtime};

/// The ways of one moment.
pub(super) type Routes = HashMap<Arc<str>, Way>;

/// How callers reach a dependency.
#[derive(Clone)]
pub(super) enum Way {
    /// Any request is passed on.
    Http(Arc<Route>),
    /// Its tools are called.
    Mcp(Arc<Door>),
}

impl Way {
    /// Whether it can take a configuration over while it runs.
    pub(super) fn fits(&self, config: &DependencyConfig, url: &str) -> bool {
        match self {
            Self::Http(route) => route.fits(config, url),
            Self::Mcp(door) => door.fits(config),
        }
    }

    /// Takes over what is not the runtime's.
    pub(super) fn follow(&self, config: &DependencyConfig) {
        if let Self::Http(route) = self {
            route.follow(config);
        }
    }
}

/// What one thread of the gateway works with.
pub(super) struct Lane {
    pub(super) number: usize,
    pub(super) routes: Arc<ArcSwap<Routes>>,
    pub(super) config: Arc<ArcSwap<GatewayConfig>>,
    pub(super) tracing: Tracing,
}

/// One dependency that callers can reach.
pub(super) struct Route {
    pub(super) name: Arc<str>,
    pub(super) client: Client<Http>,
    pub(super) idempotent: Vec<Method>,
    /// What its caches keep.
    pub(super) caches: Vec<Rules>,
    /// What it was made of; a change of that makes another one.
    made_of: MadeOf,
    place: Arc<Place>,
    pub(super) attempts: Attempts,
    /// Each thread's own connections.
    upstreams: Box<[OnceLock<Upstream>]>,
}

/// What only a new start can change.
#[derive(Debug, PartialEq)]
struct MadeOf {
    url: String,
    idempotent: Vec<String>,
    fallbacks: Vec<FallbackConfig>,
    fallback_only: bool,
}

impl MadeOf {
    fn of(config: &DependencyConfig, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            idempotent: config.idempotent.clone(),
            fallbacks: config.fallbacks.clone(),
            fallback_only: config.settings.fallback_only,
        }
    }
}

impl Route {
    /// Starts the dependency with its workers and fallbacks.
    pub(super) async fn start(
        runtime: &Runtime,
        name: &str,
        (config, url): (&DependencyConfig, &str),
        (threads, tracing): (usize, &Tracing),
    ) -> Result<Self, AddError> {
        let place = Place::new(url).map_err(|problem| AddError::Address {
            name: name.to_owned(),
            problem,
        })?;
        place.set_connect(config.settings.timeout.connect);
        let place = Arc::new(place);
        let attempts = tracing.attempts(name, url);
        let (own, traced) = (Arc::clone(&place), attempts.clone());
        let new = runtime.dependency(name).settings(config.settings.clone());
        let mut builder = new.workers(move || {
            let upstream = Upstream::new(Arc::clone(&own));
            Http::new(upstream, traced.clone())
        });
        let mut caches = Vec::new();
        for fallback in &config.fallbacks {
            builder = builder.fallback_rule(rule(runtime, fallback, &mut caches));
        }
        let client = builder.start().await?;
        let method = |name: &String| Method::from_bytes(name.as_bytes()).ok();
        Ok(Self {
            name: Arc::from(name),
            client,
            idempotent: config.idempotent.iter().filter_map(method).collect(),
            caches,
            made_of: MadeOf::of(config, url),
            place,
            attempts,
            upstreams: (0..threads).map(|_| OnceLock::new()).collect(),
        })
    }

    /// The connections of one thread, made with the first call.
    pub(super) fn upstream(&self, thread: usize) -> &Upstream {
        self.upstreams[thread].get_or_init(|| Upstream::new(Arc::clone(&self.place)))
    }

    /// Whether it can take a configuration over while it runs.
    fn fits(&self, config: &DependencyConfig, url: &str) -> bool {
        let is_http = McpSettings::of_config(config).is_none();
        is_http && self.made_of == MadeOf::of(config, url)
    }

    /// Takes over what is not the runtime's.
    fn follow(&self, config: &DependencyConfig) {
        self.place.set_connect(config.settings.timeout.connect);
    }
}

fn rule(runtime: &Runtime, config: &FallbackConfig, caches: &mut Vec<Rules>) -> Rule<Http> {
    let rule = match &config.kind {
        FallbackKind::StaleCache {
            max_age,
            max_entries,
            refresh,
            max_body,
            headers,
        } => {
            let name = |name: &String| HeaderName::try_from(name).ok();
            let rules = Rules {
                max_body: usize::try_from(*max_body).unwrap_or(usize::MAX),
                headers: headers.iter().filter_map(name).collect(),
            };
            caches.push(rules.clone());
            let max_entries = usize::try_from(max_entries.get()).unwrap_or(usize::MAX);
            Rule::new(Kept::new(*max_age, max_entries, *refresh, rules))
        }
        FallbackKind::Dependency { name } => Rule::new(ByName::new(runtime, name)),
        FallbackKind::Fixed {
            status,
            content_type,
            body,
        } => {
            let mut headers = HeaderMap::new();
            if let Ok(media) = HeaderValue::try_from(content_type) {
                headers.insert(CONTENT_TYPE, media);
            }
            Rule::new(Fixed(HttpReply {
                // The configuration takes none that is not one.
                status: StatusCode::from_u16(*status).unwrap_or_default(),
                headers,
                body: body.clone().into(),
            }))
        }
    };
    narrowed(rule, config)
}

/// The rule for what the configuration says that it serves.
pub(super) fn narrowed<D: Dependency>(rule: Rule<D>, config: &FallbackConfig) -> Rule<D> {
    let rule = match config.on[..] {
        [FallbackOn::Refused] => rule.on(On::Refused),
        [FallbackOn::Failed] => rule.on(On::Failed),
        _ => rule,
    };
    if config.writes { rule.writes() } else { rule }
}
