//! A value that every call reads and that hardly ever changes.
//!
//! To read it where it is replaced costs two exchanges with other threads. So each thread keeps the
//! value that it has seen, and looks whether there has been another one since.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use thread_local::ThreadLocal;

/// A value that is replaced as a whole, or none.
pub(crate) struct ThreadCached<T: Send + Sync> {
    present: ArcSwapOption<T>,
    /// How often it was replaced.
    version: AtomicU64,
    seen: ThreadLocal<RefCell<CachedValue<T>>>,
}

/// What a thread has seen last, and of which version; a thread that does not look keeps it.
struct CachedValue<T> {
    version: Option<u64>,
    value: Option<Arc<T>>,
}

impl<T: Send + Sync> ThreadCached<T> {
    pub(crate) fn new(value: Option<T>) -> Self {
        Self {
            present: ArcSwapOption::from_pointee(value),
            version: AtomicU64::new(0),
            seen: ThreadLocal::new(),
        }
    }

    pub(crate) fn replace(&self, value: Option<T>) {
        self.present.store(value.map(Arc::new));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Reads it; `read` must not come back here.
    #[inline]
    pub(crate) fn read<R>(&self, read: impl FnOnce(Option<&T>) -> R) -> R {
        let seen = self.seen.get_or(|| {
            RefCell::new(CachedValue {
                version: None,
                value: None,
            })
        });
        let mut seen = seen.borrow_mut();
        // Before the value: one that is replaced in between is looked for again next time.
        let version = Some(self.version.load(Ordering::Acquire));
        if seen.version != version {
            let value = self.present.load_full();
            *seen = CachedValue { version, value };
        }
        read(seen.value.as_deref())
    }

    /// The value itself, for whoever holds it for longer.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        self.present.load_full()
    }
}

impl<T: Send + Sync + fmt::Debug> fmt::Debug for ThreadCached<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Published").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_2_every_thread_reads_the_last_value() {
        let published = ThreadCached::new(Some(1));
        let read = || published.read(|value| value.copied());
        assert_eq!((read(), read()), (Some(1), Some(1)));
        for value in [Some(2), None, Some(3)] {
            published.replace(value);
            assert_eq!(read(), value);
            let elsewhere = std::thread::scope(|scope| scope.spawn(read).join().unwrap());
            assert_eq!(
                (elsewhere, published.get().as_deref()),
                (value, value.as_ref())
            );
        }
    }
}
