//! Live events as server-sent events.
//!
//! A reader has no queue of its own: all readers share one ring. A reader that is too slow is told
//! the number of events it missed, and continues with the next.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};
use serde_json::json;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::watch;

use super::problem::AdminProblem;
use super::{Admin, dependencies, events, notes};
use crate::Event;

/// Maximum number of readers; scrapers and operators need connections beside them.
const MAX_READERS: usize = 64;
/// Interval of status snapshots while there are readers.
pub(super) const EVERY: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Reconnect delay for browsers.
const COME_BACK: Duration = Duration::from_secs(1);

/// State shared by all readers.
#[derive(Debug)]
pub(super) struct EventStreams {
    readers: Arc<AtomicUsize>,
    /// All dependencies as JSON, replaced on each change.
    status: watch::Sender<Arc<str>>,
}

impl Default for EventStreams {
    fn default() -> Self {
        Self {
            readers: Arc::default(),
            status: watch::Sender::new(Arc::from("[]")),
        }
    }
}

impl EventStreams {
    pub(super) fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }
}

/// Counts one reader until dropped.
struct StreamGuard(Arc<AtomicUsize>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Observes the health, takes snapshots of all dependencies while there are readers, and notifies
/// these of changes.
pub(super) async fn look_around(admin: Admin) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if admin.inner.streams.readers() > 0 {
            look(&admin);
        } else {
            // HLT-2: an outage begins and ends at its time, although no client reads the status.
            admin.runtime().observe_health();
        }
    }
}

fn look(admin: &Admin) {
    let Ok(now) = serde_json::to_string(&dependencies::all(admin)) else {
        return;
    };
    admin.inner.streams.status.send_if_modified(|known| {
        let differs = **known != *now;
        if differs {
            *known = Arc::from(now);
        }
        differs
    });
}

/// One reader of the stream.
struct StreamReader {
    admin: Admin,
    live: Receiver<Event>,
    status: watch::Receiver<Arc<str>>,
    /// Id of the latest note.
    notes: watch::Receiver<u64>,
    /// Messages to send before live ones.
    due: VecDeque<Message>,
    /// Id of the last event sent.
    last: u64,
    _seat: StreamGuard,
}

pub(super) async fn follow(
    State(admin): State<Admin>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, AdminProblem> {
    let readers = &admin.inner.streams.readers;
    let seat = StreamGuard(Arc::clone(readers));
    if readers.fetch_add(1, Ordering::Relaxed) >= MAX_READERS {
        let detail = "the stream has too many readers";
        return Err(AdminProblem::new(503, "too-many-readers", detail)
            .allowed(format!("{MAX_READERS} at once")));
    }
    let last = headers.get("last-event-id").map(|id| {
        let id = id.to_str().ok().and_then(|id| id.parse::<u64>().ok());
        id.ok_or_else(|| {
            let detail = "Last-Event-ID is not an event id";
            AdminProblem::new(400, "bad-request", detail).allowed("a whole number")
        })
    });
    let reader = StreamReader::new(admin, last.transpose()?, seat);
    let stream = unfold(reader, async |mut reader| {
        let message = reader.next().await?;
        Some((Ok(message), reader))
    });
    let alive = KeepAlive::new().interval(KEEP_ALIVE).text("alive");
    Ok(Sse::new(stream).keep_alive(alive))
}

impl StreamReader {
    fn new(admin: Admin, resume: Option<u64>, seat: StreamGuard) -> Self {
        look(&admin);
        let mut status = admin.inner.streams.status.subscribe();
        // Subscribe first, then read the history: an event in between is in both, and is sent once.
        let live = admin.runtime().events();
        let past = admin.runtime().events_since(0);
        let newest = past.last().map_or(0, |event| event.id);
        // An id that is still to come is from a previous run: the server was restarted.
        let after = match resume {
            Some(last) if last <= newest => last,
            Some(_) => 0,
            None => newest,
        };
        let mut reader = Self {
            live,
            due: VecDeque::new(),
            last: after,
            _seat: seat,
            status: status.clone(),
            notes: admin.inner.notes.watch(),
            admin,
        };
        reader.due.push_back(reader.hello(newest));
        let missed = events::dropped_since(&past, after);
        if resume.is_some() && missed > 0 {
            reader.due.push_back(reader.lagged(missed));
        }
        for event in past.iter().filter(|event| event.id > after) {
            let message = reader.message(event);
            reader.due.push_back(message);
        }
        let now = status_message(&status.borrow_and_update());
        reader.due.push_back(now);
        reader.status = status;
        let notes = reader.notes();
        reader.due.push_back(notes);
        reader
    }

    /// Returns the next message; `None` when the runtime is gone.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.due.pop_front() {
                return Some(message);
            }
            tokio::select! {
                biased;
                event = self.live.recv() => match event {
                    Ok(event) if event.id > self.last => return Some(self.message(&event)),
                    Ok(_sent_already) => {}
                    Err(RecvError::Lagged(missed)) => return Some(self.lagged(missed)),
                    Err(RecvError::Closed) => return None,
                },
                changed = self.status.changed() => {
                    changed.ok()?;
                    return Some(status_message(&self.status.borrow_and_update()));
                }
                changed = self.notes.changed() => {
                    changed.ok()?;
                    return Some(self.notes());
                }
            }
        }
    }

    fn message(&mut self, event: &Event) -> Message {
        self.last = event.id;
        let view = events::view(&self.admin.inner, event);
        let data = serde_json::to_string(&view).unwrap_or_default();
        let id = view.id.to_string();
        Message::default().event("event").id(id).data(data)
    }

    fn hello(&self, newest: u64) -> Message {
        let stamps = &self.admin.inner.stamps;
        let data = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started_at": stamps.of(breakerbox_policy::Time::ZERO),
            "last_id": newest,
        });
        let hello = Message::default().event("hello").retry(COME_BACK);
        hello.data(data.to_string())
    }

    /// Returns all notes: they are few, and one that is missing would be missed for long.
    fn notes(&mut self) -> Message {
        self.notes.mark_unchanged();
        let all = serde_json::to_string(&notes::all(&self.admin.inner));
        Message::default()
            .event("notes")
            .data(all.unwrap_or_default())
    }

    fn lagged(&self, missed: u64) -> Message {
        self.admin.inner.missed.fetch_add(missed, Ordering::Relaxed);
        let data = json!({ "missed": missed });
        Message::default().event("lagged").data(data.to_string())
    }
}

fn status_message(status: &str) -> Message {
    Message::default().event("status").data(status)
}
