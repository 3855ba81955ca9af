//! Shared rates: the numbers on the board, passed on to the runtime's limits.

use breakerbox_policy::Time;
use breakerbox_policy::fleet::{BoardTime, RateInput, RateNumber, Revision};

use super::super::board_word::{self as word, FleetRate};
use super::{Effect, FleetModel};
use crate::Runtime;

impl FleetModel {
    /// Connects a dependency's shared rate with the board, if it is not yet.
    pub(super) fn join_rate(&self, name: &str, runtime: &Runtime, effects: &mut Vec<Effect>) {
        let view = runtime.shared_rate(name);
        if self.is_current && view.is_some_and(|view| !view.is_connected) {
            let number = self.members.get(name).map(|one| one.rate);
            let joined = RateInput::Connected {
                clock: self.clock,
                number: number.unwrap_or_default(),
            };
            effects.push(Effect::Rate(name.to_owned(), joined));
        }
    }

    /// Connects all shared rates anew: the numbers of the board are known.
    pub(super) fn join_rates(&mut self, runtime: &Runtime, effects: &mut Vec<Effect>) {
        self.is_current = true;
        for name in self.names_of_members() {
            self.join_rate(&name, runtime, effects);
        }
    }

    /// Leaves the shared rates to each replica's own share.
    pub(super) fn leave_rates(&mut self, runtime: &Runtime, effects: &mut Vec<Effect>) {
        self.is_current = false;
        for (name, member) in &mut self.members {
            // The next board may be another one.
            member.rate = RateNumber::default();
            if runtime.shared_rate(name).is_some() {
                effects.push(Effect::Rate(name.clone(), RateInput::Disconnected));
            }
        }
    }

    /// The number of a shared rate was written, or removed.
    pub(super) fn heard_rate(
        &mut self,
        now: Time,
        name: &str,
        rate: Option<FleetRate>,
        (revision, written): (Revision, Option<BoardTime>),
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let me = self.me;
        let Some(member) = self.member(now, name, runtime) else {
            return;
        };
        let number = match &rate {
            Some(rate) => rate.number(revision),
            None => RateNumber {
                revision,
                ..RateNumber::default()
            },
        };
        member.rate = number;
        if self.is_current && runtime.shared_rate(name).is_some() {
            let by = rate.and_then(|rate| word::id_of(&rate.by));
            let heard = RateInput::Heard {
                number,
                written,
                is_own: by == Some(me),
            };
            effects.push(Effect::Rate(name.to_owned(), heard));
        }
    }
}
