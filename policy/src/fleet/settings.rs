//! Settings of a replica for one dependency.

use std::time::Duration;

use super::ReplicaId;
use crate::Rate;

/// Effect of the evidence of other replicas on a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TripSharing {
    /// Own failures confirm it sooner, or a quorum opens it.
    #[default]
    Confirm,
    /// One replica's evidence opens it.
    Any,
    /// Nothing; this replica still publishes its own evidence.
    Off,
}

/// Number of replicas with evidence that opens the breakers of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// Share of the replicas that call the dependency.
    pub share: Rate,
    /// Minimum number of replicas with evidence.
    pub at_least: u32,
    /// Time for which a replica counts as one that calls the dependency, after its last call.
    pub within: Duration,
}

/// Settings of a replica for one dependency.
///
/// # Source  `[fleet]` and `[dependencies.NAME.fleet]` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FleetSettings {
    /// This replica.
    pub replica: ReplicaId,
    /// Effect of the evidence of others.
    pub trips: TripSharing,
    /// Share of a rule's own number that is enough beside the evidence of others.
    pub confirm: Rate,
    /// When evidence alone is enough.
    pub quorum: Quorum,
    /// Wait of a quorum for this replica's own outcomes.
    pub settle: Duration,
    /// Maximum wait for an answer of the board.
    pub timeout: Duration,
    /// Time for which a lease to probe holds.
    pub lease: Duration,
    /// Time for which a breaker that was closed by another replica's verdict stays suspicious.
    pub recovery_timeout: Duration,
}
