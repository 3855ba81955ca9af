//! The data plane of the sidecar: HTTP dependencies under the runtime's protection, for a caller
//! in any language.
//!
//! It reads `/{dependency}/{rest}`, has the runtime answer, and passes bodies on as they come, both
//! ways and with back-pressure. It decides nothing that the runtime decides. It knows neither
//! files nor the admin side.

// a request's way
mod listen;

mod connection;

mod proxy;

mod headers;

mod upload;

#[cfg(feature = "otel")]
mod trace;
#[cfg(not(feature = "otel"))]
#[path = "gateway/untraced.rs"]
mod trace;

// the dependency
mod route;

mod door;

mod host;

mod dependency;

mod upstream;

mod pool;

mod exchange;

mod failure;

mod cache;

// the answer
mod body;

mod problem;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};

pub use dependency::{Http, HttpReply, HttpRequest};
use door::Door;
pub use failure::HttpError;
use listen::{Signals, Thread};
use route::{Lane, Route, Routes, Way};
pub use trace::Tracing;

use crate::config::{DependencyConfig, GatewayConfig};
use crate::mcp::{McpClient, McpSettings};
use crate::{Runtime, StartError};

/// A gateway that listens. Dropped, it ends at once, with the calls in flight.
pub struct Gateway {
    runtime: Runtime,
    address: SocketAddr,
    routes: Arc<ArcSwap<Routes>>,
    config: Arc<ArcSwap<GatewayConfig>>,
    tracing: Tracing,
    stopping: watch::Sender<bool>,
    killing: watch::Sender<bool>,
    threads: Mutex<Vec<Thread>>,
    /// How many threads there are.
    lanes: usize,
    /// One change of the routes after the other.
    changing: tokio::sync::Mutex<()>,
}

/// Why a dependency cannot be reached through the gateway.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// Its address is none.
    #[error("the address of {name} cannot be used: {problem}")]
    Address {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// What became of a dependency that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Put {
    /// It runs now.
    Started,
    /// It ran, and follows while it runs.
    Kept,
    /// It had to be started anew; its breaker and its counters too.
    Restarted,
}

impl Gateway {
    /// Listens, and takes calls from now on. There is nothing to call before [`Gateway::put`].
    ///
    /// # Errors  The address cannot be listened on, or a thread cannot be made.
    pub fn start(config: &GatewayConfig, runtime: &Runtime) -> io::Result<Self> {
        Self::start_traced(config, runtime, Tracing::default())
    }

    /// The same, with spans of its requests.
    ///
    /// # Errors  As [`Gateway::start`].
    pub fn start_traced(
        config: &GatewayConfig,
        runtime: &Runtime,
        tracing: Tracing,
    ) -> io::Result<Self> {
        let listener = listen::bind(config.bind)?;
        let lanes = match config.threads {
            Some(threads) => usize::try_from(threads.get()).unwrap_or(usize::MAX),
            None => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        };
        let gateway = Self {
            runtime: runtime.clone(),
            address: listener.local_addr()?,
            routes: Arc::default(),
            config: Arc::new(ArcSwap::from_pointee(config.clone())),
            tracing,
            stopping: watch::channel(false).0,
            killing: watch::channel(false).0,
            threads: Mutex::default(),
            lanes,
            changing: tokio::sync::Mutex::default(),
        };
        let most = usize::try_from(config.max_connections.get()).unwrap_or(usize::MAX);
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        for number in 0..lanes {
            let lane = Lane {
                number,
                routes: Arc::clone(&gateway.routes),
                config: Arc::clone(&gateway.config),
                tracing: gateway.tracing.clone(),
            };
            let signals = Signals {
                stopping: gateway.stopping.subscribe(),
                killing: gateway.killing.subscribe(),
            };
            let thread = listen::spawn(lane, listener.try_clone()?, Arc::clone(&places), signals)?;
            lock(&gateway.threads).push(thread);
        }
        Ok(gateway)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes new limits over, for connections from now on. The address, the threads and the number
    /// of connections stay as they were.
    pub fn configure(&self, config: &GatewayConfig) {
        self.config.store(Arc::new(config.clone()));
    }

    /// Has callers reach a dependency: starts it, or has a running one follow. One whose address or
    /// fallbacks changed is drained and started anew. An HTTP dependency is at `url`; one that
    /// speaks MCP is where its configuration says, and reached at `/{name}/mcp`.
    ///
    /// # Errors  [`AddError`]; then nobody reaches it.
    /// # Cancel safety   Dropped, it may be drained and not started again; put it again.
    pub async fn put(
        &self,
        name: &str,
        config: &DependencyConfig,
        url: &str,
        by: &str,
    ) -> Result<Put, AddError> {
        let _one_at_a_time = self.changing.lock().await;
        let before = self.routes.load().get(name).cloned();
        let put = match before {
            Some(way) if way.fits(config, url) => {
                way.follow(config);
                return Ok(Put::Kept);
            }
            Some(_) => {
                self.take_out(name, by).await;
                Put::Restarted
            }
            None => Put::Started,
        };
        let (name, way) = match McpSettings::of_config(config) {
            Some(settings) => {
                let own = self.config.load_full();
                let door = Door::open(&self.runtime, name, (config, settings), &own).await?;
                (Arc::clone(&door.name), Way::Mcp(Arc::new(door)))
            }
            None => {
                let (made_of, own) = ((config, url), (self.lanes, &self.tracing));
                let route = Route::start(&self.runtime, name, made_of, own).await?;
                (Arc::clone(&route.name), Way::Http(Arc::new(route)))
            }
        };
        self.change(|routes| {
            routes.insert(name, way);
        });
        Ok(put)
    }

    /// Whether a running dependency can follow this configuration; one that cannot is started anew
    /// by [`Gateway::put`]. Where several are to be, remove them all first: what one falls back on
    /// may be another.
    #[must_use]
    pub fn fits(&self, name: &str, config: &DependencyConfig, url: &str) -> bool {
        let routes = self.routes.load();
        routes.get(name).is_some_and(|way| way.fits(config, url))
    }

    /// Takes a dependency out: callers find it no more, calls in flight may end within its drain
    /// time. False when there is none of this name.
    ///
    /// # Cancel safety   Dropped, it goes on draining; call it again.
    pub async fn remove(&self, name: &str, by: &str) -> bool {
        let _one_at_a_time = self.changing.lock().await;
        self.take_out(name, by).await
    }

    /// The servers that speak MCP, of each moment.
    #[must_use]
    pub fn servers(&self) -> Servers {
        Servers(Arc::clone(&self.routes))
    }

    /// The names of the dependencies that callers reach, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let routes = self.routes.load();
        let mut names: Vec<String> = routes.keys().map(|name| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Takes no more connections, lets requests in flight end within `gateway.shutdown`, and ends.
    /// False when some of them had to be cut. The runtime goes on.
    ///
    /// # Cancel safety   Dropped, the calls in flight may go on until the gateway is dropped.
    pub async fn shutdown(&self) -> bool {
        self.stopping.send_replace(true);
        let threads = std::mem::take(&mut *lock(&self.threads));
        let (handles, ended): (Vec<_>, Vec<_>) = threads
            .into_iter()
            .map(|thread| (thread.handle, thread.ended))
            .unzip();
        let all = async {
            for ended in ended {
                // A thread that is gone has ended too.
                let _ = ended.await;
            }
        };
        let limit = self.config.load().shutdown;
        let in_time = tokio::time::timeout(limit, all).await.is_ok();
        self.killing.send_replace(true);
        let join = move || {
            for handle in handles {
                // A thread that panicked is gone too.
                let _ = handle.join();
            }
        };
        // It fails only when the runtime around is being torn down.
        let _ = tokio::task::spawn_blocking(join).await;
        in_time
    }

    async fn take_out(&self, name: &str, by: &str) -> bool {
        let mut found = false;
        self.change(|routes| found = routes.remove(name).is_some());
        if found {
            self.runtime.remove(name, by).await;
        }
        found
    }

    fn change(&self, change: impl FnOnce(&mut Routes)) {
        let mut routes = Routes::clone(&self.routes.load());
        change(&mut routes);
        self.routes.store(Arc::new(routes));
    }
}

/// The servers that speak MCP, as they come and go. Cheap to clone.
#[derive(Clone)]
pub struct Servers(Arc<ArcSwap<Routes>>);

impl Servers {
    /// The one of this name, while it is reached.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<McpClient> {
        match self.0.load().get(name)? {
            Way::Mcp(door) => Some(door.client.clone()),
            Way::Http(_) => None,
        }
    }
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Servers").finish_non_exhaustive()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.killing.send_replace(true);
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Gateway")
            .field("address", &self.address)
            .field("dependencies", &self.names())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
