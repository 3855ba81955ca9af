//! Random supervisors, children and events, checked against the invariants of every history.
//!
//! The world below carries out the machine's actions, in random order and with random results.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use breakerbox_policy::supervision::{
    AutoShutdown, ChildId, ChildSpec, ChildState, CommandId, OtpRules, PanicReport, RestartBackoff,
    Shutdown, StopCause, Strategy, Supervision, SupervisorAction, SupervisorEvent, SupervisorSpec,
    TimerId,
};
use breakerbox_policy::{GiveUp, Intensity, RestartType, Time};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy as Generator, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

/// Names used by commands.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A random step.
#[derive(Debug, Clone)]
enum Move {
    /// Completes one of the pending starts, stops and kills; a start may fail.
    Settle {
        which: usize,
        fails: bool,
    },
    /// Ends a live child from within.
    End {
        which: usize,
        normal: bool,
    },
    /// Repeats an event of a past incarnation.
    Stale {
        which: usize,
    },
    Wait {
        millis: u16,
    },
    Add(usize, RestartType),
    Terminate(usize),
    Restart(usize),
    Renew(usize),
    Delete(usize),
}

fn moves() -> impl Generator<Value = Vec<Move>> {
    let name = 0..NAMES.len();
    let settle = (any::<usize>(), any::<u8>()).prop_map(|(which, luck)| Move::Settle {
        which,
        fails: luck < 32,
    });
    let end =
        (any::<usize>(), any::<bool>()).prop_map(|(which, normal)| Move::End { which, normal });
    vec(
        prop_oneof![
            12 => settle,
            5 => end,
            1 => any::<usize>().prop_map(|which| Move::Stale { which }),
            3 => any::<u16>().prop_map(|millis| Move::Wait { millis: millis / 32 }),
            1 => (name.clone(), restart_type()).prop_map(|(at, restart)| Move::Add(at, restart)),
            1 => name.clone().prop_map(Move::Terminate),
            1 => name.clone().prop_map(Move::Restart),
            1 => name.clone().prop_map(Move::Renew),
            1 => name.prop_map(Move::Delete),
        ],
        0..200,
    )
}

fn restart_type() -> impl Generator<Value = RestartType> {
    prop_oneof![
        4 => Just(RestartType::Permanent),
        2 => Just(RestartType::Transient),
        1 => Just(RestartType::Temporary),
    ]
}

fn children() -> impl Generator<Value = Vec<ChildSpec>> {
    let shutdown = prop_oneof![
        Just(Shutdown::Kill),
        Just(Shutdown::Infinity),
        (0_u64..500).prop_map(|millis| Shutdown::Within(Duration::from_millis(millis))),
    ];
    let give_up = prop_oneof![
        Just(GiveUp::Park),
        Just(GiveUp::Escalate),
        Just(GiveUp::Retry),
    ];
    let child = (restart_type(), shutdown, give_up, any::<bool>());
    vec(child, 0..5).prop_map(|children| {
        let named = children.into_iter().zip(NAMES);
        let spec = |((restart, shutdown, give_up, own), name): (_, &str)| ChildSpec {
            restart,
            shutdown,
            give_up,
            intensity: if own { Some(intensity(3)) } else { None },
            ..ChildSpec::worker(name)
        };
        named.map(spec).collect()
    })
}

fn intensity(max: u32) -> Intensity {
    let within = Duration::from_millis(700);
    Intensity { max, within }
}

fn specs() -> impl Generator<Value = SupervisorSpec> {
    let strategy = prop_oneof![
        Just(Strategy::OneForOne),
        Just(Strategy::OneForAll),
        Just(Strategy::RestForOne),
        Just(Strategy::Dynamic),
    ];
    let shut_down = prop_oneof![
        6 => Just(AutoShutdown::Never),
        1 => Just(AutoShutdown::AnySignificant),
        1 => Just(AutoShutdown::AllSignificant),
    ];
    let others = (any::<bool>(), any::<bool>(), any::<bool>(), shut_down);
    (strategy, 0_u32..6, others).prop_map(|(strategy, max, others)| {
        let (backoff, revive, first, auto_shutdown) = others;
        let backoff = backoff.then(|| RestartBackoff {
            first: Duration::from_millis(if first { 50 } else { 0 }),
            ..RestartBackoff::default()
        });
        SupervisorSpec {
            strategy,
            intensity: intensity(max),
            auto_shutdown,
            backoff,
            otp: OtpRules {
                gave_up_is_normal: false,
                rounds_revive_stopped: revive,
            },
        }
    })
}

/// The phase of an incarnation.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Life {
    Starting,
    Running,
    Stopping,
    Killed,
}

/// Carries out the machine's actions, and records its observations.
struct World {
    machine: Supervision,
    spec: SupervisorSpec,
    now: Time,
    lives: BTreeMap<ChildId, (u64, Life)>,
    past: Vec<(ChildId, u64)>,
    timers: BTreeSet<(Time, TimerId)>,
    /// Ids of commands that have not been answered.
    open: BTreeSet<u64>,
    asked: u64,
    /// Names that an operator has stopped at some time: their stops follow no order.
    terminated: BTreeSet<&'static str>,
    /// Children that ended from within or failed to start, since their last start.
    failed: BTreeSet<ChildId>,
    /// Number of restarts per child, to tell restarts from starts by command.
    counted: HashMap<ChildId, u64>,
    /// Times of restarts.
    restarts: Vec<Time>,
    parked: BTreeSet<ChildId>,
    /// Names of which an operator has ordered a new start at some time.
    renewed: BTreeSet<&'static str>,
    /// Children reported as exhausted, since they ran.
    exhausted: BTreeSet<ChildId>,
    up: bool,
    down: bool,
}

type Checked = Result<(), proptest::test_runner::TestCaseError>;

impl World {
    fn new(spec: SupervisorSpec, mut children: Vec<ChildSpec>) -> Self {
        for child in &mut children {
            child.significant = spec.auto_shutdown != AutoShutdown::Never
                && child.restart != RestartType::Permanent;
        }
        Self {
            machine: Supervision::new(spec.clone(), children).expect("usable specifications"),
            spec,
            now: Time::ZERO,
            lives: BTreeMap::new(),
            past: Vec::new(),
            timers: BTreeSet::new(),
            open: BTreeSet::new(),
            asked: 0,
            terminated: BTreeSet::new(),
            failed: BTreeSet::new(),
            counted: HashMap::new(),
            restarts: Vec::new(),
            parked: BTreeSet::new(),
            renewed: BTreeSet::new(),
            exhausted: BTreeSet::new(),
            up: false,
            down: false,
        }
    }

    fn hear(&mut self, event: SupervisorEvent) -> Checked {
        let actions = self.machine.on(self.now, event, &mut || 0.5);
        for action in actions {
            self.act(action)?;
        }
        self.agree()
    }

    fn act(&mut self, action: SupervisorAction) -> Checked {
        let refusal = matches!(action, SupervisorAction::Reply { .. });
        prop_assert!(!self.down || refusal, "after down: {action:?}");
        match action {
            SupervisorAction::Start { child, incarnation } => {
                prop_assert!(!self.lives.contains_key(&child), "two live {child}");
                let newest = self.past.iter().filter(|(id, _)| *id == child).count() as u64;
                prop_assert_eq!(incarnation, newest + 1);
                self.may_start(child, incarnation)?;
                self.failed.remove(&child);
                self.lives.insert(child, (incarnation, Life::Starting));
            }
            SupervisorAction::Stop { child, incarnation } => {
                let life = self.lives.get(&child).copied();
                let stoppable = [(incarnation, Life::Starting), (incarnation, Life::Running)];
                prop_assert!(life.is_some_and(|life| stoppable.contains(&life)));
                self.stops_in_reverse(child)?;
                self.lives.insert(child, (incarnation, Life::Stopping));
            }
            SupervisorAction::Kill { child, incarnation } => {
                let life = self.lives.get(&child).copied();
                prop_assert!(life.is_some_and(|(present, _)| present == incarnation));
                prop_assert!(life != Some((incarnation, Life::Killed)), "killed twice");
                if life != Some((incarnation, Life::Stopping)) {
                    self.stops_in_reverse(child)?;
                }
                self.lives.insert(child, (incarnation, Life::Killed));
            }
            SupervisorAction::SetTimer { timer, at } => {
                prop_assert!(at >= self.now);
                self.timers.insert((at, timer));
            }
            SupervisorAction::Reply { ticket, .. } => {
                prop_assert!(self.open.remove(&ticket.0), "answered twice: {ticket:?}");
            }
            SupervisorAction::Park { child, .. } => {
                prop_assert!(!self.lives.contains_key(&child));
                prop_assert!(self.parked.insert(child), "parked twice");
            }
            SupervisorAction::Exhausted { child, first, .. } => {
                prop_assert!(!self.lives.contains_key(&child));
                let is_new = self.exhausted.insert(child);
                prop_assert_eq!(first, is_new, "told as new once");
            }
            SupervisorAction::Forget { child } => {
                prop_assert!(!self.lives.contains_key(&child), "forgotten alive");
            }
            SupervisorAction::Up => {
                prop_assert!(!self.up);
                self.up = true;
            }
            SupervisorAction::Down(_) => {
                prop_assert!(self.lives.is_empty(), "down with live children");
                self.down = true;
            }
        }
        Ok(())
    }

    /// Checks a start by the machine itself: in order, after all stops, and within the budget.
    fn may_start(&mut self, child: ChildId, incarnation: u64) -> Checked {
        let restarts = self.machine.child(child).map_or(0, |view| view.restarts);
        let restarted = restarts > self.counted.insert(child, restarts).unwrap_or(0);
        let initial = incarnation == 1 && !self.up;
        if self.parked.remove(&child) {
            prop_assert!(!restarted, "a parked child starts without a command");
            self.restarts.clear();
        }
        let name = self.machine.child(child).map_or("", |view| view.name);
        if !restarted && self.renewed.contains(name) {
            // A new start by an operator's order empties the window.
            self.restarts.clear();
        }
        let group = matches!(
            self.spec.strategy,
            Strategy::OneForAll | Strategy::RestForOne
        );
        if initial || (group && restarted) {
            let skipped = self.machine.children().find(|view| {
                view.id < child
                    && view.state == ChildState::Pending
                    && !self.failed.contains(&view.id)
            });
            prop_assert!(skipped.is_none(), "{child} starts before {skipped:?}");
            let going = self.lives.iter().find(|(id, (_, life))| {
                matches!(life, Life::Stopping | Life::Killed) && !self.is_terminated(**id)
            });
            prop_assert!(going.is_none(), "{child} starts while {going:?} goes");
            let starting = self
                .lives
                .values()
                .find(|(_, life)| *life == Life::Starting);
            prop_assert!(starting.is_none(), "{child} starts beside another");
        }
        // Restarts of exhausted children are not counted.
        let is_counted = !self.exhausted.contains(&child);
        if restarted && is_counted && !group && self.spec.backoff.is_none() {
            self.restarts.push(self.now);
            let intensity = self.spec.intensity;
            let recent = self.restarts.iter();
            let recent = recent.filter(|at| self.now.since(**at) < intensity.within);
            prop_assert!(recent.count() <= intensity.max as usize, "window exceeded");
        }
        Ok(())
    }

    fn is_terminated(&self, child: ChildId) -> bool {
        let view = self.machine.child(child);
        view.is_some_and(|view| self.terminated.contains(view.name))
    }

    /// Checks that a child is the last live one, unless an operator stops it.
    fn stops_in_reverse(&self, child: ChildId) -> Checked {
        if self.spec.strategy != Strategy::Dynamic && !self.is_terminated(child) {
            let later = self.lives.keys().find(|other| **other > child);
            prop_assert!(later.is_none(), "{child} stops before {later:?}");
        }
        Ok(())
    }

    /// Checks that the machine's view matches the world.
    fn agree(&mut self) -> Checked {
        let mut seen = 0;
        for view in self.machine.children() {
            let life = self.lives.get(&view.id).map(|(_, life)| *life);
            let expected = match view.state {
                ChildState::Starting => life == Some(Life::Starting),
                ChildState::Running => life == Some(Life::Running),
                ChildState::Stopping => matches!(life, Some(Life::Stopping | Life::Killed)),
                _ => life.is_none(),
            };
            prop_assert!(expected, "{view:?} but {life:?}");
            seen += usize::from(life.is_some());
            if view.state == ChildState::Parked {
                self.parked.insert(view.id);
            }
        }
        prop_assert_eq!(seen, self.lives.len(), "a live child is not known");
        Ok(())
    }

    /// Completes a pending start, stop or kill.
    fn settle(&mut self, which: usize, fails: bool) -> Checked {
        let pending = self
            .lives
            .iter()
            .filter(|(_, (_, life))| *life != Life::Running);
        let pending: Vec<_> = pending.map(|(child, life)| (*child, *life)).collect();
        if pending.is_empty() {
            return Ok(());
        }
        let (child, (incarnation, life)) = pending[which % pending.len()];
        let cause = match life {
            Life::Starting if !fails => {
                self.lives.insert(child, (incarnation, Life::Running));
                self.exhausted.remove(&child);
                return self.hear(SupervisorEvent::Started { child, incarnation });
            }
            Life::Starting => {
                self.lose(child, incarnation);
                let cause = StopCause::Failed("start".into());
                return self.hear(SupervisorEvent::StartFailed {
                    child,
                    incarnation,
                    cause,
                });
            }
            Life::Killed => StopCause::Killed,
            _ => StopCause::Shutdown,
        };
        self.end(child, incarnation, cause, false)
    }

    fn lose(&mut self, child: ChildId, incarnation: u64) {
        self.lives.remove(&child);
        self.failed.insert(child);
        self.past.push((child, incarnation));
    }

    fn end(
        &mut self,
        child: ChildId,
        incarnation: u64,
        cause: StopCause,
        by_itself: bool,
    ) -> Checked {
        self.lose(child, incarnation);
        if !by_itself {
            self.failed.remove(&child);
        }
        self.hear(SupervisorEvent::Ended {
            child,
            incarnation,
            cause,
        })
    }

    fn wait(&mut self, until: Time) -> Checked {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= until
        {
            self.timers.pop_first();
            self.now = self.now.max(at);
            self.hear(SupervisorEvent::Timer(timer))?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    fn command(&mut self, event: impl FnOnce(CommandId) -> SupervisorEvent) -> Checked {
        self.asked += 1;
        self.open.insert(self.asked);
        self.hear(event(CommandId(self.asked)))
    }

    fn make(&mut self, next: Move) -> Checked {
        let name = |at: usize| NAMES[at].to_owned();
        match next {
            Move::Settle { which, fails } => self.settle(which, fails),
            Move::End { which, normal } => {
                let live: Vec<_> = self.lives.iter().map(|(id, life)| (*id, *life)).collect();
                if live.is_empty() {
                    return Ok(());
                }
                let (child, (incarnation, _)) = live[which % live.len()];
                let crash = StopCause::Crashed(PanicReport::new("boom"));
                let cause = if normal { StopCause::Normal } else { crash };
                self.end(child, incarnation, cause, true)
            }
            Move::Stale { which } => {
                if self.past.is_empty() {
                    return Ok(());
                }
                let (child, incarnation) = self.past[which % self.past.len()];
                let before = format!("{:?}", self.machine);
                self.hear(SupervisorEvent::Started { child, incarnation })?;
                self.hear(SupervisorEvent::Ended {
                    child,
                    incarnation,
                    cause: StopCause::Lost,
                })?;
                prop_assert_eq!(before, format!("{:?}", self.machine));
                Ok(())
            }
            Move::Wait { millis } => {
                let span = Duration::from_millis(u64::from(millis));
                self.wait(self.now.after(span))
            }
            Move::Add(at, restart) => {
                let spec = ChildSpec {
                    restart,
                    ..ChildSpec::worker(name(at))
                };
                self.command(|ticket| SupervisorEvent::Add { spec, ticket })
            }
            Move::Terminate(at) => {
                self.terminated.insert(NAMES[at]);
                let child = name(at);
                self.command(|ticket| SupervisorEvent::Terminate { child, ticket })
            }
            Move::Restart(at) => {
                let child = name(at);
                self.command(|ticket| SupervisorEvent::Restart { child, ticket })
            }
            Move::Renew(at) => {
                self.terminated.insert(NAMES[at]);
                self.renewed.insert(NAMES[at]);
                let child = name(at);
                self.command(|ticket| SupervisorEvent::Renew { child, ticket })
            }
            Move::Delete(at) => {
                let child = name(at);
                self.command(|ticket| SupervisorEvent::Delete { child, ticket })
            }
        }
    }

    /// Completes everything that is pending.
    fn rest(&mut self) -> Checked {
        for _ in 0..10_000 {
            let pending = self.lives.values().any(|(_, life)| *life != Life::Running);
            if pending {
                self.settle(0, false)?;
            } else if let Some((at, _)) = self.timers.first().copied() {
                self.wait(at)?;
            } else {
                return Ok(());
            }
        }
        prop_assert!(false, "it never comes to rest");
        Ok(())
    }
}

proptest! {
    /// SUP-1 to SUP-4 in every history: never two live incarnations of a child, starts in order and
    /// after all stops, stops in reverse order, no window exceeded, every command answered exactly
    /// once, no effect of late events, parked at most once, nothing after the end.
    #[test]
    fn sup_1_the_rules_hold_in_every_history(
        spec in specs(),
        children in children(),
        moves in moves(),
        late_start in any::<bool>(),
    ) {
        let mut world = World::new(spec, children);
        if !late_start {
            world.hear(SupervisorEvent::Start)?;
        }
        for (at, next) in moves.into_iter().enumerate() {
            if late_start && at == 3 {
                world.hear(SupervisorEvent::Start)?;
            }
            world.make(next)?;
        }
        world.hear(SupervisorEvent::Start)?;
        world.rest()?;
        prop_assert!(world.open.is_empty(), "never answered: {:?}", world.open);
        for view in world.machine.children().filter(|_| !world.down) {
            let settled = [ChildState::Running, ChildState::Stopped, ChildState::Parked];
            prop_assert!(settled.contains(&view.state), "never settled: {view:?}");
        }
        world.hear(SupervisorEvent::Stop)?;
        world.rest()?;
        prop_assert!(world.down, "it never ended");
    }

    /// Every history reaches the end, however early the stop is requested.
    #[test]
    fn sup_1_a_stop_at_any_moment_ends_it(
        spec in specs(),
        children in children(),
        moves in moves(),
        after in 0_usize..200,
    ) {
        let mut world = World::new(spec, children);
        world.hear(SupervisorEvent::Start)?;
        for (at, next) in moves.into_iter().enumerate() {
            if at == after {
                world.hear(SupervisorEvent::Stop)?;
            }
            world.make(next)?;
        }
        world.hear(SupervisorEvent::Stop)?;
        world.rest()?;
        prop_assert!(world.down, "it never ended");
        prop_assert!(world.open.is_empty(), "never answered: {:?}", world.open);
    }
}
