//! A server that speaks MCP, as callers of the gateway reach it: at `/{dependency}/mcp`, whatever
//! way it is reached itself.
//!
//! Callers have no sessions here, so that none is lost when the server, or the gateway, is started
//! anew: each request stands for itself, in either dialect.

use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;

use super::AddError;
use super::body::ReplyBody;
use super::host::Host;
use super::route::narrowed;
use crate::config::{DependencyConfig, FallbackConfig, FallbackKind, GatewayConfig};
use crate::mcp::{self, Mcp, McpClient, McpSettings, ToolResult};
use crate::{ByName, Fixed, Rule, Runtime, StaleCache};

/// One server that callers can reach.
pub(super) struct Door {
    pub(super) name: Arc<str>,
    pub(super) client: McpClient,
    service: StreamableHttpService<Host, NeverSessionManager>,
    /// What it was made of; a change of that makes another one.
    made_of: MadeOf,
}

#[derive(Debug, PartialEq)]
struct MadeOf {
    settings: McpSettings,
    fallbacks: Vec<FallbackConfig>,
    fallback_only: bool,
}

impl Door {
    /// Starts the server.
    pub(super) async fn open(
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
        let host = Host::new(client.clone());
        let own = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(usize::try_from(gateway.max_body).unwrap_or(usize::MAX));
        // On loopback a page in a browser is kept out that has our address under a name of its own;
        // elsewhere nobody knows by which names we are called.
        let own = if gateway.bind.ip().is_loopback() {
            own
        } else {
            own.disable_allowed_hosts()
        };
        let service = StreamableHttpService::new(
            move || Ok(host.clone()),
            Arc::new(NeverSessionManager::default()),
            own,
        );
        Ok(Self {
            name: Arc::from(name),
            client,
            service,
            made_of: MadeOf::of(config, settings),
        })
    }

    /// Whether it can take a configuration over while it runs.
    pub(super) fn fits(&self, config: &DependencyConfig) -> bool {
        let settings = McpSettings::of_config(config);
        settings.is_some_and(|settings| self.made_of == MadeOf::of(config, settings))
    }

    /// Answers a request to its endpoint.
    pub(super) async fn answer(&self, head: Parts, body: Incoming) -> Response<ReplyBody> {
        let answered = self.service.handle(Request::from_parts(head, body)).await;
        answered.map(ReplyBody::ours)
    }
}

impl MadeOf {
    fn of(config: &DependencyConfig, settings: McpSettings) -> Self {
        Self {
            settings,
            fallbacks: config.fallbacks.clone(),
            fallback_only: config.settings.fallback_only,
        }
    }
}

fn rule(runtime: &Runtime, config: &FallbackConfig) -> Rule<Mcp> {
    let rule = match &config.kind {
        FallbackKind::StaleCache {
            max_age,
            max_entries,
            refresh,
            ..
        } => {
            let max_entries = usize::try_from(max_entries.get()).unwrap_or(usize::MAX);
            Rule::new(StaleCache::new(*max_age, max_entries).refresh(*refresh))
        }
        FallbackKind::Dependency { name } => Rule::new(ByName::new(runtime, name)),
        FallbackKind::Fixed { body, .. } => Rule::new(Fixed(fixed(body))),
    };
    narrowed(rule, config)
}

/// A JSON object or array is the answer's value, anything else its text.
fn fixed(body: &str) -> ToolResult {
    match serde_json::from_str(body) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => ToolResult::structured(value),
        _ => ToolResult::text(body),
    }
}
