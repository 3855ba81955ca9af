//! The actor runtime of Breakerbox: supervised workers, breaker actors and fallbacks on actix.
//!
//! The modules stand in the order in which a call meets them. The kernel, `breakerbox-policy`,
//! decides; this package carries out. It is the only place that knows actix.

#![expect(
    clippy::disallowed_methods,
    reason = "this package's own bounds and reply guards stand in front of every do_send"
)]

// a call's way
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

// a crash's way
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

// what they speak of
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

/// What the gate is made of, behind a name so that it can be compiled against loom's.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
}

pub use ambient::Entered;
pub use breaker::Breaker;
pub use builder::{DependencyBuilder, Eventually, Fallibly, IntoFactory, NewDependency, Plainly};
pub use call::{CallOptions, Served, Streamed};
pub use client::{Answer, Client, Source};
pub use clock::Clock;
pub use closures::{AnyClient, Closures};
pub use counts::{CountsView, LatencyBuckets, RefusedBy};
pub use dependency::{CallContext, Dependency, Late, TimeLimit, Verdict};
pub use error::{Absence, CallError, Fault, Limit, Refused, StartError};
pub use event::{EVENT_HISTORY, Event, EventKind};
pub use fallback::{
    ActorFallback, ByName, Fallback, FallbackCall, FallbackFuture, Fallen, Fixed, On, Rule,
    StaleCache, Turn,
};
pub use message::Call;
pub use notice::{Notice, SharedNotice};
pub use record::{Ended, Record};
pub use redact::redact;
pub use reload::{DependencyReload, ReloadReport};
pub use runtime::{Runtime, RuntimeSettings};
pub use session::Session;
pub use site::UnknownName;
pub use status::{DependencyStatus, Health, KeyStatus, WorkerStatus};
pub use supervisor::{
    Child, ChildRef, ChildStatus, Group, GroupRef, Terminated, TreeNode, Watch, end_with,
};
pub use totals::{LatencyView, TotalsView};
