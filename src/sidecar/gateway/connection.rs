//! One connection of a caller, HTTP/1.1 or HTTP/2, with a timer for slow callers.
//!
//! hyper's own limit for a request head also runs while a connection is idle, and hyper has no
//! limit for callers that do not read the response. The timer tells these cases apart.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::header::CONNECTION;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{CallerActivity, CallerLimits, GRACE, RequestActivity, TimerAction};
use super::http::body::ReplyBody;
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

/// Returns hyper's settings for connections.
pub(super) fn builder(config: &GatewayConfig) -> Builder<LocalExecutor> {
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let head = whole(config.max_head);
    let mut builder = Builder::new(LocalExecutor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(whole(config.max_headers.get().into()))
        .max_buf_size(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX));
    builder
}

/// A caller's socket that reports its progress to the timer.
struct WatchedSocket {
    stream: TcpStream,
    activity: Rc<CallerActivity>,
}

impl WatchedSocket {
    fn written<T>(&self, written: Poll<T>) -> Poll<T> {
        let blocked = &self.activity.blocked;
        if written.is_ready() {
            blocked.set(None);
        } else if blocked.get().is_none() {
            blocked.set(Some(Instant::now()));
        }
        written
    }
}

impl AsyncRead for WatchedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let activity = &self.activity;
        let is_idle = activity.in_flight.get() == 0 && !activity.reading.get();
        if is_idle && !activity.is_http2.get() && buffer.filled().len() > before {
            activity.reading.set(true);
            activity.since.set(Instant::now());
        }
        polled
    }
}

impl AsyncWrite for WatchedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Sends the end of the stream, then reads the rest of the caller's request for up to `GRACE`.
    /// If the socket were closed before that, the caller could lose the response.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let since = match self.activity.said.get() {
            Some(since) => since,
            None => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                if !self.activity.unread.get() && !self.activity.reading.get() {
                    return Poll::Ready(Ok(()));
                }
                let now = Instant::now();
                self.activity.said.set(Some(now));
                now
            }
        };
        let mut unread = [0; 4096];
        // The timer is not polled while a caller sends as fast as this loop reads.
        while since.elapsed() < GRACE {
            let mut buffer = ReadBuf::new(&mut unread);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Serves a connection until it ends, or until it is idle once `stopping` is set.
pub(super) async fn serve<F>(
    stream: TcpStream,
    (builder, config): (&Builder<LocalExecutor>, &GatewayConfig),
    answer: impl Fn(Request<Incoming>) -> F + 'static,
    mut stopping: watch::Receiver<bool>,
) where
    F: Future<Output = Response<ReplyBody>> + 'static,
{
    let activity = Rc::new(CallerActivity::new(CallerLimits {
        head: config.header_timeout,
        send: config.send_timeout,
        idle: config.idle_timeout,
    }));
    let io = TokioIo::new(WatchedSocket {
        stream,
        activity: Rc::clone(&activity),
    });
    let (seen, answer) = (Rc::clone(&activity), Rc::new(answer));
    let service = service_fn(move |request: Request<Incoming>| {
        let waiting = RequestActivity::new(&seen);
        seen.is_http2.set(request.version() == Version::HTTP_2);
        let (answer, seen) = (Rc::clone(&answer), Rc::clone(&seen));
        // On the heap: hyper moves the future, and an idle connection would reserve room for it.
        Box::pin(async move {
            let response = answer(request).await;
            let response = response.map(|body| body.watched(waiting));
            // The gateway sets this header only if a request was not fully read.
            seen.unread.set(response.headers().contains_key(CONNECTION));
            Ok::<_, std::convert::Infallible>(response)
        })
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut stop = pin!(async move {
        // A dropped sender means stopping too.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    });
    let mut watch = ConnectionTimer::default();
    let mut is_ending = false;
    poll_fn(|cx| {
        if !is_ending && stop.as_mut().poll(cx).is_ready() {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            // Errors on a caller's connection concern only the caller.
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            match watch.poll(&activity, is_ending, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(TimerAction::Cut) => return Poll::Ready(()),
                Poll::Ready(_) => {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    })
    .await;
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
        is_ending: bool,
        cx: &mut Context<'_>,
    ) -> Poll<TimerAction> {
        loop {
            let (mut due, mut then) = activity.due();
            if is_ending && then == TimerAction::Close {
                (due, then) = (due + GRACE, TimerAction::Cut);
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
