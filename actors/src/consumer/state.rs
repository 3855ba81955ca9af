//! The part of a consumer that outlives its crashes: settings, books, and status.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::{DeadReason, MessageRules, MessageTally};
use tokio::sync::watch;

use super::message::QueueMessage;
use super::source::MessageSource;
use super::work::MessageWork;
use crate::client::{Readiness, ReadinessObstacle};
use crate::consumer_pause::ConsumerPause;
use crate::event::{EventBus, EventKind};
use crate::sync::LockExt as _;

/// Settings of a consumer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConsumerSettings {
    /// Rules for its messages.
    pub rules: MessageRules,
    /// Maximum number of its messages in flight; `None` for the limit of the dependency.
    pub max_in_flight: Option<NonZeroU32>,
    /// Time after which the server delivers a message again of which it has heard nothing.
    pub ack_wait: Duration,
    /// Subject of the dead letters.
    pub dead_letters: String,
}

impl ConsumerSettings {
    /// Returns the defaults, with a subject for the dead letters.
    #[must_use]
    pub fn new(dead_letters: impl Into<String>) -> Self {
        Self {
            rules: MessageRules::default(),
            max_in_flight: None,
            ack_wait: Duration::from_secs(30),
            dead_letters: dead_letters.into(),
        }
    }
}

/// The present figures of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// The dependency that it calls.
    pub dependency: String,
    /// Its books since the start of the process.
    pub tally: MessageTally,
    /// Messages that wait in its queue, as last read.
    pub pending: u64,
    /// The reason why it fetches nothing at present, if it does not.
    pub paused: Option<ConsumerPause>,
    /// The last failure of the queue, while it stands.
    pub problem: Option<String>,
}

/// Shared state of a consumer and its incarnations.
pub(crate) struct ConsumerState {
    pub(crate) name: Arc<str>,
    /// Name of its child of the tree.
    pub(crate) child: String,
    pub(super) settings: ConsumerSettings,
    pub(super) source: Arc<dyn MessageSource>,
    pub(super) work: Arc<dyn MessageWork>,
    pub(super) draining: watch::Sender<bool>,
    /// Places of the messages that this consumer works on.
    pub(super) held: Mutex<BTreeSet<String>>,
    events: EventBus,
    /// The books, which go on when another consumer takes its place.
    tally: Arc<Mutex<MessageTally>>,
    shown: Mutex<ShownState>,
    pending: AtomicU64,
    /// Number of probes that a message failed as since the breaker was closed last, by its place.
    failed_probes: Mutex<BTreeMap<String, u32>>,
    /// Number of its own messages with an open fate.
    in_flight: AtomicU64,
    /// Number of its open questions for messages.
    asked: AtomicUsize,
}

#[derive(Default)]
struct ShownState {
    paused: Option<ConsumerPause>,
    /// The reason of the present pause that was told.
    told: Option<ConsumerPause>,
    problem: Option<String>,
    /// Number of its messages that the queue keeps waiting.
    waiting: u32,
}

/// A message that asks its queue again and again.
pub(super) struct WaitingForQueue(Arc<ConsumerState>);

impl WaitingForQueue {
    pub(super) fn begin(state: &Arc<ConsumerState>) -> Self {
        state.shown.acquire().waiting += 1;
        Self(Arc::clone(state))
    }
}

impl Drop for WaitingForQueue {
    fn drop(&mut self) {
        let mut shown = self.0.shown.acquire();
        shown.waiting = shown.waiting.saturating_sub(1);
    }
}

impl ConsumerState {
    pub(crate) fn new(
        name: &str,
        settings: ConsumerSettings,
        (source, work): (Arc<dyn MessageSource>, Arc<dyn MessageWork>),
        events: EventBus,
    ) -> Self {
        Self {
            name: Arc::from(name),
            child: format!("consumer:{name}"),
            settings,
            source,
            work,
            draining: watch::channel(false).0,
            held: Mutex::default(),
            events,
            tally: Arc::default(),
            shown: Mutex::default(),
            pending: AtomicU64::new(0),
            failed_probes: Mutex::default(),
            in_flight: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
        }
    }

    /// Goes on with the books of the consumer that it takes the place of.
    pub(crate) fn after(mut self, former: &Self) -> Self {
        self.tally = Arc::clone(&former.tally);
        let pending = former.pending.load(Ordering::Relaxed);
        self.pending = AtomicU64::new(pending);
        self
    }

    /// Notes that a message of it has an open fate, or no longer.
    pub(super) fn carries(&self, is_begin: bool) {
        match is_begin {
            true => self.in_flight.fetch_add(1, Ordering::AcqRel),
            false => self.in_flight.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// Notes the number of its open questions for messages.
    pub(super) fn asks(&self, count: usize) {
        self.asked.store(count, Ordering::Release);
    }

    /// Returns true if it has no message, and has asked for none.
    fn is_idle(&self) -> bool {
        let asked = self.asked.load(Ordering::Acquire);
        asked == 0 && self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Changes the books.
    pub(super) fn book(&self, change: impl FnOnce(&mut MessageTally)) {
        let mut tally = self.tally.acquire();
        change(&mut tally);
        debug_assert!(tally.adds_up(), "MSG-3");
    }

    /// Returns the number of messages to fetch now, or the reason for none and the time until
    /// another look. `in_flight`: its messages with an open fate; `waiting`: those among them with
    /// calls that have not begun.
    pub(super) fn room(
        &self,
        in_flight: u32,
        waiting: u32,
    ) -> Result<u32, (ConsumerPause, Duration)> {
        if *self.draining.borrow() {
            return Err((ConsumerPause::Draining, LOOK));
        }
        let ready = self.work.readiness();
        if let Some(pause) = pause_of(&ready) {
            return Err((pause, ready.retry_after.unwrap_or(LOOK).min(LOOK)));
        }
        // MSG-1: the calls that can begin now, less the fetched messages that have not begun.
        let most = self
            .settings
            .max_in_flight
            .map_or(u32::MAX, NonZeroU32::get);
        let own = most.saturating_sub(in_flight);
        let free = ready.available.saturating_sub(waiting).min(own).min(BATCH);
        // MSG-1: one message is enough to try the dependency with.
        let free = match ready.is_trial {
            true if waiting > 0 => return Err((ConsumerPause::Breaker, LOOK)),
            true => free.min(1),
            false => free,
        };
        match free {
            0 => Err((ConsumerPause::Bulkhead, LOOK)),
            free => Ok(free),
        }
    }

    /// Shows that it fetches, or why it does not. `is_trial`: a breaker that is tried is not closed.
    pub(super) fn show(&self, paused: Option<ConsumerPause>, is_trial: bool) {
        let mut shown = self.shown.acquire();
        shown.paused = paused;
        let long = paused.filter(|reason| reason.is_long());
        let consumer = Arc::clone(&self.name);
        // OPS-1: an actor that has ended is told, also in a pause that was told for another reason.
        let is_actor = |reason: Option<ConsumerPause>| reason == Some(ConsumerPause::Actor);
        let event = match (long, shown.told) {
            (Some(reason), told) if told.is_none() || is_actor(long) != is_actor(told) => {
                EventKind::ConsumerPaused { consumer, reason }
            }
            (None, Some(_)) if paused.is_none() && !is_trial => {
                EventKind::ConsumerResumed { consumer }
            }
            _ => return,
        };
        shown.told = long;
        drop(shown);
        self.emit(event);
    }

    /// Notes a failure of the queue, or that it works again.
    pub(super) fn note(&self, problem: Option<String>) {
        let mut shown = self.shown.acquire();
        // Messages can come from a queue that does not take their answers.
        let is_over = problem.is_some() || shown.waiting == 0;
        if shown.problem == problem || !is_over {
            return;
        }
        match &problem {
            Some(problem) => tracing::warn!(consumer = &*self.name, "{problem}"),
            None => tracing::info!(consumer = &*self.name, "the queue is available again"),
        }
        shown.problem = problem;
    }

    /// Tells of a dead letter, or of one that could not be buried.
    pub(super) fn tell_dead(&self, id: &str, reason: DeadReason, refused: Option<String>) {
        self.emit(EventKind::DeadLettered {
            consumer: Arc::clone(&self.name),
            id: id.to_owned(),
            reason,
            refused,
        });
    }

    /// Notes that a message failed as a probe, and tells of it once it has done so several times. The
    /// probes of an outage are other messages, as long as the queue has any.
    pub(super) fn note_failed_probe(&self, message: &QueueMessage) {
        let mut failed = self.failed_probes.acquire();
        if failed.len() >= SUSPECTS && !failed.contains_key(&message.place) {
            return;
        }
        let probes = failed.entry(message.place.clone()).or_default();
        *probes += 1;
        let probes = *probes;
        drop(failed);
        if probes.is_multiple_of(SUSPICIOUS) {
            self.emit(EventKind::PoisonSuspected {
                consumer: Arc::clone(&self.name),
                id: message.id.clone(),
                place: message.place.clone(),
                probes,
            });
        }
    }

    /// Notes that the breaker is closed: no message keeps it open.
    pub(super) fn note_closed(&self) {
        self.failed_probes.acquire().clear();
    }

    fn emit(&self, event: EventKind) {
        self.events.emit(&Arc::from(self.work.dependency()), event);
    }

    pub(super) fn set_pending(&self, pending: u64) {
        self.pending.store(pending, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> ConsumerStatus {
        let shown = self.shown.acquire();
        ConsumerStatus {
            name: self.name.to_string(),
            dependency: self.work.dependency(),
            tally: *self.tally.acquire(),
            pending: self.pending.load(Ordering::Relaxed),
            paused: shown.paused,
            problem: shown.problem.clone(),
        }
    }
}

/// Time until another look at the readiness, at most.
const LOOK: Duration = Duration::from_millis(20);

/// Number of probes that one message fails as, after which it is told.
const SUSPICIOUS: u32 = 3;

/// Maximum number of messages with counted failed probes.
const SUSPECTS: usize = 64;

/// Maximum number of messages that are asked for at once.
const BATCH: u32 = 256;

fn pause_of(ready: &Readiness) -> Option<ConsumerPause> {
    if ready.available > 0 {
        return None;
    }
    Some(match ready.kept_back_by {
        Some(ReadinessObstacle::Pause) => ConsumerPause::Pause,
        Some(ReadinessObstacle::Breaker | ReadinessObstacle::NoWorker) => ConsumerPause::Breaker,
        Some(ReadinessObstacle::NoActor) => ConsumerPause::Actor,
        Some(ReadinessObstacle::RateLimit | ReadinessObstacle::Bulkhead) | None => {
            ConsumerPause::Bulkhead
        }
    })
}

/// A handle of a running consumer. Dropping it changes nothing.
#[derive(Clone)]
pub struct ConsumerHandle(Arc<ConsumerState>);

impl ConsumerHandle {
    pub(crate) fn of(state: Arc<ConsumerState>) -> Self {
        Self(state)
    }

    /// Fetches no more messages from now on; those in flight go on to their ends.
    pub fn drain(&self) {
        self.0.draining.send_replace(true);
    }

    /// Waits until no message of it is in flight or asked for. It never ends while messages are fetched.
    pub async fn drained(&self) {
        let mut tick = tokio::time::interval(LOOK);
        while !self.0.is_idle() {
            tick.tick().await;
        }
    }

    /// Returns true if it fetches no more, and no message of it is in flight or asked for.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        *self.0.draining.borrow() && self.0.is_idle()
    }

    pub(crate) fn state(&self) -> &ConsumerState {
        &self.0
    }

    /// Returns its present figures.
    #[must_use]
    pub fn status(&self) -> ConsumerStatus {
        self.0.status()
    }
}

impl fmt::Debug for ConsumerHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("ConsumerHandle")
            .field(&self.0.name)
            .finish()
    }
}
