//! Who waits for a place, and whose turn it is.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Priority, Ticket};

/// A seat in a [`Line`]. The smallest is served first: the highest priority, then the longest
/// wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn {
    priority: Reverse<Priority>,
    number: u64,
    write: bool,
}

impl Turn {
    /// What it is waited for.
    #[must_use]
    pub const fn ticket(self) -> Ticket {
        Ticket {
            priority: self.priority.0,
            write: self.write,
        }
    }
}

/// Those who wait, in the order of their turns.
///
/// Reads and writes stand side by side: a write whose turn it is, but which has to wait for
/// another write, holds no read up.
///
/// # Source  Rules CALL-6 and LIM-3.
#[derive(Debug)]
pub struct Line<T> {
    next: u64,
    reads: BTreeMap<Turn, T>,
    writes: BTreeMap<Turn, T>,
}

impl<T> Line<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: 0,
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
        }
    }

    /// Takes a seat, behind all of the same priority.
    pub fn join(&mut self, ticket: Ticket, who: T) -> Turn {
        let turn = Turn {
            priority: Reverse(ticket.priority),
            number: self.next,
            write: ticket.write,
        };
        self.next += 1;
        self.side(turn).insert(turn, who);
        turn
    }

    /// Who sits there; `None` once the seat was given up.
    pub fn get_mut(&mut self, turn: Turn) -> Option<&mut T> {
        self.side(turn).get_mut(&turn)
    }

    /// Gives a seat up. Returns who sat there, if anybody did.
    pub fn leave(&mut self, turn: Turn) -> Option<T> {
        self.side(turn).remove(&turn)
    }

    /// Takes out whose turn it is; of the reads alone where no write may run.
    pub fn take_next(&mut self, writes: bool) -> Option<(Turn, T)> {
        let read = self.reads.first_key_value().map(|(turn, _)| *turn);
        let write = self.writes.first_key_value().map(|(turn, _)| *turn);
        let first = match (read, write.filter(|_| writes)) {
            (Some(read), Some(write)) => read.min(write),
            (one, other) => one.or(other)?,
        };
        self.leave(first).map(|who| (first, who))
    }

    /// Takes out who has to make room for a newcomer of this priority: the youngest of the lowest
    /// priority, if that is lower.
    pub fn shed_for(&mut self, newcomer: Priority) -> Option<(Turn, T)> {
        let read = self.reads.last_key_value().map(|(turn, _)| *turn);
        let write = self.writes.last_key_value().map(|(turn, _)| *turn);
        let last = read.max(write).filter(|last| last.priority.0 < newcomer)?;
        self.leave(last).map(|who| (last, who))
    }

    const fn side(&mut self, turn: Turn) -> &mut BTreeMap<Turn, T> {
        if turn.write {
            &mut self.writes
        } else {
            &mut self.reads
        }
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self::new()
    }
}
