//! Follow-ups of changes to a dependency's breakers: timers for the keeper, and events.

use std::collections::VecDeque;
use std::sync::Arc;

use breakerbox_policy::{BreakerEvent, Time};
use tokio::sync::Notify;

use crate::event::{EventBus, EventKind};
use crate::sync::{AtomicBool, LockExt, Mutex, Ordering};

/// A breaker's next deadline, by its key; `None` for the dependency's own breaker.
pub(super) type Alarm = (Option<Arc<str>>, Option<Time>);

/// The timers to set and the events to emit for the breakers of one dependency.
#[derive(Debug, Default)]
pub(crate) struct BreakerDesk {
    alarms: Mutex<Vec<Alarm>>,
    told: Notify,
    outbox: Mutex<EventOutbox>,
    is_kept: AtomicBool,
}

/// Events in the order of the changes that caused them.
#[derive(Debug, Default)]
struct EventOutbox {
    waiting: VecDeque<(Arc<str>, BreakerEvent)>,
    /// True while a thread emits them.
    is_taken: bool,
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

    /// Adds an event of a breaker. Its lock is held, so events are in the order of the changes.
    pub(super) fn add_event(&self, subject: Arc<str>, event: BreakerEvent) {
        self.outbox.acquire().waiting.push_back((subject, event));
    }

    /// Emits the events that wait, unless another thread does so already. No lock of a breaker may
    /// be held: a listener may ask for the status.
    pub(super) fn emit_events(&self, events: &EventBus) {
        /// Lets others emit, even after a panic of a log subscriber.
        struct TakenOutbox<'a>(&'a Mutex<EventOutbox>);

        impl Drop for TakenOutbox<'_> {
            fn drop(&mut self) {
                self.0.acquire().is_taken = false;
            }
        }

        loop {
            let mut outbox = self.outbox.acquire();
            if outbox.is_taken || outbox.waiting.is_empty() {
                return;
            }
            outbox.is_taken = true;
            let next = outbox.waiting.pop_front();
            drop(outbox);
            let _taken = TakenOutbox(&self.outbox);
            if let Some((subject, event)) = next {
                events.emit(&subject, EventKind::Breaker(event));
            }
        }
    }
}
