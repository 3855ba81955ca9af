//! What happens, as it happens: server-sent events.
//!
//! A reader has no queue of its own: it reads from the ring that all share, and one that is too
//! slow is told how many events it missed, and goes on with the next.

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

use super::problem::Problem;
use super::{Admin, dependencies, events};
use crate::Event;

/// Readers at once; there must be room for scrapers and operators beside them.
const MAX_READERS: usize = 64;
/// How often everything is looked at for those who read the stream.
pub(super) const EVERY: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// After how long a browser comes back.
const COME_BACK: Duration = Duration::from_secs(1);

/// What all readers share.
#[derive(Debug)]
pub(super) struct Streams {
    readers: Arc<AtomicUsize>,
    /// All dependencies as JSON; renewed when something has changed.
    status: watch::Sender<Arc<str>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            readers: Arc::default(),
            status: watch::Sender::new(Arc::from("[]")),
        }
    }
}

impl Streams {
    pub(super) fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }
}

/// One reader more, until it is dropped.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Looks at all dependencies again and again while anybody reads, and tells when one has changed.
pub(super) async fn look_around(admin: Admin) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if admin.inner.streams.readers() > 0 {
            look(&admin);
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

/// A reader of the stream.
struct Reader {
    admin: Admin,
    live: Receiver<Event>,
    status: watch::Receiver<Arc<str>>,
    /// What is due before anything live.
    due: VecDeque<Message>,
    /// The last event that it was sent.
    last: u64,
    _seat: Seat,
}

pub(super) async fn follow(
    State(admin): State<Admin>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, Problem> {
    let readers = &admin.inner.streams.readers;
    let seat = Seat(Arc::clone(readers));
    if readers.fetch_add(1, Ordering::Relaxed) >= MAX_READERS {
        let detail = "too many read the stream already";
        return Err(
            Problem::new(503, "too-many-readers", detail).allowed(format!("{MAX_READERS} at once"))
        );
    }
    let last = headers.get("last-event-id").map(|id| {
        let id = id.to_str().ok().and_then(|id| id.parse::<u64>().ok());
        id.ok_or_else(|| {
            let detail = "Last-Event-ID is no id of an event";
            Problem::new(400, "bad-request", detail).allowed("a whole number")
        })
    });
    let reader = Reader::new(admin, last.transpose()?, seat);
    let stream = unfold(reader, async |mut reader| {
        let message = reader.next().await?;
        Some((Ok(message), reader))
    });
    let alive = KeepAlive::new().interval(KEEP_ALIVE).text("alive");
    Ok(Sse::new(stream).keep_alive(alive))
}

impl Reader {
    fn new(admin: Admin, resume: Option<u64>, seat: Seat) -> Self {
        look(&admin);
        let mut status = admin.inner.streams.status.subscribe();
        // First the live ones, then the past: what happens in between is in both, and sent once.
        let live = admin.runtime().events();
        let past = admin.runtime().events_since(0);
        let newest = past.last().map_or(0, |event| event.id);
        // An id that is still to come is one of another run: the server was started anew.
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
            admin,
        };
        reader.due.push_back(reader.hello(newest));
        let oldest = past.first().map_or(1, |event| event.id);
        if resume.is_some() && after + 1 < oldest {
            reader.due.push_back(reader.lagged(oldest - after - 1));
        }
        for event in past.iter().filter(|event| event.id > after) {
            let message = reader.message(event);
            reader.due.push_back(message);
        }
        let now = status_message(&status.borrow_and_update());
        reader.due.push_back(now);
        reader.status = status;
        reader
    }

    /// The next message; `None` when the runtime is gone.
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

    fn lagged(&self, missed: u64) -> Message {
        self.admin.inner.missed.fetch_add(missed, Ordering::Relaxed);
        let data = json!({ "missed": missed });
        Message::default().event("lagged").data(data.to_string())
    }
}

fn status_message(status: &str) -> Message {
    Message::default().event("status").data(status)
}
