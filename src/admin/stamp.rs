//! The runtime's moments as times of the world.

use std::sync::Mutex;
use std::sync::PoisonError;

use breakerbox_policy::Time;
use jiff::{SignedDuration, Timestamp, Unit};

use crate::{Clock, Runtime};

/// How far the two may drift apart before all moments are told anew.
const DRIFT: SignedDuration = SignedDuration::from_secs(1);

/// Tells a moment always as the same time, as long as nobody sets the clocks of the world.
pub(super) struct Stamps {
    clock: Clock,
    /// When the runtime started.
    origin: Mutex<Timestamp>,
}

impl Stamps {
    pub(super) fn new(runtime: &Runtime) -> Self {
        let clock = runtime.clock().clone();
        let origin = Mutex::new(origin(&clock));
        Self { clock, origin }
    }

    /// A moment in RFC 3339, to the millisecond.
    pub(super) fn of(&self, moment: Time) -> String {
        let began = {
            let mut known = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
            let now = origin(&self.clock);
            if now.duration_since(*known).abs() > DRIFT {
                *known = now;
            }
            *known
        };
        let at = began.checked_add(moment.since(Time::ZERO));
        let at = at.unwrap_or(Timestamp::MAX);
        let at = at.round(Unit::Millisecond).unwrap_or(at);
        // Always as long, so that columns of them are straight.
        format!("{at:.3}")
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }
}

fn origin(clock: &Clock) -> Timestamp {
    let (now, wall) = (clock.now(), clock.wall());
    let origin = wall.checked_sub(now.since(Time::ZERO));
    origin.unwrap_or(Timestamp::MIN)
}
