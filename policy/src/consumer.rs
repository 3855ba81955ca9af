//! The fate of a message that a consumer took from a queue: it is worked on or not, and afterwards it
//! is answered, buried as a dead letter, or given back with a delay.
//!
//! It fetches and acknowledges nothing, and it reads no clock: the knowledge of a message is an
//! argument.

mod partition;

mod tally;

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::{BackoffSettings, Class, Executed, RandomSource, backoff};

pub use partition::partition_of;
pub use tally::MessageTally;

/// Wait after which another look is worth it, where nothing says how long a lack lasts.
const SOON: Duration = Duration::from_millis(250);

/// Minimum delay of a message that is given back: without one it would come again at once.
const LEAST: Duration = Duration::from_millis(10);

/// Rules for the messages of one consumer.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageRules {
    /// Number of failures that make a message a dead letter.
    pub max_failures: NonZeroU32,
    /// Number of crashes that make a message a dead letter.
    pub max_crashes: NonZeroU32,
    /// Maximum delay of a message that is given back.
    pub max_delay: Duration,
    /// True if work that may have been done already is done again, although it is not idempotent.
    pub repeats_maybe: bool,
}

impl Default for MessageRules {
    fn default() -> Self {
        const FIVE: NonZeroU32 = NonZeroU32::new(5).expect("five is not zero");
        Self {
            max_failures: FIVE,
            max_crashes: FIVE,
            max_delay: Duration::from_secs(60),
            repeats_maybe: false,
        }
    }
}

/// The notes of earlier deliveries of a message, which outlive the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageNotes {
    /// Number of times that it was given back.
    pub returns: u32,
    /// Number of failures that were held against it.
    pub failures: u32,
    /// State of the work on it.
    pub work: NotedWork,
}

/// State of the work on a message, as far as its notes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotedWork {
    /// None has begun, or none needs a note.
    #[default]
    NotBegun,
    /// It has begun, and may have been done.
    Begun,
    /// It is done, and its answer is published.
    Answered,
    /// It has ended so, and its dead letter could not be written yet.
    Dead(DeadReason, Executed),
}

/// A message as it comes from its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageArrival {
    /// Number of its deliveries by the server, this one among them: from 1.
    pub deliveries: u32,
    /// The notes of the earlier deliveries.
    pub notes: MessageNotes,
    /// True if its work may be done twice.
    pub is_idempotent: bool,
    /// Time since the server took it, by the server's clock.
    pub age: Duration,
    /// Time within which it has to be executed, from the moment at which the server took it.
    pub ttl: Option<Duration>,
}

impl MessageArrival {
    /// Returns the number of deliveries that ended without any word of their consumer.
    #[must_use]
    pub fn crashes(&self) -> u32 {
        // A return is a delivery too, and no crash.
        let earlier = self.deliveries.saturating_sub(1);
        earlier.saturating_sub(self.notes.returns)
    }

    /// Returns the time that is left for its work, if that is limited.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.ttl.map(|ttl| ttl.saturating_sub(self.age))
    }
}

/// The reason for a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadReason {
    /// Too many failures.
    Failures,
    /// Too many deliveries ended without any word of their consumer.
    Crashes,
    /// Its work is not idempotent, and may have been done.
    Maybe,
    /// Its time was over before its work could begin.
    Expired,
    /// It breaks the rules for messages.
    Malformed,
    /// The dependency rejected it, and there is no subject for the answer.
    Rejected,
    /// Its answer cannot be published.
    Answer,
}

impl DeadReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Failures,
        Self::Crashes,
        Self::Maybe,
        Self::Expired,
        Self::Malformed,
        Self::Rejected,
        Self::Answer,
    ];

    /// Returns the reason as a word of metrics and files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Crashes => "crashes",
            Self::Maybe => "maybe",
            Self::Expired => "expired",
            Self::Malformed => "malformed",
            Self::Rejected => "rejected",
            Self::Answer => "answer",
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// The reason for which a message is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReturnReason {
    /// The breaker refused its call.
    Refused,
    /// The dependency asked for less traffic.
    Throttled,
    /// Its call failed.
    Failed,
    /// There was no place for its call.
    NoSlotFree,
    /// The consumer, or its connection, ended before the fate of the message was certain. The server
    /// delivers it again.
    Interrupted,
}

impl ReturnReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::Refused,
        Self::Throttled,
        Self::Failed,
        Self::NoSlotFree,
        Self::Interrupted,
    ];

    /// Returns the reason as a word of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
            Self::NoSlotFree => "no_place",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The decision about a message that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageStart {
    /// Its call is made. `mark`: only after a note that it may have been done.
    Work {
        /// True if the note has to be written first.
        mark: bool,
    },
    /// It was answered before; only its acknowledgement was lost.
    Answered,
    /// It is a dead letter.
    Dead(DeadReason),
}

/// The state of the breaker after a call, as it concerns the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerAfter {
    /// It is closed, and lets calls through.
    Closed,
    /// It is not closed, and this call was its probe.
    ByProbe,
    /// It is not closed. The wait until its next try, if that is known and not a matter of probes
    /// under way.
    NotClosed(Option<Duration>),
}

/// The kind of end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageCallKind {
    /// An answer: by the dependency, or by a fallback.
    Answered,
    /// The dependency, or a layer before it, ended the call with this class.
    Ended(Class),
    /// The breaker refused it, or no worker could take it.
    Refused,
    /// A limit of the rate, or a pause, refused it.
    Limited,
    /// There was no place.
    NoSlotFree,
}

/// The end of a message's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageCallEnd {
    /// Its kind.
    pub kind: MessageCallKind,
    /// Execution state of the work, at the dependency and at its fallbacks together.
    pub executed: Executed,
    /// Execution state of the work at the fallbacks alone.
    pub executed_by_fallbacks: Executed,
    /// The wait that the refusal, or the dependency, asked for.
    pub wait: Option<Duration>,
    /// The breaker afterwards.
    pub breaker: BreakerAfter,
    /// True if an answer of any kind has a subject to go to.
    pub has_answer_subject: bool,
}

impl MessageCallEnd {
    /// Returns the execution state of the work, as it decides about a repetition.
    fn work_done(&self) -> Executed {
        match self.kind {
            // MSG-7: with a throttle, or a word about the set-up, the dependency tells that it has done
            // nothing. Its fallbacks may have.
            MessageCallKind::Ended(Class::Throttled | Class::Misconfigured)
                if self.executed == Executed::Yes =>
            {
                self.executed_by_fallbacks
            }
            _ => self.executed.max(self.executed_by_fallbacks),
        }
    }
}

/// The fate of a message after its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageFate {
    /// It is answered, then acknowledged.
    Answer,
    /// It is buried, then acknowledged.
    Dead(DeadReason),
    /// It is given back.
    Return {
        /// The delay until the server delivers it again. Never zero.
        delay: Duration,
        /// The reason.
        reason: ReturnReason,
        /// The notes to be kept, without a mark.
        notes: MessageNotes,
    },
}

impl MessageRules {
    /// Returns true if work may be done twice: it is idempotent, or the rules allow it.
    #[must_use]
    pub fn may_repeat(&self, is_idempotent: bool) -> bool {
        is_idempotent || self.repeats_maybe
    }

    /// Decides about a message that has arrived.
    #[must_use]
    pub fn begin(&self, arrival: &MessageArrival) -> MessageStart {
        let is_unsafe = !self.may_repeat(arrival.is_idempotent);
        // MSG-7: what may have been done is not done again.
        match arrival.notes.work {
            NotedWork::Answered => return MessageStart::Answered,
            // MSG-6: the reason of a dead letter is that of the work's end.
            NotedWork::Dead(reason, _) => return MessageStart::Dead(reason),
            NotedWork::Begun if is_unsafe => return MessageStart::Dead(DeadReason::Maybe),
            NotedWork::Begun | NotedWork::NotBegun => {}
        }
        // MSG-8: a message past its deadline is not executed.
        if arrival.time_left().is_some_and(|left| left.is_zero()) {
            return MessageStart::Dead(DeadReason::Expired);
        }
        // MSG-5: crashes of the consumer are counted apart from failures.
        if arrival.crashes() >= self.max_crashes.get() {
            return MessageStart::Dead(DeadReason::Crashes);
        }
        MessageStart::Work { mark: is_unsafe }
    }

    /// Decides about a message after its call. `retry`: the backoff of the dependency's retries.
    ///
    /// # Units   The delay of a message that is given back: at most `max_delay`, unless that is
    /// shorter than 10 ms.
    pub fn end(
        &self,
        arrival: &MessageArrival,
        end: &MessageCallEnd,
        retry: &BackoffSettings,
        random: &mut dyn RandomSource,
    ) -> MessageFate {
        let may_repeat = self.may_repeat(arrival.is_idempotent);
        match end.kind {
            MessageCallKind::Answered => MessageFate::Answer,
            MessageCallKind::Ended(Class::Success) => MessageFate::Answer,
            MessageCallKind::Ended(Class::Rejected) if end.has_answer_subject => {
                MessageFate::Answer
            }
            MessageCallKind::Ended(Class::Rejected) => MessageFate::Dead(DeadReason::Rejected),
            // MSG-7: an outage permits no second execution of work that is not idempotent, nor does a
            // refusal or a throttle after which a fallback may have done it.
            _ if !may_repeat && end.work_done() != Executed::No => {
                MessageFate::Dead(match end.work_done() {
                    Executed::Maybe => DeadReason::Maybe,
                    Executed::Yes | Executed::No => DeadReason::Failures,
                })
            }
            MessageCallKind::Ended(Class::Throttled) => self.throttled(arrival, end),
            // MSG-5: a wrong set-up is no fault of the message.
            MessageCallKind::Ended(Class::Misconfigured) => {
                self.give_back(arrival.notes, ReturnReason::Failed, self.max_delay)
            }
            MessageCallKind::Ended(Class::Failure | Class::Cancelled) => {
                self.failed(arrival, end, retry, random)
            }
            MessageCallKind::Limited => self.throttled(arrival, end),
            // MSG-4: a refusal until the breaker's next try, and never the lease of a probe.
            MessageCallKind::Refused => {
                let wait = match end.breaker {
                    BreakerAfter::NotClosed(wait) => wait.unwrap_or(SOON),
                    BreakerAfter::Closed | BreakerAfter::ByProbe => end.wait.unwrap_or(SOON),
                };
                self.give_back(arrival.notes, ReturnReason::Refused, wait)
            }
            MessageCallKind::NoSlotFree => {
                self.give_back(arrival.notes, ReturnReason::NoSlotFree, SOON)
            }
        }
    }

    fn throttled(&self, arrival: &MessageArrival, end: &MessageCallEnd) -> MessageFate {
        // MSG-4: a throttle until the pause's end.
        let delay = end.wait.unwrap_or(SOON);
        self.give_back(arrival.notes, ReturnReason::Throttled, delay)
    }

    fn failed(
        &self,
        arrival: &MessageArrival,
        end: &MessageCallEnd,
        retry: &BackoffSettings,
        random: &mut dyn RandomSource,
    ) -> MessageFate {
        let mut notes = arrival.notes;
        let is_held = end.kind == MessageCallKind::Ended(Class::Failure);
        let delay = match end.breaker {
            // MSG-5: a failure counts against the message while the breaker stays closed after it.
            BreakerAfter::Closed => {
                if is_held {
                    notes.failures = notes.failures.saturating_add(1);
                    if notes.failures >= self.max_failures.get() {
                        return MessageFate::Dead(DeadReason::Failures);
                    }
                }
                let tries = notes.failures.saturating_sub(1);
                backoff::delay(retry, tries, random).max(end.wait.unwrap_or_default())
            }
            // MSG-5: another message is the next probe.
            BreakerAfter::ByProbe => self.max_delay,
            BreakerAfter::NotClosed(wait) => wait.unwrap_or(SOON),
        };
        self.give_back(notes, ReturnReason::Failed, delay)
    }

    fn give_back(&self, notes: MessageNotes, reason: ReturnReason, delay: Duration) -> MessageFate {
        MessageFate::Return {
            delay: delay.min(self.max_delay).max(LEAST),
            reason,
            notes: MessageNotes {
                returns: notes.returns.saturating_add(1),
                work: NotedWork::NotBegun,
                ..notes
            },
        }
    }
}

#[cfg(test)]
mod tests;
