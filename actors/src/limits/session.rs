//! Budget of one session: an agent that calls in a loop is stopped here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared budget of several calls. Cheap to clone; all clones spend from the same budget.
///
/// Each attempt at the dependency costs its weight, retries and hedges too. An attempt that was not
/// executed costs nothing, and neither does an answer of a fallback.
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
    budget: Arc<SessionBudget>,
}

#[derive(Debug)]
struct SessionBudget {
    limit: u64,
    spent: AtomicU64,
}

impl Session {
    /// Creates a session with a budget of `limit`: calls, or units of weight where requests have
    /// one.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        let spent = AtomicU64::new(0);
        let budget = Arc::new(SessionBudget { limit, spent });
        Self { budget }
    }

    /// The whole budget.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.budget.limit
    }

    /// The budget that is left.
    #[must_use]
    pub fn left(&self) -> u64 {
        let spent = self.budget.spent.load(Ordering::Acquire);
        self.budget.limit.saturating_sub(spent)
    }

    /// Spends `units`, or nothing if not enough is left. Returns true if it did.
    pub(crate) fn try_spend(&self, units: u64) -> bool {
        let budget = &self.budget;
        let spend = |spent: u64| spent.checked_add(units).filter(|sum| *sum <= budget.limit);
        let spent = budget
            .spent
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, spend);
        spent.is_ok()
    }

    /// Refunds the cost of an attempt that was not executed.
    pub(crate) fn give_back(&self, units: u64) {
        // Never below zero: a session cannot get back more than it has spent.
        let _ = self
            .budget
            .spent
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |spent| {
                Some(spent.saturating_sub(units))
            });
    }
}
