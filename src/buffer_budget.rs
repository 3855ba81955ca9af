//! The budget of the bytes that the process keeps (rule EDGE-4).
//!
//! Everything that is kept takes a share first, and gives it back when it is dropped. Answers of
//! stale caches give way to the rest. The budget holds no bytes itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

use crate::lock::LockExt as _;

/// Maximum number of times that caches are made smaller for one share.
const MAX_SHEDS: u32 = 16;

/// The bytes that may be kept, shared by the whole process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BufferBudget(Arc<BudgetState>);

struct BudgetState {
    limit: AtomicU64,
    used: AtomicU64,
    refused: AtomicU64,
    /// True from a refusal until there is room again.
    is_short: AtomicBool,
    caches: Mutex<Vec<Weak<dyn SheddableCache>>>,
}

/// Use of the memory for buffered bytes.
///
/// # Units   Bytes; `refused` is a number of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BufferUse {
    /// Bytes that are kept now.
    pub used: u64,
    /// Bytes that may be kept: `gateway.max_buffered`.
    pub limit: u64,
    /// Number of times that something could not be kept.
    pub refused: u64,
}

/// A cache that drops entries when memory is needed.
pub(crate) trait SheddableCache: Send + Sync {
    /// Returns the bytes of its entries.
    fn weight(&self) -> u64;

    /// Drops its oldest entries, at least one.
    fn shed(&self);
}

impl BufferBudget {
    /// Creates a budget of so many bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self(Arc::new(BudgetState {
            limit: AtomicU64::new(limit),
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
            caches: Mutex::default(),
        }))
    }

    /// Changes the limit. Entries of caches give way at once; other shares that are taken stay, also
    /// above it.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.0.limit.store(limit, Ordering::Relaxed);
        let caches = self.caches();
        // EDGE-4: a lower limit must not refuse bodies because of answers that are only kept.
        while self.present().used > limit {
            let Some(cache) = heaviest(&caches) else {
                return;
            };
            cache.shed();
        }
    }

    /// Lets the entries of a cache give way to other shares.
    pub(crate) fn may_shed(&self, cache: Weak<dyn SheddableCache>) {
        let mut caches = self.0.caches.acquire();
        caches.retain(|known| known.strong_count() > 0);
        caches.push(cache);
    }

    /// Returns an empty share, which can grow.
    pub(crate) fn share(&self) -> BufferShare {
        BufferShare {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// Takes a share; `None` if the budget is used up.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<BufferShare> {
        let mut share = self.share();
        share.grow_to(bytes).then_some(share)
    }

    /// Returns the present use.
    pub(crate) fn present(&self) -> BufferUse {
        let state = &self.0;
        BufferUse {
            used: state.used.load(Ordering::Relaxed),
            limit: state.limit.load(Ordering::Relaxed),
            refused: state.refused.load(Ordering::Relaxed),
        }
    }

    /// Takes bytes if there are any. A refusal is counted, and told once an episode.
    fn take(&self, bytes: u64) -> bool {
        if self.take_now(bytes) || self.shed_for(bytes) {
            return true;
        }
        let state = &self.0;
        state.refused.fetch_add(1, Ordering::Relaxed);
        if !state.is_short.swap(true, Ordering::Relaxed) {
            let BufferUse { used, limit, .. } = self.present();
            tracing::warn!(
                used,
                limit,
                "the memory for buffered bodies and answers is used up; raise gateway.max_buffered, \
                 or lower bulkhead.max_concurrent, gateway.max_replay_body or max_bytes of caches"
            );
        }
        false
    }

    fn take_now(&self, bytes: u64) -> bool {
        let state = &self.0;
        let limit = state.limit.load(Ordering::Relaxed);
        let taken = state
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= limit)
            });
        // The episode is over only with some room: one line must not follow the other.
        if taken.is_ok_and(|used| used < limit / 4 * 3) {
            state.is_short.store(false, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    fn caches(&self) -> Vec<Arc<dyn SheddableCache>> {
        let caches = self.0.caches.acquire();
        caches.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes bytes that entries of caches have held.
    fn shed_for(&self, bytes: u64) -> bool {
        let caches = self.caches();
        let in_caches: u64 = caches.iter().map(|cache| cache.weight()).sum();
        let BufferUse { used, limit, .. } = self.present();
        // Caches are not emptied for what would not fit even then.
        if used.saturating_sub(in_caches).saturating_add(bytes) > limit {
            return false;
        }
        for _ in 0..MAX_SHEDS {
            let Some(cache) = heaviest(&caches) else {
                return false;
            };
            cache.shed();
            if self.take_now(bytes) {
                return true;
            }
        }
        false
    }
}

/// Returns the largest cache, unless all are empty.
fn heaviest(caches: &[Arc<dyn SheddableCache>]) -> Option<&Arc<dyn SheddableCache>> {
    let heaviest = caches.iter().max_by_key(|cache| cache.weight());
    heaviest.filter(|cache| cache.weight() > 0)
}

impl std::fmt::Debug for BufferBudget {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.present().fmt(out)
    }
}

/// A share of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct BufferShare {
    budget: BufferBudget,
    bytes: u64,
}

impl BufferShare {
    /// Makes it at least so large. Returns false, and leaves it as it is, if the budget is used up.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 && !self.budget.take(more) {
            return false;
        }
        self.bytes += more;
        true
    }

    /// Wraps the bytes that it stands for: it is given back with their last clone.
    pub(crate) fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(CountedBytes {
            bytes,
            _share: self,
        })
    }
}

impl Drop for BufferShare {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes with their share of the budget.
struct CountedBytes<B> {
    bytes: B,
    _share: BufferShare,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for CountedBytes<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache that holds shares of ten bytes.
    struct TenByteEntries(Mutex<Vec<BufferShare>>);

    impl SheddableCache for TenByteEntries {
        fn weight(&self) -> u64 {
            10 * self.0.acquire().len() as u64
        }

        fn shed(&self) {
            drop(self.0.acquire().pop());
        }
    }

    #[test]
    fn edge_4_e6c_what_is_kept_never_exceeds_the_budget() {
        let budget = BufferBudget::new(100);
        let mut first = budget.try_take(60).unwrap();
        assert!(budget.try_take(41).is_none());
        assert!(!first.grow_to(101));
        assert!(first.grow_to(100) && first.grow_to(5));
        assert_eq!(budget.present().used, 100);
        let kept = first.hold(vec![0; 100]);
        let other = kept.clone();
        drop(kept);
        assert_eq!(budget.present().used, 100, "a clone is left");
        drop(other);
        let empty = BufferUse {
            used: 0,
            limit: 100,
            refused: 2,
        };
        assert_eq!(budget.present(), empty);
        budget.set_limit(10);
        assert!(budget.try_take(11).is_none());
    }

    #[test]
    fn edge_4_e6c_kept_answers_give_way_to_bodies() {
        let budget = BufferBudget::new(100);
        let shares = (0..9).map(|_| budget.try_take(10).unwrap()).collect();
        let cache = Arc::new(TenByteEntries(Mutex::new(shares)));
        let weak: Weak<TenByteEntries> = Arc::downgrade(&cache);
        budget.may_shed(weak);
        let body = budget.try_take(30);
        assert!(body.is_some());
        assert_eq!(cache.weight(), 70);
        assert_eq!(budget.present().refused, 0);
        // None goes for what would not fit even then.
        assert!(budget.try_take(71).is_none());
        assert_eq!(cache.weight(), 70);
        // A lower limit holds at once, as far as they can make room.
        budget.set_limit(60);
        assert_eq!((cache.weight(), budget.present().used), (30, 60));
        budget.set_limit(20);
        assert_eq!((cache.weight(), budget.present().used), (0, 30));
    }
}
