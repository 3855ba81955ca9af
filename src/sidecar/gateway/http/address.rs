//! The address of an HTTP dependency: where its server is reached, and how requests name it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use breakerbox_policy::TimeoutSettings;
use http::header::{CONTENT_LOCATION, LOCATION};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::outbound::OutboundHeaders;
use crate::config::{HttpVersion, ProxyChoice, UpstreamConfig, UpstreamTls, unix_socket};
use crate::sidecar::gateway::socket_stream::{H2, HTTP1};
use crate::tls;

/// The address of a dependency.
pub(crate) struct UpstreamAddress {
    scheme: Scheme,
    /// Host as requests name it; `host` is the same as a header.
    authority: Authority,
    pub(super) host: HeaderValue,
    /// Prefix of every path, without a slash at its end.
    prefix: String,
    pub(super) endpoint: ServerEndpoint,
    pub(super) tls: Option<TlsClient>,
    pub(super) proxy: Option<UpstreamProxy>,
    /// True if every request is sent by HTTP/2.
    pub(super) is_http2: bool,
    /// Limit for connecting, in nanoseconds; 0 for no limit.
    connect: AtomicU64,
    /// Time for which an idle connection is kept, in nanoseconds.
    keep: AtomicU64,
    /// Path of the gateway that leads here, without a slash at its end; empty without a gateway.
    own_path: String,
    /// Changes to the headers of its requests.
    pub(crate) outbound: ArcSwap<OutboundHeaders>,
}

/// The end of a connection to a dependency.
pub(super) enum ServerEndpoint {
    /// A host, with its port.
    Tcp(Uri),
    /// The path of a Unix domain socket.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there are no such sockets"))]
    Unix(PathBuf),
}

/// TLS of connections to one server.
pub(super) struct TlsClient {
    pub(super) connector: TlsConnector,
    /// Name in the server's certificate.
    pub(super) name: ServerName<'static>,
}

impl TlsClient {
    fn new(mut config: ClientConfig, host: &str, protocols: &[&[u8]]) -> Result<Self, String> {
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned());
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: name.map_err(|_| format!("{host} is no name of a server with TLS"))?,
        })
    }
}

/// An HTTP proxy in front of a dependency.
pub(super) struct UpstreamProxy {
    pub(super) uri: Uri,
    /// `Proxy-Authorization`, if its address has a user.
    pub(super) credentials: Option<HeaderValue>,
    pub(super) tls: Option<TlsClient>,
}

impl UpstreamProxy {
    fn new(url: &str) -> Result<Self, String> {
        let any = Uri::from_static("http://a/");
        let proxy = Matcher::builder().all(url).build().intercept(&any);
        let proxy = proxy.ok_or("its proxy is no address such as http://proxy:3128")?;
        let uri = proxy.uri().clone();
        let tls = if uri.scheme() == Some(&Scheme::HTTPS) {
            let host = uri.host().unwrap_or_default();
            Some(TlsClient::new(tls::client()?, host, &[HTTP1])?)
        } else {
            None
        };
        Ok(Self {
            credentials: proxy.basic_auth().cloned(),
            uri,
            tls,
        })
    }
}

impl UpstreamAddress {
    /// Parses an address that the configuration has checked.
    pub(crate) fn new(
        url: &str,
        own: Option<&UpstreamTls>,
        upstream: &UpstreamConfig,
    ) -> Result<Self, String> {
        let socket = unix_socket(url);
        let uri = match socket {
            Some((_, prefix)) => format!("http://localhost{prefix}").parse(),
            None => url.parse::<Uri>(),
        };
        let parts = uri.map_err(|error| error.to_string())?.into_parts();
        let scheme = parts.scheme.ok_or("it has no scheme")?;
        let server = parts.authority.ok_or("it has no host")?;
        let prefix = parts.path_and_query;
        let prefix = prefix.as_ref().map_or("", PathAndQuery::path);
        let endpoint = match socket {
            Some((path, _)) => ServerEndpoint::Unix(PathBuf::from(path)),
            None => ServerEndpoint::Tcp(with_port(&scheme, &server)?),
        };
        let tls = if scheme == Scheme::HTTPS {
            Some(tls_of(server.host(), own, upstream.http_version)?)
        } else {
            None
        };
        let proxy = match (&upstream.proxy, &endpoint) {
            (ProxyChoice::Through(url), ServerEndpoint::Tcp(_)) => {
                Some(UpstreamProxy::new(url.expose())?)
            }
            _ => None,
        };
        let authority = match &upstream.host {
            Some(host) => host
                .parse()
                .map_err(|_| "its host is no name of a server")?,
            None => server,
        };
        let host = match authority.port_u16() {
            None | Some(80) => HeaderValue::from_str(authority.host()),
            Some(port) => HeaderValue::try_from(format!("{}:{port}", authority.host())),
        };
        Ok(Self {
            scheme,
            authority,
            host: host.map_err(|error| error.to_string())?,
            prefix: prefix.trim_end_matches('/').to_owned(),
            endpoint,
            tls,
            proxy,
            is_http2: upstream.http_version == HttpVersion::Http2,
            connect: AtomicU64::new(0),
            keep: AtomicU64::new(0),
            own_path: String::new(),
            outbound: ArcSwap::default(),
        })
    }

    /// Adds the name by which the gateway's callers reach it.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.own_path = format!("/{name}");
        self
    }

    /// Makes links in the head of a response that lead to the dependency's own address lead through
    /// the gateway. A caller that followed them would pass its breaker unseen.
    ///
    /// # Source  nginx, `proxy_redirect default`.
    pub(super) fn lead_back(&self, headers: &mut HeaderMap) {
        for name in [LOCATION, CONTENT_LOCATION] {
            let link = headers.get_mut(name).filter(|_| !self.own_path.is_empty());
            let Some(link) = link else { continue };
            if let Some(Ok(own)) = self.led_back(link).map(HeaderValue::try_from) {
                *link = own;
            }
        }
    }

    /// Returns a link that begins with the dependency's own url as one that begins with the gateway's
    /// path; `None` for every other link.
    fn led_back(&self, link: &HeaderValue) -> Option<String> {
        let (scheme, rest) = link.to_str().ok()?.trim().split_once("://")?;
        let (server, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let server: Authority = server.parse().ok()?;
        let ports = |one: &Authority| one.port_u16().unwrap_or(default_port(&self.scheme));
        let is_own = scheme.eq_ignore_ascii_case(self.scheme.as_str())
            && !server.as_str().contains('@')
            && server.host().eq_ignore_ascii_case(self.authority.host())
            && ports(&server) == ports(&self.authority);
        let rest = path.strip_prefix(self.prefix.as_str()).filter(|_| is_own)?;
        match rest.bytes().next() {
            Some(b'/') => Some(format!("{}{rest}", self.own_path)),
            None | Some(b'?' | b'#') => Some(format!("{}/{rest}", self.own_path)),
            Some(_) => None,
        }
    }

    /// Applies the limits for connections.
    pub(crate) fn set_limits(&self, timeout: &TimeoutSettings) {
        let nanos = |limit: Option<Duration>| {
            let nanos = limit.map_or(0, |limit| limit.as_nanos());
            u64::try_from(nanos).unwrap_or(u64::MAX)
        };
        self.connect
            .store(nanos(timeout.connect), Ordering::Relaxed);
        self.keep.store(nanos(timeout.keep), Ordering::Relaxed);
    }

    /// Returns the limit for connecting.
    pub(super) fn connect(&self) -> Option<Duration> {
        let nanos = self.connect.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Returns the time for which an idle connection is kept.
    pub(super) fn keep(&self) -> Duration {
        Duration::from_nanos(self.keep.load(Ordering::Relaxed))
    }

    /// Returns true if connections are HTTP/1.1 without TLS, end to end or up to the proxy.
    pub(super) fn is_plain(&self) -> bool {
        self.tls.is_none() && !self.is_http2
    }

    /// Returns the proxy that reads each request, instead of passing on a connection.
    pub(super) fn reading_proxy(&self) -> Option<&UpstreamProxy> {
        self.proxy.as_ref().filter(|_| self.is_plain())
    }

    /// Returns the path to request, in origin form.
    pub(in crate::sidecar::gateway) fn path(&self, target: &str) -> Result<Uri, http::Error> {
        if self.prefix.is_empty() {
            return Ok(Uri::try_from(target)?);
        }
        Ok(Uri::try_from(format!("{}{target}", self.prefix))?)
    }

    /// Returns the full URI, with scheme and authority.
    pub(in crate::sidecar::gateway) fn whole(&self, target: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{target}", self.prefix))
            .build()
    }
}

fn default_port(scheme: &Scheme) -> u16 {
    if *scheme == Scheme::HTTPS { 443 } else { 80 }
}

/// Returns the server's URI. The port is written out, for a proxy.
fn with_port(scheme: &Scheme, server: &Authority) -> Result<Uri, String> {
    let port = server.port_u16().unwrap_or(default_port(scheme));
    let uri = Uri::builder()
        .scheme(scheme.clone())
        .authority(format!("{}:{port}", server.host()))
        .path_and_query("/");
    uri.build().map_err(|error| error.to_string())
}

fn tls_of(
    host: &str,
    own: Option<&UpstreamTls>,
    version: HttpVersion,
) -> Result<TlsClient, String> {
    let config = match own {
        Some(own) => tls::client_of(
            own.ca.as_deref(),
            own.cert.as_deref().zip(own.key.as_deref()),
        )?,
        None => tls::client()?,
    };
    let protocols: &[&[u8]] = match version {
        HttpVersion::Http1 => &[HTTP1],
        HttpVersion::Http2 => &[H2],
        _ => &[H2, HTTP1],
    };
    let name = own.and_then(|own| own.server_name.as_deref());
    TlsClient::new(config, name.unwrap_or(host), protocols)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(url: &str, link: &'static str) -> Option<String> {
        let address = UpstreamAddress::new(url, None, &UpstreamConfig::default()).unwrap();
        address
            .named("web")
            .led_back(&HeaderValue::from_static(link))
    }

    #[test]
    fn edge_3_links_to_the_own_url_lead_through_the_gateway() {
        for (url, link, led_back) in [
            ("http://a:9001", "http://a:9001/items/", Some("/web/items/")),
            (
                "http://a:9001/v1",
                "http://a:9001/v1/b?c#d",
                Some("/web/b?c#d"),
            ),
            ("http://a", "HTTP://A:80", Some("/web/")),
            ("http://a", "http://a?b", Some("/web/?b")),
            ("https://a", "https://a:443/b", Some("/web/b")),
            // Another server, another scheme, another part of it, no server at all.
            ("http://a", "http://a:81/b", None),
            ("http://a", "http://a.example/b", None),
            ("http://a", "http://me@a/b", None),
            ("http://a", "https://a/b", None),
            ("http://a/v1", "http://a/v12", None),
            ("http://a/v1", "http://a/b", None),
            ("http://a", "/b", None),
            ("http://a", "b", None),
        ] {
            assert_eq!(led(url, link).as_deref(), led_back, "{url} {link}");
        }
    }
}
