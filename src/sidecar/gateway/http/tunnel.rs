//! The bytes of a connection that has changed its protocol, both ways, under the breaker of its
//! dependency.
//!
//! To the runtime it is a stream like any other: each movement of bytes is an item. The bytes
//! themselves are neither read nor kept.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy, split};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::response_stream::ResponseStream;
use crate::Streamed;
use crate::sidecar::gateway::access_log::AccessEntry;
use crate::sidecar::gateway::caller_limits::CallerPlace;
use crate::sidecar::gateway::message::HttpFailure;
use crate::sidecar::gateway::trace::RequestSpan;

/// Difference between the limit of a silent tunnel and `timeout.idle` of its stream. The first one
/// must expire first: silence of both sides is no failure of the dependency.
const AHEAD: Duration = Duration::from_millis(10);

/// A caller's connection.
pub(in crate::sidecar::gateway) trait CallerSocket:
    AsyncRead + AsyncWrite + Unpin
{
}

impl<T: AsyncRead + AsyncWrite + Unpin> CallerSocket for T {}

type BoxedSocket = Box<dyn CallerSocket>;

/// Events of a tunnel, shared between its two ends.
#[derive(Default)]
struct TunnelEvents {
    /// True if bytes have moved since the last look.
    has_moved: Cell<bool>,
    /// True if the caller's connection has failed.
    caller_failed: Cell<bool>,
    /// True if the caller has left without an end.
    caller_left: Cell<bool>,
    /// The caller's connection, after an orderly end.
    after: RefCell<Option<BoxedSocket>>,
}

/// The end of a tunnel.
enum TunnelEnd {
    /// The dependency has closed the connection.
    Closed,
    /// The caller's connection broke.
    CallerLeft,
    /// The dependency's connection broke.
    Broken,
}

/// The dependency's side of a tunnel. Each item stands for bytes that have moved.
pub(super) struct TunnelStream {
    work: Pin<Box<dyn Future<Output = TunnelEnd>>>,
    events: Rc<TunnelEvents>,
    /// Takes the caller's connection, once the caller has got the head of the response.
    caller: Cell<Option<oneshot::Sender<BoxedSocket>>>,
}

impl TunnelStream {
    pub(super) fn new(upgrade: OnUpgrade) -> Self {
        let (caller, arriving) = oneshot::channel();
        let events = Rc::<TunnelEvents>::default();
        Self {
            work: Box::pin(carry(upgrade, arriving, Rc::clone(&events))),
            events,
            caller: Cell::new(Some(caller)),
        }
    }

    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(), HttpFailure>>> {
        match self.work.as_mut().poll(cx) {
            Poll::Pending if self.events.has_moved.take() => Poll::Ready(Some(Ok(()))),
            Poll::Pending => Poll::Pending,
            Poll::Ready(end) => {
                self.work = Box::pin(std::future::pending());
                Poll::Ready(match end {
                    TunnelEnd::Closed => None,
                    TunnelEnd::CallerLeft => {
                        self.events.caller_left.set(true);
                        Some(Ok(()))
                    }
                    TunnelEnd::Broken => Some(Err(HttpFailure::Reset)),
                })
            }
        }
    }
}

/// Carries bytes both ways until the dependency closes the connection, or one of them breaks.
async fn carry(
    upgrade: OnUpgrade,
    caller: oneshot::Receiver<BoxedSocket>,
    events: Rc<TunnelEvents>,
) -> TunnelEnd {
    let Ok(caller) = caller.await else {
        return TunnelEnd::CallerLeft;
    };
    let Ok(upgraded) = upgrade.await else {
        return TunnelEnd::Broken;
    };
    let watched = |io, is_caller| WatchedIo {
        io,
        events: Rc::clone(&events),
        is_caller,
    };
    let dependency: BoxedSocket = Box::new(TokioIo::new(upgraded));
    let (mut from_dependency, mut to_dependency) = split(watched(dependency, false));
    let (mut from_caller, mut to_caller) = split(watched(caller, true));
    let end = {
        let upwards = async {
            let copied = copy(&mut from_caller, &mut to_dependency).await;
            if copied.is_ok() {
                // The dependency may still answer after the caller's end.
                let _ = to_dependency.shutdown().await;
                std::future::pending::<()>().await;
            }
        };
        let downwards = copy(&mut from_dependency, &mut to_caller);
        let broken = || match events.caller_failed.get() {
            true => TunnelEnd::CallerLeft,
            false => TunnelEnd::Broken,
        };
        tokio::select! {
            biased;
            copied = downwards => copied.map_or_else(|_| broken(), |_| TunnelEnd::Closed),
            () = upwards => broken(),
        }
    };
    if matches!(end, TunnelEnd::Closed) {
        *events.after.borrow_mut() = Some(from_caller.unsplit(to_caller).io);
    }
    end
}

/// One side of a tunnel, with its events.
struct WatchedIo {
    io: BoxedSocket,
    events: Rc<TunnelEvents>,
    is_caller: bool,
}

impl WatchedIo {
    fn note<T>(&self, polled: &Poll<io::Result<T>>, has_moved: bool) {
        match polled {
            Poll::Ready(Err(_)) if self.is_caller => self.events.caller_failed.set(true),
            Poll::Ready(Ok(_)) if has_moved => self.events.has_moved.set(true),
            _ => {}
        }
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.note(&polled, buffer.filled().len() > before);
        polled
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(&polled, true);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.note(&polled, false);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The caller's side of a tunnel: it goes on when the caller has got the head of the response.
/// Dropped before its end, it is counted as cancelled by the caller.
pub(crate) struct CallerTunnel {
    stream: Streamed<ResponseStream>,
    caller: oneshot::Sender<BoxedSocket>,
    events: Rc<TunnelEvents>,
    idle: Option<Duration>,
    /// The request's span, which ends with the tunnel.
    pub(super) span: Option<RequestSpan>,
    /// The caller's place, given back with the tunnel.
    pub(super) place: Option<CallerPlace>,
    /// The request's line in the access log, written with the end of the tunnel.
    pub(super) access: Option<AccessEntry>,
}

/// A response that changes the protocol, or any other.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are streams, and a box for each would cost them more"
)]
pub(in crate::sidecar::gateway) enum TunnelOrStream {
    Tunnel(Box<CallerTunnel>),
    Stream(Streamed<ResponseStream>),
}

impl CallerTunnel {
    /// Returns the tunnel of a response that changes the protocol, else the response. `idle`: the
    /// maximum silence of both sides.
    pub(in crate::sidecar::gateway) fn of(
        stream: Streamed<ResponseStream>,
        idle: Option<Duration>,
    ) -> TunnelOrStream {
        let tunnel = stream.get_ref().and_then(ResponseStream::tunnel);
        let parts = tunnel.and_then(|tunnel| {
            let caller = tunnel.caller.take()?;
            Some((caller, Rc::clone(&tunnel.events)))
        });
        let Some((caller, events)) = parts else {
            return TunnelOrStream::Stream(stream);
        };
        TunnelOrStream::Tunnel(Box::new(Self {
            // Its length says nothing about the dependency: the attempt was to open it.
            stream: stream.long_lived(),
            caller,
            events,
            idle,
            span: None,
            place: None,
            access: None,
        }))
    }

    /// Carries bytes until one side ends, or both are silent for too long.
    pub(in crate::sidecar::gateway) async fn run(
        self: Box<Self>,
        socket: impl CallerSocket + 'static,
    ) {
        let Self {
            mut stream,
            caller,
            events,
            idle,
            span: _span,
            // EDGE-4: the bytes of a tunnel are the caller's call, as those of an answer are.
            place: _place,
            access: _access,
        } = *self;
        if caller.send(Box::new(socket)).is_err() {
            return;
        }
        let silence = || idle.map(|idle| Instant::now() + idle.saturating_sub(AHEAD));
        let far = || Instant::now() + Duration::from_secs(86_400);
        let mut alarm = pin!(sleep_until(silence().unwrap_or_else(far)));
        loop {
            tokio::select! {
                biased;
                moved = stream.next() => match moved {
                    Some(Ok(_)) if !events.caller_left.get() => {
                        alarm.as_mut().reset(silence().unwrap_or_else(far));
                    }
                    None => break,
                    Some(_) => return,
                },
                () = &mut alarm => match idle {
                    Some(_) => return,
                    None => alarm.as_mut().reset(far()),
                },
            }
        }
        let after = events.after.take();
        if let Some(mut socket) = after {
            // A caller that has left takes no end.
            let _ = socket.shutdown().await;
        }
    }
}
