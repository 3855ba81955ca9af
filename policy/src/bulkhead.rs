//! The order of the calls that wait for a bulkhead's slot. The caller counts the slots and enforces
//! the maximum wait.

mod line;

pub use line::{QueuePosition, WaitQueue};

/// Importance of a call relative to the other waiters. The higher goes first; the lower makes room
/// when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// It can wait, and can be dropped.
    Low,
    /// Most calls.
    #[default]
    Normal,
    /// A user waits for the result.
    High,
}

/// A call's request for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ticket {
    /// Priority of the call.
    pub priority: Priority,
    /// True if it needs a slot among the writes too (rule LIM-3).
    pub write: bool,
}

#[cfg(test)]
mod tests;
