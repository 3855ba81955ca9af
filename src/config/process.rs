//! The sections of the process itself: `gateway`, `admin`, `recorder` and `reload`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use config::{Value, ValueKind};

use super::breaker::count;
use super::secret::Secret;
use super::section::Section;
use super::shape::{Shape, duration, line, truth};

/// Where the sidecar takes calls.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// The address to listen on.
    pub bind: SocketAddr,
}

/// Where the sidecar is watched and operated.
///
/// # Source  Rule SEC-1 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminConfig {
    /// The address to listen on; loopback unless it is set.
    pub bind: SocketAddr,
    /// What a change must be signed with; without it nothing can be changed.
    pub token: Option<Secret>,
    /// Names under which a browser may reach it for a change, beside addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// The file that every outcome is recorded in, for `breakerbox replay`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecorderConfig {
    /// The file; `None` to record nothing.
    pub path: Option<PathBuf>,
    /// Records that wait to be written; more are dropped and counted.
    pub max_queue: NonZeroU32,
    /// How long the file may become; then it is renamed to `<path>.1`, and a new one begun.
    ///
    /// # Units   Bytes.
    pub max_bytes: u64,
}

/// When the configuration is read again while the program runs.
///
/// # Source  Rule CFG-2 in docs/rules.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadConfig {
    /// Whether a change of a file is enough; a hangup signal always is.
    pub watch: bool,
    /// How long after a change it is read, at least: editors and deployments write more than once.
    pub debounce: Duration,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::new(LOOPBACK, 7070),
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
    let token = Shape {
        secret: true,
        ..line("a text of at least 16 letters", |token| token.len() >= 16)
    };
    let is_name = |name: &str| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-".contains(letter);
        !name.is_empty() && name.len() <= 253 && name.chars().all(plain)
    };
    let hosts = line("a host name without a port", is_name).list();
    let here = GatewayConfig {
        bind: gateway.get_or("bind", &address(), here.bind),
    };
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

fn address() -> Shape<'static, SocketAddr> {
    let allowed = "an address with a port, such as \"127.0.0.1:7070\"";
    let text = line(allowed, |_| true);
    text.map(|text| text.trim().parse().ok(), SocketAddr::to_string)
}

/// Reads `recorder`.
pub(super) fn recorder(mut section: Section<'_>) -> RecorderConfig {
    let default = RecorderConfig::default();
    let path = line("the path of a file", |path| !path.is_empty());
    let settings = RecorderConfig {
        path: section.get_if_set("path", &path).map(PathBuf::from),
        max_queue: section.get_or("max_queue", &count(10_000_000), default.max_queue),
        max_bytes: section.get_or("max_bytes", &bytes(), default.max_bytes),
    };
    section.finish();
    settings
}

/// A number of bytes: plain, or with a unit.
fn bytes() -> Shape<'static, u64> {
    const RANGE: std::ops::RangeInclusive<u64> = 1_000_000..=1_000_000_000_000;
    let allowed = "a number of bytes, or a text such as \"64MB\", from 1MB to 1TB";
    let parse = |value: &Value| {
        let bytes = match &value.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok()?,
            ValueKind::String(text) => text.trim().parse::<ByteSize>().ok()?.as_u64(),
            _ => return None,
        };
        RANGE.contains(&bytes).then_some(bytes)
    };
    Shape::new(allowed, parse, u64::to_string)
}

/// Reads `reload`.
pub(super) fn reload(mut section: Section<'_>) -> ReloadConfig {
    let default = ReloadConfig::default();
    let moment = duration(Duration::from_millis(10)..=Duration::from_secs(60));
    let settings = ReloadConfig {
        watch: section.get_or("watch", &truth(), default.watch),
        debounce: section.get_or("debounce", &moment, default.debounce),
    };
    section.finish();
    settings
}
