//! Replays breaker and composition scenarios: calls through layers, in virtual time.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use breakerbox_policy::{Attempt, AttemptEnd, Class, Executed, Permit, Retry, RetryDecision, Time};
use serde_json::{Value, json};

use super::layers::{Guard, Layer, middle};
use super::slots::SlotEntry;
use super::words::{span, steps, text, time, unknown};
use super::{Outcome, expect};
use crate::report::Verdict;

/// Replays a scenario; where a run of failures is its only rule, by both kinds of window.
pub(super) fn replay(scenario: &Value) -> Outcome {
    Stack::new(scenario, false)?.run(scenario)?;
    if is_consecutive(&scenario["config"]) {
        Stack::new(scenario, true)?.run(scenario)?;
    }
    Ok(())
}

fn is_consecutive(config: &Value) -> bool {
    config["window"]["kind"] == "none"
        && config["trip_any_of"].as_array().is_some_and(|rules| {
            rules
                .iter()
                .all(|rule| rule["rule"] == "consecutive_failures")
        })
}

/// How a call ended, or where it is.
#[derive(Debug, Clone, PartialEq)]
enum End {
    Running,
    Queued,
    Ran(String),
    /// Cut off by a timeout further out.
    Cut,
    BreakerRejected,
    BulkheadRejected,
    Fallback,
}

impl End {
    /// What scenarios call it.
    fn words(&self) -> Vec<Value> {
        let words: &[&str] = match self {
            Self::Running => &["running", "admitted"],
            Self::Queued => &["queued", "waiting"],
            Self::Ran(word) if word == "failure" => &["failure", "dependency_failure"],
            Self::Ran(word) => return vec![json!(word), json!(format!("dependency_{word}"))],
            Self::Cut => &["timeout", "timed_out"],
            Self::BreakerRejected => &["breaker_open", "breaker_rejected", "rejected"],
            Self::BulkheadRejected => &["bulkhead_rejected", "bulkhead_full", "rejected"],
            Self::Fallback => &["fallback"],
        };
        words.iter().map(|word| json!(word)).collect()
    }

    fn is_local_rejection(&self) -> bool {
        matches!(self, Self::BreakerRejected | Self::BulkheadRejected)
    }
}

/// What one call holds.
enum Held {
    Permit(usize, Permit),
    Place(usize),
}

struct Flight {
    held: Vec<Held>,
    started: Time,
    /// The first layer that it has not passed; beyond the last when it runs.
    next: usize,
}

/// What became of one step.
#[derive(Default)]
struct Happened {
    admitted: Option<bool>,
    end: Option<End>,
    refused_command: bool,
    answer: Option<&'static str>,
    attempts: u64,
    executions: u64,
    started: Time,
}

struct Stack {
    layers: Vec<Layer>,
    /// Whether the window is a run of failures, whose counts mean something else.
    consecutive: bool,
    flights: HashMap<String, Flight>,
    queue: VecDeque<String>,
    now: Time,
    executions: u64,
    rejected: u64,
    asked_ok: u64,
    asked_blown: u64,
    melted: u64,
}

impl Stack {
    fn new(scenario: &Value, consecutive: bool) -> Outcome<Self> {
        let config = &scenario["config"];
        let layers = match config["order"].as_array() {
            Some(order) => order
                .iter()
                .map(|name| {
                    let name = name.as_str().ok_or_else(|| unknown("layer", name))?;
                    Layer::new(name, config, consecutive)
                })
                .collect::<Outcome<Vec<_>>>()?,
            None => vec![Layer::new(
                "breaker",
                &json!({ "breaker": config }),
                consecutive,
            )?],
        };
        Ok(Self {
            layers,
            consecutive,
            flights: HashMap::new(),
            queue: VecDeque::new(),
            now: Time::ZERO,
            executions: 0,
            rejected: 0,
            asked_ok: 0,
            asked_blown: 0,
            melted: 0,
        })
    }

    fn run(&mut self, scenario: &Value) -> Outcome {
        for (number, step) in steps(scenario) {
            let happened = self.step(step)?;
            for (word, expected) in step["expect"].as_object().into_iter().flatten() {
                self.check(number, word, expected, &happened)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Value) -> Outcome<Happened> {
        self.now = self.now.max(time(step)?);
        let now = self.now;
        self.guards().for_each(|guard| guard.tick(now));
        let mut happened = Happened {
            started: now,
            ..Happened::default()
        };
        let executed = self.executions;
        match text(step, "op")? {
            "start" => self.start(text(step, "id")?, &mut happened)?,
            "finish" => self.finish(text(step, "id")?, step, &mut happened)?,
            "call" => {
                self.start("(call)", &mut happened)?;
                if happened.admitted == Some(true) {
                    let took = span(&step["took_ms"]).unwrap_or_default();
                    self.now = happened.started.after(took);
                    self.finish("(call)", step, &mut happened)?;
                }
            }
            "protected_call" => {
                let mut script = step["script"].as_array().cloned().unwrap_or_default();
                script.reverse();
                let end = self.call_through(0, &mut script, None, &mut happened)?;
                happened.admitted = Some(!end.is_local_rejection());
                happened.end = Some(end);
            }
            "control" => {
                let name = step["breaker"].as_str();
                let guard = self
                    .guards()
                    .find(|guard| name.is_none_or(|name| guard.name == name))
                    .ok_or_else(|| unknown("breaker", &step["breaker"]))?;
                happened.refused_command = guard.control(now, step)?;
            }
            "ask" => happened.answer = Some(self.ask()),
            "observe" => {}
            op => return Err(unknown("op", op)),
        }
        // A permit that an earlier step took may be given back in this one: a call fewer, and no
        // execution of this step.
        happened.executions = self.executions.saturating_sub(executed);
        Ok(happened)
    }

    fn guards(&mut self) -> impl Iterator<Item = &mut Guard> {
        self.layers.iter_mut().filter_map(|layer| match layer {
            Layer::Breaker(guard) => Some(&mut **guard),
            _ => None,
        })
    }

    /// A question that takes nothing (fuse).
    fn ask(&mut self) -> &'static str {
        let blown = self
            .guards()
            .any(|guard| matches!(guard.state(), "open" | "forced_open"));
        if blown {
            self.asked_blown += 1;
            "blown"
        } else {
            self.asked_ok += 1;
            "ok"
        }
    }

    fn start(&mut self, id: &str, happened: &mut Happened) -> Outcome {
        let flight = Flight {
            held: Vec::new(),
            started: self.now,
            next: 0,
        };
        let end = self.enter(id, flight)?;
        happened.admitted = Some(!end.is_local_rejection());
        happened.end = Some(end);
        Ok(())
    }

    /// Goes in as far as it can.
    fn enter(&mut self, id: &str, mut flight: Flight) -> Outcome<End> {
        while flight.next < self.layers.len() {
            let index = flight.next;
            flight.next += 1;
            let refused = match &mut self.layers[index] {
                Layer::Breaker(guard) => match guard.admit(self.now) {
                    Some(permit) => {
                        flight.held.push(Held::Permit(index, permit));
                        continue;
                    }
                    None => End::BreakerRejected,
                },
                Layer::Bulkhead(slots) => match slots.enter() {
                    SlotEntry::Runs => {
                        flight.held.push(Held::Place(index));
                        continue;
                    }
                    SlotEntry::Queued => {
                        self.flights.insert(id.into(), flight);
                        self.queue.push_back(id.into());
                        return Ok(End::Queued);
                    }
                    SlotEntry::Full => End::BulkheadRejected,
                },
                Layer::Timeout(_) => continue,
                Layer::Retry(_) => return Err(unknown("layer of a call in parts", "retry")),
                Layer::Fallback => return Err(unknown("layer of a call in parts", "fallback")),
            };
            self.rejected += 1;
            self.leave(flight, None, None)?;
            return Ok(refused);
        }
        self.executions += 1;
        self.flights.insert(id.into(), flight);
        Ok(End::Running)
    }

    fn finish(&mut self, id: &str, step: &Value, happened: &mut Happened) -> Outcome {
        let flight = self.flights.remove(id).ok_or_else(|| unknown("id", id))?;
        let word = text(step, "outcome")?;
        if let Some(position) = self.queue.iter().position(|waiter| waiter == id) {
            self.queue.remove(position);
            if let Some(Layer::Bulkhead(slots)) = self.layers.get_mut(flight.next - 1) {
                slots.give_up();
            }
        } else if word == "released" {
            self.executions -= 1;
        }
        if matches!(word, "failure" | "panic" | "timeout") {
            self.melted += 1;
        }
        self.leave(flight, Some(word), span(&step["retry_after_ms"]))?;
        happened.end = Some(End::Ran(word.into()));
        Ok(())
    }

    /// Goes out again, from the inside; without a word because a layer of ours refused.
    fn leave(&mut self, flight: Flight, word: Option<&str>, hint: Option<Duration>) -> Outcome {
        let (now, elapsed) = (self.now, self.now.since(flight.started));
        let mut promoted = false;
        for held in flight.held.into_iter().rev() {
            match held {
                Held::Permit(index, permit) => {
                    let Layer::Breaker(guard) = &mut self.layers[index] else {
                        continue;
                    };
                    match word {
                        Some(word) => guard.report(now, permit, word, elapsed, hint)?,
                        None => guard.report_local_rejection(now, permit)?,
                    }
                }
                Held::Place(index) => {
                    if let Layer::Bulkhead(slots) = &mut self.layers[index] {
                        promoted |= slots.leave();
                        if promoted {
                            self.promote(index)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The first of the queue has the place now.
    fn promote(&mut self, index: usize) -> Outcome {
        let Some(id) = self.queue.pop_front() else {
            return Ok(());
        };
        if let Some(mut flight) = self.flights.remove(&id) {
            flight.held.push(Held::Place(index));
            self.enter(&id, flight)?;
        }
        Ok(())
    }

    /// One call through the layers from `index` on; `script` is what the dependency would say,
    /// the last word first.
    fn call_through(
        &mut self,
        index: usize,
        script: &mut Vec<Value>,
        deadline: Option<Time>,
        happened: &mut Happened,
    ) -> Outcome<End> {
        let started = self.now;
        match self.layers.get_mut(index) {
            None => self.execute(script, deadline, happened),
            Some(Layer::Breaker(_)) => self.guarded(index, script, deadline, happened),
            Some(Layer::Bulkhead(slots)) => {
                if slots.enter() != SlotEntry::Runs {
                    self.rejected += 1;
                    return Ok(End::BulkheadRejected);
                }
                let end = self.call_through(index + 1, script, deadline, happened)?;
                if let Some(Layer::Bulkhead(slots)) = self.layers.get_mut(index)
                    && slots.leave()
                {
                    self.promote(index)?;
                }
                Ok(end)
            }
            Some(Layer::Timeout(limit)) => {
                let own = started.after(*limit);
                let until = deadline.map_or(own, |deadline| deadline.min(own));
                self.call_through(index + 1, script, Some(until), happened)
            }
            Some(Layer::Fallback) => {
                let end = self.call_through(index + 1, script, deadline, happened)?;
                let good = matches!(&end, End::Ran(word) if word == "success" || word == "ignored");
                Ok(if good { end } else { End::Fallback })
            }
            Some(Layer::Retry(_)) => self.retry(index, script, deadline, happened),
        }
    }

    fn guarded(
        &mut self,
        index: usize,
        script: &mut Vec<Value>,
        deadline: Option<Time>,
        happened: &mut Happened,
    ) -> Outcome<End> {
        let started = self.now;
        let Some(Layer::Breaker(guard)) = self.layers.get_mut(index) else {
            return Err(unknown("layer", index));
        };
        let Some(permit) = guard.admit(started) else {
            self.rejected += 1;
            return Ok(End::BreakerRejected);
        };
        let end = self.call_through(index + 1, script, deadline, happened)?;
        let now = self.now;
        let elapsed = now.since(started);
        if let Some(Layer::Breaker(guard)) = self.layers.get_mut(index) {
            match &end {
                End::Ran(word) => guard.report(now, permit, word, elapsed, None)?,
                End::Cut => guard.report(now, permit, "timeout", elapsed, None)?,
                End::Fallback => guard.report(now, permit, "success", elapsed, None)?,
                _ => guard.report_local_rejection(now, permit)?,
            }
        }
        Ok(end)
    }

    fn execute(
        &mut self,
        script: &mut Vec<Value>,
        deadline: Option<Time>,
        happened: &mut Happened,
    ) -> Outcome<End> {
        let Some(item) = script.pop() else {
            return Err(Verdict::Skip("script shorter than the executions".into()));
        };
        let word = item.as_str().or_else(|| item["outcome"].as_str());
        let word = word.ok_or_else(|| unknown("script", &item))?;
        let end = self.now.after(span(&item["took_ms"]).unwrap_or_default());
        self.executions += 1;
        happened.attempts = happened.attempts.max(1);
        if let Some(deadline) = deadline
            && end > deadline
        {
            self.now = deadline;
            return Ok(End::Cut);
        }
        self.now = end;
        Ok(End::Ran(word.into()))
    }

    fn retry(
        &mut self,
        index: usize,
        script: &mut Vec<Value>,
        deadline: Option<Time>,
        happened: &mut Happened,
    ) -> Outcome<End> {
        let started = self.now;
        let mut number = 0;
        loop {
            number += 1;
            let end = self.call_through(index + 1, script, deadline, happened)?;
            happened.attempts = u64::from(number);
            let Some(Layer::Retry(retry)) = self.layers.get(index) else {
                return Ok(end);
            };
            let own = retry.max_duration.map(|most| started.after(most));
            let rules = Retry::new(&retry.settings, own.or(deadline));
            let names = end.words();
            if !retry
                .on
                .iter()
                .any(|word| names.iter().any(|name| name == word))
            {
                return Ok(end);
            }
            let attempt = Attempt {
                refusals: 0,
                number,
                end: match &end {
                    End::Ran(word) if word == "success" => AttemptEnd::Ended(Class::Success),
                    End::BreakerRejected => AttemptEnd::RefusedByBreaker,
                    _ => AttemptEnd::Ended(Class::Failure),
                },
                executed: Executed::Maybe,
                idempotent: true,
                retry_after: None,
                symptom: None,
                waited: None,
                paused: None,
            };
            match rules.decide(self.now, &attempt, None, &mut middle) {
                RetryDecision::Again { after } => self.now = self.now.after(after),
                RetryDecision::Stop(_) => return Ok(end),
            }
        }
    }

    fn check(
        &mut self,
        number: usize,
        word: &str,
        expected: &Value,
        happened: &Happened,
    ) -> Outcome {
        let same = |got: Value| expect::same(number, word, expected, got);
        match word {
            "admitted" => same(json!(happened.admitted)),
            "answer" => same(json!(happened.answer)),
            "error" => same(if happened.refused_command {
                json!("illegal_transition")
            } else {
                Value::Null
            }),
            "propagates" | "result" | "final" => {
                let words = happened.end.as_ref().map(End::words).unwrap_or_default();
                expect::any(number, word, expected, &words)
            }
            "executions" => {
                let both = [json!(self.executions), json!(happened.executions)];
                expect::any(number, word, expected, &both)
            }
            "attempts" => same(json!(happened.attempts)),
            "rejected_total" => same(json!(self.rejected)),
            "ask_totals" => {
                for (word, expected) in expected.as_object().into_iter().flatten() {
                    let got = match word.as_str() {
                        "ok" => self.asked_ok,
                        "blown" => self.asked_blown,
                        "melt" => self.melted,
                        word => return Err(unknown("ask total", word)),
                    };
                    expect::same(number, word, expected, got)?;
                }
                Ok(())
            }
            "finished_between_ms" => self.check_finished(number, expected, happened),
            "states" => {
                for (name, expected) in expected.as_object().into_iter().flatten() {
                    self.guards()
                        .find(|guard| guard.name == *name)
                        .ok_or_else(|| unknown("breaker", name))?
                        .expect_state(number, expected)?;
                }
                Ok(())
            }
            "counts" | "at_trip" if self.consecutive => Ok(()),
            word => {
                let now = self.now;
                let refused = happened.admitted == Some(false);
                let guard = self.guards().next();
                let guard = guard.ok_or_else(|| unknown("expectation", word))?;
                expect::breaker(guard, number, word, expected, now, refused)
            }
        }
    }

    fn check_finished(&self, number: usize, expected: &Value, happened: &Happened) -> Outcome {
        let bounds = (span(&expected[0]), span(&expected[1]));
        let (Some(low), Some(high)) = bounds else {
            return Err(unknown("finished_between_ms", expected));
        };
        let within = |at: Duration| low <= at && at <= high;
        let at = self.now.since(Time::ZERO);
        if within(at) || within(self.now.since(happened.started)) {
            Ok(())
        } else {
            let expected = format!("an end between {low:?} and {high:?}");
            Err(Verdict::fail(number, expected, format!("{at:?}")))
        }
    }
}
