//! Replicas in this process: each a runtime of its own, with one dependency.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use breakerbox::config::Settings;
use breakerbox::fleet::{Fleet, FleetStatus};
use breakerbox::policy::State;
use breakerbox::prelude::*;

use crate::server::{NatsServer, until};

pub(crate) const DEP: &str = "dep";

/// The dependency of all replicas of a test, as it sees their calls.
#[derive(Debug, Default)]
pub(crate) struct Target {
    /// True while every call of any replica fails.
    pub(crate) is_down: AtomicBool,
    pub(crate) calls: AtomicU64,
    in_flight: AtomicU32,
    /// The most calls in flight at once since it was last set to 0.
    pub(crate) most: AtomicU32,
}

impl Target {
    async fn call(&self, is_cut_off: &AtomicBool) -> Result<(), &'static str> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let fails = self.is_down.load(Ordering::Relaxed) || is_cut_off.load(Ordering::Relaxed);
        if fails { Err("down") } else { Ok(()) }
    }
}

/// One replica.
pub(crate) struct Replica {
    pub(crate) runtime: Runtime,
    pub(crate) client: Client<Closures>,
    pub(crate) fleet: Fleet,
    pub(crate) target: Arc<Target>,
    /// True while its own network is broken.
    pub(crate) is_cut_off: Arc<AtomicBool>,
}

/// Settings of a replica; `more` is added to the section fleet.
pub(crate) fn settings(url: &str, name: &str, more: &str) -> Settings {
    settings_of(url, name, more, "200ms")
}

/// Settings of a replica with this `recovery_timeout`.
fn settings_of(url: &str, name: &str, more: &str, recovery: &str) -> Settings {
    let text = format!(
        "[fleet]\nservers = [\"{url}\"]\nreplica = \"{name}\"\nheartbeat = \"500ms\"\n{more}\n\
         [dependencies.dep.breaker]\nfailure_threshold = 5\nconsecutive_failures = \"off\"\n\
         recovery_timeout = \"{recovery}\"\n\
         recovery_backoff = {{ factor = 1.0, max = \"{recovery}\", jitter = 0.0 }}\n\
         probe_lease = \"30s\"\n[dependencies.dep.timeout]\nattempt = \"10s\"\n"
    );
    let loaded = Settings::loader().bare().toml(text).load();
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

impl Replica {
    pub(crate) async fn start(settings: Settings, target: &Arc<Target>) -> Self {
        let runtime = Runtime::start(settings.clone()).await.unwrap();
        let client = runtime.dependency(DEP).start().await.unwrap();
        let config = settings.fleet.as_ref().unwrap();
        let fleet = Fleet::start(&runtime, config, &settings).await.unwrap();
        Self {
            runtime,
            client,
            fleet,
            target: Arc::clone(target),
            is_cut_off: Arc::default(),
        }
    }

    /// Makes one call. Returns whether it reached the dependency and succeeded, and its time.
    pub(crate) async fn call(&self) -> (bool, Duration) {
        let begin = tokio::time::Instant::now();
        let attempt = || self.target.call(&self.is_cut_off);
        let answer = self.client.run(attempt).await;
        (answer.is_ok(), begin.elapsed())
    }

    pub(crate) fn state(&self) -> State {
        self.client.status().state
    }

    pub(crate) fn status(&self) -> FleetStatus {
        self.fleet.status()
    }

    /// Times at which its breaker went into a state, on the clock of all replicas.
    pub(crate) fn moves(&self, wanted: State) -> Vec<Duration> {
        use breakerbox::policy::BreakerEvent;
        // Each runtime's own clock begins at its start.
        static BEGIN: OnceLock<tokio::time::Instant> = OnceLock::new();

        let begin = BEGIN.get_or_init(|| tokio::time::Instant::now() - Duration::from_secs(3600));
        let shared = begin.elapsed();
        let now = self.runtime.clock().now();
        let events = self.runtime.events_since(0).into_iter();
        let moves = events.filter_map(|event| match event.kind {
            EventKind::Breaker(BreakerEvent::Transition { to, .. }) if to == wanted => {
                Some(shared.saturating_sub(now.since(event.at)))
            }
            _ => None,
        });
        moves.collect()
    }
}

/// Starts replicas, and waits until they know each other.
pub(crate) async fn start(server: &NatsServer, count: usize, more: &str) -> Vec<Replica> {
    start_of(server, count, more, "200ms").await
}

/// Starts replicas with this `recovery_timeout`, which know each other.
pub(crate) async fn start_of(
    server: &NatsServer,
    count: usize,
    more: &str,
    recovery: &str,
) -> Vec<Replica> {
    let target = Arc::new(Target::default());
    let mut replicas = Vec::new();
    for index in 0..count {
        let name = format!("replica-{index}");
        let settings = settings_of(&server.url(), &name, more, recovery);
        replicas.push(Replica::start(settings, &target).await);
    }
    for one in &replicas {
        until("all replicas know each other", || {
            let status = one.status();
            status.connected && status.replicas.len() == count
        })
        .await;
    }
    replicas
}

/// Longest time for which calls go on; with an `end` that never holds the test fails then.
const LONGEST: Duration = Duration::from_secs(120);

/// Lets each replica call every `pause` until `end` holds.
pub(crate) async fn traffic(
    replicas: &[Replica],
    pause: Duration,
    end: impl Fn() -> bool,
) -> Vec<Vec<(bool, Duration)>> {
    let latest = tokio::time::Instant::now() + LONGEST;
    let each = replicas.iter().map(async |one| {
        let mut calls = Vec::new();
        while !end() {
            let is_late = tokio::time::Instant::now() > latest;
            assert!(
                !is_late,
                "what the calls go on for does not come: {:?}",
                one.state()
            );
            calls.push(one.call().await);
            tokio::time::sleep(pause).await;
        }
        calls
    });
    futures_util::future::join_all(each).await
}

pub(crate) async fn stop(replicas: Vec<Replica>) {
    for one in replicas {
        one.fleet.leave().await;
        one.runtime.shutdown().await;
    }
}
