//! Fleets of 50, 500 and 5,000 replicas on virtual time: trips, contagion, probes, words on the board.
//!
//! Each replica has a breaker of its own and the fleet's machine; the board answers after a millisecond
//! and tells each word after two. Run it optimized, with the sizes to simulate:
//!
//! ```sh
//! cargo run --release -p breakerbox-policy --example fleet_size -- 50 500 5000
//! ```

#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "it prints figures"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use breakerbox_policy::fleet::{
    FleetDependency, FleetInput, FleetOutput, FleetSettings, FleetWord, Quorum, ReplicaId,
    Revision, TripSharing,
};
use breakerbox_policy::{
    Breaker, BreakerCause, BreakerCommand, BreakerEvent, BreakerSettings, Class, OpenTime, Outcome,
    Permit, ProbeLease, Rate, State, Time, TripReason,
};

const MS: Duration = Duration::from_millis(1);
/// Time of the board for its answer.
const ANSWER: Duration = MS;
/// Time until a word has reached all replicas.
const WORD: Duration = Duration::from_millis(2);
/// Duration of a call.
const CALL: Duration = Duration::from_millis(5);
/// Calls a second of each replica.
const CALLS: f64 = 10.0;
/// Open time of a breaker.
const OPEN: Duration = Duration::from_secs(1);
/// Size of a word of evidence on the board, with its key.
const WORD_BYTES: usize = 190;
/// Interval of the heartbeats.
const HEARTBEAT: f64 = 2.0;

enum Happening {
    Call(usize),
    End(usize, Permit),
    Wake(usize),
    Word(FleetWord, usize),
    Answer(usize, Result<Revision, Revision>),
}

struct Planned(Time, u64, Happening);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

struct Replica {
    breaker: Breaker,
    machine: FleetDependency,
    wakes_at: Option<Time>,
    /// Share of its calls that fail.
    fails: f64,
    calls: u64,
    refused: u64,
    opened: Option<Time>,
}

/// What happened in one scenario.
#[derive(Default)]
struct Counts {
    own_trips: u64,
    adopted: u64,
    closed_by_verdict: u64,
    periods: u64,
    /// Most replicas that were half-open at once.
    half_open: i64,
    most_half_open: i64,
    reached: u64,
    asked: u64,
    words: u64,
}

struct Fleet {
    now: Time,
    random: u64,
    number: u64,
    events: BinaryHeap<Reverse<Planned>>,
    replicas: Vec<Replica>,
    lease: Revision,
    revision: u64,
    counts: Counts,
}

fn share(fraction: f64) -> Rate {
    Rate::new(fraction).unwrap_or(Rate::ZERO)
}

fn breaker() -> BreakerSettings {
    let mut settings = BreakerSettings {
        open: OpenTime {
            base: OPEN,
            factor: 1.0,
            ..OpenTime::default()
        },
        ..BreakerSettings::default()
    };
    settings.half_open.lease = ProbeLease::Leased { timeout: 250 * MS };
    settings
}

fn machine(replica: ReplicaId) -> FleetDependency {
    FleetDependency::new(FleetSettings {
        replica,
        trips: TripSharing::Confirm,
        confirm: share(0.6),
        quorum: Quorum {
            share: share(0.5),
            at_least: 2,
            within: Duration::from_secs(60),
        },
        settle: 200 * MS,
        timeout: 250 * MS,
        lease: Duration::from_secs(10),
        recovery_timeout: OPEN,
    })
}

impl Fleet {
    fn new(size: usize) -> Self {
        let replica = |id: usize| Replica {
            breaker: Breaker::new(breaker(), Time::ZERO),
            machine: machine(ReplicaId(id as u64)),
            wakes_at: None,
            fails: 0.0,
            calls: 0,
            refused: 0,
            opened: None,
        };
        let mut fleet = Self {
            now: Time::ZERO,
            random: 7,
            number: 0,
            events: BinaryHeap::new(),
            replicas: (0..size).map(replica).collect(),
            lease: Revision(0),
            revision: 0,
            counts: Counts::default(),
        };
        for which in 0..size {
            fleet.tell(which, FleetInput::Connected);
            for other in (0..size).filter(|other| *other != which) {
                let replica = ReplicaId(other as u64);
                let present = FleetInput::Present {
                    replica,
                    calls: true,
                };
                fleet.replicas[which].machine.on(Time::ZERO, present);
            }
            let first = Duration::from_secs_f64(fleet.unit() / CALLS);
            fleet.plan(first, Happening::Call(which));
        }
        fleet
    }

    fn unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn plan(&mut self, after: Duration, event: Happening) {
        self.number += 1;
        let planned = Planned(self.now.after(after), self.number, event);
        self.events.push(Reverse(planned));
    }

    fn run(&mut self, span: Duration) {
        let end = self.now.after(span);
        while let Some(Reverse(Planned(at, ..))) = self.events.peek()
            && *at <= end
            && let Some(Reverse(Planned(at, _, event))) = self.events.pop()
        {
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Happening) {
        match event {
            Happening::Call(which) => {
                let gap = -(1.0 - self.unit()).ln() / CALLS;
                self.plan(Duration::from_secs_f64(gap), Happening::Call(which));
                self.call(which);
            }
            Happening::End(which, permit) => {
                let fails = self.unit() < self.replicas[which].fails;
                let class = if fails {
                    Class::Failure
                } else {
                    Class::Success
                };
                let outcome = Outcome::new(class, CALL);
                let began = Time::from_nanos(self.now.as_nanos() - CALL.as_nanos() as u64);
                let now = self.now;
                let mut random = self.unit();
                let mut next = || std::mem::replace(&mut random, 0.5);
                let one = &mut self.replicas[which];
                one.breaker.record(now, permit, &outcome, &mut next);
                if !fails && one.machine.evidence() > 0 {
                    self.tell(which, FleetInput::Succeeded { began });
                }
                self.drain(which);
            }
            Happening::Wake(which) => {
                let (now, random) = (self.now, self.unit());
                let one = &mut self.replicas[which];
                one.wakes_at = None;
                one.breaker.on_time(now, &mut || random);
                self.drain(which);
                self.tell(which, FleetInput::Tick);
            }
            Happening::Word(word, by) => {
                let age = Duration::ZERO;
                let is_evidence = matches!(
                    word,
                    FleetWord::Evidence { .. } | FleetWord::NoEvidence { .. }
                );
                for which in 0..self.replicas.len() {
                    if !is_evidence || which != by {
                        self.tell(which, FleetInput::Heard { word, age });
                    }
                }
            }
            Happening::Answer(which, answer) => self.tell(which, FleetInput::Swapped(answer)),
        }
    }

    fn call(&mut self, which: usize) {
        let now = self.now;
        let one = &mut self.replicas[which];
        one.calls += 1;
        match one.breaker.admit(now) {
            Ok(permit) => {
                self.counts.reached += 1;
                self.plan(CALL, Happening::End(which, permit));
            }
            Err(_) => one.refused += 1,
        }
        self.drain(which);
    }

    fn tell(&mut self, which: usize, input: FleetInput) {
        let outputs = self.replicas[which].machine.on(self.now, input);
        for output in outputs {
            self.carry_out(which, output);
        }
        self.drain(which);
        let one = &self.replicas[which];
        let breaker = one.breaker.next_deadline().into_iter();
        let due = breaker.chain(one.machine.next_deadline()).min();
        if let Some(due) = due.filter(|due| one.wakes_at.is_none_or(|at| *due < at)) {
            self.replicas[which].wakes_at = Some(due);
            // Time::since is never negative.
            self.plan(due.since(self.now), Happening::Wake(which));
        }
    }

    fn write(&mut self, which: usize, word: impl FnOnce(Revision) -> FleetWord) -> Revision {
        self.revision += 1;
        self.counts.words += 1;
        let revision = Revision(self.revision);
        self.plan(WORD, Happening::Word(word(revision), which));
        revision
    }

    fn swap(
        &mut self,
        which: usize,
        expected: Revision,
        word: impl FnOnce(Revision) -> FleetWord,
    ) -> Result<Revision, Revision> {
        if expected != self.lease {
            return Err(self.lease);
        }
        self.lease = self.write(which, word);
        Ok(self.lease)
    }

    fn carry_out(&mut self, which: usize, output: FleetOutput) {
        let replica = ReplicaId(which as u64);
        match output {
            FleetOutput::PutEvidence { wait } => {
                self.write(which, |revision| FleetWord::Evidence {
                    replica,
                    wait,
                    revision,
                });
            }
            FleetOutput::TakeEvidenceBack => {
                self.write(which, |revision| FleetWord::NoEvidence {
                    replica,
                    revision,
                });
            }
            FleetOutput::TakeLease { expected } => {
                self.counts.asked += 1;
                let swapped = self.swap(which, expected, |revision| FleetWord::Lease {
                    holder: replica,
                    revision,
                });
                self.plan(ANSWER, Happening::Answer(which, swapped));
            }
            FleetOutput::PutVerdict { expected, verdict } => {
                let _ = self.swap(which, expected, |revision| FleetWord::Verdict {
                    by: replica,
                    verdict,
                    revision,
                });
            }
            FleetOutput::Suspect(suspicion) => {
                self.replicas[which].breaker.suspect(self.now, suspicion);
            }
            FleetOutput::Breaker(command) => self.command(which, command),
            FleetOutput::Recovered { by } => {
                let by = by.0.to_string();
                self.command(which, BreakerCommand::Recovered { by });
            }
            FleetOutput::Fenced { .. } | FleetOutput::Alone => {}
        }
    }

    fn command(&mut self, which: usize, command: BreakerCommand) {
        let (now, random) = (self.now, self.unit());
        let breaker = &mut self.replicas[which].breaker;
        // A state that does not allow it leaves it out.
        let _ = breaker.command(now, command, &mut || random);
    }

    fn drain(&mut self, which: usize) {
        while let Some(event) = self.replicas[which].breaker.poll_event() {
            if let Some(input) = self.input_of(which, &event) {
                self.tell(which, input);
            }
        }
    }

    fn input_of(&mut self, which: usize, event: &BreakerEvent) -> Option<FleetInput> {
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
        let is_own = match cause {
            BreakerCause::Tripped { reason, .. } => {
                !matches!(reason, TripReason::Fleet { .. } | TripReason::Commanded(_))
            }
            _ => false,
        };
        let (counts, now) = (&mut self.counts, self.now);
        if *from == State::HalfOpen {
            counts.half_open -= 1;
        }
        let one = &mut self.replicas[which];
        let failed_periods = one.breaker.view(now).open_attempt;
        Some(match (from, to) {
            (State::HalfOpen, State::Open) => FleetInput::ProbeFailed {
                wait,
                failed_periods,
            },
            (_, State::Open) => {
                one.opened.get_or_insert(now);
                counts.own_trips += u64::from(is_own);
                counts.adopted += u64::from(!is_own);
                match is_own {
                    true => FleetInput::Tripped { wait },
                    false => FleetInput::Adopted,
                }
            }
            (_, State::HalfOpen) => {
                counts.periods += 1;
                counts.half_open += 1;
                counts.most_half_open = counts.most_half_open.max(counts.half_open);
                FleetInput::HalfOpen
            }
            (_, State::Closed) => {
                let by_own_probe = matches!(cause, BreakerCause::Recovered { .. });
                counts.closed_by_verdict += u64::from(!by_own_probe);
                FleetInput::Closed { by_own_probe }
            }
        })
    }

    fn fail(&mut self, which: impl Iterator<Item = usize>, share: f64) {
        for one in which {
            self.replicas[one].fails = share;
        }
    }

    fn open(&self) -> usize {
        let open = |one: &&Replica| one.breaker.state() != State::Closed;
        self.replicas.iter().filter(open).count()
    }
}

/// An outage for all, and its end.
fn outage(size: usize, periods: u32) {
    let mut fleet = Fleet::new(size);
    fleet.run(Duration::from_secs(1));
    fleet.fail(0..size, 1.0);
    let (begin, reached) = (fleet.now, fleet.counts.reached);
    while fleet.open() < size && fleet.now.since(begin) < Duration::from_secs(30) {
        fleet.run(10 * MS);
    }
    let opened = fleet.replicas.iter().filter_map(|one| one.opened);
    let mut opened: Vec<Time> = opened.collect();
    opened.sort();
    let (first, last) = (opened[0], opened[opened.len() - 1]);
    println!(
        "  outage: all open {} ms after the first trip, by own outcomes {}, by the quorum {}; {} calls got \
         through, {} words written, {} told; board {} kB",
        last.since(first).as_millis(),
        fleet.counts.own_trips,
        fleet.counts.adopted,
        fleet.counts.reached - reached,
        fleet.counts.words,
        fleet.counts.words * size as u64,
        fleet.counts.own_trips as usize * WORD_BYTES / 1000,
    );
    let began = (
        fleet.counts.periods,
        fleet.counts.reached,
        fleet.counts.asked,
    );
    let words = fleet.counts.words;
    let begin = fleet.now;
    fleet.run(OPEN * periods);
    let seconds = fleet.now.since(begin).as_secs_f64();
    let new = fleet.counts.periods - began.0;
    println!(
        "  while down: {new} half-open periods in {seconds:.0} s, {} at once, {} calls at the dependency; {:.1} \
         replicas ask for each lease, {:.1} words a second",
        fleet.counts.most_half_open,
        fleet.counts.reached - began.1,
        (fleet.counts.asked - began.2) as f64 / new as f64,
        (fleet.counts.words - words) as f64 / seconds,
    );
    fleet.fail(0..size, 0.0);
    let begin = fleet.now;
    while fleet.open() > 0 && fleet.now.since(begin) < Duration::from_secs(30) {
        fleet.run(10 * MS);
    }
    println!(
        "  recovery: all closed {} ms after it works again, {} of them by the verdict",
        fleet.now.since(begin).as_millis(),
        fleet.counts.closed_by_verdict,
    );
}

/// One replica's broken network, with this share of random errors everywhere.
fn contagion(size: usize, errors: f64) {
    let mut fleet = Fleet::new(size);
    fleet.fail(0..size, errors);
    fleet.fail(0..1, 1.0);
    fleet.run(Duration::from_secs(20));
    let healthy = &fleet.replicas[1..];
    let calls: u64 = healthy.iter().map(|one| one.calls).sum();
    let refused: u64 = healthy.iter().map(|one| one.refused).sum();
    let opened = healthy.iter().filter(|one| one.opened.is_some()).count();
    println!(
        "  one replica cut off, {:.0} % random errors: {opened} of {} others opened, {:.3} % of their calls \
         refused",
        errors * 100.0,
        size - 1,
        refused as f64 / calls as f64 * 100.0,
    );
}

fn main() {
    let sizes = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok());
    let mut sizes: Vec<usize> = sizes.collect();
    if sizes.is_empty() {
        sizes.push(50);
    }
    for size in sizes {
        let n = size as f64;
        println!("{size} replicas, {CALLS} calls a second each");
        println!(
            "  at rest: {:.1} messages a second in, {:.0} out",
            n / HEARTBEAT,
            n * n / HEARTBEAT
        );
        outage(size, if size > 1000 { 5 } else { 30 });
        contagion(size, 0.0);
        contagion(size, 0.05);
    }
}
