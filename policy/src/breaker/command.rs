//! Commands of operators, the supervisor and a reload.

use super::{
    Breaker, BreakerCause, BreakerCommand, BreakerEvent, BreakerSettings, CommandSource,
    ConfiguredOverride, Duration, EndedPermits, IllegalTransition, Override, OverrideMode,
    RandomSource, State, Time, TripReason, Window,
};
use crate::backoff;

impl Breaker {
    /// Executes a command.
    ///
    /// # Errors  [`IllegalTransition`] if a closed breaker should become half-open; nothing
    /// changed.
    /// # Source  Rules BRK-3 and BRK-10.
    pub fn command(
        &mut self,
        now: Time,
        command: BreakerCommand,
        random: &mut dyn RandomSource,
    ) -> Result<(), IllegalTransition> {
        self.on_time(now, random);
        match command {
            BreakerCommand::Open { reason, until } => {
                self.operate(now, OverrideMode::ForcedOpen, reason, until);
            }
            BreakerCommand::Disable { reason, until } => {
                self.operate(now, OverrideMode::Disabled, reason, until);
            }
            BreakerCommand::Shadow { reason, until } => {
                self.operate(now, OverrideMode::Shadow, reason, until);
            }
            BreakerCommand::Clear => self.clear_overrides(now, "the override was taken off"),
            BreakerCommand::Close { reason } => self.close_by_command(now, reason),
            BreakerCommand::Reset { reason } => {
                self.close_by_command(now, reason);
                self.empty_window(now);
                self.tally = EndedPermits::default();
            }
            BreakerCommand::Park { reason } => self.set_override(
                now,
                Override {
                    mode: OverrideMode::ForcedOpen,
                    reason,
                    by: CommandSource::Supervisor,
                    until: None,
                },
            ),
            BreakerCommand::Unpark => {
                let cause = BreakerCause::Commanded("unparked".into());
                self.remove_override(now, CommandSource::Supervisor, &cause);
            }
            BreakerCommand::Configure { set } => self.configure_override(now, set),
            BreakerCommand::Trip { reason, wait } => self.trip(now, reason, wait, random),
            BreakerCommand::Probe { reason } => return self.probe(now, reason),
            BreakerCommand::OfFleet(set) => self.set_fleet_override(now, set),
            BreakerCommand::Adopt { replicas, of, wait } => {
                self.adopt(now, (replicas, of), wait, random);
            }
            BreakerCommand::Hold {
                wait,
                failed_periods,
            } => self.hold(now, wait, failed_periods),
            BreakerCommand::Grant => self.grant(now),
            BreakerCommand::Recovered { by } => self.close_by_verdict(now, by),
        }
        Ok(())
    }

    fn operate(&mut self, now: Time, mode: OverrideMode, reason: String, until: Option<Time>) {
        let by = CommandSource::Operator;
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

    fn configure_override(&mut self, now: Time, set: Option<ConfiguredOverride>) {
        let by = CommandSource::Configuration;
        match set {
            // HLT-3: it stands below the word of an operator, and holds after every start.
            Some(ConfiguredOverride { mode, reason }) => self.set_override(
                now,
                Override {
                    mode,
                    reason,
                    by,
                    until: None,
                },
            ),
            None => {
                let cause = BreakerCause::Commanded("it is configured no longer".into());
                self.remove_override(now, by, &cause);
            }
        }
    }

    fn clear_overrides(&mut self, now: Time, reason: &str) {
        let cause = BreakerCause::Commanded(reason.into());
        let parked = self.remove_override(now, CommandSource::Supervisor, &cause);
        let operated = self.remove_override(now, CommandSource::Operator, &cause);
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

    fn trip(
        &mut self,
        now: Time,
        reason: String,
        wait: Option<Duration>,
        random: &mut dyn RandomSource,
    ) {
        if self.state == State::Open {
            let until = wait.map_or(Time::ZERO, |wait| now.after(wait));
            self.open_until = self.open_until.max(until);
            // A lease that it waited for is asked for anew.
            self.alone_at = None;
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

    /// Applies new settings; state, open time and overrides are kept.
    ///
    /// A different window, or different half-open settings during a half-open period, start a
    /// generation. Otherwise the counters are kept, and judged at the next outcome.
    ///
    /// # Source  Rules BRK-3 and CFG-2.
    pub fn reconfigure(&mut self, now: Time, settings: BreakerSettings) {
        let old = std::mem::replace(&mut self.settings, settings);
        self.renew_rules();
        let window = old.window != self.settings.window;
        let probing = self.state == State::HalfOpen && old.half_open != self.settings.half_open;
        // CFG-2: a reload keeps the counters, unless they belong to another kind of window.
        if window {
            self.window = Window::new(self.settings.window, now);
            self.warned = false;
        }
        if window || probing {
            self.renew(now, BreakerCause::Reconfigured);
        }
        self.set_deadline();
    }

    /// Restores the breaker after a crash of its owner: the permits are lost, the state is not.
    ///
    /// The window is emptied and the probes are forgotten; state, override and open time are kept.
    ///
    /// # Source  Rule BRK-12.
    pub fn recover(&mut self, now: Time) {
        // BRK-12: only the outcomes and the permits are lost; an open breaker stays open.
        self.empty_window(now);
        self.renew(now, BreakerCause::Restarted);
    }

    fn renew(&mut self, now: Time, cause: BreakerCause) {
        self.start_generation(now);
        let generation = self.generation;
        self.push(BreakerEvent::Renewed {
            at: now,
            generation,
            cause,
        });
    }
}
