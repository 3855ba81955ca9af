//! What is left when the breaker refuses and nobody could stand in: one attempt past the breaker,
//! where the settings want it.
//!
//! The breaker is not asked and learns nothing. Everything further in holds.

use std::sync::Arc;

use breakerbox_policy::{Executed, Permit, Time, WhenAllDown};

use super::admit::no_place;
use super::{CallOptions, Lost, quarantine, send};
use crate::admission::{Admission, Held};
use crate::bulkhead::Place;
use crate::client::Core;
use crate::dependency::{Dependency, Shared};
use crate::error::CallError;
use crate::gate::Mode;

pub(super) fn is_wanted(shared: &Shared) -> bool {
    shared.settings.when_all_down == WhenAllDown::Try
}

/// The request again, if this end of its call leaves room for a last resort: the breaker refused
/// by its own judgement, and the work was not executed.
pub(super) fn request<D: Dependency>(
    shared: &Shared,
    lost: &Lost<D::Error>,
    kept: Option<&D::Request>,
) -> Option<D::Request> {
    let CallError::Open(refused) = &lost.error else {
        return None;
    };
    let may = is_wanted(shared) && refused.executed == Executed::No;
    kept.filter(|_| may).cloned()
}

/// Makes the one attempt; where it was not executed, the call ends with the error it had.
pub(super) async fn answer<D: Dependency>(
    core: &Arc<Core<D>>,
    request: Option<D::Request>,
    options: CallOptions,
    deadline: Option<Time>,
    error: CallError<D::Error>,
) -> Result<D::Response, CallError<D::Error>> {
    let Some(request) = request else {
        return Err(error);
    };
    let kept = (!core.fallbacks.is_empty()).then(|| request.clone());
    match attempt(core, request, options, deadline).await {
        Ok(value) => {
            if let Some(request) = &kept {
                core.fallbacks
                    .remember(request, &value, core.shared.clock.now());
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
    options: CallOptions,
    deadline: Option<Time>,
) -> Result<D::Response, Lost<D::Error>> {
    let shared = &core.shared;
    let fingerprint = options.fingerprint.or_else(|| D::fingerprint(&request));
    quarantine(shared, fingerprint).map_err(Lost::refused)?;
    let now = shared.clock.now();
    let admitted = past_the_breaker(shared, now, deadline).await?;
    send(core, request, fingerprint, 1, (now, deadline), admitted).await
}

/// Leave without the breaker's: under a permit that nobody measures, in a place of the bulkhead.
async fn past_the_breaker<E>(
    shared: &Shared,
    now: Time,
    deadline: Option<Time>,
) -> Result<(Admission<&Shared>, Place<'_>), Lost<E>> {
    let word = shared.gate.read();
    // An operator may have closed the way while the fallbacks were asked.
    if word.mode() == Mode::ForcedOpen {
        return Err(Lost::by_breaker(shared.overtaken(now)));
    }
    let held = Held::new(Permit::unrecorded(word.tag(), now), now, deadline);
    let admission = Admission::new(shared, held);
    match shared.bulkhead.enter(&shared.clock, deadline).await {
        Ok(place) => Ok((admission, place)),
        Err(reason) => {
            admission.release();
            Err(Lost::refused(no_place(shared, now, reason)))
        }
    }
}
