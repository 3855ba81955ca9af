//! Recorded events as JSON: the bounded history with its filters.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use breakerbox_policy::{BreakerCause, BreakerEvent, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::dependencies::millis;
use super::problem::AdminProblem;
use super::{Admin, AdminState};
use crate::sidecar::names::{dependency_of, event_kind, pause_name, state_name};
use crate::{AppliedReload, Event, EventKind};
use breakerbox_actors::{EVENT_HISTORY, OPERATOR_EVENT_HISTORY, redact};

/// Maximum number of events of one page: all that are kept.
const MAX_PAGE: usize = EVENT_HISTORY + OPERATOR_EVENT_HISTORY;

/// An event, as API clients see it.
#[derive(Debug, Serialize)]
pub(super) struct EventView {
    pub(super) id: u64,
    time: String,
    /// Time since the runtime's start.
    at_ms: u64,
    /// The dependency of the event.
    dependency: String,
    /// The dependency, one of its keys, or a child of its supervisor.
    subject: String,
    kind: &'static str,
    message: String,
    /// Number of earlier events that this one stands for.
    #[serde(skip_serializing_if = "is_zero")]
    folded: u64,
    /// Fields of this kind of event.
    details: Map<String, Value>,
}

/// Filter for the history.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventFilter {
    since: Option<u64>,
    dependency: Option<String>,
    kind: Option<String>,
    limit: Option<usize>,
    /// True to leave only the latest of the repeated probes of an outage, and no first starts.
    fold: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct EventPage {
    events: Vec<EventView>,
    /// Id of the latest event, for the next `since`.
    last_id: u64,
    /// True if events after `since` are already dropped from the history.
    incomplete: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DaysQuery {
    days: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct EventHistory {
    dependency: String,
    days: f64,
    /// Capacity of the history, shared by all dependencies.
    kept: usize,
    /// True if events of this period are already dropped from the history.
    incomplete: bool,
    events: Vec<EventView>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    wanted: Result<Query<EventFilter>, QueryRejection>,
) -> Result<Json<EventPage>, AdminProblem> {
    let Query(wanted) = wanted.map_err(|bad| bad_query(&bad))?;
    let since = wanted.since.unwrap_or(0);
    let limit = wanted.limit.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(AdminProblem::new(400, "bad-query", "limit is out of range")
            .given(limit.to_string())
            .allowed(format!("1 to {MAX_PAGE}")));
    }
    let all = admin.runtime().events_since(0);
    let last_id = all.last().map_or(0, |event| event.id);
    let fits = |event: &&Event| {
        let dependency = wanted.dependency.as_deref();
        event.id > since
            && dependency.is_none_or(|name| name == dependency_of(&event.subject))
            && wanted
                .kind
                .as_deref()
                .is_none_or(|kind| kind == event_kind(&event.kind))
    };
    let fitting: Vec<&Event> = all.iter().filter(fits).collect();
    let fitting = match wanted.fold {
        Some(true) => fold(&fitting),
        _ => fitting.into_iter().map(|event| (event, 0)).collect(),
    };
    // The latest events are the relevant ones.
    let cut = fitting.len().saturating_sub(limit);
    let events = fitting[cut..].iter().map(|(event, folded)| EventView {
        folded: *folded,
        ..view(&admin.inner, event)
    });
    Ok(Json(EventPage {
        events: events.collect(),
        last_id,
        incomplete: dropped_since(&all, since) > 0,
    }))
}

/// Leaves only the latest of the repeated probes of each outage, with the number of those before it,
/// and leaves out the first starts of actors.
fn fold<'a>(all: &[&'a Event]) -> Vec<(&'a Event, u64)> {
    let mut probes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut kept = Vec::new();
    // From the latest on: an outage's own events end a row of its probes.
    for event in all.iter().rev() {
        let subject: &str = &event.subject;
        match &event.kind {
            EventKind::Started { incarnation: 1 } => {}
            kind if kind.is_probe() => {
                let folded = probes.entry(subject).or_default();
                *folded += 1;
                if *folded == 1 {
                    kept.push((*event, 0));
                }
            }
            EventKind::Breaker(BreakerEvent::Transition { .. }) => {
                close_row(&mut kept, subject, probes.remove(subject));
                kept.push((*event, 0));
            }
            _ => kept.push((*event, 0)),
        }
    }
    for (subject, count) in probes {
        close_row(&mut kept, subject, Some(count));
    }
    kept.reverse();
    kept
}

/// Notes the length of a row of probes with the one that is kept.
fn close_row(kept: &mut [(&Event, u64)], subject: &str, count: Option<u64>) {
    let Some(count) = count else {
        return;
    };
    let mut kept = kept.iter_mut().rev();
    let probe = kept.find(|(event, _)| &*event.subject == subject && event.kind.is_probe());
    if let Some((_, folded)) = probe {
        *folded = count - 1;
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Returns the history of one dependency over a number of days, as far as it is kept.
pub(super) async fn of_days(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    days: Result<Query<DaysQuery>, QueryRejection>,
) -> Result<Json<EventHistory>, AdminProblem> {
    const RANGE: std::ops::RangeInclusive<f64> = 0.001..=3650.0;
    let Query(days) = days.map_err(|bad| bad_query(&bad))?;
    let days = days.days.unwrap_or(1.0);
    if !RANGE.contains(&days) {
        return Err(AdminProblem::new(400, "bad-query", "days is out of range")
            .given(days.to_string())
            .allowed("0.001 to 3650"));
    }
    if admin.runtime().status(&name).is_none() {
        return Err(AdminProblem::unknown_dependency(&admin, &name));
    }
    let span = Duration::from_secs_f64(days * 24.0 * 3600.0);
    let begin = Time::ZERO.after(admin.inner.stamps.now().since(Time::ZERO.after(span)));
    let all = admin.runtime().events_since(0);
    let forgotten = without_gap(&all)
        .first()
        .is_some_and(|first| first.id > 1 && first.at >= begin);
    let wanted = |event: &&Event| event.at >= begin && dependency_of(&event.subject) == name;
    let events = all.iter().filter(wanted);
    let events = events.map(|event| view(&admin.inner, event)).collect();
    Ok(Json(EventHistory {
        dependency: name,
        days,
        kept: EVENT_HISTORY,
        incomplete: forgotten,
        events,
    }))
}

/// Returns the number of events after `since` that are no longer in the history.
pub(super) fn dropped_since(all: &[Event], since: u64) -> u64 {
    let newest = all.last().map_or(0, |event| event.id);
    let kept = all.iter().filter(|event| event.id > since).count();
    newest.saturating_sub(since).saturating_sub(kept as u64)
}

/// Returns the latest events up to the newest gap: older ones are only those of operators.
pub(super) fn without_gap(all: &[Event]) -> &[Event] {
    let gap = all.windows(2).rposition(|pair| pair[0].id + 1 < pair[1].id);
    &all[gap.map_or(0, |gap| gap + 1)..]
}

pub(super) fn bad_query(bad: &QueryRejection) -> AdminProblem {
    AdminProblem::new(400, "bad-query", bad.body_text())
        .allowed("the parameters that /api/openapi.json describes")
}

pub(super) fn view(inner: &AdminState, event: &Event) -> EventView {
    EventView {
        id: event.id,
        time: inner.stamps.of(event.at),
        at_ms: event.at.as_millis(),
        dependency: dependency_of(&event.subject).to_owned(),
        subject: event.subject.to_string(),
        kind: event_kind(&event.kind),
        message: redact(&event.kind.to_string()).into_owned(),
        folded: 0,
        details: details(inner, &event.kind),
    }
}

fn details(inner: &AdminState, kind: &EventKind) -> Map<String, Value> {
    let text = |text: &dyn std::fmt::Display| redact(&text.to_string()).into_owned();
    let details = match kind {
        EventKind::Breaker(event) => return breaker(inner, event),
        EventKind::Started { incarnation } => json!({ "incarnation": incarnation }),
        EventKind::Ended { incarnation, cause } => {
            json!({ "incarnation": incarnation, "cause": text(cause) })
        }
        EventKind::RestartScheduled { after } => json!({ "after_ms": millis(*after) }),
        EventKind::Parked { cause, is_retried } => {
            json!({ "cause": text(cause), "retried": is_retried })
        }
        EventKind::GaveUp { cause } => json!({ "cause": text(cause) }),
        EventKind::Stuck { incarnation, for_ } => {
            json!({ "incarnation": incarnation, "for_ms": millis(*for_) })
        }
        EventKind::FallbackServing { fallback, why } => {
            json!({ "fallback": &**fallback, "why": text(why) })
        }
        EventKind::FallbackOver { served } => json!({ "served": served }),
        EventKind::Quarantined { fingerprint, ttl } => {
            json!({ "fingerprint": format!("{fingerprint:#x}"), "ttl_ms": millis(*ttl) })
        }
        EventKind::Paused {
            reason,
            for_,
            hint,
            by,
        } => json!({
            "reason": pause_name(*reason),
            "for_ms": millis(*for_),
            "hint_ms": hint.map(millis),
            "by": by.as_deref(),
        }),
        EventKind::HintCut { asked, believed } => json!({
            "asked_ms": millis(*asked),
            "believed_ms": millis(*believed),
        }),
        EventKind::ErrorShare {
            errors,
            calls,
            is_down,
        } => json!({ "errors": errors, "calls": calls, "down": is_down }),
        EventKind::NoAnswers { figures } => json!({
            "callers": figures.calls,
            "after_ms": millis(figures.after),
        }),
        EventKind::Reloaded { by, changed, waits } => {
            json!({ "by": by, "changed": changed, "waits": waits })
        }
        EventKind::ReloadApplied { by, report } => reload(by, report),
        EventKind::ReloadRefused { by, problems } => {
            json!({ "by": by, "problems": text(problems) })
        }
        EventKind::Chaos { by, settings } => json!({ "by": by, "on": settings.is_some() }),
        EventKind::Operated {
            command,
            by,
            reason,
            until,
        }
        | EventKind::OrderRestored {
            command,
            by,
            reason,
            until,
        } => json!({
            "command": command,
            "by": by,
            "reason": text(reason),
            "until": until.map(|until| inner.stamps.of(until)),
        }),
        EventKind::Removed { by } => json!({ "by": by }),
        EventKind::KeyForgotten { state } => json!({ "state": state_name(*state) }),
        other => of_fleet(other),
    };
    object(details)
}

/// Returns the details of a reload.
fn reload(by: &str, report: &AppliedReload) -> Value {
    json!({
        "by": by,
        "kept": report.kept,
        "restarted": report.restarted,
        "added": report.added,
        "removed": report.removed,
        "failed": report.failed,
    })
}

/// Returns the details of an event of a consumer.
fn consumer(kind: &EventKind) -> Value {
    match kind {
        EventKind::ConsumerPaused { consumer, reason } => {
            json!({ "consumer": &**consumer, "reason": reason.as_str() })
        }
        EventKind::ConsumerResumed { consumer } => json!({ "consumer": &**consumer }),
        EventKind::DeadLettered {
            consumer,
            id,
            reason,
            refused,
        } => json!({
            "consumer": &**consumer,
            "id": id,
            "reason": reason.as_str(),
            "refused": refused.as_deref().map(redact),
        }),
        EventKind::PoisonSuspected {
            consumer,
            id,
            place,
            probes,
        } => json!({ "consumer": &**consumer, "id": id, "place": place, "probes": probes }),
        _ => Value::Null,
    }
}

/// Returns the fields of an event of the fleet, or of a consumer.
fn of_fleet(kind: &EventKind) -> Value {
    match kind {
        EventKind::FleetJoined { fleet } => json!({ "fleet": fleet }),
        EventKind::FleetLost { fleet, reason } => {
            json!({ "fleet": fleet, "reason": redact(reason) })
        }
        EventKind::Adopted {
            how,
            by,
            replicas,
            of,
        } => json!({ "how": how, "by": by, "replicas": replicas, "of": of }),
        EventKind::Held { by, for_ } => json!({ "by": by, "for_ms": millis(*for_) }),
        EventKind::Fenced { by } => json!({ "by": by }),
        other => consumer(other),
    }
}

fn breaker(inner: &AdminState, event: &BreakerEvent) -> Map<String, Value> {
    let cause = |cause: &BreakerCause| redact(&cause.to_string()).into_owned();
    object(match event {
        BreakerEvent::Transition {
            from,
            to,
            generation,
            cause: why,
            retry_after,
            counts,
            ..
        } => json!({
            "from": from.to_string(),
            "to": to.to_string(),
            "generation": generation,
            "cause": cause(why),
            "retry_after_ms": retry_after.map(millis),
            "calls": counts.calls,
            "failures": counts.failures,
            "slow": counts.slow,
        }),
        BreakerEvent::HalfOpenProgress {
            successes, needed, ..
        } => json!({ "successes": successes, "needed": needed }),
        BreakerEvent::Overridden {
            mode,
            reason,
            by,
            until,
            ..
        } => json!({
            "mode": mode.to_string(),
            "reason": redact(reason),
            "by": by.to_string(),
            "until": until.map(|until| inner.stamps.of(until)),
        }),
        BreakerEvent::OverrideRemoved {
            mode, cause: why, ..
        } => json!({ "mode": mode.to_string(), "cause": cause(why) }),
        BreakerEvent::WouldTrip { reason, .. } => {
            json!({ "reason": redact(&reason.to_string()) })
        }
        BreakerEvent::Renewed {
            generation,
            cause: why,
            ..
        } => json!({ "generation": generation, "cause": cause(why) }),
        _ => Value::Null,
    })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
