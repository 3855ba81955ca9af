//! The sections of the process itself: `gateway`, `admin`, `recorder` and `reload`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::breaker::count;
use super::secret::Secret;
use super::section::Section;
use super::value_type::{TICK, ValueType, YEAR, boolean, bytes, duration, string};

/// The data plane of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// Address to listen on.
    pub bind: SocketAddr,
    /// Number of threads; `None` for one per processor.
    pub threads: Option<NonZeroU32>,
    /// Maximum number of callers' connections; further ones wait in the system's backlog.
    pub max_connections: NonZeroU32,
    /// Maximum size of a request's first line and headers.
    ///
    /// # Units   Bytes.
    pub max_head: u64,
    /// Maximum number of headers of a request.
    pub max_headers: NonZeroU32,
    /// Maximum size of a request's body.
    ///
    /// # Units   Bytes.
    pub max_body: u64,
    /// Maximum size of a body that is buffered until it is answered, so that it can be sent again.
    ///
    /// # Units   Bytes.
    pub max_replay_body: u64,
    /// Time limit for a caller to send the head of a request.
    pub header_timeout: Duration,
    /// Maximum time between two pieces of a caller's body.
    pub body_timeout: Duration,
    /// Time limit for a caller to accept a piece of the response.
    pub send_timeout: Duration,
    /// Maximum time that a connection stays open without a request.
    pub idle_timeout: Duration,
    /// Time limit for requests in flight when the process stops.
    pub shutdown: Duration,
}

/// The admin side of the sidecar.
///
/// # Source  Rule SEC-1 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminConfig {
    /// Address to listen on; loopback by default.
    pub bind: SocketAddr,
    /// Token that a change must carry; without it nothing can be changed.
    pub token: Option<Secret>,
    /// Host names under which a browser may make changes, beside addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// The recorder: a file of all outcomes, for `breakerbox replay`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecorderConfig {
    /// The file; `None` to record nothing.
    pub path: Option<PathBuf>,
    /// Maximum number of records waiting to be written; further ones are dropped and counted.
    pub max_queue: NonZeroU32,
    /// Maximum size of the file. At that size it is renamed to `<path>.1`, and a new one is
    /// created.
    ///
    /// # Units   Bytes.
    pub max_bytes: u64,
}

/// Reloading of the configuration while the program runs.
///
/// # Source  Rule CFG-2 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadConfig {
    /// True to reload after a change of a file; SIGHUP always reloads.
    pub watch: bool,
    /// Minimum delay between a change and the reload: editors and deployments write several times.
    pub debounce: Duration,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Default for GatewayConfig {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            bind: SocketAddr::new(LOOPBACK, 7070),
            threads: None,
            max_connections: number(10_000),
            max_head: 64_000,
            max_headers: number(100),
            max_body: 100_000_000,
            max_replay_body: 64_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            shutdown: Duration::from_secs(30),
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::new(LOOPBACK, 7071),
            token: None,
            hosts: Vec::new(),
        }
    }
}

impl Default for RecorderConfig {
    fn default() -> Self {
        Self {
            path: None,
            max_queue: NonZeroU32::new(10_000).unwrap_or(NonZeroU32::MIN),
            max_bytes: 64_000_000,
        }
    }
}

impl Default for ReloadConfig {
    fn default() -> Self {
        Self {
            watch: true,
            debounce: Duration::from_millis(500),
        }
    }
}

/// Reads `gateway` and `admin`, which cannot share an address.
pub(super) fn servers(
    mut gateway: Section<'_>,
    mut admin: Section<'_>,
) -> (GatewayConfig, AdminConfig) {
    let (here, there) = (GatewayConfig::default(), AdminConfig::default());
    let token = ValueType {
        secret: true,
        ..string("a text of at least 16 letters", |token| token.len() >= 16)
    };
    let is_name = |name: &str| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-".contains(letter);
        !name.is_empty() && name.len() <= 253 && name.chars().all(plain)
    };
    let hosts = string("a host name without a port", is_name).list();
    let here = read_gateway(&mut gateway, &here);
    let there = AdminConfig {
        bind: admin.get_or("bind", &address(), there.bind),
        token: admin.get_if_set("token", &token).map(Secret::new),
        hosts: admin.get_if_set("hosts", &hosts).unwrap_or_default(),
    };
    if there.token.is_none() && !admin.is_bad("token") && !there.bind.ip().is_loopback() {
        let reason = "it can be reached from afar, and there is no token";
        let allowed = "a loopback address, or to set admin.token too";
        admin.conflict("bind", reason, allowed);
    }
    if here.bind == there.bind && there.bind.port() != 0 {
        let reason = "the gateway listens there already";
        admin.conflict("bind", reason, "an address other than gateway.bind");
    }
    gateway.finish();
    admin.finish();
    (here, there)
}

fn read_gateway(section: &mut Section<'_>, default: &GatewayConfig) -> GatewayConfig {
    let threads = count(1024).or_word("auto");
    let span = duration(TICK..=YEAR);
    let mut within = |key, default| section.get_or(key, &span, default);
    let (header, body) = (
        within("header_timeout", default.header_timeout),
        within("body_timeout", default.body_timeout),
    );
    let (send, idle) = (
        within("send_timeout", default.send_timeout),
        within("idle_timeout", default.idle_timeout),
    );
    let whole_body = bytes("\"100MB\", from 1KB to 1TB", 1_000..=1_000_000_000_000);
    let kept_body = bytes("\"64KB\", from 0 to 100MB", 0..=100_000_000);
    let head = bytes("\"64KB\", from 8192 to 1MB", 8192..=1_000_000);
    let pause = duration(Duration::ZERO..=YEAR);
    GatewayConfig {
        bind: section.get_or("bind", &address(), default.bind),
        threads: section.get_or("threads", &threads, default.threads),
        max_connections: section.get_or(
            "max_connections",
            &count(1_000_000),
            default.max_connections,
        ),
        max_head: section.get_or("max_head", &head, default.max_head),
        max_headers: section.get_or("max_headers", &count(1000), default.max_headers),
        max_body: section.get_or("max_body", &whole_body, default.max_body),
        max_replay_body: section.get_or("max_replay_body", &kept_body, default.max_replay_body),
        header_timeout: header,
        body_timeout: body,
        send_timeout: send,
        idle_timeout: idle,
        shutdown: section.get_or("shutdown", &pause, default.shutdown),
    }
}

fn address() -> ValueType<'static, SocketAddr> {
    let allowed = "an address with a port, such as \"127.0.0.1:7070\"";
    let text = string(allowed, |_| true);
    text.map(|text| text.trim().parse().ok(), SocketAddr::to_string)
}

/// Reads `recorder`.
pub(super) fn recorder(mut section: Section<'_>) -> RecorderConfig {
    let default = RecorderConfig::default();
    let path = string("the path of a file", |path| !path.is_empty());
    let most = bytes("\"64MB\", from 1MB to 1TB", 1_000_000..=1_000_000_000_000);
    let settings = RecorderConfig {
        path: section.get_if_set("path", &path).map(PathBuf::from),
        max_queue: section.get_or("max_queue", &count(10_000_000), default.max_queue),
        max_bytes: section.get_or("max_bytes", &most, default.max_bytes),
    };
    section.finish();
    settings
}

/// Reads `reload`.
pub(super) fn reload(mut section: Section<'_>) -> ReloadConfig {
    let default = ReloadConfig::default();
    let moment = duration(Duration::from_millis(10)..=Duration::from_secs(60));
    let settings = ReloadConfig {
        watch: section.get_or("watch", &boolean(), default.watch),
        debounce: section.get_or("debounce", &moment, default.debounce),
    };
    section.finish();
    settings
}
