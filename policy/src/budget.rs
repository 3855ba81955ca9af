//! The retry budget that all callers of a dependency share.
//!
//! Each call earns a fraction of a retry, which is valid for ten seconds; a floor of retries per
//! second is free. Without the budget, a failing dependency gets `max_attempts` times the traffic
//! of a working one.

use std::time::Duration;

use crate::{BudgetSettings, Time};

/// One retry, in token units.
const RETRY: u64 = 1_000_000;

/// Number of intervals for which an earned token is valid.
const LIFE: usize = 10;

const SECOND: u64 = 1_000_000_000;

/// A retry budget.
///
/// # Units   Tokens are millionths of a retry; the balance is never negative.
/// # Source  Rule LIM-4 in docs/rules.md; Finagle's `RetryBudget`.
#[derive(Debug, Clone)]
pub struct Budget {
    per_call: u64,
    /// Tokens that are free in a second.
    floor: u64,
    /// Most free tokens at once.
    most_free: u64,
    /// Free retries in a second of all replicas together.
    floor_per_second: u64,
    /// Earned tokens by the second in which they were earned.
    earned: [u64; LIFE],
    second: u64,
    /// Free tokens, at most one second's worth.
    free: u64,
    refilled: Time,
    /// True if there is no bound and it only counts.
    unlimited: bool,
    granted: u64,
}

impl Budget {
    /// Returns a budget that has earned nothing and has one second's free retries.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    pub fn new(settings: &BudgetSettings, now: Time) -> Self {
        let floor_per_second = u64::from(settings.floor_per_second);
        let floor = floor_per_second * RETRY;
        Self {
            per_call: (settings.ratio.clamp(0.0, 1.0) * RETRY as f64).round() as u64,
            floor,
            most_free: floor,
            floor_per_second,
            earned: [0; LIFE],
            second: now.as_nanos() / SECOND,
            free: floor,
            refilled: now,
            unlimited: false,
            granted: 0,
        }
    }

    /// Returns the budget of one of `replicas`.
    #[must_use]
    pub fn of_replica(settings: &BudgetSettings, replicas: u32, now: Time) -> Self {
        let mut budget = Self::new(settings, now);
        budget.set_replicas(now, replicas);
        budget
    }

    /// Takes in the number of replicas, which have the floor together.
    ///
    /// # Source  Rule FLT-2 in docs/rules.md.
    pub fn set_replicas(&mut self, now: Time, replicas: u32) {
        self.pass(now);
        // FLT-2: each replica has its part of the floor, and saves up to a whole retry of it.
        self.floor = self.floor_per_second * RETRY / u64::from(replicas.max(1));
        self.most_free = if self.floor == 0 {
            0
        } else {
            self.floor.max(RETRY)
        };
        self.free = self.free.min(self.most_free);
    }

    /// Returns a budget that grants every retry, but still counts them.
    #[must_use]
    pub fn unlimited(now: Time) -> Self {
        let nothing = BudgetSettings {
            ratio: 0.0,
            floor_per_second: 0,
        };
        Self {
            unlimited: true,
            ..Self::new(&nothing, now)
        }
    }

    /// Returns the number of retries that it has granted.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.granted
    }

    /// Adds the tokens earned by calls (not retries).
    pub fn deposit(&mut self, now: Time, calls: u64) {
        self.pass(now);
        let place = self.place(self.second);
        let earned = self.per_call.saturating_mul(calls);
        self.earned[place] = self.earned[place].saturating_add(earned);
    }

    /// Withdraws a retry; returns false if there is none.
    #[must_use]
    pub fn try_withdraw(&mut self, now: Time) -> bool {
        if self.unlimited {
            self.granted += 1;
            return true;
        }
        self.pass(now);
        let earned = self.earned();
        if earned.saturating_add(self.free) < RETRY {
            return false;
        }
        // Spend the tokens that expire first.
        let mut due = RETRY;
        for age in (0..LIFE as u64).rev() {
            if let Some(second) = self.second.checked_sub(age) {
                let place = self.place(second);
                let part = due.min(self.earned[place]);
                self.earned[place] -= part;
                due -= part;
            }
        }
        self.free -= due;
        self.granted += 1;
        true
    }

    fn earned(&self) -> u64 {
        self.earned
            .iter()
            .fold(0, |sum, one| sum.saturating_add(*one))
    }

    fn pass(&mut self, now: Time) {
        let second = now.as_nanos() / SECOND;
        if second > self.second {
            let gone = (second - self.second).min(LIFE as u64);
            for number in self.second + 1..=self.second + gone {
                let place = self.place(number);
                self.earned[place] = 0;
            }
            self.second = second;
        }
        let waited = u128::from(now.as_nanos().saturating_sub(self.refilled.as_nanos()));
        let floor = u128::from(self.floor);
        let refill = waited * floor / u128::from(SECOND);
        if refill == 0 {
            return;
        }
        let missing = u128::from(self.most_free - self.free);
        if refill >= missing {
            self.free = self.most_free;
            self.refilled = now;
        } else {
            // Advance only by the time that was paid out, or frequent calls would lose the
            // remainder.
            let paid = (refill * u128::from(SECOND)).div_ceil(floor);
            self.free += u64::try_from(refill).unwrap_or(0);
            self.refilled = self
                .refilled
                .after(Duration::from_nanos(u64::try_from(paid).unwrap_or(0)));
        }
    }

    #[expect(clippy::cast_possible_truncation)]
    const fn place(&self, second: u64) -> usize {
        (second % self.earned.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(ratio: f64, floor_per_second: u32) -> Budget {
        let settings = BudgetSettings {
            ratio,
            floor_per_second,
        };
        Budget::new(&settings, Time::ZERO)
    }

    fn withdrawals(budget: &mut Budget, now: Time) -> u32 {
        (0..1_000)
            .map(|_| u32::from(budget.try_withdraw(now)))
            .sum()
    }

    #[test]
    fn lim_4_a_hundred_calls_earn_their_share_and_the_floor() {
        let mut budget = budget(0.2, 10);
        for _ in 0..100 {
            budget.deposit(Time::ZERO, 1);
        }
        assert_eq!(withdrawals(&mut budget, Time::ZERO), 30);
        assert_eq!(withdrawals(&mut budget, Time::from_millis(99)), 0);
        assert_eq!(withdrawals(&mut budget, Time::from_millis(100)), 1);
    }

    #[test]
    fn lim_4_the_floor_is_refilled_but_not_saved_up() {
        let mut budget = budget(0.0, 10);
        assert_eq!(withdrawals(&mut budget, Time::from_millis(60_000)), 10);
        assert_eq!(withdrawals(&mut budget, Time::from_millis(60_500)), 5);
    }

    #[test]
    fn flt_2_replicas_have_the_floor_together() {
        let settings = BudgetSettings {
            ratio: 0.0,
            floor_per_second: 10,
        };
        let at = Time::from_millis;
        let mut one = Budget::of_replica(&settings, 4, at(0));
        assert_eq!(withdrawals(&mut one, at(0)), 2, "2.5 a second");
        assert_eq!(withdrawals(&mut one, at(60_000)), 2);
        // With more replicas than the floor has retries, each saves up for a whole one.
        one.set_replicas(at(60_000), 50);
        assert_eq!(withdrawals(&mut one, at(62_000)), 0);
        assert_eq!(withdrawals(&mut one, at(65_000)), 1);
        assert_eq!(withdrawals(&mut one, at(69_999)), 0);
        assert_eq!(withdrawals(&mut one, at(70_000)), 1);
        one.set_replicas(at(70_000), 1);
        assert_eq!(withdrawals(&mut one, at(71_000)), 10);
    }

    #[test]
    fn lim_4_earned_retries_are_lost_after_ten_seconds() {
        for (millis, left) in [(9_999, 20), (10_000, 0)] {
            let mut budget = budget(0.2, 0);
            for _ in 0..100 {
                budget.deposit(Time::ZERO, 1);
            }
            assert_eq!(withdrawals(&mut budget, Time::from_millis(millis)), left);
        }
    }

    #[test]
    fn lim_4_five_calls_at_a_fifth_earn_exactly_one() {
        let mut budget = budget(0.2, 0);
        for call in 1..=5 {
            budget.deposit(Time::ZERO, 1);
            assert_eq!(budget.try_withdraw(Time::ZERO), call == 5);
        }
    }

    #[test]
    fn lim_4_retries_without_a_bound_are_counted_all_the_same() {
        let mut free = Budget::unlimited(Time::ZERO);
        assert_eq!(withdrawals(&mut free, Time::ZERO), 1_000);
        assert_eq!(free.granted(), 1_000);
        let mut bounded = budget(0.0, 3);
        assert_eq!(withdrawals(&mut bounded, Time::ZERO), 3);
        assert_eq!(bounded.granted(), 3, "a refused one is not granted");
    }

    #[test]
    fn lim_4_a_token_is_valid_for_ten_seconds_whenever_it_was_earned() {
        for (millis, left) in [(6_000, 1), (14_999, 1), (15_000, 0)] {
            let mut budget = budget(0.2, 0);
            budget.deposit(Time::from_millis(5_000), 5);
            assert_eq!(withdrawals(&mut budget, Time::from_millis(millis)), left);
        }
    }
}
