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
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{CallerActivity, CallerLimits, GRACE, RequestActivity, TimerAction};
use super::http::body::ReplyBody;
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

/// Reports the progress of a caller's socket to the timer.
impl SocketObserver for Rc<CallerActivity> {
    fn received(&self) {
        let is_idle = self.in_flight.get() == 0 && !self.reading.get();
        if is_idle && !self.is_http2.get() {
            self.reading.set(true);
            self.since.set(Instant::now());
        }
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

/// Serves a connection until it ends, or until it is idle once `stopping` is set.
pub(super) async fn serve<F>(
    stream: SocketStream,
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
    let io = TokioIo::new(ObservedSocket::new(stream, Rc::clone(&activity)));
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
