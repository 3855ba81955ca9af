//! The units that a replica has leased: those that it has not used, or those that it has.

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

    /// Puts a span beside those that it continues, as one with them. Keeps at most `most` spans, of
    /// the latest places.
    pub(super) fn join(&mut self, mut span: UnitSpan, unit: u64, most: usize) {
        let place = self.0.partition_point(|one| one.first < span.first);
        if let Some(next) = self.0.get(place)
            && span.last.plus(unit) == next.first
        {
            span.last = next.last;
            self.0.remove(place);
        }
        let before = place.checked_sub(1).and_then(|at| self.0.get_mut(at));
        match before.filter(|before| before.last.plus(unit) == span.first) {
            Some(before) => before.last = span.last,
            None => self.0.insert(place, span),
        }
        if self.0.len() > most {
            self.0.pop_front();
        }
    }

    /// Takes `count` units of the latest places, or all if there are fewer. `taken` gets them.
    pub(super) fn take_latest(
        &mut self,
        (count, unit): (u64, u64),
        mut taken: impl FnMut(UnitSpan),
    ) {
        let mut left = count;
        while left > 0
            && let Some(span) = self.0.pop_back()
        {
            let units = span.units(unit);
            if units <= left {
                left -= units;
                taken(span);
                continue;
            }
            let (kept, rest) = span.split(units - left, unit);
            self.0.push_back(kept);
            rest.into_iter().for_each(&mut taken);
            left = 0;
        }
    }

    /// Takes `count` units with places up to `latest`, those of the earliest places; none if there
    /// are fewer. `taken` gets them.
    pub(super) fn take(
        &mut self,
        (count, unit): (u64, u64),
        latest: BoardTime,
        mut taken: impl FnMut(UnitSpan),
    ) -> bool {
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
            let (first, rest) = span.split(left, unit);
            left -= first.units(unit);
            taken(first);
            match rest {
                Some(rest) => *span = rest,
                None => drop(self.0.pop_front()),
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

    /// Returns the number of units with places up to `latest`.
    pub(super) fn units_until(&self, latest: BoardTime, unit: u64) -> u64 {
        let spans = self.0.iter();
        spans.map(|span| span.units_until(latest, unit)).sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Units of 10 ns with these places.
    fn span(first: u64, last: u64) -> UnitSpan {
        let (first, last) = (BoardTime(first), BoardTime(last));
        UnitSpan { first, last }
    }

    fn stock() -> UnitStock {
        let mut stock = UnitStock::default();
        for one in [span(200, 210), span(100, 120), span(300, 300)] {
            stock.put(one);
        }
        stock
    }

    #[test]
    fn flt_13_a_span_is_counted_and_cut_at_its_places() {
        let whole = span(100, 140);
        assert_eq!(whole.units(10), 5);
        for (latest, units) in [(99, 0), (100, 1), (119, 2), (140, 5), (999, 5)] {
            assert_eq!(whole.units_until(BoardTime(latest), 10), units, "{latest}");
        }
        for (earliest, rest) in [
            (50, Some(whole)),
            (100, Some(whole)),
            (101, Some(span(110, 140))),
            (140, Some(span(140, 140))),
            (141, None),
        ] {
            assert_eq!(whole.from(BoardTime(earliest), 10), rest, "{earliest}");
        }
        for (count, parts) in [
            (0, (span(100, 100), Some(span(110, 140)))),
            (2, (span(100, 110), Some(span(120, 140)))),
            (4, (span(100, 130), Some(span(140, 140)))),
            (5, (whole, None)),
            (9, (whole, None)),
        ] {
            assert_eq!(whole.split(count, 10), parts, "{count}");
        }
    }

    #[test]
    fn flt_13_units_are_taken_by_their_places_all_or_none() {
        let mut stock = stock();
        assert_eq!(stock.units(10), 6);
        let take = |stock: &mut UnitStock, count, latest| {
            stock.take((count, 10), BoardTime(latest), |_| {})
        };
        assert!(!take(&mut stock, 7, 999));
        assert!(!take(&mut stock, 4, 199), "three have begun");
        assert_eq!(stock.units(10), 6, "none was taken");
        assert!(take(&mut stock, 2, 199));
        assert_eq!(stock.place(1, 10), Ok(BoardTime(120)), "one is left of it");
        assert!(take(&mut stock, 2, 200));
        assert_eq!(stock.place(1, 10), Ok(BoardTime(210)));
        assert!(take(&mut stock, 2, 300), "all that is left");
        assert_eq!((stock.units(10), stock.last()), (0, None));
        assert!(!take(&mut stock, 1, 999));
    }

    #[test]
    fn flt_13_used_units_are_joined_and_the_latest_are_taken_back() {
        let mut used = UnitStock::default();
        let places = |used: &UnitStock| -> Vec<(u64, u64)> {
            let spans = used.0.iter();
            spans.map(|one| (one.first.0, one.last.0)).collect()
        };
        for one in [
            span(100, 120),
            span(150, 160),
            span(130, 140),
            span(200, 210),
        ] {
            used.join(one, 10, 9);
        }
        assert_eq!(places(&used), [(100, 160), (200, 210)]);
        let mut taken = Vec::new();
        used.take_latest((4, 10), |one| taken.push((one.first.0, one.last.0)));
        assert_eq!(taken, [(200, 210), (150, 160)]);
        assert_eq!(places(&used), [(100, 140)]);
        used.join(span(300, 300), 10, 2);
        used.join(span(80, 80), 10, 2);
        assert_eq!(places(&used), [(100, 140), (300, 300)], "the oldest goes");
        used.take_latest((99, 10), |_| {});
        assert_eq!(places(&used), []);
    }

    #[test]
    fn flt_13_the_place_of_a_unit_or_the_number_of_missing_ones_is_told() {
        let mut stock = stock();
        for (number, place) in [
            (1, Ok(100)),
            (3, Ok(120)),
            (4, Ok(200)),
            (6, Ok(300)),
            (7, Err(1)),
            (9, Err(3)),
        ] {
            assert_eq!(stock.place(number, 10), place.map(BoardTime), "{number}");
        }
        assert_eq!(stock.give_back(), Some(span(300, 300)));
        assert_eq!(stock.last(), Some(span(200, 210)));
        assert_eq!(stock.place(6, 10), Err(1));
    }

    #[test]
    fn flt_13_units_before_a_place_are_forgotten() {
        let mut stock = stock();
        stock.forget_before(BoardTime(100), 10);
        assert_eq!(stock.units(10), 6);
        stock.forget_before(BoardTime(111), 10);
        assert_eq!(stock.place(1, 10), Ok(BoardTime(120)));
        stock.forget_before(BoardTime(211), 10);
        assert_eq!((stock.units(10), stock.last()), (1, Some(span(300, 300))));
        stock.forget_before(BoardTime(301), 10);
        assert_eq!(stock.units(10), 0);
    }
}
