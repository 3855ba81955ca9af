//! Names of kinds, states and reasons, the same in the API and in metrics: they are a contract.

use breakerbox_policy::{BreakerEvent, PauseReason, State as Breaker};

use crate::{EventKind, Health};

/// Returns the dependency of an event's subject: `web` for `web[key]` and for `web/worker-1`.
pub(crate) fn dependency_of(subject: &str) -> &str {
    let end = subject.find(['[', '/']).unwrap_or(subject.len());
    &subject[..end]
}

/// Returns the name of an event kind, in the API and in metrics.
pub(crate) fn event_kind(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Breaker(event) => match event {
            BreakerEvent::Transition { .. } => "transition",
            BreakerEvent::HalfOpenProgress { .. } => "probe_succeeded",
            BreakerEvent::Overridden { .. } => "override_set",
            BreakerEvent::OverrideRemoved { .. } => "override_removed",
            BreakerEvent::WouldTrip { .. } => "would_trip",
            BreakerEvent::Renewed { .. } => "renewed",
            _ => "other",
        },
        EventKind::Started { .. } => "started",
        EventKind::Ended { .. } => "ended",
        EventKind::RestartScheduled { .. } => "restart_scheduled",
        EventKind::Parked { .. } => "parked",
        EventKind::GaveUp { .. } => "gave_up",
        EventKind::Stuck { .. } => "stuck",
        EventKind::FallbackServing { .. } => "fallback_serving",
        EventKind::FallbackOver { .. } => "fallback_over",
        EventKind::Quarantined { .. } => "quarantined",
        EventKind::Paused { .. } => "paused",
        EventKind::HintCut { .. } => "hint_cut",
        EventKind::Misconfigured { .. } => "misconfigured",
        EventKind::SetRight => "set_right",
        EventKind::QuotaBack => "quota_back",
        EventKind::KeyForgotten { .. } => "key_forgotten",
        EventKind::ErrorShare { .. } => "error_share",
        EventKind::ErrorsOver => "errors_over",
        EventKind::NoAnswers { .. } => "no_answers",
        EventKind::NoAnswersOver => "no_answers_over",
        EventKind::Reloaded { .. } => "reloaded",
        EventKind::ReloadApplied { .. } => "reload_applied",
        EventKind::ReloadRefused { .. } => "reload_refused",
        EventKind::Chaos { .. } => "chaos",
        EventKind::Operated { .. } => "operated",
        EventKind::OrderRestored { .. } => "order_restored",
        EventKind::Removed { .. } => "removed",
        EventKind::Draining => "draining",
        EventKind::ConsumerPaused { .. } => "consumer_paused",
        EventKind::ConsumerResumed { .. } => "consumer_resumed",
        EventKind::DeadLettered { .. } => "dead_lettered",
        EventKind::PoisonSuspected { .. } => "poison_suspected",
        EventKind::FleetJoined { .. } => "fleet_joined",
        EventKind::FleetLost { .. } => "fleet_lost",
        EventKind::Adopted { .. } => "adopted",
        EventKind::Held { .. } => "held",
        EventKind::Fenced { .. } => "fenced",
        _ => "other",
    }
}

/// Returns the name of a breaker's state, in the API and in metrics.
pub(crate) fn state_name(state: Breaker) -> &'static str {
    match state {
        Breaker::Closed => "closed",
        Breaker::Open => "open",
        Breaker::HalfOpen => "half_open",
    }
}

/// Returns the name of the reason for a pause.
pub(crate) fn pause_name(reason: PauseReason) -> &'static str {
    match reason {
        PauseReason::Throttled => "throttled",
        PauseReason::QuotaUsedUp => "quota_used_up",
        _ => "other",
    }
}

/// Returns a dependency's health as one word.
pub(crate) fn health_name(health: &Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Degraded { .. } => "degraded",
        Health::Down { .. } => "down",
    }
}
