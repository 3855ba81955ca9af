//! Inputs and outputs of a replica's machine.

use std::time::Duration;

use crate::{BreakerCommand, Suspicion, Time};

/// A replica of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

/// The revision of a key on the board; each write of any key has a larger one than all before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// Result of a half-open period under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The dependency is well again.
    Recovered,
    /// The probe failed.
    Failed {
        /// Time to wait before the next probe.
        wait: Duration,
        /// Number of half-open periods in a row that have failed.
        failed_periods: u32,
    },
}

/// A word on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetWord {
    /// A replica's own outcomes have opened its breaker.
    Evidence {
        /// The replica.
        replica: ReplicaId,
        /// Its open time when it wrote this.
        wait: Duration,
        /// The revision.
        revision: Revision,
    },
    /// A replica's evidence was taken back.
    NoEvidence {
        /// The replica.
        replica: ReplicaId,
        /// The revision.
        revision: Revision,
    },
    /// A replica holds the lease to probe.
    Lease {
        /// The replica.
        holder: ReplicaId,
        /// The revision.
        revision: Revision,
    },
    /// The holder's verdict, in the place of its lease.
    Verdict {
        /// The replica.
        by: ReplicaId,
        /// The result.
        verdict: Verdict,
        /// The revision.
        revision: Revision,
    },
}

/// State of this replica's own breaker, as far as the fleet is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnBreaker {
    /// Closed.
    Closed,
    /// Open by a rule of its own.
    Open,
    /// Open because of the evidence of others.
    Adopted,
    /// Half-open.
    HalfOpen,
}

/// An event that the machine takes into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetInput {
    /// The board is reached, and its present words are about to be heard.
    Connected,
    /// The board is not reached any more.
    Disconnected,
    /// A word on the board.
    Heard {
        /// The word.
        word: FleetWord,
        /// Its age by the board's clock; zero for one that arrives live.
        age: Duration,
    },
    /// A heartbeat of another replica.
    Present {
        /// The replica.
        replica: ReplicaId,
        /// True if it has called the dependency since its last heartbeat.
        calls: bool,
    },
    /// A replica has ended, or has been silent for too long.
    Gone(ReplicaId),
    /// A call of this replica succeeded.
    Succeeded {
        /// Time at which it began.
        began: Time,
    },
    /// The breaker opened by a rule of its own. Never for an adopted or commanded trip.
    Tripped {
        /// Its open time.
        wait: Duration,
    },
    /// The breaker opened because of [`BreakerCommand::Adopt`].
    Adopted,
    /// The breaker asks for the lease: its open time is over, and a caller is there.
    ProbeDue,
    /// The breaker is half-open.
    HalfOpen,
    /// True if the half-open breaker waits for a call: no probe is under way.
    Waits(bool),
    /// The half-open breaker opened again.
    ProbeFailed {
        /// Its open time.
        wait: Duration,
        /// Number of half-open periods in a row that have failed.
        failed_periods: u32,
    },
    /// The breaker closed.
    Closed {
        /// True if its own probes closed it.
        by_own_probe: bool,
    },
    /// The board's answer to [`FleetOutput::TakeLease`].
    Swapped(Result<Revision, Revision>),
    /// Time has passed.
    Tick,
}

/// An action for the machine's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetOutput {
    /// Write this replica's evidence.
    PutEvidence {
        /// Its open time from now.
        wait: Duration,
    },
    /// Delete this replica's evidence.
    TakeEvidenceBack,
    /// Write the lease if the key still has this revision, and report the new revision, or the
    /// present one, by [`FleetInput::Swapped`].
    TakeLease {
        /// The revision.
        expected: Revision,
    },
    /// Write the verdict if the key still has this revision.
    PutVerdict {
        /// The revision.
        expected: Revision,
        /// The verdict.
        verdict: Verdict,
    },
    /// Pass on to [`Breaker::suspect`](crate::Breaker::suspect).
    Suspect(Option<Suspicion>),
    /// Pass on to [`Breaker::command`](crate::Breaker::command).
    Breaker(BreakerCommand),
    /// Close the breaker by [`BreakerCommand::Recovered`], with the name of this replica.
    Recovered {
        /// The replica.
        by: ReplicaId,
    },
    /// Another replica has taken the lease from this one; its verdict comes too late.
    Fenced {
        /// The other replica.
        by: ReplicaId,
    },
    /// The board did not answer in time: the probe goes out without a lease.
    Alone,
}
