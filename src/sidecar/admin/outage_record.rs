//! An outage as the API shows it and the file of `admin.state` keeps it.

use breakerbox_policy::{AnswerCounts, Outage, OutageEnding, ProbeNote};
use serde::{Deserialize, Serialize};

use super::AdminState;
use breakerbox_actors::redact;

/// An outage, in words and timestamps that hold beyond the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OutageRecord {
    pub(super) id: u64,
    pub(super) dependency: String,
    pub(super) since: String,
    /// `None` while it stands.
    pub(super) ended: Option<String>,
    /// `None` while it stands.
    pub(super) ended_by: Option<OutageEnd>,
    pub(super) cause: CauseRecord,
    /// Number of probes with a result.
    pub(super) probes: u64,
    pub(super) probes_failed: u64,
    pub(super) last_probe: Option<ProbeRecord>,
    pub(super) affected: AffectedCalls,
    pub(super) ack: Option<AckRecord>,
}

/// The reason why an outage is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutageEnd {
    /// The last of its conditions was gone.
    Recovery,
    /// No further call came; some of the calls before had got its answers.
    Silence,
    /// An operator has closed its breaker.
    Order,
    /// The dependency was removed meanwhile.
    Removal,
    /// The process has ended meanwhile; a further outage may have followed.
    Restart,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CauseRecord {
    pub(super) kind: String,
    pub(super) text: String,
    pub(super) status: Option<u16>,
    pub(super) limit: Option<String>,
    pub(super) rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProbeRecord {
    pub(super) at: String,
    pub(super) succeeded: bool,
    pub(super) text: String,
}

/// Answers to callers since the begin of an outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AffectedCalls {
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) by_fallback: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AckRecord {
    pub(super) by: String,
    pub(super) note: String,
    pub(super) at: String,
}

impl OutageRecord {
    /// The present record of an outage of this process.
    pub(super) fn of(inner: &AdminState, dependency: &str, outage: &Outage) -> Self {
        let stamp = |at| inner.stamps.of(at);
        let AnswerCounts {
            by_fallback,
            errors,
            ..
        } = outage.affected;
        let probe = |probe: &ProbeNote| ProbeRecord {
            at: stamp(probe.at),
            succeeded: probe.succeeded,
            text: redact(&probe.text).into_owned(),
        };
        Self {
            id: outage.id,
            dependency: dependency.to_owned(),
            since: stamp(outage.since),
            ended: outage.ended.map(stamp),
            ended_by: outage.ended_by.map(|by| match by {
                OutageEnding::Silence => OutageEnd::Silence,
                OutageEnding::Order => OutageEnd::Order,
                _ => OutageEnd::Recovery,
            }),
            cause: CauseRecord {
                kind: outage.cause.kind.as_str().to_owned(),
                text: outage.cause.text.clone(),
                status: outage.cause.status,
                limit: outage.cause.limit.map(str::to_owned),
                rule: outage.cause.rule.clone(),
            },
            probes: outage.probes,
            probes_failed: outage.probes_failed,
            last_probe: outage.last_probe.as_ref().map(probe),
            affected: AffectedCalls {
                calls: outage.affected.calls(),
                errors,
                by_fallback,
            },
            ack: outage.acknowledged.as_ref().map(|ack| AckRecord {
                by: ack.by.clone(),
                note: ack.note.clone(),
                at: stamp(ack.at),
            }),
        }
    }

    /// Returns true if the two differ in more than the figures of a standing outage, which change
    /// with each call.
    pub(super) fn differs(&self, other: &Self) -> bool {
        let shape = |one: &Self| (one.id, one.probes, one.ended.is_some(), one.ended_by);
        shape(self) != shape(other) || self.ack != other.ack
    }
}
