//! Replicas with clocks of their own, on a board with slow messages.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

pub(super) const MS: u64 = 1_000_000;

/// The board's clock when the simulation begins.
const EPOCH: u64 = 1_790_000_000_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Call(usize),
    /// A waiting call has waited for its time.
    Timeout(usize),
    /// A call of a metered limit ends.
    End(usize),
    Request(usize, u64, u64, Option<(u64, u64)>),
    Answer(usize, u64, Option<u64>),
    Word(usize, usize, u64),
}

/// The calls of a metered limit: each a number from the first to the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct MeteredWork {
    pub(super) reserved: (u64, u64),
    /// Of a thousand reserved ones.
    pub(super) used: (u64, u64),
    pub(super) millis: (u64, u64),
    /// Maximum number of calls of a replica at a time.
    pub(super) at_once: usize,
}

/// A call of a metered limit that went out.
#[derive(Debug)]
pub(super) struct MeteredCall {
    at: u64,
    which: usize,
    used: u64,
    reservation: Option<UnitReservation>,
}

/// One replica.
pub(super) struct SimulatedReplica {
    pub(super) machine: SharedRate,
    /// Calls a second.
    pub(super) demand: f64,
    weight: u64,
    /// Drift of its clock in millionths.
    drift: i64,
    /// The times and weights of the calls that wait.
    waiting: Vec<(u64, u64)>,
    running: usize,
    heard_at: u64,
    pub(super) asked: u64,
    pub(super) granted: u64,
}

impl SimulatedReplica {
    pub(super) fn new(demand: f64, weight: u64, drift: i64) -> Self {
        Self {
            machine: SharedRate::new(settings(1.0, 1)),
            demand,
            weight,
            drift,
            waiting: Vec::new(),
            running: 0,
            heard_at: 0,
            asked: 0,
            granted: 0,
        }
    }

    fn time(&self, now: u64) -> Time {
        let drift = i128::from(now) * i128::from(self.drift) / 1_000_000;
        Time::from_nanos(u64::try_from(i128::from(now) + drift + 77_000_000).unwrap())
    }
}

/// Replicas, their board, and what they let out.
pub(super) struct SimulatedFleet {
    random: u64,
    settings: SharedRateSettings,
    latency: u64,
    /// True if some requests find no answer.
    pub(super) loses: bool,
    /// True if calls that find no board go by the own share, and count.
    pub(super) goes_alone: bool,
    /// True while no replica reaches the board.
    is_cut: bool,
    pub(super) replicas: Vec<SimulatedReplica>,
    events: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    number: u64,
    words: Vec<(RateNumber, BoardTime)>,
    now: u64,
    /// Times of all units that went out while all saw the board.
    pub(super) out: Vec<u64>,
    pub(super) requests: u64,
    pub(super) work: Option<MeteredWork>,
    pub(super) calls: Vec<MeteredCall>,
}

impl SimulatedFleet {
    pub(super) fn new(seed: u64, settings: SharedRateSettings, latency: u64) -> Self {
        Self {
            random: seed,
            settings,
            latency,
            loses: false,
            goes_alone: false,
            is_cut: false,
            replicas: Vec::new(),
            events: BinaryHeap::new(),
            number: 0,
            words: vec![(RateNumber::default(), BoardTime(EPOCH))],
            now: 0,
            out: Vec::new(),
            requests: 0,
            work: None,
            calls: Vec::new(),
        }
    }

    pub(super) fn join(&mut self, mut replica: SimulatedReplica) {
        replica.machine = SharedRate::new(self.settings);
        let mut clock = BoardClock::default();
        clock.heard(replica.time(0), BoardTime(EPOCH));
        let number = RateNumber::default();
        replica
            .machine
            .on(replica.time(0), RateInput::Connected { clock, number });
        self.replicas.push(replica);
        self.plan(0, Happening::Call(self.replicas.len() - 1));
        if self.goes_alone {
            let count = u32::try_from(self.replicas.len()).unwrap();
            for which in 0..self.replicas.len() {
                self.input(which, RateInput::Replicas(count));
            }
        }
    }

    /// Cuts all replicas off, or lets them reach the board again.
    pub(super) fn cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
        for which in 0..self.replicas.len() {
            let mut clock = BoardClock::default();
            clock.heard(
                self.replicas[which].time(self.now),
                BoardTime(EPOCH + self.now),
            );
            let number = self.words.last().unwrap().0;
            let input = match is_cut {
                true => RateInput::Disconnected,
                false => RateInput::Connected { clock, number },
            };
            self.input(which, input);
        }
    }

    /// A number in [0, 1).
    #[expect(clippy::cast_precision_loss)]
    fn unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    fn some(&mut self, most: u64) -> u64 {
        (self.unit() * most as f64) as u64
    }

    fn plan(&mut self, after: u64, event: Happening) {
        self.number += 1;
        self.events
            .push(Reverse((self.now + after, self.number, event)));
    }

    /// Runs until that time.
    pub(super) fn run(&mut self, until_ms: u64) {
        while let Some(Reverse((at, _, _))) = self.events.peek()
            && *at <= until_ms * MS
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                return;
            };
            self.now = at;
            self.happen(event);
        }
        self.now = self.now.max(until_ms * MS);
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn happen(&mut self, event: Happening) {
        match event {
            Happening::Call(which) => {
                let gap = -(1.0 - self.unit()).ln() / self.replicas[which].demand;
                self.plan((gap * 1e9) as u64, Happening::Call(which));
                self.call(which);
            }
            Happening::Timeout(which) => self.serve(which),
            Happening::End(call) => self.end(call),
            Happening::Request(..) | Happening::Answer(..) | Happening::Word(..) if self.is_cut => {
            }
            Happening::Request(which, expected, full_at, free) => {
                self.swap(which, expected, (full_at, free));
            }
            Happening::Answer(which, expected, revision) => {
                let answer = match revision {
                    Some(revision) => RateAnswer::Done(Revision(revision)),
                    None => RateAnswer::Lost,
                };
                let expected = Revision(expected);
                self.input(which, RateInput::Answered { expected, answer });
            }
            Happening::Word(which, by, revision) => {
                let (number, written) = self.words[usize::try_from(revision).unwrap()];
                let input = RateInput::Heard {
                    number,
                    written: Some(written),
                    is_own: by == which,
                };
                self.input(which, input);
            }
        }
    }

    fn call(&mut self, which: usize) {
        let now = self.now;
        let timeout = nanos(self.settings.timeout);
        let weight = match self.work {
            None => self.replicas[which].weight,
            Some(work) => self.between(work.reserved),
        };
        let at_once = self.work.map_or(usize::MAX, |work| work.at_once);
        let one = &mut self.replicas[which];
        if one.running + one.waiting.len() >= at_once {
            return;
        }
        one.asked += 1;
        let time = one.time(now);
        if one.waiting.is_empty() && one.machine.take_at_once(time, weight) {
            self.let_out(which, weight, false);
        } else {
            one.machine.note_demand(time, weight);
            one.waiting.push((now, weight));
            self.plan(timeout, Happening::Timeout(which));
        }
        self.serve(which);
    }

    fn let_out(&mut self, which: usize, weight: u64, is_own: bool) {
        let one = &mut self.replicas[which];
        one.granted += 1;
        let time = one.time(self.now);
        let reservation = one.machine.reserved_now(time, weight, is_own);
        let Some(work) = self.work else {
            return (0..weight).for_each(|_| self.out.push(self.now));
        };
        one.running += 1;
        let used = weight * self.between(work.used) / 1_000;
        self.calls.push(MeteredCall {
            at: self.now,
            which,
            used,
            reservation,
        });
        let after = self.between(work.millis) * MS;
        self.plan(after, Happening::End(self.calls.len() - 1));
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.some(most - least + 1)
    }

    fn end(&mut self, call: usize) {
        let MeteredCall { which, used, .. } = self.calls[call];
        let reservation = self.calls[call].reservation.take().unwrap();
        let one = &mut self.replicas[which];
        one.running -= 1;
        one.machine.settle(one.time(self.now), reservation, used);
        self.serve(which);
    }

    /// Asserts that no span of any length has more used units than the burst, the rate and `more` allow.
    pub(super) fn assert_settled_within(&self, more: u64) {
        let unit = i128::from(self.settings.unit);
        let burst = i128::from(self.settings.burst()) + i128::from(more) * unit;
        let (mut sum, mut least) = (0, i128::MAX);
        for call in &self.calls {
            let at = i128::from(call.at);
            least = least.min(sum * unit - at);
            sum += i128::from(call.used);
            let most = sum * unit - at - least;
            assert!(most <= burst + 10, "{} units above", (most - burst) / unit);
        }
    }

    /// Units that were used from that time on.
    pub(super) fn used_since(&self, millis: u64) -> u64 {
        let calls = self.calls.iter();
        let calls = calls.filter(|call| call.at >= millis * MS);
        calls.map(|call| call.used).sum()
    }

    /// Answers the calls that wait, and sends what they ask for.
    fn serve(&mut self, which: usize) {
        let timeout = nanos(self.settings.timeout);
        loop {
            let one = &mut self.replicas[which];
            let time = one.time(self.now);
            let Some((since, weight)) = one.waiting.first().copied() else {
                break;
            };
            let is_late = self.now >= since + timeout;
            match one.machine.answer(time, 0, weight) {
                UnitAnswer::Granted => {
                    one.waiting.remove(0);
                    self.let_out(which, weight, false);
                }
                UnitAnswer::Asked if !is_late => break,
                UnitAnswer::Alone | UnitAnswer::Asked if self.goes_alone => {
                    one.waiting.remove(0);
                    if one.machine.take_alone(time, 0, weight).is_ok() {
                        self.let_out(which, weight, true);
                    }
                }
                // Refused, or by its own share, which is not counted here.
                _ => drop(one.waiting.remove(0)),
            }
        }
        let one = &mut self.replicas[which];
        let time = one.time(self.now);
        let waiting = one.waiting.iter().map(|(_, weight)| weight).sum();
        let first = one.waiting.first().map_or(1, |(_, weight)| *weight);
        if let Some(request) = one.machine.request(time, waiting, first) {
            self.send(which, request);
        }
    }

    fn send(&mut self, which: usize, request: RateRequest) {
        self.requests += 1;
        if self.loses && self.unit() < 0.1 {
            return;
        }
        let latency = self.some(self.latency);
        let free = request.free.map(|free| (free.first.0, free.last.0));
        let event = Happening::Request(which, request.expected.0, request.full_at.0, free);
        self.plan(latency, event);
    }

    fn swap(&mut self, which: usize, expected: u64, (full_at, free): (u64, Option<(u64, u64)>)) {
        let back = self.some(self.latency);
        let present = self.words.len() as u64 - 1;
        if present != expected {
            self.plan(back, Happening::Answer(which, expected, None));
            return;
        }
        let revision = present + 1;
        let number = RateNumber {
            full_at: BoardTime(full_at),
            free: free.map(|(first, last)| UnitSpan {
                first: BoardTime(first),
                last: BoardTime(last),
            }),
            revision: Revision(revision),
        };
        self.words.push((number, BoardTime(EPOCH + self.now)));
        let is_lost = self.loses && self.unit() < 0.1;
        if !is_lost {
            self.plan(back, Happening::Answer(which, expected, Some(revision)));
        }
        for other in 0..self.replicas.len() {
            let at = self.now + self.some(self.latency);
            let at = at.max(self.replicas[other].heard_at);
            self.replicas[other].heard_at = at;
            self.plan(at - self.now, Happening::Word(other, which, revision));
        }
    }

    fn input(&mut self, which: usize, input: RateInput) {
        let one = &mut self.replicas[which];
        let time = one.time(self.now);
        if let Some(request) = one.machine.on(time, input) {
            self.send(which, request);
        }
        self.serve(which);
    }

    /// Asserts that no span of any length has more units than the burst and the rate allow.
    pub(super) fn assert_below(&self, settings: SharedRateSettings) {
        self.assert_within(i128::from(settings.early + settings.life));
    }

    /// Asserts the same with a burst of this time.
    pub(super) fn assert_within(&self, burst: i128) {
        let unit = i128::from(self.settings.unit);
        let mut most = i128::MIN;
        for (index, at) in (0_i128..).zip(&self.out) {
            let at = i128::from(*at) - index * unit;
            most = most.max(at);
            // A nanosecond for each rounding.
            assert!(most - at <= burst - unit + 10, "{} at {index}", most - at);
        }
    }

    /// Number of units in the fullest second.
    pub(super) fn fullest(&self) -> usize {
        let mut begin = 0;
        let mut most = 0;
        for (end, at) in self.out.iter().enumerate() {
            while self.out[begin] + 1_000 * MS <= *at {
                begin += 1;
            }
            most = most.max(end + 1 - begin);
        }
        most
    }

    /// Calls that went out, and all.
    pub(super) fn sums(&self) -> (u64, u64) {
        let all = self.replicas.iter();
        all.fold((0, 0), |(granted, asked), one| {
            (granted + one.granted, asked + one.asked)
        })
    }
}
