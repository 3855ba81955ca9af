//! Connections over TCP to a server with one address or several. A silent address holds the others up
//! for a moment only.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use http::uri::Scheme;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tower_service::Service;

/// Makes the connections of an HTTP client.
#[derive(Debug, Clone)]
pub(crate) struct TcpConnector {
    limit: Option<Duration>,
}

impl TcpConnector {
    /// Creates a connector. `limit`: of a name's lookup and of all its addresses together.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self { limit }
    }

    async fn connect(self, server: Uri) -> io::Result<TokioIo<TcpStream>> {
        let connecting = async {
            let stream = connect_first(look_up(&server).await?, self.limit).await?;
            // Requests are only faster with it.
            let _ = stream.set_nodelay(true);
            Ok(TokioIo::new(stream))
        };
        let late = |_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "connecting timed out",
            ))
        };
        match self.limit {
            None => connecting.await,
            Some(limit) => timeout(limit, connecting).await.unwrap_or_else(late),
        }
    }
}

type ConnectFuture = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

impl Service<Uri> for TcpConnector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> ConnectFuture {
        Box::pin(self.clone().connect(server))
    }
}

/// Connects to the first address that answers. `limit`: of the whole.
pub(crate) async fn connect_first(
    addresses: Vec<SocketAddr>,
    limit: Option<Duration>,
) -> io::Result<TcpStream> {
    first_of(in_turns(addresses), limit, TcpStream::connect).await
}

/// Returns the addresses of a server, in the order of the system.
pub(crate) async fn look_up(uri: &Uri) -> io::Result<Vec<SocketAddr>> {
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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

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
