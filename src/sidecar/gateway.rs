//! The data plane of the sidecar: HTTP dependencies under the runtime's protection, for callers in
//! any language.
//!
//! It parses `/{dependency}/{rest}`, lets the runtime make the call, and streams bodies both ways
//! with back-pressure. It makes none of the runtime's decisions. It knows neither files nor the
//! admin side.

// callers
mod listen;

mod connection;

mod descriptors;

mod activity;

mod head_rules;

mod guard;

mod path;

mod proxy;

mod headers;

mod credentials;

#[cfg(feature = "otel")]
mod trace;
#[cfg(not(feature = "otel"))]
#[path = "gateway/trace/disabled.rs"]
mod trace;

// dependencies
mod route;

mod fallback;

mod message;

mod http;

mod mcp;

// responses
mod problem;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};

pub use self::http::dependency::HttpDependency;
pub use self::http::error::HttpError;
pub use self::message::{HttpReply, HttpRequest};
use listen::{GatewayThread, ListenerSignals};
use mcp::endpoint::McpEndpoint;
use route::{HttpRoute, RouteKind, RouteTable, ThreadContext};
pub use trace::Tracing;

use crate::config::{DependencyConfig, GatewayConfig};
use crate::lock::LockExt as _;
use crate::mcp::{McpClient, McpSettings};
use crate::{Runtime, StartError};

/// A listening gateway. Dropping it ends it at once, together with the calls in flight.
pub struct Gateway {
    runtime: Runtime,
    address: SocketAddr,
    routes: Arc<ArcSwap<RouteTable>>,
    config: Arc<ArcSwap<GatewayConfig>>,
    tracing: Tracing,
    stopping: watch::Sender<bool>,
    killing: watch::Sender<bool>,
    threads: Mutex<Vec<GatewayThread>>,
    /// Number of threads.
    lanes: usize,
    /// Serializes changes of the routes.
    changing: tokio::sync::Mutex<()>,
}

/// Error of adding a dependency to the gateway.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// Its address is invalid.
    #[error("the address of {name} cannot be used: {problem}")]
    Address {
        /// Its name.
        name: String,
        /// The reason.
        problem: String,
    },
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Checks an address as [`Gateway::put`] does.
#[cfg(feature = "cli")]
pub(crate) fn check_address(
    url: &str,
    tls: Option<&crate::config::UpstreamTls>,
) -> Result<(), String> {
    http::connector::UpstreamAddress::new(url, tls).map(drop)
}

/// Result of [`Gateway::put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddOutcome {
    /// The dependency was started.
    Started,
    /// The dependency was running, and took over the new configuration.
    Kept,
    /// The dependency was restarted, with a new breaker and new counters.
    Restarted,
}

impl Gateway {
    /// Listens and accepts calls. There is no dependency to call before [`Gateway::put`].
    ///
    /// # Errors  The address cannot be listened on, or a thread cannot be started.
    pub fn start(config: &GatewayConfig, runtime: &Runtime) -> io::Result<Self> {
        Self::start_traced(config, runtime, Tracing::default())
    }

    /// Starts a gateway as [`Gateway::start`] does, with spans of its requests.
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
        let most = descriptors::connections(most.min(Semaphore::MAX_PERMITS));
        let places = Arc::new(Semaphore::new(most));
        for number in 0..lanes {
            let lane = ThreadContext {
                number,
                routes: Arc::clone(&gateway.routes),
                config: Arc::clone(&gateway.config),
                tracing: gateway.tracing.clone(),
            };
            let signals = ListenerSignals {
                stopping: gateway.stopping.subscribe(),
                killing: gateway.killing.subscribe(),
            };
            let thread = listen::spawn(lane, listener.try_clone()?, Arc::clone(&places), signals)?;
            gateway.threads.acquire().push(thread);
        }
        Ok(gateway)
    }

    /// The address on which the gateway listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Applies new limits to later connections. The address, the threads and the maximum number of
    /// connections stay as they were.
    pub fn configure(&self, config: &GatewayConfig) {
        let mut config = config.clone();
        // What is served to which hosts follows from where it listens in fact.
        config.bind = self.config.load().bind;
        self.config.store(Arc::new(config));
    }

    /// Makes a dependency reachable: starts it, or applies the configuration to a running one. If
    /// its address or its fallbacks changed, it is drained and restarted. An HTTP dependency is at
    /// `url`. An MCP server is where its configuration says, and is served at `/{name}/mcp`.
    ///
    /// # Errors  [`AddError`]; the dependency is then not reachable.
    /// # Cancel safety   If dropped, the dependency may be drained but not restarted; call `put`
    /// again.
    pub async fn put(
        &self,
        name: &str,
        config: &DependencyConfig,
        url: &str,
        by: &str,
    ) -> Result<AddOutcome, AddError> {
        let _one_at_a_time = self.changing.lock().await;
        let before = self.routes.load().get(name).cloned();
        let put = match before {
            Some(way) if way.fits(config, url) => {
                way.follow(config);
                return Ok(AddOutcome::Kept);
            }
            Some(_) => {
                self.take_out(name, by).await;
                AddOutcome::Restarted
            }
            None => AddOutcome::Started,
        };
        let (name, way) = match McpSettings::of_config(config) {
            Some(settings) => {
                let own = self.config.load_full();
                let endpoint =
                    McpEndpoint::open(&self.runtime, name, (config, settings), &own).await?;
                (
                    Arc::clone(&endpoint.name),
                    RouteKind::Mcp(Arc::new(endpoint)),
                )
            }
            None => {
                let (made_of, own) = ((config, url), (self.lanes, &self.tracing));
                let route = HttpRoute::start(&self.runtime, name, made_of, own).await?;
                (Arc::clone(&route.name), RouteKind::Http(Arc::new(route)))
            }
        };
        self.change(|routes| {
            routes.insert(name, way);
        });
        Ok(put)
    }

    /// Returns true if a running dependency can take over this configuration. [`Gateway::put`]
    /// restarts one that cannot. To restart several, remove them all first: one may be a fallback
    /// of another.
    #[must_use]
    pub fn fits(&self, name: &str, config: &DependencyConfig, url: &str) -> bool {
        let routes = self.routes.load();
        routes.get(name).is_some_and(|way| way.fits(config, url))
    }

    /// Removes a dependency. Callers cannot reach it after that; calls in flight may end within its
    /// drain time. Returns false if there is no dependency of this name.
    ///
    /// # Cancel safety   If dropped, the dependency goes on draining; call `remove` again.
    pub async fn remove(&self, name: &str, by: &str) -> bool {
        let _one_at_a_time = self.changing.lock().await;
        self.take_out(name, by).await
    }

    /// A live view of the MCP servers.
    #[must_use]
    pub fn servers(&self) -> Servers {
        Servers(Arc::clone(&self.routes))
    }

    /// The names of the reachable dependencies, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let routes = self.routes.load();
        let mut names: Vec<String> = routes.keys().map(|name| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Accepts no more connections, lets requests in flight end within `gateway.shutdown`, and
    /// ends. Returns false if some requests had to be cut off. The runtime keeps running.
    ///
    /// # Cancel safety   If dropped, calls in flight may go on until the gateway is dropped.
    pub async fn shutdown(&self) -> bool {
        self.stopping.send_replace(true);
        let threads = std::mem::take(&mut *self.threads.acquire());
        let (handles, ended): (Vec<_>, Vec<_>) = threads
            .into_iter()
            .map(|thread| (thread.handle, thread.ended))
            .unzip();
        let all = async {
            for ended in ended {
                // A closed channel means that the thread has ended too.
                let _ = ended.await;
            }
        };
        let limit = self.config.load().shutdown;
        let in_time = tokio::time::timeout(limit, all).await.is_ok();
        self.killing.send_replace(true);
        let join = move || {
            for handle in handles {
                // A thread that panicked has ended too.
                let _ = handle.join();
            }
        };
        // This fails only while the surrounding runtime is being torn down.
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

    fn change(&self, change: impl FnOnce(&mut RouteTable)) {
        let mut routes = RouteTable::clone(&self.routes.load());
        change(&mut routes);
        self.routes.store(Arc::new(routes));
    }
}

/// A live view of the MCP servers, which follows changes of the routes. Cheap to clone.
#[derive(Clone)]
pub struct Servers(Arc<ArcSwap<RouteTable>>);

impl Servers {
    /// Returns the server of this name, while it is reachable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<McpClient> {
        match self.0.load().get(name)? {
            RouteKind::Mcp(endpoint) => Some(endpoint.client.clone()),
            RouteKind::Http(_) => None,
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
