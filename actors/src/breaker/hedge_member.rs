//! An attempt's membership in a hedge group: attempts of one call that run in parallel.
//!
//! It stands beside the permits because each permit carries it: the outcome of an attempt that lost
//! against another one of its group does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::sync::{LockExt, Mutex};

/// An attempt's membership in a hedge group, if it has one. Each permit carries it, so it is small.
#[derive(Debug, Default)]
pub(crate) struct HedgeMember(Option<GroupMembership>);

#[derive(Debug)]
struct GroupMembership {
    group: Arc<HedgeGroup>,
    /// True if the attempt was sent in parallel with another one.
    is_hedge: bool,
}

/// The state shared by the attempts of one group.
#[derive(Debug, Default)]
pub(crate) struct HedgeGroup {
    /// True once an attempt has won; the losses of the others then mean nothing.
    won: AtomicBool,
    /// Number of attempts that have their slots.
    started: AtomicUsize,
    changed: Notify,
    /// Workers that have one of the attempts.
    workers: Mutex<Vec<usize>>,
}

impl HedgeGroup {
    /// Makes a member: the first attempt, or a hedge in parallel with it.
    pub(crate) fn member(self: &Arc<Self>, is_hedge: bool) -> HedgeMember {
        let group = Arc::clone(self);
        HedgeMember(Some(GroupMembership { group, is_hedge }))
    }

    /// Records that an attempt has answered.
    pub(crate) fn record_win(&self) {
        self.won.store(true, Ordering::Release);
    }

    /// Waits until `count` attempts have their slots.
    ///
    /// # Cancel safety   Dropped, it leaves nothing behind.
    pub(crate) async fn until_started(&self, count: usize) {
        while self.started.load(Ordering::Acquire) < count {
            self.changed.notified().await;
        }
    }
}

impl HedgeMember {
    /// Returns true if another attempt has won.
    pub(crate) fn is_lost(&self) -> bool {
        let member = self.0.as_ref();
        member.is_some_and(|member| member.group.won.load(Ordering::Acquire))
    }

    /// Returns true if the attempt was sent in parallel with another one.
    pub(crate) fn is_hedge(&self) -> bool {
        self.0.as_ref().is_some_and(|member| member.is_hedge)
    }

    /// Returns true if the attempt has a group.
    #[inline]
    pub(crate) fn has_group(&self) -> bool {
        self.0.is_some()
    }

    /// Notes that the attempt has its slot.
    pub(crate) fn note_start(&self) {
        if let Some(member) = &self.0 {
            member.group.started.fetch_add(1, Ordering::Release);
            member.group.changed.notify_one();
        }
    }

    /// Lets `choose` pick a worker by its index among those that the group does not use yet, and
    /// notes the choice.
    pub(crate) fn choose_worker<T>(
        &self,
        choose: impl FnOnce(&[usize]) -> Option<(usize, T)>,
    ) -> Option<T> {
        let member = self.0.as_ref()?;
        let mut workers = member.group.workers.acquire();
        let (index, chosen) = choose(&workers)?;
        workers.push(index);
        Some(chosen)
    }
}
