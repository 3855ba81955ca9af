//! The last N outcomes, packed into one integer each.

use super::WindowSums;

/// Longest ring that is allocated at once; longer ones grow as they fill.
const RESERVED: u32 = 1 << 16;

const FAILED: u64 = 1;
const SLOW: u64 = 2;
const CANCELLED: u64 = 4;
const FLAGS: u32 = 3;

/// A ring of outcomes: the duration in the upper 61 bits, three flags in the lower bits.
#[derive(Debug, Clone)]
pub(super) struct OutcomeRing {
    size: usize,
    entries: Vec<u64>,
    next: usize,
    sums: WindowSums,
}

fn pack(outcome: WindowSums) -> u64 {
    let mut entry = outcome.elapsed.min(u64::MAX >> FLAGS) << FLAGS;
    for (flag, set) in [
        (FAILED, outcome.failures),
        (SLOW, outcome.slow),
        (CANCELLED, outcome.cancelled),
    ] {
        if set > 0 {
            entry |= flag;
        }
    }
    entry
}

fn unpack(entry: u64) -> WindowSums {
    let cancelled = u64::from(entry & CANCELLED != 0);
    WindowSums {
        calls: 1 - cancelled,
        failures: u64::from(entry & FAILED != 0),
        slow: u64::from(entry & SLOW != 0),
        cancelled,
        elapsed: entry >> FLAGS,
    }
}

impl OutcomeRing {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size: size as usize,
            entries: Vec::with_capacity(size.min(RESERVED) as usize),
            next: 0,
            sums: WindowSums::default(),
        }
    }

    pub(super) fn push(&mut self, outcome: WindowSums) {
        let entry = pack(outcome);
        if self.entries.len() < self.size {
            self.entries.push(entry);
        } else {
            // BRK-2: the oldest of the last N outcomes makes room for the new one.
            self.sums.subtract(unpack(self.entries[self.next]));
            self.entries[self.next] = entry;
            self.next += 1;
            if self.next == self.size {
                self.next = 0;
            }
        }
        self.sums.add(unpack(entry));
    }

    /// Pushes successes of zero duration; more than the ring's size change nothing further.
    pub(super) fn push_successes(&mut self, count: u64) {
        for _ in 0..count.min(self.size as u64) {
            self.push(WindowSums::successes(1));
        }
    }

    pub(super) const fn sums(&self) -> &WindowSums {
        &self.sums
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.next = 0;
        self.sums = WindowSums::default();
    }
}
