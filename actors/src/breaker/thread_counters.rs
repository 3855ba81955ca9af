//! Counters of one thread for one breaker. No other thread writes them, so no call waits for
//! another thread's cache.

use std::sync::OnceLock;

use breakerbox_policy::Time;

use super::shared::SharedBreaker;
use crate::breaker::gate::{SuccessBatch, SuccessCounter};
use crate::breaker::in_flight::{AgeRing, InFlightTicket};

/// The counters of one thread. A new thread may reuse those of a thread that has ended.
#[derive(Debug)]
pub(super) struct ThreadCounters {
    successes: SuccessCounter,
    /// Made only where ages are tracked: it is large.
    in_flight: OnceLock<Box<AgeRing>>,
}

impl ThreadCounters {
    /// Boxed, because room is made for several threads at a time.
    fn new() -> Box<Self> {
        Box::new(Self {
            successes: SuccessCounter::new(),
            in_flight: OnceLock::new(),
        })
    }

    #[inline]
    fn in_flight(&self) -> &AgeRing {
        self.in_flight.get_or_init(|| Box::new(AgeRing::new()))
    }
}

impl SharedBreaker {
    #[inline]
    fn shard(&self) -> &ThreadCounters {
        self.shards.get_or(ThreadCounters::new)
    }

    /// Counts a call of the generation `tag` as in flight, if ages are tracked.
    #[inline(always)]
    pub(crate) fn start(&self, now: Time, tag: u64) -> Option<InFlightTicket> {
        let ticket = self.watch.ticket(now, tag)?;
        self.shard().in_flight().start(ticket);
        Some(ticket)
    }

    /// Counts a call as ended, on any thread.
    #[inline(always)]
    pub(crate) fn end(&self, ticket: InFlightTicket) {
        self.shard().in_flight().end(ticket);
    }

    /// Number of calls of the generation `tag` that are in flight for too long (rule BRK-9).
    pub(crate) fn overdue(&self, now: Time, tag: u64) -> u64 {
        let shards = self.shards.iter();
        let rings: Vec<&AgeRing> = shards
            .filter_map(|shard| shard.in_flight.get().map(|ring| &**ring))
            .collect();
        self.watch.overdue(now, tag, rings.iter().copied())
    }

    /// Counts a success of the generation `tag`. A returned batch must be reported to the breaker;
    /// see [`SuccessCounter::count`].
    #[inline(always)]
    pub(crate) fn count_success(&self, tag: u64, now: Time) -> Option<SuccessBatch> {
        self.shard().successes.count(tag, self.bucket(now))
    }

    /// Takes the successes of all threads that were not yet reported.
    pub(crate) fn take_successes(&self) -> impl Iterator<Item = SuccessBatch> {
        self.shards
            .iter()
            .filter_map(|shard| shard.successes.take())
    }
}
