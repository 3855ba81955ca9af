//! The pure kernel of Breakerbox.
//!
//! Machines that decide: when a breaker opens, whether a call may be repeated, what a
//! supervisor does after a crash. Nothing here reads a clock, draws a random number, spawns,
//! sleeps or does IO: the time is an argument ([`Time`]), so is randomness ([`Random`]), and
//! what should happen is a returned value. The actors of `breakerbox-actors` carry it out.

mod rate;
mod time;

mod outcome;

mod settings;

mod window;

mod permit;

pub mod backoff;

mod breaker;

mod retry;

mod budget;

mod bulkhead;

pub use breaker::{
    Author, Breaker, BreakerEvent, Cause, Command, HalfOpenView, IllegalTransition, Override,
    OverrideMode, Recorded, Refusal, RefusalState, State, Tally, TripReason, View,
};
pub use budget::Budget;
pub use bulkhead::{Admission, AimdLimit, Bulkhead, Partitions};
pub use outcome::{Class, Executed, Outcome};
pub use permit::{Permit, PermitKind};
pub use rate::{Random, Rate, RateError};
pub use retry::{Attempt, AttemptEnd, Retry, RetryDecision, StopReason};
pub use settings::{
    BackoffSettings, BreakerSettings, BudgetSettings, BulkheadSettings, CancelledPolicy,
    DependencySettings, GiveUp, HalfOpenLimit, HalfOpenRule, HalfOpenSettings, Intensity,
    LostProbe, OpenTime, Placement, QuarantineSettings, RestartType, RetryJitter, RetrySettings,
    TimeoutSettings, WhileRestarting, WindowKind, WorkerSettings,
};
pub use time::Time;
pub use window::{Counts, Window};
