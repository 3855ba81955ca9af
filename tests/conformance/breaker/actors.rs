//! Replays composition scenarios through a real runtime on virtual time.
//!
//! Breaker, retry, bulkhead, timeouts and fallback come from the scenario's configuration, in the
//! runtime's one fixed order. A scenario that asks for another order, or uses a word that the
//! runtime does not have, is left to the kernel's replay.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{
    Answer, AnswerSource, CallContext, CallError, CallOptions, Client, Dependency, Fixed, Verdict,
};
use breakerbox_policy::{
    BackoffSettings, Class, DependencySettings, Intensity, OverrideMode, RetryJitter, State, Time,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::layers::RetryLayer;
use super::words::{any_number, number, span, steps, text, time, unknown};
use super::{Outcome, config, expect};
use crate::report::Verdict as Report;

/// The layers from the outside in; a timeout stands outside for the total, inside for an attempt.
const ORDER: [&str; 5] = ["fallback", "retry", "breaker", "bulkhead", "timeout"];

/// Replays a scenario.
///
/// # Errors  [`Report::Skip`] when it has no counterpart among the actors.
pub(super) fn replay(scenario: &Value) -> Outcome {
    let config = &scenario["config"];
    let layers: Vec<&str> = config["order"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let stack = if layers.iter().all(|layer| layer.starts_with("breaker:")) {
        layers
            .iter()
            .map(|layer| {
                Ok((
                    layer["breaker:".len()..].to_owned(),
                    plan(config, &[layer])?,
                ))
            })
            .collect::<Outcome<Vec<_>>>()?
    } else {
        vec![("breaker".to_owned(), plan(config, &layers)?)]
    };
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let mut replay = Replay::start(&runtime, stack).await;
        let outcome = replay.run(scenario).await;
        replay.abandon().await;
        runtime.finish().await;
        outcome
    })
}

/// What a dependency is configured with.
struct Plan {
    settings: DependencySettings,
    /// Whether a failure is tried again; a refusal may be all the same.
    idempotent: bool,
    fallback: bool,
    ignored: Vec<String>,
}

/// Turns the layers into settings.
fn plan(config: &Value, layers: &[&str]) -> Outcome<Plan> {
    let mut plan = Plan {
        settings: bare(),
        idempotent: true,
        fallback: false,
        ignored: Vec::new(),
    };
    let mut last = 0;
    for (index, layer) in layers.iter().enumerate() {
        let (kind, own) = (layer.split(':').next().unwrap_or(layer), &config[*layer]);
        let total = kind == "timeout" && !layers[..index].contains(&"breaker");
        let place = ORDER.iter().position(|known| *known == kind);
        let place = place.ok_or_else(|| unknown("layer", layer))?;
        if !total {
            if place < last || (kind != "timeout" && place == last && index > 0) {
                return Err(unknown("order of layers", layers.join(", ")));
            }
            last = place;
        } else if layers[..index].contains(&"retry") {
            return Err(unknown("order of layers", layers.join(", ")));
        }
        let settings = &mut plan.settings;
        match kind {
            "fallback" => plan.fallback = true,
            "retry" => {
                let retry = RetryLayer::new(own)?;
                let on = |word: &str| retry.on.iter().any(|known| known == word);
                settings.retry = retry.settings.clone();
                settings.retry.on_open = on("breaker_open");
                settings.timeout.total = settings.timeout.total.or(retry.max_duration);
                plan.idempotent = on("failure");
            }
            "breaker" => {
                if !own["classify"].is_null() || !own["initial_state"].is_null() {
                    return Err(unknown("breaker's word", "classify or initial_state"));
                }
                settings.breaker = config::breaker(own)?;
                let ignored = own["ignored"].as_array().into_iter().flatten();
                plan.ignored = ignored.filter_map(Value::as_str).map(Into::into).collect();
            }
            "bulkhead" => {
                settings.bulkhead.max_concurrent = config::count(number(own, "max_concurrent")?)?;
                let queue = any_number(own, &["queue", "max_queue"]).unwrap_or(0);
                settings.bulkhead.max_queue = u32::try_from(queue).unwrap_or(u32::MAX);
            }
            _ => {
                let limit = span(&own["ms"]).or_else(|| span(&own["timeout_ms"]));
                let limit = Some(limit.ok_or_else(|| unknown("timeout", own))?);
                if total {
                    settings.timeout.total = limit;
                } else {
                    settings.timeout.attempt = limit;
                }
            }
        }
    }
    Ok(plan)
}

/// Settings in which each layer is as good as left out.
fn bare() -> DependencySettings {
    let mut settings = DependencySettings::default();
    settings.timeout.attempt = None;
    settings.timeout.total = None;
    settings.bulkhead.max_concurrent = 1_000.try_into().expect("not zero");
    settings.bulkhead.max_wait = Duration::from_secs(3_600);
    settings.workers.quarantine = None;
    settings.workers.intensity = Intensity {
        max: u32::MAX,
        within: Duration::from_secs(1),
    };
    settings.workers.backoff = BackoffSettings {
        base: Duration::ZERO,
        jitter: RetryJitter::None,
        ..settings.workers.backoff
    };
    settings
}

/// What the dependency is asked.
#[derive(Clone)]
enum Ask {
    /// Follow this script, a word an execution.
    Follow(Arc<Mutex<VecDeque<(String, Duration)>>>),
    /// Wait for the word.
    Wait(Arc<Mutex<Option<oneshot::Receiver<String>>>>),
}

/// The dependency: it says what the scenario says.
struct Actor {
    executions: Arc<Mutex<u64>>,
}

/// The word that it failed with, and what it counts for.
#[derive(Debug, Clone)]
struct Said {
    word: String,
    class: Class,
}

impl std::fmt::Display for Said {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.word)
    }
}

impl Dependency for Actor {
    type Request = (Ask, Vec<String>);
    type Response = String;
    type Error = Said;

    async fn call(&self, (ask, ignored): Self::Request, _: &CallContext) -> Result<String, Said> {
        *lock(&self.executions) += 1;
        let word = match ask {
            Ask::Follow(script) => {
                let next = lock(&script).pop_front();
                let (word, took) = next.expect("a script as long as the executions");
                tokio::time::sleep(took).await;
                word
            }
            Ask::Wait(word) => {
                let word = lock(&word).take().expect("one execution");
                word.await.expect("a word")
            }
        };
        let class = match &*word {
            word if ignored.iter().any(|known| known == word) => Class::Rejected,
            "success" => return Ok(word),
            "panic" => std::panic::resume_unwind(Box::new("told to panic")),
            "ignored" | "rejected" => Class::Rejected,
            "throttled" => Class::Throttled,
            _ => Class::Failure,
        };
        Err(Said { word, class })
    }

    fn classify(result: Result<&String, &Said>) -> Verdict {
        Verdict::from(result.map_or_else(|said| said.class, |_| Class::Success))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Reply = Result<Answer<String>, CallError<Said>>;

/// A call that is under way.
struct Flight {
    reply: JoinHandle<Reply>,
    word: oneshot::Sender<String>,
}

struct Replay<'a> {
    runtime: &'a TestRuntime,
    /// From the outside in.
    breakers: Vec<(String, Client<Actor>)>,
    idempotent: bool,
    ignored: Vec<String>,
    executions: Arc<Mutex<u64>>,
    flights: HashMap<String, Flight>,
}

/// What became of a step.
#[derive(Default)]
struct Happened {
    words: Vec<&'static str>,
    admitted: Option<bool>,
    attempts: Option<u32>,
    executions: u64,
    began: Time,
}

impl<'a> Replay<'a> {
    async fn start(runtime: &'a TestRuntime, stack: Vec<(String, Plan)>) -> Self {
        let executions: Arc<Mutex<u64>> = Arc::default();
        let mut replay = Self {
            runtime,
            breakers: Vec::new(),
            idempotent: true,
            ignored: Vec::new(),
            executions: Arc::clone(&executions),
            flights: HashMap::new(),
        };
        for (name, plan) in stack {
            let executions = Arc::clone(&executions);
            let mut new = runtime
                .dependency(&name)
                .settings(plan.settings)
                .workers(move || Actor {
                    executions: Arc::clone(&executions),
                });
            if plan.fallback {
                new = new.fallback(Fixed("fallback".to_owned()));
            }
            let client = new.start().await.expect("the dependency starts");
            replay.breakers.push((name, client));
            replay.idempotent = plan.idempotent;
            replay.ignored = plan.ignored;
        }
        replay
    }

    /// Lets go of what the scenario left under way.
    async fn abandon(&mut self) {
        for (_, flight) in self.flights.drain() {
            flight.reply.abort();
            // It ends as cancelled; nothing else can be in it.
            let _ = flight.reply.await;
        }
    }

    async fn run(&mut self, scenario: &Value) -> Outcome {
        for (number, step) in steps(scenario) {
            let clock = self.runtime.clock();
            clock.sleep_until(time(step)?).await;
            let before = *lock(&self.executions);
            let mut happened = Happened {
                began: clock.now(),
                ..Happened::default()
            };
            self.step(step, &mut happened).await?;
            happened.executions = *lock(&self.executions) - before;
            for (word, expected) in step["expect"].as_object().into_iter().flatten() {
                self.check(number, word, expected, &happened)?;
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Value, happened: &mut Happened) -> Outcome {
        match text(step, "op")? {
            "protected_call" => {
                let script = step["script"].as_array().into_iter().flatten();
                let script = script.map(|item| {
                    let word = item.as_str().or_else(|| item["outcome"].as_str());
                    let took = span(&item["took_ms"]).unwrap_or_default();
                    Ok((
                        word.ok_or_else(|| unknown("script", item))?.to_owned(),
                        took,
                    ))
                });
                let script = script.collect::<Outcome<VecDeque<_>>>()?;
                let reply = self.ask(Ask::Follow(Arc::new(Mutex::new(script)))).await;
                happened.note(&reply);
            }
            "call" => {
                let took = span(&step["took_ms"]).unwrap_or_default();
                let script = VecDeque::from([(text(step, "outcome")?.to_owned(), took)]);
                let reply = self.ask(Ask::Follow(Arc::new(Mutex::new(script)))).await;
                happened.note(&reply);
            }
            "start" => {
                let (word, waits) = oneshot::channel();
                let ask = self.ask(Ask::Wait(Arc::new(Mutex::new(Some(waits)))));
                let mut flight = Flight {
                    reply: tokio::task::spawn_local(ask),
                    word,
                };
                // Virtual time: it passes when everybody waits.
                let at_once = Duration::from_nanos(1);
                match tokio::time::timeout(at_once, &mut flight.reply).await {
                    Ok(reply) => happened.note(&reply.expect("no panic")),
                    Err(_under_way) => {
                        happened.words = vec!["running", "admitted", "queued", "waiting"];
                        happened.admitted = Some(true);
                        let id = text(step, "id")?.to_owned();
                        self.flights.insert(id, flight);
                    }
                }
            }
            "finish" => {
                let word = text(step, "outcome")?;
                if ["released", "cancelled"].contains(&word) {
                    return Err(unknown("outcome", word));
                }
                let id = text(step, "id")?;
                let flight = self.flights.remove(id).ok_or_else(|| unknown("id", id))?;
                // A call whose execution has been given up takes no word.
                let _ = flight.word.send(word.to_owned());
                happened.note(&flight.reply.await.expect("no panic"));
            }
            "observe" => {}
            op => return Err(unknown("op", op)),
        }
        Ok(())
    }

    /// One call through everything. With two breakers, the outer one runs a closure that calls
    /// the inner one; what the inner one refuses says nothing about the outer one's dependency.
    fn ask(&self, ask: Ask) -> impl Future<Output = Reply> + use<> {
        let request = (ask, self.ignored.clone());
        let options = CallOptions {
            idempotent: Some(self.idempotent),
            ..CallOptions::default()
        };
        let clients: Vec<Client<Actor>> =
            self.breakers.iter().map(|(_, one)| one.clone()).collect();
        async move {
            let (inner, outer) = clients.split_last().expect("a dependency");
            let Some(outer) = outer.first() else {
                return inner.ask_with(request, options).await;
            };
            let by_reply = |reply: &Result<Answer<String>, CallError<Said>>| match reply {
                Ok(_) => Verdict::from(Class::Success),
                Err(error) if error.is_refusal() => Verdict::from(Class::Rejected),
                Err(_) => Verdict::from(Class::Failure),
            };
            let work = || inner.ask_with(request.clone(), options.clone());
            match outer.run_with(options.clone(), by_reply, work).await {
                Ok(answer) => Ok(answer),
                Err(CallError::Failed { error, .. }) => Err(error),
                Err(CallError::Open(refused)) => Err(CallError::Open(refused)),
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn check(&self, step: usize, word: &str, expected: &Value, happened: &Happened) -> Outcome {
        let same = |got: Value| expect::same(step, word, expected, got);
        match word {
            "admitted" => same(json!(happened.admitted)),
            "propagates" | "result" | "final" => {
                let words: Vec<Value> = happened.words.iter().map(|word| json!(word)).collect();
                expect::any(step, word, expected, &words)
            }
            "executions" => {
                let both = [json!(*lock(&self.executions)), json!(happened.executions)];
                expect::any(step, word, expected, &both)
            }
            // An error does not tell how often it was tried.
            "attempts" => happened.attempts.map_or(Ok(()), |got| same(json!(got))),
            "breaker_recorded" => {
                let tally = self.breakers[0].1.status().tally;
                for (word, expected) in expected.as_object().into_iter().flatten() {
                    let got = match word.as_str() {
                        "total" => tally.recorded,
                        "failed" => tally.failures,
                        "succeeded" => tally.successes,
                        word => return Err(unknown("breaker_recorded", word)),
                    };
                    expect::same(step, word, expected, got)?;
                }
                Ok(())
            }
            "state" => self.check_state(step, &self.breakers[0], expected),
            "states" => {
                for (name, expected) in expected.as_object().into_iter().flatten() {
                    let found = self.breakers.iter().find(|(known, _)| known == name);
                    let found = found.ok_or_else(|| unknown("breaker", name))?;
                    self.check_state(step, found, expected)?;
                }
                Ok(())
            }
            "finished_between_ms" => {
                let (Some(low), Some(high)) = (span(&expected[0]), span(&expected[1])) else {
                    return Err(unknown("finished_between_ms", expected));
                };
                let now = self.runtime.clock().now();
                let took = now.since(happened.began);
                let within = |at: Duration| low <= at && at <= high;
                if within(took) || within(now.since(Time::ZERO)) {
                    return Ok(());
                }
                let expected = format!("an end between {low:?} and {high:?}");
                Err(Report::fail(step, expected, format!("{took:?}")))
            }
            word => Err(unknown("expectation", word)),
        }
    }

    fn check_state(
        &self,
        step: usize,
        (name, client): &(String, Client<Actor>),
        expected: &Value,
    ) -> Outcome {
        let status = client.status();
        let got = match (status.overridden.map(|set| set.mode), status.state) {
            (Some(OverrideMode::ForcedOpen), _) => "forced_open",
            (Some(OverrideMode::Disabled), _) => "disabled",
            (Some(OverrideMode::Shadow), _) => "metrics_only",
            (None, State::Closed) => "closed",
            (None, State::Open) => "open",
            (None, State::HalfOpen) => "half_open",
        };
        // Half-open that nobody has probed yet may as well be called open.
        let untouched = status
            .half_open
            .is_some_and(|period| period.in_flight == 0 && period.results == 0);
        if expected.as_str() == Some(got) || (expected == "open" && untouched) {
            return Ok(());
        }
        let expected = expected.as_str().unwrap_or("a state");
        Err(Report::fail(step, format!("{name} {expected}"), got))
    }
}

impl Happened {
    fn note(&mut self, reply: &Reply) {
        self.attempts = reply.as_ref().ok().map(|answer| answer.attempts);
        let refused = reply.as_ref().err().is_some_and(CallError::is_refusal);
        self.admitted = Some(!refused);
        self.words = match reply {
            Ok(answer) if answer.source == AnswerSource::Primary => {
                vec!["success", "dependency_success"]
            }
            Ok(_) => vec!["fallback"],
            Err(CallError::Failed { error, .. }) if error.class == Class::Rejected => {
                vec!["ignored", "dependency_ignored", "rejected"]
            }
            Err(CallError::Failed { .. }) => vec!["failure", "dependency_failure"],
            Err(CallError::Open(_)) => vec!["breaker_open", "breaker_rejected", "rejected"],
            Err(CallError::Overloaded { .. }) => {
                vec!["bulkhead_rejected", "bulkhead_full", "rejected"]
            }
            Err(CallError::TimedOut { .. }) => vec!["timeout", "timed_out"],
            Err(CallError::WorkerCrashed { .. }) => vec!["panic", "dependency_panic"],
            Err(_) => Vec::new(),
        };
    }
}
