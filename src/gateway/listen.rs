//! The threads of the gateway: each accepts connections and serves them to their end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener as Listener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::spawn_local;

use super::connection;
use super::proxy;
use super::route::Lane;

/// How long to wait when the system has no room for another connection.
const NO_ROOM: Duration = Duration::from_millis(50);

/// How many connections may wait to be accepted; the system may allow fewer. The standard library's
/// 128 are soon used up by callers that come all at once: the system drops the others, which knock
/// again after one second, after two more, after four more.
const MAX_WAITING: i32 = 4096;

/// Begins to listen.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As everywhere: a new start need not wait for the last connections of the one before.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(MAX_WAITING)?;
    Ok(socket.into())
}

/// What a thread listens to, beside its socket.
#[derive(Clone)]
pub(super) struct Signals {
    /// Takes no more connections, and ends those that are idle.
    pub(super) stopping: watch::Receiver<bool>,
    /// Ends the others too.
    pub(super) killing: watch::Receiver<bool>,
}

/// A thread at work.
pub(super) struct Thread {
    pub(super) handle: JoinHandle<()>,
    /// Resolves when its last connection has ended.
    pub(super) ended: oneshot::Receiver<()>,
}

/// Starts one thread.
pub(super) fn spawn(
    lane: Lane,
    listener: TcpListener,
    places: Arc<Semaphore>,
    signals: Signals,
) -> io::Result<Thread> {
    let (told, ended) = oneshot::channel();
    let name = format!("gateway-{}", lane.number + 1);
    let (built, is_built) = std::sync::mpsc::channel();
    let run = move || {
        let mut builder = Builder::new_current_thread();
        // It stays on the thread that made it, so its tasks need no set of their own.
        let runtime = match builder
            .enable_io()
            .enable_time()
            .build_local(LocalOptions::default())
        {
            Ok(runtime) => runtime,
            Err(error) => return drop(built.send(Err(error))),
        };
        // Whoever started the thread waits for this.
        let _ = built.send(Ok(()));
        let mut killing = signals.killing.clone();
        let work = async move {
            tokio::select! {
                () = take(Rc::new(lane), listener, places, signals.stopping) => {}
                _ = killing.wait_for(|killing| *killing) => {}
            }
        };
        runtime.block_on(work);
        // A name that is being looked up is nobody's any more, and not waited for.
        runtime.shutdown_background();
        // Nobody waits where the process is ending.
        let _ = told.send(());
    };
    let handle = std::thread::Builder::new().name(name).spawn(run)?;
    match is_built.recv() {
        Ok(built) => built?,
        Err(gone) => return Err(io::Error::other(gone)),
    }
    Ok(Thread { handle, ended })
}

/// Accepts until it is told to stop, then waits for the connections that it has.
async fn take(
    lane: Rc<Lane>,
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
        loop {
            // Above the limit callers wait in the system's queue, which is bounded too.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(NO_ROOM).await;
                    continue;
                }
            };
            // Without it small answers may wait for more; it is an optimisation only.
            let _ = stream.set_nodelay(true);
            let (lane, open, told) = (Rc::clone(&lane), open.clone(), told.clone());
            spawn_local(async move {
                let _held = (place, open);
                let config = lane.config.load_full();
                let builder = connection::builder(&config);
                let answer = move |request| {
                    let lane = Rc::clone(&lane);
                    async move { proxy::answer(&lane, peer, request).await }
                };
                connection::serve(stream, (&builder, &config), answer, told).await;
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    drop(open);
    // Nobody sends; it ends when the last connection has dropped its sender.
    let _ = all_closed.recv().await;
}
