//! One dependency as one replica of a fleet sees it: the evidence, the lease to probe, the verdict.
//!
//! The machine decides; it never sends, waits or reads a clock. Its owner passes it the words of the
//! board, of the other replicas and of the replica's own breaker ([`FleetInput`]), and carries out
//! its answers ([`FleetOutput`]). Replicas share evidence, never state: a replica's breaker opens by
//! its own rules, by a quorum of replicas that call the dependency, or not at all.
//!
//! ```text
//! own breaker ──trips──▶ evidence ─▶ board ─▶ others: suspicious ──own failures──▶ open
//!      ▲                                        │ quorum, and no own success ─────▶ open
//!      └── probe ◀── lease (one for the fleet) ◀┴── verdict (recovered, failed) ──▶ close, hold
//! ```
//!
//! - *Spans, not moments*: words on the board hold spans; each replica counts them on its own clock
//!   (FLT-10).
//! - *Loss*: without a connection every lease is granted at once and nothing is published; words
//!   that were heard stand until their own end (FLT-1, FLT-15).
//! - *Fencing*: the lease and the verdict are compare-and-swaps on one key. A holder has lost its say
//!   once its revision is no longer the key's (FLT-8).
//!
//! # Source  Rules FLT-1 to FLT-10 in docs/rules.md.

mod board_clock;
mod evidence;
mod lease;
mod message;
mod rate_demand;
mod settings;
mod shared_rate;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use board_clock::{BoardClock, BoardTime};
pub use message::{FleetInput, FleetOutput, FleetWord, OwnBreaker, ReplicaId, Revision, Verdict};
pub use settings::{FleetSettings, Quorum, TripSharing};
pub use shared_rate::{
    RateAnswer, RateCounts, RateInput, RateNumber, RateRequest, SharedRate, SharedRateSettings,
    UnitAnswer, UnitReservation, UnitSpan,
};

use crate::{BreakerCommand, Suspicion, Time};
use evidence::EvidenceBoard;
use lease::Lease;

/// Wait of a caller that is refused while another replica probes: short, because the verdict may
/// come at any moment.
const SOON: Duration = Duration::from_millis(250);

/// The view of one dependency by one replica.
///
/// # Units   `now`, everywhere: never decreasing.
/// # Source  Rules FLT-1 to FLT-10.
#[derive(Debug, Clone)]
pub struct FleetDependency {
    settings: FleetSettings,
    is_connected: bool,
    breaker: OwnBreaker,
    /// Time at which it opened.
    opened_at: Time,
    /// True while it is half-open without a probe under way.
    waits_for_call: bool,
    /// End of this replica's own evidence, while it stands.
    own_until: Option<Time>,
    others: EvidenceBoard,
    lease: Lease,
    /// The suspicion that the breaker has.
    suspicion: Option<Suspicion>,
    /// End of the suspicion that follows a verdict.
    watchful_until: Option<Time>,
}

impl FleetDependency {
    /// Returns a machine without a connection, for a closed breaker.
    #[must_use]
    pub fn new(settings: FleetSettings) -> Self {
        Self {
            settings,
            is_connected: false,
            breaker: OwnBreaker::Closed,
            opened_at: Time::ZERO,
            waits_for_call: false,
            own_until: None,
            others: EvidenceBoard::default(),
            lease: Lease::default(),
            suspicion: None,
            watchful_until: None,
        }
    }

    /// Takes in an event, and returns the actions for it, in their order.
    pub fn on(&mut self, now: Time, input: FleetInput) -> Vec<FleetOutput> {
        let mut outputs = Vec::new();
        match input {
            FleetInput::Connected => self.connected(now, &mut outputs),
            FleetInput::Disconnected => {
                self.is_connected = false;
                self.lease.forget();
            }
            FleetInput::Heard { word, age } => self.heard(now, word, age, &mut outputs),
            FleetInput::Present { replica, calls } => self.others.present(replica, calls, now),
            FleetInput::Gone(replica) => self.others.gone(replica),
            FleetInput::Succeeded { began } => self.others.succeeded(began),
            FleetInput::Tripped { wait } => self.tripped(now, wait, &mut outputs),
            FleetInput::Adopted => self.adopted(now),
            FleetInput::ProbeDue => self.probe_due(now, &mut outputs),
            FleetInput::HalfOpen => {
                self.breaker = OwnBreaker::HalfOpen;
                self.waits_for_call = false;
            }
            FleetInput::Waits(waits) => self.waits_for_call = waits,
            FleetInput::ProbeFailed {
                wait,
                failed_periods,
            } => self.probe_failed(now, wait, failed_periods, &mut outputs),
            FleetInput::Closed { by_own_probe } => self.closed(by_own_probe, &mut outputs),
            FleetInput::Swapped(answer) => self.swapped(now, answer, &mut outputs),
            FleetInput::Tick => {}
        }
        self.lease_time(now, &mut outputs);
        self.judge_evidence(now, &mut outputs);
        outputs
    }

    /// Returns the time at which [`FleetInput::Tick`] has work to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let adoption = self.others.adoption_at(&self.settings);
        let times = [
            self.lease.next_deadline(&self.settings),
            self.others.next_end(),
            adoption.filter(|_| self.breaker == OwnBreaker::Closed),
            self.watchful_until,
        ];
        times.into_iter().flatten().min()
    }

    /// Returns the number of other replicas with evidence.
    #[must_use]
    pub fn evidence(&self) -> u32 {
        self.others.count()
    }

    /// Returns the revision of the lease that this replica holds.
    #[must_use]
    pub fn held(&self) -> Option<Revision> {
        self.lease.held()
    }

    /// Returns true if there is nothing to know of it: no evidence, no suspicion, and no word of a lease.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.breaker == OwnBreaker::Closed
            && self.own_until.is_none()
            && self.suspicion.is_none()
            && self.others.count() == 0
            && self.lease.is_unknown()
    }

    /// Applies new settings; all evidence stays.
    pub fn reconfigure(&mut self, settings: FleetSettings) {
        self.settings = settings;
    }

    /// Returns the suspicion that the breaker should have.
    #[must_use]
    pub const fn suspicion(&self) -> Option<Suspicion> {
        self.suspicion
    }

    /// Returns the state of this replica's own breaker, as far as it was told.
    #[must_use]
    pub const fn breaker(&self) -> OwnBreaker {
        self.breaker
    }

    /// Returns true while this replica has evidence of its own.
    #[must_use]
    pub fn has_evidence(&self, now: Time) -> bool {
        self.own_until.is_some_and(|until| until > now)
    }

    /// Returns the other replicas with evidence.
    pub fn witnesses(&self) -> impl Iterator<Item = ReplicaId> {
        self.others.witnesses()
    }

    /// Returns the number of replicas that call the dependency, this one among them.
    #[must_use]
    pub fn callers(&self, now: Time) -> u32 {
        self.others.callers(now, &self.settings)
    }

    /// Returns the present holder of the lease to probe, and the time for which it holds.
    #[must_use]
    pub fn lease(&self, now: Time) -> Option<(ReplicaId, Duration)> {
        self.lease.holder(now, &self.settings)
    }

    fn adopted(&mut self, now: Time) {
        self.breaker = OwnBreaker::Adopted;
        self.opened_at = now;
    }

    fn connected(&mut self, now: Time, outputs: &mut Vec<FleetOutput>) {
        self.is_connected = true;
        // FLT-15: the board may be a new one, with revisions that start anew.
        self.lease.begin_anew();
        self.others.begin_anew();
        // FLT-15: own evidence is said again if it still stands.
        if let Some(until) = self.own_until.filter(|until| *until > now) {
            outputs.push(FleetOutput::PutEvidence {
                wait: until.since(now),
            });
        }
    }

    fn tripped(&mut self, now: Time, wait: Duration, outputs: &mut Vec<FleetOutput>) {
        self.breaker = OwnBreaker::Open;
        self.opened_at = now;
        self.say_evidence(now, wait, outputs);
    }

    /// FLT-3: only a rule of its own makes evidence.
    fn say_evidence(&mut self, now: Time, wait: Duration, outputs: &mut Vec<FleetOutput>) {
        self.own_until = Some(now.after(wait));
        if self.is_connected {
            outputs.push(FleetOutput::PutEvidence { wait });
        }
    }

    fn closed(&mut self, by_own_probe: bool, outputs: &mut Vec<FleetOutput>) {
        self.breaker = OwnBreaker::Closed;
        let had_evidence = self.own_until.take().is_some();
        if had_evidence && self.is_connected {
            outputs.push(FleetOutput::TakeEvidenceBack);
        }
        if by_own_probe {
            self.lease.succeeded();
            self.give_verdict(Verdict::Recovered, outputs);
            self.others.clear();
        }
    }

    fn probe_failed(
        &mut self,
        now: Time,
        wait: Duration,
        failed_periods: u32,
        outputs: &mut Vec<FleetOutput>,
    ) {
        self.breaker = OwnBreaker::Open;
        self.opened_at = now;
        self.lease.failed(now);
        self.give_verdict(
            Verdict::Failed {
                wait,
                failed_periods,
            },
            outputs,
        );
        self.say_evidence(now, wait, outputs);
    }

    /// FLT-8: the verdict is a swap of the lease's revision, so a holder that comes late is not
    /// heard.
    fn give_verdict(&mut self, verdict: Verdict, outputs: &mut Vec<FleetOutput>) {
        if let Some(expected) = self.lease.end(verdict)
            && self.is_connected
        {
            outputs.push(FleetOutput::PutVerdict { expected, verdict });
        }
    }

    fn heard(&mut self, now: Time, word: FleetWord, age: Duration, outputs: &mut Vec<FleetOutput>) {
        match word {
            FleetWord::Evidence {
                replica,
                wait,
                revision,
            } => {
                // FLT-10: a word is aged by the board's own clock before it is heard.
                let until = now.after(wait.saturating_sub(age));
                self.others
                    .put(replica, (now < until).then_some(until), revision, now);
            }
            FleetWord::NoEvidence { replica, revision } => {
                self.others.put(replica, None, revision, now);
            }
            FleetWord::Lease { holder, revision } => {
                if self
                    .lease
                    .seen((now, age), holder, revision, &self.settings)
                {
                    outputs.push(FleetOutput::Fenced { by: holder });
                }
            }
            FleetWord::Verdict {
                by,
                verdict,
                revision,
            } => self.heard_verdict(now, (by, verdict, revision), age, outputs),
        }
    }

    fn heard_verdict(
        &mut self,
        now: Time,
        (by, verdict, revision): (ReplicaId, Verdict, Revision),
        age: Duration,
        outputs: &mut Vec<FleetOutput>,
    ) {
        let was_held = self.lease.held().is_some();
        if !self.lease.over(revision) || by == self.settings.replica {
            return;
        }
        if was_held {
            outputs.push(FleetOutput::Fenced { by });
        }
        // FLT-8: a verdict of before it opened says nothing about it.
        let is_open = matches!(self.breaker, OwnBreaker::Open | OwnBreaker::Adopted)
            && self.opened_at.after(age) <= now;
        match verdict {
            Verdict::Recovered => {
                self.others.clear_before(revision);
                let watchful = self.settings.recovery_timeout.saturating_sub(age);
                self.watchful_until = Some(now.after(watchful));
                if is_open {
                    outputs.push(FleetOutput::Recovered { by });
                }
            }
            Verdict::Failed {
                wait,
                failed_periods,
            } => {
                let wait = wait.saturating_sub(age);
                if is_open && !wait.is_zero() {
                    outputs.push(FleetOutput::Breaker(BreakerCommand::Hold {
                        wait,
                        failed_periods,
                    }));
                }
            }
        }
    }

    /// Tells the breaker the sum of the evidence of others.
    fn judge_evidence(&mut self, now: Time, outputs: &mut Vec<FleetOutput>) {
        self.others.forget_ended(now);
        let quorum = self.others.judge(now, &self.settings);
        self.watchful_until = self.watchful_until.filter(|until| *until > now);
        let until = self.others.latest_end().max(self.watchful_until);
        let shares = self.settings.trips != TripSharing::Off;
        let suspicion = until.filter(|_| shares).map(|until| Suspicion {
            share: self.settings.confirm,
            until,
        });
        if suspicion != self.suspicion {
            self.suspicion = suspicion;
            outputs.push(FleetOutput::Suspect(suspicion));
        }
        if let Some(replicas) = quorum
            && self.breaker == OwnBreaker::Closed
        {
            // FLT-3: the breaker is adopted as open, and this replica has no evidence of its own.
            self.adopted(now);
            outputs.push(FleetOutput::Breaker(BreakerCommand::Adopt {
                replicas,
                of: self.others.callers(now, &self.settings),
                wait: until.map_or(Duration::ZERO, |until| until.since(now)),
            }));
        }
    }
}
