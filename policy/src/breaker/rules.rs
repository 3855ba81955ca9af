//! Judgement of a window: which rule, if any, is broken (BRK-1, BRK-9).

use super::reason::TripReason;
use crate::window::Window;
use crate::{BreakerSettings, CancelledPolicy, Rate, WindowKind};

/// Values derived from the settings, computed once: the record path must not divide.
#[derive(Debug, Clone, Copy)]
pub(super) struct TripRules {
    /// Number of calls from which rates are judged.
    minimum: u64,
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
    pub(super) fn new(settings: &BreakerSettings) -> Self {
        let minimum = match settings.window {
            // A minimum that the window cannot hold would never be reached.
            WindowKind::Count { size } => settings.minimum_calls.min(size.get()),
            _ => settings.minimum_calls,
        };
        let minimum = u64::from(minimum.max(1));
        Self {
            minimum,
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
    pub(super) fn needs_every_success(
        &self,
        settings: &BreakerSettings,
        window: &Window,
        overdue: u64,
    ) -> bool {
        let sums = window.sums();
        let reached = |floor: Option<u64>, part: u64| floor.is_some_and(|floor| part >= floor);
        self.cancelled.is_some()
            || reached(self.failure_floor, sums.failures)
            || reached(self.slow_floor, sums.slow + overdue)
            // Only after a reload: otherwise it would have opened already.
            || (!window.is_consecutive()
                && settings
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
        if let Some(threshold) = settings.failure_threshold
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
        if let Some(threshold) = settings.consecutive_failures
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
