//! Operator commands: each is validated, carried out, and recorded with its author.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use breakerbox_policy::{BreakerCommand, CommandSource, RoundedDuration};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Admin;
use super::auth::{MAX_BODY, PeerAddress, author};
use super::dependencies;
use super::fleet;
use super::orders::{self, CarriedOut};
use super::problem::AdminProblem;
use crate::{Event, RestartRefusal, WorkerRestart};
use breakerbox_actors::redact;

/// Operations on a dependency.
const OPERATIONS: &str = "open, close, disable, shadow, reset, check, restart";
/// Time for which a response waits for workers that are started anew, and for the board of the fleet at
/// the same time. Less than the command waits for the response.
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_REASON: usize = 500;
/// One year.
const MAX_FOR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// The body of a change.
#[derive(Debug)]
pub(super) struct ChangeRequest {
    pub(super) reason: String,
    for_ms: Option<u64>,
    /// True if it is to hold for this replica of a fleet alone.
    is_for_one: bool,
}

/// The dependency after the change.
#[derive(Debug, Serialize)]
pub(super) struct ChangeResult {
    done: String,
    /// A warning or a hint, if any: a part of the request that is ignored, an effect that has not come
    /// yet, or an order that could not be kept.
    note: Option<String>,
    /// The end of the override that was set, in words.
    holds: Option<String>,
    dependency: dependencies::DependencyView,
}

/// A request body, or the error of reading it.
pub(super) type ChangeBody = Result<Bytes, BytesRejection>;

pub(super) async fn operate(
    State(admin): State<Admin>,
    Path((name, operation)): Path<(String, String)>,
    peer: Option<Extension<PeerAddress>>,
    body: ChangeBody,
) -> Result<Json<ChangeResult>, AdminProblem> {
    if !OPERATIONS.split(", ").any(|known| known == operation) {
        return Err(
            AdminProblem::new(404, "not-found", "there is no such operation")
                .given(operation)
                .allowed(OPERATIONS),
        );
    }
    let order = read(body)?;
    let lasts = matches!(&*operation, "open" | "disable" | "shadow");
    let note = (order.for_ms.is_some() && !lasts)
        .then(|| "for_ms was ignored: it applies to open, disable and shadow".to_owned());
    if operation == "restart" {
        let by = author(peer.map(|peer| peer.0));
        let not_up = restart(&admin, &name, &order.reason, &by).await?;
        return done(&admin, &name, operation, (not_up.or(note), None));
    }
    let for_ = order.for_ms.filter(|_| lasts).map(Duration::from_millis);
    let by = author(peer.map(|peer| peer.0));
    let is_for_all = fleet::is_there(&admin) && !order.is_for_one;
    if is_for_all && lasts && admin.runtime().status(&name).is_some() {
        let words = (&*order.reason, &*by);
        // FLT-12: it stands on the board, and this replica hears of it as the others do.
        if tell_fleet(&admin, (&name, &operation), words, for_).await {
            let holds = held_by_fleet(for_);
            return done(&admin, &name, operation, (note, Some(holds)));
        }
    }
    let reason = order.reason.clone();
    let closes = matches!(&*operation, "close" | "reset");
    let events = admin.runtime().events();
    let command = command(&admin, &operation, order);
    let author = by.clone();
    let CarriedOut { holds, note: told } =
        match orders::carry_out(&admin, &name, command, by, for_).await {
            None => return Err(AdminProblem::unknown_dependency(&admin, &name)),
            Some(Err(illegal)) => {
                return Err(
                    AdminProblem::new(409, "illegal-transition", illegal.to_string())
                        .given(operation)
                        .allowed("check while the breaker is open or half-open"),
                );
            }
            Some(Ok(carried_out)) => carried_out,
        };
    let tell_others = async {
        let words = (&*reason, &*author);
        is_for_all && !lasts && tell_fleet(&admin, (&name, &operation), words, None).await
    };
    let start = async {
        match closes {
            true => wait_for_worker(&admin, &name, events).await,
            false => None,
        }
    };
    let (reaches_others, not_up) = tokio::join!(tell_others, start);
    let alone = (is_for_all && !reaches_others).then(|| {
        "the board of the fleet does not answer: it holds here, and other replicas may hear of it \
             later or not at all"
            .to_owned()
    });
    let kept = || still_overridden(&admin, &name).filter(|_| closes);
    let notes = [told, not_up, alone, note, kept()].into_iter().flatten();
    let notes: Vec<String> = notes.collect();
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    done(&admin, &name, operation, (note, holds))
}

/// Gives a command to the fleet. Returns false if the board is not reached in time.
async fn tell_fleet(
    admin: &Admin,
    place: (&str, &str),
    words: (&str, &str),
    for_: Option<Duration>,
) -> bool {
    let told = fleet::operate(admin, place, words, for_);
    tokio::time::timeout(PATIENCE, told).await.unwrap_or(false)
}

/// Returns the end of an override of the whole fleet, in words.
fn held_by_fleet(for_: Option<Duration>) -> String {
    let end = match for_ {
        Some(span) => format!("for {}", RoundedDuration(span)),
        None => "until an operator closes it".to_owned(),
    };
    format!("for the whole fleet, {end}")
}

fn done(
    admin: &Admin,
    name: &str,
    done: String,
    (note, holds): (Option<String>, Option<String>),
) -> Result<Json<ChangeResult>, AdminProblem> {
    let dependency = dependencies::named(admin, name);
    let dependency = dependency.ok_or_else(|| AdminProblem::unknown_dependency(admin, name))?;
    Ok(Json(ChangeResult {
        done,
        note,
        holds,
        dependency,
    }))
}

/// Waits for a moment until a worker runs again, if a command that closes a dependency has found it
/// parked. Returns a note if none runs yet. `events`: those since before the command.
async fn wait_for_worker(admin: &Admin, name: &str, mut events: Receiver<Event>) -> Option<String> {
    let is_held = || {
        let status = admin.runtime().status(name);
        status.is_some_and(|one| {
            let set = one.overridden.as_ref();
            one.parked || set.is_some_and(|set| set.by == CommandSource::Supervisor)
        })
    };
    // SUP-4: the answer tells the effect of the order, not its begin.
    let up = async { while is_held() && !matches!(events.recv().await, Err(RecvError::Closed)) {} };
    let waited = tokio::time::timeout(PATIENCE, up).await;
    let text = "its workers are being started, and none runs yet: it stays open until one does";
    waited.is_err().then(|| text.to_owned())
}

/// Returns a note if an override stands that the order did not take off.
fn still_overridden(admin: &Admin, name: &str) -> Option<String> {
    let set = admin.runtime().status(name)?.overridden?;
    let mode = set.mode;
    match set.by {
        CommandSource::Configuration => Some(format!(
            "the configuration keeps it {mode}: change dependencies.{name}.override there"
        )),
        // FLT-12: the word to one replica leaves the fleet's as it is.
        CommandSource::Fleet => Some(format!(
            "an override of the whole fleet keeps it {mode}: close it for the fleet, without --here"
        )),
        _ => None,
    }
}

/// Starts the workers of a dependency anew. Returns a note if they do not run yet.
async fn restart(
    admin: &Admin,
    name: &str,
    reason: &str,
    by: &str,
) -> Result<Option<String>, AdminProblem> {
    let runtime = admin.runtime();
    if runtime.status(name).is_none() {
        return Err(AdminProblem::unknown_dependency(admin, name));
    }
    // Before it is carried out, which may take its time.
    runtime.note_operation(name, "restart", by, reason);
    match runtime.restart_workers(name, PATIENCE).await {
        Ok(WorkerRestart::Running) => Ok(None),
        Ok(other) => Ok(Some(redact(&other.to_string()).into_owned())),
        Err(RestartRefusal::UnknownDependency) => {
            Err(AdminProblem::unknown_dependency(admin, name))
        }
        Err(refusal) => Err(
            AdminProblem::new(409, "illegal-transition", refusal.to_string())
                .given("restart")
                .allowed("restart of a dependency with workers that is not being stopped"),
        ),
    }
}

fn command(admin: &Admin, operation: &str, order: ChangeRequest) -> BreakerCommand {
    let now = admin.inner.stamps.now();
    let until = order.for_ms.map(|ms| now.after(Duration::from_millis(ms)));
    let reason = order.reason;
    match operation {
        "open" => BreakerCommand::Open { reason, until },
        "disable" => BreakerCommand::Disable { reason, until },
        "shadow" => BreakerCommand::Shadow { reason, until },
        "close" => BreakerCommand::Close { reason },
        "reset" => BreakerCommand::Reset { reason },
        _ => BreakerCommand::Probe { reason },
    }
}

/// Parses `{"reason", "for_ms"}` of any declared content type: the token, not the type, keeps out
/// the forms of other sites.
pub(super) fn read(body: ChangeBody) -> Result<ChangeRequest, AdminProblem> {
    const ALLOWED: &str = "a JSON object {\"reason\": text, \"for_ms\": number or left out, \
                           \"scope\": \"fleet\", \"replica\" or left out}";
    let bad = |detail: &str| AdminProblem::new(400, "bad-request", detail).allowed(ALLOWED);
    let body = body.map_err(|_| {
        AdminProblem::new(413, "too-large", "the body is too long, or broke off")
            .allowed(format!("at most {MAX_BODY} bytes"))
    })?;
    let given: Value = serde_json::from_slice(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        bad(&format!(
            "the body is not JSON (line {line}, column {column})"
        ))
    })?;
    let Value::Object(mut fields) = given else {
        return Err(bad("the body is JSON, but not an object"));
    };
    let reason = fields.remove("reason");
    let for_ms = fields.remove("for_ms").filter(|value| !value.is_null());
    let scope = fields.remove("scope").filter(|value| !value.is_null());
    let is_for_one = match scope.as_ref().map(Value::as_str) {
        None | Some(Some("fleet")) => false,
        Some(Some("replica")) => true,
        Some(_) => {
            let given = scope.map(|given| given.to_string()).unwrap_or_default();
            return Err(bad("there is no such scope").given(given));
        }
    };
    if let Some((unknown, _)) = fields.into_iter().next() {
        return Err(bad("the body has an unknown field").given(unknown));
    }
    let shown = reason
        .as_ref()
        .map_or_else(|| "nothing".to_owned(), Value::to_string);
    let reason = reason.as_ref().and_then(Value::as_str).map(str::trim);
    let Some(reason) = reason.filter(|text| (1..=MAX_REASON).contains(&text.chars().count()))
    else {
        return Err(bad("a change needs a reason")
            .given(shown)
            .allowed(format!("reason: a text of 1 to {MAX_REASON} letters")));
    };
    let for_ms = for_ms.map(|given| {
        let ms = given.as_u64().filter(|ms| (1..=MAX_FOR_MS).contains(ms));
        ms.ok_or_else(|| {
            bad("for_ms is out of range")
                .given(given.to_string())
                .allowed(format!("for_ms: a whole number from 1 to {MAX_FOR_MS}"))
        })
    });
    Ok(ChangeRequest {
        reason: reason.to_owned(),
        for_ms: for_ms.transpose()?,
        is_for_one,
    })
}
