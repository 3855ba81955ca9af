//! Warnings about settings that open a door: keys that others can use or read, and addresses that lead
//! back (rule EDGE-7).
//!
//! All of them are usable: nothing here is a problem.

use std::net::{IpAddr, SocketAddr};

use super::caller_auth::AuthChoice;
use super::credential_names::holds_credentials;
use super::dependency::DependencyConfig;
use super::masking::{MASK, is_sensitive};
use super::problem::Warning;
use super::section::{LoadReport, Section};
use super::source::LayerRank;
use super::url::place;
use super::{Secret, Settings};

/// Warns about the whole configuration, once all of it was read. `root`: the table of everything.
pub(super) fn check(settings: &Settings, root: &Section<'_>) {
    check_open_gateway(settings, root);
    check_shared_token(settings, root);
    for (name, config) in &settings.dependencies {
        let key = format!("dependencies.{name}.url");
        let Some(url) = config.url.as_deref() else {
            continue;
        };
        if let Some(host) = plain_host(url)
            && has_key(config)
            && !is_near(&host)
        {
            let text = "a key of ours is sent to it without TLS, and can be read on the way: \
                        use https://";
            root.warn(&key, text.to_owned());
        }
        for (what, bind) in [
            ("the gateway", settings.gateway.bind),
            ("the admin side", settings.admin.bind),
        ] {
            if leads_to(url, bind) {
                let text = format!("it is {what} of this Breakerbox, so calls would lead back");
                root.warn(&key, text);
            }
        }
    }
}

/// Warns of a gateway that lends keys of ours to every machine that can reach it.
fn check_open_gateway(settings: &Settings, root: &Section<'_>) {
    let gateway = &settings.gateway;
    let asks_certificates = gateway
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca.is_some());
    if gateway.bind.ip().to_canonical().is_loopback() || asks_certificates {
        return;
    }
    let is_open = |config: &DependencyConfig| config.auth.is_open(gateway.auth.is_some());
    let mut all = settings.dependencies.iter();
    if let Some((name, _)) = all.find(|(_, config)| is_open(config) && has_key(config)) {
        let text = format!(
            "other machines can reach it without credentials, and calls of {name} are made with a \
             key of ours: see gateway.auth"
        );
        root.warn("gateway.bind", text);
    }
}

/// Warns of one token for callers and for operators.
fn check_shared_token(settings: &Settings, root: &Section<'_>) {
    let Some(token) = &settings.admin.token else {
        return;
    };
    let of_gateway = settings.gateway.auth.iter();
    let of_dependencies = settings
        .dependencies
        .values()
        .filter_map(|one| match &one.auth {
            AuthChoice::Own(auth) => Some(&**auth),
            _ => None,
        });
    let mut all = of_gateway.chain(of_dependencies);
    if all.any(|auth| auth.tokens.contains(token)) {
        let text = "it is a token of callers too, so each of them can open and close breakers: give \
                    operators one of their own";
        root.warn("admin.token", text.to_owned());
    }
}

/// Returns true if calls are made with a key of ours.
fn has_key(config: &DependencyConfig) -> bool {
    let of_model = config.model.as_ref().and_then(|model| model.key.as_ref());
    let headers = config.mcp.as_ref().map(|mcp| &mcp.headers);
    let variables = config.mcp.as_ref().map(|mcp| &mcp.env);
    let has_header = |name: &String| super::credential_names::is_credential_name(name);
    of_model.is_some_and(|key: &Secret| !key.expose().is_empty())
        || headers.is_some_and(|headers| headers.keys().any(has_header))
        || variables.is_some_and(|all| all.keys().any(|name| is_sensitive(name)))
        || holds_credentials(config.url.as_deref(), &config.outbound, config.tls.as_ref())
}

/// Returns the host of an address without TLS.
fn plain_host(url: &str) -> Option<String> {
    let (scheme, host, _) = place(url)?;
    (scheme == "http").then(|| bare(host).to_ascii_lowercase())
}

/// Returns a host without the brackets of IPv6.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// Returns true for hosts of this machine or of a network of one's own.
fn is_near(host: &str) -> bool {
    const OWN: [&str; 8] = [
        ".localhost",
        ".local",
        ".internal",
        ".lan",
        ".svc",
        ".home.arpa",
        ".test",
        ".intranet",
    ];
    if let Ok(ip) = host.parse::<IpAddr>() {
        return match ip.to_canonical() {
            IpAddr::V4(ip) => {
                ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()
            }
            IpAddr::V6(ip) => {
                ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
            }
        };
    }
    let host = host.trim_end_matches('.');
    // A name without a dot is one of the own network, such as a service of compose.
    !host.contains('.') || host.contains(".svc.") || OWN.iter().any(|own| host.ends_with(own))
}

/// Returns true if an address leads to one that is listened on here.
fn leads_to(url: &str, bind: SocketAddr) -> bool {
    let Some((scheme, host, port)) = place(url) else {
        return false;
    };
    let usual = if scheme == "https" { 443 } else { 80 };
    let port = port.and_then(|port| port.parse().ok()).unwrap_or(usual);
    if bind.port() == 0 || port != bind.port() {
        return false;
    }
    let host = bare(host);
    let ip = host.parse::<IpAddr>().ok();
    let is_here =
        host == "localhost" || ip.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
    let is_all = bind.ip().is_unspecified() || bind.ip().is_loopback();
    is_here && is_all || ip == Some(bind.ip())
}

/// Warns of each file with secrets that other users can read.
#[cfg(unix)]
pub(super) fn check_files(report: &LoadReport) -> Vec<Warning> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let mut warnings: Vec<Warning> = Vec::new();
    for (key, (shown, origin)) in &report.given {
        let file = match origin.rank {
            LayerRank::DefaultFile | LayerRank::EnvironmentFile => origin.place.rsplit_once(':'),
            LayerRank::DotEnv => origin.place.rsplit_once(": "),
            _ => None,
        };
        let Some((file, _)) = file.filter(|_| shown == MASK && is_secret(key)) else {
            continue;
        };
        let Ok(found) = std::fs::metadata(file) else {
            continue;
        };
        let mode = found.permissions().mode() & 0o777;
        // A group of the owner alone, which has the owner's number, is the owner.
        let by_group = mode & 0o040 != 0 && found.gid() != found.uid();
        let is_told = warnings.iter().any(|one| one.origin.starts_with(file));
        if (mode & 0o004 != 0 || by_group) && !is_told {
            warnings.push(Warning {
                key: key.clone(),
                text: format!(
                    "others than the owner of the file can read this secret, its mode is {mode:03o}: \
                     600 is enough"
                ),
                origin: origin.place.clone(),
            });
        }
    }
    warnings
}

/// Other systems have no mode of this kind.
#[cfg(not(unix))]
pub(super) fn check_files(_: &LoadReport) -> Vec<Warning> {
    Vec::new()
}

/// Returns true if a masked value is a secret: tables of headers and variables hold others too.
#[cfg_attr(
    not(unix),
    expect(dead_code, reason = "only files of Unix have a mode")
)]
fn is_secret(key: &str) -> bool {
    match key
        .split_once(".headers.")
        .or_else(|| key.split_once(".env."))
    {
        Some((_, name)) => is_sensitive(name),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_7_hosts_of_ones_own_are_told_from_others() {
        for near in [
            "localhost",
            "10.0.0.7",
            "::1",
            "search",
            "a.svc.cluster.local",
            "fd00::1",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in ["api.example.com", "8.8.8.8", "2606:4700::1111"] {
            assert!(!is_near(far), "{far}");
        }
    }

    #[test]
    fn edge_7_an_address_that_leads_back_is_known() {
        let bind = |text: &str| text.parse().unwrap();
        assert!(leads_to("http://localhost:7070/x", bind("127.0.0.1:7070")));
        assert!(leads_to("http://10.0.0.2:7070", bind("10.0.0.2:7070")));
        assert!(leads_to("http://[::1]", bind("[::]:80")));
        assert!(!leads_to("http://10.0.0.3:7070", bind("10.0.0.2:7070")));
        assert!(!leads_to("http://localhost:7072", bind("127.0.0.1:7070")));
    }
}
