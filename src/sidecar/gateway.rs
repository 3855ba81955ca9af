//! The data plane of the sidecar: HTTP dependencies under the runtime's protection, for callers in
//! any language.
//!
//! It parses `/{dependency}/{rest}`, lets the runtime make the call, and streams bodies both ways
//! with back-pressure. It makes none of the runtime's decisions. It knows neither files nor the
//! admin side.

// callers
mod listen;

mod socket_stream;

mod observed_socket;

mod own_tls;

mod connection;

mod descriptors;

mod activity;

mod caller_limits;

mod head_rules;

mod cors;

mod caller_auth;

mod front;

mod call_cut;

mod call_note;

mod access_log;

mod path;

mod proxy;

mod ready;

mod headers;

mod credentials;

#[cfg(feature = "otel")]
mod trace;
#[cfg(not(feature = "otel"))]
#[path = "gateway/trace/disabled.rs"]
mod trace;

// dependencies
mod route;

mod model_figures;

mod model_route;

mod pool_route;

mod pool_status;

mod token_limits;

mod directory;

mod fallback;

mod prober;

mod message;

#[cfg(all(feature = "cli", feature = "fleet"))]
pub(crate) mod message_calls;

mod http;

mod mcp;

#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;

// responses
mod problem;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
#[cfg(feature = "cli")]
use breakerbox_policy::DependencySettings;
use tokio::sync::{Semaphore, watch};

pub use self::http::dependency::HttpDependency;
pub use self::http::error::HttpError;
pub use self::message::{HttpReply, HttpRequest};
pub use self::model_figures::{ContentEnd, ModelFigures};
pub use self::pool_status::{PoolMember, PoolStatus};
pub use self::token_limits::ReservedTokens;
use access_log::{AccessLog, AccessWriter};
use call_cut::CallCut;
#[cfg(feature = "cli")]
pub(crate) use caller_auth::check_key_file;
use caller_limits::CallerTable;
use directory::RouteDirectory;
use listen::{GatewayThread, ListenerSignals};
use model_figures::ModelFigureTable;
use own_tls::ListenerTls;
use route::{RouteKind, RouteTable, ThreadContext};
pub use trace::Tracing;

pub use crate::buffer_budget::BufferUse;

#[cfg(feature = "cli")]
use crate::buffer_budget::BufferBudget;
use crate::config::{DependencyConfig, GatewayConfig};
use crate::lock::LockExt as _;
use crate::mcp::{GroupStatus, McpClient, ToolFigures};
use crate::{Runtime, StartError};

/// A listening gateway. Dropping it ends it at once, together with the calls in flight.
pub struct Gateway {
    address: SocketAddr,
    directory: RouteDirectory,
    tls: Arc<ListenerTls>,
    stopping: watch::Sender<bool>,
    killing: watch::Sender<bool>,
    threads: Mutex<Vec<GatewayThread>>,
    /// The writer of the access log, if there is one.
    access_writer: Option<Arc<AccessWriter>>,
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
pub(crate) fn check_address(url: &str, config: &DependencyConfig) -> Result<(), String> {
    http::address::UpstreamAddress::new(url, config.tls.as_ref(), &config.upstream).map(drop)
}

/// Checks the files of the listener as [`Gateway::start`] does.
#[cfg(feature = "cli")]
pub(crate) fn check_tls(config: &crate::config::GatewayTls) -> Result<(), String> {
    own_tls::read(config).map(drop)
}

/// Result of [`Gateway::put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddOutcome {
    /// The dependency was started.
    Started,
    /// The dependency was running, and took over the new configuration.
    Kept,
    /// Another one was started beside the dependency, and has taken its place: with its breaker, its
    /// overrides and its counters.
    Restarted,
}

impl Gateway {
    /// Listens and accepts calls. There is no dependency to call before [`Gateway::put`].
    ///
    /// # Errors  The address cannot be listened on, the files of `gateway.tls` or that of
    /// `gateway.access_log` cannot be used, or a thread cannot be started.
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
        Self::start_before(config, runtime, tracing, BTreeSet::new())
    }

    /// Starts a gateway before its dependencies. `awaited`: the names of those that are about to be
    /// [put](Self::put); until then, their callers are asked to come again.
    pub(crate) fn start_before(
        config: &GatewayConfig,
        runtime: &Runtime,
        tracing: Tracing,
        awaited: BTreeSet<String>,
    ) -> io::Result<Self> {
        let tls = ListenerTls::default();
        tls.renew(config.tls.as_ref())
            .map_err(|problem| io::Error::other(format!("gateway.{problem}")))?;
        let access = config.access_log.as_ref().map(AccessLog::open).transpose();
        let access =
            access.map_err(|error| io::Error::other(format!("gateway.access_log: {error}")))?;
        let (access, access_writer) = access.unzip();
        let listener = listen::bind(config.bind)?;
        let lanes = match config.threads {
            Some(threads) => usize::try_from(threads.get()).unwrap_or(usize::MAX),
            None => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        };
        let gateway = Self {
            address: listener.local_addr()?,
            directory: RouteDirectory::new(runtime, config, tracing, lanes),
            tls: Arc::new(tls),
            stopping: watch::channel(false).0,
            killing: watch::channel(false).0,
            threads: Mutex::default(),
            access_writer: access_writer.map(Arc::new),
        };
        gateway.directory.awaited.store(Arc::new(awaited));
        let most = usize::try_from(config.max_connections.get()).unwrap_or(usize::MAX);
        let most = descriptors::connections(most.min(Semaphore::MAX_PERMITS));
        let places = Arc::new(Semaphore::new(most));
        let callers = Arc::new(CallerTable::default());
        for number in 0..lanes {
            let lane = ThreadContext {
                number,
                routes: Arc::clone(&gateway.directory.routes),
                config: Arc::clone(&gateway.directory.config),
                auth: Arc::clone(&gateway.directory.auth),
                tracing: gateway.directory.tracing.clone(),
                tls: Arc::clone(&gateway.tls),
                budget: gateway.directory.budget.clone(),
                figures: gateway.directory.figures.clone(),
                awaited: Arc::clone(&gateway.directory.awaited),
                callers: Arc::clone(&callers),
                stopping: gateway.stopping.subscribe(),
                access: access.clone(),
                cut: CallCut::default(),
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

    /// The use of the memory for buffered bodies and answers (`gateway.max_buffered`).
    #[must_use]
    pub fn buffered(&self) -> BufferUse {
        self.directory.budget.present()
    }

    /// The budget of everything that the process keeps.
    #[cfg(feature = "cli")]
    pub(crate) fn budget(&self) -> BufferBudget {
        self.directory.budget.clone()
    }

    /// Awaits no dependency any more.
    #[cfg(feature = "cli")]
    pub(crate) fn has_started(&self) {
        self.directory.awaited.store(Arc::default());
    }

    /// Applies new limits to later connections. The address, the threads and the maximum number of
    /// connections stay as they were. If the files of [`GatewayConfig::tls`] cannot be used, the
    /// present certificates stay too, and the log says why.
    pub fn configure(&self, config: &GatewayConfig) {
        if let Err(problem) = self.tls.renew(config.tls.as_ref()) {
            tracing::error!("gateway.{problem}; the present certificates stay in use");
        }
        let mut config = config.clone();
        // What is served to which hosts follows from where it listens in fact.
        config.bind = self.directory.config.load().bind;
        self.directory.budget.set_limit(config.max_buffered);
        self.directory.set_default_auth(config.auth.as_ref());
        self.directory.config.store(Arc::new(config));
    }

    /// Reads the files of [`GatewayConfig::tls`] again, for later connections. Those that are open
    /// go on.
    ///
    /// # Errors  A file cannot be read or used; the present certificates stay.
    pub fn renew_certificates(&self) -> Result<(), String> {
        let config = self.directory.config.load();
        let renewed = self.tls.renew(config.tls.as_ref());
        renewed.map_err(|problem| format!("gateway.{problem}"))
    }

    /// Makes a dependency reachable: starts it, or applies the configuration to a running one. An
    /// HTTP dependency is at `url`. An MCP server is where its configuration says, and is served at
    /// `/{name}/mcp`.
    ///
    /// A running dependency goes on wherever that is possible. Where a new start is needed (a server
    /// that is started in another way, or HTTP instead of MCP), the new one is started beside it and
    /// takes its place with all that is known of it. The former one drains in the background.
    /// Callers notice nothing of either, except that later requests follow the new configuration.
    ///
    /// # Errors  [`AddError`]; a running dependency then goes on as it was.
    /// # Cancel safety   If dropped, the change is made all the same.
    /// # Source  Rule EDGE-6 in docs/rules.md.
    pub async fn put(
        &self,
        name: &str,
        config: &DependencyConfig,
        url: &str,
        by: &str,
    ) -> Result<AddOutcome, AddError> {
        let (name, config) = (name.to_owned(), config.clone());
        let (url, by) = (url.to_owned(), by.to_owned());
        let put = async move |own: RouteDirectory| own.put(&name, &config, &url, &by).await;
        let put = self.directory.change_by(put).await;
        put.unwrap_or_else(|| Err(StartError::ShuttingDown.into()))
    }

    /// Returns the present settings of the dependencies that this configuration replaces as a whole.
    #[cfg(feature = "cli")]
    pub(crate) fn settings_until_swap(
        &self,
        wanted: &[(&str, &DependencyConfig, &str)],
    ) -> Vec<(String, DependencySettings)> {
        let replaced = wanted.iter().filter_map(|(name, config, _)| {
            let settings = self.directory.settings_until_swap(name, config)?;
            Some(((*name).to_owned(), settings))
        });
        replaced.collect()
    }

    /// Removes a dependency. Callers cannot reach it after that; calls in flight may end within its
    /// drain time, in the background. Its name is free at once. Returns false if there is no
    /// dependency of this name.
    ///
    /// # Cancel safety   If dropped, the dependency is removed all the same.
    pub async fn remove(&self, name: &str, by: &str) -> bool {
        let (name, by) = (name.to_owned(), by.to_owned());
        let remove = async move |own: RouteDirectory| own.remove(&name, &by).await;
        self.directory.change_by(remove).await.unwrap_or(false)
    }

    /// A live view of the MCP servers.
    #[must_use]
    pub fn servers(&self) -> Servers {
        Servers {
            routes: Arc::clone(&self.directory.routes),
            figures: self.directory.figures.clone(),
        }
    }

    /// The names of the reachable dependencies, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let routes = self.directory.routes.load();
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
        for route in self.directory.routes.load().values() {
            match route {
                RouteKind::Mcp(endpoint) => endpoint.end_streams(),
                RouteKind::Group(group) => group.end_streams(),
                RouteKind::Http(_) | RouteKind::Pool(_) => {}
            }
        }
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
        let limit = self.directory.config.load().shutdown;
        let in_time = tokio::time::timeout(limit, all).await.is_ok();
        self.killing.send_replace(true);
        let access_writer = self.access_writer.clone();
        let join = move || {
            for handle in handles {
                // A thread that panicked has ended too.
                let _ = handle.join();
            }
            if let Some(writer) = access_writer {
                writer.wait();
            }
        };
        // This fails only while the surrounding runtime is being torn down.
        let _ = tokio::task::spawn_blocking(join).await;
        in_time
    }
}

/// A live view of the MCP servers and the models, which follows changes of the routes. Cheap to clone.
#[derive(Clone)]
pub struct Servers {
    routes: Arc<ArcSwap<RouteTable>>,
    figures: ModelFigureTable,
}

impl Servers {
    /// Returns the server of this name, while it is reachable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<McpClient> {
        match self.routes.load().get(name)? {
            RouteKind::Mcp(endpoint) => Some(endpoint.client.clone()),
            RouteKind::Http(_) | RouteKind::Group(_) | RouteKind::Pool(_) => None,
        }
    }

    /// Returns the figures of a server's tools, by the names that callers see; `None` if there is no
    /// such server.
    #[must_use]
    pub fn tools(&self, name: &str) -> Option<Vec<ToolFigures>> {
        match self.routes.load().get(name)? {
            RouteKind::Mcp(endpoint) => Some(endpoint.front.figures(&endpoint.client)),
            RouteKind::Http(_) | RouteKind::Group(_) | RouteKind::Pool(_) => None,
        }
    }

    /// Returns the figures of language models, by dependency and model.
    #[must_use]
    pub fn models(&self) -> Vec<ModelFigures> {
        self.figures.all()
    }

    /// Returns the tokens that attempts hold at each limit of a model, by dependency.
    #[must_use]
    pub fn reserved_tokens(&self) -> Vec<ReservedTokens> {
        let routes = self.routes.load();
        let held = routes.values().filter_map(|route| match route {
            RouteKind::Http(route) => Some(route.tokens.as_ref()?.reserved(&route.name)),
            _ => None,
        });
        let mut all: Vec<ReservedTokens> = held.flatten().collect();
        all.sort_by(|one, other| one.dependency.cmp(&other.dependency));
        all
    }

    /// Returns the pools with the state of their members, by name.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStatus> {
        let routes = self.routes.load();
        let pools = routes.values().filter_map(|route| match route {
            RouteKind::Pool(pool) => Some(pool.status(&routes)),
            _ => None,
        });
        let mut pools: Vec<PoolStatus> = pools.collect();
        pools.sort_by(|one, other| one.name.cmp(&other.name));
        pools
    }

    /// Returns the groups of servers with the health of their members, by name.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupStatus> {
        let routes = self.routes.load();
        let groups = routes.values().filter_map(|route| match route {
            RouteKind::Group(group) => Some(group.status()),
            _ => None,
        });
        let mut groups: Vec<GroupStatus> = groups.collect();
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        groups
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
