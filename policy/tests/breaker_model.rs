//! Random histories of a breaker, compared with a naive reference, and the invariants that no
//! history may break.

#[path = "breaker_model/history.rs"]
mod history;
#[path = "breaker_model/reference.rs"]
mod reference;

use std::time::Duration;

use breakerbox_policy::{
    Breaker, BreakerCause, BreakerCommand, BreakerEvent, BreakerSettings, Class, Outcome, Permit,
    Rate, State, Time,
};
use history::{Order, Step, settings, steps};
use proptest::prelude::*;
use reference::{Pass, Reference, UNIT};

fn unit() -> f64 {
    UNIT
}

fn tens(number: u64) -> Duration {
    Duration::from_millis(number * 10)
}

/// The kernel and the reference, run in parallel.
struct Pair {
    kernel: Breaker,
    reference: Reference,
    now: Time,
    permits: Vec<(Permit, Pass)>,
    /// Number of permits issued and not ended, lost ones included.
    admitted: u64,
    forgotten: u64,
    batched: u64,
    refused: u64,
    moves: Vec<(State, State, Time)>,
    /// Earliest end of the current open period, unless a command ends it.
    open_until: Option<Time>,
    last_generation: u64,
}

impl Pair {
    fn new(settings: BreakerSettings) -> Self {
        Self {
            kernel: Breaker::new(settings.clone(), Time::ZERO),
            reference: Reference::new(settings),
            now: Time::ZERO,
            permits: Vec::new(),
            admitted: 0,
            forgotten: 0,
            batched: 0,
            refused: 0,
            moves: Vec::new(),
            open_until: None,
            last_generation: 0,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now;
        match step {
            Step::Admit => self.admit()?,
            Step::Finish(which, class, took, hint) => {
                if let Some((permit, pass)) = self.pick(*which) {
                    let mut outcome = Outcome::new(*class, tens(u64::from(*took)));
                    outcome.retry_after = hint.map(|hint| tens(u64::from(hint)));
                    let wanted = self.reference.finish(
                        now,
                        pass,
                        *class,
                        outcome.elapsed,
                        outcome.retry_after,
                    );
                    let got = self.kernel.record(now, permit, &outcome, &mut unit);
                    prop_assert_eq!(got, wanted);
                }
            }
            Step::Forget(which) => {
                self.forgotten += u64::from(self.pick(*which).is_some());
            }
            Step::Release(which) => {
                if let Some((permit, pass)) = self.pick(*which) {
                    self.reference.release(now, pass);
                    self.kernel.release(now, permit);
                }
            }
            Step::Successes { count, stale } => {
                let (generation, epoch) = (self.kernel.generation(), self.reference.epoch);
                let stale = u64::from(*stale);
                self.reference
                    .successes(now, epoch.wrapping_sub(stale), *count);
                self.kernel.record_successes(
                    now,
                    generation.wrapping_sub(stale),
                    *count,
                    &mut unit,
                );
                self.batched += count;
            }
            Step::Overdue(calls) => {
                self.reference.set_overdue(now, *calls);
                self.kernel.set_overdue(now, *calls, &mut unit);
            }
            Step::Wait(wait) => self.now = now.after(tens(*wait)),
            Step::Tick => {
                self.reference.pass_time(now);
                self.kernel.on_time(now, &mut unit);
                let due = self.kernel.next_deadline().is_some_and(|due| due < now);
                prop_assert!(!due, "BRK-5: something stays overdue after a tick");
            }
            Step::Order(order) => self.order(order)?,
            Step::Reconfigure(settings) => {
                self.reference.reconfigure(now, settings.clone());
                self.kernel.reconfigure(now, settings.clone());
            }
            Step::Recover => {
                self.reference.recover(now);
                self.kernel.recover(now);
            }
        }
        self.fetch_moves()?;
        self.compare()
    }

    fn pick(&mut self, which: usize) -> Option<(Permit, Pass)> {
        let count = self.permits.len();
        (count > 0).then(|| self.permits.swap_remove(which % count))
    }

    fn admit(&mut self) -> Result<(), TestCaseError> {
        let wanted = self.reference.admit(self.now);
        match (self.kernel.admit(self.now), wanted) {
            (Ok(permit), Ok(pass)) => {
                prop_assert_eq!(permit.is_probe(), matches!(pass, Pass::Probe { .. }));
                self.permits.push((permit, pass));
                self.admitted += 1;
            }
            (Err(refusal), Err(state)) => {
                prop_assert_eq!(refusal.state, state);
                self.refused += 1;
            }
            (got, wanted) => prop_assert!(false, "{:?}, not {:?}", got, wanted),
        }
        Ok(())
    }

    fn order(&mut self, order: &Order) -> Result<(), TestCaseError> {
        let reason = String::from("history");
        let until = |wait: &Option<u64>| wait.map(|wait| self.now.after(tens(wait)));
        let command = match order {
            Order::Open(wait) => BreakerCommand::Open {
                reason,
                until: until(wait),
            },
            Order::Disable(wait) => BreakerCommand::Disable {
                reason,
                until: until(wait),
            },
            Order::Shadow(wait) => BreakerCommand::Shadow {
                reason,
                until: until(wait),
            },
            Order::Clear => BreakerCommand::Clear,
            Order::Close => BreakerCommand::Close { reason },
            Order::Reset => BreakerCommand::Reset { reason },
            Order::Park => BreakerCommand::Park { reason },
            Order::Unpark => BreakerCommand::Unpark,
            Order::Trip(wait) => BreakerCommand::Trip {
                reason,
                wait: wait.map(tens),
            },
            Order::Probe => BreakerCommand::Probe { reason },
        };
        let resets = command
            == BreakerCommand::Reset {
                reason: "history".into(),
            };
        let allowed = self.reference.command(self.now, &command);
        let done = self.kernel.command(self.now, command, &mut unit);
        prop_assert_eq!(done.is_ok(), allowed);
        if resets {
            // The totals are reset; outstanding permits still end.
            self.admitted = self.permits.len() as u64;
            self.forgotten = 0;
            self.batched = 0;
            self.refused = 0;
        }
        Ok(())
    }

    fn fetch_moves(&mut self) -> Result<(), TestCaseError> {
        while let Some(event) = self.kernel.poll_event() {
            let BreakerEvent::Transition {
                from,
                to,
                at,
                generation,
                cause,
                retry_after,
                ..
            } = event
            else {
                continue;
            };
            prop_assert_ne!(from, to);
            prop_assert!(
                generation > self.last_generation,
                "BRK-3: no new generation"
            );
            self.last_generation = generation;
            let commanded = matches!(cause, BreakerCause::Commanded(_));
            if let Some(until) = self.open_until.take() {
                prop_assert!(commanded || at >= until, "BRK-8: open ended early");
            }
            self.open_until = retry_after.map(|wait| at.after(wait));
            prop_assert_eq!(to == State::Open, retry_after.is_some());
            if !commanded {
                let closed_to_half_open = from == State::Closed && to == State::HalfOpen;
                prop_assert!(!closed_to_half_open);
            }
            self.moves.push((from, to, at));
        }
        Ok(())
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let view = self.kernel.view(self.now);
        prop_assert_eq!(&self.moves, &self.reference.moves);
        prop_assert_eq!(view.state, self.reference.state);
        prop_assert_eq!(view.overridden.map(|set| set.mode), self.reference.mode());
        prop_assert_eq!(view.open_attempt, self.reference.attempt);
        let wanted = self.reference.seen(self.now);
        let got = (view.counts.calls, view.counts.failures, view.counts.slow);
        prop_assert_eq!(got, (wanted.calls, wanted.failures, wanted.slow), "BRK-2");
        let tally = view.tally;
        let ended = tally.recorded + tally.neutral + tally.late + tally.unrecorded + tally.released;
        let out = self.permits.len() as u64 + self.forgotten;
        prop_assert_eq!(
            ended + out,
            self.admitted + self.batched,
            "each permit ends once"
        );
        prop_assert_eq!(tally.successes + tally.failures, tally.recorded);
        prop_assert_eq!(tally.refused, self.refused);
        if let Some(period) = view.half_open {
            prop_assert_eq!(period.in_flight, self.reference.probes.len() as u64);
            let most = u64::from(self.kernel.settings().half_open.max_calls.get());
            prop_assert!(period.in_flight <= most, "BRK-4: too many probes");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn brk_every_history_goes_as_in_the_reference(settings in settings(), steps in steps()) {
        let mut pair = Pair::new(settings);
        for step in &steps {
            pair.step(step)?;
        }
    }

    #[test]
    fn brk_5_whatever_happened_time_alone_leads_out_of_half_open_or_frees_its_probes(
        settings in settings(),
        steps in steps(),
    ) {
        let mut pair = Pair::new(settings);
        for step in &steps {
            pair.step(step)?;
        }
        pair.kernel.command(pair.now, BreakerCommand::Clear, &mut unit).ok();
        let mut now = pair.now;
        // Earlier permits are never reported; good calls arrive, ten a second.
        for call in 0..500 {
            if call % 10 == 0 {
                now = now.after(Duration::from_secs(1));
            }
            if let Ok(permit) = pair.kernel.admit(now) {
                let good = Outcome::new(Class::Success, Duration::ZERO);
                pair.kernel.record(now, permit, &good, &mut unit);
            }
            if pair.kernel.state() == State::Closed {
                break;
            }
        }
        // Any result reaches a rate of zero, and a lease of zero expires at once.
        let zero = |rate: Option<Rate>| rate.is_some_and(|rate| rate.as_f64() == 0.0);
        let settings = pair.kernel.settings();
        let hopeless = zero(settings.failure_rate)
            || zero(settings.slow_rate)
            || settings.half_open.probe_lease.is_zero();
        prop_assert!(hopeless || pair.kernel.state() == State::Closed, "{:?}", pair.kernel.view(now));
    }

    #[test]
    fn call_3_successes_brought_in_one_go_lead_to_the_same_transitions(
        settings in settings(),
        calls in prop::collection::vec(
            (prop::bool::weighted(0.7), prop::bool::weighted(0.2), 0_u64..4, prop::option::weighted(0.05, 0_u64..4)),
            1..200,
        ),
    ) {
        let mut each = Breaker::new(settings.clone(), Time::ZERO);
        let mut gate = Gate::new(Breaker::new(settings, Time::ZERO));
        let mut now = Time::ZERO;
        for (good, slow, wait, overdue) in calls {
            now = now.after(tens(wait));
            let class = if good { Class::Success } else { Class::Failure };
            let outcome = Outcome::new(class, if slow { tens(3) } else { Duration::ZERO });
            if let Some(calls) = overdue {
                each.set_overdue(now, calls, &mut unit);
                gate.flush();
                gate.breaker.set_overdue(now, calls, &mut unit);
            }
            if let Ok(permit) = each.admit(now) {
                each.record(now, permit, &outcome, &mut unit);
            }
            gate.call(now, &outcome);
        }
        gate.flush();
        let moves = |breaker: &mut Breaker| {
            let mut events: Vec<_> = std::iter::from_fn(|| breaker.poll_event()).collect();
            for event in &mut events {
                // Successes recorded in a batch have no duration.
                if let BreakerEvent::Transition { counts, .. } = event {
                    counts.elapsed_total = Duration::ZERO;
                }
            }
            events
        };
        prop_assert_eq!(moves(&mut each), moves(&mut gate.breaker));
        prop_assert_eq!(each.view(now).counts.calls, gate.breaker.view(now).counts.calls);
    }
}

/// A gate that counts successes itself while this is permitted.
struct Gate {
    breaker: Breaker,
    waiting: u64,
    since: Time,
}

impl Gate {
    fn new(breaker: Breaker) -> Self {
        Self {
            breaker,
            waiting: 0,
            since: Time::ZERO,
        }
    }

    fn call(&mut self, now: Time, outcome: &Outcome) {
        if let Some(width) = self.breaker.success_bucket() {
            let bucket = |at: Time| u128::from(at.as_nanos()) / width.as_nanos();
            if bucket(self.since) != bucket(now) {
                self.flush();
            }
        }
        let fast = outcome.class == Class::Success && !self.breaker.is_slow(outcome.elapsed);
        let silent = self.breaker.state() == State::Closed && !self.breaker.needs_every_success();
        if fast && silent {
            if self.waiting == 0 {
                self.since = now;
            }
            self.waiting += 1;
            return;
        }
        self.flush();
        if let Ok(permit) = self.breaker.admit(now) {
            self.breaker.record(now, permit, outcome, &mut unit);
        }
    }

    fn flush(&mut self) {
        let (count, generation) = (std::mem::take(&mut self.waiting), self.breaker.generation());
        self.breaker
            .record_successes(self.since, generation, count, &mut unit);
    }
}
