//! One connection of a caller, HTTP/1.1 or HTTP/2, with a timer for slow callers.
//!
//! hyper's own limit for a request head also runs while a connection is idle, and hyper has no
//! limit for callers that do not read the response. The timer tells these cases apart.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, ReadBuf};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{CallerActivity, CallerLimits, GRACE, RequestActivity, TimerAction};
use super::http::body::ReplyBody;
use super::http::caller_body::CallerBody;
use super::http::tunnel::CallerTunnel;
use super::observed_socket::{ObservedSocket, SocketObserver};
use super::socket_stream::SocketStream;
use crate::config::GatewayConfig;

/// Maximum number of concurrent streams on an HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Runs HTTP/2 streams on the connection's own thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        // The stream ends with its connection: the connection's task waits for it.
        drop(spawn_local(async move { drop(future.await) }));
    }
}

/// The first bytes of a connection that speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most of a response by HTTP/2 that waits for its caller.
const SEND_BUFFER: usize = 64 * 1024;

/// hyper's settings for connections.
pub(super) struct ConnectionBuilder {
    http1: http1::Builder,
    http2: http2::Builder<LocalExecutor>,
}

/// Returns hyper's settings for connections.
pub(super) fn builder(config: &GatewayConfig) -> ConnectionBuilder {
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let head = whole(config.max_head);
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(whole(config.max_headers.get().into()))
        .max_buf_size(head);
    let mut http2 = http2::Builder::new(LocalExecutor);
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        // EDGE-4: a caller may open a window for more than it ever reads.
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX));
    ConnectionBuilder { http1, http2 }
}

/// Reports the progress of a caller's socket to the timer.
impl SocketObserver for Rc<CallerActivity> {
    fn received(&self, bytes: &[u8]) {
        let is_idle = self.in_flight.get() == 0 && !self.reading.get();
        let is_new = is_idle && !self.is_http2.get();
        if is_new {
            self.reading.set(true);
            self.since.set(Instant::now());
        }
        self.read(bytes, is_new);
    }

    fn written(&self, written: Poll<io::Result<usize>>, _: usize) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.blocked.set(None);
        } else if self.blocked.get().is_none() {
            self.blocked.set(Some(Instant::now()));
        }
        written
    }

    /// Sends the end of the stream, then reads the rest of the caller's request for up to `GRACE`.
    /// If the socket were closed before that, the caller could lose the response.
    fn poll_shutdown(
        &self,
        mut stream: Pin<&mut SocketStream>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let since = match self.said.get() {
            Some(since) => since,
            None => {
                ready!(stream.as_mut().poll_shutdown(cx))?;
                if !self.unread.get() && !self.reading.get() {
                    return Poll::Ready(Ok(()));
                }
                let now = Instant::now();
                self.said.set(Some(now));
                now
            }
        };
        let mut unread = [0; 4096];
        // The timer is not polled while a caller sends as fast as this loop reads.
        while since.elapsed() < GRACE {
            let mut buffer = ReadBuf::new(&mut unread);
            ready!(stream.as_mut().poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn limits(config: &GatewayConfig) -> CallerLimits {
    CallerLimits {
        head: config.header_timeout,
        send: config.send_timeout,
        idle: config.idle_timeout,
    }
}

/// Reads the beginning of the connection; true if it speaks HTTP/2.
async fn is_http2(socket: &mut ObservedSocket<Rc<CallerActivity>>) -> io::Result<bool> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    let is_http2 = loop {
        if read.len() == PREFACE.len() {
            break true;
        }
        let mut room = [0; PREFACE.len()];
        let room = &mut room[..PREFACE.len() - read.len()];
        let more = socket.read(room).await?;
        read.extend_from_slice(&room[..more]);
        if more == 0 || !PREFACE.starts_with(&read) {
            break false;
        }
    };
    socket.put_back(read.freeze());
    Ok(is_http2)
}

/// Mark of a request with a fragment in its target.
#[derive(Debug, Clone, Copy)]
pub(super) struct FragmentMark;

/// Returns the status with which hyper refuses a head, if it does.
fn refusal_of(error: &hyper::Error) -> Option<StatusCode> {
    let is_too_long = error.to_string().starts_with("URI too long");
    if error.is_parse_too_large() {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    } else if !error.is_parse() || error.is_parse_version_h2() {
        None
    } else if is_too_long {
        Some(StatusCode::URI_TOO_LONG)
    } else {
        Some(StatusCode::BAD_REQUEST)
    }
}

/// Serves a connection until it ends, or until it is idle once `stopping` is set. Returns the status
/// of a request that was refused while its head was read.
pub(super) async fn serve<F>(
    stream: SocketStream,
    (builder, config): (&ConnectionBuilder, &GatewayConfig),
    answer: impl Fn(Request<CallerBody>) -> F + 'static,
    mut stopping: watch::Receiver<bool>,
) -> Option<StatusCode>
where
    F: Future<Output = Response<ReplyBody>> + 'static,
{
    let activity = Rc::new(CallerActivity::new(limits(config)));
    let mut socket = ObservedSocket::new(stream, Rc::clone(&activity));
    let (seen, answer) = (Rc::clone(&activity), Rc::new(answer));
    let tunnel = Rc::<Cell<Option<Box<CallerTunnel>>>>::default();
    let opened = Rc::clone(&tunnel);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let waiting = begin(&mut request, &seen);
        let (answer, seen) = (Rc::clone(&answer), Rc::clone(&seen));
        let opened = Rc::clone(&opened);
        // On the heap: hyper moves the future, and an idle connection would reserve room for it.
        // Written in place: `Box::pin` would copy it once more.
        Box::into_pin(Box::write(Box::new_uninit(), async move {
            let mut response = answer(CallerBody::of(request)).await;
            opened.set(response.body_mut().take_tunnel());
            let response = response.map(|body| body.watched(waiting));
            // The gateway sets this header only if a request was not fully read.
            seen.unread.set(response.headers().contains_key(CONNECTION));
            Ok::<_, std::convert::Infallible>(response)
        }))
    });
    let stop = pin!(async move {
        // A dropped sender means stopping too.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    });
    let mut watch = ConnectionWatch {
        activity: &activity,
        stop,
        timer: ConnectionTimer::default(),
        ending: None,
    };
    let Some(Ok(is_http2)) = watch.before_ending(is_http2(&mut socket)).await else {
        return None;
    };
    activity.is_http2.set(is_http2);
    if is_http2 {
        let mut connection = pin!(
            builder
                .http2
                .serve_connection(TokioIo::new(socket), service)
        );
        let ended = watch.until_end(|step| match step {
            ConnectionStep::Poll(cx) => connection.as_mut().poll(cx),
            ConnectionStep::End => {
                connection.as_mut().graceful_shutdown();
                Poll::Pending
            }
        });
        // Errors on a caller's connection concern only the caller.
        let _ = ended.await;
        return None;
    }
    let mut connection = builder
        .http1
        .serve_connection(TokioIo::new(socket), service);
    let ended = watch.until_end(|step| match step {
        ConnectionStep::Poll(cx) => Pin::new(&mut connection).poll(cx),
        ConnectionStep::End => {
            Pin::new(&mut connection).graceful_shutdown();
            Poll::Pending
        }
    });
    let ended = ended.await;
    if let (Some(Ok(())), Some(tunnel)) = (&ended, tunnel.take()) {
        let parts = connection.into_parts();
        let _in_flight = RequestActivity::new(&activity);
        let work = pass_on(tunnel, parts.io.into_inner(), parts.read_buf);
        watch.unless_cut(work).await;
    }
    ended?.err().as_ref().and_then(refusal_of)
}

/// Notes the begin of a request, and marks it if its target has a fragment.
fn begin(request: &mut Request<Incoming>, seen: &Rc<CallerActivity>) -> RequestActivity {
    if seen.has_fragment.take() {
        request.extensions_mut().insert(FragmentMark);
    }
    RequestActivity::new(seen)
}

/// Runs a tunnel over a connection. `read`: the bytes behind the request.
async fn pass_on(
    tunnel: Box<CallerTunnel>,
    mut socket: ObservedSocket<Rc<CallerActivity>>,
    read: Bytes,
) {
    // What the caller has sent behind its request belongs to the new protocol.
    socket.put_back(read);
    tunnel.run(socket).await;
}

/// A step of a connection.
enum ConnectionStep<'a, 'c> {
    Poll(&'a mut Context<'c>),
    /// End it as soon as it is idle.
    End,
}

/// The limits of a connection, in each of its phases.
struct ConnectionWatch<'a, S> {
    activity: &'a CallerActivity,
    stop: Pin<&'a mut S>,
    timer: ConnectionTimer,
    /// Since when it ends as soon as it is idle.
    ending: Option<Instant>,
}

impl<S: Future<Output = ()>> ConnectionWatch<'_, S> {
    /// Does some work as long as the connection need not end. Returns `None` if it must.
    async fn before_ending<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            self.timer
                .poll(self.activity, self.ending, cx)
                .map(|_| None)
        })
        .await
    }

    /// Runs a connection to its end. Returns `None` if it was cut off.
    async fn until_end<T>(
        &mut self,
        mut step: impl FnMut(ConnectionStep<'_, '_>) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|cx| {
            if self.ending.is_none() && self.stop.as_mut().poll(cx).is_ready() {
                self.ending = Some(Instant::now());
                drop(step(ConnectionStep::End));
            }
            loop {
                if let Poll::Ready(ended) = step(ConnectionStep::Poll(cx)) {
                    return Poll::Ready(Some(ended));
                }
                match ready!(self.timer.poll(self.activity, self.ending, cx)) {
                    TimerAction::Cut => return Poll::Ready(None),
                    _ => {
                        self.ending.get_or_insert_with(Instant::now);
                        drop(step(ConnectionStep::End));
                    }
                }
            }
        })
        .await
    }

    /// Does some work, unless the caller takes nothing for too long.
    async fn unless_cut(&mut self, work: impl Future<Output = ()>) {
        let mut work = pin!(work);
        poll_fn(|cx| {
            ready!(match work.as_mut().poll(cx) {
                Poll::Pending => self.timer.poll(self.activity, self.ending, cx).map(drop),
                Poll::Ready(()) => Poll::Ready(()),
            });
            Poll::Ready(())
        })
        .await;
    }
}

/// The only timer of a connection. It is reset only if it must fire earlier.
#[derive(Default)]
struct ConnectionTimer {
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl ConnectionTimer {
    fn poll(
        &mut self,
        activity: &CallerActivity,
        ending: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<TimerAction> {
        loop {
            let (mut due, mut then) = activity.due();
            if let Some(ending) = ending.filter(|_| then == TimerAction::Close) {
                // SUP-7: a caller that reads nothing while its connection by HTTP/2 is idle does not
                // learn of the end, and must not hold up a stop.
                if activity.is_http2.get() {
                    due = activity.since.get().max(ending);
                }
                due += GRACE;
                then = TimerAction::Cut;
            }
            match &mut self.alarm {
                Some((at, alarm)) if *at <= due => {
                    if alarm.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.alarm = None;
                    if then != TimerAction::Look && Instant::now() >= due {
                        return Poll::Ready(then);
                    }
                }
                _ => self.alarm = Some((due, Box::pin(sleep_until(due)))),
            }
        }
    }
}
