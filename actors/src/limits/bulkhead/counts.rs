//! Counts of running and waiting calls, packed into one word. Each change sees all counts at once,
//! so the bounds hold exactly.

use breakerbox_policy::Ticket;

/// Running calls, writes among them, and waiting calls: 21 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedCounts(pub(super) u64);

/// Maximum of each count. Two million calls at once are as good as no bound.
pub(super) const MOST: u32 = (1 << 21) - 1;

const RUNNING: u64 = 1 << 42;
const WRITE: u64 = 1 << 21;
const WAITING: u64 = 1;

impl PackedCounts {
    pub(super) const fn running(self) -> u32 {
        (self.0 / RUNNING) as u32
    }

    pub(super) const fn writes(self) -> u32 {
        (self.0 / WRITE) as u32 & MOST
    }

    pub(super) const fn waiting(self) -> u32 {
        self.0 as u32 & MOST
    }

    pub(super) const fn enter(self, ticket: Ticket) -> Self {
        Self(self.0 + one(ticket))
    }

    pub(super) const fn release(self, ticket: Ticket) -> Self {
        debug_assert!(
            self.running() > 0 && (!ticket.write || self.writes() > 0),
            "CALL-6: a slot is given back once"
        );
        Self(self.0 - one(ticket))
    }

    pub(super) const fn add_waiter(self) -> Self {
        Self(self.0 + WAITING)
    }

    pub(super) const fn remove_waiter(self) -> Self {
        Self(self.0 - WAITING)
    }
}

const fn one(ticket: Ticket) -> u64 {
    if ticket.write {
        RUNNING + WRITE
    } else {
        RUNNING
    }
}
