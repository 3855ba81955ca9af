//! The runtime's clock: real, or tokio's, which tests can pause.
//!
//! The only place that reads a clock. Everything else gets a [`Time`].

use std::cell::Cell;
use std::time::Duration;

use breakerbox_policy::Time;
use governor::nanos::Nanos;
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
        /// The counter then.
        counter: u64,
    },
    /// Tokio's clock, which stands still under `start_paused`, and the time of the world at its
    /// start.
    Tokio {
        origin: tokio::time::Instant,
        wall: jiff::Timestamp,
    },
}

/// A moment of the process, whatever runtime's clock it was read from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    Real(quanta::Instant),
    Tokio(tokio::time::Instant),
}

/// As far ahead as timers go.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

impl Clock {
    /// The real clock, starting now.
    #[must_use]
    pub fn real() -> Self {
        let clock = quanta::Clock::new();
        let counter = clock.raw();
        let origin = clock.scaled(counter);
        Self(Kind::Real {
            clock,
            origin,
            counter,
        })
    }

    /// Tokio's clock, starting now; virtual where tokio's time is paused.
    #[must_use]
    pub fn tokio() -> Self {
        Self::tokio_at(jiff::Timestamp::now())
    }

    /// Tokio's clock, starting now, as if this were the time of the world: for tests of what
    /// follows the time of day.
    #[must_use]
    pub fn tokio_at(wall: jiff::Timestamp) -> Self {
        let origin = tokio::time::Instant::now();
        Self(Kind::Tokio { origin, wall })
    }

    /// The time since the start.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Time {
        match &self.0 {
            Kind::Real { clock, counter, .. } => {
                Time::from_nanos(clock.delta_as_nanos(*counter, clock.raw()))
            }
            Kind::Tokio { origin, .. } => Time::ZERO.after(origin.elapsed()),
        }
    }

    /// The time on the clocks of the world; what it is told for is a time of day, never a span.
    #[must_use]
    pub fn wall(&self) -> jiff::Timestamp {
        match &self.0 {
            Kind::Real { .. } => jiff::Timestamp::now(),
            Kind::Tokio { origin, wall } => wall
                .checked_add(origin.elapsed())
                .unwrap_or(jiff::Timestamp::MAX),
        }
    }

    /// A time as a moment that other clocks of its kind understand.
    pub(crate) fn moment(&self, time: Time) -> Moment {
        let span = time.since(Time::ZERO).min(FAR);
        match &self.0 {
            Kind::Real { origin, .. } => Moment::Real(*origin + span),
            Kind::Tokio { origin, .. } => Moment::Tokio(*origin + span),
        }
    }

    /// The time of a moment; `None` for one of another kind of clocks.
    pub(crate) fn time_of(&self, moment: Moment) -> Option<Time> {
        let span = match (&self.0, moment) {
            (Kind::Real { origin, .. }, Moment::Real(at)) => at.duration_since(*origin),
            (Kind::Tokio { origin, .. }, Moment::Tokio(at)) => at.duration_since(*origin),
            _ => return None,
        };
        Some(Time::ZERO.after(span))
    }

    /// A sleep until that time, which never ends early.
    ///
    /// # Panics  Outside of a tokio runtime with time.
    pub fn sleep_until(&self, until: Time) -> Sleep {
        match &self.0 {
            Kind::Real { .. } => tokio::time::sleep(until.since(self.now())),
            Kind::Tokio { origin, .. } => {
                let span = until.since(Time::ZERO);
                tokio::time::sleep_until(*origin + span.min(FAR))
            }
        }
    }
}

/// When a sleep until then ends: timers go by whole milliseconds.
pub(crate) fn waking(until: Time) -> Time {
    Time::from_millis(until.as_nanos().div_ceil(1_000_000))
}

/// Whether who sleeps until then wakes at the deadline or later.
pub(crate) fn is_too_late(until: Time, deadline: Option<Time>) -> bool {
    deadline.is_some_and(|deadline| waking(until) >= deadline)
}

/// The time that the rate limiter's counting goes by: whoever asks it has read the clock already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given;

thread_local! {
    static GIVEN: Cell<Time> = const { Cell::new(Time::ZERO) };
}

impl Given {
    /// Sets it for what this thread asks next.
    pub(crate) fn set(now: Time) {
        GIVEN.set(now);
    }
}

impl governor::clock::Clock for Given {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(GIVEN.get().as_nanos())
    }
}

/// The kernel's random numbers, from the thread's generator.
pub(crate) fn random() -> impl FnMut() -> f64 {
    fastrand::f64
}
