//! Judgement of a window: which rule, if any, is broken (BRK-1, BRK-9).

use std::num::NonZeroU32;

use super::reason::TripReason;
use crate::window::Window;
use crate::{BreakerSettings, CancelledPolicy, Rate, WindowKind};

/// Fewest own failures that confirm the evidence of others: one alone may be chance.
const FEWEST: u32 = 2;

/// Returns the smallest number that is at least this share of `number`.
fn least_of(number: u32, share: Rate) -> u32 {
    u32::try_from(share.least_part(u64::from(number))).unwrap_or(u32::MAX)
}

/// Values derived from the settings, computed once: the record path must not divide.
#[derive(Debug, Clone, Copy)]
pub(super) struct TripRules {
    /// Number of calls from which rates are judged.
    minimum: u64,
    /// Number of failures in the window that opens it.
    failure_threshold: Option<NonZeroU32>,
    /// Number of failures in a row that opens it.
    consecutive_failures: Option<NonZeroU32>,
    /// Minimum number of failures that can ever reach the failure rate.
    failure_floor: Option<u64>,
    /// Minimum number of slow calls that can ever reach the slow rate.
    slow_floor: Option<u64>,
    /// Share from which cancelled calls count as failures.
    cancelled: Option<Rate>,
}

/// Figures of a window, with cancelled calls added where the policy says so.
struct WindowFigures {
    calls: u64,
    failures: u64,
    slow: u64,
    run: u64,
}

impl TripRules {
    /// `confirm`: the share of its own numbers that is enough beside the evidence of others.
    pub(super) fn new(settings: &BreakerSettings, confirm: Option<Rate>) -> Self {
        // FLT-4: rates stay as they are; only their minimum and the numbers are lowered.
        let lowered = |number: u32| match confirm {
            Some(share) => number.min(least_of(number, share).max(FEWEST)),
            None => number,
        };
        let threshold = |number: Option<NonZeroU32>| {
            number.map(|number| NonZeroU32::new(lowered(number.get())).unwrap_or(number))
        };
        let minimum = match settings.window {
            // A minimum that the window cannot hold would never be reached.
            WindowKind::Count { size } => settings.minimum_calls.min(size.get()),
            _ => settings.minimum_calls,
        };
        let minimum = u64::from(lowered(minimum.max(1)));
        Self {
            minimum,
            failure_threshold: threshold(settings.failure_threshold),
            consecutive_failures: threshold(settings.consecutive_failures),
            failure_floor: settings.failure_rate.map(|rate| rate.least_part(minimum)),
            slow_floor: settings.slow_rate.map(|rate| rate.least_part(minimum)),
            cancelled: match settings.cancelled {
                CancelledPolicy::Rate(rate) => Some(rate),
                CancelledPolicy::Ignore | CancelledPolicy::Failure => None,
            },
        }
    }

    /// Returns the number of outcomes from which rates are judged.
    pub(super) const fn minimum_calls(&self) -> u64 {
        self.minimum
    }

    /// Returns the first rule that the window breaks.
    pub(super) fn judge(
        &self,
        settings: &BreakerSettings,
        window: &Window,
        overdue: u64,
    ) -> Option<TripReason> {
        // BRK-1: any one rule is enough to open it, and each recorded outcome is judged, a success too.
        let figures = self.figures(window);
        self.judge_failures(settings, window, &figures)
            .or_else(|| self.judge_slow(settings, &figures, overdue))
    }

    /// Returns true if an unrecorded success could change the result of [`TripRules::judge`].
    pub(super) fn needs_every_success(&self, window: &Window, overdue: u64) -> bool {
        let sums = window.sums();
        let reached = |floor: Option<u64>, part: u64| floor.is_some_and(|floor| part >= floor);
        self.cancelled.is_some()
            || reached(self.failure_floor, sums.failures)
            || reached(self.slow_floor, sums.slow + overdue)
            // Only after a reload: otherwise it would have opened already.
            || (!window.is_consecutive()
                && self
                    .failure_threshold
                    .is_some_and(|most| sums.failures >= u64::from(most.get())))
    }

    /// Returns true if the cancelled calls in this window reach the rate at which they are
    /// failures.
    pub(super) fn counts_cancelled(&self, window: &Window) -> bool {
        let sums = window.sums();
        sums.cancelled > 0
            && self
                .cancelled
                .is_some_and(|rate| rate.is_reached(sums.cancelled, sums.calls + sums.cancelled))
    }

    fn figures(&self, window: &Window) -> WindowFigures {
        let sums = window.sums();
        let (run, run_cancelled) = window.run();
        let mut figures = WindowFigures {
            calls: sums.calls,
            failures: window.failures(&sums),
            slow: sums.slow,
            run,
        };
        if self.counts_cancelled(window) {
            figures.calls += sums.cancelled;
            figures.run += run_cancelled;
            figures.failures += if window.is_consecutive() {
                run_cancelled
            } else {
                sums.cancelled
            };
        }
        figures
    }

    fn judge_failures(
        &self,
        settings: &BreakerSettings,
        window: &Window,
        figures: &WindowFigures,
    ) -> Option<TripReason> {
        let &WindowFigures {
            calls,
            failures,
            run,
            ..
        } = figures;
        if let Some(threshold) = self.failure_threshold
            && failures >= u64::from(threshold.get())
        {
            return Some(if window.is_consecutive() {
                TripReason::Consecutive {
                    failures,
                    threshold,
                }
            } else {
                TripReason::FailureThreshold {
                    failures,
                    threshold,
                }
            });
        }
        if let Some(threshold) = self.consecutive_failures
            && run >= u64::from(threshold.get())
        {
            return Some(TripReason::Consecutive {
                failures: run,
                threshold,
            });
        }
        let rate = settings.failure_rate?;
        // BRK-1: a rate needs its minimum of outcomes, and is compared in integers.
        (calls >= self.minimum && rate.is_reached(failures, calls)).then_some(
            TripReason::FailureRate {
                failures,
                calls,
                rate,
            },
        )
    }

    fn judge_slow(
        &self,
        settings: &BreakerSettings,
        figures: &WindowFigures,
        overdue: u64,
    ) -> Option<TripReason> {
        let rate = settings.slow_rate?;
        // BRK-9: a call in flight that is already slow counts as one that ended slowly.
        let calls = figures.calls + overdue;
        let slow = figures.slow;
        (calls >= self.minimum && rate.is_reached(slow + overdue, calls)).then_some(
            TripReason::SlowRate {
                slow,
                overdue,
                calls,
                rate,
            },
        )
    }
}
