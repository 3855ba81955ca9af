//! A value that every call reads and that hardly ever changes.
//!
//! Loading the `ArcSwap` costs two contended read-modify-writes. So each thread caches the value it
//! has read, and compares a version to see whether it was replaced since.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use thread_local::ThreadLocal;

/// A value that is replaced as a whole, and cached by each thread that reads it.
///
/// A thread that stops reading keeps its last value until the whole is dropped.
pub(crate) struct ThreadCached<T: Send + Sync> {
    present: ArcSwap<T>,
    /// Number of replacements.
    version: AtomicU64,
    cached: ThreadLocal<RefCell<CachedValue<T>>>,
}

/// The value that a thread has read last, with its version.
struct CachedValue<T> {
    version: u64,
    value: Arc<T>,
}

impl<T: Send + Sync> ThreadCached<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            present: ArcSwap::from_pointee(value),
            version: AtomicU64::new(0),
            cached: ThreadLocal::new(),
        }
    }

    /// Replaces the value, and returns the one before.
    pub(crate) fn replace(&self, value: T) -> Arc<T> {
        let old = self.present.swap(Arc::new(value));
        // CFG-2: a reader that sees the new version loads the new value.
        self.version.fetch_add(1, Ordering::Release);
        old
    }

    /// Reads the value in this thread's cache. `read` must not read the same value again.
    #[inline(always)]
    pub(crate) fn read<R>(&self, read: impl FnOnce(&Arc<T>) -> R) -> R {
        // Before the value: one that is replaced in between is loaded again next time.
        let version = self.version.load(Ordering::Acquire);
        let cached = self.cached.get_or(|| RefCell::new(self.load_at(version)));
        let mut cached = cached.borrow_mut();
        if cached.version != version {
            *cached = self.load_at(version);
        }
        read(&cached.value)
    }

    #[cold]
    fn load_at(&self, version: u64) -> CachedValue<T> {
        CachedValue {
            version,
            value: self.present.load_full(),
        }
    }

    /// Loads the value past the cache, for readers that hold it across more than one decision.
    #[inline]
    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        self.present.load()
    }
}

impl<T: Send + Sync + fmt::Debug> fmt::Debug for ThreadCached<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("ThreadCached")
            .field(&*self.load())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_2_every_thread_reads_the_last_value() {
        let cached = ThreadCached::new(1);
        let read = || cached.read(|value| **value);
        assert_eq!((read(), read()), (1, 1));
        for value in [2, 3] {
            cached.replace(value);
            assert_eq!(read(), value);
            let elsewhere = std::thread::scope(|scope| scope.spawn(read).join().unwrap());
            assert_eq!((elsewhere, **cached.load()), (value, value));
        }
    }
}
