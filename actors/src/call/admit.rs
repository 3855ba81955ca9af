//! How a call gets leave to go out: from the breaker first, then from the bulkhead.

use std::sync::Arc;

use breakerbox_policy::{Executed, Time};

use super::Lost;
use crate::admission::{Admission, Passage};
use crate::bulkhead::{NoPlace, Place};
use crate::dependency::{Route, Shared};
use crate::error::{Absence, CallError};
use crate::reply::bounded;

/// Breaker, then bulkhead. Whatever is refused further in gives the permit back.
pub(super) async fn admit<E>(
    shared: &Shared,
    now: Time,
    deadline: Option<Time>,
) -> Result<(Admission<&Shared>, Place<'_>), Lost<E>> {
    if shared.route() == Route::Stopped {
        return Err(Lost::refused(absent(shared, Absence::ShuttingDown)));
    }
    let mut admission = permit(shared, now, deadline).await?;
    if let Some(place) = shared.bulkhead.try_enter() {
        admission.depart(None);
        return Ok((admission, place));
    }
    let place = match shared.bulkhead.enter(&shared.clock, deadline).await {
        Ok(place) => place,
        Err(reason) => {
            admission.release();
            return Err(Lost::refused(no_place(shared, now, reason)));
        }
    };
    while admission.is_overtaken() {
        admission.release();
        admission = permit(shared, shared.clock.now(), deadline).await?;
    }
    admission.depart(Some(shared.clock.now()));
    Ok((admission, place))
}

/// Leave by the breaker, from the gate alone where that is possible.
async fn permit<E>(
    shared: &Shared,
    now: Time,
    deadline: Option<Time>,
) -> Result<Admission<&Shared>, Lost<E>> {
    let refused = match shared.pass(now, deadline) {
        Passage::Granted(held) => return Ok(Admission::new(shared, held)),
        Passage::Refused(refused) => refused,
        Passage::AskBreaker => {
            // The breaker's thread may be blocked: the deadline holds all the same.
            let asked = bounded(&shared.clock, deadline, shared.ask_for_permit(deadline)).await;
            match asked {
                None => return Err(Lost::refused(no_place(shared, now, NoPlace::Deadline))),
                Some(Err(refused)) => refused,
                Some(Ok(admission)) => match admission.into_held() {
                    Some(held) => return Ok(Admission::new(shared, held)),
                    // An admission that was just given holds its permit.
                    None => shared.overtaken(now),
                },
            }
        }
    };
    Err(Lost::by_breaker(refused))
}

pub(super) fn no_place<E>(shared: &Shared, asked: Time, reason: NoPlace) -> CallError<E> {
    let dependency = Arc::clone(&shared.name);
    match reason {
        NoPlace::Overloaded => CallError::Overloaded {
            dependency,
            max_concurrent: shared.bulkhead.max_concurrent(),
            max_queue: shared.bulkhead.max_queue(),
        },
        NoPlace::Deadline => CallError::TimedOut {
            dependency,
            after: shared.clock.now().since(asked),
            executed: Executed::No,
        },
    }
}

pub(super) fn absent<E>(shared: &Shared, reason: Absence) -> CallError<E> {
    CallError::NotExecuted {
        dependency: Arc::clone(&shared.name),
        reason,
        retry_after: None,
    }
}
