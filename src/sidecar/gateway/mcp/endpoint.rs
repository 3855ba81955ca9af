//! The gateway's endpoint for an MCP server: `/{dependency}/mcp`, for any transport of the server
//! itself.
//!
//! The endpoint keeps no sessions, so none is lost when the server or the gateway restarts. Each
//! request is self-contained, in either version of the protocol.

use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;

use super::handler::McpHandler;
use crate::config::{DependencyConfig, FallbackConfig, FallbackKind, GatewayConfig};
use crate::mcp::{self, Mcp, McpClient, McpSettings, ToolResult};
use crate::sidecar::gateway::AddError;
use crate::sidecar::gateway::fallback::narrowed;
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::{ByName, FallbackRule, Fixed, Runtime, StaleCache};

/// The endpoint of one MCP server.
pub(crate) struct McpEndpoint {
    pub(crate) name: Arc<str>,
    pub(crate) client: McpClient,
    service: StreamableHttpService<McpHandler, NeverSessionManager>,
    /// Its inputs; a change of them needs a new endpoint.
    spec: McpEndpointSpec,
}

#[derive(Debug, PartialEq)]
struct McpEndpointSpec {
    settings: McpSettings,
    fallbacks: Vec<FallbackConfig>,
    fallback_only: bool,
}

impl McpEndpoint {
    /// Starts the server.
    pub(crate) async fn open(
        runtime: &Runtime,
        name: &str,
        (config, settings): (&DependencyConfig, McpSettings),
        gateway: &GatewayConfig,
    ) -> Result<Self, AddError> {
        let policy = config.settings.clone();
        let new = mcp::dependency(runtime, name, &settings).configure(|own| *own = policy);
        let builder = config.fallbacks.iter().fold(new, |builder, fallback| {
            builder.fallback_rule(rule(runtime, fallback))
        });
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
            spec: McpEndpointSpec::of(config, settings),
        })
    }

    /// Returns true if it can take over a configuration while it runs.
    pub(crate) fn fits(&self, config: &DependencyConfig) -> bool {
        let settings = McpSettings::of_config(config);
        settings.is_some_and(|settings| self.spec == McpEndpointSpec::of(config, settings))
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

fn rule(runtime: &Runtime, config: &FallbackConfig) -> FallbackRule<Mcp> {
    let rule = match &config.kind {
        FallbackKind::StaleCache {
            max_age,
            max_entries,
            refresh,
            ..
        } => {
            let max_entries = usize::try_from(max_entries.get()).unwrap_or(usize::MAX);
            FallbackRule::new(StaleCache::new(*max_age, max_entries).refresh(*refresh))
        }
        FallbackKind::Dependency { name, .. } => FallbackRule::new(ByName::new(runtime, name)),
        FallbackKind::Fixed { body, .. } => FallbackRule::new(Fixed(fixed(body))),
    };
    narrowed(rule, config)
}

/// A JSON object or array becomes structured content, anything else text.
fn fixed(body: &str) -> ToolResult {
    match serde_json::from_str(body) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => ToolResult::structured(value),
        _ => ToolResult::text(body),
    }
}
