//! Connections to one HTTP dependency: the version of HTTP, the name of its host, and the proxy in
//! front of it.

use std::time::Duration;

use super::kind::DependencyKind;
use super::masking;
use super::secret::Secret;
use super::section::Section;
use super::url::{is_http_url, unix_socket};
use super::value_type::{one_of, string};

/// Maximum age of a connection to a dependency that serves a new call.
pub(crate) const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);

/// Version of HTTP that the requests to a dependency are sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HttpVersion {
    /// As agreed in the TLS handshake; without TLS, HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS, with prior knowledge.
    Http2,
}

/// Way of the connections to a dependency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ProxyChoice {
    /// Directly, unless the environment's variables name a proxy.
    #[default]
    Environment,
    /// Directly.
    Direct,
    /// Through the HTTP proxy at this address, which may contain a user and a password.
    Through(Secret),
}

/// Connections to one HTTP dependency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UpstreamConfig {
    /// Version of HTTP.
    pub http_version: HttpVersion,
    /// Host that the requests name, with a port if needed, in place of that of the address.
    pub host: Option<String>,
    /// Proxy in front of the dependency.
    pub proxy: ProxyChoice,
}

const VERSIONS: [(&str, HttpVersion); 3] = [
    ("auto", HttpVersion::Auto),
    ("1.1", HttpVersion::Http1),
    ("2", HttpVersion::Http2),
];

/// Allowed addresses of proxies.
const PROXY: &str = "an address such as \"http://user:password@proxy:3128\", without a path";

/// Reads the keys. `url`: the address of the dependency.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
    url: Option<&str>,
) -> UpstreamConfig {
    let host = string("a host name or an address, with a port if needed", is_host);
    let proxy = string(PROXY, is_proxy_url).or_off();
    let proxy = proxy.shown_by(masking::show).with_secret();
    let given = (
        section.get("http_version", &one_of(&VERSIONS)),
        section.get_if_set("host", &host),
        section.get_if_set("proxy", &proxy),
    );
    if !kind.is_some_and(DependencyKind::is_http) {
        for key in ["http_version", "host", "proxy"] {
            if section.has(key) {
                let reason = "it applies to kind = \"http\" and \"model\"";
                section.conflict(key, reason, "to leave it out");
            }
        }
        return UpstreamConfig::default();
    }
    if matches!(given.2, Some(Some(_))) && url.is_some_and(|url| unix_socket(url).is_some()) {
        let text = "it has no effect: a socket of this machine is not reached through a proxy";
        section.warn("proxy", text.to_owned());
    }
    UpstreamConfig {
        http_version: section.default_to(
            "http_version",
            &one_of(&VERSIONS),
            given.0,
            HttpVersion::Auto,
        ),
        host: given.1,
        proxy: match given.2 {
            None => ProxyChoice::Environment,
            Some(None) => ProxyChoice::Direct,
            Some(Some(url)) => ProxyChoice::Through(Secret::new(url)),
        },
    }
}

fn is_host(text: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-~:[]".contains(letter);
    text.len() <= 260 && text.chars().all(is_plain) && is_http_url(&format!("http://{text}"))
}

/// Returns true for the address of an HTTP proxy, perhaps with a user and a password.
pub(super) fn is_proxy_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    let is_user = |letter: char| letter.is_ascii_graphic() && !"/?#@\"<>\\^`{|}".contains(letter);
    user.chars().all(is_user) && !host.contains('/') && is_http_url(&format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_5_addresses_of_proxies_are_checked() {
        for good in [
            "http://proxy:3128",
            "https://proxy/",
            "http://user:p%40ss@10.0.0.1:8080",
            "http://user@[::1]:1",
        ] {
            assert!(is_proxy_url(good), "{good}");
        }
        for bad in [
            "proxy:3128",
            "socks5://proxy",
            "http://",
            "http://user:pass@",
            "http://proxy/path",
            "http://a/b@proxy",
            "http://proxy:99999",
            "http://proxy?x",
        ] {
            assert!(!is_proxy_url(bad), "{bad}");
        }
    }
}
