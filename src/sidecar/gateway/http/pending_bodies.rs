//! The bodies that are on their way while their calls hold a place of one dependency.
//!
//! Slow ones may keep half of the places when others need them, so that slow callers cannot keep the
//! others from the dependency. Nothing is read here.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::AttemptProgress;

/// The number of bodies that are being read for the calls of one dependency.
#[derive(Debug, Default)]
pub(crate) struct PendingBodies {
    all: PlaceShare,
    /// Those of writes, which may have fewer places.
    writes: PlaceShare,
}

/// The bodies that hold places of one kind.
#[derive(Debug, Default)]
struct PlaceShare {
    max_slow: AtomicUsize,
    pending: AtomicUsize,
}

impl PlaceShare {
    fn set_places(&self, places: u32) {
        let half = usize::try_from(places / 2).unwrap_or(usize::MAX);
        self.max_slow.store(half.max(1), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > self.max_slow.load(Ordering::Relaxed)
    }
}

impl PendingBodies {
    /// Sets the number of places, `bulkhead.max_concurrent`, and that of writes.
    pub(crate) fn set_places(&self, max_concurrent: u32, writes: Option<NonZeroU32>) {
        self.all.set_places(max_concurrent);
        let writes = writes.map_or(max_concurrent, NonZeroU32::get);
        self.writes.set_places(writes.min(max_concurrent));
    }

    /// Adds a body that is about to be read, or has become slow.
    fn begin(self: &Arc<Self>, is_write: bool) -> PendingBody {
        self.all.pending.fetch_add(1, Ordering::Relaxed);
        if is_write {
            self.writes.pending.fetch_add(1, Ordering::Relaxed);
        }
        let bodies = Arc::clone(self);
        PendingBody { bodies, is_write }
    }
}

/// A body that is being read.
#[derive(Debug)]
pub(crate) struct PendingBody {
    bodies: Arc<PendingBodies>,
    is_write: bool,
}

impl Drop for PendingBody {
    fn drop(&mut self) {
        self.bodies.all.pending.fetch_sub(1, Ordering::Relaxed);
        if self.is_write {
            self.bodies.writes.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The place of one call, as far as it concerns the call's body.
#[derive(Debug, Clone)]
pub(crate) struct BodyPlace {
    pub(crate) bodies: Arc<PendingBodies>,
    /// The progress of the call, which knows whether other calls need the place.
    pub(crate) progress: AttemptProgress,
    pub(crate) is_write: bool,
    /// True if it is the place of a probe, of which there are few.
    pub(crate) is_probe: bool,
}

impl BodyPlace {
    /// Adds a body that is about to be read, or has become slow.
    pub(super) fn begin(&self) -> PendingBody {
        self.bodies.begin(self.is_write)
    }

    /// Returns true if a slow body has to give this place back.
    pub(super) fn is_wanted(&self) -> bool {
        // EDGE-4: callers who send slowly cannot keep all places from others, nor those of probes.
        self.is_probe || (self.is_too_many() && self.progress.holds_needed_slot())
    }

    /// Returns true if slow bodies have more than their share of such places.
    fn is_too_many(&self) -> bool {
        self.bodies.all.is_over() || (self.is_write && self.bodies.writes.is_over())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_4_e6b_slow_bodies_may_take_half_of_the_places() {
        let bodies = Arc::<PendingBodies>::default();
        let place = |is_write, is_probe| BodyPlace {
            bodies: Arc::clone(&bodies),
            progress: AttemptProgress::default(),
            is_write,
            is_probe,
        };
        let (read, write) = (place(false, false), place(true, false));
        for (places, most) in [(1, 1), (2, 1), (5, 2), (32, 16)] {
            bodies.set_places(places, None);
            let mut held: Vec<_> = (0..most).map(|_| write.begin()).collect();
            assert!(!read.is_too_many() && !write.is_too_many());
            assert!(place(false, true).is_wanted());
            held.push(read.begin());
            assert!(read.is_too_many());
            held.push(write.begin());
            assert!(write.is_too_many());
            assert!(!write.is_wanted(), "it holds no place");
        }
        bodies.set_places(32, NonZeroU32::new(4));
        let held: Vec<_> = (0..3).map(|_| write.begin()).collect();
        assert!(
            write.is_too_many() && !read.is_too_many(),
            "writes have fewer"
        );
        drop(held);
        assert!(!write.is_too_many(), "all of them are gone");
    }
}
