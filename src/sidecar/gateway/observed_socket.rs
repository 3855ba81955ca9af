//! A connection with an observer of its bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket_stream::SocketStream;

/// An observer of a connection. It may change the results of what it sees.
pub(crate) trait SocketObserver: Unpin {
    /// Notes bytes that have come.
    fn received(&self, bytes: &[u8]);

    /// Notes that a read has failed.
    fn read_failed(&self, error: &io::Error) {
        let _ = error;
    }

    /// Returns the number of bytes that one read may bring.
    fn max_read(&self) -> usize {
        usize::MAX
    }

    /// Returns true if nothing is sent any more: all writing succeeds, without effect.
    fn is_mute(&self) -> bool {
        false
    }

    /// Notes the result of a write of `length` bytes, and returns what the writer is told.
    fn written(&self, written: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>>;

    /// Notes the result of a flush, and returns what the writer is told.
    fn flushed(&self, flushed: io::Result<()>) -> io::Result<()> {
        flushed
    }

    /// Sends the end of the stream.
    fn poll_shutdown(
        &self,
        stream: Pin<&mut SocketStream>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        stream.poll_shutdown(cx)
    }
}

/// A connection with its observer.
pub(crate) struct ObservedSocket<O> {
    stream: SocketStream,
    observer: O,
    /// Bytes that were read before, to be read again.
    before: Bytes,
}

impl<O> ObservedSocket<O> {
    pub(super) fn new(stream: SocketStream, observer: O) -> Self {
        Self {
            stream,
            observer,
            before: Bytes::new(),
        }
    }

    /// Puts bytes back that were read.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.before = bytes;
    }

    pub(super) fn stream(&self) -> &SocketStream {
        &self.stream
    }

    pub(super) fn observer(&self) -> &O {
        &self.observer
    }
}

impl<O: SocketObserver> AsyncRead for ObservedSocket<O> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let length = self.before.len().min(buffer.remaining());
            buffer.put_slice(&self.before.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let most = self.observer.max_read();
        let polled = if most < buffer.remaining() {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
            let polled = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part));
            let length = part.filled().len();
            buffer.advance(length);
            polled
        } else {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))
        };
        if buffer.filled().len() > before {
            self.observer.received(&buffer.filled()[before..]);
        }
        Poll::Ready(polled.inspect_err(|error| self.observer.read_failed(error)))
    }
}

impl<O: SocketObserver> AsyncWrite for ObservedSocket<O> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.observer.is_mute() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.observer.written(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.observer.is_mute() {
            return Poll::Ready(Ok(length));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.observer.written(written, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.observer.is_mute() {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.observer.flushed(flushed))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.observer.is_mute() {
            return Poll::Ready(Ok(()));
        }
        this.observer.poll_shutdown(Pin::new(&mut this.stream), cx)
    }
}
