//! One test per edge of the state chart, and the values on both sides of each boundary.

mod edges;
mod fleet;
mod half_open;
mod overrides;
mod windows;
mod words;

use std::num::NonZeroU32;

use super::*;
use crate::{
    CancelledPolicy, Class, HalfOpenSettings, LostProbe, OpenTime, Outcome, Rate, WindowCounts,
    WindowKind,
};

const MS: Duration = Duration::from_millis(1);

fn n(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn rate(fraction: f64) -> Rate {
    Rate::new(fraction).unwrap()
}

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// Three consecutive failures open the breaker for a second; one successful probe closes it.
fn settings() -> BreakerSettings {
    BreakerSettings {
        failure_threshold: Some(n(3)),
        open: OpenTime {
            base: 1_000 * MS,
            ..OpenTime::default()
        },
        half_open: HalfOpenSettings {
            probe_lease: 500 * MS,
            ..HalfOpenSettings::default()
        },
        ..BreakerSettings::default()
    }
}

fn rates(size: u32, minimum_calls: u32) -> BreakerSettings {
    BreakerSettings {
        window: WindowKind::Count { size: n(size) },
        failure_threshold: None,
        failure_rate: Some(rate(0.5)),
        minimum_calls,
        ..settings()
    }
}

/// A breaker with short helper methods.
struct Bench {
    breaker: Breaker,
    unit: f64,
}

impl Bench {
    fn new(settings: BreakerSettings) -> Self {
        Self {
            breaker: Breaker::new(settings, Time::ZERO),
            unit: 0.0,
        }
    }

    fn admit(&mut self, millis: u64) -> Permit {
        self.breaker.admit(at(millis)).unwrap()
    }

    fn refuse(&mut self, millis: u64) -> Refusal {
        self.breaker.admit(at(millis)).unwrap_err()
    }

    fn report(&mut self, millis: u64, permit: Permit, class: Class) -> RecordResult {
        self.finish(millis, permit, &Outcome::new(class, MS))
    }

    fn finish(&mut self, millis: u64, permit: Permit, outcome: &Outcome) -> RecordResult {
        let unit = self.unit;
        self.breaker
            .record(at(millis), permit, outcome, &mut || unit)
    }

    fn call(&mut self, millis: u64, class: Class) -> State {
        let permit = self.admit(millis);
        self.report(millis, permit, class);
        self.breaker.state()
    }

    fn fail(&mut self, millis: u64, times: u32) -> State {
        for _ in 0..times {
            self.call(millis, Class::Failure);
        }
        self.breaker.state()
    }

    fn tick(&mut self, millis: u64) -> State {
        let unit = self.unit;
        self.breaker.on_time(at(millis), &mut || unit);
        self.breaker.state()
    }

    fn command(&mut self, millis: u64, command: BreakerCommand) {
        let unit = self.unit;
        self.breaker
            .command(at(millis), command, &mut || unit)
            .unwrap();
    }

    fn counts(&self, millis: u64) -> WindowCounts {
        self.breaker.view(at(millis)).counts
    }

    fn events(&mut self) -> Vec<BreakerEvent> {
        std::iter::from_fn(|| self.breaker.poll_event()).collect()
    }

    /// The transitions since the last call, as from and to.
    fn moves(&mut self) -> Vec<(State, State)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                BreakerEvent::Transition { from, to, .. } => Some((from, to)),
                _ => None,
            })
            .collect()
    }

    fn trip_reason(&mut self) -> TripReason {
        let trip = self.events().into_iter().find_map(|event| match event {
            BreakerEvent::Transition {
                cause: BreakerCause::Tripped { reason, .. },
                ..
            } => Some(reason),
            _ => None,
        });
        trip.unwrap()
    }
}

fn reason() -> String {
    "a test".into()
}

fn probe() -> BreakerCommand {
    BreakerCommand::Probe { reason: reason() }
}

fn trip(wait: Option<Duration>) -> BreakerCommand {
    BreakerCommand::Trip {
        reason: reason(),
        wait,
    }
}
