//! A tunnel to a dependency through an HTTP proxy, by CONNECT.
//!
//! It is hyper's client that reads the proxy's answer: hyper-util's tunnel does not tell the status
//! of a refusal.

use std::io;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;

use super::connect_failure::{ProxyError, ProxyRefusal};
use crate::sidecar::gateway::socket_stream::SocketStream;

/// Asks the proxy at the other end of a connection for a tunnel to a server.
///
/// # Errors  The proxy refuses ([`ProxyRefusal`]), or gives no answer ([`ProxyError`]).
/// # Source  RFC 9110, section 9.3.6.
pub(super) async fn open_tunnel(
    proxy: SocketStream,
    server: &Uri,
    credentials: Option<&HeaderValue>,
) -> io::Result<SocketStream> {
    let failed = |error: hyper::Error| io::Error::other(ProxyError(io::Error::other(error)));
    let target = server.authority().map_or("", |server| server.as_str());
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::try_from(target).map_err(io::Error::other)?;
    let host = HeaderValue::try_from(target).map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, host);
    if let Some(credentials) = credentials {
        let headers = request.headers_mut();
        headers.insert(PROXY_AUTHORIZATION, credentials.clone());
    }
    let (mut sender, work) = handshake(TokioIo::new(proxy)).await.map_err(failed)?;
    // It ends once the answer is here, and passes the connection on.
    tokio::spawn(async move { drop(work.with_upgrades().await) });
    let response = sender.send_request(request).await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(io::Error::other(ProxyRefusal(response.status())));
    }
    let tunnel = hyper::upgrade::on(response).await.map_err(failed)?;
    Ok(SocketStream::Tunnel(Box::new(TokioIo::new(tunnel))))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::connect_failure::ConnectFailure;
    use super::*;

    #[tokio::test]
    async fn edge_8_e9a_a_proxy_that_gives_no_answer_is_told_by_what_it_gave() {
        for (given, words) in [
            ("", "the proxy: connection closed at once"),
            ("HTTP/1.1 200", "the proxy: connection closed at once"),
            ("SSH-2.0\r\n\r\n", "the proxy: not HTTP"),
            ("HTTP/1.1 502 No\r\n\r\n", "the proxy refused: 502"),
        ] {
            let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = proxy.local_addr().unwrap();
            let answering = tokio::spawn(async move {
                let (mut stream, _) = proxy.accept().await.unwrap();
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                stream.write_all(given.as_bytes()).await.unwrap();
            });
            let stream = SocketStream::Tcp(TcpStream::connect(address).await.unwrap());
            let server = Uri::from_static("https://server.test");
            let error = open_tunnel(stream, &server, None).await.err().unwrap();
            assert_eq!(ConnectFailure::of(&error).words(), words, "{given:?}");
            answering.await.unwrap();
        }
    }
}
