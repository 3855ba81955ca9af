//! Follow-ups of changes to a dependency's breakers: timers for the keeper.

use std::sync::Arc;

use breakerbox_policy::Time;
use tokio::sync::Notify;

use crate::sync::{AtomicBool, LockExt, Mutex, Ordering};

/// A breaker's next deadline, by its key; `None` for the dependency's own breaker.
pub(super) type Alarm = (Option<Arc<str>>, Option<Time>);

/// The timers to set for the breakers of one dependency.
#[derive(Debug, Default)]
pub(crate) struct BreakerDesk {
    alarms: Mutex<Vec<Alarm>>,
    told: Notify,
    is_kept: AtomicBool,
}

impl BreakerDesk {
    /// Asks the keeper to look again.
    pub(crate) fn tell_keeper(&self) {
        self.told.notify_one();
    }

    /// Resolves when there is something new for the keeper.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    /// Returns true for the first caller, who makes the keeper.
    pub(super) fn claim_keeper(&self) -> bool {
        !self.is_kept.swap(true, Ordering::AcqRel)
    }

    /// Lets another keeper take the place of one that was not made.
    pub(super) fn disclaim_keeper(&self) {
        self.is_kept.store(false, Ordering::Release);
    }

    /// Notes a new deadline of a breaker. Its lock is held.
    pub(super) fn set_alarm(&self, alarm: Alarm) {
        self.alarms.acquire().push(alarm);
        self.tell_keeper();
    }

    pub(super) fn take_alarms(&self) -> Vec<Alarm> {
        std::mem::take(&mut self.alarms.acquire())
    }
}
