//! One half-open period: its probes, their results, and the decision (BRK-4, BRK-5).

use std::num::NonZeroU32;
use std::time::Duration;

use super::reason::TripReason;
use crate::{BreakerSettings, HalfOpenRule, HalfOpenSettings, Time, WindowCounts};

/// End of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeEnd {
    Good,
    Slow,
    Failed,
    FailedSlowly,
    Lost,
}

/// Decision after a result of a period.
#[derive(Debug, PartialEq)]
pub(super) enum HalfOpenDecision {
    Undecided,
    Close { successes: u64 },
    Reopen(TripReason),
}

/// State of one period; the numbers of probes continue across all periods.
#[derive(Debug, Clone, Default)]
pub(super) struct HalfOpen {
    entered: Time,
    next: u64,
    /// In the order in which they were issued.
    in_flight: Vec<(u64, Time)>,
    calls: u64,
    successes: u64,
    failures: u64,
    slow: u64,
    elapsed: Duration,
}

impl HalfOpen {
    /// Begins a period without probes or results.
    pub(super) fn begin(&mut self, now: Time) {
        self.in_flight.clear();
        self.entered = now;
        self.calls = 0;
        self.successes = 0;
        self.failures = 0;
        self.slow = 0;
        self.elapsed = Duration::ZERO;
    }

    pub(super) const fn entered(&self) -> Time {
        self.entered
    }

    pub(super) const fn successes(&self) -> u64 {
        self.successes
    }

    pub(super) const fn results(&self) -> u64 {
        self.calls
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.len() as u64
    }

    pub(super) const fn counts(&self) -> WindowCounts {
        WindowCounts {
            calls: self.calls,
            failures: self.failures,
            slow: self.slow,
            cancelled: 0,
            consecutive_failures: 0,
            elapsed_total: self.elapsed,
        }
    }

    /// Issues a probe, if one is free.
    pub(super) fn admit(&mut self, now: Time, settings: &HalfOpenSettings) -> Option<u64> {
        if !self.has_slot(settings) {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.in_flight.push((id, now));
        Some(id)
    }

    fn has_slot(&self, settings: &HalfOpenSettings) -> bool {
        let in_flight = self.in_flight();
        // BRK-4: never more probes at once than `half_open_max_calls`.
        in_flight < u64::from(settings.max_calls.get())
            && settings.max_admitted.is_none_or(|most| {
                // Fewer permits than results to wait for would leave it stuck.
                let most = u64::from(most.get()).max(most_results(settings.rule));
                in_flight + self.calls < most
            })
    }

    /// Removes a probe; returns false if it is already gone.
    pub(super) fn take(&mut self, id: u64) -> bool {
        let place = self.in_flight.iter().position(|&(probe, _)| probe == id);
        if let Some(place) = place {
            self.in_flight.remove(place);
        }
        place.is_some()
    }

    /// Returns the end of the oldest probe's lease.
    pub(super) fn lease_end(&self, settings: &HalfOpenSettings) -> Option<Time> {
        let &(_, started) = self.in_flight.first()?;
        Some(started.after(settings.probe_lease))
    }

    /// Removes the oldest probe if its lease is over; returns true if it did.
    pub(super) fn take_lost(&mut self, now: Time, settings: &HalfOpenSettings) -> bool {
        let lost = self.lease_end(settings).is_some_and(|end| end <= now);
        if lost {
            self.in_flight.remove(0);
        }
        lost
    }

    /// Counts a result, and decides.
    pub(super) fn count(
        &mut self,
        end: ProbeEnd,
        elapsed: Duration,
        settings: &BreakerSettings,
    ) -> HalfOpenDecision {
        self.calls += 1;
        self.elapsed = self.elapsed.saturating_add(elapsed);
        match end {
            ProbeEnd::Good => self.successes += 1,
            ProbeEnd::Slow => self.slow += 1,
            ProbeEnd::Failed | ProbeEnd::Lost => self.failures += 1,
            ProbeEnd::FailedSlowly => {
                self.failures += 1;
                self.slow += 1;
            }
        }
        match settings.half_open.rule {
            HalfOpenRule::Successes(needed) => {
                self.decide_successes(end, elapsed, needed, settings)
            }
            HalfOpenRule::AutoClose => {
                self.decide_successes(end, elapsed, NonZeroU32::MIN, settings)
            }
            HalfOpenRule::Rate { results } if self.calls >= u64::from(results.get()) => {
                self.decide_rates(settings)
            }
            HalfOpenRule::Rate { .. } => HalfOpenDecision::Undecided,
            HalfOpenRule::KOfN { needed, of } => self.decide_certain(needed.min(of), of),
        }
    }

    fn decide_successes(
        &self,
        end: ProbeEnd,
        elapsed: Duration,
        needed: NonZeroU32,
        settings: &BreakerSettings,
    ) -> HalfOpenDecision {
        match end {
            ProbeEnd::Good if self.successes >= u64::from(needed.get()) => {
                HalfOpenDecision::Close {
                    successes: self.successes,
                }
            }
            ProbeEnd::Good => HalfOpenDecision::Undecided,
            ProbeEnd::Slow => HalfOpenDecision::Reopen(TripReason::ProbeSlow { elapsed }),
            ProbeEnd::Failed | ProbeEnd::FailedSlowly => {
                HalfOpenDecision::Reopen(TripReason::ProbeFailed)
            }
            ProbeEnd::Lost => HalfOpenDecision::Reopen(TripReason::ProbeLost {
                lease: settings.half_open.probe_lease,
            }),
        }
    }

    /// Judges this period's results by the closed state's rates; without any, no failure is
    /// tolerated.
    fn decide_rates(&self, settings: &BreakerSettings) -> HalfOpenDecision {
        let (calls, failures, slow) = (self.calls, self.failures, self.slow);
        let rate = settings.failure_rate;
        let failed = match rate {
            Some(rate) => rate.is_reached(failures, calls),
            None => settings.slow_rate.is_none() && failures > 0,
        };
        if failed {
            return HalfOpenDecision::Reopen(TripReason::HalfOpenRate {
                failures,
                calls,
                rate,
            });
        }
        match settings.slow_rate {
            Some(rate) if rate.is_reached(slow, calls) => {
                HalfOpenDecision::Reopen(TripReason::HalfOpenSlowRate { slow, calls, rate })
            }
            _ => HalfOpenDecision::Close {
                successes: self.successes,
            },
        }
    }

    fn decide_certain(&self, needed: NonZeroU32, of: NonZeroU32) -> HalfOpenDecision {
        let failures = self.calls - self.successes;
        if self.successes >= u64::from(needed.get()) {
            HalfOpenDecision::Close {
                successes: self.successes,
            }
        } else if failures > u64::from(of.get() - needed.get()) {
            HalfOpenDecision::Reopen(TripReason::HalfOpenCertain {
                failures,
                needed,
                of,
            })
        } else {
            HalfOpenDecision::Undecided
        }
    }
}

/// Returns the number of successes (or, for rates, results) that close it.
pub(super) fn needed(rule: HalfOpenRule) -> u64 {
    u64::from(match rule {
        HalfOpenRule::Successes(needed) => needed.get(),
        HalfOpenRule::Rate { results } => results.get(),
        HalfOpenRule::KOfN { needed, of } => needed.min(of).get(),
        HalfOpenRule::AutoClose => 1,
    })
}

/// Returns the number of results that a decision may have to wait for.
fn most_results(rule: HalfOpenRule) -> u64 {
    match rule {
        HalfOpenRule::KOfN { of, .. } => u64::from(of.get()),
        rule => needed(rule),
    }
}
