//! Notes of operators and of deployments, such as "deploy 1.2": marks on the charts.
//!
//! They change nothing, and the latest are kept as long as the process runs.

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::extract::State;
use axum::{Extension, Json};
use breakerbox_policy::Time;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::auth::{MAX_BODY, PeerAddress, author};
use super::operate::ChangeBody;
use super::problem::AdminProblem;
use super::{Admin, AdminState};
use crate::lock::LockExt as _;
use breakerbox_actors::redact;

/// Maximum number of notes; a further one displaces the oldest.
const MAX_NOTES: usize = 200;
/// Maximum length of a note, in letters: it is shown beside a mark.
const MAX_TEXT: usize = 200;

#[derive(Debug, Clone)]
struct OperatorNote {
    id: u64,
    at: Time,
    text: String,
    dependency: Option<String>,
    by: String,
}

/// The latest notes.
#[derive(Debug)]
pub(super) struct NoteBook {
    notes: Mutex<VecDeque<OperatorNote>>,
    /// Id of the latest note; tells readers of the stream of a new one.
    latest: watch::Sender<u64>,
}

impl Default for NoteBook {
    fn default() -> Self {
        Self {
            notes: Mutex::default(),
            latest: watch::Sender::new(0),
        }
    }
}

impl NoteBook {
    /// Returns a receiver that is notified of each new note.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    fn add(&self, at: Time, by: String, request: NoteRequest) -> OperatorNote {
        let mut notes = self.notes.acquire();
        let note = OperatorNote {
            id: notes.back().map_or(0, |last| last.id) + 1,
            at,
            text: request.text,
            dependency: request.dependency,
            by,
        };
        if notes.len() == MAX_NOTES {
            notes.pop_front();
        }
        notes.push_back(note.clone());
        self.latest.send_replace(note.id);
        note
    }
}

/// A note, as API clients see it.
#[derive(Debug, Serialize)]
pub(super) struct NoteView {
    id: u64,
    time: String,
    text: String,
    /// `null` if it concerns all.
    dependency: Option<String>,
    by: String,
}

fn view(inner: &AdminState, note: OperatorNote) -> NoteView {
    NoteView {
        id: note.id,
        time: inner.stamps.of(note.at),
        text: redact(&note.text).into_owned(),
        dependency: note.dependency,
        by: note.by,
    }
}

/// Returns the notes, oldest first.
pub(super) fn all(inner: &AdminState) -> Vec<NoteView> {
    let notes = inner.notes.notes.acquire().clone();
    notes.into_iter().map(|note| view(inner, note)).collect()
}

/// Handles `GET /api/notes`.
pub(super) async fn list(State(admin): State<Admin>) -> Json<Vec<NoteView>> {
    Json(all(&admin.inner))
}

/// Handles `POST /api/notes`.
pub(super) async fn add(
    State(admin): State<Admin>,
    peer: Option<Extension<PeerAddress>>,
    body: ChangeBody,
) -> Result<Json<NoteView>, AdminProblem> {
    let request = read(body)?;
    let named = request.dependency.as_deref();
    if let Some(unknown) = named.filter(|name| admin.runtime().status(name).is_none()) {
        return Err(AdminProblem::unknown_dependency(admin.runtime(), unknown));
    }
    let (now, by) = (admin.inner.stamps.now(), author(peer.map(|peer| peer.0)));
    let note = admin.inner.notes.add(now, by, request);
    // OPS-1: a change by an operator is a line of the log.
    tracing::info!(
        text = %redact(&note.text),
        dependency = note.dependency.as_deref(),
        by = note.by,
        "an operator left a note"
    );
    Ok(Json(view(&admin.inner, note)))
}

#[derive(Debug)]
struct NoteRequest {
    text: String,
    dependency: Option<String>,
}

/// Parses `{"text", "dependency"}`.
fn read(body: ChangeBody) -> Result<NoteRequest, AdminProblem> {
    const ALLOWED: &str = "a JSON object {\"text\": text, \"dependency\": name or left out}";
    let bad = |detail: &str| AdminProblem::new(400, "bad-request", detail).allowed(ALLOWED);
    let body = body.map_err(|_| {
        AdminProblem::new(413, "too-large", "the body is too long, or broke off")
            .allowed(format!("at most {MAX_BODY} bytes"))
    })?;
    let given: Value = serde_json::from_slice(&body).map_err(|_| bad("the body is not JSON"))?;
    let Value::Object(mut fields) = given else {
        return Err(bad("the body is JSON, but not an object"));
    };
    let (text, dependency) = (fields.remove("text"), fields.remove("dependency"));
    if let Some((unknown, _)) = fields.into_iter().next() {
        return Err(bad("the body has an unknown field").given(unknown));
    }
    let dependency = match dependency {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(other) => return Err(bad("dependency is not a name").given(other.to_string())),
    };
    let shown = text
        .as_ref()
        .map_or_else(|| "nothing".to_owned(), Value::to_string);
    let text = text.as_ref().and_then(Value::as_str).map(str::trim);
    let text = text.filter(|text| (1..=MAX_TEXT).contains(&text.chars().count()));
    let Some(text) = text else {
        return Err(bad("a note needs a text")
            .given(shown)
            .allowed(format!("text: 1 to {MAX_TEXT} letters")));
    };
    Ok(NoteRequest {
        text: text.to_owned(),
        dependency,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_4_the_latest_notes_are_kept_and_no_more() {
        let book = NoteBook::default();
        let mut watching = book.watch();
        for number in 1..=MAX_NOTES as u64 + 50 {
            let request = NoteRequest {
                text: format!("deploy {number}"),
                dependency: None,
            };
            let note = book.add(Time::ZERO, "a test".to_owned(), request);
            assert_eq!(note.id, number);
        }
        let notes = book.notes.acquire();
        assert_eq!(notes.len(), MAX_NOTES);
        assert_eq!(notes.front().map(|note| note.id), Some(51));
        assert_eq!(*watching.borrow_and_update(), 250);
    }
}
