//! A call that nobody waits for: it renews what the fallbacks keep.

use std::sync::Arc;

use super::plan::Plan;
use super::retry::sleep;
use super::{CallOptions, Done, closed_to_new, end_outage, primary};
use crate::client::Core;
use crate::dependency::Dependency;
use crate::totals::{Ending, Entry};

/// Asks the dependency once more, with every layer but the fallbacks, and in the books as a call
/// of its own.
///
/// An open breaker is waited for: then this call is what it tries the dependency with, and nobody
/// pays for it with a slow or a failed call.
///
/// # Cancel safety   Dropped while it waits, it was never made; dropped later, it is counted as
/// cancelled.
pub(crate) async fn renew<D: Dependency>(core: &Arc<Core<D>>, request: D::Request) {
    let shared = &core.shared;
    let options = CallOptions::default();
    let plan = |request| Plan::of_request::<D>(shared, &options, request);
    let circuit = plan(&request).circuit;
    while let Some(shut) = shared.refuses(circuit.as_ref()) {
        let Some(wait) = shut.retry_after() else {
            // Forced open, nobody knows for how long.
            return;
        };
        sleep(shared, wait).await;
    }
    let is_paused = shared.pauses.now(shared.clock.now()).is_some();
    if is_paused || closed_to_new(shared).is_some() {
        return;
    }
    let entry = Entry::open(&**shared);
    let plan = plan(&request);
    let mut kept = Some(request.clone());
    let (result, _) = primary(core, request, &mut kept, &plan).await;
    entry.close(match result {
        Ok(Done { value, at }) => {
            if let Some(request) = &kept {
                core.fallbacks.remember(request, &value, at);
            }
            end_outage(shared);
            Ending::Primary
        }
        Err(lost) if lost.error.is_refusal() => Ending::Refused,
        Err(_) => Ending::Failed,
    });
}
