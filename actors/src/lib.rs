//! The actor runtime of Breakerbox: supervised workers, breaker actors and fallbacks on actix.
//!
//! The modules are listed in the order in which a call passes them. The kernel,
//! `breakerbox-policy`, decides; this package carries out. It is the only place that knows actix.

#![expect(
    clippy::disallowed_methods,
    reason = "every do_send is behind this package's own bounds and reply guards"
)]

// path of a call
mod client;

mod call;

mod gate;

#[cfg(test)]
#[path = "gate/tests.rs"]
mod gate_tests;

mod admission;

mod terms;

mod throttle;

mod rate;

mod session;

mod setup;

mod bulkhead;

mod quarantine;

mod queue;

mod reply;

mod dependency;

mod circuit;

mod breaker;

mod record;

mod flight;

mod worker;

mod deadline;

mod chaos;

mod fallback;

// path of a crash
mod supervisor;

mod builder;

mod closures;

mod runtime;

mod reload;

// functions under the attribute
mod ambient;

mod site;

#[doc(hidden)]
pub mod attribute;

// shared types
mod message;

mod error;

mod notice;

mod event;

mod redact;

mod published;

mod status;

mod totals;

mod counts;

mod clock;

#[cfg(feature = "testing")]
pub mod testing;

/// The synchronization types of the gate, re-exported so that it can be compiled with loom's.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
}

pub use ambient::Entered;
pub use breaker::Breaker;
pub use builder::{DependencyBuilder, Eventually, Fallibly, IntoFactory, NewDependency, Plainly};
pub use call::{CallOptions, Served, Streamed};
pub use client::{Answer, AnswerSource, Client};
pub use clock::Clock;
pub use closures::{AnyClient, Closures};
pub use counts::{CountsView, LatencyBuckets, RefusedBy};
pub use dependency::{CallContext, Dependency, TimeLimit, TimeLimitExceeded, Verdict};
pub use error::{CallError, Fault, Limit, NotExecutedReason, Refused, StartError};
pub use event::{EVENT_HISTORY, Event, EventKind};
pub use fallback::{
    ActorFallback, ByName, Fallback, FallbackCall, FallbackFuture, FallbackOutcome, FallbackRule,
    Fixed, RefreshGuard, ServeOn, StaleCache,
};
pub use message::Call;
pub use notice::{RefusalReason, SharedNotice};
pub use record::{AttemptRecord, OutcomeRecorder};
pub use redact::redact;
pub use reload::{DependencyReload, ReloadReport};
pub use runtime::{Runtime, RuntimeSettings};
pub use session::Session;
pub use site::UnknownName;
pub use status::{DependencyStatus, Health, KeyStatus, WorkerStatus};
pub use supervisor::{
    Child, ChildRef, ChildStatus, DeathWatch, Group, GroupRef, Terminated, TreeNode, end_with,
};
pub use totals::{LatencyView, TotalsView};
