//! The runtime's own events, as inputs of the machines.

use breakerbox_actors::{Event, EventKind, FleetBreaker};
use breakerbox_policy::fleet::FleetInput;
use breakerbox_policy::{BreakerCause, BreakerEvent, State, Time, TripReason};

use super::{Effect, FleetModel};
use crate::Runtime;

/// Returns the dependency of an event's subject: `web` for `web/worker-1`.
fn dependency_of(subject: &str) -> &str {
    subject.split(['/', '[']).next().unwrap_or(subject)
}

/// Returns true for an event that the fleet's child hears.
pub(crate) fn is_heard(event: &Event) -> bool {
    match &event.kind {
        EventKind::Breaker(event) => matches!(
            event,
            BreakerEvent::Transition { .. } | BreakerEvent::ProbeDue { .. }
        ),
        EventKind::Started { .. } => event.subject.contains('/'),
        EventKind::Removed { .. } => true,
        EventKind::Paused { by, .. } => by.is_none(),
        _ => false,
    }
}

impl FleetModel {
    /// Takes in an event of the runtime.
    pub(crate) fn event(&mut self, now: Time, event: &Event, runtime: &Runtime) -> Vec<Effect> {
        let mut effects = Vec::new();
        match &event.kind {
            EventKind::Breaker(breaker) => {
                if let Some(name) = self.member_of_subject(&event.subject, runtime) {
                    let life = self.view(&name, runtime).map(|view| view.life);
                    let known = self.members.get(&name).map(|one| one.life);
                    if known.is_some_and(|known| known != life) {
                        self.refresh(now, &name, runtime, &mut effects);
                    }
                    self.breaker(now, &name, breaker, runtime, &mut effects);
                }
            }
            EventKind::Started { .. } => {
                let name = dependency_of(&event.subject).to_owned();
                if runtime.fleet_view(FleetBreaker::of(&name)).is_some() {
                    self.member(now, &name, runtime);
                    self.refresh(now, &name, runtime, &mut effects);
                }
            }
            EventKind::Removed { .. } => {
                let names = self.names_with_keys(&event.subject).cloned();
                for name in Vec::from_iter(names) {
                    self.refresh(now, &name, runtime, &mut effects);
                }
            }
            EventKind::Paused {
                reason, for_, hint, ..
            } => {
                if let Some(name) = self.member_of_subject(&event.subject, runtime) {
                    self.paused(&name, *reason, (*for_, *hint), &mut effects);
                }
            }
            _ => {}
        }
        effects
    }

    fn breaker(
        &mut self,
        now: Time,
        name: &str,
        event: &BreakerEvent,
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let is_suspicious = match self.member(now, name, runtime) {
            Some(member) => member.machine.evidence() > 0,
            None => return,
        };
        let input = match event {
            BreakerEvent::ProbeDue { .. } => FleetInput::ProbeDue,
            BreakerEvent::Transition {
                from,
                to,
                cause,
                retry_after,
                ..
            } => {
                let wait = retry_after.unwrap_or_default();
                match to {
                    State::HalfOpen => FleetInput::HalfOpen,
                    State::Closed => FleetInput::Closed {
                        by_own_probe: matches!(cause, BreakerCause::Recovered { .. }),
                    },
                    State::Open => match own_rule(cause) {
                        // FLT-3: neither an adopted trip nor a command is evidence.
                        None => FleetInput::Adopted,
                        Some(rule) => {
                            self.note_rule(name, rule);
                            if is_suspicious && *from == State::Closed {
                                effects.push(self.confirmed(now, name));
                            }
                            match from {
                                State::HalfOpen => FleetInput::ProbeFailed {
                                    wait,
                                    failed_periods: self
                                        .view(name, runtime)
                                        .map_or(1, |view| view.failed_periods),
                                },
                                _ => FleetInput::Tripped { wait },
                            }
                        }
                    },
                }
            }
            _ => return,
        };
        self.feed(now, name, runtime, input, effects);
    }

    fn note_rule(&mut self, name: &str, rule: String) {
        if let Some(member) = self.members.get_mut(name) {
            member.rule = rule;
        }
    }

    /// A rule of its own has opened a breaker beside the evidence of others.
    fn confirmed(&mut self, now: Time, name: &str) -> Effect {
        self.count(name, |counts| counts.confirm += 1);
        let by = self.witnesses(name);
        let machine = self.members.get(name).map(|one| &one.machine);
        let kind = EventKind::Adopted {
            how: "confirm",
            by,
            replicas: machine.map_or(0, |one| one.evidence()),
            of: machine.map_or(1, |one| one.callers(now)),
        };
        Effect::Tell(name.to_owned(), kind)
    }
}

/// Returns the rule of its own that opened a breaker, in words.
fn own_rule(cause: &BreakerCause) -> Option<String> {
    match cause {
        BreakerCause::Tripped { reason, .. } => match reason {
            TripReason::Fleet { .. } | TripReason::Commanded(_) => None,
            own => Some(own.to_string()),
        },
        _ => None,
    }
}
