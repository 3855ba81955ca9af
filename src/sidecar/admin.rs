//! The admin side: observes and operates the runtime over HTTP.
//!
//! It runs on its own thread, reads the state that the runtime publishes, and sends operator
//! commands to the runtime. No protected call passes through it, and nothing in it can delay a
//! call.

mod server;

mod connections;

mod auth;
mod problem;

mod active_probe;
mod alerts;
mod consumers;
mod dashboard;
mod dependencies;
mod events;
mod fleet;
mod groups;
#[cfg(feature = "agents")]
mod health;
mod history;
mod hour_file;
mod kept_buckets;
mod kept_history;
mod kept_notes;
mod memory;
mod models;
mod notes;
mod operate;
mod orders;
mod outage_book;
mod outage_record;
mod outages;
mod probes;
mod profile;
mod series;
mod stream;
mod tree;

mod timestamps;

mod tools;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{get, post};

use crate::Runtime;
#[cfg(feature = "agents")]
use crate::agents::health::HealthMonitor;
use crate::config::{DependencyKind, Secret, Settings};
use crate::lock::LockExt as _;
#[cfg(feature = "mcp")]
use crate::mcp::{GroupStatus, McpClient, ToolFigures};
use crate::sidecar::observe::metrics::{
    AdminFigures, BufferedFigures, MetricsReader, ToolSeries, encode,
};

use crate::sidecar::state_file::StateFile;
pub use crate::sidecar::state_file::StateFileError;
pub use orders::OrderFile;
pub use server::{ServeError, Server, ServerLimits};

use alerts::AlertLog;
use auth::RefusalLog;
use history::CallHistory;
use notes::NoteBook;
use outage_book::OutageBook;
use problem::AdminProblem;
use profile::DependencyProfile;
use timestamps::Timestamps;

/// The OpenAPI description of this API.
const OPENAPI: &str = include_str!("admin/openapi.json");

/// Phase of the process, for readiness probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Phase {
    /// Not everything is running yet.
    #[default]
    Starting = 0,
    /// Calls are accepted.
    Ready = 1,
    /// Calls are not accepted any more.
    ShuttingDown = 2,
}

/// The admin side of one runtime. Cheap to clone.
///
/// # Source  Rules OPS-1 and SEC-1 in docs/rules.md.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<AdminState>,
}

/// Returns the MCP server of a name, while there is one.
#[cfg(feature = "mcp")]
type FindServer = dyn Fn(&str) -> Option<McpClient> + Send + Sync;

/// Returns the use of the gateway's memory for buffered bytes.
type ReadBuffered = dyn Fn() -> BufferedFigures + Send + Sync;
/// Returns the figures of a server's tools; `None` if there is no such server.
#[cfg(feature = "mcp")]
type FindTools = dyn Fn(&str) -> Option<Vec<ToolFigures>> + Send + Sync;

/// Returns the groups of MCP servers.
#[cfg(feature = "mcp")]
type FindGroups = dyn Fn() -> Vec<GroupStatus> + Send + Sync;

struct AdminState {
    runtime: Runtime,
    token: Option<Secret>,
    /// Host names that are served, and the origins of pages under these names.
    hosts: Vec<String>,
    origins: Vec<String>,
    refused_hosts: RefusalLog,
    refused_changes: RefusalLog,
    kinds: Mutex<BTreeMap<String, DependencyKind>>,
    profiles: Mutex<BTreeMap<String, DependencyProfile>>,
    history: CallHistory,
    notes: NoteBook,
    outages: OutageBook,
    #[cfg(feature = "mcp")]
    servers: OnceLock<Box<FindServer>>,
    buffered: OnceLock<Box<ReadBuffered>>,
    #[cfg(feature = "gateway")]
    models: OnceLock<crate::gateway::Servers>,
    #[cfg(feature = "mcp")]
    tools: OnceLock<Box<FindTools>>,
    #[cfg(feature = "mcp")]
    groups: OnceLock<Box<FindGroups>>,
    #[cfg(feature = "fleet")]
    fleet: OnceLock<crate::fleet::Fleet>,
    /// Notes about the files of the configuration that do not hold, or not yet.
    files: Mutex<probes::FilesNote>,
    phase: AtomicU8,
    orders: OnceLock<OrderFile>,
    alerts: Arc<Mutex<AlertLog>>,
    /// Health checks that the program has registered, by name.
    #[cfg(feature = "agents")]
    health: Mutex<BTreeMap<String, HealthMonitor>>,
    metrics: MetricsReader,
    stamps: Timestamps,
    streams: stream::EventStreams,
    /// Number of events that slow readers of the stream missed.
    missed: AtomicU64,
}

impl AdminState {
    /// The file of `admin.state`, if there is one.
    fn state_file(&self) -> Option<StateFile> {
        self.orders.get().map(OrderFile::file)
    }

    /// The file of the last hour beside it.
    fn hour_file(&self) -> Option<Arc<hour_file::HourFile>> {
        self.orders.get().map(OrderFile::hour_file)
    }
}

/// Replaces what is known by name, except for these names.
fn keep<V>(known: &Mutex<BTreeMap<String, V>>, mut new: BTreeMap<String, V>, names: &[String]) {
    let mut known = known.acquire();
    for name in names {
        if let Some(value) = known.remove(name) {
            new.insert(name.clone(), value);
        }
    }
    *known = new;
}

fn kinds(settings: &Settings) -> BTreeMap<String, DependencyKind> {
    let all = settings.dependencies.iter();
    all.filter_map(|(name, one)| Some((name.clone(), one.kind?)))
        .collect()
}

impl Admin {
    /// Creates the admin side of this runtime, with the token and the hosts of these settings, and the
    /// kinds, addresses and links of their dependencies. It is in [`Phase::Starting`] until
    /// [`Admin::set_phase`] is called.
    #[must_use]
    pub fn new(runtime: Runtime, settings: &Settings) -> Self {
        Self {
            inner: Arc::new(AdminState {
                token: settings.admin.token.clone(),
                hosts: settings.admin.hosts.clone(),
                origins: auth::origins_of(&settings.admin.hosts),
                refused_hosts: RefusalLog::default(),
                refused_changes: RefusalLog::default(),
                kinds: Mutex::new(kinds(settings)),
                profiles: Mutex::new(profile::profiles(settings)),
                history: CallHistory::new(&runtime),
                notes: NoteBook::default(),
                outages: OutageBook::default(),
                #[cfg(feature = "mcp")]
                servers: OnceLock::new(),
                buffered: OnceLock::new(),
                #[cfg(feature = "gateway")]
                models: OnceLock::new(),
                #[cfg(feature = "mcp")]
                tools: OnceLock::new(),
                #[cfg(feature = "mcp")]
                groups: OnceLock::new(),
                #[cfg(feature = "fleet")]
                fleet: OnceLock::new(),
                files: Mutex::default(),
                phase: AtomicU8::new(Phase::Starting as u8),
                orders: OnceLock::new(),
                alerts: AlertLog::watch(&runtime),
                #[cfg(feature = "agents")]
                health: Mutex::default(),
                metrics: MetricsReader::watch(&runtime),
                stamps: Timestamps::new(&runtime),
                streams: stream::EventStreams::default(),
                missed: AtomicU64::new(0),
                runtime,
            }),
        }
    }

    /// Applies the dependency kinds, addresses and links after a reload. The token and this host's
    /// names stay as they were.
    pub fn follow(&self, settings: &Settings) {
        self.follow_started(settings, &[]);
    }

    /// The same, but for those that go on as they were: their new versions did not start.
    pub(crate) fn follow_started(&self, settings: &Settings, failed: &[String]) {
        keep(&self.inner.kinds, kinds(settings), failed);
        keep(&self.inner.profiles, profile::profiles(settings), failed);
    }

    /// Writes the orders and notes of operators, the outages and the last day into this file from now on,
    /// and the last hour into one beside it, so that they outlive the process (rule HLT-3); the state of
    /// earlier processes in it is shown beside that of this one. Only the first call counts.
    pub fn keep_orders(&self, file: OrderFile) {
        // A second one would leave the orders in two files.
        if self.inner.orders.set(file.clone()).is_ok() {
            let earlier = file.take_earlier();
            self.inner.history.earlier_day.restore(earlier.minutes);
            self.inner.history.earlier_hour.restore(earlier.hours);
            self.inner.notes.restore(earlier.notes);
            let (runtime, file) = (self.runtime(), file.file());
            self.inner.outages.restore(runtime, file, earlier.outages);
        }
    }

    /// Writes the outages and what the charts show up to this moment, if there is a file for it.
    #[cfg(feature = "cli")]
    pub(crate) async fn write_last(&self) {
        OutageBook::write_last(&self.inner).await;
        history::write(&self.inner).await;
    }

    /// Adds the state of MCP servers to the views. `find`: returns the server of a name, while there
    /// is one. Only the first call counts.
    #[cfg(feature = "mcp")]
    pub fn show(&self, find: impl Fn(&str) -> Option<McpClient> + Send + Sync + 'static) {
        // A second one would belong to another gateway.
        let _ = self.inner.servers.set(Box::new(find));
    }

    /// Adds the figures of the tools of MCP servers. `find`: returns those of one server, while it is
    /// there. Only the first call counts.
    #[cfg(feature = "mcp")]
    pub fn show_tools(
        &self,
        find: impl Fn(&str) -> Option<Vec<ToolFigures>> + Send + Sync + 'static,
    ) {
        // A second one would belong to another gateway.
        let _ = self.inner.tools.set(Box::new(find));
    }

    /// Adds the groups of MCP servers. `find`: returns those that there are. Only the first call
    /// counts.
    #[cfg(feature = "mcp")]
    pub fn show_groups(&self, find: impl Fn() -> Vec<GroupStatus> + Send + Sync + 'static) {
        // A second one would belong to another gateway.
        let _ = self.inner.groups.set(Box::new(find));
    }

    /// Shows the fleet, and gives operators' commands to all of its replicas. Only the first call
    /// counts.
    #[cfg(feature = "fleet")]
    pub fn show_fleet(&self, fleet: crate::fleet::Fleet) {
        let admin = Arc::downgrade(&self.inner);
        // A second one would be of another runtime.
        if self.inner.fleet.set(fleet.clone()).is_ok() {
            fleet.on_taken_back(move |name| {
                let Some(inner) = admin.upgrade() else {
                    return;
                };
                if let Some(file) = inner.orders.get().cloned() {
                    let (runtime, name) = (inner.runtime.clone(), name.to_owned());
                    tokio::spawn(async move { file.remove_order(&runtime, &name).await });
                }
            });
        }
    }

    /// Returns the groups of MCP servers, by name.
    #[cfg(feature = "mcp")]
    fn groups(&self) -> Vec<GroupStatus> {
        let find = self.inner.groups.get();
        find.map(|find| find()).unwrap_or_default()
    }

    /// Returns the figures of a server's tools.
    #[cfg(feature = "mcp")]
    fn tools_of(&self, name: &str) -> Option<Vec<ToolFigures>> {
        self.inner.tools.get()?(name)
    }

    /// Returns the figures of all tools, by server.
    fn tool_series(&self) -> ToolSeries {
        #[cfg(feature = "mcp")]
        {
            let names = self.inner.kinds.acquire();
            let names: Vec<String> = names.keys().cloned().collect();
            let servers = names.into_iter();
            let servers = servers.filter_map(|name| Some((self.tools_of(&name)?, name)));
            ToolSeries {
                servers: servers.map(|(tools, name)| (name, tools)).collect(),
            }
        }
        #[cfg(not(feature = "mcp"))]
        ToolSeries::default()
    }

    #[cfg(feature = "mcp")]
    fn server(&self, name: &str) -> Option<McpClient> {
        self.inner.servers.get()?(name)
    }

    /// Adds the language models and the pools of a gateway to the metrics and views. Only the first
    /// call counts.
    #[cfg(feature = "gateway")]
    pub fn show_models(&self, servers: crate::gateway::Servers) {
        // A second one would belong to another gateway.
        let _ = self.inner.models.set(servers);
    }

    /// Returns the gateway with the models.
    #[cfg(feature = "gateway")]
    fn models(&self) -> Option<&crate::gateway::Servers> {
        self.inner.models.get()
    }

    /// Adds the gateway's use of memory to the metrics and views. Only the first call counts.
    #[cfg(feature = "gateway")]
    pub fn show_buffered(
        &self,
        read: impl Fn() -> crate::buffer_budget::BufferUse + Send + Sync + 'static,
    ) {
        // A second one would belong to another gateway.
        let _ = self.inner.buffered.set(Box::new(move || {
            let now = read();
            BufferedFigures {
                used: now.used,
                limit: now.limit,
                refused: now.refused,
            }
        }));
    }

    fn buffered(&self) -> Option<BufferedFigures> {
        self.inner.buffered.get().map(|read| read())
    }

    fn profile_of(&self, name: &str) -> DependencyProfile {
        let profiles = self.inner.profiles.acquire();
        profiles.get(name).cloned().unwrap_or_default()
    }

    fn kind_of(&self, name: &str) -> Option<DependencyKind> {
        self.inner.kinds.acquire().get(name).copied()
    }

    /// Sets the phase of the process.
    pub fn set_phase(&self, phase: Phase) {
        self.inner.phase.store(phase as u8, Ordering::Release);
    }

    fn phase(&self) -> Phase {
        match self.inner.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::ShuttingDown,
        }
    }

    /// Returns the alerts after the latest event. The outages that a look at the health shows are
    /// among them.
    fn alerts(&self) -> MutexGuard<'_, AlertLog> {
        let mut alerts = self.inner.alerts.acquire();
        alerts.catch_up(self.runtime());
        alerts
    }

    /// Returns all routes, for a program that does not use [`Admin::serve`]: `nest` and
    /// `nest_service` of axum mount them below a path, and the dashboard is at that path. They
    /// answer for addresses, `localhost` and the names of `admin.hosts` (rule EDGE-5), and changes
    /// need the token of `admin.token` there too.
    ///
    /// Within a tokio runtime it also starts the tasks that sample the counters for the charts, each
    /// 5 s, and follow the outages; elsewhere both are looked at by requests only.
    pub fn router(&self) -> Router {
        history::keep(self);
        outage_book::keep(self);
        let changes = Router::new()
            .route(
                "/api/dependencies/{name}/{operation}",
                post(operate::operate),
            )
            .route("/api/alerts/{id}/ack", post(alerts::acknowledge))
            .route("/api/outages/{id}/ack", post(outages::acknowledge))
            .route("/api/alerts/{id}/clear", post(alerts::clear))
            .route("/api/notes", post(notes::add));
        #[cfg(feature = "agents")]
        let changes = changes.merge(health::changes());
        let changes = changes
            .layer(DefaultBodyLimit::max(auth::MAX_BODY))
            .layer(from_fn_with_state(self.clone(), auth::authorise));
        let reads = Router::new()
            .route("/livez", get(probes::live))
            .route("/readyz", get(probes::ready))
            .route("/metrics", get(scrape))
            .route("/api/openapi.json", get(openapi))
            .route("/api/dependencies", get(dependencies::list))
            .route("/api/dependencies/{name}", get(dependencies::one))
            .route("/api/dependencies/{name}/history", get(events::of_days))
            .route("/api/dependencies/{name}/series", get(history::one))
            .route("/api/series", get(history::all))
            .route("/api/notes", get(notes::list))
            .route("/api/events", get(events::list))
            .route("/api/events/stream", get(stream::follow))
            .route("/api/memory", get(memory::show))
            .route("/api/fleet", get(fleet::show))
            .route("/api/groups", get(groups::list))
            .route("/api/models", get(models::show))
            .route("/api/consumers", get(consumers::list))
            .route("/api/tree", get(tree::show))
            .route("/api/alerts", get(alerts::list))
            .route("/api/outages", get(outages::list));
        #[cfg(feature = "agents")]
        let reads = reads.merge(health::reads());
        reads
            .merge(changes)
            .merge(dashboard::routes())
            .fallback(nowhere)
            .method_not_allowed_fallback(not_so)
            .layer(from_fn_with_state(self.clone(), auth::guard))
            .layer(from_fn(auth::harden))
            .with_state(self.clone())
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    /// Returns the metrics for an exporter.
    #[cfg(feature = "otel")]
    #[must_use]
    pub fn metrics(&self) -> crate::otel::MetricsSource {
        let (metrics, admin) = (self.inner.metrics.clone(), self.clone());
        crate::otel::MetricsSource::new(metrics, move || admin.families())
    }

    /// Reads all metrics once.
    fn families(&self) -> Vec<prometheus::proto::MetricFamily> {
        let figures = AdminFigures {
            is_ready: self.phase() == Phase::Ready,
            pending_alerts: self.alerts().pending(),
            missed_events: self.inner.missed.load(Ordering::Relaxed),
            stream_readers: self.inner.streams.readers(),
            buffered: self.buffered(),
        };
        #[cfg(feature = "fleet")]
        let fleet = self.inner.fleet.get().map(crate::fleet::Fleet::figures);
        let tools = self.tool_series();
        let metrics = &self.inner.metrics;
        #[cfg_attr(not(feature = "fleet"), allow(unused_mut))]
        let mut families = metrics.families(
            self.runtime(),
            figures,
            &tools,
            #[cfg(feature = "gateway")]
            self.models(),
        );
        #[cfg(feature = "fleet")]
        families.extend(
            fleet
                .iter()
                .flat_map(crate::sidecar::observe::metrics::of_fleet),
        );
        families
    }
}

/// Handles `GET /metrics`.
async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    let (media, text) = encode(&admin.families());
    ([(CONTENT_TYPE, media)], text)
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn nowhere() -> AdminProblem {
    AdminProblem::new(404, "not-found", "there is nothing at this address")
        .allowed("the addresses that /api/openapi.json describes")
}

async fn not_so() -> AdminProblem {
    AdminProblem::new(
        405,
        "method-not-allowed",
        "this address does not support this method",
    )
    .allowed("the methods that /api/openapi.json describes")
}

#[cfg(test)]
mod tests {
    use breakerbox_policy::CommandSource;
    use serde_json::Value;

    use super::OPENAPI;

    #[test]
    fn ops_1_the_description_of_the_api_names_every_source_of_an_override() {
        let api: Value = serde_json::from_str(OPENAPI).unwrap();
        let by = &api["components"]["schemas"]["Override"]["properties"]["by"]["enum"];
        for source in [
            CommandSource::Operator,
            CommandSource::Supervisor,
            CommandSource::Fleet,
            CommandSource::Configuration,
        ] {
            let word = source.to_string();
            assert!(
                by.as_array().unwrap().contains(&word.clone().into()),
                "{word}"
            );
        }
    }
}
