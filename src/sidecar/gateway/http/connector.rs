//! The making of connections to an HTTP dependency.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::Instant;
use tower_service::Service;

use super::address::{ServerEndpoint, TlsClient, UpstreamAddress, UpstreamProxy};
use super::connect_failure::{LookupError, ProxyError};
use super::proxy_tunnel::open_tunnel;
use super::socket::{SocketHistory, UpstreamSocket};
use crate::sidecar::gateway::socket_stream::{HTTP1, SocketStream};
use crate::tcp_connector::{connect_first, look_up};

/// Makes connections: name lookup, TCP, proxy and TLS within one limit.
#[derive(Clone)]
pub(crate) struct UpstreamConnector {
    address: Arc<UpstreamAddress>,
    /// True if HTTP/2 is not offered.
    is_http1_only: bool,
}

impl UpstreamConnector {
    /// Creates a connector to an address.
    pub(crate) fn new(address: Arc<UpstreamAddress>) -> Self {
        Self {
            address,
            is_http1_only: false,
        }
    }

    /// Offers no HTTP/2, and opens a tunnel through every proxy: other connections cannot change
    /// their protocol.
    pub(super) fn only_http1(mut self) -> Self {
        self.is_http1_only = true;
        self
    }

    /// Makes a connection.
    pub(super) async fn connect(self) -> io::Result<UpstreamStream> {
        let limit = self.address.connect();
        let began = Instant::now();
        let connecting = self.open(limit);
        let stream = match limit {
            None => connecting.await,
            Some(limit) => tokio::time::timeout(limit, connecting)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        let stream = stream?;
        let history = Arc::new(SocketHistory::new(began.elapsed()));
        Ok(TokioIo::new(UpstreamSocket::new(stream, history)))
    }

    async fn open(&self, limit: Option<Duration>) -> io::Result<SocketStream> {
        let address = &*self.address;
        let stream = match (&address.endpoint, &address.proxy) {
            #[cfg(unix)]
            (ServerEndpoint::Unix(path), _) => SocketStream::Unix(connect_socket(path).await?),
            #[cfg(not(unix))]
            (ServerEndpoint::Unix(_), _) => return Err(io::ErrorKind::Unsupported.into()),
            (ServerEndpoint::Tcp(uri), None) => open_tcp(uri, limit).await?,
            (ServerEndpoint::Tcp(uri), Some(proxy)) => {
                let reached = open_proxy(proxy, limit).await;
                // EDGE-8: the cause says that it was the proxy.
                let reached = reached.map_err(|error| io::Error::other(ProxyError(error)))?;
                if address.reading_proxy().is_some() && !self.is_http1_only {
                    reached
                } else {
                    open_tunnel(reached, uri, proxy.credentials.as_ref()).await?
                }
            }
        };
        match &address.tls {
            None => Ok(stream),
            Some(tls) if self.is_http1_only => {
                let connector = tls.connector.with_alpn(vec![HTTP1.to_vec()]);
                let stream = connector.connect(tls.name.clone(), stream).await?;
                Ok(SocketStream::Tls(Box::new(stream.into())))
            }
            Some(tls) => over_tls(tls, stream).await,
        }
    }
}

async fn open_proxy(proxy: &UpstreamProxy, limit: Option<Duration>) -> io::Result<SocketStream> {
    let stream = open_tcp(&proxy.uri, limit).await?;
    match &proxy.tls {
        None => Ok(stream),
        Some(tls) => over_tls(tls, stream).await,
    }
}

async fn open_tcp(uri: &Uri, limit: Option<Duration>) -> io::Result<SocketStream> {
    let addresses = look_up(uri).await.map_err(LookupError);
    let addresses = addresses.map_err(io::Error::other)?;
    let stream = connect_first(addresses, limit).await?;
    // Requests are only faster with it.
    let _ = stream.set_nodelay(true);
    limit_unsent(&stream);
    Ok(SocketStream::Tcp(stream))
}

async fn over_tls(tls: &TlsClient, stream: SocketStream) -> io::Result<SocketStream> {
    let stream = tls.connector.connect(tls.name.clone(), stream).await?;
    Ok(SocketStream::Tls(Box::new(stream.into())))
}

/// Connects to a Unix domain socket.
#[cfg(unix)]
async fn connect_socket(path: &std::path::Path) -> io::Result<UnixStream> {
    /// Pause before another try, while the server accepts no connection.
    const PAUSE: Duration = Duration::from_millis(5);
    loop {
        match UnixStream::connect(path).await {
            // Too many connections wait to be accepted. TCP waits then, and so does this.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(PAUSE).await;
            }
            connected => return connected,
        }
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

    /// The URI is that of a request, which may name another host than the address.
    fn call(&mut self, _: Uri) -> ConnectFuture {
        Box::pin(self.clone().connect())
    }
}
