//! Replay of one recording through one breaker, without a clock: the calls that it would have
//! admitted, and its transitions.
//!
//! A recorded call starts at its end minus its duration. The breaker is asked for a permit at the
//! start, and gets the outcome at the end; a refused call reports no outcome. At the same time,
//! ends come before starts, as when one caller makes one call after the other. Nothing is random:
//! open times have no jitter, so each is the shortest possible, and a probe that was admitted in
//! the recording is admitted again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use breakerbox::recorder::{RecordedOutcome, Recording};
use breakerbox_policy::{
    Breaker, BreakerCause, BreakerEvent, BreakerSettings, Class, Permit, State, Time,
};

/// Result of replaying a recording through a breaker.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ReplayResult {
    /// Recorded outcomes, including refused ones.
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) trips: u64,
    pub(crate) refused: u64,
    pub(crate) refused_failures: u64,
    pub(crate) refused_successes: u64,
    /// Total time in the open state.
    pub(crate) open: Duration,
    /// The transitions.
    pub(crate) moves: Vec<ReplayMove>,
}

/// One transition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReplayMove {
    pub(crate) at: Time,
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) cause: BreakerCause,
    /// Duration of the open state; `None` in the other states.
    pub(crate) wait: Option<Duration>,
}

/// A recording, and its calls of nonzero duration in the order of their starts.
pub(crate) struct Tape<'t> {
    outcomes: &'t [RecordedOutcome],
    starts: Vec<usize>,
}

impl<'t> Tape<'t> {
    pub(crate) fn new(recording: &'t Recording) -> Self {
        let outcomes = &recording.outcomes[..];
        let takes_time = |index: &usize| outcomes[*index].started() < outcomes[*index].ended;
        let mut starts: Vec<usize> = (0..outcomes.len()).filter(takes_time).collect();
        starts.sort_by_key(|index| outcomes[*index].started());
        Self { outcomes, starts }
    }

    /// Replays it through a breaker with settings that change as in `plan`, which is not empty. `end`:
    /// of the whole trace, which other dependencies may have filled further.
    pub(crate) fn play(&self, plan: &[(Time, BreakerSettings)], end: Time) -> ReplayResult {
        let mut starts = self.starts.iter().copied().peekable();
        let mut begin = plan[0].0;
        if let Some(first) = self.outcomes.first() {
            begin = begin.min(first.started());
        }
        if let Some(first) = starts.peek() {
            begin = begin.min(self.outcomes[*first].started());
        }
        let mut machine = ReplayMachine::new(self.outcomes, plan, begin);
        for (index, one) in self.outcomes.iter().enumerate() {
            let is_before = |next: &usize| self.outcomes[*next].started() < one.ended;
            while let Some(next) = starts.next_if(is_before) {
                machine.start(next);
            }
            if one.started() >= one.ended {
                machine.start(index);
            }
            machine.end(index);
        }
        machine.finish(end)
    }
}

/// An admitted call.
struct AdmittedCall {
    permit: Permit,
    /// True if it was counted as slow while it was running.
    overdue: bool,
}

struct ReplayMachine<'t> {
    outcomes: &'t [RecordedOutcome],
    breaker: Breaker,
    now: Time,
    changes: &'t [(Time, BreakerSettings)],
    /// Running calls, by the index of their outcome.
    running: Vec<Option<AdmittedCall>>,
    /// Times at which calls in flight become slow, the first one on top (rule BRK-9).
    slow: BinaryHeap<Reverse<(Time, usize)>>,
    /// A generation, and its number of slow calls that are still running.
    overdue: (u64, u64),
    opened: Option<Time>,
    books: ReplayResult,
}

impl<'t> ReplayMachine<'t> {
    fn new(
        outcomes: &'t [RecordedOutcome],
        plan: &'t [(Time, BreakerSettings)],
        begin: Time,
    ) -> Self {
        let mut running = Vec::new();
        running.resize_with(outcomes.len(), || None);
        Self {
            outcomes,
            breaker: Breaker::new(plan[0].1.clone(), begin),
            now: begin,
            changes: &plan[1..],
            running,
            slow: BinaryHeap::new(),
            overdue: (0, 0),
            opened: None,
            books: ReplayResult::default(),
        }
    }

    fn start(&mut self, index: usize) {
        let one = &self.outcomes[index];
        let (started, class) = (one.started(), one.outcome.class);
        self.pass_until(started);
        self.books.calls += 1;
        self.books.failures += u64::from(class == Class::Failure);
        match self.breaker.admit(started) {
            Ok(permit) => {
                self.running[index] = Some(AdmittedCall {
                    permit,
                    overdue: false,
                });
                let settings = self.breaker.settings();
                if let (Some(slow), Some(_)) = (settings.slow_call, settings.slow_rate)
                    && one.outcome.elapsed > slow
                {
                    self.slow.push(Reverse((started.after(slow), index)));
                }
            }
            Err(_) => {
                self.books.refused += 1;
                self.books.refused_failures += u64::from(class == Class::Failure);
                self.books.refused_successes += u64::from(class == Class::Success);
            }
        }
        self.note_moves();
    }

    fn end(&mut self, index: usize) {
        let one = &self.outcomes[index];
        self.pass_until(one.ended);
        let Some(AdmittedCall { permit, overdue }) = self.running[index].take() else {
            return;
        };
        if overdue && permit.generation() == self.breaker.generation() {
            let left = self.count_overdue(0).saturating_sub(1);
            self.overdue.1 = left;
            self.breaker.set_overdue(one.ended, left, &mut no_jitter);
        }
        self.breaker
            .record(one.ended, permit, &one.outcome, &mut no_jitter);
        self.note_moves();
    }

    /// Adds to the overdue calls of the current generation, and returns their number.
    fn count_overdue(&mut self, more: u64) -> u64 {
        let generation = self.breaker.generation();
        if self.overdue.0 != generation {
            self.overdue = (generation, 0);
        }
        self.overdue.1 += more;
        self.overdue.1
    }

    /// Advances the time; each event due on the way is processed at its own time.
    fn pass_until(&mut self, now: Time) {
        while let Some(at) = self.next_moment().filter(|at| *at <= now) {
            self.now = at;
            self.breaker.on_time(at, &mut no_jitter);
            while let Some((from, settings)) = self.changes.first()
                && *from <= at
            {
                self.breaker.reconfigure(at, settings.clone());
                self.changes = &self.changes[1..];
            }
            self.note_overdue(at);
            self.note_moves();
        }
        self.now = self.now.max(now);
    }

    /// Returns the time of the next event that is not the start or end of a call.
    fn next_moment(&mut self) -> Option<Time> {
        let now = self.now;
        // The breaker handles a deadline at this very time by itself, in the next call to it.
        let deadline = self.breaker.next_deadline().filter(|at| *at > now);
        let change = self.changes.first().map(|(at, _)| (*at).max(now));
        let slow = self.slow.peek().map(|Reverse((at, _))| (*at).max(now));
        let first = [deadline, change, slow].into_iter().flatten().min();
        if self.count_overdue(0) == 0 || self.breaker.state() != State::Closed {
            return first;
        }
        // When successes leave the window, the overdue calls may exceed the threshold.
        let width = self.breaker.success_bucket();
        let forgets = width.filter(|_| self.breaker.view(now).counts.calls > 0);
        let forgets = forgets.and_then(|width| next_multiple(now, width));
        [first, forgets].into_iter().flatten().min()
    }

    fn note_overdue(&mut self, at: Time) {
        let generation = self.breaker.generation();
        let mut more = 0;
        while let Some(Reverse((due, index))) = self.slow.peek().copied()
            && due <= at
        {
            self.slow.pop();
            if let Some(call) = &mut self.running[index]
                && call.permit.generation() == generation
            {
                call.overdue = true;
                more += 1;
            }
        }
        let overdue = self.count_overdue(more);
        if overdue > 0 {
            self.breaker.set_overdue(at, overdue, &mut no_jitter);
        }
    }

    fn note_moves(&mut self) {
        while let Some(event) = self.breaker.poll_event() {
            let BreakerEvent::Transition {
                from,
                to,
                at,
                cause,
                retry_after: wait,
                ..
            } = event
            else {
                continue;
            };
            if let Some(opened) = self.opened.take() {
                self.books.open += at.since(opened);
            }
            if to == State::Open {
                self.opened = Some(at);
                self.books.trips += 1;
            }
            self.books.moves.push(ReplayMove {
                at,
                from,
                to,
                cause,
                wait,
            });
        }
    }

    fn finish(mut self, end: Time) -> ReplayResult {
        // A breaker that stays open refuses to the end, whether or not it is called again.
        self.pass_until(end);
        if let Some(opened) = self.opened.take() {
            self.books.open += self.now.since(opened);
        }
        self.books
    }
}

fn no_jitter() -> f64 {
    0.0
}

fn next_multiple(now: Time, width: Duration) -> Option<Time> {
    let width = u64::try_from(width.as_nanos()).ok()?;
    let next = (now.as_nanos().checked_div(width)? + 1).checked_mul(width)?;
    Some(Time::from_nanos(next))
}
