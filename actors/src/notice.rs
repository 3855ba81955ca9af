//! Why a breaker refuses, in words that all refusals since its last transition share.
//!
//! To count a reference where other threads may count too is most of what a refusal costs. So each
//! thread keeps a few that it was done with, and hands them out again; they are let go of when
//! others take their places, or the thread ends.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;

/// Whose breaker refuses, and why: made once for each transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalReason {
    /// The dependency's name.
    pub dependency: Arc<str>,
    /// The key, when the breaker is that of one key.
    pub key: Option<Arc<str>>,
    /// Why its breaker is in its state.
    pub reason: String,
}

/// A [`RefusalReason`] that many refusals share; cheap to clone and to drop.
#[derive(Clone)]
pub struct SharedNotice(Option<Arc<Numbered>>);

/// A notice with a number that no other one has.
struct Numbered {
    number: u64,
    notice: RefusalReason,
}

impl Numbered {
    fn new(notice: RefusalReason) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { number, notice })
    }
}

impl From<RefusalReason> for SharedNotice {
    fn from(notice: RefusalReason) -> Self {
        Self(Some(Numbered::new(notice)))
    }
}

impl Deref for SharedNotice {
    type Target = RefusalReason;

    fn deref(&self) -> &RefusalReason {
        // There is one until it is dropped.
        static NONE: LazyLock<RefusalReason> = LazyLock::new(|| RefusalReason {
            dependency: Arc::from(""),
            key: None,
            reason: String::new(),
        });
        self.0.as_ref().map_or_else(|| &*NONE, |one| &one.notice)
    }
}

impl PartialEq for SharedNotice {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedNotice {}

impl fmt::Debug for SharedNotice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(out)
    }
}

thread_local! {
    /// References that this thread was done with.
    static SPARE: RefCell<Vec<Arc<Numbered>>> = const { RefCell::new(Vec::new()) };
}

/// How many a thread keeps: refusals are held one by one, or few at a time.
const MOST_SPARE: usize = 8;

impl Drop for SharedNotice {
    fn drop(&mut self) {
        let Some(done) = self.0.take() else {
            return;
        };
        // A thread that ends keeps nothing any more; then this is its end too.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() == MOST_SPARE {
                spare.remove(0);
            }
            spare.push(done);
        });
    }
}

/// Where a breaker's present notice hangs.
pub(crate) struct CurrentReason {
    present: ArcSwap<Numbered>,
    /// Its number.
    number: AtomicU64,
}

impl CurrentReason {
    pub(crate) fn new(notice: RefusalReason) -> Self {
        let present = Numbered::new(notice);
        Self {
            number: AtomicU64::new(present.number),
            present: ArcSwap::new(present),
        }
    }

    /// Hangs up another one, with the reason of the last transition.
    pub(crate) fn replace(&self, reason: String) {
        let old = self.present.load();
        let notice = Numbered::new(RefusalReason {
            dependency: Arc::clone(&old.notice.dependency),
            key: old.notice.key.clone(),
            reason,
        });
        let number = notice.number;
        self.present.store(notice);
        self.number.store(number, Ordering::Release);
    }

    /// The present notice.
    #[inline]
    pub(crate) fn read(&self) -> SharedNotice {
        let number = self.number.load(Ordering::Acquire);
        let spare = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            let found = spare.iter().rposition(|one| one.number == number)?;
            Some(spare.remove(found))
        });
        let spare = spare.ok().flatten();
        SharedNotice(Some(spare.unwrap_or_else(|| self.present.load_full())))
    }
}

impl fmt::Debug for CurrentReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = self.present.load();
        out.debug_tuple("Board").field(&present.notice).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(reason: &str) -> CurrentReason {
        CurrentReason::new(RefusalReason {
            dependency: Arc::from("d"),
            key: None,
            reason: reason.to_owned(),
        })
    }

    fn spare() -> usize {
        SPARE.with(|spare| spare.borrow().len())
    }

    #[test]
    fn brk_11_a_refusal_has_the_words_of_the_last_transition() {
        let (one, other) = (board("one"), board("other"));
        let held = one.read();
        drop(one.read());
        assert_eq!(spare(), 1);
        assert_eq!(other.read().reason, "other", "never another breaker's");
        one.replace("anew".to_owned());
        assert_eq!(one.read().reason, "anew", "never those before it");
        assert_eq!((&*held.reason, &*held.dependency), ("one", "d"));
    }

    #[test]
    fn brk_11_a_reference_is_handed_out_again_and_few_are_kept() {
        let board = board("one");
        let references = || Arc::strong_count(&board.present.load_full()) - 2;
        drop(board.read());
        for _ in 0..100 {
            drop(board.read());
            assert_eq!((spare(), references()), (1, 1));
        }
        let held: Vec<_> = (0..100).map(|_| board.read()).collect();
        assert_eq!((spare(), references()), (0, 100));
        drop(held);
        assert_eq!((spare(), references()), (MOST_SPARE, MOST_SPARE));
        // Those of a notice that is gone make room.
        board.replace("two".to_owned());
        let held: Vec<_> = (0..100).map(|_| board.read()).collect();
        drop(held);
        assert_eq!((spare(), references()), (MOST_SPARE, MOST_SPARE));
        std::thread::scope(|scope| {
            let elsewhere = scope.spawn(|| drop((board.read(), board.read())));
            elsewhere.join().unwrap();
        });
        assert_eq!(references(), MOST_SPARE, "a thread that ends keeps none");
    }
}
