//! Messages of sessions and of their calls that are kept for callers that come back: those of one
//! server together, or of one group.
//!
//! EDGE-4: they count in the budget, and a copy that several sessions share counts once. The oldest
//! ones give way to bodies that need the memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

use super::caller_message::CallerMessage;
use crate::buffer_budget::{BufferBudget, SheddableCache};
use crate::lock::LockExt as _;

/// Maximum size of a message that is kept, in bytes.
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// Part of the kept bytes that gives way at once.
const SHED_PART: u64 = 8;
/// Minimum number of entries from which those of messages that no stream keeps are removed.
const LEAST_SWEPT: usize = 1024;

/// The kept messages, the oldest first.
pub(super) struct MessageHistory {
    pub(super) budget: BufferBudget,
    weight: AtomicU64,
    order: Mutex<MessageOrder>,
}

#[derive(Default)]
struct MessageOrder {
    messages: VecDeque<Weak<KeptMessage>>,
    /// Number of entries from which those of messages that no stream keeps are removed.
    sweep_at: usize,
}

/// A message that is kept as long as a stream keeps it, or until it gives way.
pub(super) struct KeptMessage {
    pub(super) size: usize,
    text: Mutex<Option<Bytes>>,
    history: Weak<MessageHistory>,
}

impl KeptMessage {
    /// Returns the message; `None` if it has given way.
    pub(super) fn text(&self) -> Option<Bytes> {
        self.text.acquire().clone()
    }

    /// Lets the bytes go. Returns their number.
    fn give_way(&self) -> u64 {
        let Some(text) = self.text.acquire().take() else {
            return 0;
        };
        let size = text.len() as u64;
        if let Some(history) = self.history.upgrade() {
            history.weight.fetch_sub(size, Ordering::Relaxed);
        }
        size
    }
}

impl Drop for KeptMessage {
    fn drop(&mut self) {
        self.give_way();
    }
}

impl MessageHistory {
    /// Creates a history that gives way to other shares of the budget.
    pub(super) fn new(budget: &BufferBudget) -> Arc<Self> {
        let history = Arc::new(Self {
            budget: budget.clone(),
            weight: AtomicU64::new(0),
            order: Mutex::default(),
        });
        let own: Weak<Self> = Arc::downgrade(&history);
        budget.may_shed(own);
        history
    }

    /// Keeps a copy of a message, since the message may be a part of a larger text; `None` if it is
    /// too large, or if there is no room for it.
    pub(super) fn keep(self: &Arc<Self>, message: &CallerMessage) -> Option<Arc<KeptMessage>> {
        let size: usize = message.iter().map(Bytes::len).sum();
        if size > MAX_MESSAGE {
            return None;
        }
        let room = self.budget.try_take(size)?;
        let kept = Arc::new(KeptMessage {
            size,
            text: Mutex::new(Some(room.hold(message.concat()))),
            history: Arc::downgrade(self),
        });
        self.weight.fetch_add(size as u64, Ordering::Relaxed);
        let mut order = self.order.acquire();
        if order.messages.len() >= order.sweep_at {
            order.messages.retain(|own| own.strong_count() > 0);
            order.sweep_at = LEAST_SWEPT.max(2 * order.messages.len());
        }
        order.messages.push_back(Arc::downgrade(&kept));
        Some(kept)
    }
}

impl SheddableCache for MessageHistory {
    fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    fn shed(&self) {
        let enough = self.weight() / SHED_PART;
        let mut freed = 0;
        let mut order = self.order.acquire();
        while let Some(oldest) = order.messages.pop_front() {
            freed += oldest.upgrade().map_or(0, |oldest| oldest.give_way());
            if freed > enough {
                return;
            }
        }
    }
}
