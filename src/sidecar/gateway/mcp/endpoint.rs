//! The gateway's endpoint for an MCP server: `/{dependency}/mcp`, for any transport of the server
//! itself.
//!
//! The endpoint keeps no sessions, so none is lost when the server or the gateway restarts. Each
//! request is self-contained, in either version of the protocol.

use std::sync::{Arc, Mutex};

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;

use super::handler::McpHandler;
use crate::config::{DependencyConfig, FallbackConfig, FallbackKind, GatewayConfig};
use crate::lock::LockExt as _;
use crate::mcp::{self, Mcp, McpClient, McpSettings, ToolResult};
use crate::sidecar::gateway::AddError;
use crate::sidecar::gateway::fallback::{CacheBound, FallbackCaches, FormerCache, narrowed};
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::{ByName, FallbackRule, Fixed, Runtime, StaleCache};

/// The endpoint of one MCP server.
pub(crate) struct McpEndpoint {
    pub(crate) name: Arc<str>,
    pub(crate) client: McpClient,
    service: StreamableHttpService<McpHandler, NeverSessionManager>,
    /// Its inputs, as they were last applied.
    applied: Mutex<AppliedSpec>,
}

/// The inputs of an endpoint, and the caches that were made for them.
struct AppliedSpec {
    spec: McpEndpointSpec,
    kept: FallbackCaches<StaleCache<Mcp>>,
}

#[derive(Debug, Clone, PartialEq)]
struct McpEndpointSpec {
    settings: McpSettings,
    fallbacks: Vec<FallbackConfig>,
    fallback_only: bool,
}

impl McpEndpoint {
    /// Starts the server. `replaces`: in the place of a running dependency.
    pub(crate) async fn open(
        runtime: &Runtime,
        name: &str,
        (config, settings): (&DependencyConfig, McpSettings),
        gateway: &GatewayConfig,
        replaces: bool,
    ) -> Result<Self, AddError> {
        let policy = config.settings.clone();
        let new = mcp::dependency(runtime, name, &settings).configure(|own| *own = policy);
        let new = if replaces { new.replacing() } else { new };
        // MCP-1: one that cannot start is there and tried again. EDGE-6: only one that serves stays
        // until its successor runs.
        let waits = replaces && runs(runtime, name);
        let new = if waits { new } else { new.background_start() };
        let new = if config.settings.fallback_only {
            // Its process must not be started.
            new
        } else {
            new.replaceable_fallbacks()
        };
        let (rules, kept) = rules(runtime, &config.fallbacks, None);
        let rules = rules.into_iter();
        let builder = rules.fold(new, |builder, rule| builder.fallback_rule(rule));
        let client = builder.start().await?;
        let handler = McpHandler::new(client.clone());
        let own = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(usize::try_from(gateway.max_body).unwrap_or(usize::MAX))
            // The gateway has checked host and origin before, for every dependency alike.
            .disable_allowed_hosts()
            .disable_allowed_origins();
        let service = StreamableHttpService::new(
            move || Ok(handler.clone()),
            Arc::new(NeverSessionManager::default()),
            own,
        );
        Ok(Self {
            name: Arc::from(name),
            client,
            service,
            applied: Mutex::new(AppliedSpec {
                spec: McpEndpointSpec::of(config, settings),
                kept,
            }),
        })
    }

    /// Applies a configuration while the server runs. Returns false if it needs a new start: only
    /// the names of its tools and its fallbacks can change without one.
    pub(crate) fn follow(
        &self,
        runtime: &Runtime,
        (config, settings): (&DependencyConfig, McpSettings),
    ) -> Result<bool, AddError> {
        let spec = McpEndpointSpec::of(config, settings);
        let mut applied = self.applied.acquire();
        if spec == applied.spec {
            return Ok(true);
        }
        let fixed = |spec: &McpEndpointSpec| {
            let mut settings = spec.settings.clone();
            settings.idempotent.clear();
            (settings, spec.fallback_only)
        };
        if spec.fallback_only || fixed(&spec) != fixed(&applied.spec) {
            return Ok(false);
        }
        if spec.fallbacks != applied.spec.fallbacks {
            let (rules, kept) = rules(runtime, &spec.fallbacks, Some(&applied.kept));
            runtime.set_fallbacks(self.client.client(), rules, false)?;
            applied.kept = kept;
        }
        self.client.set_idempotent(&spec.settings.idempotent);
        applied.spec = spec;
        Ok(true)
    }

    /// Responds to a request to the endpoint.
    pub(crate) async fn answer(&self, head: Parts, body: Incoming) -> Response<ReplyBody> {
        let answered = self.service.handle(Request::from_parts(head, body)).await;
        answered.map(ReplyBody::ours)
    }
}

impl McpEndpointSpec {
    fn of(config: &DependencyConfig, settings: McpSettings) -> Self {
        Self {
            settings,
            fallbacks: config.fallbacks.clone(),
            fallback_only: config.settings.fallback_only,
        }
    }
}

/// Returns true if a worker of the dependency runs.
fn runs(runtime: &Runtime, name: &str) -> bool {
    let status = runtime.status(name);
    status.is_some_and(|status| status.workers.iter().any(|worker| worker.running))
}

type McpFallbacks = (Vec<FallbackRule<Mcp>>, FallbackCaches<StaleCache<Mcp>>);

/// Creates the fallbacks. The answers of `former` caches are kept.
fn rules(
    runtime: &Runtime,
    configs: &[FallbackConfig],
    former: Option<&FallbackCaches<StaleCache<Mcp>>>,
) -> McpFallbacks {
    let mut kept = FallbackCaches::default();
    let rules = configs.iter().map(|config| {
        let rule = match &config.kind {
            FallbackKind::StaleCache {
                max_age,
                max_entries,
                refresh,
                ..
            } => {
                let max_entries = usize::try_from(max_entries.get()).unwrap_or(usize::MAX);
                let former = former
                    .and_then(|former| former.former(&kept, &config.kind, CacheBound::Entries));
                let cache = match former {
                    Some(FormerCache::Same(cache)) => cache,
                    Some(FormerCache::OtherLimits(cache)) => {
                        Arc::new(cache.with_limits(*max_age, max_entries).refresh(*refresh))
                    }
                    None => Arc::new(StaleCache::new(*max_age, max_entries).refresh(*refresh)),
                };
                kept.push(&config.kind, &cache);
                FallbackRule::new(cache)
            }
            FallbackKind::Dependency { name, .. } => FallbackRule::new(ByName::new(runtime, name)),
            FallbackKind::Fixed { body, .. } => FallbackRule::new(Fixed(fixed(body))),
        };
        narrowed(rule, config)
    });
    let rules = rules.collect();
    (rules, kept)
}

/// A JSON object or array becomes structured content, anything else text.
fn fixed(body: &str) -> ToolResult {
    match serde_json::from_str(body) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => ToolResult::structured(value),
        _ => ToolResult::text(body),
    }
}
