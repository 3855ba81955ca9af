//! Faults on purpose: which attempts are hit, and by what.
//!
//! It decides; whoever executes attempts carries the blow out.

use std::time::Duration;

use crate::{ChaosSettings, Random, Time};

/// What happens to an attempt instead of the dependency's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blow {
    /// It fails.
    Error,
    /// It never ends.
    Hang,
    /// It panics.
    Panic,
}

/// What hits one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strike {
    /// It begins so much later.
    pub delay: Duration,
    /// And then this happens instead of the work.
    pub blow: Option<Blow>,
}

/// Chaos that was set at some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chaos {
    settings: ChaosSettings,
    until: Option<Time>,
}

impl Chaos {
    /// Sets it now; it ends by itself when its settings say for how long it lasts.
    #[must_use]
    pub fn new(settings: ChaosSettings, now: Time) -> Self {
        let until = settings.lasts.map(|span| now.after(span));
        Self { settings, until }
    }

    /// Whether it hits attempts now.
    #[must_use]
    pub fn is_active(&self, now: Time) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// When it ends; `None` when nobody said so.
    #[must_use]
    pub const fn until(&self) -> Option<Time> {
        self.until
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &ChaosSettings {
        &self.settings
    }

    /// What hits an attempt that begins now.
    ///
    /// The blows exclude each other; a rate is a share of all attempts, so that rates which sum
    /// up to more than one cut the last ones (panics, then hangs).
    pub fn strike(&self, now: Time, random: &mut dyn Random) -> Strike {
        if !self.is_active(now) {
            return Strike::default();
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
        let blow = if drawn < error {
            Some(Blow::Error)
        } else if drawn < error + hang {
            Some(Blow::Hang)
        } else if drawn < error + hang + panic_rate.as_f64() {
            Some(Blow::Panic)
        } else {
            None
        };
        Strike { delay, blow }
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
        let strike = |millis, unit: f64| chaos.strike(Time::from_millis(millis), &mut || unit);
        for (unit, delay, blow) in [
            (0.09, 20, Some(Blow::Error)),
            (0.1, 20, Some(Blow::Hang)),
            (0.29, 20, Some(Blow::Hang)),
            (0.49, 20, Some(Blow::Panic)),
            (0.5, 0, Some(Blow::Panic)),
            (0.601, 0, None),
        ] {
            let delay = Duration::from_millis(delay);
            assert_eq!(strike(600, unit), Strike { delay, blow }, "{unit}");
        }
        assert_eq!(strike(1_499, 0.0).blow, Some(Blow::Error));
        assert_eq!(strike(1_500, 0.0), Strike::default(), "it is over");
    }
}
