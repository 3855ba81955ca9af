//! The lease to probe: one for the fleet, taken by compare-and-swap, given up with a verdict.

use std::time::Duration;

use super::{
    FleetDependency, FleetOutput, FleetSettings, OwnBreaker, ReplicaId, Revision, SOON, Verdict,
};
use crate::{BreakerCommand, Time};

/// Wait of a replica for each of its failed probes in a row, before it asks again: the next probe is
/// another replica's.
const TURN: Duration = Duration::from_millis(60);
/// Number of failed probes from which that wait grows no more.
const MOST_TURNS: u32 = 4;

/// The lease as this replica sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lease {
    /// The last known revision of the key.
    revision: Revision,
    /// The holder of that revision, and the time at which it was seen first.
    holder: Option<(ReplicaId, Time)>,
    own: OwnLease,
    /// Number of own failed probes in a row.
    failed: u32,
    /// Time before which this replica does not ask.
    not_before: Time,
}

/// Claim of this replica.
#[derive(Debug, Clone, Copy, Default)]
enum OwnLease {
    #[default]
    None,
    /// Asked for at this time.
    Asked(Time),
    /// Held since this time.
    Held(Revision, Time),
    /// Renewal of this revision asked for; it was held since this time.
    Renewing(Revision, Time),
    /// This verdict ends it, once the answer to a renewal tells the revision. It was held since this
    /// time.
    Ending(Verdict, Time),
}

impl Lease {
    pub(super) fn held(&self) -> Option<Revision> {
        match self.own {
            OwnLease::Held(revision, _) | OwnLease::Renewing(revision, _) => Some(revision),
            OwnLease::None | OwnLease::Asked(_) | OwnLease::Ending(..) => None,
        }
    }

    /// Ends the lease with a verdict. Returns the revision that the verdict takes the place of; `None`
    /// without a lease, and while its revision is not known.
    pub(super) fn end(&mut self, verdict: Verdict) -> Option<Revision> {
        let own = std::mem::take(&mut self.own);
        match own {
            OwnLease::Held(revision, _) => Some(revision),
            OwnLease::Renewing(_, since) | OwnLease::Ending(_, since) => {
                self.own = OwnLease::Ending(verdict, since);
                None
            }
            OwnLease::None | OwnLease::Asked(_) => None,
        }
    }

    pub(super) fn forget(&mut self) {
        self.own = OwnLease::None;
    }

    /// Returns true if no word of it was heard, and none is asked for.
    pub(super) fn is_unknown(&self) -> bool {
        self.revision == Revision::default() && matches!(self.own, OwnLease::None)
    }

    /// Forgets the revisions of an earlier board.
    pub(super) fn begin_anew(&mut self) {
        self.revision = Revision::default();
        self.holder = None;
    }

    /// Returns the present holder, and the time for which it holds.
    pub(super) fn holder(
        &self,
        now: Time,
        settings: &FleetSettings,
    ) -> Option<(ReplicaId, Duration)> {
        let (holder, since) = self.holder?;
        let left = since.after(settings.lease).since(now);
        (!left.is_zero()).then_some((holder, left))
    }

    pub(super) fn succeeded(&mut self) {
        self.failed = 0;
    }

    pub(super) fn failed(&mut self, now: Time) {
        self.failed = self.failed.saturating_add(1);
        // FLT-9: the next probe is another replica's.
        self.not_before = now.after(TURN * self.failed.min(MOST_TURNS));
    }

    /// A lease was seen on the board. Returns true if another replica has taken this one's.
    pub(super) fn seen(
        &mut self,
        (now, age): (Time, Duration),
        holder: ReplicaId,
        revision: Revision,
        settings: &FleetSettings,
    ) -> bool {
        if revision <= self.revision {
            return false;
        }
        self.revision = revision;
        // FLT-10: one that is older than a lease by the board's own clock is over.
        self.holder = (age < settings.lease).then_some((holder, now));
        let is_lost = self.held().is_some_and(|held| held < revision);
        let is_own = matches!(self.own, OwnLease::Renewing(..) | OwnLease::Asked(_));
        // The answer to an own question may come behind the watch's word of it.
        if is_lost && !is_own {
            self.own = OwnLease::None;
        }
        is_lost && !is_own
    }

    /// A verdict was seen on the board. Returns false for one that is older than the last known word.
    pub(super) fn over(&mut self, revision: Revision) -> bool {
        if revision <= self.revision {
            return false;
        }
        self.revision = revision;
        self.holder = None;
        // FLT-7: a question that is under way is answered still, or the probe goes out alone in the end.
        if !matches!(self.own, OwnLease::Asked(_)) {
            self.own = OwnLease::None;
        }
        true
    }

    /// Returns true while another replica may be probing.
    fn is_taken(&self, now: Time, settings: &FleetSettings) -> bool {
        // FLT-7: a dead holder is noticed on each watcher's own clock.
        self.holder.is_some_and(|(holder, since)| {
            holder != settings.replica && since.after(settings.lease) > now
        })
    }

    pub(super) fn next_deadline(&self, settings: &FleetSettings) -> Option<Time> {
        match self.own {
            OwnLease::None => None,
            OwnLease::Asked(since) => Some(since.after(settings.timeout)),
            OwnLease::Held(_, since) => Some(since.after(settings.lease / 3)),
            OwnLease::Renewing(_, since) | OwnLease::Ending(_, since) => {
                Some(since.after(settings.lease))
            }
        }
    }
}

impl FleetDependency {
    /// The breaker asks for the lease.
    pub(super) fn probe_due(&mut self, now: Time, outputs: &mut Vec<FleetOutput>) {
        // FLT-1: without a board, a probe goes out alone.
        if !self.is_connected {
            outputs.push(FleetOutput::Alone);
            outputs.push(FleetOutput::Breaker(BreakerCommand::Grant));
            return;
        }
        match self.lease.own {
            OwnLease::Held(..) | OwnLease::Renewing(..) => {
                outputs.push(FleetOutput::Breaker(BreakerCommand::Grant));
            }
            OwnLease::Asked(_) => {}
            OwnLease::Ending(..) => outputs.push(hold_for_a_moment()),
            OwnLease::None if self.lease.is_taken(now, &self.settings) => {
                outputs.push(hold_for_a_moment());
            }
            // FLT-9: the breaker asks again after the wait, and the last word on the lease then decides.
            OwnLease::None if self.lease.not_before > now => {
                outputs.push(hold(self.lease.not_before.since(now)));
            }
            OwnLease::None => self.ask(now, outputs),
        }
    }

    fn ask(&mut self, now: Time, outputs: &mut Vec<FleetOutput>) {
        self.lease.own = OwnLease::Asked(now);
        outputs.push(FleetOutput::TakeLease {
            expected: self.lease.revision,
        });
    }

    /// The board's answer to a swap of the lease.
    pub(super) fn swapped(
        &mut self,
        now: Time,
        answer: Result<Revision, Revision>,
        outputs: &mut Vec<FleetOutput>,
    ) {
        match (self.lease.own, answer) {
            (OwnLease::Asked(since), Ok(revision)) => {
                self.hold_lease(since, revision);
                outputs.push(FleetOutput::Breaker(BreakerCommand::Grant));
            }
            (OwnLease::Renewing(..), Ok(revision)) => self.hold_lease(now, revision),
            (OwnLease::Asked(_), Err(_)) => {
                self.lease.own = OwnLease::None;
                outputs.push(hold_for_a_moment());
            }
            // FLT-8: a verdict that comes too late is not heard.
            (OwnLease::Renewing(..) | OwnLease::Ending(..), Err(_)) => {
                self.lease.own = OwnLease::None;
                if let Some((by, _)) = self.lease.holder {
                    outputs.push(FleetOutput::Fenced { by });
                }
            }
            // FLT-8: the verdict takes the place of the renewed lease.
            (OwnLease::Ending(verdict, _), Ok(expected)) => {
                self.lease.own = OwnLease::None;
                self.lease.revision = self.lease.revision.max(expected);
                outputs.push(FleetOutput::PutVerdict { expected, verdict });
            }
            // The question was given up meanwhile: the lease ends by itself.
            (OwnLease::None | OwnLease::Held(..), Ok(revision)) => {
                self.lease.revision = self.lease.revision.max(revision);
            }
            (OwnLease::None | OwnLease::Held(..), Err(_)) => {}
        }
    }

    fn hold_lease(&mut self, since: Time, revision: Revision) {
        self.lease.own = OwnLease::Held(revision, since);
        if revision > self.lease.revision {
            self.lease.revision = revision;
            self.lease.holder = Some((self.settings.replica, since));
        }
    }

    /// Makes the changes of the lease that time alone makes.
    pub(super) fn lease_time(&mut self, now: Time, outputs: &mut Vec<FleetOutput>) {
        let due = self.lease.next_deadline(&self.settings);
        if due.is_none_or(|due| due > now) {
            return;
        }
        match self.lease.own {
            OwnLease::None => {}
            OwnLease::Asked(_) => {
                self.lease.own = OwnLease::None;
                outputs.push(FleetOutput::Alone);
                outputs.push(FleetOutput::Breaker(BreakerCommand::Grant));
            }
            // FLT-7: it is renewed while a probe is under way, and runs out otherwise.
            OwnLease::Held(revision, since)
                if self.breaker == OwnBreaker::HalfOpen && !self.waits_for_call =>
            {
                self.lease.own = OwnLease::Renewing(revision, since);
                outputs.push(FleetOutput::TakeLease { expected: revision });
            }
            OwnLease::Held(..) | OwnLease::Renewing(..) | OwnLease::Ending(..) => {
                self.lease.own = OwnLease::None;
            }
        }
    }
}

/// The breaker stays open for a moment: another replica probes.
pub(super) fn hold_for_a_moment() -> FleetOutput {
    hold(SOON)
}

fn hold(wait: Duration) -> FleetOutput {
    FleetOutput::Breaker(BreakerCommand::Hold {
        wait,
        failed_periods: 0,
    })
}
