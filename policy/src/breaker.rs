//! Decides whether a call may go out, by what became of the calls before it.
//!
//! Closed lets calls through and watches them, open refuses them until its time is over,
//! half-open lets a few through to find out. What keeps it honest is the generation: each
//! transition starts one, and an outcome counts only in the generation that gave its permit
//! (BRK-3). It never waits, draws or spawns: the time and the random numbers are arguments, and
//! whoever owns it calls [`Breaker::on_time`] at [`Breaker::next_deadline`].
//!
//! ```text
//!           a rule is broken                  the open time is over
//! closed ────────────────────▶ open ◀───────────────────────────────┐
//!   ▲                            └────────────────────▶ half-open ───┘
//!   └───────────────── probes succeeded ───────────────────┘  a probe failed, or was lost
//! ```

mod command;
mod half_open;
mod reason;
mod record;
mod rules;
mod state;
mod timing;
mod view;

use std::collections::VecDeque;
use std::time::Duration;

use half_open::HalfOpen;
use rules::Rules;

pub use reason::{BreakerEvent, Cause, TripReason};
pub use state::{
    Author, Command, IllegalTransition, Override, OverrideMode, Recorded, Refusal, RefusalState,
    State,
};
pub use view::{HalfOpenView, Tally, View};

use crate::{BreakerSettings, HalfOpenRule, Permit, PermitKind, Random, Time, Window};

/// Events that wait to be fetched at most; the oldest is lost first.
const MAX_EVENTS: usize = 64;

/// A circuit breaker, without a clock.
///
/// # Units   `now`, everywhere: never decreasing.
/// # Source  Rules BRK-1 to BRK-12 in docs/rules.md.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: BreakerSettings,
    rules: Rules,
    state: State,
    generation: u64,
    window: Window,
    half_open: HalfOpen,
    open_until: Time,
    open_attempt: u32,
    overdue: u64,
    /// An operator's override, and the supervisor's above it.
    operator: Option<Override>,
    parked: Option<Override>,
    /// What the override that holds does.
    mode: Option<OverrideMode>,
    /// Whether shadow mode said already that it would have tripped.
    warned: bool,
    /// A random number for a lost probe that only an admission notices.
    spare: f64,
    /// When time alone changes something; [`Time::MAX`] for never.
    deadline: Time,
    since: Time,
    cause: Cause,
    tally: Tally,
    events: VecDeque<BreakerEvent>,
}

impl Breaker {
    /// A closed breaker of generation 0 that remembers nothing.
    #[must_use]
    pub fn new(settings: BreakerSettings, now: Time) -> Self {
        Self {
            rules: Rules::new(&settings),
            state: State::Closed,
            generation: 0,
            window: Window::new(settings.window, now),
            half_open: HalfOpen::default(),
            open_until: Time::ZERO,
            open_attempt: 0,
            overdue: 0,
            operator: None,
            parked: None,
            mode: None,
            warned: false,
            spare: 0.0,
            deadline: Time::MAX,
            since: now,
            cause: Cause::Started,
            tally: Tally::default(),
            events: VecDeque::new(),
            settings,
        }
    }

    /// Decides whether one more call may go out now.
    ///
    /// An open breaker whose time is over becomes half-open here too, at exactly that moment or
    /// later, so that nothing depends on a timer.
    ///
    /// # Errors  [`Refusal`]: the call must not reach the dependency.
    /// # Source  Rules BRK-3, BRK-4, BRK-10 and BRK-11.
    pub fn admit(&mut self, now: Time) -> Result<Permit, Refusal> {
        if self.state == State::Closed && self.mode.is_none() {
            return Ok(Permit::normal(self.generation, now));
        }
        if self.deadline <= now {
            let spare = self.spare;
            self.advance(now, &mut || spare);
        }
        let permit = match (self.mode, self.state) {
            (Some(OverrideMode::Disabled), _) => Ok(Permit::unrecorded(self.generation, now)),
            (Some(OverrideMode::Shadow), _) | (None, State::Closed) => {
                Ok(Permit::normal(self.generation, now))
            }
            (Some(OverrideMode::ForcedOpen), _) => Err(RefusalState::ForcedOpen),
            (None, State::Open) => Err(RefusalState::Open),
            (None, State::HalfOpen) => self.admit_probe(now).ok_or(RefusalState::HalfOpen),
        };
        permit.map_err(|state| {
            self.tally.refused += 1;
            Refusal {
                state,
                retry_after: self.wait(state, now),
                generation: self.generation,
            }
        })
    }

    fn admit_probe(&mut self, now: Time) -> Option<Permit> {
        let id = self.half_open.admit(now, &self.settings.half_open)?;
        self.set_deadline();
        Some(Permit::new(self.generation, PermitKind::Probe(id), now))
    }

    /// Whether a call of this length is slow.
    #[must_use]
    pub fn is_slow(&self, elapsed: Duration) -> bool {
        self.settings.slow_call.is_some_and(|slow| elapsed >= slow)
    }

    /// Whether each success must be recorded by itself.
    ///
    /// False only when no fast success can move the breaker, whatever their number. Then a gate
    /// may count them by itself and bring them with [`Breaker::record_successes`]: before any
    /// other record, and before a bucket of [`Breaker::success_bucket`] ends. The transitions are
    /// the same as if each had been recorded.
    ///
    /// # Source  Rule CALL-3 in docs/rules.md.
    #[must_use]
    pub fn needs_every_success(&self) -> bool {
        match self.mode {
            Some(OverrideMode::Disabled) => false,
            Some(OverrideMode::ForcedOpen) => true,
            Some(OverrideMode::Shadow) | None => {
                self.state != State::Closed
                    || self
                        .rules
                        .needs_every_success(&self.settings, &self.window, self.overdue)
            }
        }
    }

    /// The width of a bucket of the window, when it forgets by time; buckets begin at its multiples.
    #[must_use]
    pub fn success_bucket(&self) -> Option<Duration> {
        self.window.bucket()
    }

    /// The settings.
    #[must_use]
    pub const fn settings(&self) -> &BreakerSettings {
        &self.settings
    }

    /// The automatic state, whatever lies over it.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The override that holds: the supervisor's before the operator's.
    #[must_use]
    pub const fn overridden(&self) -> Option<&Override> {
        match &self.parked {
            Some(parked) => Some(parked),
            None => self.operator.as_ref(),
        }
    }

    /// The generation; it only grows.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// When [`Breaker::on_time`] has something to do; `None` while time alone changes nothing.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        (self.deadline != Time::MAX).then_some(self.deadline)
    }

    /// Takes the oldest event that was not fetched yet.
    ///
    /// Events wait here until the transition is complete: a listener never sees half of one.
    ///
    /// # Units   At most 64 wait; the oldest is lost first.
    pub fn poll_event(&mut self) -> Option<BreakerEvent> {
        self.events.pop_front()
    }

    /// Everything that can be seen of it.
    #[must_use]
    pub fn view(&self, now: Time) -> View<'_> {
        let state = if self.mode == Some(OverrideMode::ForcedOpen) {
            Some(RefusalState::ForcedOpen)
        } else {
            (self.state == State::Open).then_some(RefusalState::Open)
        };
        View {
            state: self.state,
            overridden: self.overridden(),
            generation: self.generation,
            since: self.since,
            cause: &self.cause,
            retry_after: state.and_then(|state| self.wait(state, now)),
            counts: self.counts(now),
            half_open: (self.state == State::HalfOpen).then(|| HalfOpenView {
                successes: self.half_open.successes(),
                needed: half_open::needed(self.settings.half_open.rule),
                in_flight: self.half_open.in_flight(),
                results: self.half_open.results(),
            }),
            overdue: self.overdue,
            tally: &self.tally,
            open_attempt: self.open_attempt,
        }
    }

    /// What this generation counted so far.
    fn counts(&self, now: Time) -> crate::Counts {
        if self.state == State::HalfOpen && self.mode != Some(OverrideMode::Shadow) {
            self.half_open.counts()
        } else {
            self.window.counts(now)
        }
    }

    /// How long a refusal by `state` will last.
    fn wait(&self, state: RefusalState, now: Time) -> Option<Duration> {
        match state {
            RefusalState::Open => Some(self.open_until.since(now)),
            RefusalState::HalfOpen => {
                let end = self.half_open.lease_end(&self.settings.half_open)?;
                Some(end.since(now))
            }
            RefusalState::ForcedOpen => self.overridden()?.until.map(|until| until.since(now)),
        }
    }

    fn push(&mut self, event: BreakerEvent) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests;
