//! The section `admin`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::gateway::GatewayConfig;
use super::secret::Secret;
use super::section::Section;
use super::value_type::{address, path, secret_text, string};

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
    /// Host names under which the admin side can be requested, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// File in which the orders of operators outlive the process; `None` for no file.
    pub state: Option<PathBuf>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 7071)),
            token: None,
            hosts: Vec::new(),
            state: None,
        }
    }
}

/// Reads `admin`, which cannot share the gateway's address.
pub(super) fn read(mut section: Section<'_>, gateway: &GatewayConfig) -> AdminConfig {
    let default = AdminConfig::default();
    // Programs and browsers send a header in ASCII only.
    let is_token = |token: &str| {
        token.len() >= 16
            && token
                .chars()
                .all(|one| one.is_ascii_graphic() || one == ' ')
    };
    let token = secret_text("a text of at least 16 letters, all of ASCII", is_token);
    let is_name = |name: &str| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-".contains(letter);
        !name.is_empty() && name.len() <= 253 && name.chars().all(plain)
    };
    let hosts = string("a host name without a port", is_name).list();
    let path = path("the path of a file", |path| !path.is_empty());
    let settings = AdminConfig {
        bind: section.get_or("bind", &address(), default.bind),
        token: section.get_if_set("token", &token).map(Secret::new),
        hosts: section.get_if_set("hosts", &hosts).unwrap_or_default(),
        state: section.get_if_set("state", &path).map(PathBuf::from),
    };
    if settings.token.is_none() && !section.is_bad("token") && !settings.bind.ip().is_loopback() {
        let reason = "other machines can reach it, and there is no token";
        let allowed = "a loopback address, or to set admin.token too";
        section.conflict("bind", reason, allowed);
    }
    if settings.state.is_some() && settings.token.is_none() && !section.is_bad("token") {
        let text = "without admin.token there are no orders that it could keep";
        section.warn("state", text.to_owned());
    }
    if is_same_listener(gateway.bind, settings.bind) {
        let reason = "the gateway listens there already";
        section.conflict("bind", reason, "an address other than gateway.bind");
    }
    section.finish();
    settings
}

/// Returns true if a second listener could not be opened: an address stands for all of its machine.
fn is_same_listener(one: SocketAddr, other: SocketAddr) -> bool {
    if one.port() != other.port() || one.port() == 0 {
        return false;
    }
    let covers = |all: IpAddr, ip: IpAddr| match all {
        IpAddr::V4(_) => all.is_unspecified() && ip.is_ipv4(),
        // It takes the addresses of version 4 too.
        IpAddr::V6(_) => all.is_unspecified(),
    };
    let (one, other) = (one.ip(), other.ip());
    one == other || covers(one, other) || covers(other, one)
}
