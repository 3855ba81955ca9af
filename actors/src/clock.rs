//! The runtime's clock: real, or tokio's, which tests can pause.
//!
//! The only place that reads a clock. Everything else gets a [`Time`].

use std::time::Duration;

use breakerbox_policy::Time;
use tokio::time::Sleep;

/// Tells the time since the runtime's start.
///
/// # Source  BRK rules are judged in monotonic time only (acceptance item 25): a wall clock that
/// jumps would lengthen or shorten an open period.
#[derive(Debug, Clone)]
pub struct Clock(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// The processor's counter: a read costs a third of the system's clock.
    Real {
        clock: quanta::Clock,
        origin: quanta::Instant,
    },
    /// Tokio's clock, which stands still under `start_paused`.
    Tokio(tokio::time::Instant),
}

impl Clock {
    /// The real clock, starting now.
    #[must_use]
    pub fn real() -> Self {
        let clock = quanta::Clock::new();
        let origin = clock.now();
        Self(Kind::Real { clock, origin })
    }

    /// Tokio's clock, starting now; virtual where tokio's time is paused.
    #[must_use]
    pub fn tokio() -> Self {
        Self(Kind::Tokio(tokio::time::Instant::now()))
    }

    /// The time since the start.
    #[must_use]
    pub fn now(&self) -> Time {
        let span = match &self.0 {
            Kind::Real { clock, origin } => clock.now().duration_since(*origin),
            Kind::Tokio(origin) => origin.elapsed(),
        };
        Time::ZERO.after(span)
    }

    /// A sleep until that time, which never ends early.
    ///
    /// # Panics  Outside of a tokio runtime with time.
    pub fn sleep_until(&self, until: Time) -> Sleep {
        match &self.0 {
            Kind::Real { .. } => tokio::time::sleep(until.since(self.now())),
            Kind::Tokio(origin) => {
                let span = until.since(Time::ZERO);
                let far = Duration::from_secs(60 * 60 * 24 * 365);
                tokio::time::sleep_until(*origin + span.min(far))
            }
        }
    }
}

/// The kernel's random numbers, from the thread's generator.
pub(crate) fn random() -> impl FnMut() -> f64 {
    fastrand::f64
}
