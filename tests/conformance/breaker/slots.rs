//! A bulkhead's slots for replays on the kernel, which has no bulkhead. It never decides for the
//! runtime: the same scenarios go through the runtime's own bulkhead in `actors`.

/// Decision on the entry of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotEntry {
    Runs,
    Queued,
    Full,
}

/// Counters of the calls that run and of those that wait; the stack keeps the queue itself.
pub(super) struct Slots {
    max_concurrent: u32,
    max_queue: u32,
    running: u32,
    queued: u32,
}

impl Slots {
    pub(super) fn new(max_concurrent: u32, max_queue: u32) -> Self {
        Self {
            max_concurrent,
            max_queue,
            running: 0,
            queued: 0,
        }
    }

    /// Takes a slot, or a position in the queue.
    pub(super) fn enter(&mut self) -> SlotEntry {
        if self.running < self.max_concurrent && self.queued == 0 {
            self.running += 1;
            SlotEntry::Runs
        } else if self.queued < self.max_queue {
            self.queued += 1;
            SlotEntry::Queued
        } else {
            SlotEntry::Full
        }
    }

    /// Frees a position in the queue: its caller is gone.
    pub(super) fn give_up(&mut self) {
        self.queued -= 1;
    }

    /// Frees a slot; returns true if the first waiter took it over.
    pub(super) fn leave(&mut self) -> bool {
        self.running -= 1;
        let promoted = self.queued > 0;
        if promoted {
            self.queued -= 1;
            self.running += 1;
        }
        promoted
    }
}
