//! Replicas that act as one: a trip of others makes a breaker suspicious, and one replica probes for
//! all.
//!
//! Each replica decides by itself; the board is advice, and its loss costs no call anything. Nothing
//! is sent for a call. The decisions are those of [`breakerbox_policy::fleet`]; this module carries
//! words between its machines, the board and the runtime's breakers.
//!
//! ```no_run
//! use breakerbox::config::FleetConfig;
//! use breakerbox::fleet::Fleet;
//! use breakerbox::prelude::*;
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::load()?;
//! let runtime = Runtime::start(settings.clone()).await?;
//! if let Some(config) = &settings.fleet {
//!     let fleet = Fleet::start(&runtime, config, &settings).await?;
//!     println!("{} replicas", fleet.status().replicas.len());
//! }
//! # Ok(())
//! # }
//! ```

mod board;
mod board_word;
mod child;
mod model;
mod nats_board;
#[cfg(any(test, feature = "testing"))]
mod scripted_board;
mod status;

#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_actors::{Child, WeakRuntime};
use breakerbox_policy::fleet::ReplicaId;
use breakerbox_policy::{GiveUp, Placement};
use tokio::sync::oneshot;

#[cfg(any(test, feature = "testing"))]
pub use scripted_board::ScriptedBoard;
pub(crate) use status::FleetFigures;
pub use status::{
    FleetStatus, LeaseStatus, ReplicaDependency, ReplicaStatus, SharedDependency, SharedKey,
    VerdictStatus,
};

use crate::config::{DependencyConfig, FleetConfig, PauseSharing, Settings};
use crate::lock::LockExt as _;
use crate::{Runtime, StartError};
use board::OpenBoard;
use child::{FleetChild, FleetRequest, FleetState};
use model::{FleetModel, MemberPart};
use nats_board::NatsBoard;

/// Longest wait for the last message when a program ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// Reason why a command did not reach the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the board of the fleet is not reached")]
pub struct BoardUnreached;

/// The part of a runtime in a fleet. Cheap to clone.
///
/// # Source  Rules FLT-1 to FLT-17 in docs/rules.md.
#[derive(Clone)]
pub struct Fleet {
    state: Arc<FleetState>,
    parts: Arc<Mutex<FleetParts>>,
}

/// The parts of the configuration that a reload may change.
#[derive(Debug, Clone, Default)]
struct FleetParts {
    dependencies: BTreeMap<String, MemberPart>,
    fingerprint: String,
}

impl FleetParts {
    fn of(settings: &Settings) -> Self {
        let all = settings.dependencies.iter();
        Self {
            dependencies: all
                .map(|(name, one)| (name.clone(), part(settings, name, one)))
                .collect(),
            fingerprint: fingerprint(settings),
        }
    }
}

impl Fleet {
    /// Starts the supervised child `fleet`, and returns before the board is reached.
    ///
    /// # Errors  [`StartError`]: the runtime has such a child already, or is shutting down.
    pub async fn start(
        runtime: &Runtime,
        config: &FleetConfig,
        settings: &Settings,
    ) -> Result<Self, StartError> {
        let name = config.replica.clone().unwrap_or_else(host_name);
        let (board, own) = (config.clone(), name.clone());
        let open: Box<OpenBoard> =
            Box::new(move |news| Box::new(NatsBoard::open(&board, &own, news)));
        // A thread of its own: a lookup of the servers' names may block it.
        let place = (Placement::Dedicated, open);
        Self::start_on(runtime, (config, name), settings, place).await
    }

    /// Starts it on a board of the test's own, as the replica of this number. `replica` of the
    /// configuration is its name; its servers are not asked.
    ///
    /// # Errors  [`StartError`]: the runtime has such a child already, or is shutting down.
    #[cfg(any(test, feature = "testing"))]
    pub async fn start_scripted(
        runtime: &Runtime,
        (board, number): (&ScriptedBoard, usize),
        config: &FleetConfig,
        settings: &Settings,
    ) -> Result<Self, StartError> {
        let unnamed = || format!("replica-{number}");
        let name = config.replica.clone().unwrap_or_else(unnamed);
        let board = board.clone();
        // On the runtime's own thread, which has the virtual time.
        let open: Box<OpenBoard> = Box::new(move |news| board.open(number, news));
        let place = (Placement::Shared, open);
        Self::start_on(runtime, (config, name), settings, place).await
    }

    async fn start_on(
        runtime: &Runtime,
        (config, name): (&FleetConfig, String),
        settings: &Settings,
        (placement, open): (Placement, Box<OpenBoard>),
    ) -> Result<Self, StartError> {
        let parts = Arc::new(Mutex::new(FleetParts::of(settings)));
        let timeout = config.timeout;
        let (config, known) = (config.clone(), Arc::clone(&parts));
        let make = move |now| {
            // Each life of the child is a replica of its own.
            let me = (ReplicaId(RandomState::new().hash_one(&name)), name.clone());
            let parts = known.acquire().clone();
            let mut model = FleetModel::new(me, config.clone(), now);
            model.configure(parts.dependencies, parts.fingerprint);
            model
        };
        let state = Arc::new(FleetState {
            runtime: runtime.weak(),
            model: Mutex::new(make(runtime.clock().now())),
            make: Box::new(make),
            open,
            requests: Mutex::default(),
            taken_back: Mutex::default(),
            timeout,
        });
        let for_child = Arc::clone(&state);
        // A crash of it concerns no dependency.
        let child = Child::permanent("fleet", move || FleetChild(Arc::clone(&for_child)))
            .placement(placement)
            .give_up(GiveUp::Retry);
        runtime.supervise(child).await?;
        Ok(Self { state, parts })
    }

    /// Applies the configuration of the dependencies after a reload. The section `fleet` itself stays
    /// as it was.
    pub fn follow(&self, settings: &Settings) {
        let parts = FleetParts::of(settings);
        *self.parts.acquire() = parts.clone();
        let mut model = self.state.model.acquire();
        model.configure(parts.dependencies, parts.fingerprint);
    }

    /// Returns the fleet as this replica sees it.
    #[must_use]
    pub fn status(&self) -> FleetStatus {
        self.state.model.acquire().status(self.now())
    }

    /// Returns the number of messages that this replica has sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.state.model.acquire().said_words
    }

    /// Sets the listener to the dependencies that an operator has closed or reset for the whole fleet
    /// at another replica. It must not block.
    #[cfg(feature = "admin")]
    pub(crate) fn on_taken_back(&self, heard: impl Fn(&str) + Send + Sync + 'static) {
        *self.state.taken_back.acquire() = Some(Arc::new(heard));
    }

    /// Returns the figures for the metrics.
    pub(crate) fn figures(&self) -> FleetFigures {
        let mut figures = self.state.model.acquire().figures(self.now());
        if let Some(runtime) = WeakRuntime::upgrade(&self.state.runtime) {
            for (name, ..) in &figures.dependencies {
                for (limit, view) in runtime.shared_limits(name) {
                    match limit.split_once('.') {
                        Some((of, _)) => {
                            let one = (name.clone(), of.to_owned(), view.counts);
                            figures.token_limits.push(one);
                        }
                        None => figures.rates.push((name.clone(), view.counts)),
                    }
                }
            }
        }
        figures
    }

    fn now(&self) -> breakerbox_policy::Time {
        let runtime = WeakRuntime::upgrade(&self.state.runtime);
        runtime.map_or(breakerbox_policy::Time::ZERO, |runtime| {
            runtime.clock().now()
        })
    }

    /// Gives a command of an operator to the whole fleet: `open`, `disable` and `shadow` stand on the
    /// board, `close` takes them off, and `close`, `reset` and `check` reach the other replicas that
    /// are connected. The caller carries out the last three here by itself.
    ///
    /// # Errors  [`BoardUnreached`]: nothing was said.
    pub(crate) async fn operate(
        &self,
        dependency: &str,
        command: &str,
        (reason, by): (&str, &str),
        for_: Option<Duration>,
    ) -> Result<(), BoardUnreached> {
        let (done, is_done) = oneshot::channel();
        let request = FleetRequest::Operate {
            dependency: dependency.to_owned(),
            command: command.to_owned(),
            reason: reason.to_owned(),
            by: by.to_owned(),
            for_,
            done,
        };
        self.ask(request).await?;
        match is_done.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(BoardUnreached),
        }
    }

    async fn ask(&self, request: FleetRequest) -> Result<(), BoardUnreached> {
        let child = self.state.requests.acquire().clone();
        let child = child.ok_or(BoardUnreached)?;
        child.send(request).await.map_err(|_| BoardUnreached)
    }

    /// Tells the other replicas that this one ends. Without it they notice after a few heartbeats.
    ///
    /// # Cancel safety   Dropped, they notice after a few heartbeats.
    pub async fn leave(&self) {
        let (done, is_done) = oneshot::channel();
        if self.ask(FleetRequest::Goodbye(done)).await.is_ok() {
            let _ = tokio::time::timeout(GOODBYE, is_done).await;
        }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Fleet").finish_non_exhaustive()
    }
}

fn part(settings: &Settings, name: &str, one: &DependencyConfig) -> MemberPart {
    let name_of_fleet = settings.fleet.as_ref().map_or("", |fleet| &fleet.name);
    let account = account(name_of_fleet, name, one);
    let mut fleet = one.fleet;
    if one.model.is_some() && account.is_empty() {
        // FLT-11: a limit of a caller's own key says nothing about the callers of other replicas.
        fleet.pauses = PauseSharing::Off;
    }
    MemberPart { fleet, account }
}

/// Returns a hash of the credentials that a dependency gets from us, keyed by fleet and dependency;
/// empty if it gets none.
fn account(fleet: &str, name: &str, one: &DependencyConfig) -> String {
    use sha2::{Digest as _, Sha256};
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for (header, secret) in &one.outbound.headers {
        secrets.push(header.to_ascii_lowercase().into_bytes());
        secrets.push(secret.expose().as_bytes().to_vec());
    }
    if let Some(key) = one.model.as_ref().and_then(|model| model.key.as_ref()) {
        secrets.push(b"key".to_vec());
        secrets.push(key.expose().as_bytes().to_vec());
    }
    let certificate = one.tls.as_ref().and_then(|tls| tls.cert.as_ref());
    for file in one.credentials.iter().chain(certificate) {
        // A file that cannot be read is told elsewhere.
        secrets.push(std::fs::read(file).unwrap_or_default());
    }
    if secrets.is_empty() {
        return String::new();
    }
    let mut hash = Sha256::new();
    for part in [b"breakerbox", fleet.as_bytes(), name.as_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    for secret in &secrets {
        hash.update((secret.len() as u64).to_le_bytes());
        hash.update(secret);
    }
    // FLT-16: no secret reaches the board. Half of the hash tells accounts apart.
    let digest = hash.finalize();
    digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Returns the host's name.
fn host_name() -> String {
    #[cfg(unix)]
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").ok();
    name.unwrap_or_else(|| "replica".to_owned())
}

/// Returns a fingerprint of the configuration that the replicas of one fleet share: the names and addresses of
/// their dependencies, and the limits that they have together. It does not depend on the build.
fn fingerprint(settings: &Settings) -> String {
    // FNV-1a, with 64 bits.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (name, one) in &settings.dependencies {
        let url = one.url.as_deref().unwrap_or_default();
        let limit = one.settings.rate_limit.as_ref();
        let limit = limit.filter(|_| one.settings.rate_sharing.is_some());
        // FLT-13: the replicas pace one number, each by the rate that it knows.
        let rate = limit.map_or_else(String::new, |limit| {
            format!("{:?} {}", limit.unit(), limit.burst)
        });
        let tokens = one.model.iter().flat_map(|model| &model.token_limits);
        let tokens = tokens.filter(|limit| limit.shared).map(|limit| {
            let of = limit.of.word();
            format!("{of} {} {:?} {}", limit.rate, limit.per, limit.burst)
        });
        let tokens: String = tokens.collect();
        let address = name.bytes().chain([0]).chain(url.bytes()).chain([0]);
        for byte in address.chain(rate.bytes()).chain(tokens.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}
