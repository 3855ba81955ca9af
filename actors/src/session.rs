//! A bound on what one session may spend: an agent that asks in a loop is stopped here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What several calls may cost together; cheap to clone, all clones spend from one purse.
///
/// Each attempt at the dependency costs what it weighs, retries and hedges too; one that was not
/// executed costs nothing, nor does an answer of a fallback.
///
/// ```
/// use breakerbox_actors::{CallOptions, Session};
///
/// let session = Session::new(10);
/// let options = CallOptions { session: Some(session.clone()), ..CallOptions::default() };
/// assert_eq!(session.left(), 10);
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    purse: Arc<Purse>,
}

#[derive(Debug)]
struct Purse {
    limit: u64,
    spent: AtomicU64,
}

impl Session {
    /// A session that may spend so much: calls, or units of weight where requests have one.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        let spent = AtomicU64::new(0);
        let purse = Arc::new(Purse { limit, spent });
        Self { purse }
    }

    /// What it may spend in all.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.purse.limit
    }

    /// What is left.
    #[must_use]
    pub fn left(&self) -> u64 {
        let spent = self.purse.spent.load(Ordering::Acquire);
        self.purse.limit.saturating_sub(spent)
    }

    /// Spends so much, or nothing when not enough is left.
    pub(crate) fn try_spend(&self, units: u64) -> bool {
        let purse = &self.purse;
        let spend = |spent: u64| spent.checked_add(units).filter(|sum| *sum <= purse.limit);
        let spent = purse
            .spent
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, spend);
        spent.is_ok()
    }

    /// Gives back what was spent on an attempt that was not executed.
    pub(crate) fn give_back(&self, units: u64) {
        self.purse.spent.fetch_sub(units, Ordering::AcqRel);
    }
}
