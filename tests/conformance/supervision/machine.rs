//! Replays on the pure machine, with simulated children and virtual time.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use breakerbox_policy::supervision::{
    ChildId, ChildState, CommandError, CommandId, SpecError, StopCause, Supervision,
    SupervisorAction, SupervisorEnd, SupervisorEvent, TimerId,
};
use breakerbox_policy::{PanicReport, Time};

use super::compare::Observed;
use super::scenario::{End, Node, PAUSE, Scenario, Step, Tree};

/// Events at one moment that can only be an endless loop.
const TOO_MANY: u32 = 100_000;

/// The time that a failing start takes at least, so that a loop of them takes time too.
const FAILING: Duration = Duration::from_micros(100);

/// One supervisor's place in the simulation.
type Place = usize;

/// The simulated world.
#[derive(Default)]
struct World {
    now: Time,
    supervisors: Vec<Supervisor>,
    /// What happens when; the second number keeps what is due together in order.
    agenda: BTreeMap<(Time, u64), Due>,
    sequence: u64,
    /// Attempts to start, by name, over the whole scenario.
    attempts: HashMap<String, u64>,
    trace: Vec<String>,
    tickets: HashMap<u64, &'static str>,
    answered: u64,
}

struct Supervisor {
    machine: Supervision,
    nodes: HashMap<String, Node>,
    /// Whose child it is.
    above: Option<(Place, ChildId, u64)>,
    processes: HashMap<ChildId, Process>,
    up: bool,
    end: Option<SupervisorEnd>,
}

/// One incarnation.
struct Process {
    incarnation: u64,
    attempt: u64,
    name: String,
    stop_delay: Duration,
    alive: bool,
    up: bool,
    /// Asked to stop while starting: as in OTP, the start comes to its end first.
    stops_when_up: bool,
    below: Option<Place>,
}

enum Due {
    /// The machine hears something.
    Hear(Place, SupervisorEvent),
    /// A worker is up, or is not.
    Up(Place, ChildId, u64, bool),
    /// A worker has done its clean-up.
    Stopped(Place, ChildId, u64),
}

/// Replays a scenario.
pub(super) fn replay(scenario: &Scenario) -> Observed {
    let names = scenario.tree.children.iter();
    let mut seen = Observed {
        dynamic: scenario.tree.template.is_some(),
        names: names.map(|node| node.spec.name.clone()).collect(),
        ..Observed::default()
    };
    let mut world = World::default();
    match world.add_supervisor(&scenario.tree, None) {
        Ok(_) => {}
        Err(error) => {
            let reason = spec_error(&error);
            seen.supervisor = format!("start_error:{reason}");
            return seen;
        }
    }
    world.run_until(|world| world.supervisors[0].up || world.supervisors[0].end.is_some());
    for step in &scenario.steps {
        let before = world.now;
        world.step(step, scenario);
        if matches!(step, Step::StopSupervisor) {
            let took = world.now.since(before);
            seen.stop_ms = u64::try_from(took.as_millis()).ok();
        }
        if !matches!(step, Step::End { wait: false, .. }) {
            world.run_for(PAUSE);
        }
    }
    if scenario.expect.supervisor.starts_with("dead") {
        world.run_until(|world| world.supervisors[0].end.is_some());
    }
    world.observe(&mut seen);
    seen
}

pub(super) fn spec_error(error: &SpecError) -> &'static str {
    match error {
        SpecError::BadSignificant { .. } => "bad_significant",
        SpecError::DuplicateName { .. } => "duplicate_child_name",
        SpecError::EmptyWindow => "bad_period",
        SpecError::BadBackoff => "bad_backoff",
        _ => "bad_spec",
    }
}

pub(super) fn command_error(error: &CommandError) -> &'static str {
    match error {
        CommandError::NotFound => "not_found",
        CommandError::AlreadyPresent => "already_present",
        CommandError::AlreadyStarted => "already_started",
        CommandError::Running => "running",
        CommandError::Restarting => "restarting",
        CommandError::StoppingSupervisor => "stopping",
        CommandError::StartFailed(_) => "start_failed",
        CommandError::BadSpec(error) => spec_error(error),
        _ => "refused",
    }
}

impl World {
    fn add_supervisor(
        &mut self,
        tree: &Tree,
        above: Option<(Place, ChildId, u64)>,
    ) -> Result<Place, SpecError> {
        let specs = tree.children.iter().map(|node| node.spec.clone());
        let machine = Supervision::new(tree.spec.clone(), specs.collect())?;
        let nodes = tree.children.iter().map(|node| {
            let name = node.spec.name.clone();
            (name, node.clone())
        });
        self.supervisors.push(Supervisor {
            machine,
            nodes: nodes.collect(),
            above,
            processes: HashMap::new(),
            up: false,
            end: None,
        });
        let place = self.supervisors.len() - 1;
        self.plan(Duration::ZERO, Due::Hear(place, SupervisorEvent::Start));
        Ok(place)
    }

    fn plan(&mut self, wait: Duration, due: Due) {
        self.plan_at(self.now.after(wait), due);
    }

    fn plan_at(&mut self, at: Time, due: Due) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), due);
    }

    fn run_for(&mut self, span: Duration) {
        let until = self.now.after(span);
        let mut at_once = 0;
        while let Some(entry) = self.agenda.first_entry() {
            let at = entry.key().0;
            if at > until {
                break;
            }
            at_once = if at > self.now { 0 } else { at_once + 1 };
            assert!(at_once < TOO_MANY, "an endless loop at {at}");
            self.now = at.max(self.now);
            let due = entry.remove();
            self.happen(due);
        }
        self.now = until;
    }

    /// Runs until something is so, or nothing is left to happen.
    fn run_until(&mut self, is: impl Fn(&Self) -> bool) {
        let mut events = 0;
        while !is(self)
            && let Some(((at, _), due)) = self.agenda.pop_first()
        {
            events += 1;
            assert!(events < TOO_MANY, "an endless loop at {at}");
            self.now = at.max(self.now);
            self.happen(due);
        }
    }

    fn step(&mut self, step: &Step, scenario: &Scenario) {
        match step {
            Step::End { child, how, .. } => self.end(child, *how),
            Step::Wait(span) => self.run_for(*span),
            Step::StopSupervisor => {
                self.plan(Duration::ZERO, Due::Hear(0, SupervisorEvent::Stop));
                self.run_until(|world| world.supervisors[0].end.is_some());
            }
            Step::Terminate(child) => {
                let child = child.clone();
                self.command("terminate_child", |ticket| SupervisorEvent::Terminate {
                    child,
                    ticket,
                });
            }
            Step::Restart(child) => {
                let child = child.clone();
                self.command("restart_child", |ticket| SupervisorEvent::Restart {
                    child,
                    ticket,
                });
            }
            Step::Delete(child) => {
                let child = child.clone();
                self.command("delete_child", |ticket| SupervisorEvent::Delete {
                    child,
                    ticket,
                });
            }
            Step::StartChild(node) => self.start_child(node.as_ref().clone()),
            Step::Add(argument) => {
                let template = scenario.tree.template.clone();
                let mut node = *template.expect("a template to add an instance of");
                node.spec.name.push_str(argument);
                self.start_child(node);
            }
        }
    }

    fn start_child(&mut self, node: Node) {
        let spec = node.spec.clone();
        let nodes = &mut self.supervisors[0].nodes;
        nodes.entry(spec.name.clone()).or_insert(node);
        self.command("start_child", |ticket| SupervisorEvent::Add {
            spec,
            ticket,
        });
    }

    /// Sends a command to the top and waits for its answer.
    fn command(&mut self, name: &'static str, event: impl FnOnce(CommandId) -> SupervisorEvent) {
        let ticket = self.tickets.len() as u64;
        self.tickets.insert(ticket, name);
        self.plan(Duration::ZERO, Due::Hear(0, event(CommandId(ticket))));
        let goal = self.answered + 1;
        self.run_until(|world| world.answered == goal);
        assert_eq!(self.answered, goal, "{name} was never answered");
    }

    /// Ends the live process of this name by itself.
    fn end(&mut self, name: &str, how: End) {
        let found = self
            .supervisors
            .iter()
            .enumerate()
            .find_map(|(place, supervisor)| {
                let mut all = supervisor.processes.iter();
                let found = all.find(|(_, process)| process.alive && process.name == name);
                found.map(|(child, _)| (place, *child))
            });
        let Some((place, child)) = found else { return };
        let process = &self.supervisors[place].processes[&child];
        let (label, incarnation) = (process.label(), process.incarnation);
        let (line, cause) = match how {
            End::Crash => {
                let report = PanicReport::new("crash");
                (format!("crash {label}"), StopCause::Crashed(report))
            }
            End::Normal => (format!("exit {label} normal"), StopCause::Normal),
            End::Shutdown => (format!("exit {label} shutdown"), StopCause::Shutdown),
        };
        self.trace.push(line);
        self.lose(place, child);
        self.ended(place, child, incarnation, cause);
    }

    fn ended(&mut self, place: Place, child: ChildId, incarnation: u64, cause: StopCause) {
        let event = SupervisorEvent::Ended {
            child,
            incarnation,
            cause,
        };
        self.plan(Duration::ZERO, Due::Hear(place, event));
    }

    /// Drops a process, and everything below it, without any clean-up.
    fn lose(&mut self, place: Place, child: ChildId) {
        let process = self.supervisors[place].processes.get_mut(&child);
        let Some(process) = process else { return };
        process.alive = false;
        if let Some(below) = process.below.take() {
            let children: Vec<ChildId> =
                self.supervisors[below].processes.keys().copied().collect();
            self.supervisors[below].above = None;
            for child in children {
                self.lose(below, child);
            }
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Hear(place, event) => {
                let machine = &mut self.supervisors[place].machine;
                let actions = machine.on(self.now, event, &mut || 0.0);
                for action in actions {
                    self.act(place, action);
                }
            }
            Due::Up(place, child, incarnation, fails) => {
                let Some(process) = self.live(place, child, incarnation) else {
                    return;
                };
                let label = process.label();
                (process.alive, process.up) = (!fails, true);
                let stops = process.stops_when_up.then_some(process.stop_delay);
                let (line, event) = if fails {
                    let cause = StopCause::Failed("start".into());
                    let event = SupervisorEvent::StartFailed {
                        child,
                        incarnation,
                        cause,
                    };
                    (format!("start_fail {label}"), event)
                } else {
                    (
                        format!("start {label}"),
                        SupervisorEvent::Started { child, incarnation },
                    )
                };
                self.trace.push(line);
                self.plan(Duration::ZERO, Due::Hear(place, event));
                if let Some(delay) = stops.filter(|_| !fails) {
                    self.plan(delay, Due::Stopped(place, child, incarnation));
                }
            }
            Due::Stopped(place, child, incarnation) => {
                let Some(process) = self.live(place, child, incarnation) else {
                    return;
                };
                process.alive = false;
                let line = format!("stop {}", process.label());
                self.trace.push(line);
                self.ended(place, child, incarnation, StopCause::Shutdown);
            }
        }
    }

    fn live(&mut self, place: Place, child: ChildId, incarnation: u64) -> Option<&mut Process> {
        let process = self.supervisors[place].processes.get_mut(&child)?;
        (process.alive && process.incarnation == incarnation).then_some(process)
    }

    fn act(&mut self, place: Place, action: SupervisorAction) {
        match action {
            SupervisorAction::Start { child, incarnation } => self.start(place, child, incarnation),
            SupervisorAction::Stop { child, incarnation } => {
                let Some(process) = self.live(place, child, incarnation) else {
                    return;
                };
                let (below, delay) = (process.below, process.stop_delay);
                match below {
                    Some(below) => {
                        self.plan(Duration::ZERO, Due::Hear(below, SupervisorEvent::Stop))
                    }
                    None if process.up => {
                        self.plan(delay, Due::Stopped(place, child, incarnation));
                    }
                    None => process.stops_when_up = true,
                }
            }
            SupervisorAction::Kill { child, incarnation } => {
                if self.live(place, child, incarnation).is_some() {
                    self.lose(place, child);
                    self.ended(place, child, incarnation, StopCause::Killed);
                }
            }
            SupervisorAction::SetTimer { timer, at } => self.plan_timer(place, timer, at),
            SupervisorAction::Reply { ticket, result } => {
                let name = self.tickets[&ticket.0];
                self.answered += 1;
                self.trace.push(match result {
                    Ok(_) => format!("reply {name} ok"),
                    Err(error) => format!("reply {name} error {}", command_error(&error)),
                });
            }
            SupervisorAction::Up => {
                self.supervisors[place].up = true;
                if let Some((above, child, incarnation)) = self.supervisors[place].above {
                    let event = SupervisorEvent::Started { child, incarnation };
                    self.plan(Duration::ZERO, Due::Hear(above, event));
                }
            }
            SupervisorAction::Down(end) => self.down(place, end),
            SupervisorAction::Park { .. }
            | SupervisorAction::Exhausted { .. }
            | SupervisorAction::Forget { .. } => {}
        }
    }

    fn plan_timer(&mut self, place: Place, timer: TimerId, at: Time) {
        self.plan_at(at, Due::Hear(place, SupervisorEvent::Timer(timer)));
    }

    fn start(&mut self, place: Place, child: ChildId, incarnation: u64) {
        let supervisor = &self.supervisors[place];
        let name = supervisor.machine.child(child).expect("a known child").name;
        let node = supervisor.nodes[name].clone();
        let name = name.to_owned();
        let attempt = self.attempts.entry(name.clone()).or_default();
        *attempt += 1;
        let fails = node.fails(*attempt);
        let process = Process {
            incarnation,
            attempt: *attempt,
            name,
            stop_delay: node.stop_delay,
            alive: true,
            up: false,
            stops_when_up: false,
            below: None,
        };
        let label = process.label();
        let earlier = self.supervisors[place].processes.insert(child, process);
        let alive = earlier.is_some_and(|earlier| earlier.alive);
        assert!(!alive, "two live incarnations: {label}");
        let Some(below) = node.below.as_ref().filter(|_| !fails) else {
            let least = if fails { FAILING } else { Duration::ZERO };
            let delay = node.start_delay.max(least);
            self.plan(delay, Due::Up(place, child, incarnation, fails));
            return;
        };
        match self.add_supervisor(below, Some((place, child, incarnation))) {
            Ok(below) => {
                self.trace.push(format!("start {label}"));
                if let Some(process) = self.live(place, child, incarnation) {
                    process.below = Some(below);
                }
            }
            Err(_) => self.plan(Duration::ZERO, Due::Up(place, child, incarnation, true)),
        }
    }

    fn down(&mut self, place: Place, end: SupervisorEnd) {
        let cause = end.cause();
        let above = self.supervisors[place].above;
        self.supervisors[place].end = Some(end);
        if let Some((above, child, incarnation)) = above {
            self.lose(above, child);
            self.ended(above, child, incarnation, cause);
        }
    }

    /// The final state.
    fn observe(&mut self, seen: &mut Observed) {
        seen.trace = std::mem::take(&mut self.trace);
        let top = &self.supervisors[0];
        seen.supervisor = match &top.end {
            None => "alive".into(),
            Some(SupervisorEnd::StartError { child, .. }) => format!("start_error:{child}"),
            Some(_) => "dead:shutdown".into(),
        };
        if top.end.is_none() {
            seen.children = top.states();
        }
        let below = self.supervisors[1..].iter();
        let below = below.filter(|below| below.above.is_some() && below.end.is_none());
        seen.below = below.flat_map(Supervisor::states).collect();
    }
}

impl Supervisor {
    fn states(&self) -> Vec<(String, String)> {
        let state = |child: ChildId, state| match state {
            ChildState::Running => format!("running#{}", self.processes[&child].attempt),
            ChildState::Stopped | ChildState::Parked => "stopped".into(),
            _ => "restarting".into(),
        };
        let children = self.machine.children();
        children
            .map(|view| (view.name.to_owned(), state(view.id, view.state)))
            .collect()
    }
}

impl Process {
    fn label(&self) -> String {
        format!("{}#{}", self.name, self.attempt)
    }
}
