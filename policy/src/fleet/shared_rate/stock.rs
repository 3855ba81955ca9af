//! The units that a replica has leased and not used.

use std::collections::VecDeque;

use super::super::board_clock::BoardTime;
use super::UnitSpan;

/// Leases in the order of their units.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct UnitStock(VecDeque<UnitSpan>);

impl UnitStock {
    pub(super) fn put(&mut self, span: UnitSpan) {
        let place = self.0.partition_point(|one| one.first < span.first);
        self.0.insert(place, span);
    }

    /// Takes `count` units with places up to `latest`, those of the earliest places; none if there
    /// are fewer.
    pub(super) fn take(&mut self, count: u64, latest: BoardTime, unit: u64) -> bool {
        let mut found = 0_u64;
        for span in &self.0 {
            found = found.saturating_add(span.units_until(latest, unit));
            if found >= count {
                break;
            }
        }
        if found < count {
            return false;
        }
        let mut left = count;
        while left > 0
            && let Some(span) = self.0.front_mut()
        {
            let taken = span.units(unit).min(left);
            left -= taken;
            span.first = span.first.plus(unit.saturating_mul(taken));
            if span.first > span.last {
                self.0.pop_front();
            }
        }
        true
    }

    /// Forgets the units with places before `earliest`.
    pub(super) fn forget_before(&mut self, earliest: BoardTime, unit: u64) {
        while let Some(span) = self.0.front_mut() {
            if span.first >= earliest {
                return;
            }
            match span.from(earliest, unit) {
                Some(rest) => *span = rest,
                None => drop(self.0.pop_front()),
            }
        }
    }

    /// Returns the number of units.
    pub(super) fn units(&self, unit: u64) -> u64 {
        self.0.iter().map(|span| span.units(unit)).sum()
    }

    /// Returns the place of the unit of this number, or how many are missing.
    pub(super) fn place(&self, number: u64, unit: u64) -> Result<BoardTime, u64> {
        let mut left = number;
        for span in &self.0 {
            let units = span.units(unit);
            if left <= units {
                return Ok(span.first.plus(unit.saturating_mul(left.saturating_sub(1))));
            }
            left -= units;
        }
        Err(left)
    }

    pub(super) fn last(&self) -> Option<UnitSpan> {
        self.0.back().copied()
    }

    /// Removes the last lease, and returns it.
    pub(super) fn give_back(&mut self) -> Option<UnitSpan> {
        self.0.pop_back()
    }
}
