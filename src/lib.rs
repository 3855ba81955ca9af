//! Breakerbox: an actor-based supervision runtime for the calls that a program makes to things it
//! does not control.
//!
//! Every external dependency gets its own breaker actor, its own supervised workers and its own
//! fallbacks, so that one failing dependency can neither hang, overload nor crash the rest.
//!
//! ```
//! use std::io;
//!
//! use breakerbox::prelude::*;
//!
//! struct Search; // owns the connection; each worker has one
//!
//! impl Dependency for Search {
//!     type Request = String;
//!     type Response = Vec<String>;
//!     type Error = io::Error;
//!
//!     // one attempt; retries, time limits and concurrency belong to the runtime
//!     async fn call(&self, query: String, _: &CallContext) -> Result<Vec<String>, io::Error> {
//!         Ok(vec![format!("the best match for {query:?}")])
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::start(RuntimeSettings::default()).await?;
//! let search = runtime
//!     .dependency("search")
//!     .workers(|| Search) // the factory, called again for each restart
//!     .fallback(StaleCache::new(Duration::from_secs(3600), 1000))
//!     .start()
//!     .await?;
//! let answer = search.ask("actors".to_owned()).await?;
//! assert_eq!(answer.source, AnswerSource::Primary);
//! runtime.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! An async function needs no type of its own: the attribute `#[protected("name")]` protects it.
//!
//! # Features
//!
//! | feature | contents | default |
//! | --- | --- | --- |
//! | `macros` | the attribute `#[protected]` | yes |
//! | `cli` | the command `breakerbox`, its log output, reloads; enables `admin`, `agents`, `fleet`, `gateway`, `recorder` | yes |
//! | `admin` | the admin side for a program of one's own: dashboard, metrics, API | by `cli` |
//! | `fleet` | replicas that act as one, over NATS | by `cli` |
//! | `gateway` | the gateway for callers in any language; enables `mcp`, `model` | by `cli` |
//! | `agents` | vector search, web search, a knowledge graph; enables `mcp` | by `cli` |
//! | `model` | language models: what answers, streams and requests say | by `cli` |
//! | `mcp` | servers that speak the Model Context Protocol | by `cli` |
//! | `recorder` | a file of all outcomes, for `breakerbox replay` | by `cli` |
//! | `otel` | traces and metrics for an OpenTelemetry collector; enables `admin`, `gateway` | no |
//! | `tower` | a layer for services of tower: hyper, tonic, axum | no |
//! | `reqwest` | verdicts on results of `reqwest`, and a middleware for its clients | no |
//! | `tonic` | verdicts on statuses of tonic | no |
//! | `testing` | virtual time and scripted dependencies | no |
//!
//! The library alone: `default-features = false, features = ["macros"]`.
//!
//! # Packages
//!
//! This crate is the facade. The runtime is in `breakerbox-actors`. The state machines are in
//! `breakerbox-policy`; this crate exports their settings, commands and views, not the machines.

pub mod config;

#[cfg(feature = "recorder")]
pub mod recorder;

#[cfg(feature = "agents")]
pub mod agents;

#[cfg(feature = "mcp")]
pub mod mcp;

#[cfg(feature = "model")]
pub mod model;

#[cfg(feature = "fleet")]
pub mod consume;

#[cfg(feature = "fleet")]
#[cfg_attr(
    not(feature = "admin"),
    expect(
        dead_code,
        reason = "the admin side alone gives commands and shows figures"
    )
)]
pub mod fleet;

#[cfg(feature = "fleet")]
mod nats;

#[cfg(any(feature = "admin", feature = "gateway"))]
mod rounded;

#[cfg(feature = "cli")]
pub mod reload;

#[cfg(any(feature = "admin", feature = "gateway"))]
mod sidecar;

#[cfg(any(feature = "tower", feature = "reqwest", feature = "tonic"))]
pub mod integrations;

// shared by the configuration and the models
mod model_api;

// shared by all of them
#[cfg(any(
    feature = "admin",
    feature = "fleet",
    feature = "mcp",
    feature = "recorder",
    feature = "reqwest"
))]
mod lock;

// shared by the gateway and the MCP servers
#[cfg(feature = "gateway")]
mod buffer_budget;

// shared by the HTTP clients
#[cfg(any(
    feature = "mcp",
    feature = "model",
    feature = "tower",
    feature = "reqwest"
))]
mod retry_after;

#[cfg(any(
    feature = "mcp",
    feature = "model",
    feature = "tower",
    feature = "reqwest",
    feature = "tonic"
))]
mod grpc_details;

#[cfg(feature = "mcp")]
mod tcp_connector;

#[cfg(feature = "mcp")]
mod unpooled_http;

#[cfg(feature = "mcp")]
mod tls;

// with all that they read
#[cfg(all(any(test, fuzzing), feature = "cli"))]
#[doc(hidden)]
pub mod fuzzing;

pub use actix;
#[doc(hidden)]
pub use breakerbox_actors::attribute;
#[cfg(feature = "testing")]
pub use breakerbox_actors::testing;
pub use breakerbox_actors::{
    ActiveProbe, ActiveProbeResult, ActiveProbeStatus, ActorFallback, Answer, AnswerMemory,
    AnswerSource, AnyClient, AppliedReload, AttemptProgress, AttemptRecord, Breaker, BrokenMessage,
    BulkheadLimit, ByName, Call, CallContext, CallError, CallHold, CallOptions, Child, ChildRef,
    ChildStatus, Client, Clock, Closures, ConsumerHandle, ConsumerPause, ConsumerSettings,
    ConsumerStatus, CountsView, DeadLetterFacts, DeathWatch, Dependency, DependencyBuilder,
    DependencyOutage, DependencyReload, DependencyStatus, Done, Event, EventKind, EventListener,
    Fallback, FallbackCall, FallbackFuture, FallbackOutcome, FallbackRule, Fault, Fixed, Group,
    GroupRef, Health, IntoFactory, Job, JobConsumer, KeyStatus, LatencyView, LeavingDependency,
    Limit, LimitedJobs, MessageEnding, MessageResult, MessageSource, MessageTerms, MessageWork,
    MeteredCall, MeteredLimit, MeteredShare, NewDependency, NotExecutedReason, OpenAnswer,
    OutcomeRecorder, OutgoingMessage, ProgressHold, QueueMessage, Readiness, ReadinessObstacle,
    RecentAnswers, RefreshGuard, RefusalReason, Refused, RefusedBy, ReloadReport, RestartRefusal,
    Runtime, RuntimeSettings, ScopeGuard, ServeOn, Served, Session, SourceError, SourceFuture,
    StaleCache, StandingOrder, StartError, Streamed, Terminated, TimeLimit, TimeLimitExceeded,
    TotalsView, TreeNode, UnknownName, Verdict, WorkAnswer, WorkEnd, WorkFuture, WorkerRestart,
    WorkerStatus, dead_letter_text, end_with,
};
#[cfg(feature = "macros")]
#[doc = include_str!("protected.md")]
pub use breakerbox_macros::protected;
pub use config::Settings;
#[cfg(feature = "admin")]
pub use sidecar::admin;
#[cfg(feature = "gateway")]
pub use sidecar::gateway;
#[cfg(feature = "otel")]
pub use sidecar::observe::otel;
#[cfg(feature = "cli")]
pub use sidecar::observe::telemetry;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use sidecar::{serve, simulated};

/// Settings, commands, views and events of the kernel. Its machines are in `breakerbox-policy`.
pub mod policy {
    pub use breakerbox_policy::supervision;
    pub use breakerbox_policy::{
        Acknowledgement, AdaptiveRule, AdaptiveSettings, AnswerCounts, BackoffSettings,
        BreakerAfter, BreakerCause, BreakerCommand, BreakerEvent, BreakerSettings, BudgetSettings,
        BulkheadSettings, CancelledPolicy, CauseKind, ChaosSettings, Class, ClassifySettings,
        CommandSource, ConfiguredOverride, CountedNoun, DeadReason, DependencySettings,
        EndedPermits, Executed, GiveUp, HalfOpenLimit, HalfOpenRule, HalfOpenSettings,
        HalfOpenView, HealthSettings, HedgeDelay, HedgeSettings, IllegalTransition, Intensity,
        KeySettings, LostProbe, MessageArrival, MessageCallEnd, MessageCallKind, MessageFate,
        MessageNotes, MessageRules, MessageStart, MessageTally, MeterRefusal, MeterSettings,
        NotedWork, OpenTime, Outage, OutageCause, OutageCondition, Outcome, Override, OverrideMode,
        PanicReport, PauseReason, PermitKind, Placement, Priority, ProbeNote, QuarantineSettings,
        QuotaReset, Rate, RateError, RateLimitSettings, RefusalState, RestartType, RetryJitter,
        RetrySettings, ReturnReason, RoundedDuration, SettingProblem, State, StopCause, Symptom,
        Symptoms, ThrottleSettings, Time, TimeoutSettings, TripReason, WhenAllDown,
        WhileRestarting, WindowCounts, WindowKind, WorkerSettings,
    };
}

/// Items that most programs need: `use breakerbox::prelude::*;`.
pub mod prelude {
    pub use std::time::Duration;

    pub use breakerbox_actors::{
        ActorFallback, Answer, AnswerSource, Breaker, Call, CallContext, CallError, CallOptions,
        Child, Client, Closures, Dependency, Event, EventKind, FallbackCall, FallbackRule, Fixed,
        Group, Runtime, RuntimeSettings, ServeOn, Session, StaleCache, Verdict,
    };
    pub use breakerbox_policy::{
        BreakerCommand, Class, DependencySettings, Executed, Priority, Symptom,
    };

    pub use crate::config::Settings;
    #[cfg(feature = "macros")]
    pub use crate::protected;
}

impl From<Settings> for RuntimeSettings {
    fn from(settings: Settings) -> Self {
        let dependencies = settings
            .dependencies
            .into_iter()
            .map(|(name, dependency)| (name, dependency.settings))
            .collect();
        Self {
            dependencies,
            ..Self::default()
        }
    }
}

#[cfg(feature = "recorder")]
impl Settings {
    /// Converts to runtime settings, with a recorder if `recorder.path` names a file.
    ///
    /// # Errors  The file, or the thread that writes it, cannot be created.
    pub fn into_runtime(self) -> std::io::Result<RuntimeSettings> {
        let config = self.recorder.clone();
        let mut settings = RuntimeSettings::from(self);
        if let Some(path) = config.path {
            let options = recorder::RecorderOptions {
                max_queue: usize::try_from(config.max_queue.get()).unwrap_or(usize::MAX),
                max_bytes: config.max_bytes,
            };
            let recorder = recorder::Recorder::create(path, options)?;
            settings.recorder = Some(std::sync::Arc::new(recorder));
        }
        Ok(settings)
    }
}

/// Compiles and runs the programs of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// Compiles the programs of the page on other libraries, and runs those that need no network.
#[cfg(all(
    doctest,
    feature = "tower",
    feature = "reqwest",
    feature = "tonic",
    feature = "testing"
))]
#[doc = include_str!("../docs/integration.md")]
pub struct IntegrationPage;

/// Compiles the program of the page on agent systems.
#[cfg(all(doctest, feature = "agents"))]
#[doc = include_str!("../docs/agents.md")]
pub struct AgentsPage;

/// Compiles and runs the programs of the page on language models.
#[cfg(all(doctest, feature = "agents"))]
#[doc = include_str!("../docs/models.md")]
pub struct ModelsPage;
