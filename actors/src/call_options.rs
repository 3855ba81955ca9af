//! Options of one call.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Priority;

use crate::limits::session::Session;

/// What one call asks beyond its dependency's settings.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// Time for the whole call; the dependency's own total timeout, and the deadline of a call
    /// that this one is made for, can only shorten it.
    pub timeout: Option<Duration>,
    /// Whether it may be executed twice; `None` leaves it to the dependency.
    pub idempotent: Option<bool>,
    /// Its fingerprint for the quarantine; `None` leaves it to the dependency.
    pub fingerprint: Option<u64>,
    /// How much it matters beside others that wait for a place.
    pub priority: Priority,
    /// Whether it takes a place among the writes (rule LIM-3); `None` leaves it to the dependency,
    /// and a closure is none then.
    pub write: Option<bool>,
    /// Whose breaker it goes by; `None` leaves it to the dependency.
    pub key: Option<Arc<str>>,
    /// How much of the rate limit it takes; `None` leaves it to the dependency.
    pub weight: Option<NonZeroU32>,
    /// What it is paid from; `None` for nothing.
    pub session: Option<Session>,
}

impl CallOptions {
    /// What a call without options goes by; nothing is moved or dropped for it.
    pub(crate) const fn usual() -> &'static Self {
        static USUAL: CallOptions = CallOptions {
            timeout: None,
            idempotent: None,
            fingerprint: None,
            priority: Priority::Normal,
            write: None,
            key: None,
            weight: None,
            session: None,
        };
        &USUAL
    }
}
