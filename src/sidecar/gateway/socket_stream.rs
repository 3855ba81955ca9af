//! A connection as bytes: a TCP or a Unix domain socket, TLS over another one, or a tunnel through a
//! proxy.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::TlsStream;

/// Protocol name of HTTP/2 in a TLS handshake.
pub(super) const H2: &[u8] = b"h2";
/// Protocol name of HTTP/1.1 in a TLS handshake.
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// A connection as bytes.
pub(crate) enum SocketStream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Tls(Box<TlsStream<SocketStream>>),
    Tunnel(Box<TokioIo<Upgraded>>),
}

impl SocketStream {
    /// Returns true if both ends have agreed on HTTP/2 in a TLS handshake.
    pub(super) fn is_http2(&self) -> bool {
        match self {
            Self::Tls(tls) => tls.get_ref().1.alpn_protocol() == Some(H2),
            _ => false,
        }
    }
}

/// Calls a method of the connection inside.
macro_rules! inside {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            SocketStream::Tcp($inner) => $call,
            #[cfg(unix)]
            SocketStream::Unix($inner) => $call,
            SocketStream::Tls($inner) => $call,
            SocketStream::Tunnel($inner) => $call,
        }
    };
}

impl AsyncRead for SocketStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        inside!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        inside!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inside!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        inside!(self, inner => inner.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inside!(self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inside!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }
}
