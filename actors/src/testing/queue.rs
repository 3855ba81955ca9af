//! A queue for tests of consumers, on tokio's clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::{MessageNotes, NotedWork, Time, partition_of};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::consumer::{MessageSource, OutgoingMessage, QueueMessage, SourceError, SourceFuture};
use crate::sync::LockExt;

/// A queue that lives in the process of a test, and behaves as a server: it counts deliveries,
/// delivers again the messages that were given back or left without a word, drops second
/// publications, and lets one consumer alone claim a message.
///
/// ```
/// use breakerbox_actors::testing::ScriptedQueue;
/// use breakerbox_actors::QueueMessage;
///
/// let queue = ScriptedQueue::new();
/// queue.push(QueueMessage::new("order-17", *b"rust actors"));
/// assert_eq!(queue.waiting(), 1);
/// ```
#[derive(Clone)]
pub struct ScriptedQueue(Arc<QueueInner>);

struct QueueInner {
    state: Mutex<QueueState>,
    changed: Notify,
    ack_wait: Duration,
    /// Number of partitions with one outstanding message each; `None` without order.
    partitions: Option<NonZeroU32>,
    clock: Clock,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<StoredMessage>,
    /// Delivered messages by their places, and when they come again.
    delivered: BTreeMap<String, (StoredMessage, Time)>,
    notes: BTreeMap<String, MessageNotes>,
    published: Vec<OutgoingMessage>,
    ids: BTreeSet<String>,
    acknowledged: Vec<String>,
    delays: Vec<Duration>,
    progress: u64,
    is_down: bool,
    refused: Option<(String, String)>,
}

struct StoredMessage {
    message: QueueMessage,
    since: Time,
}

impl Default for ScriptedQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedQueue {
    /// An empty queue, which delivers a message again after 30 s without a word of it.
    #[must_use]
    pub fn new() -> Self {
        Self::with_ack_wait(Duration::from_secs(30))
    }

    /// An empty queue, which delivers a message again after this time without a word of it.
    #[must_use]
    pub fn with_ack_wait(ack_wait: Duration) -> Self {
        Self::new_with(ack_wait, None)
    }

    /// An empty queue that keeps the order of messages within its partitions: one message of each is
    /// outstanding at most. The header `breakerbox-order` of a message is its key; one without it
    /// has no order.
    #[must_use]
    pub fn ordered(partitions: NonZeroU32) -> Self {
        Self::new_with(Duration::from_secs(30), Some(partitions))
    }

    fn new_with(ack_wait: Duration, partitions: Option<NonZeroU32>) -> Self {
        Self(Arc::new(QueueInner {
            state: Mutex::default(),
            changed: Notify::new(),
            ack_wait,
            partitions,
            clock: Clock::tokio(),
        }))
    }

    /// Adds a message. Its next delivery has the number that it says.
    pub fn push(&self, mut message: QueueMessage) {
        message.deliveries = message.deliveries.saturating_sub(1);
        let since = self.0.clock.now();
        let stored = StoredMessage { message, since };
        self.0.state.acquire().waiting.push_back(stored);
        self.0.changed.notify_waiters();
    }

    /// Makes the queue unavailable, or available again.
    pub fn set_down(&self, is_down: bool) {
        self.0.state.acquire().is_down = is_down;
        self.0.changed.notify_waiters();
    }

    /// Refuses publications to this subject from now on.
    pub fn refuse(&self, subject: &str, why: &str) {
        self.0.state.acquire().refused = Some((subject.to_owned(), why.to_owned()));
    }

    /// Returns the number of messages that wait or were delivered, and have not ended.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let state = self.0.state.acquire();
        state.waiting.len() + state.delivered.len()
    }

    /// Returns the publications to a subject, without second ones of one id.
    #[must_use]
    pub fn published(&self, subject: &str) -> Vec<OutgoingMessage> {
        let state = self.0.state.acquire();
        let all = state.published.iter();
        all.filter(|message| message.subject == subject)
            .cloned()
            .collect()
    }

    /// Returns the ids of the acknowledged messages in their order.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<String> {
        self.0.state.acquire().acknowledged.clone()
    }

    /// Returns the delays with which messages were given back, in their order.
    #[must_use]
    pub fn delays(&self) -> Vec<Duration> {
        self.0.state.acquire().delays.clone()
    }

    /// Returns the notes that are kept at present, by the places of their messages.
    #[must_use]
    pub fn kept_notes(&self) -> BTreeMap<String, MessageNotes> {
        self.0.state.acquire().notes.clone()
    }

    /// Returns how often progress was told.
    #[must_use]
    pub fn progress_told(&self) -> u64 {
        self.0.state.acquire().progress
    }

    /// Runs an operation, unless the queue is down.
    fn when_up<T>(
        &self,
        operation: impl FnOnce(&mut QueueState) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let mut state = self.0.state.acquire();
        if state.is_down {
            return Err(SourceError::Unavailable("it is down".to_owned()));
        }
        let done = operation(&mut state);
        drop(state);
        self.0.changed.notify_waiters();
        done
    }

    fn now<'a, T: Send + 'a>(
        &'a self,
        operation: impl FnOnce(&mut QueueState) -> Result<T, SourceError> + Send + 'a,
    ) -> SourceFuture<'a, T> {
        Box::pin(async move { self.when_up(operation) })
    }

    /// Delivers the messages that are there: all, or those of one partition. Returns the moment at
    /// which more may be there otherwise.
    fn deliver(
        &self,
        most: u32,
        partition: Option<u32>,
    ) -> Result<(Vec<QueueMessage>, Option<Time>), SourceError> {
        let now = self.0.clock.now();
        let until = now.after(self.0.ack_wait);
        let is_wanted = |stored: &StoredMessage| match (partition, self.0.partitions) {
            (Some(wanted), Some(partitions)) => stored.partition(partitions) == wanted,
            _ => true,
        };
        let mut state = self.0.state.acquire();
        if state.is_down {
            return Err(SourceError::Unavailable("it is down".to_owned()));
        }
        state.end_waits(now, partition.is_some(), is_wanted);
        let mut outstanding = state.delivered.values();
        if partition.is_some()
            && let Some((_, at)) = outstanding.find(|(stored, _)| is_wanted(stored))
        {
            return Ok((Vec::new(), Some(*at)));
        }
        let mut messages = Vec::new();
        while u32::try_from(messages.len()).is_ok_and(|count| count < most) {
            let Some(at) = state.waiting.iter().position(is_wanted) else {
                break;
            };
            let Some(mut stored) = state.waiting.remove(at) else {
                break;
            };
            stored.message.deliveries += 1;
            stored.message.age = now.since(stored.since);
            let message = stored.message.clone();
            state
                .delivered
                .insert(message.place.clone(), (stored, until));
            messages.push(message);
        }
        let next = state.delivered.values().map(|(_, at)| *at).min();
        Ok((messages, next))
    }

    async fn fetch_from(
        &self,
        most: u32,
        partition: Option<u32>,
        wait: Duration,
    ) -> Result<Vec<QueueMessage>, SourceError> {
        let clock = &self.0.clock;
        let end = clock.now().after(wait);
        loop {
            let changed = self.0.changed.notified();
            let (messages, next) = self.deliver(most, partition)?;
            if !messages.is_empty() || clock.now() >= end {
                return Ok(messages);
            }
            let until = next.map_or(end, |next| next.min(end));
            tokio::select! {
                () = changed => {}
                () = clock.sleep_until(until) => {}
            }
        }
    }
}

impl QueueState {
    /// Lets messages wait again that were given back, or of which nothing was heard. `is_first`: before
    /// those behind them.
    fn end_waits(&mut self, now: Time, is_first: bool, is_wanted: impl Fn(&StoredMessage) -> bool) {
        let due = self.delivered.iter();
        let due = due.filter(|(_, (stored, at))| *at <= now && is_wanted(stored));
        let due: Vec<String> = due.map(|(place, _)| place.clone()).collect();
        for place in due {
            match self.delivered.remove(&place) {
                Some((stored, _)) if is_first => self.waiting.push_front(stored),
                Some((stored, _)) => self.waiting.push_back(stored),
                None => {}
            }
        }
    }
}

impl StoredMessage {
    fn partition(&self, partitions: NonZeroU32) -> u32 {
        let key = self.message.header("breakerbox-order");
        partition_of(key.unwrap_or(&self.message.place), partitions)
    }
}

impl MessageSource for ScriptedQueue {
    fn fetch(&self, most: u32, wait: Duration) -> SourceFuture<'_, Vec<QueueMessage>> {
        Box::pin(self.fetch_from(most, None, wait))
    }

    fn partitions(&self) -> u32 {
        self.0.partitions.map_or(0, NonZeroU32::get)
    }

    fn fetch_of(&self, partition: u32, wait: Duration) -> SourceFuture<'_, Vec<QueueMessage>> {
        Box::pin(self.fetch_from(1, Some(partition), wait))
    }

    fn acknowledge<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        self.now(|state| {
            state.delivered.remove(&message.place);
            state
                .waiting
                .retain(|one| one.message.place != message.place);
            state.acknowledged.push(message.id.clone());
            Ok(())
        })
    }

    fn give_back<'a>(&'a self, message: &'a QueueMessage, delay: Duration) -> SourceFuture<'a, ()> {
        let now = self.0.clock.now();
        self.now(move |state| {
            state.delays.push(delay);
            if let Some((_, until)) = state.delivered.get_mut(&message.place) {
                *until = now.after(delay);
            }
            Ok(())
        })
    }

    fn progress<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        let (now, ack_wait) = (self.0.clock.now(), self.0.ack_wait);
        self.now(move |state| {
            state.progress += 1;
            if let Some((_, until)) = state.delivered.get_mut(&message.place) {
                *until = now.after(ack_wait);
            }
            Ok(())
        })
    }

    fn notes<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, MessageNotes> {
        self.now(|state| Ok(state.notes.get(&message.place).copied().unwrap_or_default()))
    }

    fn keep_notes<'a>(
        &'a self,
        message: &'a QueueMessage,
        notes: MessageNotes,
    ) -> SourceFuture<'a, ()> {
        self.now(move |state| {
            state.notes.insert(message.place.clone(), notes);
            Ok(())
        })
    }

    fn claim<'a>(&'a self, message: &'a QueueMessage, notes: MessageNotes) -> SourceFuture<'a, ()> {
        self.now(move |state| {
            let known = state.notes.get(&message.place);
            if known.is_some_and(|known| known.work != NotedWork::NotBegun) {
                // MSG-7: of two consumers with one delivery each, one does the work.
                let problem = "another consumer has begun its work".to_owned();
                return Err(SourceError::Refused(problem));
            }
            state.notes.insert(message.place.clone(), notes);
            Ok(())
        })
    }

    fn is_outstanding<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, bool> {
        self.now(|state| {
            let mut waiting = state.waiting.iter();
            let is_waiting = waiting.any(|one| one.message.place == message.place);
            Ok(is_waiting || state.delivered.contains_key(&message.place))
        })
    }

    fn drop_notes<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        self.now(|state| {
            state.notes.remove(&message.place);
            Ok(())
        })
    }

    fn publish<'a>(&'a self, message: &'a OutgoingMessage) -> SourceFuture<'a, ()> {
        self.now(|state| {
            if let Some((subject, why)) = &state.refused
                && *subject == message.subject
            {
                return Err(SourceError::Refused(why.clone()));
            }
            if state.ids.insert(message.id.clone()) {
                state.published.push(message.clone());
            }
            Ok(())
        })
    }

    fn pending(&self) -> SourceFuture<'_, u64> {
        self.now(|state| Ok(state.waiting.len() as u64))
    }
}

impl fmt::Debug for ScriptedQueue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.acquire();
        out.debug_struct("ScriptedQueue")
            .field("waiting", &state.waiting.len())
            .field("delivered", &state.delivered.len())
            .finish_non_exhaustive()
    }
}
