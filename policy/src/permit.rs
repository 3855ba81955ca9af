//! Leave to make one call, as a value that its outcome must bring back.
//!
//! A permit remembers the generation that gave it, so that an outcome which comes late is
//! recognised whatever happened in between.

use crate::Time;

/// What a permit's outcome counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PermitKind {
    /// A call through a closed breaker (or one in shadow mode).
    Normal,
    /// A half-open breaker's trial call, by its number.
    Probe(u64),
    /// A call that was let through while the breaker was disabled: its outcome counts nowhere.
    Unrecorded,
}

/// Leave to make one call.
///
/// It is spent by [`crate::Breaker::record`] or [`crate::Breaker::release`], once: it can be
/// neither copied nor cloned. A probe that is forgotten instead is found by its lease.
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
    /// A normal permit, for gates that admit without asking the breaker.
    pub const fn normal(generation: u64, started: Time) -> Self {
        Self::new(generation, PermitKind::Normal, started)
    }

    /// A permit whose outcome counts nowhere, for gates of a disabled breaker.
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

    /// The generation that gave it.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What its outcome counts for.
    #[must_use]
    pub const fn kind(&self) -> PermitKind {
        self.kind
    }

    /// When it was given.
    #[must_use]
    pub const fn started(&self) -> Time {
        self.started
    }

    /// Whether it was given by a half-open breaker.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        matches!(self.kind, PermitKind::Probe(_))
    }
}
