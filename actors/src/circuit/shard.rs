//! What one thread has counted of a circuit: nobody else writes it, so that no call waits for
//! another thread's cache.

use std::sync::OnceLock;

use breakerbox_policy::Time;

use super::Circuit;
use crate::flight::{Ring, Seat};
use crate::gate::{Successes, Tally};

/// One thread's part. A thread that comes after one that has ended may go on with its part.
#[derive(Debug)]
pub(super) struct Shard {
    successes: Tally,
    /// Only where somebody watches: it is large.
    in_flight: OnceLock<Box<Ring>>,
}

impl Shard {
    /// On the heap: room is made for several threads at a time.
    fn new() -> Box<Self> {
        Box::new(Self {
            successes: Tally::new(),
            in_flight: OnceLock::new(),
        })
    }

    #[inline]
    fn in_flight(&self) -> &Ring {
        self.in_flight.get_or_init(|| Box::new(Ring::new()))
    }
}

impl Circuit {
    #[inline]
    fn shard(&self) -> &Shard {
        self.shards.get_or(Shard::new)
    }

    /// Counts a call of the generation `tag` as in flight, if anybody watches those.
    #[inline(always)]
    pub(crate) fn start(&self, now: Time, tag: u64) -> Option<Seat> {
        let seat = self.watch.seat(now, tag)?;
        self.shard().in_flight().start(seat);
        Some(seat)
    }

    /// Counts it as ended; on whatever thread that is.
    #[inline(always)]
    pub(crate) fn end(&self, seat: Seat) {
        self.shard().in_flight().end(seat);
    }

    /// Calls of the generation `tag` that are in flight for too long (rule BRK-9).
    pub(crate) fn overdue(&self, now: Time, tag: u64) -> u64 {
        let shards = self.shards.iter();
        let rings: Vec<&Ring> = shards
            .filter_map(|shard| shard.in_flight.get().map(|ring| &**ring))
            .collect();
        self.watch.overdue(now, tag, rings.iter().copied())
    }

    /// Counts a success of the generation `tag`; what is given back must be told to the breaker.
    /// See [`Tally::count`].
    #[inline(always)]
    pub(crate) fn count_success(&self, tag: u64, now: Time) -> Option<Successes> {
        self.shard().successes.count(tag, self.bucket(now))
    }

    /// Takes what all threads have counted and not told.
    pub(crate) fn take_successes(&self) -> impl Iterator<Item = Successes> {
        self.shards
            .iter()
            .filter_map(|shard| shard.successes.take())
    }
}
