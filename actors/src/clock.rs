//! The runtime's clock: real, or tokio's, which tests can pause.
//!
//! Only this module reads a clock. All other code gets a [`Time`].

mod timer_thread;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Time;
use governor::nanos::Nanos;
use tokio::runtime::Handle;
use tokio::time::Sleep;

use timer_thread::TimerThread;

/// Measures the time since the runtime's start.
///
/// # Source  BRK rules are judged in monotonic time only (BRK-8): a wall clock that
/// jumps would lengthen or shorten an open period.
#[derive(Debug, Clone)]
pub struct Clock(ClockKind, Option<OtherTimers>);

/// The timers of the sleeps on threads without tokio.
#[derive(Debug, Clone)]
enum OtherTimers {
    /// Those of the virtual time.
    Virtual(Handle),
    /// Those of a thread of their own. They outlive the runtime: a call that a caller has begun may
    /// do so too.
    Own(Arc<TimerThread>),
}

impl OtherTimers {
    fn handle(&self) -> Option<&Handle> {
        match self {
            Self::Virtual(handle) => Some(handle),
            Self::Own(thread) => thread.handle(),
        }
    }
}

#[derive(Debug, Clone)]
enum ClockKind {
    /// The processor's counter; a read costs a third of a read of the system's clock.
    Real {
        clock: quanta::Clock,
        origin: quanta::Instant,
        /// The counter at `origin`.
        counter: u64,
    },
    /// Tokio's clock, which stands still under `start_paused`, and the wall-clock time at its
    /// start.
    Tokio {
        origin: tokio::time::Instant,
        wall: jiff::Timestamp,
    },
}

/// A moment in the process's time, independent of any one runtime's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    Real(quanta::Instant),
    Tokio(tokio::time::Instant),
}

/// Time ahead of a moment that no clock can express.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

impl Clock {
    /// The real clock, starting now.
    #[must_use]
    pub fn real() -> Self {
        let clock = quanta::Clock::new();
        let counter = clock.raw();
        let origin = clock.scaled(counter);
        let kind = ClockKind::Real {
            clock,
            origin,
            counter,
        };
        Self(kind, None)
    }

    /// Tokio's clock, starting now; virtual where tokio's time is paused.
    #[must_use]
    pub fn tokio() -> Self {
        Self::tokio_at(jiff::Timestamp::now())
    }

    /// Tokio's clock, starting now at this wall-clock time: for tests of behaviour that depends on
    /// the time of day.
    #[must_use]
    pub fn tokio_at(wall: jiff::Timestamp) -> Self {
        let origin = tokio::time::Instant::now();
        Self(ClockKind::Tokio { origin, wall }, None)
    }

    /// Returns true for tokio's clock, which may be a virtual one.
    pub(crate) fn is_virtual(&self) -> bool {
        matches!(self.0, ClockKind::Tokio { .. })
    }

    /// Returns the same clock, with timers for threads without tokio. Those of virtual time are this
    /// thread's.
    pub(crate) fn with_timers_everywhere(self) -> Self {
        let timers = match &self.0 {
            ClockKind::Real { .. } => Some(OtherTimers::Own(Arc::default())),
            ClockKind::Tokio { .. } => Handle::try_current().ok().map(OtherTimers::Virtual),
        };
        Self(self.0, timers)
    }

    /// The time since the start.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Time {
        match &self.0 {
            ClockKind::Real { clock, counter, .. } => {
                Time::from_nanos(clock.delta_as_nanos(*counter, clock.raw()))
            }
            ClockKind::Tokio { origin, .. } => Time::ZERO.after(origin.elapsed()),
        }
    }

    /// The wall-clock time. Use it for a time of day, never to measure a span.
    #[must_use]
    pub fn wall(&self) -> jiff::Timestamp {
        match &self.0 {
            ClockKind::Real { .. } => jiff::Timestamp::now(),
            ClockKind::Tokio { origin, wall } => wall
                .checked_add(origin.elapsed())
                .unwrap_or(jiff::Timestamp::MAX),
        }
    }

    /// Converts a time to a moment that other clocks of the same kind can read.
    #[inline]
    pub(crate) fn moment(&self, time: Time) -> Moment {
        let span = time.since(Time::ZERO);
        match &self.0 {
            ClockKind::Real { origin, clock, .. } => {
                let at = origin.checked_add(span);
                Moment::Real(at.unwrap_or_else(|| clock.now() + FAR))
            }
            ClockKind::Tokio { origin, .. } => {
                let at = origin.checked_add(span);
                Moment::Tokio(at.unwrap_or_else(|| tokio::time::Instant::now() + FAR))
            }
        }
    }

    /// Converts a moment to a time; `None` if it belongs to another kind of clock.
    #[inline]
    pub(crate) fn time_of(&self, moment: Moment) -> Option<Time> {
        let span = match (&self.0, moment) {
            (ClockKind::Real { origin, .. }, Moment::Real(at)) => at.duration_since(*origin),
            (ClockKind::Tokio { origin, .. }, Moment::Tokio(at)) => at.duration_since(*origin),
            _ => return None,
        };
        Some(Time::ZERO.after(span))
    }

    /// Returns a sleep until that time, which never ends early.
    ///
    /// # Panics  Outside of a tokio runtime with time, unless it is the clock of a runtime, such as
    /// [`Runtime::clock`](crate::Runtime::clock).
    pub fn sleep_until(&self, until: Time) -> Sleep {
        let elsewhere = self.1.as_ref().filter(|_| Handle::try_current().is_err());
        let _entered = elsewhere.and_then(OtherTimers::handle).map(Handle::enter);
        match &self.0 {
            ClockKind::Real { .. } => tokio::time::sleep(until.since(self.now())),
            ClockKind::Tokio { origin, .. } => match origin.checked_add(until.since(Time::ZERO)) {
                Some(at) => tokio::time::sleep_until(at),
                None => tokio::time::sleep(FAR),
            },
        }
    }
}

/// A time that was noted outside of any runtime, on tokio's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotedTime(tokio::time::Instant);

impl NotedTime {
    /// Notes the present time.
    pub(crate) fn now() -> Self {
        Self(tokio::time::Instant::now())
    }

    /// Returns the time since then.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The time at which a sleep until `until` ends: timers count in whole milliseconds.
pub(crate) fn waking(until: Time) -> Time {
    Time::from_millis(until.as_nanos().div_ceil(1_000_000))
}

/// Returns true if a sleep until `until` ends at the deadline or later.
pub(crate) fn is_too_late(until: Time, deadline: Option<Time>) -> bool {
    deadline.is_some_and(|deadline| waking(until) >= deadline)
}

/// The time for governor, set by a caller that has already read the clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallerClock;

thread_local! {
    static GIVEN: Cell<Time> = const { Cell::new(Time::ZERO) };
}

impl CallerClock {
    /// Sets the time for this thread's next use of governor.
    pub(crate) fn set(now: Time) {
        GIVEN.set(now);
    }
}

impl governor::clock::Clock for CallerClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(GIVEN.get().as_nanos())
    }
}

/// Random numbers for the kernel, from the thread's generator.
pub(crate) fn random() -> impl FnMut() -> f64 {
    fastrand::f64
}

/// Returns the smaller of the values that are present.
pub(crate) fn earliest<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
