//! Consumers of messages as API clients see them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use breakerbox_policy::{DeadReason, ReturnReason};
use serde::Serialize;

use super::{Admin, AdminState};
use crate::{ConsumerPause, ConsumerStatus};

/// A consumer, as API clients see it.
#[derive(Debug, Serialize)]
pub(super) struct ConsumerView {
    name: String,
    dependency: String,
    fetched: u64,
    redelivered: u64,
    answered: u64,
    in_flight: u64,
    pending: u64,
    /// Deliveries that were given back, by the reason.
    returned: BTreeMap<&'static str, u64>,
    /// Dead letters, by the reason.
    dead_letters: BTreeMap<&'static str, u64>,
    /// The reason why nothing is fetched at present.
    paused: Option<&'static str>,
    /// The last failure of the queue, while it stands.
    problem: Option<String>,
}

/// Reasons that belong to the state of the dependency.
pub(super) const BY_DEPENDENCY: &[ConsumerPause] = &[ConsumerPause::Breaker, ConsumerPause::Pause];

/// Reasons that an alert tells.
pub(super) const BY_ALERT: &[ConsumerPause] = &[
    ConsumerPause::Breaker,
    ConsumerPause::Pause,
    ConsumerPause::Actor,
];

/// A consumer that fetches nothing, beside the outage or the alert that tells it.
#[derive(Debug, Serialize)]
pub(super) struct PausedConsumer {
    name: String,
    /// The reason why nothing is fetched.
    reason: &'static str,
    /// Messages that wait.
    pending: u64,
}

/// Returns the consumers of a dependency that fetch nothing for one of these reasons.
pub(super) fn paused_consumers(
    inner: &AdminState,
    dependency: &str,
    reasons: &[ConsumerPause],
) -> Vec<PausedConsumer> {
    let consumers = inner.runtime.consumers().into_iter();
    let own = consumers.filter(|one| one.dependency == dependency);
    own.filter_map(|one| {
        let reason = one.paused.filter(|reason| reasons.contains(reason))?;
        Some(PausedConsumer {
            reason: reason.as_str(),
            pending: one.pending,
            name: one.name,
        })
    })
    .collect()
}

/// Handles `GET /api/consumers`.
pub(super) async fn list(State(admin): State<Admin>) -> Json<Vec<ConsumerView>> {
    let consumers = admin.runtime().consumers();
    Json(consumers.into_iter().map(view).collect())
}

fn view(one: ConsumerStatus) -> ConsumerView {
    let tally = one.tally;
    let returned = ReturnReason::ALL.map(|reason| (reason.as_str(), tally.returned(reason)));
    let dead = DeadReason::ALL.map(|reason| (reason.as_str(), tally.dead(reason)));
    ConsumerView {
        name: one.name,
        dependency: one.dependency,
        fetched: tally.fetched,
        redelivered: tally.redelivered,
        answered: tally.answered,
        in_flight: tally.in_flight,
        pending: one.pending,
        returned: returned.into(),
        dead_letters: dead.into(),
        paused: one.paused.map(|reason| reason.as_str()),
        problem: one.problem,
    }
}
