//! Options of one call.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Priority;

use crate::attempt_progress::AttemptProgress;
use crate::limits::metered::MeteredCall;
use crate::limits::session::Session;

/// Settings of one call that differ from its dependency's.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// Time limit of the whole call. The dependency's total timeout, and the deadline of the
    /// surrounding call, can only shorten it.
    pub timeout: Option<Duration>,
    /// Time for which the caller has waited before it makes the call, such as for the start of the
    /// dependency; it counts to `timeout` and to the dependency's total timeout.
    pub waited: Duration,
    /// Time limit of each attempt, in place of `timeout.attempt`; `None` leaves it to the
    /// dependency. The limits of the whole call can only shorten it.
    pub attempt: Option<Duration>,
    /// Maximum number of attempts that are made, in place of `retry.max_attempts`; `None` leaves it to
    /// the dependency. A refusal by the breaker is no attempt, before the first one and between two of
    /// them: with `retry.on_open` the call asks again, until the breaker has refused it
    /// `retry.max_attempts` times.
    pub max_attempts: Option<NonZeroU32>,
    /// Permission to execute the call twice; `None` leaves it to the dependency.
    pub idempotent: Option<bool>,
    /// Fingerprint for the quarantine; `None` leaves it to the dependency.
    pub fingerprint: Option<u64>,
    /// Priority among the calls that wait for a bulkhead slot.
    pub priority: Priority,
    /// True if the call takes one of the slots for writes (rule LIM-3); `None` leaves it to the
    /// dependency, and a closure is then no write.
    pub write: Option<bool>,
    /// Key of the breaker to use; `None` leaves it to the dependency.
    pub key: Option<Arc<str>>,
    /// Units of the rate limit that the call takes; `None` leaves it to the dependency.
    pub weight: Option<NonZeroU32>,
    /// Session that pays for the call, if any.
    pub session: Option<Session>,
    /// Progress from which the limits of the call's attempts count; `None` counts them from the
    /// start of each attempt. The total limit is never prolonged.
    pub progress: Option<AttemptProgress>,
    /// Amounts that each attempt reserves at metered limits before it takes its slot; `None` reserves
    /// nothing.
    pub metered: Option<MeteredCall>,
    /// Number by which the caller is told apart from others, such as a hash of its address; `None` if
    /// it is not known. Calls that one caller gives up, one after the other, are no hang of the
    /// dependency (rule HLT-1).
    pub caller: Option<NonZeroU64>,
}

impl CallOptions {
    /// Options of a call without any; nothing is moved or dropped for them.
    pub(crate) const fn usual() -> &'static Self {
        static USUAL: CallOptions = CallOptions {
            timeout: None,
            waited: Duration::ZERO,
            attempt: None,
            max_attempts: None,
            idempotent: None,
            fingerprint: None,
            priority: Priority::Normal,
            write: None,
            key: None,
            weight: None,
            session: None,
            progress: None,
            metered: None,
            caller: None,
        };
        &USUAL
    }
}
