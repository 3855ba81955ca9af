//! What operators, the supervisor and a reload do to a breaker.

use super::{
    Author, Breaker, BreakerEvent, BreakerSettings, Cause, Command, Duration, IllegalTransition,
    Override, OverrideMode, Random, Rules, State, Tally, Time, TripReason, Window,
};
use crate::backoff;

impl Breaker {
    /// Carries out an order.
    ///
    /// # Errors  [`IllegalTransition`] when a closed breaker is to become half-open; nothing changed.
    /// # Source  Rules BRK-3 and BRK-10.
    pub fn command(
        &mut self,
        now: Time,
        command: Command,
        random: &mut dyn Random,
    ) -> Result<(), IllegalTransition> {
        self.on_time(now, random);
        match command {
            Command::Open { reason, until } => {
                self.operate(now, OverrideMode::ForcedOpen, reason, until);
            }
            Command::Disable { reason, until } => {
                self.operate(now, OverrideMode::Disabled, reason, until);
            }
            Command::Shadow { reason, until } => {
                self.operate(now, OverrideMode::Shadow, reason, until);
            }
            Command::Clear => self.clear_overrides(now, "the override was taken off"),
            Command::Close { reason } => self.close_by_command(now, reason),
            Command::Reset { reason } => {
                self.close_by_command(now, reason);
                self.empty_window(now);
                self.tally = Tally::default();
            }
            Command::Park { reason } => self.set_override(
                now,
                Override {
                    mode: OverrideMode::ForcedOpen,
                    reason,
                    by: Author::Supervisor,
                    until: None,
                },
            ),
            Command::Unpark => {
                let cause = Cause::Commanded("unparked".into());
                self.remove_override(now, Author::Supervisor, &cause);
            }
            Command::Trip { reason, wait } => self.trip(now, reason, wait, random),
            Command::Probe { reason } => return self.probe(now, reason),
        }
        Ok(())
    }

    fn operate(&mut self, now: Time, mode: OverrideMode, reason: String, until: Option<Time>) {
        let by = Author::Operator;
        self.set_override(
            now,
            Override {
                mode,
                reason,
                by,
                until,
            },
        );
    }

    fn clear_overrides(&mut self, now: Time, reason: &str) {
        let cause = Cause::Commanded(reason.into());
        let parked = self.remove_override(now, Author::Supervisor, &cause);
        let operated = self.remove_override(now, Author::Operator, &cause);
        if !parked && !operated {
            self.start_generation(now);
        }
    }

    fn close_by_command(&mut self, now: Time, reason: String) {
        self.clear_overrides(now, &reason);
        self.open_attempt = 0;
        if self.state != State::Closed {
            self.command_transition(now, State::Closed, reason);
        }
    }

    fn trip(&mut self, now: Time, reason: String, wait: Option<Duration>, random: &mut dyn Random) {
        if self.state == State::Open {
            let until = wait.map_or(Time::ZERO, |wait| now.after(wait));
            self.open_until = self.open_until.max(until);
            self.start_generation(now);
        } else {
            let wait = wait.unwrap_or_else(|| {
                backoff::open_time(&self.settings.open, self.open_attempt, random)
            });
            self.open_for(now, TripReason::Commanded(reason), wait, random);
        }
    }

    fn probe(&mut self, now: Time, reason: String) -> Result<(), IllegalTransition> {
        match self.state {
            State::Closed => {
                return Err(IllegalTransition {
                    from: State::Closed,
                    to: State::HalfOpen,
                });
            }
            State::Open => self.command_transition(now, State::HalfOpen, reason),
            State::HalfOpen => self.start_generation(now),
        }
        Ok(())
    }

    /// Takes new settings over; state, open time and overrides are kept.
    ///
    /// Another window, or another way to probe in the middle of a half-open period, starts a
    /// generation; the counters are kept otherwise, and judged with the next outcome.
    ///
    /// # Source  Rules BRK-3 and CFG-2.
    pub fn reconfigure(&mut self, now: Time, settings: BreakerSettings) {
        let old = std::mem::replace(&mut self.settings, settings);
        self.rules = Rules::new(&self.settings);
        let window = old.window != self.settings.window;
        let probing = self.state == State::HalfOpen && old.half_open != self.settings.half_open;
        if window {
            self.window = Window::new(self.settings.window, now);
            self.warned = false;
        }
        if window || probing {
            self.renew(now, Cause::Reconfigured);
        }
        self.set_deadline();
    }

    /// Begins anew after a crash of whoever owned it: its permits are lost, its verdict is not.
    ///
    /// The window is emptied and the probes are forgotten; state, override and open time are kept.
    ///
    /// # Source  Rule BRK-12.
    pub fn recover(&mut self, now: Time) {
        self.empty_window(now);
        self.renew(now, Cause::Restarted);
    }

    fn renew(&mut self, now: Time, cause: Cause) {
        self.start_generation(now);
        let generation = self.generation;
        self.push(BreakerEvent::Renewed {
            at: now,
            generation,
            cause,
        });
    }
}
