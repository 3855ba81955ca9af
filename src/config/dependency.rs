//! One table under `dependencies`: the kind of the dependency and all its settings.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use breakerbox_policy::{DependencySettings, GiveUp, WhenAllDown};

use super::caller_auth::{self, AuthChoice};
use super::credential_names::holds_credentials;
use super::fallback::{self, FallbackConfig};
use super::fleet::{self, DependencyFleet};
use super::kind::DependencyKind;
use super::links::links;
use super::mcp::{self, CallerSessions, McpConfig};
use super::mcp_group::{self, GroupMember};
use super::mcp_tools::{self, ToolRules};
use super::model::{self, ModelConfig};
use super::outbound::{self, OutboundConfig};
use super::pool::{self, PoolConfig};
use super::probe::{self, ProbeConfig};
use super::section::Section;
use super::upstream::{self, UpstreamConfig};
use super::upstream_tls::{self, UpstreamTls};
use super::url::{self, URL, URL_OR_SOCKET, is_dependency_url, is_http_url};
use super::value_type::{YEAR, boolean, one_of, path, string};
use super::{
    breaker, bulkhead, chaos, classify, configured_override, credentials, dead_settings, health,
    hedge, keys, rate_limit, retry, throttle, timeout, workers,
};

/// The configuration of one dependency.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct DependencyConfig {
    /// Client for the dependency; `None` if the program brings its own code.
    pub kind: Option<DependencyKind>,
    /// Address; always given for [`DependencyKind::Http`], [`DependencyKind::Model`] and
    /// [`DependencyKind::McpHttp`].
    pub url: Option<String>,
    /// Pages about it for operators, by name, such as its runbook.
    pub links: BTreeMap<String, String>,
    /// Methods (or tools) that may be repeated even if they may have been executed (CALL-7); for
    /// [`DependencyKind::Http`], the safe methods by default.
    pub idempotent: Vec<String>,
    /// Service-account key file for calls, validated.
    pub credentials: Option<PathBuf>,
    /// Headers of the requests, for [`DependencyKind::Http`].
    pub outbound: OutboundConfig,
    /// Certificates of its connections, for [`DependencyKind::Http`].
    pub tls: Option<UpstreamTls>,
    /// Its connections, for [`DependencyKind::Http`].
    pub upstream: UpstreamConfig,
    /// Settings of an MCP server; `None` for other kinds.
    pub mcp: Option<McpConfig>,
    /// Table of its tools, for MCP servers.
    pub tools: ToolRules,
    /// Members, for [`DependencyKind::McpGroup`]; `None` for other kinds.
    pub members: Option<Vec<GroupMember>>,
    /// Settings of a language model; `None` for other kinds.
    pub model: Option<ModelConfig>,
    /// Members, for [`DependencyKind::Pool`]; `None` for other kinds.
    pub pool: Option<PoolConfig>,
    /// Headers of callers that pass to the server, for [`DependencyKind::McpHttp`].
    pub forward_headers: Vec<String>,
    /// Credentials that its callers present.
    pub auth: AuthChoice,
    /// Request of our own that asks whether it is well, for [`DependencyKind::Http`].
    pub probe: Option<ProbeConfig>,
    /// The policy, in the kernel's types.
    pub settings: DependencySettings,
    /// Fallbacks, in this order (FBK-1).
    pub fallbacks: Vec<FallbackConfig>,
    /// Its part in the fleet.
    pub fleet: DependencyFleet,
}

/// Reads the table of one dependency.
pub(super) fn read(mut section: Section<'_>, environment: &str) -> DependencyConfig {
    const KINDS: &[(&str, DependencyKind)] = &[
        ("http", DependencyKind::Http),
        ("mcp_stdio", DependencyKind::McpStdio),
        ("mcp_http", DependencyKind::McpHttp),
        ("mcp_group", DependencyKind::McpGroup),
        ("model", DependencyKind::Model),
        ("pool", DependencyKind::Pool),
        ("simulated", DependencyKind::Simulated),
    ];
    let kind = section.get_if_set("kind", &one_of(KINDS).mistaken_by(foreign_kind));
    let url = read_url(&mut section, kind);
    let links = section.get_if_set("links", &links()).unwrap_or_default();
    let outbound = outbound::read(&mut section, kind);
    let mcp = mcp::read(&mut section, kind, &outbound.headers);
    let members = mcp_group::read(&mut section, kind);
    let pool = pool::read(&mut section, kind, members.clone());
    let members = members.filter(|_| pool.is_none());
    let auth = caller_auth::read_choice(&mut section);
    let forward_headers = outbound::read_forwarded(&mut section, kind, &outbound.headers);
    let is_http = kind.is_some_and(DependencyKind::is_http);
    let outbound = if is_http {
        outbound
    } else {
        OutboundConfig::default()
    };
    let tls = section
        .section_if_given("tls")
        .and_then(|tls| upstream_tls::read(tls, url.as_deref()));
    if tls.is_some() && !is_http {
        let reason = "it applies to kind = \"http\" and \"model\"";
        section.conflict("tls", reason, "to leave it out");
    }
    let upstream = upstream::read(&mut section, kind, url.as_deref());
    let idempotent = read_idempotent(&mut section, kind);
    let credentials = read_credentials(&mut section);
    let mut has_credentials = holds_credentials(url.as_deref(), &outbound, tls.as_ref());
    // Such servers keep their data in a file, and lose concurrent writes; those of sessions do not
    // share it.
    let is_shared = |own: &McpConfig| own.sessions == CallerSessions::Shared;
    let is_serial = kind == Some(DependencyKind::McpStdio) && mcp.as_ref().is_some_and(is_shared);
    has_credentials |= section.has("key");
    let known = (kind, has_credentials, is_serial);
    let (mut settings, probe_stream) = read_settings(&mut section, environment, known);
    let model = model::read(&mut section, kind, probe_stream);
    if let Some(own) = &mcp {
        mcp::check_sessions(&section, own, settings.workers.count);
    }
    let probe = probe::read(&mut section, kind, &settings.breaker);
    let tools = mcp_tools::read(&mut section, kind, settings.timeout.total);
    let fallbacks = read_fallbacks(&mut section, kind, &mut settings);
    let fleet = fleet::read_dependency(section.section("fleet"));
    let config = DependencyConfig {
        kind,
        url,
        links,
        idempotent,
        credentials,
        outbound,
        tls,
        upstream,
        mcp,
        tools,
        members,
        model,
        pool,
        forward_headers,
        auth,
        probe,
        settings,
        fallbacks,
        fleet,
    };
    dead_settings::check(&section, &config);
    section.finish();
    config
}

/// Returns the kind that a word of others stands for.
fn foreign_kind(value: &config::Value) -> Option<String> {
    let config::ValueKind::String(text) = &value.kind else {
        return None;
    };
    let meant = match text.trim().to_ascii_lowercase().as_str() {
        "grpc" | "h2" | "http2" => "did you mean \"http\", with http_version = \"2\"?",
        "rest" | "api" | "web" | "service" | "graphql" => "did you mean \"http\"?",
        "mcp" => "did you mean \"mcp_stdio\" with a command, or \"mcp_http\" with a url?",
        "llm" | "openai" | "anthropic" | "google" => {
            "did you mean \"model\", with api = \"openai\", \"anthropic\" or \"google\"?"
        }
        _ => return None,
    };
    Some(meant.to_owned())
}

/// Attempts of a call of a model, where the configuration sets none.
const MODEL_ATTEMPTS: NonZeroU32 = NonZeroU32::new(2).unwrap();
/// Calls of a model in flight, where the configuration sets none.
const MODEL_PLACES: NonZeroU32 = NonZeroU32::new(256).unwrap();

/// Reads the fallbacks, and the settings beside them.
fn read_fallbacks(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
    settings: &mut DependencySettings,
) -> Vec<FallbackConfig> {
    let fallbacks = section
        .sections("fallback")
        .into_iter()
        .filter_map(fallback::read)
        .collect();
    let fallback_only = section.get_or("fallback_only", &boolean(), false);
    settings.fallback_only = fallback_only;
    settings.configured_override = section
        .section_if_given("override")
        .and_then(configured_override::read);
    // Without a kind the program brings the code, and perhaps the fallbacks too.
    if fallback_only && kind.is_some() && !section.has("fallback") {
        let allowed = "false, or a fallback";
        section.conflict("fallback_only", "there would be no answer", allowed);
    }
    fallbacks
}

fn read_idempotent(section: &mut Section<'_>, kind: Option<DependencyKind>) -> Vec<String> {
    let method = string("a method such as \"GET\", or a tool's name", is_name);
    // The methods that only read (RFC 9110, section 9.2.1): repeating them changes nothing.
    let safe = match kind {
        Some(DependencyKind::Http | DependencyKind::Model) => vec!["GET", "HEAD", "OPTIONS"],
        _ => Vec::new(),
    };
    let safe = safe.into_iter().map(str::to_owned).collect();
    section.get_or("idempotent", &method.list(), safe)
}

fn read_url(section: &mut Section<'_>, kind: Option<DependencyKind>) -> Option<String> {
    let url = match kind {
        Some(DependencyKind::Http | DependencyKind::Model) => {
            string(URL_OR_SOCKET, is_dependency_url)
        }
        _ => string(URL, is_http_url),
    };
    let url = section.get_if_set("url", &url.mistaken_by(url::mistake));
    if let Some(text) = url.as_deref().and_then(url::warning) {
        section.warn("url", text);
    }
    let needs_url = match kind {
        Some(DependencyKind::Http) => Some("kind = \"http\" needs it"),
        Some(DependencyKind::Model) => Some("kind = \"model\" needs it"),
        Some(DependencyKind::McpHttp) => Some("kind = \"mcp_http\" needs it"),
        _ => None,
    };
    if let Some(reason) = needs_url.filter(|_| !section.has("url")) {
        section.conflict("url", reason, URL);
    }
    url
}

fn read_settings(
    section: &mut Section<'_>,
    environment: &str,
    (kind, has_credentials, is_serial): (Option<DependencyKind>, bool, bool),
) -> (DependencySettings, Duration) {
    let writes = u32::from(is_serial);
    const DOWN: &[(&str, WhenAllDown)] =
        &[("refuse", WhenAllDown::Refuse), ("try", WhenAllDown::Try)];
    let is_http = kind.is_some_and(DependencyKind::is_http);
    let is_model = kind == Some(DependencyKind::Model);
    let timeout = timeout::read(section.section("timeout"), kind);
    let mut breaker = section.section("breaker");
    let probe_stream = model::read_probe_stream(&mut breaker, kind);
    let is_mcp = kind.is_some_and(DependencyKind::is_mcp);
    // MCP-4: a call of a tool waits for its turn as long as its own time allows.
    let max_wait = is_mcp.then(|| timeout.total.unwrap_or(YEAR));
    // MCP-1: a server is well again by itself.
    let give_up = match is_mcp {
        true => GiveUp::Retry,
        false => GiveUp::default(),
    };
    // Answers of models take long, and hold their places meanwhile.
    let places = is_model.then_some(MODEL_PLACES);
    let hedge = section.section_if_given("hedge");
    let rate_limit = section.section_if_given("rate_limit");
    let rate_limit = rate_limit.and_then(rate_limit::read);
    let chaos = section.section_if_given("chaos");
    let settings = DependencySettings {
        breaker: breaker::read(breaker, &timeout, kind),
        timeout,
        retry: retry::read(section.section("retry"), is_model.then_some(MODEL_ATTEMPTS)),
        hedge: hedge.and_then(|hedge| hedge::read(hedge, timeout.attempt)),
        rate_limit: rate_limit.map(|(limit, _)| limit),
        rate_sharing: rate_limit.and_then(|(_, sharing)| sharing),
        throttle: throttle::read(section.section("throttle")),
        bulkhead: bulkhead::read(section.section("bulkhead"), writes, max_wait, places),
        workers: workers::read(section.section("workers"), give_up),
        classify: classify::read(section.section("classify"), !is_http || has_credentials),
        health: health::read(section.section("health")),
        keys: keys::read(section.section("keys")),
        when_all_down: section.get_or("when_all_down", &one_of(DOWN), WhenAllDown::default()),
        chaos: chaos.and_then(|chaos| chaos::read(chaos, environment)),
        fallback_only: false,
        configured_override: None,
        // The section fleet, which is read elsewhere, sets the lease of keys.
        ..DependencySettings::default()
    };
    (settings, probe_stream)
}

/// Reads the credentials. An unusable key is found now, not at the first call.
fn read_credentials(section: &mut Section<'_>) -> Option<PathBuf> {
    let path = path("the path of a file", |path| !path.is_empty());
    let path = PathBuf::from(section.get_if_set("credentials", &path)?);
    match credentials::check(&path) {
        Ok(None) => {}
        Ok(Some(exposed)) => section.warn("credentials", exposed.to_string()),
        Err(error) => section.conflict("credentials", error.to_string(), credentials::ALLOWED),
    }
    Some(path)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_ascii_graphic() && letter != ',')
}
