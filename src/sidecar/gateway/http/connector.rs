//! The address of an HTTP dependency, and the making of connections to it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use breakerbox_policy::TimeoutSettings;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tower_service::Service;

use super::connect_failure::LookupError;
use super::outbound::OutboundHeaders;
use super::socket::UpstreamSocket;
use crate::config::UpstreamTls;
use crate::tls;

/// The address of a dependency.
#[derive(Debug)]
pub(crate) struct UpstreamAddress {
    scheme: Scheme,
    authority: Authority,
    /// URI of the server; `host` is the same as a header.
    pub(super) uri: Uri,
    pub(super) host: HeaderValue,
    /// Prefix of every path, without a slash at its end.
    prefix: String,
    pub(super) tls: Option<ClientConfig>,
    /// Name in its certificate, if it is not the host.
    server_name: Option<ServerName<'static>>,
    /// Limit for connecting, in nanoseconds; 0 for no limit.
    connect: AtomicU64,
    /// Time for which an idle connection is kept, in nanoseconds.
    keep: AtomicU64,
    /// Changes to the headers of its requests.
    pub(crate) outbound: ArcSwap<OutboundHeaders>,
}

impl UpstreamAddress {
    /// Parses an address that the configuration has checked.
    pub(crate) fn new(url: &str, own: Option<&UpstreamTls>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.ok_or("it has no scheme")?;
        let authority = parts.authority.ok_or("it has no host")?;
        let path = parts.path_and_query;
        let path = path.as_ref().map_or("", PathAndQuery::path);
        let uri = Uri::builder()
            .scheme(scheme.clone())
            .authority(authority.clone())
            .path_and_query("/");
        let uri = uri.build().map_err(|error| error.to_string())?;
        let host = match authority.port_u16() {
            None | Some(80) => HeaderValue::from_str(authority.host()),
            Some(port) => HeaderValue::try_from(format!("{}:{port}", authority.host())),
        };
        let host = host.map_err(|error| error.to_string())?;
        let tls = if scheme == Scheme::HTTPS {
            Some(match own {
                Some(own) => tls::client_of(
                    own.ca.as_deref(),
                    own.cert.as_deref().zip(own.key.as_deref()),
                )?,
                None => tls::client()?,
            })
        } else {
            None
        };
        let server_name = own.and_then(|own| own.server_name.clone());
        let server_name = server_name.map(ServerName::try_from).transpose();
        Ok(Self {
            server_name: server_name.map_err(|_| "tls.server_name is no name of a server")?,
            scheme,
            authority,
            uri,
            host,
            prefix: path.trim_end_matches('/').to_owned(),
            tls,
            connect: AtomicU64::new(0),
            keep: AtomicU64::new(0),
            outbound: ArcSwap::default(),
        })
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

    fn connect(&self) -> Option<Duration> {
        let nanos = self.connect.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Returns the time for which an idle connection is kept.
    pub(super) fn keep(&self) -> Duration {
        Duration::from_nanos(self.keep.load(Ordering::Relaxed))
    }

    /// Returns the path to request, in origin form.
    pub(super) fn path(&self, target: &str) -> Result<Uri, http::Error> {
        if self.prefix.is_empty() {
            return Ok(Uri::try_from(target)?);
        }
        Ok(Uri::try_from(format!("{}{target}", self.prefix))?)
    }

    /// Returns the full URI, with scheme and authority.
    pub(super) fn whole(&self, target: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{target}", self.prefix))
            .build()
    }
}

/// Makes connections: name lookup, TCP and TLS within one limit.
#[derive(Clone)]
pub(crate) struct UpstreamConnector {
    address: Arc<UpstreamAddress>,
    tcp: HttpConnector<NameLookup>,
    /// True if HTTP/2 is not offered.
    is_http1_only: bool,
}

impl UpstreamConnector {
    /// Creates a connector to an address.
    pub(crate) fn new(address: Arc<UpstreamAddress>) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(NameLookup(GaiResolver::new()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self {
            address,
            tcp,
            is_http1_only: false,
        }
    }

    /// Offers no HTTP/2: its connections cannot change their protocol.
    pub(super) fn only_http1(mut self) -> Self {
        self.is_http1_only = true;
        self
    }

    async fn connect(self, uri: Uri) -> io::Result<UpstreamStream> {
        let mut tcp = self.tcp;
        let limit = self.address.connect();
        // EDGE-3: several addresses of a name share the limit, so that a silent one leaves time for
        // the next.
        tcp.set_connect_timeout(limit);
        let connecting = async {
            let Some(tls) = &self.address.tls else {
                let stream = tcp.call(uri).await.map_err(io::Error::other)?;
                return Ok(MaybeHttpsStream::Http(stream));
            };
            let builder = HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_only();
            let builder = match &self.address.server_name {
                Some(name) => {
                    builder.with_server_name_resolver(FixedServerNameResolver::new(name.clone()))
                }
                None => builder,
            };
            let mut tls = match self.is_http1_only {
                true => builder.enable_http1().wrap_connector(tcp),
                false => builder.enable_all_versions().wrap_connector(tcp),
            };
            tls.call(uri).await.map_err(io::Error::other)
        };
        let stream = match limit {
            None => connecting.await,
            Some(limit) => tokio::time::timeout(limit, connecting)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        let stream = stream?;
        let socket = match &stream {
            MaybeHttpsStream::Http(tcp) => tcp.inner(),
            MaybeHttpsStream::Https(tls) => tls.inner().get_ref().0.inner().inner(),
        };
        limit_unsent(socket);
        Ok(TokioIo::new(UpstreamSocket::new(stream)))
    }
}

/// Maximum number of bytes that the system takes before it sends them.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 128 * 1024;

/// Lets a body be accepted only as fast as it is sent, so that the end of its writing is the end of
/// its sending.
fn limit_unsent(socket: &TcpStream) {
    // EDGE-1: the wait for an answer begins when the request has been sent. It is only more exact
    // with this limit.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(MAX_UNSENT);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

pub(crate) type UpstreamStream = TokioIo<UpstreamSocket>;
pub(crate) type ConnectFuture = Pin<Box<dyn Future<Output = io::Result<UpstreamStream>> + Send>>;

impl Service<Uri> for UpstreamConnector {
    type Response = UpstreamStream;
    type Error = io::Error;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> ConnectFuture {
        Box::pin(self.clone().connect(uri))
    }
}

/// The system's name lookup, with an error type of its own.
#[derive(Debug, Clone)]
struct NameLookup(GaiResolver);

impl Service<Name> for NameLookup {
    type Response = GaiAddrs;
    type Error = LookupError;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, LookupError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        self.0.poll_ready(cx).map_err(LookupError)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move { found.await.map_err(LookupError) })
    }
}
