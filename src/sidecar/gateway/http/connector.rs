//! The making of connections to an HTTP dependency.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use http::uri::Scheme;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use tower_service::Service;

use super::address::{ServerEndpoint, TlsClient, UpstreamAddress, UpstreamProxy};
use super::connect_failure::{LookupError, ProxyError};
use super::proxy_tunnel::open_tunnel;
use super::socket::{SocketHistory, UpstreamSocket};
use crate::sidecar::gateway::socket_stream::{HTTP1, SocketStream};

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
    let addresses = in_turns(addresses.map_err(io::Error::other)?);
    let stream = first_of(addresses, limit, TcpStream::connect).await?;
    // Requests are only faster with it.
    let _ = stream.set_nodelay(true);
    limit_unsent(&stream);
    Ok(SocketStream::Tcp(stream))
}

/// Returns the addresses of a server, in the order of the system.
async fn look_up(uri: &Uri) -> io::Result<Vec<SocketAddr>> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_https = uri.scheme() == Some(&Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

/// Lets the addresses of both versions of IP take turns, beginning with the first one.
///
/// # Source  RFC 8305, section 4.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_first_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let of_first = |address: &SocketAddr| address.is_ipv6() == is_first_v6;
    let (mut first, mut others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(of_first);
    let mut turns = Vec::with_capacity(first.len() + others.len());
    let pairs = first.len().min(others.len());
    for (one, other) in first.drain(..pairs).zip(others.drain(..pairs)) {
        turns.extend([one, other]);
    }
    turns.extend(first.into_iter().chain(others));
    turns
}

/// Time for which an address may be silent until the next one is tried beside it.
///
/// # Source  RFC 8305, section 5.
const SILENCE: Duration = Duration::from_millis(250);

/// Connects to the first address that answers. `limit`: of the whole.
async fn first_of<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    limit: Option<Duration>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    // EDGE-3: a silent address leaves time for the next, however many there are, also without a limit.
    let share = limit.and_then(|limit| limit.checked_div(count));
    let silence = share.map_or(SILENCE, |share| share.min(SILENCE));
    let mut next = addresses.into_iter();
    let mut connecting = FuturesUnordered::new();
    // The first error is the most telling one.
    let mut first = None;
    loop {
        connecting.extend(next.next().map(&connect));
        tokio::select! {
            biased;
            ended = connecting.next() => match ended {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    first.get_or_insert(error);
                }
                None => {
                    let none = || io::ErrorKind::AddrNotAvailable.into();
                    return Err(first.unwrap_or_else(none));
                }
            },
            () = sleep(silence), if next.len() > 0 => {}
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        let of = |port: &u16| SocketAddr::from(([127, 0, 0, 1], *port));
        ports.iter().map(of).collect()
    }

    /// Port 1 is silent, port 2 refuses, the others answer after so many milliseconds.
    async fn dial(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            1 => std::future::pending().await,
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            port => {
                sleep(Duration::from_millis(port.into())).await;
                Ok(port)
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn edge_3_e12a_a_silent_address_holds_the_next_up_for_a_moment_only() {
        let long = Duration::from_secs(60);
        for (ports, limit, found, millis) in [
            (&[1, 10][..], None, 10, 260),
            (&[1, 10], Some(long), 10, 260),
            (&[1, 1, 1, 10], Some(Duration::from_millis(400)), 10, 310),
            (&[2, 10], None, 10, 10),
            // It is slow, and not silent.
            (&[300, 1], None, 300, 300),
            (&[300, 100], None, 300, 300),
        ] {
            let began = Instant::now();
            let connected = first_of(addresses(ports), limit, dial).await;
            assert_eq!(connected.unwrap(), found, "{ports:?}");
            assert_eq!(began.elapsed(), Duration::from_millis(millis), "{ports:?}");
        }
        let refused = first_of(addresses(&[2, 2]), None, dial).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(first_of(Vec::new(), None, dial).await.is_err());
    }

    #[test]
    fn edge_3_e12a_the_versions_of_ip_take_turns() {
        let parse = |text: &str| {
            let all = text.split(' ').map(|one| one.parse().unwrap());
            all.collect::<Vec<SocketAddr>>()
        };
        let all = parse("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1 1.1.1.2:1");
        let turns = parse("[::1]:1 1.1.1.1:1 [::2]:1 1.1.1.2:1 [::3]:1");
        assert_eq!(in_turns(all), turns);
        assert!(in_turns(Vec::new()).is_empty());
    }
}
