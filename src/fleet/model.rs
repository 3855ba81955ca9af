//! A replica's view of its fleet: the machines of its dependencies, the other replicas, the words.
//!
//! It decides and counts. It reads the runtime's breakers, and changes none of them: its owner
//! carries out the [`Effect`]s.

pub(crate) mod events;
pub(crate) mod keys;
mod member;
mod news;
mod orders;
mod pauses;
mod presence;
mod rates;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use breakerbox_actors::{EventKind, FleetView};
use breakerbox_policy::fleet::{
    BoardClock, FleetDependency, FleetInput, FleetOutput, FleetSettings, FleetWord, OwnBreaker,
    ReplicaId, TripSharing, Verdict,
};
use breakerbox_policy::{BreakerCommand, Time};

use super::board_word::{self as word, BoardKey, BoardWord, UnknownWord};
use crate::Runtime;
use crate::config::FleetConfig;
pub(crate) use member::{
    Effect, LeaseSwap, Member, MemberCounts, MemberPart, Replica, SeenVerdict,
};

/// Number of dependencies and of keys that are kept, those that others alone have among them.
const MAX_MEMBERS: usize = 4096;
/// Longest lease to probe.
const MAX_LEASE: Duration = Duration::from_secs(10);

/// A replica's view of its fleet.
#[derive(Debug)]
pub(crate) struct FleetModel {
    pub(crate) me: ReplicaId,
    pub(crate) name: String,
    config: FleetConfig,
    parts: BTreeMap<String, MemberPart>,
    fingerprint: String,
    pub(crate) members: BTreeMap<String, Member>,
    /// The keys that are known by name here, by their members.
    keys: BTreeMap<String, Arc<str>>,
    pub(crate) replicas: BTreeMap<ReplicaId, Replica>,
    pub(crate) is_connected: bool,
    /// Newest revision that was heard.
    newest: u64,
    /// The same before the board was reached.
    newest_before: u64,
    /// True while the words that the board held when it was reached are known.
    is_current: bool,
    /// The board's clock.
    clock: BoardClock,
    /// Reason for which the board is not reached.
    pub(crate) reason: Option<String>,
    /// Number of live replicas that was told last.
    told_live: usize,
    next_heartbeat: Time,
    /// Number of the last heartbeat, and when it was said.
    said: (u64, Time),
    /// Number of the last heartbeat of its own that was heard.
    heard_own: u64,
    pub(crate) round_trip: Option<Duration>,
    unknown: BTreeSet<UnknownWord>,
    has_warned: bool,
    /// Replicas by their ids, for those that are dead by now.
    names: BTreeMap<ReplicaId, String>,
    pub(crate) heard_words: u64,
    pub(crate) said_words: u64,
}

impl FleetModel {
    pub(crate) fn new((me, name): (ReplicaId, String), config: FleetConfig, now: Time) -> Self {
        Self {
            me,
            name,
            config,
            parts: BTreeMap::new(),
            fingerprint: String::new(),
            members: BTreeMap::new(),
            keys: BTreeMap::new(),
            replicas: BTreeMap::new(),
            is_connected: false,
            newest: 0,
            newest_before: 0,
            is_current: false,
            clock: BoardClock::default(),
            reason: None,
            told_live: 0,
            next_heartbeat: now,
            said: (0, now),
            heard_own: 0,
            round_trip: None,
            unknown: BTreeSet::new(),
            has_warned: false,
            names: BTreeMap::new(),
            heard_words: 0,
            said_words: 0,
        }
    }

    /// Applies a new configuration of the dependencies.
    pub(crate) fn configure(&mut self, parts: BTreeMap<String, MemberPart>, fingerprint: String) {
        self.parts = parts;
        self.fingerprint = fingerprint;
    }

    pub(crate) fn fleet(&self) -> &str {
        &self.config.name
    }

    /// Returns the number of live replicas, this one among them.
    pub(crate) fn live(&self) -> usize {
        let others = self.replicas.iter();
        let others = others.filter(|(id, one)| **id != self.me && one.counts());
        others.count() + 1
    }

    /// Returns the time at which [`FleetModel::tick`] has work to do.
    pub(crate) fn next_deadline(&self) -> Time {
        let machines = self.members.values();
        let machines = machines.filter_map(|one| one.machine.next_deadline());
        machines.min().unwrap_or(Time::MAX).min(self.next_heartbeat)
    }

    /// Makes the changes that time makes.
    pub(crate) fn tick(&mut self, now: Time, runtime: &Runtime) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.next_heartbeat <= now {
            self.next_heartbeat = now.after(self.config.heartbeat);
            // FLT-14: while not even its own heartbeat is heard, nothing says that others have ended.
            if self.heard_own == self.said.0 {
                self.forget_dead(now, &mut effects);
            }
            self.look(now, runtime, &mut effects);
            self.heartbeat(now, runtime, &mut effects);
        }
        let due = |one: &Member| one.machine.next_deadline().is_some_and(|at| at <= now);
        let due = self.members.iter().filter(|(_, one)| due(one));
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            self.feed(now, &name, runtime, FleetInput::Tick, &mut effects);
        }
        effects
    }

    /// Looks at the runtime's dependencies: those that came and went, and their settings.
    fn look(&mut self, now: Time, runtime: &Runtime, effects: &mut Vec<Effect>) {
        let names = runtime.dependency_names();
        self.forget_idle_keys();
        for name in &names {
            self.member(now, name, runtime);
            self.learn_keys(name, runtime);
        }
        let all: Vec<String> = self.members.keys().cloned().collect();
        for name in all {
            self.refresh(now, &name, runtime, effects);
        }
        self.told_live = 0;
        self.tell_live(effects);
    }

    /// Tells the limits that the replicas have together how many these are.
    fn tell_live(&mut self, effects: &mut Vec<Effect>) {
        let live = self.live();
        // Without the board the last known number counts.
        if self.is_connected && live != self.told_live {
            self.told_live = live;
            let live = u32::try_from(live).unwrap_or(u32::MAX);
            effects.push(Effect::Replicas(live));
        }
    }

    /// Takes over the settings of one dependency, and says again what its breaker should know.
    fn refresh(&mut self, now: Time, name: &str, runtime: &Runtime, effects: &mut Vec<Effect>) {
        let settings = self.settings_of(name, runtime);
        let view = self.view(name, runtime);
        let Some(member) = self.members.get_mut(name) else {
            return;
        };
        member.machine.reconfigure(settings);
        member.trips = settings.trips;
        let witnesses: BTreeSet<ReplicaId> = member.machine.witnesses().collect();
        let me = self.me;
        member
            .evidence
            .retain(|id, _| *id == me || witnesses.contains(id));
        let life = view.map(|view| view.life);
        let is_other = std::mem::replace(&mut member.life, life) != life;
        if is_other {
            (member.attempts, member.last_success) = (0, None);
            // FLT-3: one that has gone has no evidence, and probes for no other replica.
            let gone = FleetInput::Closed {
                by_own_probe: false,
            };
            self.feed(now, name, runtime, gone, effects);
        }
        let Some(member) = self.members.get(name) else {
            return;
        };
        // FLT-12: an override holds for a dependency that comes later.
        let order = member.order.as_ref().filter(|_| is_other && view.is_some());
        if let Some(order) = order
            && member.order_until.is_none_or(|until| until > now)
        {
            effects.push(orders::set(name, order, member.order_until));
        }
        if let Some(suspicion) = member.machine.suspicion().filter(|_| view.is_some()) {
            effects.push(Effect::Suspect(name.to_owned(), Some(suspicion)));
        }
        effects.extend(self.pause_of_new(now, name, is_other && view.is_some()));
        if let Some(view) = view {
            self.settle(now, name, view, runtime, effects);
            self.join_rate(name, runtime, effects);
        }
    }

    /// Tells the machine of a state that it should have heard of: an event may have been missed.
    fn settle(
        &mut self,
        now: Time,
        name: &str,
        view: FleetView,
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        use breakerbox_policy::State;
        let Some(told) = self.members.get(name).map(|one| one.machine.breaker()) else {
            return;
        };
        let input = match (view.state, told) {
            (State::Closed, OwnBreaker::Closed)
            | (State::HalfOpen, OwnBreaker::HalfOpen)
            | (State::Open, OwnBreaker::Open | OwnBreaker::Adopted) => return,
            (State::Closed, _) => FleetInput::Closed {
                by_own_probe: false,
            },
            (State::HalfOpen, _) => FleetInput::HalfOpen,
            (State::Open, _) => FleetInput::Adopted,
        };
        self.feed(now, name, runtime, input, effects);
    }

    /// Returns the member of this name, which is made if there is room.
    fn member(&mut self, now: Time, name: &str, runtime: &Runtime) -> Option<&mut Member> {
        if !self.members.contains_key(name) {
            if self.members.len() >= MAX_MEMBERS || !self.takes_part(name) {
                return None;
            }
            let settings = self.settings_of(name, runtime);
            let view = self.view(name, runtime);
            let mut machine = FleetDependency::new(settings);
            if self.is_connected {
                // It has nothing to say yet.
                machine.on(now, FleetInput::Connected);
            }
            let member = Member {
                machine,
                trips: settings.trips,
                life: view.map(|view| view.life),
                attempts: view.map_or(0, |view| view.attempts),
                last_success: None,
                rule: String::new(),
                verdict: None,
                evidence: BTreeMap::new(),
                order: None,
                order_until: None,
                is_order_old: false,
                rates: BTreeMap::new(),
                pause: None,
                counts: MemberCounts::default(),
            };
            self.members.insert(name.to_owned(), member);
            if keys::is_key(name) {
                self.add_key(now, name, runtime);
            }
        }
        self.members.get_mut(name)
    }

    fn settings_of(&self, name: &str, runtime: &Runtime) -> FleetSettings {
        let dependency = keys::dependency_of(name);
        let part = self
            .parts
            .get(dependency)
            .map(|part| part.fleet)
            .unwrap_or_default();
        let breaker = &runtime.settings(dependency).unwrap_or_default().breaker;
        FleetSettings {
            replica: self.me,
            trips: part.trips,
            confirm: self.config.confirm,
            quorum: self.config.quorum,
            settle: self.config.settle,
            timeout: self.config.timeout,
            // FLT-7: a dead holder keeps the others out for this long at most.
            lease: breaker.half_open.probe_lease.min(MAX_LEASE),
            recovery_timeout: breaker.open.base,
        }
    }

    /// Passes an input on to the machine of a dependency.
    fn feed(
        &mut self,
        now: Time,
        name: &str,
        runtime: &Runtime,
        input: FleetInput,
        effects: &mut Vec<Effect>,
    ) {
        let view = self.view(name, runtime);
        let Some(member) = self.members.get_mut(name) else {
            return;
        };
        let mut outputs = Vec::new();
        // FLT-5: own successes are read before anything is decided.
        let last = view.and_then(|view| view.last_success);
        if last > member.last_success
            && let Some(began) = last
        {
            member.last_success = last;
            outputs = member.machine.on(now, FleetInput::Succeeded { began });
        }
        if member.machine.held().is_some() {
            // FLT-7: a lease is renewed only while a probe is under way.
            let waits = view.is_some_and(|view| view.probes == 0);
            outputs.extend(member.machine.on(now, FleetInput::Waits(waits)));
        }
        outputs.extend(member.machine.on(now, input));
        self.carry_out(now, name, outputs, input, effects);
    }

    /// Translates the outputs of a machine.
    fn carry_out(
        &mut self,
        now: Time,
        name: &str,
        outputs: Vec<FleetOutput>,
        input: FleetInput,
        effects: &mut Vec<Effect>,
    ) {
        for output in outputs {
            let by = self.name_of_output(&output);
            let me = (word::id_text(self.me), self.name.clone());
            let Some(member) = self.members.get_mut(name) else {
                return;
            };
            let dependency = name.to_owned();
            let key = BoardKey::Evidence(dependency.clone(), self.me);
            match output {
                FleetOutput::PutEvidence { wait } => {
                    let evidence = BoardWord::Evidence {
                        name: me.1,
                        wait_ms: word::millis(wait),
                        rule: member.rule.clone(),
                    };
                    effects.push(Effect::Put(key, evidence));
                }
                FleetOutput::TakeEvidenceBack => effects.push(Effect::TakeOff(key)),
                FleetOutput::TakeLease { expected } => effects.push(Effect::Swap(LeaseSwap {
                    dependency,
                    word: BoardWord::Lease {
                        by: me.0,
                        name: me.1,
                    },
                    expected: expected.0,
                })),
                FleetOutput::PutVerdict { expected, verdict } => {
                    effects.push(Effect::Swap(LeaseSwap {
                        dependency,
                        word: verdict_word(me, verdict),
                        expected: expected.0,
                    }));
                }
                FleetOutput::Suspect(suspicion) => {
                    effects.push(Effect::Suspect(dependency, suspicion));
                }
                FleetOutput::Breaker(command) => {
                    self.command(dependency, command, input, effects);
                }
                FleetOutput::Recovered { .. } => {
                    let kind = EventKind::Adopted {
                        how: "verdict",
                        by: by.clone(),
                        replicas: 1,
                        of: member.machine.callers(now),
                    };
                    self.count(name, |counts| counts.verdict += 1);
                    let command = BreakerCommand::Recovered { by };
                    effects.push(Effect::Command(dependency.clone(), command));
                    effects.push(Effect::Tell(dependency, kind));
                }
                FleetOutput::Fenced { .. } => {
                    self.count(name, |counts| counts.fenced += 1);
                    effects.push(Effect::Tell(dependency, EventKind::Fenced { by }));
                }
                FleetOutput::Alone => self.count(name, |counts| counts.leases_alone += 1),
            }
        }
    }

    /// Passes a command on to a breaker, and counts it.
    fn command(
        &mut self,
        dependency: String,
        command: BreakerCommand,
        input: FleetInput,
        effects: &mut Vec<Effect>,
    ) {
        let told = match (&command, input) {
            (BreakerCommand::Adopt { replicas, of, .. }, _) => {
                let (replicas, of) = (*replicas, *of);
                Some(self.adopted(&dependency, (replicas, of)))
            }
            (
                BreakerCommand::Hold { wait, .. },
                FleetInput::Heard {
                    word: FleetWord::Verdict { by, .. },
                    ..
                },
            ) => Some(EventKind::Held {
                by: self.name_of(by),
                for_: *wait,
            }),
            (BreakerCommand::Hold { .. }, FleetInput::Heard { .. }) => None,
            (BreakerCommand::Hold { .. }, _) => {
                self.count(&dependency, |counts| counts.leases_held += 1);
                None
            }
            (BreakerCommand::Grant, FleetInput::Swapped(Ok(_))) => {
                self.count(&dependency, |counts| counts.leases_taken += 1);
                None
            }
            _ => None,
        };
        effects.push(Effect::Command(dependency.clone(), command));
        effects.extend(told.map(|kind| Effect::Tell(dependency, kind)));
    }

    fn adopted(&mut self, name: &str, (replicas, of): (u32, u32)) -> EventKind {
        let by = self.witnesses(name);
        let is_any = self.members.get(name).map(|one| one.trips) == Some(TripSharing::Any);
        self.count(name, |counts| match is_any {
            true => counts.any += 1,
            false => counts.quorum += 1,
        });
        EventKind::Adopted {
            how: if is_any { "any" } else { "quorum" },
            by,
            replicas,
            of,
        }
    }

    /// Counts for a dependency, also what happened to one of its keys.
    fn count(&mut self, name: &str, count: impl FnOnce(&mut MemberCounts)) {
        if let Some(member) = self.members.get_mut(keys::dependency_of(name)) {
            count(&mut member.counts);
        }
    }

    /// Returns the names of the replicas with evidence on a dependency.
    fn witnesses(&self, name: &str) -> String {
        let member = self.members.get(name);
        let ids = member.into_iter().flat_map(|one| one.machine.witnesses());
        let names: Vec<String> = ids.map(|id| self.name_of(id)).collect();
        names.join(", ")
    }

    fn name_of_output(&self, output: &FleetOutput) -> String {
        match output {
            FleetOutput::Recovered { by } | FleetOutput::Fenced { by } => self.name_of(*by),
            _ => String::new(),
        }
    }

    /// Returns the name of a replica for people.
    pub(crate) fn name_of(&self, id: ReplicaId) -> String {
        if id == self.me {
            return self.name.clone();
        }
        let live = self.replicas.get(&id).map(|one| one.name.clone());
        live.or_else(|| self.names.get(&id).cloned())
            .unwrap_or_else(|| word::id_text(id))
    }

    /// Takes in the answer to a swap.
    pub(crate) fn swapped(
        &mut self,
        now: Time,
        swap: &LeaseSwap,
        answer: super::board::SwapAnswer,
        runtime: &Runtime,
    ) -> Vec<Effect> {
        use super::board::SwapAnswer;
        use breakerbox_policy::fleet::Revision;
        let mut effects = Vec::new();
        let name = &*swap.dependency;
        if swap.is_verdict() {
            if answer == SwapAnswer::Lost {
                // FLT-8: a holder that comes late is not heard.
                self.count(name, |counts| counts.fenced += 1);
                let lease = self
                    .members
                    .get(name)
                    .and_then(|one| one.machine.lease(now));
                let by = lease.map_or_else(|| "another one".to_owned(), |(by, _)| self.name_of(by));
                effects.push(Effect::Tell(name.to_owned(), EventKind::Fenced { by }));
            }
            return effects;
        }
        let answer = match answer {
            SwapAnswer::Done(revision) => Ok(Revision(revision)),
            SwapAnswer::Lost => Err(Revision(swap.expected)),
            // The machine's own time limit decides.
            SwapAnswer::Unknown => return effects,
        };
        self.feed(
            now,
            name,
            runtime,
            FleetInput::Swapped(answer),
            &mut effects,
        );
        effects
    }
}

fn verdict_word((by, name): (String, String), verdict: Verdict) -> BoardWord {
    match verdict {
        Verdict::Recovered => BoardWord::Recovered { by, name },
        Verdict::Failed {
            wait,
            failed_periods,
        } => BoardWord::Failed {
            by,
            name,
            wait_ms: word::millis(wait),
            failed_periods,
        },
    }
}
