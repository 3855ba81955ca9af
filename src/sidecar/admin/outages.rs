//! Outages as JSON, and the plain sentence that tells one.
//!
//! An outage and its alert are acknowledged together.

use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use breakerbox_policy::{
    CauseKind, CountedNoun, HEALTH_MINIMUM_CALLS, HEALTH_SPAN, Outage, OverrideMode,
    RoundedDuration, State as Breaker,
};
use serde::{Deserialize, Serialize};

use super::auth::{PeerAddress, author};
use super::consumers::{BY_DEPENDENCY, PausedConsumer, paused_consumers};
use super::dependencies::millis;
use super::events::bad_query;
use super::operate::{ChangeBody, read};
use super::outage_book::OutageBook;
use super::outage_record::OutageRecord;
use super::problem::AdminProblem;
use super::{Admin, AdminState};
use crate::sidecar::names::health_name;
use crate::{DependencyStatus, Health, KeyStatus, RecentAnswers};
use breakerbox_actors::redact;

/// An outage, as API clients see it.
#[derive(Debug, Serialize)]
pub(super) struct OutageView {
    #[serde(flatten)]
    record: OutageRecord,
    lasts_ms: u64,
    /// Number of calls since its begin that ended with an error; as in `affected`.
    failed: u64,
    /// Time until the next probe; `None` if none is planned.
    next_probe_ms: Option<u64>,
    waits_for_call: bool,
    /// The outage in a sentence; `None` once it has ended.
    line: Option<String>,
    /// Consumers of messages that fetch nothing because of it; none once it has ended.
    paused_consumers: Vec<PausedConsumer>,
}

/// The answers that callers got in the last seconds.
#[derive(Debug, Serialize)]
pub(super) struct AnswersView {
    span_ms: u64,
    calls: u64,
    own: u64,
    by_fallback: u64,
    errors: u64,
    /// Share of errors; `None` before `minimum_calls` calls.
    share: Option<f64>,
    minimum_calls: u64,
    per_second: f64,
    errors_per_second: f64,
}

/// Filter for the outages.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutageFilter {
    dependency: Option<String>,
    standing: Option<bool>,
}

/// Returns the outages that are kept: those that stand, then the ended ones, newest first.
pub(super) async fn list(
    State(admin): State<Admin>,
    wanted: Result<Query<OutageFilter>, QueryRejection>,
) -> Result<Json<Vec<OutageView>>, AdminProblem> {
    let Query(wanted) = wanted.map_err(|bad| bad_query(&bad))?;
    let fits = |one: &OutageRecord| {
        let name = wanted.dependency.as_deref();
        name.is_none_or(|name| name == one.dependency)
            && wanted
                .standing
                .is_none_or(|stands| stands == one.ended.is_none())
    };
    let mut all = admin.inner.outages.list(&admin.inner);
    all.retain(fits);
    let all = all.into_iter().map(|one| with_status(&admin, one));
    Ok(Json(all.collect()))
}

/// Notes that an operator looks after an outage, and acknowledges its alert.
pub(super) async fn acknowledge(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    peer: Option<Extension<PeerAddress>>,
    body: ChangeBody,
) -> Result<Json<OutageView>, AdminProblem> {
    let note = read(body)?.reason;
    let by = author(peer.map(|peer| peer.0));
    let unknown = || {
        AdminProblem::new(404, "unknown-outage", "no outage has this id")
            .given(&*id)
            .allowed("the ids that /api/outages lists")
    };
    let number: u64 = id.parse().map_err(|_| unknown())?;
    let runtime = admin.runtime();
    let name = runtime.acknowledge_outage(number, &by, &note);
    let is_present = name.is_some();
    let kept = &admin.inner.outages;
    let name = name.or_else(|| kept.acknowledge(&admin.inner, number, (&by, &note)));
    let name = name.ok_or_else(unknown)?;
    if is_present {
        let kept = runtime.outages().into_iter();
        let found = kept.map(|one| one.outage).find(|one| one.id == number);
        let outage = found.ok_or_else(unknown)?;
        admin.alerts().acknowledge_with(&name, &outage, &by, &note);
    }
    runtime.note_operation(&name, "acknowledge", &by, &note);
    // HLT-3: in the file before the answer.
    OutageBook::write(&admin.inner).await;
    let all = kept.list(&admin.inner);
    let found = all.into_iter().find(|one| one.id == number);
    Ok(Json(with_status(&admin, found.ok_or_else(unknown)?)))
}

/// Shows an outage, with the present state of its dependency if it stands.
fn with_status(admin: &Admin, record: OutageRecord) -> OutageView {
    let stands = record.ended.is_none();
    let status = stands.then(|| admin.runtime().status(&record.dependency));
    let shown = status.flatten().map(super::dependencies::shown);
    shown_record(&admin.inner, record, shown.as_ref())
}

/// Shows an outage. `status`: the state of its dependency, if it stands.
pub(super) fn view(
    inner: &AdminState,
    name: &str,
    outage: &Outage,
    status: Option<&DependencyStatus>,
) -> OutageView {
    shown_record(inner, OutageRecord::of(inner, name, outage), status)
}

fn shown_record(
    inner: &AdminState,
    record: OutageRecord,
    status: Option<&DependencyStatus>,
) -> OutageView {
    let now = inner.stamps.of(inner.stamps.now());
    let until = record.ended.as_deref().unwrap_or(&now);
    OutageView {
        lasts_ms: span_ms(&record.since, until),
        failed: record.affected.errors,
        next_probe_ms: status.and_then(next_probe).map(millis),
        waits_for_call: status.is_some_and(waits_for_call),
        line: status.and_then(|status| line(inner, status)),
        paused_consumers: match status {
            Some(_) => paused_consumers(inner, &record.dependency, BY_DEPENDENCY),
            None => Vec::new(),
        },
        record,
    }
}

/// Returns the time between two timestamps.
fn span_ms(since: &str, until: &str) -> u64 {
    let parsed = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let span = parsed(since).zip(parsed(until));
    let span = span.map_or(0, |(since, until)| until.duration_since(since).as_millis());
    u64::try_from(span).unwrap_or(0)
}

/// Shows the answers of the last seconds.
pub(super) fn answers(recent: &RecentAnswers) -> AnswersView {
    let counts = recent.counts;
    // Without calls it stays the same, so that a view of an idle dependency does not change.
    let span = match counts.calls() {
        0 => HEALTH_SPAN,
        _ => recent.span,
    };
    AnswersView {
        span_ms: millis(span),
        calls: counts.calls(),
        own: counts.own,
        by_fallback: counts.by_fallback,
        errors: counts.errors,
        share: counts.share().map(three_places),
        minimum_calls: HEALTH_MINIMUM_CALLS,
        per_second: per_second(recent.calls, recent),
        errors_per_second: per_second(counts.errors, recent),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn per_second(count: u64, recent: &RecentAnswers) -> f64 {
    // By the whole record: one that begins anew at a recovery would make each call a high rate.
    three_places(count as f64 / recent.over.as_secs_f64().max(1.0))
}

/// Rounds a number for programs and people.
fn three_places(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn next_probe(status: &DependencyStatus) -> Option<Duration> {
    // BRK-13: no probe is made of a breaker that an order has taken out.
    let is_out = status
        .overridden
        .as_ref()
        .is_some_and(|set| matches!(set.mode, OverrideMode::Disabled | OverrideMode::Shadow));
    let is_open = status.state == Breaker::Open && !is_out;
    let own = status.retry_after.filter(|_| is_open);
    own.or_else(|| sick_keys(status).filter_map(open_time).min())
}

/// Returns true if nothing tries the dependency before the next call.
fn waits_for_call(status: &DependencyStatus) -> bool {
    // BRK-13: while another key is open, its open time is what comes next.
    let is_untried = |key: &KeyStatus| key.waits_for_call;
    status.waits_for_call
        || sick_keys(status).any(is_untried) && sick_keys(status).find_map(open_time).is_none()
}

/// Returns the keys with breakers that have not recovered, if an outage is one of calls with a key:
/// the dependency's own breaker lets them through, and no order holds for all.
fn sick_keys(status: &DependencyStatus) -> impl Iterator<Item = &KeyStatus> {
    let is_of_keys =
        status.outage.is_some() && status.state == Breaker::Closed && status.overridden.is_none();
    let is_sick = |key: &&KeyStatus| key.state != Breaker::Closed && key.overridden.is_none();
    status
        .keys
        .iter()
        .filter(is_sick)
        .filter(move |_| is_of_keys)
}

/// Returns the rest of a key's open time.
fn open_time(key: &KeyStatus) -> Option<Duration> {
    key.retry_after.filter(|_| key.state == Breaker::Open)
}

/// Returns a sentence on a dependency that is not well: its health, for how long, the cause, what
/// callers get, and the next probe. `None` if there is nothing to tell.
pub(super) fn line(inner: &AdminState, status: &DependencyStatus) -> Option<String> {
    let reason = match &status.health {
        Health::Ok => None,
        Health::Degraded { reason } | Health::Down { reason } => Some(reason),
    };
    if reason.is_none() && status.outage.is_none() {
        return None;
    }
    let mut line = match reason {
        Some(_) => health_name(&status.health).to_owned(),
        None => "recovering".to_owned(),
    };
    // HLT-2: an outage is told with its begin and its first cause, also after later ones.
    match (&status.outage, reason) {
        (Some(outage), _) => {
            let lasts = RoundedDuration(inner.stamps.now().since(outage.since));
            append(&mut line, " ", &lasts.to_string());
            append(&mut line, ": ", &cause(outage, status));
        }
        (None, Some(reason)) => append(&mut line, ": ", reason),
        (None, None) => {}
    }
    append(&mut line, "; ", &got(&status.answers));
    if let Some(next) = next_of(status) {
        append(&mut line, "; ", &next);
    }
    Some(redact(&line).into_owned())
}

fn append(line: &mut String, before: &str, text: &str) {
    line.push_str(before);
    line.push_str(text);
}

/// Returns the cause of an outage, with the override that has followed it.
fn cause(outage: &Outage, status: &DependencyStatus) -> String {
    let mut text = outage.cause.text.clone();
    if outage.cause.kind == CauseKind::Other {
        append(&mut text, ", ", &outage.cause.rule);
    }
    // The order that is the cause has said its reason.
    let is_said = outage.cause.kind == CauseKind::Ordered;
    let set = status.overridden.as_ref();
    if let Some(set) = set.filter(|set| !(status.parked || is_said && text.contains(&set.reason))) {
        append(
            &mut text,
            "; ",
            &format!("{} by {}: {}", set.mode, set.by, set.reason),
        );
    }
    text
}

/// Returns what callers get, by their answers of the last seconds.
fn got(recent: &RecentAnswers) -> String {
    let AnswersView {
        calls,
        by_fallback,
        errors,
        share,
        per_second,
        ..
    } = answers(recent);
    if calls == 0 {
        return "no calls in the last 30 s".to_owned();
    }
    let rate = rate(per_second);
    let mut text = match share {
        // BRK-14: a share is told of enough calls only.
        Some(share) => format!("{:.0} % of {rate} get errors", share * 100.0),
        None => format!("{errors} of {} got errors", CountedNoun(calls, "call")),
    };
    if by_fallback > 0 {
        // A string takes all that is written.
        let _ = write!(text, ", {by_fallback} of {calls} a fallback's answer");
    }
    text
}

/// Returns a number of calls by time, with a unit in which it is no fraction of one.
fn rate(per_second: f64) -> String {
    if per_second >= 9.95 {
        format!("{per_second:.0}/s")
    } else if per_second >= 0.1 {
        format!("{per_second:.1}/s")
    } else {
        format!("{:.1}/min", per_second * 60.0)
    }
}

/// Returns a wait in words; `None` if it is as good as over.
fn about(wait: Duration) -> Option<RoundedDuration> {
    (wait >= Duration::from_millis(50)).then_some(RoundedDuration(wait))
}

/// Returns what comes next: the end of a pause, a probe, or the call that it waits for.
fn next_of(status: &DependencyStatus) -> Option<String> {
    let next = [pause_of(status), probe_of(status)];
    let next: Vec<String> = next.into_iter().flatten().collect();
    (!next.is_empty()).then(|| next.join("; "))
}

/// Returns the pause that the dependency asked for, and its end.
fn pause_of(status: &DependencyStatus) -> Option<String> {
    let (reason, left) = status.paused?;
    let left = about(left)?;
    Some(match status.outage {
        Some(_) => format!("{reason}: no calls for {left}"),
        // The health has said why.
        None => format!("no calls for {left}"),
    })
}

fn probe_of(status: &DependencyStatus) -> Option<String> {
    if let Some(wait) = next_probe(status) {
        // LIM-1: who waits for long wants to know that it is not our own setting.
        let asked = if status.wait_is_asked {
            ", as it asked"
        } else {
            ""
        };
        return Some(match about(wait) {
            Some(wait) => format!("next probe in {wait}{asked}"),
            None => "next probe now".to_owned(),
        });
    }
    if waits_for_call(status) {
        // BRK-13: nothing happens by itself.
        return Some("it waits for a call to try it".to_owned());
    }
    let probes = status.half_open.is_some_and(|period| period.in_flight > 0);
    probes.then(|| "it is being tried now".to_owned())
}
