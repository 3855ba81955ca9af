//! A background call that refreshes an answer cached by the fallbacks.

use std::sync::Arc;

use super::plan::Plan;
use super::retry::sleep;
use super::{CallOptions, Completed, closed_to_new, end_outage, primary};
use crate::client::Core;
use crate::dependency::Dependency;
use crate::totals::{CallRecord, CallResult};

/// Calls the dependency once more, through every layer but the fallbacks. It is counted as a call
/// of its own.
///
/// Waits while the breaker is open: this call is then the breaker's probe, so that no caller pays
/// for the probe with a slow or failed call.
///
/// # Cancel safety   Dropped while it waits, the call was never made. Dropped later, it is counted
/// as cancelled.
pub(crate) async fn refresh<D: Dependency>(core: &Arc<Core<D>>, request: D::Request) {
    let shared = &core.shared;
    let options = CallOptions::default();
    let plan = |request| Plan::of_request::<D>(shared, &options, request);
    let circuit = plan(&request).circuit;
    while let Some(shut) = shared.refuses(circuit.as_ref()) {
        let Some(wait) = shut.retry_after() else {
            // Forced open, for an unknown time.
            return;
        };
        sleep(shared, wait).await;
    }
    let is_paused = shared.pauses.now(shared.clock.now()).is_some();
    if is_paused || closed_to_new(shared).is_some() {
        return;
    }
    let entry = CallRecord::open(&**shared);
    let plan = plan(&request);
    let mut kept = Some(request.clone());
    let (result, _) = primary(core, request, &mut kept, &plan).await;
    entry.close(match result {
        Ok(Completed { value, at }) => {
            if let Some(request) = &kept {
                core.fallbacks.remember(request, &value, at);
            }
            end_outage(shared);
            CallResult::Primary
        }
        Err(lost) if lost.error.is_refusal() => CallResult::Refused,
        Err(_) => CallResult::Failed,
    });
}
