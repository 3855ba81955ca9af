//! The other replicas: their heartbeats, and their ends.

use std::collections::BTreeMap;
use std::time::Duration;

use breakerbox_actors::FleetBreaker;
use breakerbox_policy::Time;
use breakerbox_policy::fleet::{FleetInput, ReplicaId};

use super::super::board_word::{self as word, ReplicaMessage, ReportedState, short};
use super::{Effect, FleetModel, Replica};
use crate::Runtime;

/// Number of replicas that are kept.
const MAX_REPLICAS: usize = 10_000;
/// Number of heartbeats without which a replica is dead, in tenths.
const DEAD_AFTER: u32 = 25;
/// Shortest and longest interval of another replica's heartbeats.
const INTERVALS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];

impl Replica {
    /// Returns true from its second heartbeat on.
    pub(super) fn counts(&self) -> bool {
        // FLT-14: a replica counts from its second heartbeat.
        self.heard >= 2
    }

    fn is_dead(&self, now: Time) -> bool {
        self.seen.after(self.every * DEAD_AFTER / 10) <= now
    }
}

impl FleetModel {
    /// Says a heartbeat.
    pub(super) fn heartbeat(&mut self, now: Time, runtime: &Runtime, effects: &mut Vec<Effect>) {
        if !self.is_connected {
            return;
        }
        self.said = (self.said.0 + 1, now);
        let mut dependencies = BTreeMap::new();
        for (name, member) in &mut self.members {
            let view = runtime.fleet_view(FleetBreaker::of(name));
            // Keys have no entry: a heartbeat is as long as the dependencies are many.
            let Some(view) = view else {
                continue;
            };
            let calls = view.attempts != member.attempts;
            member.attempts = view.attempts;
            let state = ReportedState {
                state: state_name(view.state).to_owned(),
                calls,
                evidence: member.machine.has_evidence(now),
            };
            dependencies.insert(name.clone(), state);
        }
        effects.push(Effect::Say(ReplicaMessage::Here {
            id: word::id_text(self.me),
            name: self.name.clone(),
            every_ms: word::millis(self.config.heartbeat),
            number: self.said.0,
            fingerprint: self.fingerprint.clone(),
            dependencies,
        }));
    }

    /// Hears a message.
    pub(super) fn heard_said(
        &mut self,
        now: Time,
        message: &[u8],
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        match word::read::<ReplicaMessage>(message) {
            Err(unknown) => self.note_unknown(unknown),
            Ok(ReplicaMessage::Bye { id }) => {
                if let Some(id) = word::id_of(&id).filter(|id| *id != self.me) {
                    self.gone(now, id, effects);
                }
            }
            Ok(ReplicaMessage::Here {
                id,
                name,
                every_ms,
                number,
                fingerprint,
                dependencies,
            }) => {
                let Some(id) = word::id_of(&id) else {
                    return;
                };
                if id == self.me && number == self.said.0 {
                    self.round_trip = Some(now.since(self.said.1));
                    if std::mem::replace(&mut self.heard_own, number) + 1 < number {
                        self.hear_again(now);
                    }
                }
                let every = Duration::from_millis(every_ms).clamp(INTERVALS[0], INTERVALS[1]);
                let replica = Replica {
                    name: short(&name),
                    seen: now,
                    every,
                    heard: 0,
                    fingerprint: short(&fingerprint),
                    dependencies,
                };
                self.here(now, id, replica, runtime, effects);
            }
            Ok(ReplicaMessage::Do {
                dependency,
                command,
                reason,
                by,
                from,
            }) => {
                if word::id_of(&from) != Some(self.me) {
                    let told = (&*command, &*reason, &*by);
                    self.told_to(&dependency, told, runtime, effects);
                }
            }
        }
    }

    fn here(
        &mut self,
        now: Time,
        id: ReplicaId,
        mut replica: Replica,
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let before = self.replicas.get(&id);
        replica.heard = before.map_or(0, |one| one.heard).saturating_add(1);
        if before.is_none() && self.replicas.len() >= MAX_REPLICAS {
            return;
        }
        self.warn_of_others(&replica);
        let called = replica.dependencies.iter();
        let called = called.filter(|(_, one)| one.calls && id != self.me);
        let called: Vec<String> = called.map(|(name, _)| name.clone()).collect();
        let counts = replica.counts();
        self.replicas.insert(id, replica);
        self.tell_live(effects);
        let called = called.iter().filter(|_| counts);
        let called = called.flat_map(|name| self.names_with_keys(name));
        for name in Vec::from_iter(called.cloned()) {
            let present = FleetInput::Present {
                replica: id,
                calls: true,
            };
            self.feed(now, &name, runtime, present, effects);
        }
    }

    /// Warns once if a replica of another configuration uses the fleet's name.
    fn warn_of_others(&mut self, replica: &Replica) {
        if replica.fingerprint != self.fingerprint && !self.has_warned {
            self.has_warned = true;
            tracing::warn!(
                fleet = self.fleet(),
                replica = replica.name,
                "a replica has other dependencies, other addresses of them, or other shared rates: if it \
                 is not of this fleet, set another fleet.name"
            );
        }
    }

    /// Forgets the replicas that have been silent for too long.
    pub(super) fn forget_dead(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if !self.is_connected {
            return;
        }
        let dead = self.replicas.iter();
        let dead = dead.filter(|(id, one)| **id != self.me && one.is_dead(now));
        let dead: Vec<ReplicaId> = dead.map(|(id, _)| *id).collect();
        for id in dead {
            self.gone(now, id, effects);
        }
    }

    /// Counts the silence of the replicas from now on: nothing could be heard before.
    pub(super) fn hear_again(&mut self, now: Time) {
        // FLT-14: no replica was silent while nothing could be heard.
        for replica in self.replicas.values_mut() {
            replica.seen = now;
        }
    }

    /// Notes the name of a replica, for when it is dead.
    pub(super) fn note_name(&mut self, id: ReplicaId, name: String) {
        if self.names.len() >= MAX_REPLICAS {
            self.names.clear();
        }
        self.names.insert(id, name);
    }

    fn gone(&mut self, now: Time, id: ReplicaId, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.remove(&id) else {
            return;
        };
        self.note_name(id, replica.name);
        self.tell_live(effects);
        for name in self.names_of_members() {
            if let Some(member) = self.members.get_mut(&name) {
                let outputs = member.machine.on(now, FleetInput::Gone(id));
                self.carry_out(now, &name, outputs, FleetInput::Gone(id), effects);
            }
        }
    }
}

/// Returns the name of a state in heartbeats, the same as in the API.
fn state_name(state: breakerbox_policy::State) -> &'static str {
    use breakerbox_policy::State;
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half_open",
    }
}
