//! The threads of the gateway: each accepts connections and serves them to their end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener as Listener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::call_cut::LAST_WORDS;
use super::caller_limits::ConnectedCaller;
use super::connection;
use super::http::caller_body::CallerBody;
use super::own_tls::{OpenedConnection, OverTls};
use super::proxy;
use super::route::ThreadContext;
use super::socket_stream::SocketStream;

/// Pause after a failed accept, when the system has no room for another connection.
const NO_ROOM: Duration = Duration::from_millis(50);

/// Maximum number of connections that wait to be accepted; the system may allow fewer. The standard
/// library's 128 fill up at once when many callers connect together. The system then drops the
/// others, which retry one second later, two more seconds later, then four more.
const MAX_WAITING: i32 = 4096;

/// Binds the listening socket.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As is usual: a restart need not wait for the last connections of the previous process.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(MAX_WAITING)?;
    Ok(socket.into())
}

/// Signals to a thread.
#[derive(Clone)]
pub(super) struct ListenerSignals {
    /// Accept no more connections, and end idle ones.
    pub(super) stopping: watch::Receiver<bool>,
    /// End all other connections too.
    pub(super) killing: watch::Receiver<bool>,
}

/// A running thread.
pub(super) struct GatewayThread {
    pub(super) handle: JoinHandle<()>,
    /// Resolves when the thread's last connection has ended.
    pub(super) ended: oneshot::Receiver<()>,
}

/// Starts one thread.
pub(super) fn spawn(
    lane: ThreadContext,
    listener: TcpListener,
    places: Arc<Semaphore>,
    signals: ListenerSignals,
) -> io::Result<GatewayThread> {
    let (told, ended) = oneshot::channel();
    let name = format!("gateway-{}", lane.number + 1);
    let (built, is_built) = std::sync::mpsc::channel();
    let run = move || {
        let mut builder = Builder::new_current_thread();
        // The runtime stays on the thread that built it, so its tasks need no `LocalSet`.
        let runtime = match builder
            .enable_io()
            .enable_time()
            .build_local(LocalOptions::default())
        {
            Ok(runtime) => runtime,
            Err(error) => return drop(built.send(Err(error))),
        };
        // The starting thread waits for this.
        let _ = built.send(Ok(()));
        let mut killing = signals.killing.clone();
        let work = async move {
            let lane = Rc::new(lane);
            let stopping = signals.stopping.clone();
            let mut taking = pin!(take(Rc::clone(&lane), listener, places, signals.stopping));
            tokio::select! {
                () = taking.as_mut() => return,
                _ = killing.wait_for(|killing| *killing) => {}
            }
            if *stopping.borrow() {
                // CALL-1: each call that still waits for an answer gets one.
                lane.cut.cut();
                // Streams that go on are cut off.
                let _ = timeout(LAST_WORDS, taking).await;
            }
        };
        runtime.block_on(work);
        // Name lookups in progress are of no use any more: the thread does not wait for them.
        runtime.shutdown_background();
        // The receiver is gone if the process is ending.
        let _ = told.send(());
    };
    let handle = std::thread::Builder::new().name(name).spawn(run)?;
    match is_built.recv() {
        Ok(built) => built?,
        Err(gone) => return Err(io::Error::other(gone)),
    }
    Ok(GatewayThread { handle, ended })
}

/// Accepts until `stopping` is set, then waits for the open connections.
async fn take(
    lane: Rc<ThreadContext>,
    listener: TcpListener,
    places: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
) {
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let told = stopping.clone();
    let accepting = async {
        let listener = match Listener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a thread of the gateway cannot listen");
                return;
            }
        };
        let mut is_failing = false;
        loop {
            // Above the limit, callers wait in the system's backlog, which is bounded too.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => {
                    is_failing = false;
                    accepted
                }
                Err(error) => {
                    // One line an episode.
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "a connection cannot be accepted");
                    }
                    tokio::time::sleep(NO_ROOM).await;
                    continue;
                }
            };
            let limit = lane.config.load().per_caller.connections;
            // EDGE-4: one caller cannot take the connections of all others.
            let Some(caller) = lane.callers.connect(peer, limit) else {
                continue;
            };
            let caller = Rc::new(caller);
            // Without it small responses may be delayed (Nagle). It is only an optimisation.
            let _ = stream.set_nodelay(true);
            let (lane, open, told) = (Rc::clone(&lane), open.clone(), told.clone());
            spawn_local(async move {
                let _held = (place, open);
                converse(lane, stream, caller, told).await;
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    drop(open);
    // No value is ever sent: this returns when the last connection has dropped its sender.
    let _ = all_closed.recv().await;
}

/// Serves one connection until it ends, or until it is idle once `stopping` is set.
async fn converse(
    lane: Rc<ThreadContext>,
    stream: TcpStream,
    caller: Rc<ConnectedCaller>,
    mut stopping: watch::Receiver<bool>,
) {
    let config = lane.config.load_full();
    let opened = tokio::select! {
        opened = lane.tls.open(stream, config.header_timeout) => opened,
        _ = stopping.wait_for(|stopping| *stopping), if config.tls.is_some() => None,
    };
    let builder = connection::builder(&config);
    let how = (&builder, &*config);
    match opened {
        None => {}
        Some(OpenedConnection::Unencrypted(stream)) => {
            let answer = |_| async { proxy::refuse_unencrypted() };
            let _ = connection::serve(stream, how, answer, stopping).await;
        }
        Some(OpenedConnection::Usual(stream)) => {
            let is_tls = matches!(stream, SocketStream::Tls(_));
            let access = lane.access.clone();
            let answer = move |mut request: Request<CallerBody>| {
                let (lane, caller) = (Rc::clone(&lane), Rc::clone(&caller));
                if is_tls {
                    request.extensions_mut().insert(OverTls);
                }
                async move { proxy::answer(&lane, &caller, request).await }
            };
            let refused = connection::serve(stream, how, answer, stopping).await;
            if let (Some(status), Some(access)) = (refused, access) {
                access.refused(status);
            }
        }
    }
}
