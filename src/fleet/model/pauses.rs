//! Pauses that a dependency asked one replica for, and that hold for all.

use std::time::Duration;

use breakerbox_policy::{PauseReason, Time};

use super::super::board_word::{self as word, BoardKey, BoardWord, FleetPause, short};
use super::{Effect, FleetModel, keys};
use crate::Runtime;
use crate::config::PauseSharing;

/// Longest pause of another replica that is believed: quotas are full again by the day or by the month.
const MAX_PAUSE: Duration = Duration::from_secs(31 * 24 * 3600);

impl FleetModel {
    /// A dependency asked this replica for less traffic.
    pub(super) fn paused(
        &self,
        name: &str,
        reason: PauseReason,
        (for_, hint): (Duration, Option<Duration>),
        effects: &mut Vec<Effect>,
    ) {
        let part = self.parts.get(keys::dependency_of(name));
        let part = part.cloned().unwrap_or_default();
        let quota = reason == PauseReason::QuotaUsedUp;
        let is_shared = match part.fleet.pauses {
            PauseSharing::Hinted => hint.is_some() || quota,
            PauseSharing::All => true,
            PauseSharing::Off => false,
        };
        if !is_shared || !self.is_connected {
            return;
        }
        let pause = FleetPause {
            by: word::id_text(self.me),
            name: self.name.clone(),
            wait_ms: word::millis(hint.unwrap_or(for_)),
            quota,
            account: part.account,
        };
        let key = BoardKey::Pause(name.to_owned());
        effects.push(Effect::Put(key, BoardWord::Pause(pause)));
    }

    /// A dependency asked another replica for less traffic.
    pub(super) fn heard_pause(
        &mut self,
        now: Time,
        name: &str,
        (pause, age): (FleetPause, Duration),
        runtime: &Runtime,
        effects: &mut Vec<Effect>,
    ) {
        let part = self.parts.get(keys::dependency_of(name));
        let part = part.cloned().unwrap_or_default();
        // FLT-11: a limit of one key of ours says nothing about another one.
        let concerns = part.fleet.pauses != PauseSharing::Off
            && part.account == pause.account
            && word::id_of(&pause.by) != Some(self.me);
        let wait = Duration::from_millis(pause.wait_ms).min(MAX_PAUSE);
        let left = wait.saturating_sub(age);
        if !concerns || left.is_zero() {
            return;
        }
        let reason = match pause.quota {
            true => PauseReason::QuotaUsedUp,
            false => PauseReason::Throttled,
        };
        let by = short(&pause.name);
        if let Some(member) = self.member(now, name, runtime) {
            member.pause = Some((reason, now.after(left), by.clone()));
            effects.push(Effect::Pause(name.to_owned(), (reason, left), by));
        }
    }

    /// Returns the pause that a new breaker has to observe, and forgets one that is over.
    pub(super) fn pause_of_new(&mut self, now: Time, name: &str, is_new: bool) -> Option<Effect> {
        let member = self.members.get_mut(name)?;
        member.pause = member.pause.take().filter(|(_, until, _)| *until > now);
        let (reason, until, by) = member.pause.clone().filter(|_| is_new)?;
        let pause = (reason, until.since(now));
        Some(Effect::Pause(name.to_owned(), pause, by))
    }

    /// A pause of another replica was taken over here.
    pub(crate) fn adopted_pause(&mut self, name: &str) {
        self.count(name, |counts| counts.pauses += 1);
    }
}
