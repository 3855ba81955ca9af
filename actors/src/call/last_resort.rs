//! What is left when the breaker refuses and nobody could stand in: one attempt past the breaker,
//! where the settings want it.
//!
//! The breaker is not asked and learns nothing. Everything further in holds.

use std::sync::Arc;

use breakerbox_policy::{Executed, Permit, Time};

use super::admit::{AdmissionProgress, AttemptPermits};
use super::attempt::{quarantine, send};
use super::plan::Plan;
use super::{Attempted, Completed, FailedAttempt};
use crate::admission::{Admission, PermitGuard, RefusingGate};
use crate::client::Core;
use crate::dependency::{Dependency, Shared};
use crate::error::CallError;

/// The request again, if this end of its call leaves room for a last resort: the breaker refused
/// by its own judgement, and the work was not executed.
pub(super) fn request<D: Dependency>(
    plan: &Plan<'_>,
    lost: &FailedAttempt<D::Error>,
    kept: Option<&D::Request>,
) -> Option<D::Request> {
    let CallError::Open(refused) = &lost.error else {
        return None;
    };
    let may = plan.last_resort && refused.executed == Executed::No;
    kept.filter(|_| may).cloned()
}

/// Makes the one attempt; where it was not executed, the call ends with the error it had.
pub(super) async fn answer<D: Dependency>(
    core: &Arc<Core<D>>,
    request: Option<D::Request>,
    plan: &Plan<'_>,
    error: CallError<D::Error>,
) -> Result<D::Response, CallError<D::Error>> {
    let Some(request) = request else {
        return Err(error);
    };
    let kept = (!core.fallbacks.is_empty()).then(|| request.clone());
    match attempt(core, request, plan).await {
        Ok(Completed { value, at }) => {
            if let Some(request) = &kept {
                core.fallbacks.remember(request, &value, at);
            }
            Ok(value)
        }
        Err(lost) if lost.error.executed() == Executed::No => Err(error),
        Err(lost) => Err(lost.error),
    }
}

async fn attempt<D: Dependency>(
    core: &Arc<Core<D>>,
    request: D::Request,
    plan: &Plan<'_>,
) -> Attempted<D> {
    let shared = &core.shared;
    quarantine(shared, plan.fingerprint).map_err(FailedAttempt::refused)?;
    let now = shared.clock.now();
    let mut leave = past_the_breaker(shared, plan, now).await?;
    send(core, request, plan, (1, now), &mut leave).await
}

/// Leave without the breaker's: under a permit that nobody measures, in a place of the bulkhead.
async fn past_the_breaker<'a, E>(
    shared: &'a Shared,
    plan: &Plan<'_>,
    now: Time,
) -> Result<AttemptPermits<'a>, Box<FailedAttempt<E>>> {
    let mut way = AdmissionProgress::new(now);
    loop {
        // An operator may have closed the way meanwhile.
        let shut = shared.refuses(plan.circuit.as_ref());
        if let Some(shut) = shut.filter(RefusingGate::is_forced) {
            return Err(FailedAttempt::by_breaker(shut.refusal()));
        }
        let now = shared.clock.now();
        let circuit = plan.circuit.as_deref().unwrap_or(&shared.circuit);
        let permit = Permit::unrecorded(circuit.gate.read().tag(), now);
        let held = PermitGuard::new(plan.circuit.clone(), permit, now, plan.deadline);
        let mut admission = Admission::new(shared, held);
        match way.enter(shared, plan).await {
            Ok(Some(place)) => {
                admission.mark_started(Some(way.now()));
                let place = Some(place);
                return Ok(AttemptPermits { place, admission });
            }
            Ok(None) => {
                admission.release();
                way.wait_out(shared, plan)
                    .await
                    .map_err(FailedAttempt::refused)?;
            }
            Err(error) => {
                admission.release();
                return Err(FailedAttempt::refused(error));
            }
        }
    }
}
