//! Probes that the program makes by itself, under permits of the breaker (rule BRK-13).
//!
//! They are no calls: no totals, no latencies and no limits know them. Only the breaker counts them.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Class, Permit, PermitKind, Time};

use super::gate::tag_of;
use super::judgement::{change, count, release};
use super::message::Report;
use crate::state::Shared;
use crate::verdict::Verdict;

/// A permit for one request that asks whether a dependency is well. Dropped, it is given back unused.
#[must_use = "without an end it counts for nothing"]
#[derive(Debug)]
pub struct ActiveProbe {
    shared: Arc<Shared>,
    permit: Option<Permit>,
    started: Time,
}

/// The active probes of a dependency so far, for its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveProbeStatus {
    /// The request, such as `GET /healthz`.
    pub request: String,
    /// Time between two probes while the breaker is closed.
    pub every: Duration,
    /// Number of probes with a result that counted.
    pub counted: u64,
    /// Number of failed ones among them.
    pub failed: u64,
    /// The latest one: its end, its result, and its result in words.
    pub last: Option<(Time, ActiveProbeResult, String)>,
}

/// Result of an active probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActiveProbeResult {
    /// The dependency is well.
    Succeeded,
    /// It is not.
    Failed,
    /// The answer says nothing about it, and counted for nothing.
    NotCounted,
}

impl ActiveProbe {
    /// Returns `None` if the breaker has no permit for it now.
    pub(crate) fn begin(shared: &Arc<Shared>) -> Option<Self> {
        let (permit, started) = change(shared, &None, |machine, now| {
            (machine.admit_active_probe(now), now)
        });
        let permit = permit?;
        // As the permits that calls have: see `judgement::acquire`.
        let permit = match permit.kind() {
            PermitKind::Normal => Permit::normal(tag_of(permit.generation()), started),
            PermitKind::Probe(_) | PermitKind::Unrecorded => permit,
        };
        Some(Self {
            shared: Arc::clone(shared),
            permit: Some(permit),
            started,
        })
    }

    /// Returns true if a half-open breaker waits for its result.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.permit.as_ref().is_some_and(Permit::is_probe)
    }

    /// Ends the probe: a success or a failure is counted by the breaker, and by nothing else; any
    /// other class gives the permit back.
    pub fn end(mut self, verdict: &Verdict) {
        let counts = matches!(verdict.class, Class::Success | Class::Failure);
        let Some(permit) = self.permit.take_if(|_| counts) else {
            return;
        };
        let shared = &self.shared;
        let elapsed = shared.clock.now().since(self.started);
        if verdict.class == Class::Failure {
            // HLT-2: an outage that it begins or prolongs has its symptom.
            shared.note_failure(verdict, elapsed);
        }
        let outcome = shared.outcome(verdict, elapsed);
        let report = Report {
            key: None,
            permit: Some(permit),
            outcome,
            counts_for_all: None,
            asked: verdict.retry_after,
            then: None,
        };
        count(shared, report);
    }
}

impl Drop for ActiveProbe {
    fn drop(&mut self) {
        // BRK-6: an unused permit frees its slot.
        if let Some(permit) = self.permit.take_if(|permit| permit.is_probe()) {
            release(&self.shared, &None, permit);
        }
    }
}
