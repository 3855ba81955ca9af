//! `breakerbox serve`: the sidecar. It starts the runtime, the gateway and the configured
//! dependencies, follows changes of its files, and drains when told to stop.

mod banner;

mod changed_settings;

mod dependencies;

mod notify;

mod privacy;

mod reload;

mod source;

mod start_guard;

mod telemetry;

use std::io::{self, Write};
use std::net::TcpListener;

use crate::Runtime;
use crate::config::{ConfigError, Loader, Settings};
use crate::policy::supervision::StopCause;
use crate::reload::Watcher;
use crate::sidecar::admin::{self, Admin, OrderFile, Phase};
#[cfg(feature = "fleet")]
use crate::sidecar::consumers::{Consumers, ConsumersError};
use crate::sidecar::gateway::Gateway;
use crate::sidecar::state_file;

use dependencies::{ServicePlan, UnservableConfig};
use source::ConfigSource;
use start_guard::StartGuard;
use telemetry::SidecarExport;

pub use crate::sidecar::observe::telemetry::doubtful_filter;
pub use privacy::forbid_inspection;
pub use source::{ConfigChoice, RefusedConfig, check, loader, readable_admin};

/// Result of [`run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeEnd {
    /// It was told to stop, and stopped.
    Stopped,
    /// It could not be started, or its runtime ended.
    Failed,
    /// The configuration cannot be served.
    WrongUse,
}

/// Reason why the sidecar could not be started.
#[derive(Debug, thiserror::Error)]
enum SidecarError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Unservable(#[from] UnservableConfig),
    #[error(
        "{address} cannot be listened on: {cause}{} ({key})",
        listen_advice(cause)
    )]
    Listen {
        key: &'static str,
        address: std::net::SocketAddr,
        cause: io::Error,
    },
    #[error("{0}")]
    Gateway(io::Error),
    #[error(transparent)]
    Admin(#[from] admin::ServeError),
    #[error("{0}")]
    State(String),
    #[error("{0}")]
    Recorder(String),
    #[error("a server on 127.0.0.1 cannot be started: {0}")]
    Simulated(io::Error),
    #[cfg(feature = "otel")]
    #[error(transparent)]
    Export(#[from] crate::sidecar::observe::otel::ExporterError),
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Start(#[from] crate::StartError),
    #[error(transparent)]
    Add(#[from] crate::sidecar::gateway::AddError),
    #[cfg(feature = "fleet")]
    #[error(transparent)]
    Consumers(#[from] ConsumersError),
}

/// Returns what to do about an address that another process has.
fn listen_advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has it, perhaps an earlier Breakerbox: end that one, or give another \
             address"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: give one that it has, 127.0.0.1 for callers of this \
             machine alone, or 0.0.0.0 for all that it has"
        }
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs a right of the system: give a higher one, or the capability \
             CAP_NET_BIND_SERVICE"
        }
        _ => "",
    }
}

impl SidecarError {
    fn end(&self) -> ServeEnd {
        match self {
            Self::Config(_) | Self::Unservable(_) | Self::State(_) | Self::Recorder(_) => {
                ServeEnd::WrongUse
            }
            _ => ServeEnd::Failed,
        }
    }
}

/// Time limit for reaping the last server processes. They are killed by then.
#[cfg(target_os = "linux")]
const REAPING: std::time::Duration = std::time::Duration::from_secs(1);

/// Wait before another try of a configuration of which a part could not be applied.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(30);

/// The running sidecar.
struct Sidecar {
    source: ConfigSource,
    settings: Settings,
    /// The configuration of its start: some keys hold until the next one.
    started_with: Settings,
    plan: ServicePlan,
    runtime: Runtime,
    gateway: Gateway,
    #[cfg(feature = "fleet")]
    consumers: Consumers,
    admin: Admin,
    /// Closes the admin side when dropped.
    admin_server: admin::Server,
    export: SidecarExport,
    /// Its part in a fleet.
    #[cfg(feature = "fleet")]
    fleet: Option<crate::fleet::Fleet>,
    /// True if a part of the present configuration could not be applied.
    is_incomplete: bool,
}

/// Runs the sidecar until told to stop. Only a broken output is an error; all other errors are written to
/// `err`.
pub async fn run(
    choice: ConfigChoice,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ServeEnd> {
    forbid_inspection();
    #[cfg(target_os = "linux")]
    if let Err(error) = crate::mcp::adopt_orphans() {
        tracing::debug!(%error, "orphans of servers are left to the parent process");
    }
    let guard = StartGuard::new();
    let started = start(ConfigSource::new(choice)).await;
    drop(guard);
    let (mut sidecar, mut signals) = match started {
        Ok(started) => started,
        Err(error) => {
            writeln!(err, "breakerbox: {error}")?;
            return Ok(error.end());
        }
    };
    if let Some(warning) = doubtful_filter() {
        writeln!(err, "breakerbox: warning: {warning}")?;
    }
    for warning in sidecar.settings.warnings() {
        writeln!(err, "breakerbox: warning: {warning}")?;
    }
    let told = sidecar.introduce(out);
    // If the output cannot be written, the sidecar serves all the same.
    if let Err(error) = told {
        tracing::warn!(%error, "standard output cannot be written");
    }
    sidecar.admin.set_phase(Phase::Ready);
    // Until the last call has ended.
    let _beats = notify::ready();
    let cause = sidecar.work(&mut signals).await;
    notify::stopping();
    sidecar.admin.set_phase(Phase::ShuttingDown);
    let end = match &cause {
        None => {
            sidecar.wait_for_callers(&mut signals).await;
            ServeEnd::Stopped
        }
        Some(cause) => {
            writeln!(err, "breakerbox: the runtime has ended: {cause}")?;
            ServeEnd::Failed
        }
    };
    if !sidecar.end_calls().await {
        tracing::warn!("requests in flight were cut off after gateway.shutdown");
    }
    #[cfg(feature = "fleet")]
    if let Some(fleet) = &sidecar.fleet {
        fleet.leave().await;
    }
    // The counters are final, and can still be read.
    sidecar.admin.write_last().await;
    sidecar.export.end().await;
    sidecar.runtime.shutdown().await;
    sidecar.admin_server.stop();
    #[cfg(target_os = "linux")]
    crate::mcp::reap_all(REAPING).await;
    Ok(end)
}

async fn start(source: ConfigSource) -> Result<(Sidecar, ProcessSignals), SidecarError> {
    let signals = ProcessSignals::new(&source)?;
    let settings = source.read()?;
    let mut problems = dependencies::file_problems(&settings);
    problems.extend(dependencies::none_to_protect(&settings));
    UnservableConfig::of(problems)?;
    let mut plan = ServicePlan::default();
    plan.make(&settings).await?;
    let started = settings.clone().into_runtime();
    let started = started.map_err(|error| {
        let allowed = "the path of a new file, or of a trace that a recorder has written";
        let problem = dependencies::file_problem(&settings, "recorder.path", &error, allowed);
        SidecarError::Recorder(problem)
    })?;
    let runtime = Runtime::start(started).await?;
    let served = match open(&settings, &plan, &runtime).await {
        Ok(served) => served,
        Err(error) => {
            runtime.shutdown().await;
            return Err(error);
        }
    };
    let (gateway, admin, admin_server, export) = served;
    #[cfg(feature = "fleet")]
    let fleet = join_fleet(&settings, &runtime, &admin).await?;
    let consumers = match Consumers::start(&settings, &runtime, &gateway).await {
        Ok(consumers) => consumers,
        Err(error) => {
            gateway.shutdown().await;
            runtime.shutdown().await;
            return Err(error.into());
        }
    };
    let mut signals = signals;
    signals.watch(&settings);
    let sidecar = Sidecar {
        source,
        started_with: settings.clone(),
        settings,
        plan,
        runtime,
        gateway,
        #[cfg(feature = "fleet")]
        consumers,
        admin,
        admin_server,
        export,
        #[cfg(feature = "fleet")]
        fleet,
        is_incomplete: false,
    };
    Ok((sidecar, signals))
}

/// Starts the child that joins the fleet, if one is configured. It waits for no board.
#[cfg(feature = "fleet")]
async fn join_fleet(
    settings: &Settings,
    runtime: &Runtime,
    admin: &Admin,
) -> Result<Option<crate::fleet::Fleet>, SidecarError> {
    let Some(config) = &settings.fleet else {
        return Ok(None);
    };
    let fleet = crate::fleet::Fleet::start(runtime, config, settings).await?;
    admin.show_fleet(fleet.clone());
    Ok(Some(fleet))
}

/// Starts the admin side and the gateway with its dependencies. The admin side has its own thread,
/// so that it never delays a call.
async fn open(
    settings: &Settings,
    plan: &ServicePlan,
    runtime: &Runtime,
) -> Result<(Gateway, Admin, admin::Server, SidecarExport), SidecarError> {
    let mut export = SidecarExport::start(settings)?;
    let admin = Admin::new(runtime.clone(), settings);
    let address = settings.admin.bind;
    let listener = TcpListener::bind(address);
    let listener = listener.map_err(|cause| SidecarError::Listen {
        key: "admin.bind",
        address,
        cause,
    })?;
    // Before the first dependency, which begins under the orders that stand.
    let orders = restore_orders(settings, runtime)?;
    if let Some(orders) = &orders {
        admin.keep_orders(orders.clone());
    }
    let server = admin.serve(listener)?;
    let address = settings.gateway.bind;
    let wanted = plan.wanted(settings).into_iter();
    let wanted = wanted.map(|(name, ..)| name.to_owned()).collect();
    let gateway = Gateway::start_before(&settings.gateway, runtime, export.tracing(), wanted);
    let gateway = gateway.map_err(|cause| match cause.get_ref().is_some() {
        // Its text begins with the key of a file that cannot be used.
        true => SidecarError::Gateway(cause),
        false => SidecarError::Listen {
            key: "gateway.bind",
            address,
            cause,
        },
    })?;
    let servers = gateway.servers();
    let (tools, groups) = (servers.clone(), servers.clone());
    admin.show(move |name| servers.get(name));
    let budget = gateway.budget();
    admin.show_buffered(move || budget.present());
    admin.show_models(gateway.servers());
    admin.show_tools(move |name| tools.tools(name));
    admin.show_groups(move || groups.groups());
    for (name, one, url) in plan.wanted(settings) {
        if let Err(error) = gateway.put(name, one, url, "the start").await {
            gateway.shutdown().await;
            return Err(error.into());
        }
    }
    gateway.has_started();
    if let Some(orders) = &orders {
        tell_of_absent(orders, settings);
    }
    export.report(&admin);
    Ok((gateway, admin, server, export))
}

/// Reads the orders that outlived an earlier process, if there is a file of them.
fn restore_orders(
    settings: &Settings,
    runtime: &Runtime,
) -> Result<Option<OrderFile>, SidecarError> {
    let Some(path) = &settings.admin.state else {
        return Ok(None);
    };
    // HLT-3: no order is dropped in silence, so there is no start without the file.
    let restored = OrderFile::restore(path, runtime);
    let restored = restored.map_err(|error| {
        let allowed = state_file::ALLOWED;
        let problem = dependencies::file_problem(settings, "admin.state", &error, allowed);
        SidecarError::State(problem)
    });
    restored.map(Some)
}

/// Tells of orders for dependencies that are not configured.
fn tell_of_absent(orders: &OrderFile, settings: &Settings) {
    for name in orders.names() {
        if !settings.dependencies.contains_key(&name) {
            tracing::warn!(
                dependency = name,
                "an order of an operator waits in admin.state: no dependency has this name"
            );
        }
    }
}

impl Sidecar {
    /// Prints the addresses, and what a person asks first.
    fn introduce(&self, out: &mut dyn Write) -> io::Result<()> {
        let simulated = self.plan.simulated();
        let listens = banner::ListenAddresses {
            gateway: self.gateway.address(),
            admin: self.admin_server.address(),
            simulated: simulated.map(|(name, at)| (name.to_owned(), at)).collect(),
            orders: self.admin.kept_orders(),
        };
        // In one piece: a program that has read the first lines reads on at once.
        out.write_all(banner::text(&self.settings, &listens).as_bytes())?;
        out.flush()
    }

    /// Follows the configuration until told to stop. Returns the cause if the runtime ended.
    async fn work(&mut self, signals: &mut ProcessSignals) -> Option<StopCause> {
        // Changes during the start were not noticed.
        let mut by = "the start".to_owned();
        let runtime = self.runtime.clone();
        loop {
            // A stop does not wait for servers that are being started.
            tokio::select! {
                () = signals.stop.next() => return None,
                () = self.reload(&by) => {}
            }
            by = tokio::select! {
                () = signals.stop.next() => return None,
                cause = runtime.ended() => return Some(cause),
                by = next_reason(&mut signals.reload) => by,
                // MCP-1: its cause may be gone, though the files are as before.
                () = tokio::time::sleep(AGAIN), if self.is_incomplete => "another try".to_owned(),
            };
        }
    }

    /// Ends the calls of callers and of messages, within `gateway.shutdown`. Returns false if some
    /// requests of callers had to be cut off.
    async fn end_calls(&self) -> bool {
        #[cfg(feature = "fleet")]
        {
            // SUP-7: no more messages are fetched; those in flight may end.
            let limit = self.settings.gateway.shutdown;
            let drained = tokio::time::timeout(limit, self.consumers.drain());
            let (drained, in_time) = tokio::join!(drained, self.gateway.shutdown());
            if drained.is_err() {
                tracing::warn!("messages in flight are left to be delivered again");
            }
            in_time
        }
        #[cfg(not(feature = "fleet"))]
        self.gateway.shutdown().await
    }

    /// Serves on for `gateway.shutdown_delay`, so that load balancers see that it is not ready and
    /// send no more calls. A second signal ends the wait.
    async fn wait_for_callers(&self, signals: &mut ProcessSignals) {
        let delay = self.settings.gateway.shutdown_delay;
        if delay.is_zero() {
            return;
        }
        tracing::info!(
            ?delay,
            "told to stop; calls are served until the delay is over"
        );
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = signals.stop.next() => {}
            _ = self.runtime.ended() => {}
        }
    }
}

/// Waits for a reason to reload, and returns it.
async fn next_reason(watcher: &mut Option<Watcher>) -> String {
    match watcher {
        // Its result is read again: the watcher does not know the embedded file.
        Some(watcher) => watcher.next().await.0.to_string(),
        None => std::future::pending().await,
    }
}

/// Signals to the process.
struct ProcessSignals {
    stop: StopSignal,
    reload: Option<Watcher>,
    loader: Loader,
}

impl ProcessSignals {
    /// Installs the signal handlers early, before other processes can know that it runs.
    fn new(source: &ConfigSource) -> Result<Self, SidecarError> {
        let loader = source.loader.clone();
        let reload = Watcher::on_signals(loader.clone());
        if let Err(error) = &reload {
            tracing::warn!(%error, "changes of the configuration apply only after a restart");
        }
        Ok(Self {
            stop: StopSignal::new().map_err(SidecarError::Signals)?,
            reload: reload.ok(),
            loader,
        })
    }

    /// Watches the files too, if configured.
    fn watch(&mut self, settings: &Settings) {
        if !settings.reload.watch {
            return;
        }
        match Watcher::start(self.loader.clone(), settings.reload.debounce) {
            Ok(watcher) => self.reload = Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "changes of the configuration apply only on SIGHUP")
            }
        }
    }
}

/// Signals that stop the process.
#[cfg(unix)]
struct StopSignal {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl StopSignal {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// On other systems, only the interrupt key.
#[cfg(not(unix))]
struct StopSignal;

#[cfg(not(unix))]
impl StopSignal {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
