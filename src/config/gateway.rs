//! The section `gateway`.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::caller_auth::{self, CallerAuth};
use super::gateway_tls::{self, GatewayTls};
use super::per_caller::{self, PerCallerConfig};
use super::section::Section;
use super::value_type::{
    TICK, ValueType, YEAR, address, bytes, count, duration, mistaken_path, one_of, path, string,
};

/// The data plane of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// Address to listen on.
    pub bind: SocketAddr,
    /// Host names under which it is served. Without any: on a loopback address `localhost` and
    /// addresses, elsewhere every name.
    pub hosts: Vec<String>,
    /// Origins of other sites. Their pages may use it from a browser.
    pub origins: Vec<String>,
    /// Request headers of callers that are obeyed.
    pub trust: Vec<TrustedHeader>,
    /// Certificates of the listener; `None` for connections without TLS.
    pub tls: Option<GatewayTls>,
    /// Credentials that callers of every dependency present, unless it has a choice of its own.
    pub auth: Option<CallerAuth>,
    /// Destination of a line for each request; `None` for no lines.
    pub access_log: Option<AccessLogTarget>,
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
    /// Maximum number of bytes that the process keeps: bodies that may be sent again, and answers
    /// of stale caches.
    ///
    /// # Units   Bytes.
    pub max_buffered: u64,
    /// Limits of one caller.
    pub per_caller: PerCallerConfig,
    /// Time limit for a caller to send the head of a request.
    pub header_timeout: Duration,
    /// Maximum time in which a caller's body brings each further kilobyte; for each piece of gRPC, and
    /// once the answer has begun.
    pub body_timeout: Duration,
    /// Time limit for a caller to accept a piece of the response.
    pub send_timeout: Duration,
    /// Maximum time that a connection stays open without a request.
    pub idle_timeout: Duration,
    /// Time limit for requests in flight when the process stops.
    pub shutdown: Duration,
    /// Time between the signal to stop and the end of accepting connections. Calls are served
    /// meanwhile, and readiness is 503.
    pub shutdown_delay: Duration,
}

/// Destination of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLogTarget {
    /// Standard output.
    Stdout,
    /// A file, to which lines are appended.
    File(PathBuf),
}

impl AccessLogTarget {
    /// Checks whether it can be opened, without creating anything.
    ///
    /// # Errors  The file is none, or cannot be written, or there is no folder for it.
    pub fn check(&self) -> io::Result<()> {
        let Self::File(path) = self else {
            return Ok(());
        };
        match std::fs::metadata(path) {
            // Opening a pipe would wait for its reader.
            Ok(found) if !found.is_file() => Err(io::Error::other("it is not a file")),
            Ok(_) => {
                File::options().append(true).open(path)?;
                is_log(path).then_some(()).ok_or_else(|| {
                    io::Error::other("it exists, and is no access log of a Breakerbox")
                })
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // The system would create what the link names.
            Err(_) if path.is_symlink() => Err(io::Error::other("it is a link to nothing")),
            Err(_) => {
                let parent = path
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                match parent.is_none_or(Path::is_dir) {
                    true => may_create(parent.unwrap_or(Path::new("."))),
                    false => Err(io::Error::other("there is no folder for it")),
                }
            }
        }
    }
}

/// Checks that a file can be created in a folder, as far as that can be seen without doing it.
///
/// # Errors  The folder may not be written by this process.
#[cfg(unix)]
pub(crate) fn may_create(folder: &Path) -> io::Result<()> {
    use nix::unistd::{AccessFlags, access};
    let refused = |_| io::Error::other("this process may create no file in its folder");
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(refused)
}

/// Other systems tell it only when the file is created.
#[cfg(not(unix))]
pub(crate) fn may_create(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Returns true if a file is empty, or begins as an access log does: lines must not end up in another
/// file because of a mistaken path.
fn is_log(path: &Path) -> bool {
    const BEGIN: &[u8] = b"{\"time\":\"";
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| {
        let length = BEGIN.len() as u64;
        file.take(length).read_to_end(&mut begin)
    });
    // A file that may be written and not read is left to its owner.
    read.is_err() || begin.is_empty() || begin == BEGIN
}

/// A request header by which a caller changes how its call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrustedHeader {
    /// `breakerbox-deadline-ms`.
    Deadline,
    /// `breakerbox-priority`.
    Priority,
    /// `breakerbox-key`.
    Key,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            hosts: Vec::new(),
            origins: Vec::new(),
            trust: TRUST.map(|(_, header)| header).to_vec(),
            tls: None,
            auth: None,
            access_log: None,
            threads: None,
            max_connections: number(10_000),
            max_head: 64_000,
            max_headers: number(100),
            max_body: 100_000_000,
            max_replay_body: 1_000_000,
            max_buffered: 256_000_000,
            per_caller: PerCallerConfig::default(),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            shutdown: Duration::from_secs(30),
            shutdown_delay: Duration::ZERO,
        }
    }
}

/// Words for the headers that can be trusted.
const TRUST: [(&str, TrustedHeader); 3] = [
    ("deadline", TrustedHeader::Deadline),
    ("priority", TrustedHeader::Priority),
    ("key", TrustedHeader::Key),
];

/// Reads `gateway`.
pub(super) fn read(mut section: Section<'_>) -> GatewayConfig {
    let default = GatewayConfig::default();
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
    let all_kept = bytes("\"256MB\", from 1MB to 1TB", 1_000_000..=1_000_000_000_000);
    let head = bytes("\"64KB\", from 8192 to 1MB", 8192..=1_000_000);
    let pause = duration(Duration::ZERO..=YEAR);
    let bind = section.get_or("bind", &address(), default.bind);
    // EDGE-5: other machines are not obeyed unless the operator says so.
    let is_loopback = bind.ip().to_canonical().is_loopback();
    let trusted = if is_loopback {
        Some(default.trust)
    } else {
        None
    };
    let trust = one_of(&TRUST).list().or_off();
    let tls = section.section_if_given("tls").and_then(gateway_tls::read);
    let trust = section.get_or("trust", &trust, trusted).unwrap_or_default();
    let max_connections = section.get_or(
        "max_connections",
        &count(1_000_000),
        default.max_connections,
    );
    let of_caller = (is_loopback, trust.contains(&TrustedHeader::Key));
    let settings = GatewayConfig {
        bind,
        tls,
        hosts: section
            .get_if_set("hosts", &host().list())
            .unwrap_or_default(),
        origins: section
            .get_if_set("origins", &origin().list())
            .unwrap_or_default(),
        trust,
        auth: section.section_if_given("auth").and_then(caller_auth::read),
        access_log: section.get_or("access_log", &access_log().or_off(), default.access_log),
        threads: section.get_or("threads", &threads, default.threads),
        max_connections,
        max_head: section.get_or("max_head", &head, default.max_head),
        max_headers: section.get_or("max_headers", &count(1000), default.max_headers),
        max_body: section.get_or("max_body", &whole_body, default.max_body),
        max_replay_body: section.get_or("max_replay_body", &kept_body, default.max_replay_body),
        max_buffered: section.get_or("max_buffered", &all_kept, default.max_buffered),
        per_caller: per_caller::read(&mut section, of_caller, max_connections),
        header_timeout: header,
        body_timeout: body,
        send_timeout: send,
        idle_timeout: idle,
        shutdown: section.get_or("shutdown", &pause, default.shutdown),
        shutdown_delay: section.get_or("shutdown_delay", &pause, default.shutdown_delay),
    };
    if settings.max_buffered < settings.max_replay_body {
        let text = "bodies above gateway.max_buffered cannot be kept, and are refused";
        section.warn("max_replay_body", text.to_owned());
    }
    if settings.max_replay_body > settings.max_body && section.is_given("max_replay_body") {
        let text = "it has no effect above gateway.max_body: longer bodies are refused";
        section.warn("max_replay_body", text.to_owned());
    }
    section.finish();
    settings
}

/// Returns the type of a destination of the access log.
fn access_log() -> ValueType<'static, AccessLogTarget> {
    // A single word is no path: it was meant for another system's destination.
    let is_target = |text: &str| text == "stdout" || text.contains(['/', '.', '\\']);
    let text = path(
        "\"stdout\", the path of a file such as \"access.log\"",
        is_target,
    );
    text.map(
        |text| {
            Some(match text.as_str() {
                "stdout" => AccessLogTarget::Stdout,
                path => AccessLogTarget::File(PathBuf::from(path)),
            })
        },
        |target| match target {
            AccessLogTarget::Stdout => "stdout".to_owned(),
            AccessLogTarget::File(path) => path.display().to_string(),
        },
    )
    .mistaken_by(mistaken_path)
}

/// Returns the type of a host name or an address, without a port.
fn host() -> ValueType<'static, String> {
    let is_host = |name: &str| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        let is_name = !name.is_empty() && name.len() <= 253 && name.chars().all(plain);
        let inner = name.trim_start_matches('[').trim_end_matches(']');
        is_name || inner.parse::<IpAddr>().is_ok()
    };
    string("a host name or an address, without a port", is_host)
}

/// Returns the type of an origin.
fn origin() -> ValueType<'static, String> {
    let is_origin = |text: &str| {
        let is_sound = |letter: char| letter.is_ascii_graphic() && !"/?#@,\"\\".contains(letter);
        text.split_once("://").is_some_and(|(scheme, rest)| {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
            !scheme.is_empty()
                && scheme.chars().all(plain)
                && !rest.is_empty()
                && rest.chars().all(is_sound)
        })
    };
    let allowed = "an origin such as \"https://app.example\", without a path";
    string(allowed, is_origin)
}
