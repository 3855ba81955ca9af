//! A connection to a dependency that still reads after its peer has stopped reading.
//!
//! A server may refuse an upload by its head: it answers and closes, while the request's body is
//! still on its way. The write then fails, but the answer has arrived. So a failed write ends only
//! the sending, and the reader finds out whether there is an answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The transport below.
type Transport = TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// Events of a connection, shared with the code that sends the requests.
#[derive(Debug, Default)]
pub(crate) struct SocketHistory {
    /// True if the peer accepts no more bytes.
    write_failed: AtomicBool,
    /// True if the peer has ever sent something.
    has_answered: AtomicBool,
    /// True if the peer has sent something since the last write.
    has_answered_last: AtomicBool,
}

impl SocketHistory {
    /// Returns true if the peer has stopped to accept bytes.
    pub(crate) fn write_failed(&self) -> bool {
        self.write_failed.load(Ordering::Acquire)
    }

    /// Returns true if the connection had served earlier requests, and has brought nothing for the
    /// last one.
    pub(crate) fn closed_on_reuse(&self) -> bool {
        self.has_answered.load(Ordering::Acquire) && !self.has_answered_last.load(Ordering::Acquire)
    }
}

/// A connection with its history.
pub(crate) struct UpstreamSocket {
    transport: Transport,
    history: Arc<SocketHistory>,
}

impl UpstreamSocket {
    pub(crate) fn new(transport: MaybeHttpsStream<TokioIo<TcpStream>>) -> Self {
        Self {
            transport: TokioIo::new(transport),
            history: Arc::default(),
        }
    }

    pub(crate) fn history(&self) -> Arc<SocketHistory> {
        Arc::clone(&self.history)
    }

    /// Passes the number of written bytes on; all of them if the peer accepts none any more.
    fn written(&self, written: io::Result<usize>, length: usize) -> io::Result<usize> {
        match written {
            Ok(written) => {
                self.history
                    .has_answered_last
                    .store(false, Ordering::Release);
                Ok(written)
            }
            Err(_) => {
                self.history.write_failed.store(true, Ordering::Release);
                Ok(length)
            }
        }
    }
}

impl AsyncRead for UpstreamSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = ready!(Pin::new(&mut self.transport).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.history.has_answered.store(true, Ordering::Release);
            self.history
                .has_answered_last
                .store(true, Ordering::Release);
        }
        Poll::Ready(polled)
    }
}

impl AsyncWrite for UpstreamSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.history.write_failed() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.transport).poll_write(cx, bytes));
        Poll::Ready(self.written(written, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.history.write_failed() {
            return Poll::Ready(Ok(length));
        }
        let written = ready!(Pin::new(&mut self.transport).poll_write_vectored(cx, slices));
        Poll::Ready(self.written(written, length))
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.history.write_failed() {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut self.transport).poll_flush(cx));
        if flushed.is_err() {
            self.history.write_failed.store(true, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.history.write_failed() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// Told to hyper's pool: it returns the history with each error of the connection.
#[derive(Debug, Clone)]
pub(crate) struct SocketMark(pub(crate) Arc<SocketHistory>);

impl Connection for UpstreamSocket {
    fn connected(&self) -> Connected {
        self.transport
            .inner()
            .connected()
            .extra(SocketMark(self.history()))
    }
}
