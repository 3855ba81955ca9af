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

pub mod supervision;

pub use outcome::{Class, Outcome};
pub use rate::{Random, Rate, RateError};
pub use settings::{
    BackoffSettings, BreakerSettings, BudgetSettings, BulkheadSettings, CancelledPolicy,
    DependencySettings, GiveUp, HalfOpenRule, HalfOpenSettings, Intensity, LostProbe, OpenTime,
    Placement, QuarantineSettings, RestartType, RetryJitter, RetrySettings, TimeoutSettings,
    WhileRestarting, WindowKind, WorkerSettings,
};
pub use supervision::{PanicReport, StopCause};
pub use time::Time;
