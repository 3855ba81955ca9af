//! The recent demand of one replica for units of a shared rate.

use crate::Time;
use crate::time::nanos;

/// Units that were asked for lately, granted or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RateDemand {
    begin: Time,
    present: u64,
    before: u64,
}

impl RateDemand {
    /// Notes a call of this weight. `span`: over which the demand is told, in nanoseconds.
    pub(super) fn note(&mut self, now: Time, weight: u64, span: u64) {
        self.roll(now, span);
        self.present = self.present.saturating_add(weight);
    }

    /// Notes that a call has given so many units back.
    pub(super) fn returned(&mut self, now: Time, units: u64, span: u64) {
        self.roll(now, span);
        let rest = units.saturating_sub(self.present);
        self.present = self.present.saturating_sub(units);
        self.before = self.before.saturating_sub(rest);
    }

    /// Returns the units that were asked for in the last `span`.
    pub(super) fn recent(&mut self, now: Time, span: u64) -> u64 {
        self.roll(now, span);
        let left = span.saturating_sub(nanos(now.since(self.begin)));
        let before = u128::from(self.before) * u128::from(left);
        let before = before.div_ceil(u128::from(span.max(1)));
        self.present
            .saturating_add(u64::try_from(before).unwrap_or(u64::MAX))
    }

    fn roll(&mut self, now: Time, span: u64) {
        let spans = nanos(now.since(self.begin)) / span.max(1);
        if spans == 0 {
            return;
        }
        self.before = if spans == 1 { self.present } else { 0 };
        self.present = 0;
        let begin = self.begin.as_nanos() + spans * span.max(1);
        self.begin = Time::from_nanos(begin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flt_13_demand_is_that_of_the_last_span() {
        let mut demand = RateDemand::default();
        let at = Time::from_nanos;
        for moment in (0..200).step_by(10) {
            demand.note(at(moment), 1, 100);
        }
        assert_eq!(demand.recent(at(199), 100), 11);
        assert_eq!(demand.recent(at(250), 100), 5);
        assert_eq!(demand.recent(at(400), 100), 0);
    }

    #[test]
    fn flt_13_the_span_before_counts_by_the_part_of_it_that_is_recent() {
        let at = Time::from_nanos;
        for (moment, recent) in [(99, 10), (100, 10), (149, 6), (150, 5), (199, 1), (200, 0)] {
            let mut demand = RateDemand::default();
            demand.note(at(0), 7, 100);
            demand.note(at(99), 3, 100);
            assert_eq!(demand.recent(at(moment), 100), recent, "{moment}");
        }
        let mut demand = RateDemand::default();
        demand.note(at(50), 8, 100);
        demand.note(at(250), 4, 100);
        assert_eq!(
            demand.recent(at(250), 100),
            4,
            "a whole span without a call"
        );
        demand.note(at(301), 1, 100);
        assert_eq!(demand.recent(at(350), 100), 3);
    }
}
