//! A call without a waiting caller: it refreshes the answers that the fallbacks cache.

use std::sync::Arc;

use super::core::DependencyCore;
use super::plan::CallPlan;
use super::retry::sleep;
use super::{CompletedCall, ask_workers, closed_to_new, end_outage};
use crate::breaker::gate_decision::refusing_gate;
use crate::call_options::CallOptions;
use crate::dependency::Dependency;
use crate::state::call_record::{CallRecord, CallResult};

/// Asks the dependency once more, with every layer but the fallbacks. It is counted as a call of
/// its own.
///
/// It waits for an open breaker, and is then the call that probes the dependency, so that no
/// caller pays for the probe with a slow or a failed call.
///
/// # Cancel safety   Dropped while it waits, it was never made; dropped later, it is counted as
/// cancelled.
pub(crate) async fn refresh<D: Dependency>(core: &Arc<DependencyCore<D>>, request: D::Request) {
    let shared = &core.shared;
    let options = CallOptions::default();
    let plan = |request| CallPlan::of_request::<D>(shared, &options, request);
    let key = plan(&request).key;
    while let Some(refusing) = refusing_gate(shared, key.as_ref()) {
        let Some(wait) = refusing.retry_after() else {
            // Forced open, for an unknown time.
            return;
        };
        sleep(shared, wait).await;
    }
    let pauses = shared.pauses_of(key.as_deref());
    let is_paused = pauses.current(shared.clock.now()).is_some();
    if is_paused || closed_to_new(shared).is_some() {
        return;
    }
    let mut record = CallRecord::open(&**shared);
    // No caller waits for it.
    record.set_neutral();
    let plan = plan(&request);
    let version = core.fallbacks.version();
    let mut kept = Some(request.clone());
    match ask_workers(core, request, &mut kept, &plan).await.0 {
        Ok(CompletedCall { value, at }) => {
            if let Some(request) = kept.as_ref().filter(|_| at.is_success()) {
                core.fallbacks.remember(version, request, &value, at.time());
            }
            end_outage(shared);
            record.close(CallResult::Primary);
        }
        Err(failed) => record.close_failed(&failed.error),
    }
}
