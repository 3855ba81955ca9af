//! A connection to a dependency that still reads after its peer has stopped reading.
//!
//! A server may refuse an upload by its head: it answers and closes, while the request's body is
//! still on its way. The write then fails, but the answer has arrived. So a failed write ends only
//! the sending, and the reader finds out whether there is an answer.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::time::Instant;

use super::answer_fault::FirstBytes;
use super::connect_failure::ConnectFailure;
use crate::config::MAX_CONNECTION_AGE;
use crate::sidecar::gateway::observed_socket::{ObservedSocket, SocketObserver};

/// Number of bytes that one read brings while the head of a response is missing.
const MAX_HEAD_READ: usize = 16 * 1024;
/// Least and most time within which the end of an idle connection meets a request on its way to it.
const REUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// Events of a connection, shared with the code that sends the requests.
#[derive(Debug)]
pub(crate) struct SocketHistory {
    /// The moment at which it was made.
    made: Instant,
    /// Time within which its end meets a request on its way to it.
    reuse: Duration,
    /// By HTTP/2: when the peer has last sent something, in nanoseconds since it was made.
    heard: AtomicU64,
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
    /// The refusal of a server after the handshake.
    refusal: OnceLock<ConnectFailure>,
}

impl SocketHistory {
    /// Begins the history of a connection. `connecting`: the time that making it took.
    pub(super) fn new(connecting: Duration) -> Self {
        let (least, most) = REUSE;
        Self {
            made: Instant::now(),
            // A connection takes a round trip at least, and so does the news of its end.
            reuse: (2 * connecting).clamp(least, most),
            heard: AtomicU64::default(),
            write_failed: AtomicBool::default(),
            first: OnceLock::default(),
            has_answered: AtomicBool::default(),
            has_answered_last: AtomicBool::default(),
            awaits_head: AtomicBool::default(),
            given_up: AtomicU32::default(),
            refusal: OnceLock::default(),
        }
    }

    /// Returns true if the connection is kept no more. A name that has moved to another server is looked
    /// up with the next connection, however steady the traffic is.
    pub(super) fn is_old(&self) -> bool {
        self.made.elapsed() >= MAX_CONNECTION_AGE
    }

    /// Returns true if the peer has stopped to accept bytes.
    pub(crate) fn write_failed(&self) -> bool {
        self.write_failed.load(Ordering::Acquire)
    }

    /// Returns the protocol of the first bytes of the peer.
    pub(super) fn first_bytes(&self) -> FirstBytes {
        self.first.get().copied().unwrap_or(FirstBytes::None)
    }

    /// Returns the refusal of a server that wanted another certificate, and has processed no request. By
    /// TLS 1.3 it comes when the connection stands already for this end.
    pub(super) fn refusal(&self) -> Option<ConnectFailure> {
        self.refusal.get().copied()
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

    /// Returns true if the server has closed an idle connection at the moment of its reuse. A server
    /// that has worked on the request before is the failure of the dependency. `began`: the moment at
    /// which the attempt began.
    pub(super) fn closed_on_reuse(&self, began: Instant) -> bool {
        let is_idle = if self.first_bytes() == FirstBytes::Http2 {
            // Other streams write too, so the last write says nothing of this request.
            let heard = Duration::from_nanos(self.heard.load(Ordering::Acquire));
            self.made + heard < began
        } else {
            self.has_answered.load(Ordering::Acquire)
                && !self.has_answered_last.load(Ordering::Acquire)
        };
        is_idle && began.elapsed() <= self.reuse
    }
}

/// A connection with its history.
pub(crate) type UpstreamSocket = ObservedSocket<Arc<SocketHistory>>;

impl SocketObserver for Arc<SocketHistory> {
    fn received(&self, bytes: &[u8]) {
        if !self.has_answered.load(Ordering::Acquire) {
            let _ = self.first.set(FirstBytes::of(bytes));
        }
        if self.first_bytes() == FirstBytes::Http2 {
            let heard = u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.heard.store(heard, Ordering::Release);
        }
        self.has_answered.store(true, Ordering::Release);
        self.has_answered_last.store(true, Ordering::Release);
        if self.given_up.load(Ordering::Relaxed) > 0 {
            self.given_up.store(0, Ordering::Release);
        }
    }

    fn read_failed(&self, error: &io::Error) {
        if self.has_answered.load(Ordering::Acquire) {
            return;
        }
        // EDGE-8: the alert says what the errors of the connection do not pass on.
        if let Some(refusal) = ConnectFailure::of_late_refusal(error) {
            let _ = self.refusal.set(refusal);
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

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// A connection by HTTP/2 that took so long to make, and on which an answer has come.
    fn idle(connecting: Duration) -> Arc<SocketHistory> {
        let history = Arc::new(SocketHistory::new(connecting));
        history.received(&[0, 0, 0, 4, 0]);
        history
    }

    #[tokio::test(start_paused = true)]
    async fn edge_1_the_news_of_an_end_may_take_two_round_trips() {
        for (connecting, within) in [(1, 250), (200, 400), (5000, 1000)] {
            let history = idle(Duration::from_millis(connecting));
            advance(Duration::from_secs(2)).await;
            let began = Instant::now();
            advance(Duration::from_millis(within)).await;
            assert!(history.closed_on_reuse(began), "{connecting} ms");
            advance(Duration::from_millis(1)).await;
            assert!(!history.closed_on_reuse(began), "{connecting} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn edge_1_a_connection_that_has_brought_something_since_was_not_idle() {
        let history = idle(Duration::ZERO);
        advance(Duration::from_secs(2)).await;
        let began = Instant::now();
        advance(Duration::from_millis(1)).await;
        assert!(history.closed_on_reuse(began));
        history.received(&[0; 9]);
        assert!(!history.closed_on_reuse(began));
        // On a new one nothing has come before.
        let new = SocketHistory::new(Duration::ZERO);
        assert!(!new.closed_on_reuse(Instant::now()));
    }

    #[tokio::test]
    async fn edge_8_e9a_a_server_that_demands_a_certificate_has_said_so_before_any_answer() {
        let alert = || {
            let alert = rustls::AlertDescription::CertificateRequired;
            io::Error::new(
                io::ErrorKind::InvalidData,
                rustls::Error::AlertReceived(alert),
            )
        };
        let history = Arc::new(SocketHistory::new(Duration::ZERO));
        history.read_failed(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(history.refusal(), None);
        history.read_failed(&alert());
        assert_eq!(history.refusal(), Some(ConnectFailure::CertificateDemanded));
        let answered = idle(Duration::ZERO);
        answered.read_failed(&alert());
        assert_eq!(answered.refusal(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_for_a_minute_at_most() {
        let history = idle(Duration::ZERO);
        advance(MAX_CONNECTION_AGE - Duration::from_millis(1)).await;
        assert!(!history.is_old());
        advance(Duration::from_millis(1)).await;
        assert!(history.is_old());
    }
}
