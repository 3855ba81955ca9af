//! The actor runtime of Breakerbox: supervised workers, breaker actors and fallbacks on actix.
//!
//! The modules are listed in the order in which a call passes them. The kernel,
//! `breakerbox-policy`, decides; this package carries out. It is the only place that knows actix.

#![expect(
    clippy::disallowed_methods,
    reason = "every do_send is behind this package's own bounds and reply guards"
)]

// floors, from the ground up: each module knows only those above it in this list
mod sync;

mod clock;

mod nearest_word;

mod printable;

mod redact;

mod refusal_reason;

mod bulkhead_limit;

mod time_limit;

mod consumer_pause;

mod error;

mod event;

mod deadline;

mod verdict;

mod answer;

mod limits;

mod attempt_progress;

mod call_options;

mod state;

mod breaker;

mod dependency;

mod supervisor;

mod worker;

mod fallback;

mod call;

mod client;

mod consumer;

mod runtime;

// functions under the attribute
#[doc(hidden)]
pub mod attribute;

#[cfg(feature = "testing")]
pub mod testing;

pub use answer::{Answer, AnswerSource};
pub use attempt_progress::{AttemptProgress, ProgressHold};
pub use breaker::Breaker;
pub use breaker::active_probe::{ActiveProbe, ActiveProbeResult, ActiveProbeStatus};
#[doc(hidden)]
pub use breaker::fleet::{FleetBreaker, FleetView};
pub use breaker::message::Call;
pub use bulkhead_limit::BulkheadLimit;
pub use call::{Served, Streamed};
pub use call_options::CallOptions;
pub use client::{AnswerMemory, Client, Readiness, ReadinessObstacle};
pub use clock::Clock;
pub use consumer::{
    BrokenMessage, ConsumerHandle, ConsumerSettings, ConsumerStatus, DeadLetterFacts, Done, Job,
    JobDecoder, JobEncoder, MessageEnding, MessageResult, MessageSource, MessageTerms, MessageWork,
    ORIGIN, OutgoingMessage, QueueMessage, SourceError, SourceFuture, WorkAnswer, WorkEnd,
    WorkFuture, ask_for_message, dead_letter_text, ttl_of,
};
pub use consumer_pause::ConsumerPause;
pub use dependency::{CallContext, Dependency, TimeLimitExceeded};
pub use error::{CallError, Fault, Limit, NotExecutedReason, Refused, StartError, UnknownName};
pub use event::{
    AppliedReload, EVENT_HISTORY, Event, EventKind, EventListener, OPERATOR_EVENT_HISTORY,
};
pub use fallback::{
    ActorFallback, ByName, Fallback, FallbackCall, FallbackFuture, FallbackOutcome, FallbackRule,
    Fixed, RefreshGuard, ServeOn, StaleCache,
};
pub use limits::metered::{MeteredCall, MeteredLimit, MeteredShare};
#[doc(hidden)]
pub use limits::rate::share::{RateLink, SharedRateView};
pub use limits::session::Session;
#[doc(hidden)]
pub use nearest_word::{did_you_mean, nearest_word};
pub use printable::{printable, printable_json, printable_line};
pub use redact::redact;
pub use refusal_reason::RefusalReason;
#[doc(hidden)]
pub use runtime::WeakRuntime;
pub use runtime::builder::{
    AsyncFactory, DependencyBuilder, FallibleFactory, IntoFactory, NewDependency, PlainFactory,
};
pub use runtime::closures::{AnyClient, Closures};
pub use runtime::consumers::{JobConsumer, LimitedJobs};
pub use runtime::health::Health;
pub use runtime::orders::StandingOrder;
pub use runtime::outages::DependencyOutage;
pub use runtime::reload::{DependencyReload, ReloadReport};
pub use runtime::renewal::{RestartRefusal, WorkerRestart};
pub use runtime::replace::LeavingDependency;
pub use runtime::scope::ScopeGuard;
pub use runtime::status::{DependencyStatus, KeyStatus, WorkerStatus};
pub use runtime::{Runtime, RuntimeSettings};
pub use state::call_hold::{CallHold, OpenAnswer};
pub use state::counts::{CountsView, LatencyBuckets, RefusedBy};
pub use state::recorder::{AttemptRecord, OutcomeRecorder};
pub use state::totals::{LatencyView, RecentAnswers, TotalsView};
pub use supervisor::{
    Child, ChildRef, ChildStatus, DeathWatch, Group, GroupRef, Terminated, TreeNode, end_with,
};
pub use time_limit::TimeLimit;
pub use verdict::Verdict;
