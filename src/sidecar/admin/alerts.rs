//! Alerts: one for each outage, one for each episode of a key's open breaker, of a used-up quota or of a
//! consumer that waits, and one for the dead letters of a consumer.
//!
//! An operator moves an alert from active to acknowledged to cleared; the recovery resolves it, except
//! for dead letters, which only an operator clears. A breaker's episode lasts from the trip until the
//! breaker closes, including all probes in between. Alerts end with the process; outages outlive it.
//! What follows while an alert lasts belongs to it: a parked worker behind an open breaker is one
//! outage.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use breakerbox_policy::{BreakerEvent, Outage, PauseReason, State as Breaker, Time};
use serde::{Deserialize, Serialize};

use super::auth::{PeerAddress, author};
use super::consumers::{BY_ALERT, PausedConsumer, paused_consumers};
use super::events::{bad_query, without_gap};
use super::operate::{ChangeBody, read};
use super::outage_book::OutageBook;
use super::problem::AdminProblem;
use super::{Admin, AdminState};
use crate::lock::LockExt as _;
use crate::sidecar::names::dependency_of;
use crate::{ConsumerPause, DependencyOutage, Event, EventKind, Runtime};
use breakerbox_actors::redact;

/// Maximum number of alerts; the oldest ended ones are removed first.
const MAX_ALERTS: usize = 256;

/// Time for which an alert that comes and goes, such as that of a parked worker, can be over and go on.
const MOMENT: Duration = Duration::from_secs(60);

/// The condition that raised an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AlertKind {
    BreakerOpen,
    Parked,
    Misconfigured,
    QuotaUsedUp,
    Errors,
    NoAnswers,
    ConsumerPaused,
    DeadLetters,
}

impl AlertKind {
    fn word(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Parked => "parked",
            Self::Misconfigured => "misconfigured",
            Self::QuotaUsedUp => "quota_used_up",
            Self::Errors => "errors",
            Self::NoAnswers => "no_answers",
            Self::ConsumerPaused => "consumer_paused",
            Self::DeadLetters => "dead_letters",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AlertStage {
    Active,
    Acknowledged,
    Cleared,
    Resolved,
}

impl AlertStage {
    const ALL: [Self; 4] = [
        Self::Active,
        Self::Acknowledged,
        Self::Cleared,
        Self::Resolved,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Acknowledged => "acknowledged",
            Self::Cleared => "cleared",
            Self::Resolved => "resolved",
        }
    }
}

#[derive(Debug, Clone)]
struct AlertRecord {
    id: u64,
    subject: Arc<str>,
    kind: AlertKind,
    stage: AlertStage,
    message: String,
    /// Number of its events, where they are counted.
    count: u64,
    /// A message of a queue that may be the cause.
    suspect: Option<String>,
    raised: Time,
    /// The conditions that last, each with its subject, independent of the alert's stage.
    lasting: Vec<(AlertKind, Arc<str>)>,
    over: Option<Time>,
    by: Option<String>,
    note: Option<String>,
}

/// The alerts of one runtime.
#[derive(Debug, Default)]
pub(super) struct AlertLog {
    last_id: u64,
    all: VecDeque<AlertRecord>,
    /// Id of the last event taken from the history.
    seen: u64,
    /// Tells which outage an event belongs to.
    runtime: Option<Runtime>,
}

#[derive(Debug, Serialize)]
pub(super) struct AlertView {
    id: u64,
    dependency: String,
    subject: String,
    kind: &'static str,
    state: &'static str,
    message: String,
    /// Number of its outage, if it has one.
    outage: Option<u64>,
    /// Consumers of messages that fetch nothing at present, while the alert lasts.
    paused_consumers: Vec<PausedConsumer>,
    raised_at: String,
    over_at: Option<String>,
    by: Option<String>,
    note: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertFilter {
    state: Option<String>,
}

impl AlertLog {
    /// Collects the alerts of this runtime, beginning with its recorded events.
    pub(super) fn watch(runtime: &Runtime) -> Arc<Mutex<Self>> {
        let alerts = Arc::new(Mutex::new(Self {
            runtime: Some(runtime.clone()),
            ..Self::default()
        }));
        let weak = Arc::downgrade(&alerts);
        // Held until the history is processed; new events wait for that moment.
        let mut past = alerts.acquire();
        runtime.on_event(move |event| {
            if let Some(alerts) = weak.upgrade() {
                alerts.acquire().see(event);
            }
        });
        // Events before a gap may have been followed by one that ended their alert.
        for event in without_gap(&runtime.events_since(0)) {
            past.see(event);
        }
        drop(past);
        alerts
    }

    /// Applies the events that the listener has not heard yet.
    pub(super) fn catch_up(&mut self, runtime: &Runtime) {
        for event in runtime.events_since(self.seen) {
            self.see(&event);
        }
    }

    /// Applies an event, unless it was applied before.
    fn see(&mut self, event: &Event) {
        if event.id > self.seen {
            self.seen = event.id;
            self.apply(event);
        }
    }

    fn apply(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Breaker(BreakerEvent::Transition { to, cause, .. }) => match to {
                Breaker::Open => self.raise(event, AlertKind::BreakerOpen, cause.to_string()),
                Breaker::HalfOpen => {}
                Breaker::Closed => self.resolve(event, AlertKind::BreakerOpen),
            },
            EventKind::Parked { cause, .. } => {
                self.raise(event, AlertKind::Parked, cause.to_string());
            }
            EventKind::Started { .. } => self.resolve(event, AlertKind::Parked),
            EventKind::Misconfigured { .. } => {
                self.raise(event, AlertKind::Misconfigured, event.kind.to_string());
            }
            EventKind::SetRight => self.resolve(event, AlertKind::Misconfigured),
            EventKind::Paused {
                reason: PauseReason::QuotaUsedUp,
                ..
            } => {
                // LLM-4: only a person can fill an account up.
                self.raise(event, AlertKind::QuotaUsedUp, event.kind.to_string());
            }
            EventKind::QuotaBack => self.resolve(event, AlertKind::QuotaUsedUp),
            EventKind::ErrorShare { .. } => {
                self.raise(event, AlertKind::Errors, event.kind.to_string());
            }
            EventKind::ErrorsOver => self.resolve(event, AlertKind::Errors),
            EventKind::NoAnswers { .. } => {
                self.raise(event, AlertKind::NoAnswers, event.kind.to_string());
            }
            EventKind::NoAnswersOver => self.resolve(event, AlertKind::NoAnswers),
            // One that waits for a breaker, or for a parked worker, belongs to their alert.
            EventKind::ConsumerPaused {
                reason: ConsumerPause::Pause | ConsumerPause::Actor,
                ..
            } => self.raise(event, AlertKind::ConsumerPaused, event.kind.to_string()),
            EventKind::ConsumerResumed { .. } => self.resolve(event, AlertKind::ConsumerPaused),
            EventKind::DeadLettered { consumer, .. } => self.count_dead_letter(event, consumer),
            EventKind::PoisonSuspected { .. } => self.suspect(event),
            EventKind::KeyForgotten { .. } => self.forget(event, |of| *of == *event.subject),
            EventKind::Removed { .. } => {
                self.forget(event, |of| dependency_of(of) == &*event.subject);
            }
            _ => {}
        }
    }

    fn raise(&mut self, event: &Event, kind: AlertKind, message: String) {
        let condition = (kind, Arc::clone(&event.subject));
        let scope = scope_of(&event.subject);
        let mut lasting = self.all.iter_mut().filter(|alert| alert.lasts());
        // HLT-2: one alert for each outage, however many conditions it has.
        if let Some(alert) = lasting.find(|alert| scope_of(&alert.subject) == scope) {
            if !alert.lasting.contains(&condition) {
                alert.lasting.push(condition);
            }
            let seen = (alert.stage == AlertStage::Acknowledged).then_some(());
            let seen = seen.and(alert.by.clone().zip(alert.note.clone()));
            self.acknowledge_begun(event, seen);
            return;
        }
        if self.reopen(event, kind) {
            return;
        }
        if self.all.len() == MAX_ALERTS {
            let over = self.all.iter().position(|alert| !alert.lasts());
            // If all of them last, the oldest goes: the newest are the ones not seen yet.
            self.all.remove(over.unwrap_or(0));
        }
        self.last_id += 1;
        self.all.push_back(AlertRecord {
            id: self.last_id,
            subject: Arc::clone(&event.subject),
            kind,
            stage: AlertStage::Active,
            message: redact(&message).into_owned(),
            count: 1,
            suspect: None,
            raised: event.at,
            lasting: vec![condition],
            over: None,
            by: None,
            note: None,
        });
    }

    /// Notes the operator of an alert, if there is one, at the outage that has begun while it lasts.
    fn acknowledge_begun(&self, event: &Event, seen: Option<(String, String)>) {
        let (Some(runtime), Some((by, note))) = (&self.runtime, seen) else {
            return;
        };
        let begun = self.outage_at(event);
        if let Some(outage) = begun.filter(|outage| outage.acknowledged.is_none()) {
            // An outage that is no longer kept needs no note.
            let _ = runtime.acknowledge_outage(outage.id, &by, &note);
        }
    }

    /// Raises an alert of dead letters, or counts one more. It lasts until an operator clears it.
    fn count_dead_letter(&mut self, event: &Event, consumer: &str) {
        let subject: Arc<str> = format!("{}/consumer:{consumer}", event.subject).into();
        let is_same = |alert: &&mut AlertRecord| {
            let is_open = matches!(alert.stage, AlertStage::Active | AlertStage::Acknowledged);
            is_open && alert.kind == AlertKind::DeadLetters && alert.subject == subject
        };
        let text = redact(&event.kind.to_string()).into_owned();
        if let Some(alert) = self.all.iter_mut().find(is_same) {
            // A letter that its stream refuses is tried again, and counts once it is there.
            let is_refused = matches!(
                &event.kind,
                EventKind::DeadLettered {
                    refused: Some(_),
                    ..
                }
            );
            alert.message = match is_refused {
                true => text,
                false => {
                    alert.count += 1;
                    format!("{} dead letters; the last: {text}", alert.count)
                }
            };
            return;
        }
        let mut event = event.clone();
        event.subject = subject;
        self.raise(&event, AlertKind::DeadLetters, text);
    }

    /// Names the message that may keep a breaker open, in the alert of that breaker.
    fn suspect(&mut self, event: &Event) {
        let scope = scope_of(&event.subject);
        let is_own = |alert: &&mut AlertRecord| alert.lasts() && scope_of(&alert.subject) == scope;
        let text = redact(&event.kind.to_string()).into_owned();
        if let Some(alert) = self.all.iter_mut().find(is_own) {
            alert.suspect = Some(text);
        }
    }

    /// Goes on with the alert of an outage that goes on, and with one that was over for a moment
    /// only: a worker that starts and ends again is one outage, and so is a share of errors that was
    /// under its limit in between.
    fn reopen(&mut self, event: &Event, kind: AlertKind) -> bool {
        let begun = self.outage_at(event);
        let is_same = matches!(
            kind,
            AlertKind::Parked
                | AlertKind::Errors
                | AlertKind::NoAnswers
                | AlertKind::ConsumerPaused
        );
        let is_recent = |alert: &&mut AlertRecord| {
            let recent = |over| event.at.since(over) < MOMENT;
            let is_moment = is_same
                && alert.kind == kind
                && alert.subject == event.subject
                && alert.over.is_some_and(recent);
            // HLT-2: an outage that goes on has the alert that it had.
            let is_same_outage = begun.as_ref().is_some_and(|outage| {
                let is_older = alert.over.is_some_and(|over| outage.since < over);
                is_older && alert.is_of(scope_of(&event.subject), outage)
            });
            alert.stage == AlertStage::Resolved && (is_moment || is_same_outage)
        };
        let Some(alert) = self.all.iter_mut().rev().find(is_recent) else {
            return false;
        };
        alert.lasting.push((kind, Arc::clone(&event.subject)));
        alert.over = None;
        alert.stage = match alert.by {
            Some(_) => AlertStage::Acknowledged,
            None => AlertStage::Active,
        };
        true
    }

    /// Returns the outage of the event's dependency at its time.
    fn outage_at(&self, event: &Event) -> Option<Outage> {
        let runtime = self.runtime.as_ref()?;
        runtime.outage_at(scope_of(&event.subject), event.at)
    }

    fn resolve(&mut self, event: &Event, kind: AlertKind) {
        let condition = (kind, Arc::clone(&event.subject));
        for alert in &mut self.all {
            alert.remove(&condition, event.at);
        }
    }

    /// Ends the conditions of a key or a dependency that is no longer watched.
    fn forget(&mut self, event: &Event, is_gone: impl Fn(&str) -> bool) {
        for alert in self.all.iter_mut().filter(|alert| alert.lasts()) {
            alert.lasting.retain(|(_, subject)| !is_gone(subject));
            if !alert.lasts() {
                alert.message = format!("{}; {}", alert.message, event.kind);
                alert.end(event.at);
            }
        }
    }

    /// Acknowledges the alert of an outage, if it is active.
    pub(super) fn acknowledge_with(&mut self, name: &str, outage: &Outage, by: &str, note: &str) {
        let is_active = |alert: &&mut AlertRecord| {
            alert.stage == AlertStage::Active && alert.is_of(name, outage)
        };
        if let Some(alert) = self.all.iter_mut().find(is_active) {
            alert.deal_with(AlertStage::Acknowledged, by, note);
        }
    }

    /// Returns the number of alerts that are neither cleared nor resolved, over all dependencies.
    pub(super) fn pending(&self) -> usize {
        let pending = |alert: &&AlertRecord| {
            matches!(alert.stage, AlertStage::Active | AlertStage::Acknowledged)
        };
        self.all.iter().filter(pending).count()
    }
}

impl AlertRecord {
    /// True while one of its conditions lasts.
    fn lasts(&self) -> bool {
        !self.lasting.is_empty()
    }

    /// Takes a condition off, and ends the alert with its last one.
    fn remove(&mut self, condition: &(AlertKind, Arc<str>), at: Time) {
        if self.lasts() {
            self.lasting.retain(|lasting| lasting != condition);
            if !self.lasts() {
                self.end(at);
            }
        }
    }

    fn end(&mut self, at: Time) {
        self.lasting.clear();
        self.over.get_or_insert(at);
        if self.stage != AlertStage::Cleared {
            self.stage = AlertStage::Resolved;
        }
    }

    fn deal_with(&mut self, stage: AlertStage, by: &str, note: &str) {
        if stage == AlertStage::Cleared && self.kind == AlertKind::DeadLetters {
            // Nothing else ends it.
            self.lasting.clear();
        }
        self.stage = stage;
        self.by = Some(by.to_owned());
        self.note = Some(note.to_owned());
    }

    /// Returns true if this is the alert of an outage of the dependency `name`.
    fn is_of(&self, name: &str, outage: &Outage) -> bool {
        let is_before_its_end = outage.ended.is_none_or(|ended| self.raised <= ended);
        let has_begun = outage.since <= self.raised;
        // HLT-2: an outage that begins while its alert lasts, as that of a used-up quota does, has
        // no other. One that begins after it, however soon, is another one's.
        let lasted = self.over.is_none_or(|over| outage.since < over);
        scope_of(&self.subject) == name && is_before_its_end && (has_begun || lasted)
    }

    fn view(&self, inner: &AdminState, outages: &[DependencyOutage]) -> AlertView {
        let mut outages = outages.iter();
        let own = outages.find(|one| self.is_of(&one.dependency, &one.outage));
        AlertView {
            outage: own.map(|one| one.outage.id),
            id: self.id,
            dependency: dependency_of(&self.subject).to_owned(),
            subject: self.subject.to_string(),
            kind: self.kind.word(),
            state: self.stage.word(),
            message: match &self.suspect {
                Some(suspect) => format!("{}; {suspect}", self.message),
                None => self.message.clone(),
            },
            paused_consumers: match self.lasts() {
                true => paused_consumers(inner, dependency_of(&self.subject), BY_ALERT),
                false => Vec::new(),
            },
            raised_at: inner.stamps.of(self.raised),
            over_at: self.over.map(|at| inner.stamps.of(at)),
            by: self.by.clone(),
            note: self.note.clone(),
        }
    }
}

/// Returns the part of a dependency that an alert speaks of: a key, a child of a group, or the
/// dependency as a whole with its workers.
fn scope_of(subject: &str) -> &str {
    let number = |child: &str| child.strip_prefix("worker-")?.parse::<u32>().ok();
    match subject.rsplit_once('/') {
        Some((dependency, child)) if number(child).is_some() => dependency,
        _ => subject,
    }
}

pub(super) async fn list(
    State(admin): State<Admin>,
    wanted: Result<Query<AlertFilter>, QueryRejection>,
) -> Result<Json<Vec<AlertView>>, AdminProblem> {
    let Query(wanted) = wanted.map_err(|bad| bad_query(&bad))?;
    let known = |word: &str| AlertStage::ALL.iter().any(|stage| stage.word() == word);
    if let Some(state) = wanted.state.as_deref().filter(|state| !known(state)) {
        return Err(
            AdminProblem::new(400, "bad-query", "there is no such state")
                .given(state)
                .allowed("active, acknowledged, cleared, resolved"),
        );
    }
    let fits = |alert: &&AlertRecord| {
        let state = wanted.state.as_deref();
        state.is_none_or(|state| state == alert.stage.word())
    };
    let outages = admin.runtime().outages();
    let alerts = admin.alerts();
    let newest_first = alerts.all.iter().rev().filter(fits);
    let all = newest_first.map(|alert| alert.view(&admin.inner, &outages));
    Ok(Json(all.collect()))
}

pub(super) async fn acknowledge(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    peer: Option<Extension<PeerAddress>>,
    body: ChangeBody,
) -> Result<Json<AlertView>, AdminProblem> {
    let reason = read(body)?.reason;
    let by = author(peer.map(|peer| peer.0));
    let step = (AlertStage::Acknowledged, "acknowledge");
    let done = deal_with(&admin, &id, step, &by, reason)?;
    // HLT-3: in the file before the answer.
    OutageBook::write(&admin.inner).await;
    Ok(done)
}

pub(super) async fn clear(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    peer: Option<Extension<PeerAddress>>,
    body: ChangeBody,
) -> Result<Json<AlertView>, AdminProblem> {
    let reason = read(body)?.reason;
    let by = author(peer.map(|peer| peer.0));
    deal_with(&admin, &id, (AlertStage::Cleared, "clear"), &by, reason)
}

fn deal_with(
    admin: &Admin,
    id: &str,
    (stage, command): (AlertStage, &'static str),
    by: &str,
    reason: String,
) -> Result<Json<AlertView>, AdminProblem> {
    let outages = admin.runtime().outages();
    let (view, subject) = {
        let mut alerts = admin.alerts();
        let found = alerts
            .all
            .iter_mut()
            .find(|alert| alert.id.to_string() == id);
        let Some(alert) = found else {
            return Err(
                AdminProblem::new(404, "unknown-alert", "no alert has this id")
                    .given(id)
                    .allowed("the ids that /api/alerts lists"),
            );
        };
        let may = match stage {
            AlertStage::Acknowledged => alert.stage == AlertStage::Active,
            _ => alert.stage != AlertStage::Cleared,
        };
        if !may {
            let detail = format!(
                "an alert in the state {} does not allow this",
                alert.stage.word()
            );
            return Err(AdminProblem::new(409, "illegal-transition", detail)
                .given(command)
                .allowed("active to acknowledged; any other than cleared to cleared"));
        }
        let lasts = |id| {
            let mut all = outages.iter().map(|one| &one.outage);
            all.any(|outage| outage.id == id && outage.ended.is_none())
        };
        let is_standing = alert.view(&admin.inner, &outages).outage.is_some_and(lasts);
        if stage == AlertStage::Cleared && is_standing {
            // HLT-2: an outage that stands is not to vanish from the list.
            let detail = "its outage stands: it is resolved by the recovery";
            return Err(AdminProblem::new(409, "outage-stands", detail)
                .given(command)
                .allowed("to acknowledge it (ack) meanwhile"));
        }
        alert.deal_with(stage, by, &reason);
        let view = alert.view(&admin.inner, &outages);
        (view, Arc::clone(&alert.subject))
    };
    if let Some(outage) = view.outage.filter(|_| stage == AlertStage::Acknowledged) {
        // An outage that is no longer kept needs no note.
        let _ = admin.runtime().acknowledge_outage(outage, by, &reason);
    }
    // Event listeners take the lock too.
    let name = dependency_of(&subject);
    admin.runtime().note_operation(name, command, by, &reason);
    Ok(Json(view))
}

#[cfg(test)]
mod tests;
