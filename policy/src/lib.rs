//! The pure kernel of Breakerbox.
//!
//! State machines that decide when a breaker opens, whether a call may be repeated, and how a
//! supervisor reacts to a crash. Nothing here reads a clock, draws a random number, spawns, sleeps
//! or does IO. The time is an argument ([`Time`]), randomness is an argument ([`RandomSource`]), and each
//! decision is a returned value. The actors of `breakerbox-actors` carry it out.

mod rate;
mod text;
mod time;

mod symptom;

mod outcome;

mod classify;

mod health;

mod settings;

mod window;

mod permit;

mod backoff;

mod breaker;

mod retry;

mod budget;

mod throttle;

mod bulkhead;

mod limit;

mod meter;
mod room_log;

mod chaos;

mod consumer;

pub mod fleet;
mod outage;

pub mod supervision;

pub use breaker::{
    Breaker, BreakerCause, BreakerCommand, BreakerEvent, BreakerView, CommandSource, EndedPermits,
    HalfOpenView, IllegalTransition, Override, RecordResult, Refusal, RefusalState, State,
    Suspicion, TripReason,
};
pub use budget::Budget;
pub use bulkhead::{Priority, QueuePosition, Ticket, WaitQueue};
pub use chaos::{Chaos, FaultInjection, InjectedFault};
pub use classify::{ClassifySettings, Symptoms};
pub use consumer::{
    BreakerAfter, DeadReason, MessageArrival, MessageCallEnd, MessageCallKind, MessageFate,
    MessageNotes, MessageRules, MessageStart, MessageTally, NotedWork, ReturnReason, partition_of,
};
pub use health::{
    AnswerCounts, DOWN_MINIMUM_CALLS, HEALTH_MINIMUM_CALLS, HEALTH_SPAN, HealthSettings,
    ServiceLevel,
};
pub use limit::AdaptiveLimit;
pub use meter::{Meter, MeterRefusal, MeterSettings, Reservation};
pub use outage::{
    Acknowledgement, CauseKind, GIVE_UP_MINIMUM, HangFigures, OUTAGES_KEPT, Outage, OutageCause,
    OutageCondition, OutageEnding, OutageLog, ProbeNote, UnansweredCalls, limit_reached,
};
pub use outcome::{Class, Executed, Outcome};
pub use permit::{Permit, PermitKind};
pub use rate::{RandomSource, Rate, RateError};
pub use retry::{Attempt, AttemptEnd, Retry, RetryDecision, StopReason};
pub use settings::judgement::{self, SettingProblem};
pub use settings::{
    AdaptiveRule, AdaptiveSettings, BackoffSettings, BreakerSettings, BudgetSettings,
    BulkheadSettings, CancelledPolicy, ChaosSettings, ConfiguredOverride, DependencySettings,
    GiveUp, HalfOpenLimit, HalfOpenRule, HalfOpenSettings, HedgeDelay, HedgeSettings, Intensity,
    KeySettings, LostProbe, OpenTime, OverrideMode, Placement, ProbeLease, QuarantineSettings,
    QuotaReset, RateLimitSettings, RateSharing, RestartType, RetryJitter, RetrySettings,
    ThrottleSettings, TimeoutSettings, WhenAllDown, WhileRestarting, WindowKind, WorkerSettings,
};
pub use supervision::{PanicReport, StopCause};
pub use symptom::{FailureNote, Symptom};
pub use text::{ConfiguredSpan, CountedNoun, RoundedDuration};
pub use throttle::{Pause, PauseReason, Throttle};
pub use time::Time;
pub use window::{Window, WindowCounts};

/// Compiles and runs the program of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
