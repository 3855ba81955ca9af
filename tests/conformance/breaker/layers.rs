//! The layers of a scenario's call, each on its part of the kernel.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{
    BackoffSettings, Breaker, BreakerCause, BreakerCommand, BreakerEvent, BreakerSettings, Class,
    Outcome as Reported, OverrideMode, Permit, Refusal, RetryJitter, RetrySettings, State, Time,
    TripReason, WindowCounts,
};
use serde_json::Value;

use super::slots::Slots;
use super::words::{any_number, number, only_keys, span, text, unknown};
use super::{Outcome, config};
use crate::report::Verdict;

/// The random number of all replays.
pub(super) fn middle() -> f64 {
    0.5
}

pub(super) enum Layer {
    Breaker(Box<Guard>),
    Bulkhead(Slots),
    Retry(RetryLayer),
    Timeout(Duration),
    Fallback,
}

impl Layer {
    /// The layer of this name; its kind stands before the colon.
    pub(super) fn new(name: &str, config: &Value, consecutive: bool) -> Outcome<Self> {
        let (kind, own) = name.split_once(':').unwrap_or((name, name));
        let config = &config[name];
        Ok(match kind {
            "breaker" => Self::Breaker(Box::new(Guard::new(own, config, consecutive)?)),
            "bulkhead" => {
                only_keys(
                    config,
                    "bulkhead's word",
                    &["max_concurrent", "queue", "max_queue"],
                )?;
                let queue = any_number(config, &["queue", "max_queue"]);
                let queue = queue.and_then(|queue| u32::try_from(queue).ok());
                let slots = config::count(number(config, "max_concurrent")?)?;
                Self::Bulkhead(Slots::new(slots.get(), queue.unwrap_or(0)))
            }
            "retry" => Self::Retry(RetryLayer::new(config)?),
            "timeout" => {
                let limit = &config["ms"];
                let limit = if limit.is_null() {
                    &config["timeout_ms"]
                } else {
                    limit
                };
                Self::Timeout(span(limit).ok_or_else(|| unknown("timeout", config))?)
            }
            "fallback" => Self::Fallback,
            kind => return Err(unknown("layer", kind)),
        })
    }
}

/// A retry loop's rules, and the ends after which it goes on.
pub(super) struct RetryLayer {
    pub(super) settings: RetrySettings,
    pub(super) on: Vec<String>,
    pub(super) max_duration: Option<Duration>,
}

impl RetryLayer {
    pub(super) fn new(config: &Value) -> Outcome<Self> {
        let known = [
            "max_retries",
            "max_attempts",
            "delay_ms",
            "factor",
            "max_delay_ms",
            "max_duration_ms",
            "jitter",
            "retry_on",
        ];
        only_keys(config, "retry's word", &known)?;
        match config["jitter"].as_str() {
            None | Some("none") => {}
            Some(jitter) => return Err(unknown("jitter", jitter)),
        }
        let attempts = match any_number(config, &["max_attempts"]) {
            Some(attempts) => attempts,
            None => number(config, "max_retries")? + 1,
        };
        let on: Vec<String> = match config["retry_on"].as_array() {
            Some(words) => words
                .iter()
                .filter_map(Value::as_str)
                .map(Into::into)
                .collect(),
            None => vec!["failure".into(), "timeout".into(), "panic".into()],
        };
        let millis = |key: &str| config[key].as_u64().map(Duration::from_millis);
        Ok(Self {
            settings: RetrySettings {
                max_attempts: NonZeroU32::new(u32::try_from(attempts).unwrap_or(u32::MAX))
                    .unwrap_or(NonZeroU32::MIN),
                backoff: BackoffSettings {
                    base: millis("delay_ms").unwrap_or_default(),
                    factor: config["factor"].as_f64().unwrap_or(1.0),
                    max: millis("max_delay_ms").unwrap_or(Duration::MAX),
                    jitter: RetryJitter::None,
                },
                budget: None,
                on: None,
                respect_retry_after: true,
                on_open: true,
            },
            on,
            max_duration: millis("max_duration_ms"),
        })
    }
}

/// How often something happened to a breaker.
#[derive(Default)]
pub(super) struct EventTotals {
    pub(super) opened: u64,
    pub(super) half_opened: u64,
    pub(super) closed: u64,
    pub(super) overridden: u64,
    pub(super) failure_rate: u64,
    pub(super) slow_rate: u64,
}

/// A breaker, and what its scenario wants to know of it.
pub(super) struct Guard {
    pub(super) name: String,
    pub(super) breaker: Breaker,
    classify: Value,
    ignored: Vec<String>,
    timeout: Option<Duration>,
    pub(super) events: EventTotals,
    pub(super) at_trip: Option<WindowCounts>,
    pub(super) refusal: Option<Refusal>,
}

impl Guard {
    fn new(name: &str, config: &Value, consecutive: bool) -> Outcome<Self> {
        let mut settings = config::breaker(config)?;
        if consecutive {
            settings.window = breakerbox_policy::WindowKind::Consecutive;
            settings.failure_threshold = settings.consecutive_failures.take();
        }
        let mut guard = Self::with(name, settings);
        guard.classify = config["classify"].clone();
        guard.ignored = config["ignored"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(Into::into)
            .collect();
        guard.timeout = span(&config["timeout_ms"]);
        let initial = config["initial_state"].as_str().unwrap_or("closed");
        if initial != "closed" {
            let step = serde_json::json!({ "command": initial });
            guard.control(Time::ZERO, &step)?;
            guard.events = EventTotals::default();
        }
        Ok(guard)
    }

    fn with(name: &str, settings: BreakerSettings) -> Self {
        Self {
            name: name.into(),
            breaker: Breaker::new(settings, Time::ZERO),
            classify: Value::Null,
            ignored: Vec::new(),
            timeout: None,
            events: EventTotals::default(),
            at_trip: None,
            refusal: None,
        }
    }

    /// Lets the breaker's timers go off on the way to `now`.
    pub(super) fn tick(&mut self, now: Time) {
        // Spans of zero would keep it going round for ever.
        for _ in 0..1_000 {
            match self.breaker.next_deadline() {
                Some(deadline) if deadline <= now => self.breaker.on_time(deadline, &mut middle),
                _ => break,
            }
        }
        self.fetch_events();
    }

    pub(super) fn admit(&mut self, now: Time) -> Option<Permit> {
        self.tick(now);
        let admitted = self.breaker.admit(now);
        self.refusal = admitted.as_ref().err().copied();
        self.fetch_events();
        admitted.ok()
    }

    /// Reports an outcome by its word; `released` gives the permit back.
    pub(super) fn report(
        &mut self,
        now: Time,
        permit: Permit,
        word: &str,
        elapsed: Duration,
        hint: Option<Duration>,
    ) -> Outcome {
        self.tick(now);
        let too_long = self.timeout.is_some_and(|limit| elapsed > limit);
        let word = if too_long && word == "success" {
            "timeout"
        } else {
            word
        };
        if word == "released" {
            self.breaker.release(now, permit);
        } else {
            let mut outcome = Reported::new(self.class(word)?, elapsed);
            outcome.retry_after = hint;
            self.breaker.record(now, permit, &outcome, &mut middle);
        }
        self.fetch_events();
        Ok(())
    }

    /// A layer further in, one of ours, refused the call.
    pub(super) fn report_local_rejection(&mut self, now: Time, permit: Permit) -> Outcome {
        let word = if self.classify["local_rejection"].is_null() {
            "released"
        } else {
            "local_rejection"
        };
        self.report(now, permit, word, Duration::ZERO, None)
    }

    fn class(&self, word: &str) -> Outcome<Class> {
        if self.ignored.iter().any(|ignored| ignored == word) {
            return Ok(Class::Rejected);
        }
        let word = self.classify[word].as_str().unwrap_or(word);
        Ok(match word {
            "success" => Class::Success,
            "failure" | "timeout" | "panic" => Class::Failure,
            "ignored" | "neutral" | "rejected" => Class::Rejected,
            "throttled" => Class::Throttled,
            "cancelled" => Class::Cancelled,
            word => return Err(unknown("outcome", word)),
        })
    }

    /// Carries out an operator's command; true when it was refused.
    pub(super) fn control(&mut self, now: Time, step: &Value) -> Outcome<bool> {
        self.tick(now);
        let refused = self.command(now, step)?;
        self.fetch_events();
        Ok(refused)
    }

    fn command(&mut self, now: Time, step: &Value) -> Outcome<bool> {
        let reason = String::from("scenario");
        let until = span(&step["for_ms"])
            .map(|wait| now.after(wait))
            .or_else(|| span(&step["until_ms"]).map(|until| Time::ZERO.after(until)));
        let word = text(step, "command")?;
        let trip = |wait| BreakerCommand::Trip {
            reason: reason.clone(),
            wait,
        };
        // A command for the automatic state means the state that shows.
        let automatic = ["open", "open_for", "open_until", "half_open"].contains(&word);
        let overridden = self.breaker.overridden().is_some();
        if automatic && overridden {
            self.order(now, BreakerCommand::Clear);
            if word == "half_open" {
                self.order(now, trip(None));
            }
        }
        let command = match word {
            "open" | "open_for" | "open_until" => trip(until.map(|until| until.since(now))),
            "close" | "closed" => BreakerCommand::Close { reason },
            "half_open" => BreakerCommand::Probe { reason },
            "reset" => BreakerCommand::Reset { reason },
            "force_open" | "forced_open" | "isolate" => BreakerCommand::Open { reason, until },
            "disable" | "disabled" => BreakerCommand::Disable { reason, until },
            "metrics_only" | "shadow" => BreakerCommand::Shadow { reason, until },
            "enable" | "clear" | "release" | "unforce" => BreakerCommand::Clear,
            word => return Err(unknown("command", word)),
        };
        Ok(self.order(now, command))
    }

    fn order(&mut self, now: Time, command: BreakerCommand) -> bool {
        self.breaker.command(now, command, &mut middle).is_err()
    }

    fn fetch_events(&mut self) {
        while let Some(event) = self.breaker.poll_event() {
            match event {
                BreakerEvent::Transition {
                    to, cause, counts, ..
                } => {
                    match to {
                        State::Closed => self.events.closed += 1,
                        State::HalfOpen => self.events.half_opened += 1,
                        State::Open => {
                            self.events.opened += 1;
                            self.at_trip = Some(counts);
                        }
                    }
                    if let BreakerCause::Tripped { reason, .. } = cause {
                        self.note(&reason);
                    }
                }
                BreakerEvent::Overridden { .. } => self.events.overridden += 1,
                BreakerEvent::WouldTrip { reason, .. } => self.note(&reason),
                _ => {}
            }
        }
    }

    fn note(&mut self, reason: &TripReason) {
        match reason {
            TripReason::FailureRate { .. } | TripReason::HalfOpenRate { .. } => {
                self.events.failure_rate += 1;
            }
            TripReason::SlowRate { .. } | TripReason::HalfOpenSlowRate { .. } => {
                self.events.slow_rate += 1;
            }
            _ => {}
        }
    }

    /// The state that shows.
    pub(super) fn state(&self) -> &'static str {
        match (
            self.breaker.overridden().map(|set| set.mode),
            self.breaker.state(),
        ) {
            (Some(OverrideMode::ForcedOpen), _) => "forced_open",
            (Some(OverrideMode::Disabled), _) => "disabled",
            (Some(OverrideMode::Shadow), _) => "metrics_only",
            (None, State::Closed) => "closed",
            (None, State::Open) => "open",
            (None, State::HalfOpen) => "half_open",
        }
    }

    /// Compares the state. Half-open that nobody has probed yet may as well be called open: the
    /// head asserts no difference, and sen-02 says so.
    pub(super) fn expect_state(&self, step: usize, expected: &Value) -> Outcome {
        let got = self.state();
        let untouched = self
            .breaker
            .view(Time::ZERO)
            .half_open
            .is_some_and(|period| period.in_flight == 0 && period.results == 0);
        if expected.as_str() == Some(got) || (expected == "open" && untouched) {
            return Ok(());
        }
        let expected = expected.as_str().unwrap_or("a state");
        Err(Verdict::fail(
            step,
            format!("{} {expected}", self.name),
            got,
        ))
    }
}
