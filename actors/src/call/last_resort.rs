//! The last resort of a call that the breaker refuses and no fallback answers: one attempt past the
//! breaker, if the settings allow it (`when_all_down = "try"`).
//!
//! The breaker is not asked and does not count the attempt. All inner layers apply.

use std::sync::Arc;

use breakerbox_policy::{Executed, Permit, Time};

use super::admit::{AdmissionProgress, AttemptPermits};
use super::attempt::{check_quarantine, send};
use super::drive::charge_attempt;
use super::plan::CallPlan;
use super::{Attempted, CompletedCall, FailedAttempt};
use crate::breaker::admission::{Admission, PermitGuard};
use crate::breaker::gate_decision::{RefusingGate, refusing_gate};
use crate::call::core::DependencyCore;
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::limits::metered::{MeteredShare, UnusedShares};
use crate::state::Shared;

/// Returns the request if a last resort is allowed: the breaker refused by its own judgement, and
/// the work was not executed.
pub(super) fn request<D: Dependency>(
    plan: &CallPlan<'_>,
    failed: &FailedAttempt<D::Response, D::Error>,
    kept: Option<&D::Request>,
) -> Option<D::Request> {
    let CallError::Open(refused) = &failed.error else {
        return None;
    };
    let may = plan.last_resort && refused.executed == Executed::No && !refused.after_attempt;
    kept.filter(|_| may).cloned()
}

/// Makes the one attempt. If it was not executed either, the call ends with the error it had.
///
/// # Errors  With the error, an answer that counts as a failure.
pub(super) async fn answer<D: Dependency>(
    core: &Arc<DependencyCore<D>>,
    request: Option<D::Request>,
    plan: &CallPlan<'_>,
    error: CallError<D::Error>,
) -> Result<D::Response, (CallError<D::Error>, Option<D::Response>)> {
    let Some(request) = request else {
        return Err((error, None));
    };
    let version = core.fallbacks.version();
    let kept = (!core.fallbacks.is_empty()).then(|| request.clone());
    match attempt(core, request, plan).await {
        Ok(CompletedCall { value, at }) => {
            if let Some(request) = kept.as_ref().filter(|_| at.is_success()) {
                let at = at.time();
                core.fallbacks.remember(version, request, &value, at);
            }
            Ok(value)
        }
        Err(failed) if failed.error.executed() == Executed::No => Err((error, failed.answer)),
        Err(failed) => Err((failed.error, failed.answer)),
    }
}

async fn attempt<D: Dependency>(
    core: &Arc<DependencyCore<D>>,
    request: D::Request,
    plan: &CallPlan<'_>,
) -> Attempted<D> {
    let shared = &core.shared;
    check_quarantine(shared, plan.fingerprint).map_err(FailedAttempt::refused)?;
    let now = shared.clock.now();
    let (mut permits, unused) = past_the_breaker(shared, plan, now).await?;
    charge_attempt(shared, plan, &mut permits)?;
    let shares = unused.map_or_else(Vec::new, UnusedShares::into_shares);
    let attempted = send(core, request, plan, (1, now), &mut permits).await;
    if let Err(failed) = &attempted
        && failed.error.executed() == Executed::No
    {
        shares.into_iter().for_each(MeteredShare::give_back);
    }
    // LLM-19: otherwise all of them count as used, for the amount is not known.
    attempted
}

/// Acquires permits without the breaker: one that is not recorded, a slot of the bulkhead, and the
/// amounts at metered limits.
async fn past_the_breaker<'a, T, E>(
    shared: &'a Shared,
    plan: &CallPlan<'_>,
    now: Time,
) -> Result<(AttemptPermits<'a>, Option<UnusedShares>), Box<FailedAttempt<T, E>>> {
    let mut progress = AdmissionProgress::new(now);
    loop {
        // An operator may have forced the breaker open meanwhile.
        let refusing = refusing_gate(shared, plan.key.as_ref());
        if let Some(refusing) = refusing.filter(RefusingGate::is_forced) {
            return Err(FailedAttempt::by_breaker(refusing.refusal()));
        }
        let now = shared.clock.now();
        let breaker = plan.key.as_deref().unwrap_or(&shared.breaker);
        let unrecorded = Permit::unrecorded(breaker.gate.read().tag(), now);
        let permit = PermitGuard::new(plan.key.clone(), unrecorded, now, plan.call_deadline());
        let mut admission = Admission::new(shared, permit);
        match progress.enter(shared, plan).await {
            Ok(Some(slot)) => {
                admission.mark_started(Some(progress.now()));
                let slot = Some(slot);
                let permits = AttemptPermits { slot, admission };
                return Ok((permits, progress.into_shares()));
            }
            Ok(None) => {
                admission.release();
                progress
                    .wait_out(shared, plan)
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
