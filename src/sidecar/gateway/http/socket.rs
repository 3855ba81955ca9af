//! A connection to a dependency that still reads after its peer has stopped reading.
//!
//! A server may refuse an upload by its head: it answers and closes, while the request's body is
//! still on its way. The write then fails, but the answer has arrived. So a failed write ends only
//! the sending, and the reader finds out whether there is an answer.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};

use hyper_util::client::legacy::connect::{Connected, Connection};

use super::answer_fault::FirstBytes;
use crate::sidecar::gateway::observed_socket::{ObservedSocket, SocketObserver};

/// Number of bytes that one read brings while the head of a response is missing.
const MAX_HEAD_READ: usize = 16 * 1024;

/// Events of a connection, shared with the code that sends the requests.
#[derive(Debug, Default)]
pub(crate) struct SocketHistory {
    /// True if the peer accepts no more bytes.
    write_failed: AtomicBool,
    /// The protocol of the first bytes of the peer.
    first: OnceLock<FirstBytes>,
    /// True if the peer has ever sent something.
    has_answered: AtomicBool,
    /// True if the peer has sent something since the last write.
    has_answered_last: AtomicBool,
    /// True if the head of a response may be missing.
    awaits_head: AtomicBool,
    /// Number of requests that were given up since the peer has sent something.
    given_up: AtomicU32,
}

impl SocketHistory {
    /// Returns true if the peer has stopped to accept bytes.
    pub(crate) fn write_failed(&self) -> bool {
        self.write_failed.load(Ordering::Acquire)
    }

    /// Returns the protocol of the first bytes of the peer.
    pub(super) fn first_bytes(&self) -> FirstBytes {
        self.first.get().copied().unwrap_or(FirstBytes::None)
    }

    /// Returns the protocol of the bytes that the peer has sent for the last request.
    pub(super) fn answer_bytes(&self) -> FirstBytes {
        if self.has_answered_last.load(Ordering::Acquire) {
            self.first_bytes()
        } else {
            FirstBytes::None
        }
    }

    /// Notes that a request is given up. Returns the number of those since the peer has sent something.
    pub(super) fn gave_up(&self) -> u32 {
        self.given_up.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Notes that the head of a response has come.
    pub(super) fn head_came(&self) {
        self.awaits_head.store(false, Ordering::Release);
    }

    /// Returns true if the connection had served earlier requests, and has brought nothing for the
    /// last one.
    pub(crate) fn closed_on_reuse(&self) -> bool {
        self.has_answered.load(Ordering::Acquire) && !self.has_answered_last.load(Ordering::Acquire)
    }
}

/// A connection with its history.
pub(crate) type UpstreamSocket = ObservedSocket<Arc<SocketHistory>>;

impl SocketObserver for Arc<SocketHistory> {
    fn received(&self, bytes: &[u8]) {
        if !self.has_answered.load(Ordering::Acquire) {
            let _ = self.first.set(FirstBytes::of(bytes));
        }
        self.has_answered.store(true, Ordering::Release);
        self.has_answered_last.store(true, Ordering::Release);
        if self.given_up.load(Ordering::Relaxed) > 0 {
            self.given_up.store(0, Ordering::Release);
        }
    }

    fn max_read(&self) -> usize {
        // EDGE-4: interim responses are skipped as long as bytes are there. A flood of them must let
        // the thread's other callers have their turn, and the limits of its own call hold.
        if self.awaits_head.load(Ordering::Acquire) {
            MAX_HEAD_READ
        } else {
            usize::MAX
        }
    }

    fn is_mute(&self) -> bool {
        self.write_failed()
    }

    /// Passes the number of written bytes on; all of them if the peer accepts none any more.
    fn written(&self, written: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        let written = ready!(written);
        if written.is_ok() {
            self.has_answered_last.store(false, Ordering::Release);
            self.awaits_head.store(true, Ordering::Release);
            return Poll::Ready(written);
        }
        self.write_failed.store(true, Ordering::Release);
        Poll::Ready(Ok(length))
    }

    fn flushed(&self, flushed: io::Result<()>) -> io::Result<()> {
        if flushed.is_err() {
            self.write_failed.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Told to hyper's pool: it returns the history with each error of the connection.
#[derive(Debug, Clone)]
pub(crate) struct SocketMark(pub(crate) Arc<SocketHistory>);

impl Connection for UpstreamSocket {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(SocketMark(Arc::clone(self.observer())));
        if self.stream().is_http2() {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}
