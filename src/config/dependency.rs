//! One table under `dependencies`: the kind of the dependency and all its settings.

use std::path::PathBuf;

use breakerbox_policy::{DependencySettings, WhenAllDown};

use super::fallback::{self, FallbackConfig};
use super::mcp::{self, McpConfig};
use super::section::Section;
use super::value_type::{boolean, one_of, string};
use super::{breaker, classify, credentials, limits, policy};

/// The configuration of one dependency.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct DependencyConfig {
    /// Client for the dependency; `None` if the program brings its own code.
    pub kind: Option<DependencyKind>,
    /// Address; always given for [`DependencyKind::Http`] and [`DependencyKind::McpHttp`].
    pub url: Option<String>,
    /// Methods (or tools) that may be repeated even if they may have been executed (CALL-7).
    pub idempotent: Vec<String>,
    /// Service-account key file for calls, validated.
    pub credentials: Option<PathBuf>,
    /// Settings of an MCP server; `None` for other kinds.
    pub mcp: Option<McpConfig>,
    /// The policy, in the kernel's types.
    pub settings: DependencySettings,
    /// Fallbacks, in this order (FBK-1).
    pub fallbacks: Vec<FallbackConfig>,
}

/// Protocol of a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DependencyKind {
    /// HTTP, at its `url`.
    Http,
    /// A Model Context Protocol server on standard input and output.
    McpStdio,
    /// A Model Context Protocol server over streamable HTTP, at its `url`.
    McpHttp,
    /// A loopback server that `serve` or the demo starts itself.
    Simulated,
}

/// Reads the table of one dependency.
pub(super) fn read(mut section: Section<'_>, environment: &str) -> DependencyConfig {
    const KINDS: &[(&str, DependencyKind)] = &[
        ("http", DependencyKind::Http),
        ("mcp_stdio", DependencyKind::McpStdio),
        ("mcp_http", DependencyKind::McpHttp),
        ("simulated", DependencyKind::Simulated),
    ];
    let kind = section.get_if_set("kind", &one_of(KINDS));
    let url = section.get_if_set("url", &string(URL, is_http_url));
    let needs_url = match kind {
        Some(DependencyKind::Http) => Some("kind = \"http\" needs it"),
        Some(DependencyKind::McpHttp) => Some("kind = \"mcp_http\" needs it"),
        _ => None,
    };
    if let Some(reason) = needs_url.filter(|_| !section.has("url")) {
        section.conflict("url", reason, URL);
    }
    let mcp = mcp::read(&mut section, kind);
    let method = string("a method such as \"GET\", or a tool's name", is_name);
    let idempotent = section.get_or("idempotent", &method.list(), Vec::new());
    let credentials = read_credentials(&mut section);
    let mut settings = read_settings(&mut section, environment, kind);
    let fallbacks: Vec<FallbackConfig> = section
        .sections("fallback")
        .into_iter()
        .filter_map(fallback::read)
        .collect();
    let fallback_only = section.get_or("fallback_only", &boolean(), false);
    settings.fallback_only = fallback_only;
    // Without a kind the program brings the code, and perhaps the fallbacks too.
    if fallback_only && kind.is_some() && !section.has("fallback") {
        let allowed = "false, or a fallback";
        section.conflict("fallback_only", "nobody would answer", allowed);
    }
    section.finish();
    DependencyConfig {
        kind,
        url,
        idempotent,
        credentials,
        mcp,
        settings,
        fallbacks,
    }
}

fn read_settings(
    section: &mut Section<'_>,
    environment: &str,
    kind: Option<DependencyKind>,
) -> DependencySettings {
    // Such servers keep their data in a file, and lose concurrent writes.
    let writes = u32::from(kind == Some(DependencyKind::McpStdio));
    const DOWN: &[(&str, WhenAllDown)] =
        &[("refuse", WhenAllDown::Refuse), ("try", WhenAllDown::Try)];
    let timeout = policy::timeout(section.section("timeout"));
    let hedge = section.section_if_given("hedge");
    let rate_limit = section.section_if_given("rate_limit");
    let chaos = section.section_if_given("chaos");
    DependencySettings {
        breaker: breaker::read(section.section("breaker"), timeout.attempt),
        timeout,
        retry: policy::retry(section.section("retry")),
        hedge: hedge.and_then(|hedge| limits::hedge(hedge, timeout.attempt)),
        rate_limit: rate_limit.and_then(limits::rate_limit),
        throttle: limits::throttle(section.section("throttle")),
        bulkhead: policy::bulkhead(section.section("bulkhead"), writes),
        workers: policy::workers(section.section("workers")),
        classify: classify::read(section.section("classify")),
        keys: limits::keys(section.section("keys")),
        when_all_down: section.get_or("when_all_down", &one_of(DOWN), WhenAllDown::default()),
        chaos: chaos.and_then(|chaos| limits::chaos(chaos, environment)),
        fallback_only: false,
    }
}

/// Reads the credentials. An unusable key is found now, not at the first call.
fn read_credentials(section: &mut Section<'_>) -> Option<PathBuf> {
    let path = string("the path of a file", |path| !path.is_empty());
    let path = PathBuf::from(section.get_if_set("credentials", &path)?);
    match credentials::check(&path) {
        Ok(None) => {}
        Ok(Some(exposed)) => section.warn("credentials", exposed.to_string()),
        Err(error) => section.conflict("credentials", error.to_string(), credentials::ALLOWED),
    }
    Some(path)
}

/// Allowed addresses.
pub(super) const URL: &str = "an address such as \"http://127.0.0.1:9001\", without user and query";

/// Returns true if the address is allowed by [`URL`].
pub(super) fn is_http_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let authority = rest
        .and_then(|rest| rest.split(['/', '?', '#']).next())
        .unwrap_or("");
    let plain = |letter: char| letter.is_ascii_graphic() && !"@\"<>\\^`{|}".contains(letter);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "0"),
    };
    let sound = |text: &str| {
        text.chars()
            .all(|letter| plain(letter) && !"?#".contains(letter))
    };
    !host.is_empty() && port.parse::<u16>().is_ok() && sound(url)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_ascii_graphic() && letter != ',')
}
