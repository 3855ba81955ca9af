//! The words on the board, as inputs of the machines.

use std::time::Duration;

use breakerbox_policy::Time;
use breakerbox_policy::fleet::{BoardTime, FleetInput, FleetWord, Revision, TripSharing, Verdict};
use bytes::Bytes;

use super::super::board::BoardNews;
use super::super::board_word::{
    self as word, BoardKey, BoardWord, SharedLimitName, UnknownWord, short,
};
use super::{Effect, FleetModel, SeenVerdict, orders};
use crate::{EventKind, Runtime};

/// Number of unknown words that are told, each once.
const MAX_UNKNOWN: usize = 32;

impl FleetModel {
    /// Takes in the news of the board.
    pub(crate) fn news(&mut self, now: Time, news: BoardNews, runtime: &Runtime) -> Vec<Effect> {
        let mut effects = Vec::new();
        match news {
            BoardNews::Reached => self.reached(now, runtime, &mut effects),
            BoardNews::Lost(reason) => self.lost(now, reason, runtime, &mut effects),
            BoardNews::Current => {
                self.current(now, &mut effects);
                self.join_rates(runtime, &mut effects);
            }
            BoardNews::Message(message) => {
                self.heard_words += 1;
                self.heard_said(now, &message, runtime, &mut effects);
            }
            BoardNews::Word {
                key,
                value,
                revision,
                age,
                written,
            } => {
                self.heard_words += 1;
                self.newest = self.newest.max(revision);
                if age.is_zero() {
                    self.clock.heard(now, written);
                }
                let revision = Revision(revision);
                match BoardKey::of(&key) {
                    Some(BoardKey::Rate(name)) => {
                        let written = age.is_zero().then_some(written);
                        let told = (value, revision, written);
                        self.heard_number(now, &name, told, runtime, &mut effects);
                    }
                    Some(key) => {
                        let told = (value, revision, age);
                        self.heard_word(now, key, told, runtime, &mut effects);
                    }
                    None => {}
                }
            }
        }
        effects
    }

    fn reached(&mut self, now: Time, runtime: &Runtime, effects: &mut Vec<Effect>) {
        self.is_connected = true;
        self.reason = None;
        // A connection may end before all of its words are told.
        self.newest_before = self.newest_before.max(std::mem::take(&mut self.newest));
        let fleet = self.fleet().to_owned();
        effects.push(Effect::Tell(
            "fleet".to_owned(),
            EventKind::FleetJoined { fleet },
        ));
        for member in self.members.values_mut() {
            member.is_order_old = member.order.is_some();
        }
        self.hear_again(now);
        self.look(now, runtime, effects);
        for name in self.names_of_members() {
            // FLT-15: own evidence that stands is said again.
            self.feed(now, &name, runtime, FleetInput::Connected, effects);
        }
        self.heartbeat(now, runtime, effects);
    }

    fn lost(&mut self, now: Time, reason: String, runtime: &Runtime, effects: &mut Vec<Effect>) {
        let was_connected = std::mem::replace(&mut self.is_connected, false);
        let is_new = self.reason.as_ref() != Some(&reason);
        self.reason = Some(reason.clone());
        self.round_trip = None;
        if was_connected || is_new {
            let fleet = self.fleet().to_owned();
            let kind = EventKind::FleetLost { fleet, reason };
            effects.push(Effect::Tell("fleet".to_owned(), kind));
        }
        if was_connected {
            for name in self.names_of_members() {
                self.feed(now, &name, runtime, FleetInput::Disconnected, effects);
            }
            self.leave_rates(runtime, effects);
        }
    }

    /// All present words were told: an order that was not among them was taken off meanwhile, or the
    /// board has lost its words.
    fn current(&mut self, now: Time, effects: &mut Vec<Effect>) {
        // Revisions never go back while the words are kept.
        let has_lost_words = self.newest < std::mem::take(&mut self.newest_before);
        for (name, member) in &mut self.members {
            if !std::mem::take(&mut member.is_order_old) {
                continue;
            }
            match member.order.clone().filter(|_| has_lost_words) {
                // FLT-12: an override stands until its end, or until it is closed.
                Some(order) => {
                    effects.push(orders::say_again(now, name, order, member.order_until))
                }
                None => {
                    member.order = None;
                    effects.push(orders::lift(name));
                }
            }
        }
    }

    pub(super) fn names_of_members(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    fn heard_word(
        &mut self,
        now: Time,
        key: BoardKey,
        (value, revision, age): (Option<Bytes>, Revision, Duration),
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let word = match value.map(|value| word::read::<BoardWord>(&value)) {
            None => None,
            Some(Ok(word)) => Some(word),
            Some(Err(unknown)) => return self.note_unknown(unknown),
        };
        match (key, word) {
            (BoardKey::Evidence(name, replica), word) => {
                let word = match word {
                    None => FleetWord::NoEvidence { replica, revision },
                    Some(BoardWord::Evidence { wait_ms, name, .. }) => {
                        self.note_name(replica, short(&name));
                        FleetWord::Evidence {
                            replica,
                            wait: word::span(wait_ms),
                            revision,
                        }
                    }
                    Some(_) => return,
                };
                self.heard_evidence(now, &name, (word, age), runtime, effects);
            }
            (BoardKey::Lease(name), Some(word)) => {
                self.heard_lease(now, &name, (word, revision, age), runtime, effects);
            }
            (BoardKey::Order(name), word) => {
                let order = match word {
                    None => None,
                    Some(BoardWord::Order(order)) => Some(order),
                    Some(_) => return,
                };
                self.heard_order(now, &name, (order, age), runtime, effects);
            }
            (BoardKey::Pause(name), Some(BoardWord::Pause(pause))) => {
                self.heard_pause(now, &name, (pause, age), runtime, effects);
            }
            (BoardKey::Join | BoardKey::Lease(_) | BoardKey::Pause(_) | BoardKey::Rate(_), _) => {}
        }
    }

    fn heard_number(
        &mut self,
        now: Time,
        name: &SharedLimitName,
        (value, revision, written): (Option<Bytes>, Revision, Option<BoardTime>),
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let rate = match value.map(|value| word::read::<BoardWord>(&value)) {
            None => None,
            Some(Ok(BoardWord::Rate(rate))) => Some(rate),
            Some(Ok(_)) => return,
            Some(Err(unknown)) => return self.note_unknown(unknown),
        };
        let told = (revision, written);
        self.heard_rate(now, name, rate, told, runtime, effects);
    }

    fn heard_evidence(
        &mut self,
        now: Time,
        name: &str,
        (word, age): (FleetWord, Duration),
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let me = self.me;
        let (FleetWord::Evidence { replica, .. } | FleetWord::NoEvidence { replica, .. }) = word
        else {
            return;
        };
        let Some(member) = self.member(now, name, runtime) else {
            return;
        };
        match word {
            FleetWord::Evidence { .. } => {
                let age = now.since(Time::ZERO).saturating_sub(age);
                member.evidence.insert(replica, Time::ZERO.after(age));
            }
            _ => drop(member.evidence.remove(&replica)),
        }
        if replica != me {
            self.feed(now, name, runtime, FleetInput::Heard { word, age }, effects);
        }
    }

    fn heard_lease(
        &mut self,
        now: Time,
        name: &str,
        (word, revision, age): (BoardWord, Revision, Duration),
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let (by, of, verdict) = match word {
            BoardWord::Lease { by, name } => (by, name, None),
            BoardWord::Recovered { by, name } => (by, name, Some(Verdict::Recovered)),
            BoardWord::Failed {
                by,
                name,
                wait_ms,
                failed_periods,
            } => {
                let wait = word::span(wait_ms);
                let failed = Verdict::Failed {
                    wait,
                    failed_periods,
                };
                (by, name, Some(failed))
            }
            _ => return,
        };
        let Some(by) = word::id_of(&by) else {
            return;
        };
        self.note_name(by, short(&of));
        let Some(member) = self.member(now, name, runtime) else {
            return;
        };
        let seen = |verdict| SeenVerdict {
            by: short(&of),
            has_recovered: verdict == Verdict::Recovered,
        };
        member.verdict = verdict.map(seen);
        // FLT-6: it takes no part in the leases and verdicts of others.
        if member.trips == TripSharing::Off {
            return;
        }
        let word = match verdict {
            None => FleetWord::Lease {
                holder: by,
                revision,
            },
            Some(verdict) => FleetWord::Verdict {
                by,
                verdict,
                revision,
            },
        };
        self.feed(now, name, runtime, FleetInput::Heard { word, age }, effects);
    }

    pub(super) fn note_unknown(&mut self, unknown: UnknownWord) {
        // FLT-17: it is told once.
        if self.unknown.len() < MAX_UNKNOWN && !self.unknown.contains(&unknown) {
            tracing::warn!(
                fleet = self.fleet(),
                %unknown,
                "a word of another replica is left alone: its version or its kind is unknown here"
            );
            self.unknown.insert(unknown);
        }
    }
}
