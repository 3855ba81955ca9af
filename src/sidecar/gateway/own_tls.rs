//! TLS of the gateway's own listener.
//!
//! The certificates can be exchanged while it listens: connections keep those that they began with.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::socket_stream::{H2, HTTP1, SocketStream};
use crate::config::GatewayTls;
use crate::tls;

/// First byte of a TLS handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Marks the requests of a connection over TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct OverTls;

/// The present certificates of a listener, if it speaks TLS.
#[derive(Default)]
pub(super) struct ListenerTls(ArcSwapOption<ServerConfig>);

/// A connection as it begins.
pub(super) enum OpenedConnection {
    /// It speaks as it should.
    Usual(SocketStream),
    /// It speaks without TLS where TLS is spoken.
    Unencrypted(SocketStream),
}

impl ListenerTls {
    /// Reads the files, and uses them for later connections.
    ///
    /// # Errors  A file cannot be read or used; the present certificates stay.
    pub(super) fn renew(&self, config: Option<&GatewayTls>) -> Result<(), String> {
        self.0.store(match config {
            None => None,
            Some(config) => Some(Arc::new(read(config)?)),
        });
        Ok(())
    }

    /// Shakes hands on an accepted connection, if TLS is spoken. `None`: nothing comes of it.
    pub(super) async fn open(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Option<OpenedConnection> {
        let Some(config) = self.0.load_full() else {
            return Some(OpenedConnection::Usual(SocketStream::Tcp(stream)));
        };
        // On the heap: connections without TLS reserve no room for it.
        let shaking = Box::pin(shake_hands(stream, config));
        // EDGE-4: a caller that does not finish its handshake keeps no place.
        match tokio::time::timeout(limit, shaking).await {
            Ok(opened) => opened,
            Err(_) => {
                tracing::debug!("a caller did not finish its TLS handshake in time");
                None
            }
        }
    }
}

/// Reads the files of a listener.
///
/// # Errors  A file cannot be read, or does not hold what it should.
pub(super) fn read(config: &GatewayTls) -> Result<ServerConfig, String> {
    let (cert, key) = (&config.cert, &config.key);
    let mut read = tls::server_of(cert, key, config.client_ca.as_deref())?;
    read.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    Ok(read)
}

async fn shake_hands(stream: TcpStream, config: Arc<ServerConfig>) -> Option<OpenedConnection> {
    let mut first = [0];
    // A caller that has gone needs no answer.
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    if first[0] != HANDSHAKE {
        let is_text = first[0].is_ascii_graphic() || first[0].is_ascii_whitespace();
        return is_text.then_some(OpenedConnection::Unencrypted(SocketStream::Tcp(stream)));
    }
    let accepted = TlsAcceptor::from(config).accept(SocketStream::Tcp(stream));
    match accepted.await {
        Ok(stream) => {
            let stream = SocketStream::Tls(Box::new(stream.into()));
            Some(OpenedConnection::Usual(stream))
        }
        Err(error) => {
            tracing::debug!(%error, "the TLS handshake of a caller failed");
            None
        }
    }
}
