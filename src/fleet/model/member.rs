//! The record that a replica keeps of a dependency and of another replica, and the actions of its
//! model.

use std::collections::BTreeMap;
use std::time::Duration;

use breakerbox_actors::EventKind;
use breakerbox_policy::fleet::{FleetDependency, RateInput, RateNumber, ReplicaId, TripSharing};
use breakerbox_policy::{BreakerCommand, PauseReason, Suspicion, Time};

use super::super::board_word::{
    BoardKey, BoardWord, FleetOrder, ReplicaMessage, ReportedState, SharedLimitName,
};
use crate::config::DependencyFleet;

/// The configuration of a dependency, as far as the fleet needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MemberPart {
    pub(crate) fleet: DependencyFleet,
    /// A keyed hash of the credentials that it gets from us; empty for none.
    pub(crate) account: String,
}

/// An action for the model's owner.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    Put(BoardKey, BoardWord),
    /// A word for a key that has none.
    PutFirst(BoardKey, BoardWord),
    TakeOff(BoardKey),
    Swap(LeaseSwap),
    Say(ReplicaMessage),
    Suspect(String, Option<Suspicion>),
    /// A pause that another replica was asked for, and its name.
    Pause(String, (PauseReason, Duration), String),
    Command(String, BreakerCommand),
    /// An operator has closed or reset it for the whole fleet.
    TakenBack(String),
    /// An event for a limit that all replicas have together.
    Rate(SharedLimitName, RateInput),
    /// Number of live replicas, this one among them.
    Replicas(u32),
    /// An event of this subject.
    Tell(String, EventKind),
}

/// A swap of the key of a dependency's lease.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LeaseSwap {
    pub(crate) dependency: String,
    pub(crate) word: BoardWord,
    pub(crate) expected: u64,
}

impl LeaseSwap {
    pub(super) fn is_verdict(&self) -> bool {
        !matches!(self.word, BoardWord::Lease { .. })
    }
}

/// Counters of one dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct MemberCounts {
    pub(crate) confirm: u64,
    pub(crate) quorum: u64,
    pub(crate) any: u64,
    pub(crate) verdict: u64,
    pub(crate) leases_taken: u64,
    pub(crate) leases_held: u64,
    pub(crate) leases_alone: u64,
    pub(crate) fenced: u64,
    pub(crate) pauses: u64,
}

/// A verdict on a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenVerdict {
    pub(crate) by: String,
    pub(crate) has_recovered: bool,
}

/// One dependency, or one key of it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) machine: FleetDependency,
    pub(super) trips: TripSharing,
    /// The numbers by which the runtime has it; `None` while it has none of this name.
    pub(super) life: Option<(u64, u32)>,
    /// Attempts at the last heartbeat.
    pub(super) attempts: u64,
    pub(super) last_success: Option<Time>,
    /// The rule that opened it, in words.
    pub(super) rule: String,
    pub(crate) verdict: Option<SeenVerdict>,
    /// When the evidence of each replica was written, by this replica's clock.
    pub(crate) evidence: BTreeMap<ReplicaId, Time>,
    pub(crate) order: Option<FleetOrder>,
    pub(crate) order_until: Option<Time>,
    /// True while the order was not told since the board was reached.
    pub(super) is_order_old: bool,
    /// The pause that another replica was asked for, its end, and the replica's name.
    pub(super) pause: Option<(PauseReason, Time, String)>,
    /// The numbers of its shared limits on the board, by the names of the limits.
    pub(super) rates: BTreeMap<String, RateNumber>,
    pub(crate) counts: MemberCounts,
}

/// Another replica, or this one.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) seen: Time,
    pub(super) every: Duration,
    /// Number of its heartbeats.
    pub(super) heard: u64,
    pub(super) fingerprint: String,
    pub(crate) dependencies: BTreeMap<String, ReportedState>,
}
