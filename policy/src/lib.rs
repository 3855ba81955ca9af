//! The pure kernel of Breakerbox.
//!
//! Machines that decide: when a breaker opens, whether a call may be repeated, what a
//! supervisor does after a crash. Nothing here reads a clock, draws a random number, spawns,
//! sleeps or does IO: the time is an argument ([`Time`]), so is randomness ([`Random`]), and
//! what should happen is a returned value. The actors of `breakerbox-actors` carry it out.

mod rate;
mod time;

mod outcome;

mod classify;

mod settings;

mod window;

mod permit;

pub mod backoff;

mod breaker;

mod retry;

mod budget;

mod throttle;

mod bulkhead;

mod limit;

mod chaos;

pub mod supervision;

pub use breaker::{
    Author, Breaker, BreakerEvent, Cause, Command, HalfOpenView, IllegalTransition, Override,
    OverrideMode, Recorded, Refusal, RefusalState, State, Tally, TripReason, View,
};
pub use budget::Budget;
pub use bulkhead::{Admission, Bulkhead, Line, Partitions, Priority, Ticket, Turn};
pub use chaos::{Blow, Chaos, Strike};
pub use classify::{ClassifySettings, Symptom, Symptoms};
pub use limit::{AdaptiveLimit, AimdLimit, GradientLimit};
pub use outcome::{Class, Executed, Outcome};
pub use permit::{Permit, PermitKind};
pub use rate::{Random, Rate, RateError};
pub use retry::{Attempt, AttemptEnd, Retry, RetryDecision, StopReason};
pub use settings::{
    AdaptiveRule, AdaptiveSettings, BackoffSettings, BreakerSettings, BudgetSettings,
    BulkheadSettings, CancelledPolicy, ChaosSettings, DependencySettings, GiveUp, HalfOpenLimit,
    HalfOpenRule, HalfOpenSettings, HedgeDelay, HedgeSettings, Intensity, KeySettings, LostProbe,
    OpenTime, Placement, QuarantineSettings, QuotaReset, RateLimitSettings, RestartType,
    RetryJitter, RetrySettings, ThrottleSettings, TimeoutSettings, WhenAllDown, WhileRestarting,
    WindowKind, WorkerSettings,
};
pub use supervision::{PanicReport, StopCause};
pub use throttle::{Pause, PauseReason, Throttle};
pub use time::Time;
pub use window::{Counts, Window};
