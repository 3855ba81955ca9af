//! Synchronization primitives that can be replaced by loom's, and one way to take a lock.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard};

use std::sync::atomic::AtomicUsize;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Number of values of [`thread_index`].
pub(crate) const THREAD_INDEXES: usize = 8;

thread_local! {
    static THREAD_INDEX: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % THREAD_INDEXES
    };
}

/// Returns the index of this thread, below [`THREAD_INDEXES`]. The first threads have one each,
/// further threads share.
#[inline(always)]
pub(crate) fn thread_index() -> usize {
    THREAD_INDEX.with(|index| *index)
}

/// A lock that is taken even after a panic of its last owner.
///
/// This package keeps no state that a panic could leave half changed under a lock; the breaker's
/// machine, which user code could interrupt, is repaired by the next incarnation of its actor.
pub(crate) trait LockExt<T: ?Sized> {
    /// Takes the lock.
    fn acquire(&self) -> MutexGuard<'_, T>;

    /// Returns the value through an exclusive reference, without a lock.
    fn exclusive(&mut self) -> &mut T;
}

/// A read-write lock that is taken even after a panic of its last owner; see [`LockExt`].
pub(crate) trait RwLockExt<T: ?Sized> {
    /// Takes the lock for reading.
    fn acquire_read(&self) -> RwLockReadGuard<'_, T>;
    /// Takes the lock for writing.
    fn acquire_write(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T: ?Sized> LockExt<T> for Mutex<T> {
    #[inline]
    fn acquire(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&mut self) -> &mut T {
        self.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> RwLockExt<T> for RwLock<T> {
    fn acquire_read(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn acquire_write(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}
