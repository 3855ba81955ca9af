//! The evidence of other replicas, and when it is enough.

use std::collections::{BTreeMap, BTreeSet};

use super::{FleetSettings, ReplicaId, Revision, TripSharing};
use crate::Time;

/// The evidence of others on one dependency, and who calls it.
///
/// Each word costs a search among the replicas, never a walk through all of them: a fleet of
/// thousands opens in a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct EvidenceBoard {
    /// End of the evidence of each replica, and the revision that said so.
    standing: BTreeMap<ReplicaId, (Time, Revision)>,
    /// The same ends in their order.
    ends: BTreeSet<(Time, ReplicaId)>,
    /// Number of replicas with evidence that are not among the callers.
    silent: usize,
    /// Time since which evidence of others stands.
    first_heard: Option<Time>,
    /// Latest begin of a call of this replica that has succeeded.
    last_success: Option<Time>,
    /// Time since which a quorum has evidence.
    quorum_since: Option<Time>,
    /// Last known calls of the others.
    callers: BTreeMap<ReplicaId, Time>,
    /// The same calls in their order.
    calls: BTreeSet<(Time, ReplicaId)>,
}

impl EvidenceBoard {
    /// Sets or removes the evidence of a replica, unless a later word was heard.
    pub(super) fn put(
        &mut self,
        replica: ReplicaId,
        until: Option<Time>,
        revision: Revision,
        now: Time,
    ) {
        let known = self.standing.get(&replica);
        if known.is_some_and(|(_, known)| *known >= revision) {
            return;
        }
        self.remove(replica);
        match until {
            Some(until) => {
                self.first_heard.get_or_insert(now);
                self.standing.insert(replica, (until, revision));
                self.ends.insert((until, replica));
                self.silent += usize::from(!self.callers.contains_key(&replica));
            }
            None => self.settle_empty(),
        }
    }

    /// Removes the evidence of a replica, if it has some.
    fn remove(&mut self, replica: ReplicaId) {
        if let Some((until, _)) = self.standing.remove(&replica) {
            self.ends.remove(&(until, replica));
            self.silent -= usize::from(!self.callers.contains_key(&replica));
        }
    }

    /// Forgets the revisions of an earlier board.
    pub(super) fn begin_anew(&mut self) {
        for (_, revision) in self.standing.values_mut() {
            *revision = Revision::default();
        }
    }

    pub(super) fn witnesses(&self) -> impl Iterator<Item = ReplicaId> {
        self.standing.keys().copied()
    }

    pub(super) fn present(&mut self, replica: ReplicaId, calls: bool, now: Time) {
        if !calls {
            return;
        }
        match self.callers.insert(replica, now) {
            Some(before) => drop(self.calls.remove(&(before, replica))),
            None => self.silent -= usize::from(self.standing.contains_key(&replica)),
        }
        self.calls.insert((now, replica));
    }

    pub(super) fn gone(&mut self, replica: ReplicaId) {
        if let Some(at) = self.callers.remove(&replica) {
            self.calls.remove(&(at, replica));
            self.silent += usize::from(self.standing.contains_key(&replica));
        }
    }

    pub(super) fn succeeded(&mut self, began: Time) {
        self.last_success = self.last_success.max(Some(began));
    }

    pub(super) fn clear(&mut self) {
        self.standing.clear();
        self.ends.clear();
        self.silent = 0;
        self.settle_empty();
    }

    /// Removes the evidence that is older than a verdict.
    pub(super) fn clear_before(&mut self, verdict: Revision) {
        let is_older = |(_, (_, revision)): &(&ReplicaId, &(Time, Revision))| *revision <= verdict;
        let older = self.standing.iter().filter(is_older);
        let older: Vec<ReplicaId> = older.map(|(replica, _)| *replica).collect();
        for replica in older {
            self.remove(replica);
        }
        self.settle_empty();
    }

    pub(super) fn forget_ended(&mut self, now: Time) {
        while let Some((until, replica)) = self.ends.first().copied()
            && until <= now
        {
            self.remove(replica);
        }
        self.settle_empty();
    }

    fn settle_empty(&mut self) {
        if self.standing.is_empty() {
            self.first_heard = None;
            self.quorum_since = None;
        }
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.standing.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn latest_end(&self) -> Option<Time> {
        self.ends.last().map(|(until, _)| *until)
    }

    pub(super) fn next_end(&self) -> Option<Time> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Time at which a quorum opens a breaker here, unless a success speaks against it.
    pub(super) fn adoption_at(&self, settings: &FleetSettings) -> Option<Time> {
        let since = self.quorum_since.filter(|_| !self.has_own_success())?;
        Some(since.after(settings.settle))
    }

    /// Returns true if a call of this replica has succeeded that began when evidence stood.
    fn has_own_success(&self) -> bool {
        match (self.last_success, self.first_heard) {
            (Some(began), Some(heard)) => began >= heard,
            _ => false,
        }
    }

    /// Number of replicas that call the dependency: those of the last minute or so, and this one.
    pub(super) fn callers(&self, now: Time, settings: &FleetSettings) -> u32 {
        let old = self.old_callers(now, settings);
        // Evidence is the word of a caller, even if its heartbeats are silent on that.
        let old = old.filter(|(_, replica)| !self.standing.contains_key(replica));
        let others = self.callers.len() + self.silent - old.count();
        u32::try_from(others + 1).unwrap_or(u32::MAX)
    }

    /// Returns the callers with a last call too long ago.
    fn old_callers(
        &self,
        now: Time,
        settings: &FleetSettings,
    ) -> impl Iterator<Item = (Time, ReplicaId)> {
        let within = settings.quorum.within;
        let calls = self.calls.iter().copied();
        calls.take_while(move |(at, _)| at.after(within) <= now)
    }

    /// Returns the number of replicas with evidence, once it opens a breaker here.
    pub(super) fn judge(&mut self, now: Time, settings: &FleetSettings) -> Option<u32> {
        let count = self.count();
        let is_enough = match settings.trips {
            TripSharing::Off => false,
            // FLT-6: one replica's word opens another's breaker only where that was set.
            TripSharing::Any => return (count > 0).then_some(count),
            TripSharing::Confirm => {
                let old: Vec<_> = self.old_callers(now, settings).collect();
                for (_, replica) in old {
                    self.gone(replica);
                }
                let of = u64::from(self.callers(now, settings));
                let share = settings.quorum.share.least_part(of);
                u64::from(count) >= share.max(u64::from(settings.quorum.at_least))
            }
        };
        if !is_enough {
            self.quorum_since = None;
            return None;
        }
        let since = *self.quorum_since.get_or_insert(now);
        // FLT-5: no replica is opened against its own successes.
        let opens = since.after(settings.settle) <= now && !self.has_own_success();
        opens.then_some(count)
    }
}
