//! Listeners of events: each on a thread of its own, so that one that blocks delays no other part.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::oneshot;

use super::Event;
use super::bus::EventLog;
use crate::sync::LockExt;

/// Number of events that may wait for one listener (rule CALL-6).
const MAX_BEHIND: usize = 4096;

type ListenerFunction = Arc<dyn Fn(&Event) + Send + Sync>;

/// A listener's function, until its listener has ended.
#[derive(Clone)]
pub(super) struct HeardFunction {
    function: ListenerFunction,
    has_ended: Arc<AtomicBool>,
}

impl HeardFunction {
    /// Calls it, and catches its panic.
    pub(super) fn call(&self, event: &Event) {
        if self.has_ended.load(Ordering::Acquire) {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| (self.function)(event))).is_err() {
            tracing::error!(
                event = event.id,
                "an event listener panicked; the others go on"
            );
        }
    }
}

/// One registered listener.
pub(super) struct Listener {
    number: u64,
    has_ended: Arc<AtomicBool>,
    way: ListenerWay,
    /// True if it hears the questions to the fleet too.
    hears_quiet: bool,
}

enum ListenerWay {
    /// Called on the thread that emits, on a virtual clock.
    Here(HeardFunction),
    /// Called on a thread of its own.
    Apart {
        queue: SyncSender<Event>,
        /// True while events are dropped that it has no room for.
        is_missing: bool,
        /// Dropped by the thread at its end.
        over: oneshot::Receiver<()>,
    },
}

/// Handle of a listener that was registered with [`Runtime::on_event`](crate::Runtime::on_event).
///
/// Dropping it changes nothing: the listener goes on until [`EventListener::end`] or the end of the
/// runtime.
#[derive(Clone)]
pub struct EventListener {
    number: u64,
    has_ended: Arc<AtomicBool>,
    log: Weak<Mutex<EventLog>>,
}

impl EventListener {
    pub(super) fn new(listener: &Listener, log: Weak<Mutex<EventLog>>) -> Self {
        Self {
            number: listener.number,
            has_ended: Arc::clone(&listener.has_ended),
            log,
        }
    }

    /// Takes the listener off: it hears no further event, and its captures are dropped as soon as
    /// it is not running.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        let ended = self.log.upgrade().map(|log| {
            let mut log = log.acquire();
            let of = |one: &mut Listener| one.number == self.number;
            log.listeners.extract_if(.., of).collect::<Vec<_>>()
        });
        // Without the lock: its owner may be the last one of the runtime.
        drop(ended);
    }
}

impl fmt::Debug for EventListener {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EventListener").finish_non_exhaustive()
    }
}

impl Listener {
    /// Makes a listener, with a thread if it is to be called `apart`.
    pub(super) fn new(function: impl Fn(&Event) + Send + Sync + 'static, apart: bool) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let has_ended = Arc::new(AtomicBool::new(false));
        let heard = HeardFunction {
            function: Arc::new(function),
            has_ended: Arc::clone(&has_ended),
        };
        let way = if apart { start_thread(&heard) } else { None };
        Self {
            number: LAST.fetch_add(1, Ordering::Relaxed),
            has_ended,
            way: way.unwrap_or(ListenerWay::Here(heard)),
            hears_quiet: false,
        }
    }

    /// Lets it hear the questions to the fleet too.
    pub(super) fn with_quiet(self) -> Self {
        Self {
            hears_quiet: true,
            ..self
        }
    }

    pub(super) const fn hears_quiet(&self) -> bool {
        self.hears_quiet
    }

    /// Puts an event into its queue. Returns its function if it is to be called here.
    pub(super) fn tell(&mut self, event: &Event) -> Option<HeardFunction> {
        let (queue, is_missing) = match &mut self.way {
            ListenerWay::Here(heard) => return Some(heard.clone()),
            ListenerWay::Apart {
                queue, is_missing, ..
            } => (queue, is_missing),
        };
        match queue.try_send(event.clone()) {
            Ok(()) => *is_missing = false,
            Err(TrySendError::Full(_)) if !std::mem::replace(is_missing, true) => {
                tracing::warn!(
                    event = event.id,
                    "an event listener is {MAX_BEHIND} events behind; it misses events from here on"
                );
            }
            Err(_) => {}
        }
        None
    }

    /// Returns true if it has a thread of its own.
    pub(super) fn is_apart(&self) -> bool {
        matches!(self.way, ListenerWay::Apart { .. })
    }

    /// Lets its thread end after the events that wait. Resolves when it has ended.
    pub(super) fn finish(self) -> Option<oneshot::Receiver<()>> {
        match self.way {
            ListenerWay::Here(_) => None,
            ListenerWay::Apart { over, .. } => Some(over),
        }
    }
}

/// Starts the thread of a listener; `None` if there can be none.
fn start_thread(heard: &HeardFunction) -> Option<ListenerWay> {
    let (queue, events) = sync_channel(MAX_BEHIND);
    let (alive, over) = oneshot::channel::<()>();
    let heard = heard.clone();
    let started = std::thread::Builder::new()
        .name("breakerbox-hear".to_owned())
        .spawn(move || {
            hear(&events, &heard);
            drop(heard);
            drop(alive);
        });
    started.ok()?;
    Some(ListenerWay::Apart {
        queue,
        is_missing: false,
        over,
    })
}

fn hear(events: &Receiver<Event>, heard: &HeardFunction) {
    while let Ok(event) = events.recv() {
        if heard.has_ended.load(Ordering::Acquire) {
            return;
        }
        heard.call(&event);
    }
}
