//! The circuit breaker: admission of calls, based on the outcomes of earlier calls.
//!
//! Closed lets calls through and counts their outcomes. Open refuses them until the open time is
//! over. Half-open lets a few probes through. Each transition starts a new generation, and an
//! outcome counts only in the generation that issued its permit (BRK-3). The breaker never waits,
//! draws or spawns: the time and the random numbers are arguments, and its owner calls
//! [`Breaker::on_time`] at [`Breaker::next_deadline`].
//!
//! ```text
//!           a rule is broken                  the open time is over
//! closed ────────────────────▶ open ◀───────────────────────────────┐
//!   ▲                            └────────────────────▶ half-open ───┘
//!   └───────────────── probes succeeded ───────────────────┘  a probe failed, or was lost
//! ```

mod command;
mod fleet;
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
use rules::TripRules;

pub use fleet::Suspicion;
pub use reason::{BreakerCause, BreakerEvent, TripReason};
pub use state::{
    BreakerCommand, CommandSource, IllegalTransition, Override, RecordResult, Refusal,
    RefusalState, State,
};
pub use view::{BreakerView, EndedPermits, HalfOpenView};

use crate::{
    BreakerSettings, ConfiguredOverride, FailureNote, HalfOpenRule, OverrideMode, Permit,
    PermitKind, RandomSource, Time, Window,
};

/// Maximum number of events that wait to be fetched; the oldest is lost first.
const MAX_EVENTS: usize = 64;

/// A circuit breaker, without a clock.
///
/// # Units   `now`, everywhere: never decreasing.
/// # Source  Rules BRK-1 to BRK-12 and FLT-3 to FLT-8 in docs/rules.md.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: BreakerSettings,
    rules: TripRules,
    state: State,
    generation: u64,
    window: Window,
    half_open: HalfOpen,
    open_until: Time,
    open_attempt: u32,
    overdue: u64,
    /// The overrides by their precedence, from below: the fleet's, the operator's of this replica,
    /// and the supervisor's.
    fleet: Option<Override>,
    operator: Option<Override>,
    parked: Option<Override>,
    /// The override of the configuration, which holds while there is no other.
    configured: Option<Override>,
    /// Mode of the override in force.
    mode: Option<OverrideMode>,
    /// True if shadow mode has already reported that it would have tripped.
    warned: bool,
    /// Cause of the last failure of this generation.
    last_failure: Option<FailureNote>,
    /// The evidence of other replicas, while it stands.
    suspicion: Option<Suspicion>,
    /// End of the open time that the dependency itself asked for.
    hinted_until: Time,
    /// Time at which it probes without the fleet's lease, once it has asked for that.
    alone_at: Option<Time>,
    /// Random number for a lost probe that `admit` or `release` finds; they take no generator.
    spare: f64,
    /// Time of the next change that needs no call; [`Time::MAX`] for never.
    deadline: Time,
    since: Time,
    cause: BreakerCause,
    tally: EndedPermits,
    events: VecDeque<BreakerEvent>,
}

impl Breaker {
    /// Returns a closed breaker of generation 0 with an empty window.
    #[must_use]
    pub fn new(settings: BreakerSettings, now: Time) -> Self {
        Self {
            rules: TripRules::new(&settings, None),
            state: State::Closed,
            generation: 0,
            window: Window::new(settings.window, now),
            half_open: HalfOpen::default(),
            open_until: Time::ZERO,
            open_attempt: 0,
            overdue: 0,
            fleet: None,
            operator: None,
            parked: None,
            configured: None,
            mode: None,
            warned: false,
            last_failure: None,
            suspicion: None,
            hinted_until: Time::ZERO,
            alone_at: None,
            spare: 0.0,
            deadline: Time::MAX,
            since: now,
            cause: BreakerCause::Started,
            tally: EndedPermits::default(),
            events: VecDeque::new(),
            settings,
        }
    }

    /// Decides whether one more call may go out now.
    ///
    /// An open breaker becomes half-open here too, at exactly the end of its open time or later, so
    /// that nothing depends on a timer.
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
            (None, State::Open) if self.asks_for_lease(now) => Err(RefusalState::AwaitingLease),
            (None, State::Open) => Err(RefusalState::Open),
            (None, State::HalfOpen) => self.admit_probe(now).ok_or(RefusalState::HalfOpen),
        };
        permit.map_err(|state| {
            self.tally.refused += 1;
            // BRK-11: a refusal says which state refused, and for how long.
            Refusal {
                state,
                retry_after: self.wait(state, now),
                generation: self.generation,
            }
        })
    }

    /// Returns a permit for a probe that no caller asked for: as [`Breaker::admit`] does, but never
    /// under an override, and without counting a refusal.
    ///
    /// # Source  Rules BRK-4 and BRK-13.
    pub fn admit_active_probe(&mut self, now: Time) -> Option<Permit> {
        if self.deadline <= now {
            let spare = self.spare;
            self.advance(now, &mut || spare);
        }
        match (self.mode, self.state) {
            (None, State::Closed) => Some(Permit::normal(self.generation, now)),
            (None, State::HalfOpen) => self.admit_probe(now),
            (None, State::Open) => {
                // FLT-7: a probe that no caller asked for is a call at hand too.
                self.asks_for_lease(now);
                None
            }
            _ => None,
        }
    }

    fn admit_probe(&mut self, now: Time) -> Option<Permit> {
        let id = self.half_open.admit(now, &self.settings.half_open)?;
        self.set_deadline();
        Some(Permit::new(self.generation, PermitKind::Probe(id), now))
    }

    /// Returns true if a call of this duration is slow.
    #[must_use]
    pub fn is_slow(&self, elapsed: Duration) -> bool {
        self.settings.slow_call.is_some_and(|slow| elapsed >= slow)
    }

    /// Returns true if each success must be recorded individually.
    ///
    /// False only when no number of fast successes can move the breaker. A gate may then count them
    /// itself and pass them to [`Breaker::record_successes`]: before any other record, and before a
    /// bucket of [`Breaker::success_bucket`] ends. The transitions are the same as if each had been
    /// recorded.
    ///
    /// # Source  Rule CALL-3 in docs/rules.md.
    #[must_use]
    pub fn needs_every_success(&self) -> bool {
        match self.mode {
            Some(OverrideMode::Disabled) => false,
            Some(OverrideMode::ForcedOpen) => true,
            Some(OverrideMode::Shadow) | None => {
                self.state != State::Closed
                    // FLT-4: beside the evidence of others, every outcome counts at once.
                    || self.suspicion.is_some()
                    || self.rules.needs_every_success(&self.window, self.overdue)
            }
        }
    }

    /// Returns the bucket width of a window of time; buckets begin at its multiples.
    #[must_use]
    pub fn success_bucket(&self) -> Option<Duration> {
        self.window.bucket()
    }

    /// Returns the settings.
    #[must_use]
    pub const fn settings(&self) -> &BreakerSettings {
        &self.settings
    }

    /// Returns the automatic state, without any override.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Returns the override in force: the supervisor's takes precedence over the operator's, and
    /// that over the fleet's, and that over the configuration's.
    #[must_use]
    pub const fn overridden(&self) -> Option<&Override> {
        match (&self.parked, &self.operator) {
            (Some(parked), _) => Some(parked),
            (None, Some(operator)) => Some(operator),
            (None, None) => match &self.fleet {
                Some(fleet) => Some(fleet),
                None => self.configured.as_ref(),
            },
        }
    }

    /// Returns the generation; it only grows.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the time at which [`Breaker::on_time`] has work to do; `None` while time alone
    /// changes nothing.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        (self.deadline != Time::MAX).then_some(self.deadline)
    }

    /// Removes and returns the oldest event that was not fetched yet.
    ///
    /// Events are queued until the transition is complete: a listener never sees half of one.
    ///
    /// # Units   At most 64 events wait; the oldest is lost first.
    pub fn poll_event(&mut self) -> Option<BreakerEvent> {
        self.events.pop_front()
    }

    /// Returns a view of its whole state.
    #[must_use]
    pub fn view(&self, now: Time) -> BreakerView<'_> {
        let state = if self.mode == Some(OverrideMode::ForcedOpen) {
            Some(RefusalState::ForcedOpen)
        } else {
            (self.state == State::Open).then_some(RefusalState::Open)
        };
        BreakerView {
            state: self.state,
            overridden: self.overridden(),
            generation: self.generation,
            since: self.since,
            cause: &self.cause,
            retry_after: state.and_then(|state| self.wait(state, now)),
            wait_is_asked: self.state == State::Open
                && self.hinted_until > now
                && self.hinted_until >= self.open_until,
            counts: self.counts(now),
            minimum_calls: self.minimum_calls(),
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

    /// Returns true if the counts are those of a half-open period.
    fn counts_probes(&self) -> bool {
        self.state == State::HalfOpen && self.mode != Some(OverrideMode::Shadow)
    }

    /// Returns the number of outcomes from which a rate of the current counts is judged.
    fn minimum_calls(&self) -> u64 {
        match self.settings.half_open.rule {
            HalfOpenRule::Rate { results } if self.counts_probes() => u64::from(results.get()),
            _ => self.rules.minimum_calls(),
        }
    }

    /// Returns the counts of the current generation.
    fn counts(&self, now: Time) -> crate::WindowCounts {
        if self.counts_probes() {
            self.half_open.counts()
        } else {
            self.window.counts(now)
        }
    }

    /// Returns the remaining time of a refusal by `state`.
    fn wait(&self, state: RefusalState, now: Time) -> Option<Duration> {
        match state {
            RefusalState::Open => Some(self.open_until.since(now)),
            RefusalState::AwaitingLease => Some(fleet::SOON),
            RefusalState::HalfOpen => {
                let end = self.half_open.lease_end(&self.settings.half_open)?;
                Some(end.since(now))
            }
            RefusalState::ForcedOpen => self.overridden()?.until.map(|until| until.since(now)),
        }
    }

    fn push(&mut self, event: BreakerEvent) {
        // CALL-6: the queue of events is bounded; the oldest is lost first.
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests;
