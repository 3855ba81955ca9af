//! The connections of the admin side: their number, and the one that gives way to a new one.
//!
//! A connection is busy from the head of a request until its response is written, and idle
//! otherwise. Idle ones give way to new ones, so that they cannot lock out probes and scrapes.
//! Nothing here closes a busy connection, unless its client does not read and none is idle.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_io_timeout::TimeoutStream;

use crate::lock::LockExt as _;

/// Number of connections above the limit, while others give way or all of them are busy.
const RESERVE: usize = 16;

/// Time without progress of a write after which a connection gives way as an idle one does.
const STALLED: Duration = Duration::from_secs(1);

/// All connections of a server.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    limit: usize,
    state: Mutex<TableState>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct TableState {
    /// Number of connections without those of event streams, which have a limit of their own.
    counted: usize,
    /// Number of connections that were told to give way.
    leaving: usize,
    next: u64,
    phases: HashMap<u64, (ConnectionPhase, Arc<Notify>)>,
    /// Idle connections in the order in which they became idle.
    idle: BTreeMap<u64, u64>,
    /// Busy connections with a blocked write, in the order in which it was blocked.
    blocked: BTreeMap<u64, (u64, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionPhase {
    /// Without a request so far; the number is its key in `idle`.
    Fresh(u64),
    /// Without a request in flight; the number is its key in `idle`.
    Idle(u64),
    /// Told to give way. It declines if a request arrives first.
    Leaving,
    Busy,
    /// Busy, and the client does not read; the number is its key in `blocked`.
    Blocked(u64),
    /// Busy with an event stream.
    Streaming,
}

impl TableState {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn phase(&self, id: u64) -> Option<ConnectionPhase> {
        self.phases.get(&id).map(|(phase, _)| *phase)
    }

    /// Moves a connection from its phase to another.
    fn enter(&mut self, id: u64, phase: ConnectionPhase) {
        let Some((current, _)) = self.phases.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(current, phase);
        self.forget(before);
        match phase {
            ConnectionPhase::Fresh(since) | ConnectionPhase::Idle(since) => {
                self.idle.insert(since, id);
            }
            ConnectionPhase::Blocked(since) => {
                self.blocked.insert(since, (id, Instant::now()));
            }
            ConnectionPhase::Leaving => self.leaving += 1,
            ConnectionPhase::Streaming => return,
            ConnectionPhase::Busy => {}
        }
        self.counted += 1;
    }

    /// Removes a connection in this phase from the counts.
    fn forget(&mut self, phase: ConnectionPhase) {
        match phase {
            ConnectionPhase::Fresh(since) | ConnectionPhase::Idle(since) => {
                self.idle.remove(&since);
            }
            ConnectionPhase::Blocked(since) => {
                self.blocked.remove(&since);
            }
            ConnectionPhase::Leaving => self.leaving -= 1,
            ConnectionPhase::Streaming => return,
            ConnectionPhase::Busy => {}
        }
        self.counted -= 1;
    }

    /// Tells the connection that has been idle longest to give way. Returns false if there is none.
    fn displace(&mut self) -> bool {
        let longest = self.idle.first_key_value().map(|(_, &id)| id);
        if let Some(id) = longest {
            self.tell(id);
        }
        longest.is_some()
    }

    /// Tells the connection with the longest blocked write to give way. Returns false if no write is
    /// blocked for so long.
    fn displace_stalled(&mut self) -> bool {
        let longest = self.blocked.first_key_value();
        let longest = longest.filter(|(_, (_, since))| since.elapsed() >= STALLED);
        let longest = longest.map(|(_, &(id, _))| id);
        if let Some(id) = longest {
            self.tell(id);
        }
        longest.is_some()
    }

    fn tell(&mut self, id: u64) {
        self.enter(id, ConnectionPhase::Leaving);
        if let Some((_, leave)) = self.phases.get(&id) {
            leave.notify_one();
        }
    }

    /// Displaces as many connections as exceed the limit together with one newcomer: idle ones, then
    /// those of clients that do not read.
    fn make_room(&mut self, limit: usize) {
        // EDGE-4: all of them at once, or each newcomer would wait for those before it.
        while self.counted + 1 > limit + self.leaving
            && (self.displace() || self.displace_stalled())
        {}
    }

    /// Displaces as many idle connections as exceed the limit. Fresh ones give way to newcomers
    /// only: the first request of a new client may be on its way.
    fn settle(&mut self, limit: usize) {
        while self.counted > limit + self.leaving {
            let used = |id: &u64| matches!(self.phase(*id), Some(ConnectionPhase::Idle(_)));
            let Some(id) = self.idle.values().copied().find(used) else {
                return;
            };
            self.tell(id);
        }
    }
}

impl ConnectionTable {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Adds a connection, which displaces the longest idle one above the limit. Waits only while
    /// the limit and the reserve are taken.
    pub(super) async fn admit(self: &Arc<Self>) -> Arc<AdminConnection> {
        loop {
            if let Some(connection) = self.try_admit() {
                return connection;
            }
            // Without a notice, another write may have become stalled.
            let _ = timeout(STALLED, self.freed.notified()).await;
        }
    }

    fn try_admit(self: &Arc<Self>) -> Option<Arc<AdminConnection>> {
        let mut state = self.state.acquire();
        // EDGE-4: idle connections of some clients leave room for probes and operators.
        state.make_room(self.limit);
        if state.counted >= self.limit + RESERVE {
            return None;
        }
        let (id, since) = (state.number(), state.number());
        let leave = Arc::new(Notify::new());
        let phase = ConnectionPhase::Fresh(since);
        state.phases.insert(id, (phase, Arc::clone(&leave)));
        state.idle.insert(since, id);
        state.counted += 1;
        Some(Arc::new(AdminConnection {
            id,
            leave,
            is_written: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            table: Arc::clone(self),
        }))
    }

    /// Displaces the longest idle connection, for example because file descriptors are used up.
    pub(super) fn shed(&self) {
        self.state.acquire().displace();
    }
}

/// One connection, counted until dropped.
#[derive(Debug)]
pub(super) struct AdminConnection {
    id: u64,
    leave: Arc<Notify>,
    /// True if the response is complete, but perhaps not yet handed to the system.
    is_written: AtomicBool,
    /// True if the system takes no more of the response for now.
    is_blocked: AtomicBool,
    table: Arc<ConnectionTable>,
}

impl AdminConnection {
    /// Begins a request. The connection is busy until the response is written.
    pub(super) fn begin(self: &Arc<Self>) -> BusyGuard {
        self.is_written.store(false, Ordering::Relaxed);
        let mut state = self.table.state.acquire();
        // EDGE-4: one more request of a client that does not read makes it no other one.
        if !self.is_blocked.load(Ordering::Relaxed) {
            state.enter(self.id, ConnectionPhase::Busy);
        }
        state.settle(self.table.limit);
        BusyGuard(Arc::clone(self))
    }

    fn streams(&self) {
        let mut state = self.table.state.acquire();
        state.enter(self.id, ConnectionPhase::Streaming);
        self.table.freed.notify_one();
    }

    /// Makes the connection idle if its response is complete: all of it was handed to the system.
    fn flushed(&self) {
        if self.is_written.swap(false, Ordering::Relaxed) {
            let mut state = self.table.state.acquire();
            let since = state.number();
            state.enter(self.id, ConnectionPhase::Idle(since));
            state.settle(self.table.limit);
        }
    }

    /// Records the result of a write.
    fn written<T>(&self, written: Poll<T>) -> Poll<T> {
        let is_blocked = written.is_pending();
        if self.is_blocked.swap(is_blocked, Ordering::Relaxed) != is_blocked {
            let mut state = self.table.state.acquire();
            let streams = state.phase(self.id) == Some(ConnectionPhase::Streaming);
            let phase = match is_blocked {
                _ if streams => ConnectionPhase::Streaming,
                true => ConnectionPhase::Blocked(state.number()),
                false => ConnectionPhase::Busy,
            };
            state.enter(self.id, phase);
        }
        written
    }

    /// Waits until the connection is to give way.
    pub(super) async fn displaced(&self) {
        self.leave.notified().await;
    }

    /// Returns true if the connection still has to give way: there was no progress since.
    pub(super) fn gives_way(&self) -> bool {
        let state = self.table.state.acquire();
        state.phase(self.id) == Some(ConnectionPhase::Leaving)
    }
}

impl Drop for AdminConnection {
    fn drop(&mut self) {
        let mut state = self.table.state.acquire();
        if let Some((phase, _)) = state.phases.remove(&self.id) {
            state.forget(phase);
        }
        self.table.freed.notify_one();
    }
}

/// A request in flight. Its connection is idle once it is dropped and its socket is flushed.
#[derive(Debug)]
pub(super) struct BusyGuard(Arc<AdminConnection>);

impl BusyGuard {
    /// Counts the connection as one of an event stream, which has a limit of its own.
    pub(super) fn streams(&self) {
        self.0.streams();
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.is_written.store(true, Ordering::Relaxed);
    }
}

/// A response body that keeps its connection busy.
#[derive(Debug)]
pub(super) struct BusyBody {
    body: Body,
    _busy: BusyGuard,
}

impl BusyBody {
    pub(super) fn new(body: Body, busy: BusyGuard) -> Self {
        Self { body, _busy: busy }
    }
}

impl HttpBody for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's socket that reports when it has taken a whole response.
pub(super) struct FlushedSocket {
    socket: Pin<Box<TimeoutStream<TcpStream>>>,
    connection: Arc<AdminConnection>,
}

impl FlushedSocket {
    pub(super) fn new(socket: TimeoutStream<TcpStream>, connection: Arc<AdminConnection>) -> Self {
        Self {
            socket: Box::pin(socket),
            connection,
        }
    }
}

impl AsyncRead for FlushedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for FlushedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket.as_mut().poll_write(cx, bytes);
        self.connection.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket.as_mut().poll_write_vectored(cx, slices);
        self.connection.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Ready only when hyper has written its whole buffer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.as_mut().poll_flush(cx))?;
        self.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn edge_4_e6e_all_that_do_not_read_give_way_at_once() {
        const LIMIT: usize = 4;
        let table = ConnectionTable::new(LIMIT);
        let mut stalled = Vec::new();
        for _ in 0..LIMIT + RESERVE {
            let connection = table.try_admit().unwrap();
            let first = connection.begin();
            let _ = connection.written(Poll::<()>::Pending);
            drop(first);
            // Its next request has arrived already.
            let next = connection.begin();
            stalled.push((connection, next));
        }
        assert!(table.try_admit().is_none());
        tokio::time::advance(STALLED).await;
        assert!(table.try_admit().is_none());
        stalled.retain(|(connection, _)| !connection.gives_way());
        // The newcomer has a place within the limit, and the reserve is free.
        assert_eq!(stalled.len(), LIMIT - 1);
        let newcomer = table.try_admit().unwrap();
        assert!(table.try_admit().is_some());
        drop(newcomer);
    }

    #[tokio::test(start_paused = true)]
    async fn edge_4_e6e_one_that_reads_again_stays() {
        let table = ConnectionTable::new(1);
        let connection = table.try_admit().unwrap();
        let _busy = connection.begin();
        let _ = connection.written(Poll::<()>::Pending);
        tokio::time::advance(STALLED).await;
        let newcomer = table.try_admit();
        assert!(connection.gives_way() && newcomer.is_some());
        let _ = connection.written(Poll::Ready(()));
        assert!(!connection.gives_way());
    }
}
