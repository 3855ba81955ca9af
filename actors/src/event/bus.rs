//! The bus that receives events: the bounded history, the streams, the log and the listeners.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use breakerbox_policy::{BreakerCause, BreakerEvent, State};
use tokio::sync::broadcast;

use super::history::EventHistory;
use super::listeners::{EventListener, HeardFunction, Listener};
use super::{EVENT_HISTORY, Event, EventKind};
use crate::clock::Clock;
use crate::consumer_pause::ConsumerPause;
use crate::deadline::{RuntimeNumber, bounded};
use crate::sync::LockExt;

/// The bus that receives events and passes them on.
#[derive(Clone)]
pub(crate) struct EventBus {
    clock: Clock,
    runtime: RuntimeNumber,
    /// Number of outages so far, over all dependencies.
    outages: Arc<AtomicU64>,
    inner: Arc<Mutex<EventLog>>,
}

pub(super) struct EventLog {
    last_id: u64,
    history: EventHistory,
    stream: broadcast::Sender<Event>,
    pub(super) listeners: Vec<Listener>,
    /// Events that are not logged yet, in order, with the listeners that hear them on the thread that
    /// logs them.
    untold: VecDeque<(Event, Vec<HeardFunction>)>,
    /// Number of events that found no room there since the last one was told.
    missed: u64,
    /// True while a thread tells them.
    is_told: bool,
}

/// Maximum number of events that wait to be logged (rule CALL-6).
const UNTOLD: usize = 65_536;

impl EventBus {
    pub(crate) fn new(clock: Clock) -> Self {
        let (stream, _) = broadcast::channel(EVENT_HISTORY);
        let inner = EventLog {
            last_id: 0,
            history: EventHistory::default(),
            stream,
            listeners: Vec::new(),
            untold: VecDeque::new(),
            missed: 0,
            is_told: false,
        };
        Self {
            clock,
            runtime: RuntimeNumber::next(),
            outages: Arc::default(),
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Records an event, logs it and passes it to all listeners.
    pub(crate) fn emit(&self, subject: &Arc<str>, kind: EventKind) {
        self.record(subject, kind);
        self.tell();
    }

    /// Records an event, to be told by [`EventBus::tell`]. A change that is made under a lock records
    /// its event under the same lock, so that the last event is the state that holds.
    pub(crate) fn record(&self, subject: &Arc<str>, kind: EventKind) {
        let kind = kind.redacted();
        let mut inner = self.lock();
        // A question to the fleet, several in a second: for a listener that answers it.
        let is_quiet = kind.is_quiet();
        inner.last_id += u64::from(!is_quiet);
        let event = Event {
            id: inner.last_id,
            at: self.clock.now(),
            subject: Arc::clone(subject),
            kind,
        };
        // OPS-1: every event goes into the bounded history, to the streams, to the log and to listeners.
        if !is_quiet {
            inner.history.keep(event.clone());
            // An event without readers is not an error.
            let _ = inner.stream.send(event.clone());
        }
        // Under the lock, so that listeners hear the events in their order.
        let listeners = inner.listeners.iter_mut();
        let listeners = listeners.filter(|one| !is_quiet || one.hears_quiet());
        let here = listeners.filter_map(|one| one.tell(&event)).collect();
        if inner.untold.len() == UNTOLD {
            inner.untold.pop_front();
            inner.missed += 1;
        }
        inner.untold.push_back((event, here));
    }

    /// Logs the recorded events and calls the listeners that have no thread of their own, in their
    /// order. Does nothing while another thread, or a listener further out on this one, is at it: that
    /// one tells them too.
    pub(crate) fn tell(&self) {
        let Some(turn) = TellingTurn::take(&self.inner) else {
            return;
        };
        while let Some((event, here)) = turn.next() {
            if !event.kind.is_quiet() {
                log(&event);
            }
            for listener in here {
                listener.call(&event);
            }
        }
    }

    pub(crate) fn listen(
        &self,
        listener: impl Fn(&Event) + Send + Sync + 'static,
    ) -> EventListener {
        // CALL-9: a listener that blocks holds up nothing that emits.
        self.add(Listener::new(listener, !self.clock.is_virtual()))
    }

    /// Registers a listener that is called on the thread that emits, for the questions to the fleet
    /// too. It must not block.
    pub(crate) fn listen_here(
        &self,
        listener: impl Fn(&Event) + Send + Sync + 'static,
    ) -> EventListener {
        self.add(Listener::new(listener, false).with_quiet())
    }

    fn add(&self, listener: Listener) -> EventListener {
        let handle = EventListener::new(&listener, Arc::downgrade(&self.inner));
        self.lock().listeners.push(listener);
        handle
    }

    /// Ends the listeners that have threads of their own, and waits for at most this time until they
    /// have heard all.
    pub(crate) async fn end_listeners(&self, patience: Duration) {
        let ended: Vec<_> = {
            let mut inner = self.lock();
            inner
                .listeners
                .extract_if(.., |one| one.is_apart())
                .collect()
        };
        let ended: Vec<_> = ended.into_iter().filter_map(Listener::finish).collect();
        if ended.is_empty() {
            return;
        }
        let until = self.clock.now().after(patience);
        let all = async {
            for over in ended {
                // Fails when the thread drops the other end.
                let _ = over.await;
            }
        };
        // One that blocks is left behind.
        let _ = bounded(&self.clock, Some(until), all).await;
    }

    /// The number of the runtime, unique in this process.
    #[inline]
    pub(crate) fn runtime(&self) -> RuntimeNumber {
        self.runtime
    }

    /// Returns the number of a new outage, from 1.
    pub(crate) fn next_outage(&self) -> u64 {
        self.outages.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes the numbers of new outages follow this one.
    pub(crate) fn number_outages_after(&self, last: u64) {
        self.outages.fetch_max(last, Ordering::Relaxed);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.lock().stream.subscribe()
    }

    /// Returns the events with an id above `after`, oldest first.
    pub(crate) fn since(&self, after: u64) -> Vec<Event> {
        self.lock().history.since(after)
    }

    fn lock(&self) -> MutexGuard<'_, EventLog> {
        // Only an allocation could panic while the lock is held; the data stays consistent.
        self.inner.acquire()
    }
}

/// The turn of one thread to tell the events. Events of other threads are left to it meanwhile, so
/// that all are told in order.
struct TellingTurn<'a>(&'a Mutex<EventLog>);

impl<'a> TellingTurn<'a> {
    /// Takes the turn, unless there is one already.
    fn take(log: &'a Mutex<EventLog>) -> Option<Self> {
        let is_told = std::mem::replace(&mut log.acquire().is_told, true);
        (!is_told).then_some(Self(log))
    }

    /// Returns the next event and its listeners. With `None` the turn is over: an event that is
    /// recorded later is told by its own thread.
    fn next(&self) -> Option<(Event, Vec<HeardFunction>)> {
        let mut log = self.0.acquire();
        let missed = std::mem::take(&mut log.missed);
        let Some(next) = log.untold.pop_front() else {
            log.is_told = false;
            return None;
        };
        drop(log);
        if missed > 0 {
            tracing::error!(missed, "events came faster than they were logged");
        }
        Some(next)
    }
}

/// Ends the turn, also after a panic of the log.
impl Drop for TellingTurn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.acquire().is_told = false;
        }
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EventBus").finish_non_exhaustive()
    }
}

/// Writes the log line: WARN for events that an operator should see, INFO for the rest, and DEBUG
/// for the first start of an actor.
fn log(event: &Event) {
    let subject = &*event.subject;
    let id = event.id;
    match &event.kind {
        EventKind::Breaker(BreakerEvent::Transition {
            from,
            to,
            generation,
            cause,
            retry_after,
            counts,
            ..
        }) => {
            let (calls, failures, slow) = (counts.calls, counts.failures, counts.slow);
            let retry_after_ms = retry_after.map(|wait| u64::try_from(wait.as_millis()));
            let retry_after_ms = retry_after_ms.map(|millis| millis.unwrap_or(u64::MAX));
            // The last successful probe of a recovery has no record of its own.
            let probes = match cause {
                BreakerCause::Recovered { successes } => Some(format!("{successes}/{calls}")),
                _ => None,
            };
            if *to == State::Open {
                tracing::warn!(id, dependency = subject, %from, %to, generation, %cause, calls, failures, slow, retry_after_ms, "breaker moved");
            } else {
                tracing::info!(id, dependency = subject, %from, %to, generation, %cause, calls, failures, slow, retry_after_ms, probes, "breaker moved");
            }
        }
        EventKind::Breaker(event) => tracing::info!(id, dependency = subject, "{event}"),
        EventKind::Operated {
            command,
            by,
            reason,
            ..
        } => tracing::warn!(id, dependency = subject, command, by, reason, "operated"),
        EventKind::OrderRestored {
            command,
            by,
            reason,
            ..
        } => tracing::warn!(
            id,
            dependency = subject,
            command,
            by,
            reason,
            "order restored"
        ),
        EventKind::Ended { incarnation, cause } if !cause.is_normal() => {
            tracing::warn!(id, subject, incarnation, %cause, "child ended");
        }
        EventKind::Parked { .. }
        | EventKind::GaveUp { .. }
        | EventKind::Stuck { .. }
        | EventKind::FallbackServing { .. }
        | EventKind::Paused { .. }
        | EventKind::HintCut { .. }
        | EventKind::Misconfigured { .. }
        | EventKind::ReloadRefused { .. }
        | EventKind::Chaos { .. }
        | EventKind::FleetLost { .. }
        | EventKind::Fenced { .. }
        | EventKind::ErrorShare { .. }
        | EventKind::NoAnswers { .. }
        | EventKind::Quarantined { .. }
        | EventKind::ConsumerPaused {
            reason: ConsumerPause::Actor,
            ..
        } => {
            tracing::warn!(id, subject, "{}", event.kind);
        }
        // No operator's event: each actor starts once.
        EventKind::Started { incarnation: 1 } => {
            tracing::debug!(id, subject, "{}", event.kind);
        }
        _ => tracing::info!(id, subject, "{}", event.kind),
    }
}
