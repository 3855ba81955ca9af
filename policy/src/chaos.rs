//! Injected faults: which attempts are hit, and by which fault.
//!
//! It decides; the code that executes attempts applies the fault.

use std::time::Duration;

use crate::{ChaosSettings, RandomSource, Time};

/// A fault that replaces the dependency's work in an attempt.
///
/// Exhaustive on purpose: the code that executes attempts must apply each fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InjectedFault {
    /// It fails.
    Error,
    /// It never ends.
    Hang,
    /// It panics.
    Panic,
}

/// Faults injected into one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultInjection {
    /// Delay before the attempt begins.
    pub delay: Duration,
    /// Fault that then replaces the work.
    pub fault: Option<InjectedFault>,
}

/// Chaos settings, and the time at which they expire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chaos {
    settings: ChaosSettings,
    until: Option<Time>,
}

impl Chaos {
    /// Activates the settings at `now`; they expire by themselves if they give a duration.
    #[must_use]
    pub fn new(settings: ChaosSettings, now: Time) -> Self {
        let until = settings.lasts.map(|span| now.after(span));
        Self { settings, until }
    }

    /// Returns true if attempts are hit at `now`.
    #[must_use]
    pub fn is_active(&self, now: Time) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Returns the time at which it expires; `None` for never.
    #[must_use]
    pub const fn until(&self) -> Option<Time> {
        self.until
    }

    /// Returns the settings.
    #[must_use]
    pub const fn settings(&self) -> &ChaosSettings {
        &self.settings
    }

    /// Returns the faults for an attempt that begins at `now`.
    ///
    /// The faults exclude each other. A rate is a share of all attempts, so rates that sum to more
    /// than one cut off the last kinds (panics, then hangs).
    pub fn draw(&self, now: Time, random: &mut dyn RandomSource) -> FaultInjection {
        if !self.is_active(now) {
            return FaultInjection::default();
        }
        let ChaosSettings {
            latency_rate,
            latency,
            error_rate,
            hang_rate,
            panic_rate,
            lasts: _,
        } = self.settings;
        let delay = if random.unit() < latency_rate.as_f64() {
            latency
        } else {
            Duration::ZERO
        };
        let drawn = random.unit();
        let (error, hang) = (error_rate.as_f64(), hang_rate.as_f64());
        let fault = if drawn < error {
            Some(InjectedFault::Error)
        } else if drawn < error + hang {
            Some(InjectedFault::Hang)
        } else if drawn < error + hang + panic_rate.as_f64() {
            Some(InjectedFault::Panic)
        } else {
            None
        };
        FaultInjection { delay, fault }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rate;

    #[test]
    fn each_rate_is_a_share_of_all_attempts() {
        let rate = |share| Rate::new(share).unwrap();
        let settings = ChaosSettings {
            latency_rate: rate(0.5),
            latency: Duration::from_millis(20),
            error_rate: rate(0.1),
            hang_rate: rate(0.2),
            panic_rate: rate(0.3),
            lasts: Some(Duration::from_secs(1)),
        };
        let chaos = Chaos::new(settings, Time::from_millis(500));
        let draw = |millis, unit: f64| chaos.draw(Time::from_millis(millis), &mut || unit);
        for (unit, delay, fault) in [
            (0.09, 20, Some(InjectedFault::Error)),
            (0.1, 20, Some(InjectedFault::Hang)),
            (0.29, 20, Some(InjectedFault::Hang)),
            (0.49, 20, Some(InjectedFault::Panic)),
            (0.5, 0, Some(InjectedFault::Panic)),
            (0.601, 0, None),
        ] {
            let delay = Duration::from_millis(delay);
            assert_eq!(draw(600, unit), FaultInjection { delay, fault }, "{unit}");
        }
        assert_eq!(draw(1_499, 0.0).fault, Some(InjectedFault::Error));
        assert_eq!(draw(1_500, 0.0), FaultInjection::default(), "it is over");
    }

    #[test]
    fn a_rate_ends_where_the_next_one_begins() {
        let quarter = Rate::new(0.25).unwrap();
        let settings = ChaosSettings {
            error_rate: quarter,
            hang_rate: quarter,
            panic_rate: quarter,
            lasts: Some(Duration::from_secs(1)),
            ..ChaosSettings::default()
        };
        let chaos = Chaos::new(settings, Time::from_millis(500));
        assert_eq!(chaos.settings(), &settings);
        assert_eq!(chaos.until(), Some(Time::from_millis(1_500)));
        for (unit, fault) in [
            (0.0, Some(InjectedFault::Error)),
            (0.25, Some(InjectedFault::Hang)),
            (0.5, Some(InjectedFault::Panic)),
            (0.75, None),
        ] {
            let drawn = chaos.draw(Time::from_millis(600), &mut || unit);
            assert_eq!(drawn.fault, fault, "{unit}");
        }
    }
}
