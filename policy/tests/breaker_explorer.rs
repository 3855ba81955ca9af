//! Every interleaving of two callers, time and commands, to a bounded depth and through three
//! generations. Each reachable state is visited once, by a shortest path, and the invariants hold
//! in all of them.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    Breaker, BreakerCause, BreakerCommand, BreakerEvent, BreakerSettings, Class, HalfOpenRule,
    HalfOpenSettings, LostProbe, OpenTime, Outcome, Permit, PermitKind, RecordResult, State, Time,
};

const CALLERS: usize = 2;

/// Bounds of a history: generations, seconds and number of actions.
const LAST_GENERATION: u64 = 3;
const LAST_SECOND: u64 = 5;
const LONGEST: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Admit(usize),
    Finish(usize, Class),
    Forget(usize),
    Release(usize),
    /// A second passes, and a due timer fires.
    Second,
    /// A second passes, and the breaker is not polled.
    SilentSecond,
    Trip,
    Probe,
    Close,
    ForceOpen,
    Clear,
    Recover,
}

fn actions() -> Vec<Action> {
    use Action::{
        Admit, Clear, Close, Finish, ForceOpen, Forget, Probe, Recover, Release, Second,
        SilentSecond, Trip,
    };
    let mut actions = vec![
        Second,
        SilentSecond,
        Trip,
        Probe,
        Close,
        ForceOpen,
        Clear,
        Recover,
    ];
    for caller in 0..CALLERS {
        actions.extend([Admit(caller), Forget(caller), Release(caller)]);
        for class in [
            Class::Success,
            Class::Failure,
            Class::Rejected,
            Class::Cancelled,
        ] {
            actions.push(Finish(caller, class));
        }
    }
    actions
}

fn unit() -> f64 {
    0.0
}

struct World {
    breaker: Breaker,
    callers: [Option<Permit>; CALLERS],
    second: u64,
    open_until: Option<Time>,
}

impl World {
    fn new(settings: &BreakerSettings) -> Self {
        Self {
            breaker: Breaker::new(settings.clone(), Time::ZERO),
            callers: [None, None],
            second: 0,
            open_until: None,
        }
    }

    fn now(&self) -> Time {
        Time::from_millis(self.second * 1_000)
    }

    /// Performs the action and checks each step's invariants; returns false if it is impossible
    /// here.
    fn act(&mut self, action: Action) -> bool {
        let now = self.now();
        match action {
            Action::Admit(caller) => {
                if self.callers[caller].is_some() {
                    return false;
                }
                self.admit(caller, now);
            }
            Action::Finish(caller, class) => {
                let Some(permit) = self.callers[caller].take() else {
                    return false;
                };
                self.finish(permit, class, now);
            }
            Action::Forget(caller) => {
                if self.callers[caller].take().is_none() {
                    return false;
                }
            }
            Action::Release(caller) => {
                let Some(permit) = self.callers[caller].take() else {
                    return false;
                };
                self.breaker.release(now, permit);
            }
            Action::Second => {
                self.second += 1;
                let now = self.now();
                self.breaker.on_time(now, &mut unit);
                let due = self.breaker.next_deadline();
                assert!(due.is_none_or(|due| due > now), "BRK-5: {due:?} at {now}");
            }
            Action::SilentSecond => self.second += 1,
            Action::Recover => self.breaker.recover(now),
            Action::Trip | Action::Probe | Action::Close | Action::ForceOpen | Action::Clear => {
                self.order(action, now)
            }
        }
        self.check();
        true
    }

    fn order(&mut self, action: Action, now: Time) {
        let reason = String::from("explorer");
        let command = match action {
            Action::Trip => BreakerCommand::Trip { reason, wait: None },
            Action::Probe => BreakerCommand::Probe { reason },
            Action::Close => BreakerCommand::Close { reason },
            Action::ForceOpen => BreakerCommand::Open {
                reason,
                until: Some(now.after(Duration::from_secs(1))),
            },
            _ => BreakerCommand::Clear,
        };
        let generation = self.breaker.generation();
        match self.breaker.command(now, command, &mut unit) {
            Ok(()) => assert!(self.breaker.generation() > generation, "BRK-3"),
            Err(illegal) => assert_eq!(illegal.from, State::Closed),
        }
    }

    fn admit(&mut self, caller: usize, now: Time) {
        let probing = self.probing(now);
        match self.breaker.admit(now) {
            Ok(permit) => {
                assert_eq!(permit.generation(), self.breaker.generation());
                assert_eq!(permit.started(), now);
                let state = self.breaker.state();
                match permit.kind() {
                    PermitKind::Probe(_) => {
                        assert_eq!(state, State::HalfOpen);
                        let most = self.breaker.settings().half_open.max_calls.get() as usize;
                        assert!(probing < most, "BRK-4: {probing} probes already");
                    }
                    PermitKind::Normal => {
                        assert!(state == State::Closed || self.breaker.overridden().is_some());
                    }
                    PermitKind::Unrecorded => unreachable!("no action disables it"),
                }
                self.callers[caller] = Some(permit);
            }
            Err(refusal) => assert_eq!(refusal.generation, self.breaker.generation()),
        }
    }

    /// Number of callers with a probe of this generation and an unexpired lease.
    fn probing(&self, now: Time) -> usize {
        let lease = self.breaker.settings().half_open.probe_lease;
        let holds = |permit: &&Permit| {
            permit.is_probe()
                && permit.generation() == self.breaker.generation()
                && permit.started().after(lease) > now
        };
        self.callers.iter().flatten().filter(holds).count()
    }

    fn finish(&mut self, permit: Permit, class: Class, now: Time) {
        self.breaker.on_time(now, &mut unit);
        let stale = permit.generation() != self.breaker.generation();
        let before = (self.breaker.state(), self.breaker.generation());
        let outcome = Outcome::new(class, Duration::ZERO);
        let recorded = self.breaker.record(now, permit, &outcome, &mut unit);
        if stale {
            assert_eq!(recorded, RecordResult::Late, "BRK-3");
            let after = (self.breaker.state(), self.breaker.generation());
            assert_eq!(before, after, "BRK-3: a late outcome moved it");
        }
    }

    fn check(&mut self) {
        while let Some(event) = self.breaker.poll_event() {
            let BreakerEvent::Transition {
                from,
                to,
                at,
                cause,
                retry_after,
                ..
            } = event
            else {
                continue;
            };
            let commanded = matches!(cause, BreakerCause::Commanded(_));
            let edge = (from, to);
            assert!(
                commanded || edge != (State::Closed, State::HalfOpen),
                "an edge that is not in the chart"
            );
            if let Some(until) = self.open_until.take() {
                assert!(commanded || at >= until, "BRK-8: open ended early");
            }
            self.open_until = retry_after.map(|wait| at.after(wait));
        }
        let view = self.breaker.view(self.now());
        if let Some(period) = view.half_open {
            let most = u64::from(self.breaker.settings().half_open.max_calls.get());
            assert!(period.in_flight <= most, "BRK-4");
            if period.in_flight > 0 {
                assert!(self.breaker.next_deadline().is_some(), "BRK-5: no lease");
            }
        }
        let tally = view.tally;
        assert_eq!(tally.successes + tally.failures, tally.recorded);
    }

    /// Everything that determines the further behavior.
    fn fingerprint(&self) -> String {
        let view = self.breaker.view(self.now());
        let mode = view.overridden.map(|set| (set.mode, set.until));
        format!(
            "{:?}",
            (
                (view.state, mode, view.generation, self.second),
                (view.retry_after, view.counts, view.half_open),
                (
                    view.open_attempt,
                    self.breaker.next_deadline(),
                    &self.callers
                ),
            )
        )
    }

    fn is_over(&self) -> bool {
        self.second >= LAST_SECOND || self.breaker.generation() >= LAST_GENERATION
    }

    /// Checks that from any state, time and successful calls lead back to closed.
    fn recovers(mut self, path: &[Action]) {
        self.act(Action::Clear);
        for _ in 0..20 {
            self.second += 1;
            let now = self.now();
            if let Ok(permit) = self.breaker.admit(now) {
                self.finish(permit, Class::Success, now);
            }
            if self.breaker.state() == State::Closed {
                return;
            }
        }
        panic!("BRK-5: stuck {} after {path:?}", self.breaker.state());
    }
}

fn walk(settings: &BreakerSettings, path: &[Action]) -> World {
    let mut world = World::new(settings);
    for &action in path {
        world.act(action);
    }
    world
}

/// Visits every state once, by a shortest path.
fn explore(settings: &BreakerSettings) -> usize {
    let all = actions();
    let mut seen = HashSet::from([World::new(settings).fingerprint()]);
    let mut queue = VecDeque::from([Vec::new()]);
    while let Some(path) = queue.pop_front() {
        for &action in &all {
            let mut world = walk(settings, &path);
            if !world.act(action) || !seen.insert(world.fingerprint()) {
                continue;
            }
            let mut further = path.clone();
            further.push(action);
            let over = world.is_over();
            world.recovers(&further);
            if !over && further.len() < LONGEST {
                queue.push_back(further);
            }
        }
    }
    seen.len()
}

fn settings(max_calls: u32, rule: HalfOpenRule, lost_probe: LostProbe) -> BreakerSettings {
    BreakerSettings {
        failure_threshold: NonZeroU32::new(1),
        open: OpenTime {
            base: Duration::from_secs(1),
            ..OpenTime::default()
        },
        half_open: HalfOpenSettings {
            max_calls: NonZeroU32::new(max_calls).expect("a probe"),
            rule,
            probe_lease: Duration::from_secs(1),
            lost_probe,
            ..HalfOpenSettings::default()
        },
        ..BreakerSettings::default()
    }
}

#[test]
fn brk_every_state_of_one_probe_keeps_the_invariants() {
    let states = explore(&settings(
        1,
        HalfOpenRule::Successes(NonZeroU32::MIN),
        LostProbe::Fails,
    ));
    assert!(states > 1_000, "only {states} states");
}

#[test]
fn brk_every_state_of_two_probes_keeps_the_invariants() {
    let two = NonZeroU32::new(2).unwrap();
    let rule = HalfOpenRule::KOfN {
        needed: NonZeroU32::MIN,
        of: two,
    };
    let states = explore(&settings(2, rule, LostProbe::FreesItsSlot));
    assert!(states > 1_000, "only {states} states");
}
