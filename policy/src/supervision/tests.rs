//! The rules of supervision, one by one: SUP-1 order, SUP-2 budget, SUP-3 backoff, SUP-4 giving up.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::{BackoffSettings, GiveUp, Intensity, RestartType, RetryJitter};

mod commands;
mod limits;
mod order;
mod retries;

/// A machine, with its actions rendered as text.
struct Rig {
    machine: Supervision,
    now: Time,
    /// The names of all children so far.
    names: HashMap<ChildId, String>,
    /// Pending timers.
    timers: Vec<(Time, TimerId)>,
    unit: f64,
}

impl Rig {
    fn new(spec: SupervisorSpec, children: Vec<ChildSpec>) -> Self {
        Self {
            machine: Supervision::new(spec, children).unwrap(),
            now: Time::from_millis(1_000),
            names: HashMap::new(),
            timers: Vec::new(),
            unit: 0.0,
        }
    }

    /// A rig with all children running.
    fn up(spec: SupervisorSpec, children: Vec<ChildSpec>) -> Self {
        let mut rig = Self::new(spec, children);
        let mut said = rig.on(SupervisorEvent::Start);
        while said.last().is_some_and(|line| line != "up") {
            let start = said.last().unwrap();
            let name = start.strip_prefix("start ").unwrap();
            let name = name.split('#').next().unwrap().to_owned();
            said = rig.started(&name);
        }
        rig
    }

    fn on(&mut self, event: SupervisorEvent) -> Vec<String> {
        let unit = self.unit;
        self.note_names();
        let actions = self.machine.on(self.now, event, &mut || unit);
        self.note_names();
        actions
            .into_iter()
            .map(|action| self.words(action))
            .collect()
    }

    fn note_names(&mut self) {
        for view in self.machine.children() {
            self.names.insert(view.id, view.name.to_owned());
        }
    }

    fn words(&mut self, action: SupervisorAction) -> String {
        let label = |child: ChildId, incarnation: u64| {
            let name = self.names.get(&child).map_or("?", String::as_str);
            format!("{name}#{incarnation}")
        };
        match action {
            SupervisorAction::Start { child, incarnation } => {
                format!("start {}", label(child, incarnation))
            }
            SupervisorAction::Stop { child, incarnation } => {
                format!("stop {}", label(child, incarnation))
            }
            SupervisorAction::Kill { child, incarnation } => {
                format!("kill {}", label(child, incarnation))
            }
            SupervisorAction::SetTimer { timer, at } => {
                self.timers.push((at, timer));
                format!("timer {}", at.since(self.now).as_millis())
            }
            SupervisorAction::Park { child, cause } => {
                format!("park {}: {cause}", self.names[&child])
            }
            SupervisorAction::Exhausted {
                child,
                cause,
                first,
            } => {
                let again = if first { "" } else { " again" };
                format!("exhausted{again} {}: {cause}", self.names[&child])
            }
            SupervisorAction::Forget { child } => format!("forget {}", self.names[&child]),
            SupervisorAction::Reply { ticket, result } => match result {
                Ok(_) => format!("reply {} ok", ticket.0),
                Err(error) => format!("reply {} {error}", ticket.0),
            },
            SupervisorAction::Up => "up".into(),
            SupervisorAction::Down(end) => format!("down: {end}"),
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
    }

    /// Advances to the next timer and fires it.
    fn fire(&mut self) -> Vec<String> {
        self.timers.sort();
        let (at, timer) = self.timers.remove(0);
        self.now = self.now.max(at);
        self.on(SupervisorEvent::Timer(timer))
    }

    fn view(&self, name: &str) -> ChildView<'_> {
        let id = self.machine.child_id(name).unwrap();
        self.machine.child(id).unwrap()
    }

    fn state(&self, name: &str) -> ChildState {
        self.view(name).state
    }

    fn present(&self, name: &str) -> (ChildId, u64) {
        let view = self.view(name);
        (view.id, view.incarnation)
    }

    fn started(&mut self, name: &str) -> Vec<String> {
        let (child, incarnation) = self.present(name);
        self.on(SupervisorEvent::Started { child, incarnation })
    }

    fn not_started(&mut self, name: &str) -> Vec<String> {
        let (child, incarnation) = self.present(name);
        let cause = StopCause::Failed("no port".into());
        self.on(SupervisorEvent::StartFailed {
            child,
            incarnation,
            cause,
        })
    }

    fn ended(&mut self, name: &str, cause: StopCause) -> Vec<String> {
        let (child, incarnation) = self.present(name);
        self.on(SupervisorEvent::Ended {
            child,
            incarnation,
            cause,
        })
    }

    fn crash(&mut self, name: &str) -> Vec<String> {
        self.ended(name, StopCause::Crashed(PanicReport::new("boom")))
    }

    /// Reports the end of a child that was asked to stop.
    fn gone(&mut self, name: &str) -> Vec<String> {
        self.ended(name, StopCause::Shutdown)
    }

    /// Crashes a child that is then restarted at once.
    fn crash_and_restart(&mut self, name: &str) {
        let said = self.crash(name);
        let (_, incarnation) = self.present(name);
        assert_eq!(said, [format!("start {name}#{incarnation}")]);
        self.started(name);
    }

    fn add(&mut self, spec: ChildSpec, ticket: u64) -> Vec<String> {
        let ticket = CommandId(ticket);
        self.on(SupervisorEvent::Add { spec, ticket })
    }

    fn terminate(&mut self, name: &str, ticket: u64) -> Vec<String> {
        let (child, ticket) = (name.to_owned(), CommandId(ticket));
        self.on(SupervisorEvent::Terminate { child, ticket })
    }

    fn restart(&mut self, name: &str, ticket: u64) -> Vec<String> {
        let (child, ticket) = (name.to_owned(), CommandId(ticket));
        self.on(SupervisorEvent::Restart { child, ticket })
    }

    fn renew(&mut self, name: &str, ticket: u64) -> Vec<String> {
        let (child, ticket) = (name.to_owned(), CommandId(ticket));
        self.on(SupervisorEvent::Renew { child, ticket })
    }

    fn delete(&mut self, name: &str, ticket: u64) -> Vec<String> {
        let (child, ticket) = (name.to_owned(), CommandId(ticket));
        self.on(SupervisorEvent::Delete { child, ticket })
    }
}

/// A supervisor that tolerates this many restarts an hour.
fn spec(strategy: Strategy, max: u32) -> SupervisorSpec {
    SupervisorSpec {
        strategy,
        intensity: Intensity {
            max,
            within: Duration::from_secs(3600),
        },
        ..SupervisorSpec::default()
    }
}

/// The same with the backoff of scenario R11: 100 ms, doubled, at most 1 s, reset after 5 s.
fn patient(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec {
        backoff: Some(RestartBackoff {
            first: Duration::ZERO,
            delay: BackoffSettings {
                base: Duration::from_millis(100),
                factor: 2.0,
                max: Duration::from_secs(1),
                jitter: RetryJitter::None,
            },
            reset_after: Duration::from_secs(5),
            max_in_a_row: None,
        }),
        ..spec(strategy, 1000)
    }
}

/// The same with a wait before the first restart too.
fn hesitant(strategy: Strategy) -> SupervisorSpec {
    let mut spec = patient(strategy);
    if let Some(backoff) = &mut spec.backoff {
        backoff.first = Duration::from_secs(10);
    }
    spec
}

/// Permanent workers that are stopped without a deadline, so that no stop timers interfere.
fn workers(names: &[&str]) -> Vec<ChildSpec> {
    names.iter().map(|name| worker(name)).collect()
}

fn worker(name: &str) -> ChildSpec {
    ChildSpec {
        shutdown: Shutdown::Infinity,
        ..ChildSpec::worker(name)
    }
}

fn of(restart: RestartType, name: &str) -> ChildSpec {
    ChildSpec {
        restart,
        ..worker(name)
    }
}

fn parking(name: &str) -> ChildSpec {
    ChildSpec {
        give_up: GiveUp::Park,
        ..worker(name)
    }
}

fn retrying(name: &str) -> ChildSpec {
    ChildSpec {
        give_up: GiveUp::Retry,
        ..worker(name)
    }
}

const NOTHING: [&str; 0] = [];
