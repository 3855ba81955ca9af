//! Shared limits: the numbers on the board, passed on to the runtime's limits.

use breakerbox_policy::Time;
use breakerbox_policy::fleet::{BoardTime, RateInput, RateNumber, Revision};

use super::super::board_word::{self as word, FleetRate, SharedLimitName};
use super::{Effect, FleetModel};
use crate::Runtime;

/// Number of shared limits of a dependency that are known.
const MAX_LIMITS: usize = 32;

impl FleetModel {
    /// Connects a dependency's shared limits with the board, if they are not yet.
    pub(super) fn join_rate(&self, dependency: &str, runtime: &Runtime, effects: &mut Vec<Effect>) {
        if !self.is_current {
            return;
        }
        for (limit, view) in runtime.shared_limits(dependency) {
            if view.is_connected {
                continue;
            }
            let member = self.members.get(dependency);
            let number = member.and_then(|one| one.rates.get(&limit).copied());
            let joined = RateInput::Connected {
                clock: self.clock,
                number: number.unwrap_or_default(),
            };
            effects.push(Effect::Rate(name(dependency, limit), joined));
        }
    }

    /// Connects all shared limits anew: the numbers of the board are known.
    pub(super) fn join_rates(&mut self, runtime: &Runtime, effects: &mut Vec<Effect>) {
        self.is_current = true;
        for name in self.names_of_members() {
            self.join_rate(&name, runtime, effects);
        }
    }

    /// Leaves the shared limits to each replica's own share.
    pub(super) fn leave_rates(&mut self, runtime: &Runtime, effects: &mut Vec<Effect>) {
        self.is_current = false;
        for (dependency, member) in &mut self.members {
            // The next board may be another one.
            member.rates.clear();
            for (limit, _) in runtime.shared_limits(dependency) {
                effects.push(Effect::Rate(
                    name(dependency, limit),
                    RateInput::Disconnected,
                ));
            }
        }
    }

    /// The number of a shared limit was written, or removed.
    pub(super) fn heard_rate(
        &mut self,
        now: Time,
        name: &SharedLimitName,
        rate: Option<FleetRate>,
        (revision, written): (Revision, Option<BoardTime>),
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let me = self.me;
        let Some(member) = self.member(now, &name.dependency, runtime) else {
            return;
        };
        let number = match &rate {
            Some(rate) => rate.number(revision),
            None => RateNumber {
                revision,
                ..RateNumber::default()
            },
        };
        // FLT-16: the words of others are kept in bounds.
        if member.rates.len() >= MAX_LIMITS && !member.rates.contains_key(&name.limit) {
            return;
        }
        member.rates.insert(name.limit.clone(), number);
        let is_ours = runtime
            .shared_limit(&name.dependency, &name.limit)
            .is_some();
        if self.is_current && is_ours {
            let by = rate.and_then(|rate| word::id_of(&rate.by));
            let heard = RateInput::Heard {
                number,
                written,
                is_own: by == Some(me),
            };
            effects.push(Effect::Rate(name.clone(), heard));
        }
    }
}

fn name(dependency: &str, limit: String) -> SharedLimitName {
    SharedLimitName {
        dependency: dependency.to_owned(),
        limit,
    }
}
