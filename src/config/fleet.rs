//! The section `fleet`, and that of the same name of a dependency: replicas that act as one.
//!
//! This module does not know the board. A build without the feature `fleet` accepts no section
//! `fleet`.

use std::path::PathBuf;
use std::time::Duration;

use breakerbox_policy::fleet::{Quorum, TripSharing};
use breakerbox_policy::{ProbeLease, Rate};

use super::secret::Secret;
use super::section::Section;
use super::upstream_tls::{check_pair, note_contents, pem_file};
use super::value_type::{duration, integer, one_of, path, rate, secret_text, string};

/// The fleet that this replica belongs to.
///
/// # Source  Rules FLT-1 to FLT-17 in docs/rules.md.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FleetConfig {
    /// Addresses of NATS servers, at least one: `nats://host:port`, or `tls://host:port`.
    pub servers: Vec<String>,
    /// Name of the fleet: replicas of one name are one fleet.
    pub name: String,
    /// Number of copies of the board that the servers keep: 1, 3 or 5.
    pub bucket_replicas: u32,
    /// Name of this replica for people; `None` for the host's name.
    pub replica: Option<String>,
    /// File with the credentials of a NATS user: a signed token and a seed.
    pub credentials: Option<PathBuf>,
    /// Token of the server.
    pub token: Option<Secret>,
    /// Certificates of the connection; `None` for those of the system, where a server asks for TLS.
    pub tls: Option<FleetTls>,
    /// Interval of the heartbeats.
    pub heartbeat: Duration,
    /// Maximum wait of a probe for the board.
    pub timeout: Duration,
    /// Share of a rule's own number that is enough beside the evidence of other replicas.
    pub confirm: Rate,
    /// Number of replicas with evidence that is enough by itself.
    pub quorum: Quorum,
    /// Wait of a quorum for this replica's own outcomes.
    pub settle: Duration,
}

/// Certificates of the connection to the NATS servers, in PEM format.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FleetTls {
    /// File with the authorities that are trusted, in place of the system's.
    pub ca: Option<PathBuf>,
    /// File with the certificate of this replica, and its chain.
    pub cert: Option<PathBuf>,
    /// File with the private key of [`FleetTls::cert`].
    pub key: Option<PathBuf>,
}

/// Part of one dependency in the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DependencyFleet {
    /// Effect of the evidence of other replicas.
    pub trips: TripSharing,
    /// Number of probes in a half-open period.
    pub probes: ProbeSharing,
    /// Pauses that hold for all replicas at once.
    pub pauses: PauseSharing,
    /// Part of its keys' breakers in the fleet.
    pub keys: KeySharing,
}

/// Part of the breakers of a dependency's keys in a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeySharing {
    /// They decide alone, and their pauses stay with their replica.
    #[default]
    Off,
    /// They take part as the dependency's own does, under hashes of their keys.
    Hashed,
}

/// Pauses that hold for all replicas of a fleet at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PauseSharing {
    /// Those with a hint of the dependency, and used-up quotas.
    #[default]
    Hinted,
    /// All of them.
    All,
    /// None.
    Off,
}

/// Number of probes of a fleet in a half-open period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProbeSharing {
    /// One for the fleet: the holder of the lease probes.
    #[default]
    One,
    /// Each replica probes by itself.
    Each,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            name: "default".to_owned(),
            bucket_replicas: 1,
            replica: None,
            credentials: None,
            token: None,
            tls: None,
            heartbeat: Duration::from_secs(2),
            timeout: Duration::from_millis(250),
            confirm: share(0.6),
            quorum: Quorum {
                share: share(0.5),
                at_least: 2,
                within: Duration::from_secs(60),
            },
            settle: Duration::from_millis(200),
        }
    }
}

impl FleetConfig {
    /// Returns a configuration with one server, and the defaults of the other keys.
    #[must_use]
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            servers: vec![server.into()],
            ..Self::default()
        }
    }
}

/// A share of which this module knows that it is one.
fn share(value: f64) -> Rate {
    Rate::new(value).unwrap_or(Rate::ZERO)
}

const SERVER: &str =
    "an address such as \"nats://10.0.0.5:4222\" or \"tls://nats.example\", without a user";
const NAME: &str = "a name of at most 32 letters, digits, _ and -";

/// Reads `fleet`. `None` without the section.
pub(super) fn read(mut section: Section<'_>) -> Option<FleetConfig> {
    let is_given = section.present;
    let default = FleetConfig::default();
    let servers = section.get("servers", &string(SERVER, is_server).list());
    if is_given && servers.as_ref().is_none_or(Vec::is_empty) && !section.is_bad("servers") {
        section.conflict("servers", "it is missing", "a list of at least one address");
    }
    let label = string("a text of 1 to 64 letters", |text| {
        !text.trim().is_empty() && text.chars().count() <= 64 && !text.contains(char::is_control)
    });
    let token = secret_text("a text of at least 1 letter", |token| !token.is_empty());
    let config = FleetConfig {
        servers: servers.unwrap_or_default(),
        name: section.get_or("name", &string(NAME, is_name), default.name),
        bucket_replicas: section.get_or("bucket_replicas", &copies(), default.bucket_replicas),
        replica: section.get_if_set("replica", &label),
        credentials: read_credentials(&mut section),
        token: section.get_if_set("token", &token).map(Secret::new),
        tls: section.section_if_given("tls").and_then(read_tls),
        heartbeat: section.get_or(
            "heartbeat",
            &duration(Duration::from_millis(500)..=Duration::from_secs(60)),
            default.heartbeat,
        ),
        timeout: section.get_or(
            "timeout",
            &duration(Duration::from_millis(10)..=Duration::from_secs(5)),
            default.timeout,
        ),
        confirm: section.get_or("confirm", &rate(), default.confirm),
        quorum: read_quorum(section.section("quorum"), default.quorum),
        settle: section.get_or(
            "settle",
            &duration(Duration::ZERO..=Duration::from_secs(10)),
            default.settle,
        ),
    };
    if config.credentials.is_some() && config.token.is_some() {
        let reason = "fleet.credentials is set too";
        section.conflict("token", reason, "one of fleet.token and fleet.credentials");
    }
    if is_given && !cfg!(feature = "fleet") {
        let reason = "this program was built without the feature fleet";
        section.conflict_here(reason, "to leave it out, or a build with --features fleet");
    }
    section.finish();
    is_given.then_some(config)
}

fn copies() -> super::value_type::ValueType<'static, u32> {
    let odd = integer(1..=5u32).map(
        |copies| (copies % 2 == 1).then_some(copies),
        |copies| *copies,
    );
    odd.described_as("1, 3 or 5")
}

fn read_credentials(section: &mut Section<'_>) -> Option<PathBuf> {
    const ALLOWED: &str = "the path of a file with the credentials of a NATS user";
    let path = path(ALLOWED, |path| !path.is_empty());
    let path = PathBuf::from(section.get_if_set("credentials", &path)?);
    if !path.is_file() {
        let reason = "there is no such file, or it may not be read";
        section.conflict("credentials", reason, ALLOWED);
    }
    // A reload tells that they are others: they are read at the start only.
    let _ = note_contents(section, "credentials", &path);
    Some(path)
}

fn read_tls(mut section: Section<'_>) -> Option<FleetTls> {
    let is_given = section.present;
    let tls = FleetTls {
        ca: pem_file(&mut section, "ca"),
        cert: pem_file(&mut section, "cert"),
        key: pem_file(&mut section, "key"),
    };
    for (key, path) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
        if let Some(path) = path {
            let _ = note_contents(&section, key, path);
        }
    }
    check_pair(&section);
    section.finish();
    is_given.then_some(tls)
}

fn read_quorum(mut section: Section<'_>, default: Quorum) -> Quorum {
    let within = duration(Duration::from_secs(1)..=Duration::from_secs(3600));
    let quorum = Quorum {
        share: section.get_or("share", &rate(), default.share),
        at_least: section.get_or("at_least", &integer(2..=1000u32), default.at_least),
        within: section.get_or("within", &within, default.within),
    };
    section.finish();
    quorum
}

/// Reads `fleet` of a dependency.
pub(super) fn read_dependency(mut section: Section<'_>) -> DependencyFleet {
    const TRIPS: &[(&str, TripSharing)] = &[
        ("confirm", TripSharing::Confirm),
        ("any", TripSharing::Any),
        ("off", TripSharing::Off),
    ];
    const PROBES: &[(&str, ProbeSharing)] =
        &[("one", ProbeSharing::One), ("each", ProbeSharing::Each)];
    const PAUSES: &[(&str, PauseSharing)] = &[
        ("hinted", PauseSharing::Hinted),
        ("all", PauseSharing::All),
        ("off", PauseSharing::Off),
    ];
    const KEYS: &[(&str, KeySharing)] = &[("off", KeySharing::Off), ("hashed", KeySharing::Hashed)];
    let default = DependencyFleet::default();
    let fleet = DependencyFleet {
        trips: section.get_or("trips", &one_of(TRIPS), default.trips),
        probes: section.get_or("probes", &one_of(PROBES), default.probes),
        pauses: section.get_or("pauses", &one_of(PAUSES), default.pauses),
        keys: section.get_or("keys", &one_of(KEYS), default.keys),
    };
    section.finish();
    fleet
}

/// Returns the lease that a breaker asks the fleet for before it probes; `None` if it asks for none.
pub(super) fn lease_of_probes(fleet: &FleetConfig, part: &DependencyFleet) -> Option<ProbeLease> {
    // FLT-6: without a part in the others' evidence it takes none in leases either.
    let is_leased = part.trips != TripSharing::Off && part.probes == ProbeSharing::One;
    // FLT-1: a probe waits for the board for this long, then it goes out alone.
    is_leased.then_some(ProbeLease::Leased {
        timeout: fleet.timeout,
    })
}

fn is_server(address: &str) -> bool {
    let rest = address.strip_prefix("nats://");
    let Some(authority) = rest.or_else(|| address.strip_prefix("tls://")) else {
        return false;
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "4222"),
    };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_:[]".contains(letter);
    !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok()
}

fn is_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    (1..=32).contains(&name.len()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::is_server;

    #[test]
    fn sec_1_an_address_of_a_server_has_no_user() {
        for good in [
            "nats://10.0.0.5:4222",
            "nats://nats",
            "tls://nats.example:4443",
            "nats://[::1]:4222",
        ] {
            assert!(is_server(good), "{good}");
        }
        for bad in [
            "",
            "nats://",
            "10.0.0.5:4222",
            "nats://me:hunter2@host",
            "nats://token@host",
            "http://host",
            "nats://host:port",
            "nats://a,nats://b",
        ] {
            assert!(!is_server(bad), "{bad}");
        }
    }
}
