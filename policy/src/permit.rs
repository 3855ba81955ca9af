//! A permit for one call, as a value that is returned with the call's outcome.
//!
//! A permit carries the generation that issued it, so that a late outcome is recognised after any
//! number of transitions.

use crate::Time;

/// Kind of a permit, which decides the effect of its outcome.
///
/// Exhaustive on purpose: a gate that admits by itself must know each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PermitKind {
    /// A call through a closed breaker (or one in shadow mode).
    Normal,
    /// A trial call of a half-open breaker, with its number.
    Probe(u64),
    /// A call admitted while the breaker was disabled: its outcome is not counted.
    Unrecorded,
}

/// Permission to make one call.
///
/// [`crate::Breaker::record`] or [`crate::Breaker::release`] consumes it once: it can be neither
/// copied nor cloned. A probe that is dropped instead expires with its lease.
///
/// # Source  Rule BRK-3 in docs/rules.md; gobreaker's generations.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is neither recorded nor released keeps its place until its lease ends"]
pub struct Permit {
    generation: u64,
    kind: PermitKind,
    started: Time,
}

impl Permit {
    /// Returns a normal permit, for gates that admit without asking the breaker.
    pub const fn normal(generation: u64, started: Time) -> Self {
        Self::new(generation, PermitKind::Normal, started)
    }

    /// Returns a permit for an uncounted call, for gates of a disabled breaker.
    pub const fn unrecorded(generation: u64, started: Time) -> Self {
        Self::new(generation, PermitKind::Unrecorded, started)
    }

    pub(crate) const fn new(generation: u64, kind: PermitKind, started: Time) -> Self {
        Self {
            generation,
            kind,
            started,
        }
    }

    /// Returns the generation that issued it.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns its kind, which decides the effect of its outcome.
    #[must_use]
    pub const fn kind(&self) -> PermitKind {
        self.kind
    }

    /// Returns the time at which it was issued.
    #[must_use]
    pub const fn started(&self) -> Time {
        self.started
    }

    /// Returns true if a half-open breaker issued it.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        matches!(self.kind, PermitKind::Probe(_))
    }
}
