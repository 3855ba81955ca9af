//! The gateway's endpoint for an MCP server: `/{dependency}/mcp`, for any transport of the server
//! itself.
//!
//! A session holds what its caller can be asked, and outlives restarts of the server. Requests
//! without one are served too, in either dialect of the protocol.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::Value;

use super::audience::McpAudience;
use super::endpoint_front::EndpointFront;
use super::held_calls::HeldCalls;
use super::hooks::RequestHooks;
use super::rpc_reply::error_response;
use super::sessions::SessionLimits;
use crate::buffer_budget::BufferBudget;
use crate::config::{DependencyConfig, FallbackConfig, FallbackKind};
use crate::lock::LockExt as _;
use crate::mcp::audience::ServerAudience;
use crate::mcp::dialect::ServerDescription;
use crate::mcp::message::{RpcError, code};
use crate::mcp::{self, Mcp, McpClient, McpSettings, ToolResult};
use crate::sidecar::gateway::AddError;
use crate::sidecar::gateway::fallback::{CacheBound, FallbackCaches, FormerCache, narrowed};
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::problem::{GatewayProblem, ProblemKind};
use crate::{ByName, FallbackRule, Fixed, Runtime, StaleCache};

/// Time that a caller waits for a server that is being started for the first time: clients give up
/// after half a minute.
const START_WAIT: Duration = Duration::from_secs(25);
/// Time that a caller waits for a server that was never reached and is not being started.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// The endpoint of one MCP server.
pub(crate) struct McpEndpoint {
    pub(crate) name: Arc<str>,
    pub(crate) client: McpClient,
    pub(crate) front: Arc<EndpointFront>,
    pub(super) audience: Arc<McpAudience>,
    pub(super) hooks: RequestHooks,
    pub(super) held: HeldCalls,
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
    /// Starts the server. `replaces`: in the place of a running dependency; `former`: its endpoint, if
    /// it is one.
    pub(crate) async fn open(
        runtime: &Runtime,
        name: &str,
        (config, settings): (&DependencyConfig, McpSettings),
        (front, budget): (Arc<EndpointFront>, &BufferBudget),
        (replaces, former): (bool, Option<&Self>),
    ) -> Result<Self, AddError> {
        let policy = config.settings.clone();
        let limits = SessionLimits::of(config);
        // EDGE-6: callers that share a server keep their sessions when it is started anew.
        let former =
            former.filter(|former| !limits.are_own && !former.audience.sessions.limits().are_own);
        let audience = match former {
            Some(former) => Arc::clone(&former.audience),
            None => McpAudience::new(limits, budget),
        };
        let heard: Arc<dyn ServerAudience> = Arc::clone(&audience) as Arc<dyn ServerAudience>;
        let new = mcp::dependency(runtime, name, &settings).configure(|own| *own = policy);
        let new = new.heard_by(Arc::downgrade(&heard));
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
        audience.attach(client.clone());
        if former.is_none() {
            drop(tokio::spawn(McpAudience::sweep(Arc::downgrade(&audience))));
        }
        Ok(Self {
            name: Arc::from(name),
            client,
            hooks: RequestHooks::new(Arc::clone(&front)),
            front,
            audience,
            held: HeldCalls::new(),
            applied: Mutex::new(AppliedSpec {
                spec: McpEndpointSpec::of(config, settings),
                kept,
            }),
        })
    }

    /// Applies a configuration while the server runs, unless it [needs a start](Self::needs_start).
    pub(crate) fn follow(
        &self,
        runtime: &Runtime,
        (config, settings): (&DependencyConfig, McpSettings),
    ) -> Result<(), AddError> {
        let spec = McpEndpointSpec::of(config, settings);
        if self.audience.sessions.set_limits(SessionLimits::of(config)) {
            self.audience.wish();
        }
        let mut applied = self.applied.acquire();
        if spec == applied.spec {
            return Ok(());
        }
        if spec.fallbacks != applied.spec.fallbacks {
            let (rules, kept) = rules(runtime, &spec.fallbacks, Some(&applied.kept));
            runtime.set_fallbacks(self.client.client(), rules, false)?;
            applied.kept = kept;
        }
        self.client.set_idempotent(&spec.settings.idempotent);
        applied.spec = spec;
        Ok(())
    }

    /// Returns true if it cannot follow a configuration while it runs: only the names of its tools and
    /// its fallbacks can change then.
    pub(crate) fn needs_start(&self, (config, settings): (&DependencyConfig, McpSettings)) -> bool {
        let spec = McpEndpointSpec::of(config, settings);
        spec.needs_start_after(&self.applied.acquire().spec)
    }

    /// Returns true if its server is never started, since its fallbacks answer instead of it.
    pub(super) fn is_fallback_only(&self) -> bool {
        self.applied.acquire().spec.fallback_only
    }

    /// Returns the server's description of itself, for which a caller waits if the server was never
    /// reached. `deadline`: of the caller.
    pub(super) async fn first_description(
        &self,
        deadline: Option<Duration>,
    ) -> Option<Arc<ServerDescription>> {
        if self.is_fallback_only() {
            return self.client.description();
        }
        // MCP-1: it may be there in a moment, while one that has failed may stay away.
        let limit = deadline.map_or(START_WAIT, |own| own.min(START_WAIT));
        let known = self.client.known_from_start(FIRST_WAIT);
        let known = tokio::time::timeout(limit, known).await;
        // EDGE-1: a caller that waits less long says nothing of the server.
        let is_answered = matches!(known, Ok(Some(_)));
        if known.is_ok() || limit == START_WAIT {
            match is_answered || !self.front.are_callers_credentials(None) {
                true => self.client.note_first_wait(is_answered),
                false => self.client.note_first_wait_without_credentials(),
            }
        }
        known.ok().flatten()
    }

    /// Ends the streams of callers that would not end by themselves.
    pub(crate) fn end_streams(&self) {
        self.audience.end_streams();
    }
}

/// Returns the refusal of a foreign host or page in the form of the protocol; other refusals stay.
///
/// # Source  Streamable HTTP, security: 403 where `Origin` or `Host` is not served.
pub(crate) fn refused_by_protocol(response: Response<ReplyBody>) -> Response<ReplyBody> {
    let kind = match response.status() {
        StatusCode::MISDIRECTED_REQUEST => ProblemKind::FOREIGN_HOST,
        StatusCode::FORBIDDEN => ProblemKind::FOREIGN_ORIGIN,
        _ => return response,
    };
    let text = "the request comes from a page or for a host that is not served; gateway.origins and \
                gateway.hosts list those that are";
    let mut problem = GatewayProblem::of(kind, None, text).into_data();
    problem["status"] = Value::from(StatusCode::FORBIDDEN.as_u16());
    let error = RpcError::new(code::INVALID_REQUEST, text).with_data(&problem);
    error_response(StatusCode::FORBIDDEN, None, &error)
}

impl McpEndpointSpec {
    fn of(config: &DependencyConfig, settings: McpSettings) -> Self {
        Self {
            settings,
            fallbacks: config.fallbacks.clone(),
            fallback_only: config.settings.fallback_only,
        }
    }

    /// Returns true if an endpoint that was made of the former one cannot follow while it runs.
    fn needs_start_after(&self, former: &Self) -> bool {
        let fixed = |spec: &Self| {
            let mut settings = spec.settings.clone();
            settings.idempotent.clear();
            (settings, spec.fallback_only)
        };
        *self != *former && (self.fallback_only || fixed(self) != fixed(former))
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
