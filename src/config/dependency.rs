//! One table under `dependencies`: what it is, and everything that is set for it.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::DependencySettings;

use super::breaker::{self, count};
use super::fallback::{self, FallbackConfig};
use super::policy;
use super::section::Section;
use super::shape::{Shape, TICK, YEAR, duration, line, number, word};

/// Everything that is configured for one dependency.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct DependencyConfig {
    /// Who speaks to it; `None` when the program brings its own code for it.
    pub kind: Option<DependencyKind>,
    /// Where it is; always given for [`DependencyKind::Http`].
    pub url: Option<String>,
    /// Methods (or tools) that may be repeated after they may have been executed (CALL-7).
    pub idempotent: Vec<String>,
    /// The policy, as the machines of the kernel take it.
    pub settings: DependencySettings,
    /// Limits of a connection, beside the policy's.
    pub timeouts: EdgeTimeouts,
    /// Writes at once; `None` for no limit of their own (LIM-3).
    pub max_concurrent_writes: Option<NonZeroU32>,
    /// Calls for each interval; `None` for no limit.
    pub rate_limit: Option<RateLimitConfig>,
    /// Which answers of the dependency count as what (BRK-7).
    pub classify: ClassifyConfig,
    /// Who answers instead, in this order (FBK-1).
    pub fallbacks: Vec<FallbackConfig>,
}

/// How a dependency is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DependencyKind {
    /// HTTP, at its `url`.
    Http,
    /// A Model Context Protocol server on standard input and output.
    McpStdio,
    /// A server that the demo starts itself and breaks on purpose.
    Simulated,
}

/// Limits of a connection; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EdgeTimeouts {
    /// Until a connection stands.
    pub connect: Option<Duration>,
    /// From the request to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// Between two pieces of a streamed answer.
    pub idle: Option<Duration>,
}

impl Default for EdgeTimeouts {
    fn default() -> Self {
        Self {
            connect: Some(Duration::from_secs(1)),
            first_byte: Some(Duration::from_secs(5)),
            idle: Some(Duration::from_secs(30)),
        }
    }
}

/// Calls for each interval (LIM-1, LIM-2).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RateLimitConfig {
    /// Calls in each `per`.
    pub rate: f64,
    /// The interval.
    pub per: Duration,
    /// Calls that may come at once after a quiet time.
    pub burst: NonZeroU32,
    /// How long a call may wait for its turn.
    pub max_wait: Duration,
}

/// Which answers of the dependency count as what. The more exact cause wins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassifyConfig {
    /// The dependency is sick: feeds the breaker.
    pub failure: Vec<Cause>,
    /// It asks for a pause.
    pub throttled: Vec<Cause>,
    /// The caller's own mistake.
    pub rejected: Vec<Cause>,
    /// Our configuration is wrong: a key, a retired model.
    pub misconfigured: Vec<Cause>,
}

impl Default for ClassifyConfig {
    fn default() -> Self {
        let sick = [
            Cause::StatusClass(5),
            Cause::Connect,
            Cause::Timeout,
            Cause::Reset,
        ];
        Self {
            failure: sick.to_vec(),
            throttled: vec![Cause::Status(429)],
            rejected: vec![Cause::StatusClass(4)],
            misconfigured: vec![Cause::Status(401), Cause::Status(403)],
        }
    }
}

/// What may be said about an answer, or about its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// This HTTP status, such as 429.
    Status(u16),
    /// This hundred of HTTP statuses, such as 5 for `"5xx"`.
    StatusClass(u16),
    /// No connection could be made.
    Connect,
    /// The attempt took too long.
    Timeout,
    /// The connection was lost before the answer was complete.
    Reset,
}

/// Reads the table of one dependency.
pub(super) fn read(mut section: Section<'_>) -> DependencyConfig {
    const KINDS: &[(&str, DependencyKind)] = &[
        ("http", DependencyKind::Http),
        ("mcp_stdio", DependencyKind::McpStdio),
        ("simulated", DependencyKind::Simulated),
    ];
    let kind = section.get("kind", &word(KINDS));
    let url = section.get("url", &line(URL, is_http_url));
    if kind == Some(DependencyKind::Http) && !section.has("url") {
        section.conflict("url", "kind = \"http\" needs it", URL);
    }
    let method = line("a method such as \"GET\", or a tool's name", is_name);
    let idempotent = section
        .get("idempotent", &method.list())
        .unwrap_or_default();
    let (timeout, timeouts) = policy::timeout(section.section("timeout"));
    let (bulkhead, max_concurrent_writes) = policy::bulkhead(section.section("bulkhead"));
    let settings = DependencySettings {
        breaker: breaker::read(section.section("breaker"), timeout.attempt),
        timeout,
        retry: policy::retry(section.section("retry")),
        bulkhead,
        workers: policy::workers(section.section("workers")),
        ..DependencySettings::default()
    };
    let config = DependencyConfig {
        kind,
        url,
        idempotent,
        settings,
        timeouts,
        max_concurrent_writes,
        rate_limit: section.section_or_off("rate_limit").and_then(rate_limit),
        classify: classify(section.section("classify")),
        fallbacks: section
            .sections("fallback")
            .into_iter()
            .filter_map(fallback::read)
            .collect(),
    };
    section.finish();
    config
}

const URL: &str = "an address such as \"http://127.0.0.1:9001\", without user and query";

fn is_http_url(url: &str) -> bool {
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

fn rate_limit(mut section: Section<'_>) -> Option<RateLimitConfig> {
    let rate = section.get("rate", &number(0.001..=1e9));
    let per = section.get("per", &duration(TICK..=YEAR));
    let burst = section.get("burst", &count(u32::MAX));
    let max_wait = section.get("max_wait", &duration(Duration::ZERO..=YEAR));
    if section.present && !section.has("rate") {
        section.conflict(
            "rate",
            "it is missing",
            "a number of calls for each interval",
        );
    }
    section.finish();
    let rate = rate?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates"
    )]
    let one_interval = NonZeroU32::new(rate.ceil() as u32).unwrap_or(NonZeroU32::MIN);
    Some(RateLimitConfig {
        rate,
        per: per.unwrap_or(Duration::from_secs(1)),
        burst: burst.unwrap_or(one_interval),
        max_wait: max_wait.unwrap_or_default(),
    })
}

fn cause() -> Shape<'static, Cause> {
    let words = word(&[
        ("connect", Cause::Connect),
        ("timeout", Cause::Timeout),
        ("reset", Cause::Reset),
        ("4xx", Cause::StatusClass(4)),
        ("5xx", Cause::StatusClass(5)),
    ]);
    let status = super::shape::whole(400..=599_u16);
    let allowed = format!("{} or a status from 400 to 599", words.allowed);
    Shape::new(allowed, move |value| {
        (words.parse)(value).or_else(|| (status.parse)(value).map(Cause::Status))
    })
}

fn classify(mut section: Section<'_>) -> ClassifyConfig {
    let default = ClassifyConfig::default();
    let causes = cause().list();
    let config = ClassifyConfig {
        failure: section.get("failure", &causes).unwrap_or(default.failure),
        throttled: section
            .get("throttled", &causes)
            .unwrap_or(default.throttled),
        rejected: section.get("rejected", &causes).unwrap_or(default.rejected),
        misconfigured: section
            .get("misconfigured", &causes)
            .unwrap_or(default.misconfigured),
    };
    let classes = [
        ("failure", &config.failure),
        ("throttled", &config.throttled),
        ("rejected", &config.rejected),
        ("misconfigured", &config.misconfigured),
    ];
    for (index, (class, causes)) in classes.iter().enumerate() {
        for (other, others) in &classes[index + 1..] {
            if let Some(both) = causes.iter().find(|cause| others.contains(cause)) {
                let key = if section.has(other) { other } else { class };
                let reason = format!("{both:?} stands in {class} and in {other}");
                section.conflict(key, reason, "each cause in one class");
            }
        }
    }
    section.finish();
    config
}
