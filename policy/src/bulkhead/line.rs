//! The queue of calls that wait for a slot, and their order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Priority, Ticket};

/// A position in a [`WaitQueue`]. The smallest is served first: the highest priority, then the
/// longest wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueuePosition {
    priority: Reverse<Priority>,
    number: u64,
    write: bool,
}

impl QueuePosition {
    /// Returns the request of this waiter.
    #[must_use]
    pub const fn ticket(self) -> Ticket {
        Ticket {
            priority: self.priority.0,
            write: self.write,
        }
    }
}

/// The waiters, in the order in which they are served.
///
/// Reads and writes are queued separately: a write that is next, but must wait for another write,
/// does not delay reads.
///
/// # Source  Rules CALL-6 and LIM-3.
#[derive(Debug)]
pub struct WaitQueue<T> {
    next: u64,
    reads: BTreeMap<QueuePosition, T>,
    writes: BTreeMap<QueuePosition, T>,
}

impl<T> WaitQueue<T> {
    /// Returns an empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: 0,
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
        }
    }

    /// Joins the queue, behind all waiters of the same priority.
    pub fn join(&mut self, ticket: Ticket, who: T) -> QueuePosition {
        let turn = QueuePosition {
            priority: Reverse(ticket.priority),
            number: self.next,
            write: ticket.write,
        };
        self.next += 1;
        self.side(turn).insert(turn, who);
        turn
    }

    /// Returns the waiter at this position; `None` once it has left.
    pub fn get_mut(&mut self, turn: QueuePosition) -> Option<&mut T> {
        self.side(turn).get_mut(&turn)
    }

    /// Removes and returns the waiter at this position, if it is still there.
    pub fn leave(&mut self, turn: QueuePosition) -> Option<T> {
        self.side(turn).remove(&turn)
    }

    /// Removes and returns the next waiter; with `writes` false, the next read.
    pub fn take_next(&mut self, writes: bool) -> Option<(QueuePosition, T)> {
        let read = self.reads.first_key_value().map(|(turn, _)| *turn);
        let write = self.writes.first_key_value().map(|(turn, _)| *turn);
        let first = match (read, write.filter(|_| writes)) {
            // LIM-3: a write that may not run yet is left out, and delays no read. When both may run, the
            // older goes first, so that reads cannot starve a write.
            (Some(read), Some(write)) => read.min(write),
            (one, other) => one.or(other)?,
        };
        self.leave(first).map(|who| (first, who))
    }

    /// Removes and returns the waiter that makes room for a newcomer of this priority: the youngest
    /// of the lowest priority, if that is lower.
    pub fn shed_for(&mut self, newcomer: Priority) -> Option<(QueuePosition, T)> {
        let read = self.reads.last_key_value().map(|(turn, _)| *turn);
        let write = self.writes.last_key_value().map(|(turn, _)| *turn);
        // CALL-6: a full queue makes room only for a more important call.
        let last = read.max(write).filter(|last| last.priority.0 < newcomer)?;
        self.leave(last).map(|who| (last, who))
    }

    const fn side(&mut self, turn: QueuePosition) -> &mut BTreeMap<QueuePosition, T> {
        if turn.write {
            &mut self.writes
        } else {
            &mut self.reads
        }
    }
}

impl<T> Default for WaitQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}
