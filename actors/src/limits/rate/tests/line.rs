//! The queue of waiting calls, compared with a simple model that advances one millisecond at a
//! time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;
use tokio::task::LocalSet;

use super::*;

/// Calls arrive at multiples of this. A caller gives up in between, each at a distinct time.
const GRID: u64 = 100;

#[derive(Debug, Clone, Copy)]
struct Call {
    at: u64,
    weight: u32,
    deadline: Option<u64>,
    leaves: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was admitted.
    Out(u64),
    Refused(u64),
    TooHeavy,
    /// Its caller gave up while it waited.
    Left(u64),
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    /// Nanoseconds until a unit comes back.
    unit: u64,
    burst: u32,
    max_wait: u64,
}

/// At most `most` calls in so many moments. Each deadline is less than `deadline` milliseconds
/// away.
fn calls(most: usize, moments: u64, deadline: u64) -> impl Strategy<Value = Vec<Call>> {
    let call = (
        0..moments,
        1..7_u32,
        prop::option::of(0..deadline),
        prop::option::weighted(0.3, 0..40_u64),
    );
    prop::collection::vec(call, 1..most).prop_map(|calls| {
        let numbered = calls.into_iter().zip(1..);
        let mut calls: Vec<Call> = numbered
            .map(|((at, weight, deadline, leaves), number)| Call {
                at: at * GRID,
                weight,
                deadline: deadline.map(|after| at * GRID + after),
                leaves: leaves.map(|after| (at + after) * GRID + number),
            })
            .collect();
        calls.sort_by_key(|call| call.at);
        calls
    })
}

/// The results of the calls on the real limit.
fn real(rules: Rules, calls: &[Call]) -> Vec<End> {
    let paused = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let settings = RateLimitSettings {
        rate: 1.0,
        per: Duration::from_nanos(rules.unit),
        burst: NonZeroU32::new(rules.burst).unwrap(),
        max_wait: Duration::from_millis(rules.max_wait),
    };
    LocalSet::new().block_on(&paused, async {
        let limit = Rc::new(RateLimit::new(&settings, Clock::tokio()));
        let ends = Rc::new(RefCell::new(vec![None; calls.len()]));
        let mut tasks = Vec::new();
        for (number, call) in calls.iter().copied().enumerate() {
            limit.clock.sleep_until(Time::from_millis(call.at)).await;
            let (limit, ends) = (Rc::clone(&limit), Rc::clone(&ends));
            tasks.push(tokio::task::spawn_local(async move {
                let end = one(&limit, call).await;
                ends.borrow_mut()[number] = Some(end);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(limit.waiting.load(Ordering::Relaxed), 0);
        let ends = ends.borrow();
        ends.iter().map(|end| end.unwrap()).collect()
    })
}

async fn one(limit: &RateLimit, call: Call) -> End {
    let now = || limit.clock.now().as_millis();
    let weight = NonZeroU32::new(call.weight).unwrap();
    if limit.try_enter(weight, limit.clock.now()) {
        return End::Out(now());
    }
    let leaves = async {
        match call.leaves {
            Some(at) => limit.clock.sleep_until(Time::from_millis(at)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        entered = limit.enter(weight, call.deadline.map(Time::from_millis)) => match entered {
            Ok(()) => End::Out(now()),
            Err(TooFast::NotBefore(_)) => End::Refused(now()),
            Err(TooFast::TooHeavy) => End::TooHeavy,
        },
        () = leaves => End::Left(now()),
    }
}

/// A token bucket, with a queue in front of it.
#[derive(Clone)]
struct Model {
    rules: Rules,
    now: u64,
    /// Fill level, in nanoseconds of refill.
    level: u64,
    line: VecDeque<(usize, u32)>,
}

impl Model {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            now: 0,
            level: rules.unit * u64::from(rules.burst),
            line: VecDeque::new(),
        }
    }

    /// Advances time by a millisecond.
    fn step(&mut self) {
        let full = self.rules.unit * u64::from(self.rules.burst);
        self.level = full.min(self.level + 1_000_000);
        self.now += 1;
    }

    /// Returns the calls that are admitted now.
    fn out(&mut self) -> Vec<usize> {
        let mut out = Vec::new();
        while let Some((number, weight)) = self.line.front().copied() {
            let needed = self.rules.unit * u64::from(weight);
            if self.level < needed {
                break;
            }
            self.level -= needed;
            self.line.pop_front();
            out.push(number);
        }
        out
    }

    /// Returns the admission time of the last waiter if none gives up.
    fn forecast(&self) -> u64 {
        let mut future = self.clone();
        loop {
            future.out();
            if future.line.is_empty() {
                return future.now;
            }
            future.step();
        }
    }

    fn run(mut self, calls: &[Call]) -> Vec<End> {
        let mut ends = vec![None; calls.len()];
        let mut next = 0;
        while next < calls.len() || !self.line.is_empty() {
            for number in self.out() {
                ends[number] = Some(End::Out(self.now));
            }
            while let Some(call) = calls.get(next).filter(|call| call.at == self.now) {
                self.line.push_back((next, call.weight));
                let refusal = if call.weight > self.rules.burst {
                    Some(End::TooHeavy)
                } else {
                    let at = self.forecast();
                    let late = call.deadline.is_some_and(|end| at >= end);
                    let free = at == self.now && self.line.len() == 1;
                    let refused = late || at - self.now > self.rules.max_wait;
                    (refused && !free).then_some(End::Refused(self.now))
                };
                if refusal.is_some() {
                    self.line.pop_back();
                    ends[next] = refusal;
                }
                for number in self.out() {
                    ends[number] = Some(End::Out(self.now));
                }
                next += 1;
            }
            self.line.retain(|(number, _)| {
                let stays = calls[*number].leaves != Some(self.now);
                if !stays {
                    ends[*number] = Some(End::Left(self.now));
                }
                stays
            });
            for number in self.out() {
                ends[number] = Some(End::Out(self.now));
            }
            self.step();
        }
        ends.into_iter().map(|end| end.unwrap()).collect()
    }
}

/// Checks the invariants that do not depend on the model.
fn check(rules: Rules, calls: &[Call], ends: &[End]) -> Result<(), TestCaseError> {
    let out: Vec<(u64, u32)> = calls
        .iter()
        .zip(ends)
        .filter_map(|(call, end)| match end {
            End::Out(at) => Some((*at, call.weight)),
            _ => None,
        })
        .collect();
    prop_assert!(out.is_sorted_by_key(|(at, _)| *at), "out of order: {out:?}");
    for (first, (begin, _)) in out.iter().enumerate() {
        let mut units = 0;
        for (end, weight) in &out[first..] {
            units += u64::from(*weight);
            let most = rules.unit * u64::from(rules.burst) + (end - begin) * 1_000_000;
            prop_assert!(
                units * rules.unit <= most,
                "{units} units in {begin}..{end}"
            );
        }
    }
    for (call, end) in calls.iter().zip(ends) {
        match *end {
            End::Out(at) if at > call.at => {
                prop_assert!(call.deadline.is_none_or(|deadline| at < deadline));
            }
            End::Refused(at) => prop_assert_eq!(at, call.at, "refused at once"),
            _ => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn lim_2_and_lim_3_the_line_does_what_the_model_does(
        calls in calls(40, 25, 3_000),
        unit in 1..4_u64,
        burst in 1..6_u32,
        max_wait in 0..60_u64,
    ) {
        let unit = unit * GRID * 1_000_000;
        let rules = Rules { unit, burst, max_wait: max_wait * GRID };
        let ends = real(rules, &calls);
        check(rules, &calls, &ends)?;
        prop_assert_eq!(ends, Model::new(rules).run(&calls));
    }

    /// Units that are no whole milliseconds: timers fire late. No accepted call misses its deadline
    /// as long as no caller gives up.
    #[test]
    fn lim_2_and_lim_3_the_line_holds_what_it_promises_on_coarse_timers(
        calls in calls(90, 3, 100),
        unit in 50_000..5_000_000_u64,
        burst in 1..4_u32,
        max_wait in 0..60_u64,
    ) {
        let rules = Rules { unit, burst, max_wait: max_wait * GRID };
        let calls: Vec<Call> = calls.into_iter().map(|call| Call { leaves: None, ..call }).collect();
        check(rules, &calls, &real(rules, &calls))?;
    }
}
