//! The questions of a consumer for messages: of which lane, when, and for how many.
//!
//! A queue without order is one lane, which is asked for as many messages as can begin. With order
//! each partition is a lane, which has one message at a time. It decides nothing about a message.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Time;
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;

use super::carry::{MessageCarrier, Stage};
use super::message::QueueMessage;
use super::source::SourceError;
use super::state::ConsumerState;
use crate::clock::Clock;
use crate::consumer_pause::ConsumerPause;

/// Longest wait of one question for messages: the breaker may open meanwhile.
const POLL: Duration = Duration::from_secs(1);

/// Longest wait of one question while other partitions wait for their turn.
const TURN: Duration = Duration::from_millis(100);

/// Wait after a question that the queue could not answer.
const AGAIN: Duration = Duration::from_millis(250);

type Fetched = Result<Vec<QueueMessage>, SourceError>;

/// A part of the queue that is asked by itself.
#[derive(Debug, Clone, Copy, Default)]
struct FetchLane {
    is_asked: bool,
    in_flight: u32,
}

/// The next moment at which more can be asked for.
pub(super) enum NextLook {
    /// Never: it was drained, and its last message has ended.
    Over,
    /// At this time, or after a change.
    At(Time),
    /// After a change.
    AtChange,
}

/// The open questions of one incarnation, and its messages on their ways.
pub(super) struct FetchRound {
    state: Arc<ConsumerState>,
    begun: Rc<Stage>,
    lanes: Vec<FetchLane>,
    is_ordered: bool,
    /// The lane that is asked next.
    turn: usize,
    /// Number of answers without a message since the last one with some.
    empty: usize,
    // A fetch is never dropped: its messages would count as lost by a crash.
    asked: FuturesUnordered<LocalBoxFuture<'static, (usize, Fetched)>>,
    carried: FuturesUnordered<LocalBoxFuture<'static, usize>>,
    clock: Clock,
    not_before: Time,
}

impl FetchRound {
    pub(super) fn new(state: &Arc<ConsumerState>, clock: Clock) -> Self {
        let partitions = usize::try_from(state.source.partitions()).unwrap_or(usize::MAX);
        Self {
            state: Arc::clone(state),
            begun: Rc::default(),
            lanes: vec![FetchLane::default(); partitions.max(1)],
            is_ordered: partitions > 0,
            turn: 0,
            empty: 0,
            asked: FuturesUnordered::new(),
            carried: FuturesUnordered::new(),
            not_before: clock.now(),
            clock,
        }
    }

    pub(super) fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Asks for the messages with calls that can begin now.
    pub(super) fn ask(&mut self) -> NextLook {
        let is_asking = self.is_asking();
        match self.room() {
            Err((ConsumerPause::Draining, _)) if !is_asking && self.carried.is_empty() => {
                NextLook::Over
            }
            // Of what is asked for already, the answer is the next change.
            Err(_) if is_asking => NextLook::AtChange,
            Err((pause, wait)) => {
                self.state.show(Some(pause), false);
                NextLook::At(self.clock.now().after(wait))
            }
            Ok(_) if self.clock.now() < self.not_before => NextLook::At(self.not_before),
            Ok(most) => {
                let is_trial = self.state.work.readiness().is_trial;
                self.state.show(None, is_trial);
                self.ask_lanes(most);
                NextLook::AtChange
            }
        }
    }

    /// Returns the number of messages to ask for now beside those that are asked for already.
    fn room(&self) -> Result<u32, (ConsumerPause, Duration)> {
        let asked = match self.is_ordered {
            true => u32::try_from(self.asked.len()).unwrap_or(u32::MAX),
            false => 0,
        };
        let in_flight = u32::try_from(self.carried.len()).unwrap_or(u32::MAX);
        let waiting = self.begun.waiting().saturating_add(asked);
        self.state.room(in_flight.saturating_add(asked), waiting)
    }

    /// Asks the lanes that are free, in turn.
    fn ask_lanes(&mut self, most: u32) {
        let count = self.lanes.len();
        let order = (self.turn..self.turn + count).map(|lane| lane % count);
        let free: Vec<usize> = order.filter(|lane| self.is_free(*lane)).collect();
        if !self.is_ordered {
            for lane in free {
                let source = Arc::clone(&self.state.source);
                self.push(lane, async move { source.fetch(most, POLL).await });
            }
            return;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        // MSG-1: places for some partitions only: each is asked in turn for what is there, and for a
        // short time once none of them had anything.
        let wait = match free.len() > most {
            false => POLL,
            true if self.empty < count => Duration::ZERO,
            true => TURN,
        };
        for lane in free.into_iter().take(most) {
            let source = Arc::clone(&self.state.source);
            self.turn = (lane + 1) % count;
            self.push(lane, async move {
                let partition = u32::try_from(lane).unwrap_or(u32::MAX);
                source.fetch_of(partition, wait).await
            });
        }
    }

    /// Returns true if a lane can be asked.
    fn is_free(&self, lane: usize) -> bool {
        let lane = self.lanes[lane];
        // MSG-9: a partition has one message at a time.
        !lane.is_asked && (!self.is_ordered || lane.in_flight == 0)
    }

    fn push(&mut self, lane: usize, fetch: impl Future<Output = Fetched> + 'static) {
        self.lanes[lane].is_asked = true;
        self.asked
            .push(Box::pin(async move { (lane, fetch.await) }));
        self.state.asks(self.asked.len());
    }

    /// Awaits the next answer of the queue, or the next end of a message.
    ///
    /// # Cancel safety   Nothing is lost: what was not awaited to its end goes on in the next call.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            Some((lane, fetched)) = self.asked.next(), if !self.asked.is_empty() => {
                self.take(lane, fetched);
            }
            Some(lane) = self.carried.next(), if !self.carried.is_empty() => {
                let lane = &mut self.lanes[lane];
                lane.in_flight = lane.in_flight.saturating_sub(1);
            }
            else => std::future::pending().await,
        }
    }

    fn take(&mut self, lane: usize, fetched: Fetched) {
        self.lanes[lane].is_asked = false;
        let asked = self.asked.len();
        match fetched {
            Ok(messages) => {
                self.state.note(None);
                self.empty = match messages.is_empty() {
                    true => self.empty.saturating_add(1),
                    false => 0,
                };
                for message in messages {
                    let carrier = MessageCarrier::new(&self.state, &self.begun, message);
                    self.lanes[lane].in_flight += 1;
                    self.carried.push(Box::pin(async move {
                        carrier.carry().await;
                        lane
                    }));
                }
            }
            Err(error) => {
                self.state.note(Some(error.to_string()));
                self.not_before = self.clock.now().after(AGAIN);
            }
        }
        // After its messages are counted: a drain that looks in between must not take it as idle.
        self.state.asks(asked);
    }
}

impl Drop for FetchRound {
    fn drop(&mut self) {
        self.state.asks(0);
    }
}
