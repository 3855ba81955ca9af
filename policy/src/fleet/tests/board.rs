//! Replicas with real breakers on a simulated board, in any order of events.

use std::collections::VecDeque;

use super::*;
use crate::{
    Breaker, BreakerCause, BreakerEvent, BreakerSettings, Class, OpenTime, Outcome, Permit,
    ProbeLease, State, TripReason,
};

/// The board: a log of words, and the present revision of the lease's key.
#[derive(Default)]
pub(super) struct Board {
    log: Vec<(FleetWord, Time)>,
    revision: u64,
    lease: Revision,
}

impl Board {
    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    /// Writes the lease's key, if it has the expected revision.
    fn swap(
        &mut self,
        now: Time,
        expected: Revision,
        word: impl FnOnce(Revision) -> FleetWord,
    ) -> Result<Revision, Revision> {
        if expected != self.lease {
            return Err(self.lease);
        }
        let revision = self.next();
        self.lease = revision;
        self.log.push((word(revision), now));
        Ok(revision)
    }
}

pub(super) struct Replica {
    id: ReplicaId,
    pub(super) breaker: Breaker,
    pub(super) machine: FleetDependency,
    is_connected: bool,
    /// Number of words of the board that it has heard.
    heard: usize,
    /// Answers of the board that are on their way.
    answers: VecDeque<Result<Revision, Revision>>,
    permits: Vec<(Permit, Time)>,
    /// True while its breaker is open by a rule of its own.
    has_tripped: bool,
    /// Time since which evidence stands here.
    first_heard: Option<Time>,
    last_success: Option<Time>,
}

pub(super) struct Fleet {
    pub(super) now: Time,
    board: Board,
    pub(super) replicas: Vec<Replica>,
}

/// The settings of a breaker without a fleet.
pub(super) fn alone() -> BreakerSettings {
    let mut settings = breaker_settings();
    settings.half_open.lease = ProbeLease::Own;
    settings
}

fn breaker_settings() -> BreakerSettings {
    let mut settings = BreakerSettings {
        failure_threshold: std::num::NonZeroU32::new(3),
        open: OpenTime {
            base: 500 * MS,
            ..OpenTime::default()
        },
        ..BreakerSettings::default()
    };
    settings.half_open.probe_lease = 2_000 * MS;
    settings.half_open.lease = ProbeLease::Leased { timeout: 250 * MS };
    settings
}

impl Fleet {
    pub(super) fn new(number: u64) -> Self {
        let replica = |id| Replica {
            id: ReplicaId(id),
            breaker: Breaker::new(breaker_settings(), Time::ZERO),
            machine: FleetDependency::new(settings(ReplicaId(id))),
            is_connected: false,
            heard: 0,
            answers: VecDeque::new(),
            permits: Vec::new(),
            has_tripped: false,
            first_heard: None,
            last_success: None,
        };
        Self {
            now: Time::ZERO,
            board: Board::default(),
            replicas: (1..=number).map(replica).collect(),
        }
    }

    pub(super) fn tell(&mut self, which: usize, input: FleetInput) {
        let now = self.now;
        let one = &mut self.replicas[which];
        let outputs = one.machine.on(now, input);
        match one.machine.evidence() {
            0 => one.first_heard = None,
            _ => drop(one.first_heard.get_or_insert(now)),
        }
        for output in outputs {
            self.carry_out(which, output);
        }
        self.drain(which);
        self.check();
    }

    fn carry_out(&mut self, which: usize, output: FleetOutput) {
        let (now, board) = (self.now, &mut self.board);
        let one = &mut self.replicas[which];
        let replica = one.id;
        match output {
            FleetOutput::PutEvidence { wait } => {
                assert!(one.has_tripped, "FLT-3: evidence without a trip of its own");
                assert!(one.is_connected, "FLT-15: published without a connection");
                let revision = board.next();
                let word = FleetWord::Evidence {
                    replica,
                    wait,
                    revision,
                };
                board.log.push((word, now));
            }
            FleetOutput::TakeEvidenceBack => {
                let revision = board.next();
                let word = FleetWord::NoEvidence { replica, revision };
                board.log.push((word, now));
            }
            FleetOutput::TakeLease { expected } => {
                let holder = replica;
                let swapped = board.swap(now, expected, |revision| FleetWord::Lease {
                    holder,
                    revision,
                });
                one.answers.push_back(swapped);
            }
            FleetOutput::PutVerdict { expected, verdict } => {
                let by = replica;
                // A verdict that is refused was fenced off.
                let _ = board.swap(now, expected, |revision| FleetWord::Verdict {
                    by,
                    verdict,
                    revision,
                });
            }
            FleetOutput::Suspect(suspicion) => one.breaker.suspect(now, suspicion),
            FleetOutput::Breaker(command) => {
                if matches!(command, BreakerCommand::Adopt { .. }) {
                    let (heard, success) = (one.first_heard.unwrap(), one.last_success);
                    let speaks = success.is_some_and(|began| began >= heard);
                    assert!(!speaks, "FLT-5: opened against its own success");
                }
                one.breaker.command(now, command, &mut || 0.0).unwrap();
            }
            FleetOutput::Recovered { by } => {
                let by = format!("{by:?}");
                let command = BreakerCommand::Recovered { by };
                one.breaker.command(now, command, &mut || 0.0).unwrap();
            }
            FleetOutput::Fenced { .. } | FleetOutput::Alone => {}
        }
    }

    /// Passes on what the breaker reports.
    fn drain(&mut self, which: usize) {
        while let Some(event) = self.replicas[which].breaker.poll_event() {
            if let Some(input) = self.replicas[which].input_of(&event) {
                self.tell(which, input);
            }
        }
    }

    /// Begins one call, if it is admitted at once or by a lease that is granted at once.
    pub(super) fn call(&mut self, which: usize) {
        let now = self.now;
        for _ in 0..2 {
            let admitted = self.replicas[which].breaker.admit(now);
            self.drain(which);
            if let Ok(permit) = admitted {
                self.replicas[which].permits.push((permit, now));
                return;
            }
        }
    }

    /// Ends a call. Returns false if there is none.
    pub(super) fn finish(&mut self, which: usize, is_good: bool) -> bool {
        let now = self.now;
        let one = &mut self.replicas[which];
        let Some((permit, began)) = one.permits.pop() else {
            return false;
        };
        let class = if is_good {
            Class::Success
        } else {
            Class::Failure
        };
        one.breaker
            .record(now, permit, &Outcome::new(class, MS), &mut || 0.0);
        if is_good {
            one.last_success = one.last_success.max(Some(began));
            self.tell(which, FleetInput::Succeeded { began });
        }
        self.drain(which);
        true
    }

    /// All that the board has said arrives.
    pub(super) fn catch_up(&mut self, which: usize) {
        while self.replicas[which].heard < self.board.log.len() {
            self.deliver(which);
        }
        while !self.replicas[which].answers.is_empty() {
            self.answer(which);
        }
    }

    /// The next word of the board arrives.
    pub(super) fn deliver(&mut self, which: usize) {
        let one = &mut self.replicas[which];
        if !one.is_connected {
            return;
        }
        let Some((word, _)) = self.board.log.get(one.heard) else {
            return;
        };
        one.heard += 1;
        let is_own = match *word {
            FleetWord::Evidence { replica, .. } | FleetWord::NoEvidence { replica, .. } => {
                replica == one.id
            }
            FleetWord::Lease { .. } | FleetWord::Verdict { .. } => false,
        };
        if !is_own {
            self.tell(which, live(*word));
        }
    }

    /// The next answer to a swap arrives.
    pub(super) fn answer(&mut self, which: usize) {
        if let Some(answer) = self.replicas[which].answers.pop_front() {
            self.tell(which, FleetInput::Swapped(answer));
        }
    }

    pub(super) fn connect(&mut self, which: usize, connects: bool) {
        let one = &mut self.replicas[which];
        if one.is_connected == connects {
            return;
        }
        one.is_connected = connects;
        one.answers.clear();
        let input = match connects {
            true => FleetInput::Connected,
            false => FleetInput::Disconnected,
        };
        self.tell(which, input);
        if connects {
            self.snapshot(which);
        }
    }

    /// The last word of each key, aged by the board's clock.
    fn snapshot(&mut self, which: usize) {
        let own = self.replicas[which].id;
        let mut last = std::collections::BTreeMap::new();
        for (word, at) in &self.board.log {
            let key = match word {
                FleetWord::Evidence { replica, .. } | FleetWord::NoEvidence { replica, .. } => {
                    Some(*replica)
                }
                FleetWord::Lease { .. } | FleetWord::Verdict { .. } => None,
            };
            last.insert(key, (*word, *at));
        }
        self.replicas[which].heard = self.board.log.len();
        let mut words: Vec<_> = last
            .into_iter()
            .filter(|(key, _)| *key != Some(own))
            .collect();
        // In the order of their writing, as a stream has it: later words than these come live.
        words.sort_by_key(|(_, (_, at))| *at);
        for (_, (word, at)) in words {
            let age = self.now.since(at);
            self.tell(which, FleetInput::Heard { word, age });
        }
    }

    pub(super) fn pass(&mut self, millis: u32) {
        let end = self.now.after(millis * MS);
        loop {
            let due = self.replicas.iter().flat_map(|one| {
                let breaker = one.breaker.next_deadline();
                breaker.into_iter().chain(one.machine.next_deadline())
            });
            let Some(due) = due.min().filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            for which in 0..self.replicas.len() {
                let now = self.now;
                self.replicas[which].breaker.on_time(now, &mut || 0.0);
                self.drain(which);
                self.tell(which, FleetInput::Tick);
            }
        }
        self.now = end;
    }

    /// FLT-7, FLT-8: never may two replicas speak for one revision of the lease.
    fn check(&self) {
        let held = self.replicas.iter().filter_map(|one| one.machine.held());
        let speaking = held.filter(|held| *held == self.board.lease);
        assert!(speaking.count() <= 1, "two holders of one revision");
    }
}

impl Replica {
    fn input_of(&mut self, event: &BreakerEvent) -> Option<FleetInput> {
        let BreakerEvent::Transition {
            from,
            to,
            cause,
            retry_after,
            ..
        } = event
        else {
            let is_due = matches!(event, BreakerEvent::ProbeDue { .. });
            return is_due.then_some(FleetInput::ProbeDue);
        };
        let wait = retry_after.unwrap_or_default();
        let reason = match cause {
            BreakerCause::Tripped { reason, .. } => Some(reason),
            _ => None,
        };
        let is_own = reason.is_some_and(|reason| {
            !matches!(reason, TripReason::Fleet { .. } | TripReason::Commanded(_))
        });
        self.has_tripped = match to {
            State::Open => is_own,
            State::HalfOpen => self.has_tripped,
            State::Closed => false,
        };
        Some(match (from, to) {
            (State::HalfOpen, State::Open) => FleetInput::ProbeFailed {
                wait,
                failed_periods: 1,
            },
            (_, State::Open) if is_own => FleetInput::Tripped { wait },
            (_, State::Open) => FleetInput::Adopted,
            (_, State::HalfOpen) => FleetInput::HalfOpen,
            (_, State::Closed) => FleetInput::Closed {
                by_own_probe: matches!(cause, BreakerCause::Recovered { .. }),
            },
        })
    }
}
