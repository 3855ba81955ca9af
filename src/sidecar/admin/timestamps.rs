//! Conversion of runtime times to wall-clock timestamps.

use std::sync::Mutex;

use breakerbox_policy::Time;
use jiff::{SignedDuration, Timestamp, Unit};

use crate::lock::LockExt as _;
use crate::{Clock, Runtime};

/// Drift between the clocks above which the conversion is adjusted.
const DRIFT: SignedDuration = SignedDuration::from_secs(1);

/// Maps a runtime time always to the same timestamp, as long as the wall clock is not set.
pub(super) struct Timestamps {
    clock: Clock,
    /// Wall-clock time of the runtime's start.
    origin: Mutex<Timestamp>,
}

impl Timestamps {
    pub(super) fn new(runtime: &Runtime) -> Self {
        let clock = runtime.clock().clone();
        let origin = Mutex::new(origin(&clock));
        Self { clock, origin }
    }

    /// Formats a time in RFC 3339, to the millisecond.
    pub(super) fn of(&self, moment: Time) -> String {
        format(self.timestamp(moment))
    }

    /// Returns a time as a timestamp.
    pub(super) fn timestamp(&self, moment: Time) -> Timestamp {
        let began = {
            let mut known = self.origin.acquire();
            let now = origin(&self.clock);
            if now.duration_since(*known).abs() > DRIFT {
                *known = now;
            }
            *known
        };
        let at = began.checked_add(moment.since(Time::ZERO));
        at.unwrap_or(Timestamp::MAX)
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }
}

/// Formats a timestamp in RFC 3339, to the millisecond.
pub(super) fn format(at: Timestamp) -> String {
    let at = at.round(Unit::Millisecond).unwrap_or(at);
    // Fixed width, so that columns align.
    format!("{at:.3}")
}

fn origin(clock: &Clock) -> Timestamp {
    let (now, wall) = (clock.now(), clock.wall());
    let origin = wall.checked_sub(now.since(Time::ZERO));
    origin.unwrap_or(Timestamp::MIN)
}
