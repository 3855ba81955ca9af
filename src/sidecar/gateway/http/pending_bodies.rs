//! The bodies that are on their way while their calls hold a place of one dependency.
//!
//! Slow ones may take half of the places, so that slow callers cannot keep the others from the
//! dependency. Nothing is read here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of bodies that are being read for the calls of one dependency.
#[derive(Debug, Default)]
pub(crate) struct PendingBodies {
    max_slow: AtomicUsize,
    pending: AtomicUsize,
}

impl PendingBodies {
    /// Sets the number of places, `bulkhead.max_concurrent`.
    pub(crate) fn set_places(&self, max_concurrent: u32) {
        let half = usize::try_from(max_concurrent / 2).unwrap_or(usize::MAX);
        self.max_slow.store(half.max(1), Ordering::Relaxed);
    }

    /// Adds a body that is about to be read.
    pub(crate) fn begin(&self) -> PendingBody<'_> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        PendingBody(self)
    }

    /// Adds a body that is passed on, and has become slow.
    pub(super) fn begin_slow(self: &Arc<Self>) -> SlowBody {
        self.pending.fetch_add(1, Ordering::Relaxed);
        SlowBody(Arc::clone(self))
    }

    /// Returns true if slow bodies have to give their places back.
    pub(crate) fn are_too_many(&self) -> bool {
        // EDGE-4: callers who send slowly cannot take all places.
        self.pending.load(Ordering::Relaxed) > self.max_slow.load(Ordering::Relaxed)
    }
}

/// A body that is being read.
#[derive(Debug)]
pub(crate) struct PendingBody<'a>(&'a PendingBodies);

impl Drop for PendingBody<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that is passed on slowly.
#[derive(Debug)]
pub(super) struct SlowBody(Arc<PendingBodies>);

impl Drop for SlowBody {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_4_e6b_slow_bodies_may_take_half_of_the_places() {
        let bodies = PendingBodies::default();
        for (places, most) in [(1, 1), (2, 1), (5, 2), (32, 16)] {
            bodies.set_places(places);
            let mut held: Vec<_> = (0..most).map(|_| bodies.begin()).collect();
            assert!(!bodies.are_too_many());
            held.push(bodies.begin());
            assert!(bodies.are_too_many());
        }
        bodies.set_places(2);
        assert!(!bodies.are_too_many(), "all of them are gone");
    }
}
