//! The fleet as API clients see it.

use std::collections::BTreeMap;
use std::time::Duration;

use breakerbox_policy::Time;
use breakerbox_policy::fleet::RateCounts;
use serde::Serialize;

use super::board_word as word;
use super::model::keys::{hash_of, is_key};
use super::model::{FleetModel, Member, MemberCounts};

/// The fleet at one moment, as one of its replicas sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FleetStatus {
    /// Name of the fleet.
    pub name: String,
    /// True while the board is reached.
    pub connected: bool,
    /// Reason for which the board is not reached.
    pub reason: Option<String>,
    /// Name of this replica.
    pub replica: String,
    /// Time that its last heartbeat took to come back.
    pub round_trip_ms: Option<f64>,
    /// The live replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// The dependencies by name.
    pub dependencies: BTreeMap<String, SharedDependency>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// Its name for people.
    pub name: String,
    /// Its id, which no other life of it has.
    pub id: String,
    /// True for the one that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Time since its last heartbeat.
    pub seen_ms: u64,
    /// Its dependencies, as its last heartbeat told them.
    pub dependencies: BTreeMap<String, ReplicaDependency>,
}

/// A dependency of one replica.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ReplicaDependency {
    /// State of its breaker.
    pub state: String,
    /// True while the replica's own outcomes hold it open.
    pub evidence: bool,
    /// Age of that evidence.
    pub age_ms: Option<u64>,
}

/// A dependency of the whole fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SharedDependency {
    /// Number of replicas with evidence, this one among them.
    pub evidence: u32,
    /// The lease to probe, while one holds.
    pub lease: Option<LeaseStatus>,
    /// The verdict of the last lease.
    pub verdict: Option<VerdictStatus>,
    /// The override of the whole fleet: `open`, `disable` or `shadow`.
    #[serde(rename = "override")]
    pub order: Option<String>,
    /// Its keys with a word on the board, where `keys = "hashed"`.
    pub keys: Vec<SharedKey>,
}

/// A key of a dependency of the whole fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SharedKey {
    /// The key; `None` if no call has had it at this replica.
    pub key: Option<String>,
    /// Its hash on the board.
    pub hash: String,
    /// Number of replicas with evidence, this one among them.
    pub evidence: u32,
    /// The lease to probe, while one holds.
    pub lease: Option<LeaseStatus>,
    /// The verdict of the last lease.
    pub verdict: Option<VerdictStatus>,
}

/// A lease to probe.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LeaseStatus {
    /// The replica that holds it.
    pub holder: String,
    /// Time for which it still holds.
    pub left_ms: u64,
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct VerdictStatus {
    /// The replica that probed.
    pub by: String,
    /// `recovered` or `failed`.
    pub result: &'static str,
}

/// Counters and gauges for the metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct FleetFigures {
    pub(crate) is_connected: bool,
    pub(crate) replicas: usize,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    /// By dependency: replicas with evidence, and counters.
    pub(crate) dependencies: Vec<(String, u32, MemberCounts)>,
    /// Leases of shared rates, by dependency.
    pub(crate) rates: Vec<(String, RateCounts)>,
    /// Leases of shared token limits, by dependency and by the tokens that count.
    pub(crate) token_limits: Vec<(String, String, RateCounts)>,
}

impl FleetModel {
    /// Returns the fleet for API clients.
    pub(crate) fn status(&self, now: Time) -> FleetStatus {
        let members = self.members.iter().filter(|(name, _)| !is_key(name));
        let dependencies = members.map(|(name, one)| {
            let shared = SharedDependency {
                keys: self.shared_keys(now, name),
                ..self.shared(now, one)
            };
            (name.clone(), shared)
        });
        FleetStatus {
            name: self.fleet().to_owned(),
            connected: self.is_connected,
            reason: self.reason.clone(),
            replica: self.name.clone(),
            round_trip_ms: self.round_trip.map(|trip| trip.as_secs_f64() * 1000.0),
            replicas: self.replica_statuses(now),
            dependencies: dependencies.collect(),
        }
    }

    fn shared_keys(&self, now: Time, dependency: &str) -> Vec<SharedKey> {
        let names = self.names_with_keys(dependency);
        let keys = names.filter_map(|name| {
            let hash = hash_of(name)?.to_owned();
            let key = self.breaker_of(name).and_then(|of| of.key);
            let of = self.shared(now, self.members.get(name)?);
            Some(SharedKey {
                key: key.map(|key| key.to_string()),
                hash,
                evidence: of.evidence,
                lease: of.lease,
                verdict: of.verdict,
            })
        });
        keys.collect()
    }

    fn shared(&self, now: Time, member: &Member) -> SharedDependency {
        let lease = member
            .machine
            .lease(now)
            .filter(|_| member.verdict.is_none());
        SharedDependency {
            evidence: evidence(member, now),
            lease: lease.map(|(holder, left)| LeaseStatus {
                holder: self.name_of(holder),
                left_ms: word::millis(left),
            }),
            verdict: member.verdict.as_ref().map(|verdict| VerdictStatus {
                by: verdict.by.clone(),
                result: match verdict.has_recovered {
                    true => "recovered",
                    false => "failed",
                },
            }),
            order: member
                .order
                .as_ref()
                .filter(|_| member.order_until.is_none_or(|until| now < until))
                .map(|order| order.command.as_str().to_owned()),
            keys: Vec::new(),
        }
    }

    fn replica_statuses(&self, now: Time) -> Vec<ReplicaStatus> {
        let all = self.replicas.iter().map(|(id, one)| {
            let dependencies = one.dependencies.iter().map(|(name, said)| {
                let member = self.members.get(name);
                let stands = match member {
                    Some(one) if *id == self.me => one.machine.has_evidence(now),
                    Some(one) => one.machine.witnesses().any(|witness| witness == *id),
                    None => said.evidence,
                };
                let since = member
                    .and_then(|one| one.evidence.get(id))
                    .filter(|_| stands);
                let told = ReplicaDependency {
                    state: word::short(&said.state),
                    evidence: stands,
                    age_ms: since.map(|since| word::millis(now.since(*since))),
                };
                (name.clone(), told)
            });
            ReplicaStatus {
                name: one.name.clone(),
                id: word::id_text(*id),
                is_self: *id == self.me,
                seen_ms: word::millis(now.since(one.seen)),
                dependencies: dependencies.collect(),
            }
        });
        let mut all: Vec<ReplicaStatus> = all.collect();
        all.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        all
    }

    /// Returns the figures for the metrics.
    pub(crate) fn figures(&self, now: Time) -> FleetFigures {
        let members = self.members.iter().filter(|(name, _)| !is_key(name));
        let dependencies =
            members.map(|(name, one)| (name.clone(), evidence(one, now), one.counts));
        FleetFigures {
            is_connected: self.is_connected,
            replicas: self.live(),
            round_trip: self.round_trip,
            messages_in: self.heard_words,
            messages_out: self.said_words,
            dependencies: dependencies.collect(),
            rates: Vec::new(),
            token_limits: Vec::new(),
        }
    }
}

/// Returns the number of replicas with evidence, this one among them.
fn evidence(member: &Member, now: Time) -> u32 {
    member.machine.evidence() + u32::from(member.machine.has_evidence(now))
}
