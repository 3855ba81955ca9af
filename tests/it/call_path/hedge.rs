//! CALL-7, LIM-4 and BRK-6 around hedges: a second attempt beside a slow one.

mod races;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use breakerbox_actors::testing::{Script, TestRuntime, run_paused};
use breakerbox_actors::{CallError, CallOptions, Client};
use breakerbox_policy::{
    BudgetSettings, CancelledPolicy, Class, DependencySettings, HedgeDelay, HedgeSettings, Rate,
    RetryJitter,
};

use crate::scripted::{Dep, Do, let_others_run, ms, nonzero, pass, refused_connection};

const DELAY: u64 = 100;

fn hedged(settings: &mut DependencySettings) {
    settings.hedge = Some(HedgeSettings {
        delay: HedgeDelay::Fixed(ms(DELAY)),
        max_hedges: NonZeroU32::MIN,
    });
    settings.retry.budget = None;
    settings.retry.backoff.jitter = RetryJitter::None;
}

fn repeatable() -> CallOptions {
    CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    }
}

/// Dependency with a plan: its n-th attempt does the n-th step, and all later ones do the last.
struct Race {
    runtime: TestRuntime,
    client: Client<Dep>,
    script: Script<Do, u32>,
}

impl Race {
    async fn start(configure: impl FnOnce(&mut DependencySettings), plan: Vec<Do>) -> Self {
        let runtime = TestRuntime::start().await;
        let script = Script::new(move |_: Do, number| {
            let place = usize::try_from(number - 1).unwrap();
            let told = plan.get(place).or(plan.last()).unwrap();
            told.clone().reaction()
        });
        let client = crate::scripted::start(&runtime, "dep", &script, configure, Vec::new()).await;
        Self {
            runtime,
            client,
            script,
        }
    }

    /// Makes one idempotent call; returns its result and the milliseconds it took.
    async fn ask(&self) -> (Result<u32, crate::scripted::Error>, u128) {
        let began = tokio::time::Instant::now();
        let asked = self.client.ask_with(Do::Hang, repeatable()).await;
        (
            asked.map(|answer| answer.value),
            began.elapsed().as_millis(),
        )
    }

    /// Returns the attempts that reached the dependency, and the hedges among them.
    fn made(&self) -> (u64, u64) {
        let totals = self.client.status().totals;
        assert_eq!(totals.attempts, self.script.calls());
        (totals.attempts, totals.hedges)
    }

    async fn finish(self) {
        let_others_run().await;
        let status = self.client.status();
        assert_eq!((status.in_flight, status.queued), (0, 0));
        self.runtime.finish().await;
    }
}

#[test]
fn call_7_a_second_attempt_goes_out_after_exactly_the_delay() {
    run_paused(async || {
        // The first attempt answers a millisecond before the delay, then a millisecond after it.
        for (took, made) in [(DELAY - 1, (1, 0)), (DELAY + 1, (2, 1))] {
            let race = Race::start(hedged, vec![Do::Answer(1).after(took), Do::Hang]).await;
            let (ended, after) = race.ask().await;
            assert_eq!((ended.unwrap(), after), (1, u128::from(took)));
            assert_eq!(race.made(), made);
            race.finish().await;
        }
    });
}

#[test]
fn call_7_the_first_answer_wins_and_the_loser_counts_for_nothing() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.breaker.cancelled = CancelledPolicy::Failure;
            settings.breaker.failure_threshold = Some(NonZeroU32::MIN);
            settings.bulkhead.max_concurrent = nonzero(2);
        };
        let plan = vec![Do::Hang, Do::Answer(2).after(30)];
        let race = Race::start(configure, plan).await;
        let asked = race.client.ask_with(Do::Hang, repeatable()).await.unwrap();
        assert_eq!(
            (asked.value, asked.attempts, asked.is_primary()),
            (2, 2, true)
        );
        assert_eq!(asked.elapsed, ms(DELAY + 30));
        assert_eq!(race.made(), (2, 1));
        let_others_run().await;
        let status = race.client.status();
        let tally = status.tally;
        assert_eq!(
            (tally.successes, tally.failures, tally.cancelled),
            (1, 0, 0)
        );
        assert_eq!((status.totals.submitted, status.totals.primary), (1, 1));
        assert_eq!(status.in_flight, 0, "the loser's place is back");
        race.finish().await;
    });
}

#[test]
fn call_6_a_hedge_takes_a_free_place_or_none() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.breaker.cancelled = CancelledPolicy::Failure;
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_wait = ms(10_000);
        };
        let race = Race::start(configure, vec![Do::Answer(1).after(300)]).await;
        let watch = async {
            pass(200).await;
            assert_eq!(
                race.client.status().queued,
                0,
                "it keeps no call from a slot"
            );
        };
        let ((ended, after), ()) = tokio::join!(race.ask(), watch);
        assert_eq!((ended.unwrap(), after), (1, 300));
        assert_eq!(race.made(), (1, 0));
        let tally = race.client.status().tally;
        assert_eq!((tally.failures, tally.cancelled), (0, 0));
        race.finish().await;
    });
}

#[test]
fn call_7_only_what_is_idempotent_is_hedged() {
    run_paused(async || {
        let race = Race::start(hedged, vec![Do::Answer(1).after(300)]).await;
        let plain = race.client.ask(Do::Hang).await.unwrap();
        assert_eq!((plain.attempts, race.made()), (1, (1, 0)));
        race.ask().await.0.unwrap();
        assert_eq!(race.made(), (3, 1));
        race.finish().await;
    });
}

#[test]
fn call_7_there_are_at_most_so_many_hedges_each_a_delay_after_the_other() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.hedge.as_mut().unwrap().max_hedges = nonzero(2);
        };
        let race = Race::start(configure, vec![Do::Answer(1).after(1_000)]).await;
        let watch = async {
            for (at, attempts) in [(99, 1), (101, 2), (199, 2), (201, 3), (900, 3)] {
                let now = race.runtime.clock().now();
                pass(at - now.as_nanos() / 1_000_000).await;
                assert_eq!(race.script.calls(), attempts, "after {at} ms");
            }
        };
        let ((ended, after), ()) = tokio::join!(race.ask(), watch);
        assert_eq!((ended.unwrap(), after), (1, 1_000));
        assert_eq!(race.made(), (3, 2));
        race.finish().await;
    });
}

#[test]
fn call_7_a_half_open_breaker_is_not_hedged() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.breaker.failure_threshold = Some(NonZeroU32::MIN);
            settings.breaker.half_open.max_calls = nonzero(5);
            settings.breaker.open.base = ms(1_000);
        };
        let race = Race::start(configure, vec![Do::Fail, Do::Answer(1).after(500)]).await;
        race.ask().await.0.unwrap_err();
        pass(1_000).await;
        assert_eq!(race.ask().await.0.unwrap(), 1);
        assert_eq!(race.made(), (2, 0));
        race.finish().await;
    });
}

#[test]
fn lim_4_hedges_and_retries_are_paid_from_one_budget() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.breaker.failure_threshold = None;
            settings.bulkhead.max_concurrent = nonzero(100);
            settings.retry.max_attempts = nonzero(2);
            settings.retry.budget = Some(BudgetSettings {
                ratio: 0.1,
                floor_per_second: 0,
            });
        };
        let race = Race::start(configure, vec![Do::Answer(1).after(200)]).await;
        let calls = (0..50).map(|_| race.ask());
        for (ended, _) in futures_util::future::join_all(calls).await {
            ended.unwrap();
        }
        assert_eq!(race.made(), (55, 5), "a tenth of fifty calls");
        // No budget is left for a retry either.
        let by_result = |_: &Result<(), ()>| Class::Failure.into();
        let mut runs = 0;
        let work = || {
            runs += 1;
            std::future::ready(Err(()))
        };
        let failed = race.client.run_with(repeatable(), by_result, work).await;
        assert!(failed.is_err());
        assert_eq!(runs, 1);
        race.finish().await;
    });
}

#[test]
fn call_7_a_hedge_has_the_time_of_a_whole_attempt() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.timeout.attempt = Some(ms(500));
            settings.breaker.slow_call = Some(ms(450));
        };
        // By worker and as a closure: the hedge takes longer than the rest of the first attempt's
        // time.
        let race = Race::start(configure, vec![Do::Hang, Do::Answer(2).after(440)]).await;
        let (ended, after) = race.ask().await;
        assert_eq!((ended.unwrap(), after), (2, 540));
        let tally = race.client.status().tally;
        // The first attempt timed out and was slow; the hedge was not.
        assert_eq!((tally.failures, tally.slow, tally.successes), (1, 1, 1));
        let runs = AtomicU32::new(0);
        let by_result = |result: &Result<u32, ()>| match result {
            Ok(_) => Class::Success.into(),
            Err(()) => Class::Failure.into(),
        };
        let began = tokio::time::Instant::now();
        let ran = race.client.run_with(repeatable(), by_result, || {
            let number = runs.fetch_add(1, Ordering::Relaxed);
            async move {
                if number == 0 {
                    return std::future::pending().await;
                }
                pass(440).await;
                Ok(number)
            }
        });
        assert_eq!(ran.await.unwrap(), 1);
        assert_eq!(began.elapsed(), ms(540));
        let tally = race.client.status().tally;
        assert_eq!((tally.failures, tally.slow, tally.successes), (2, 2, 2));
        race.runtime.finish().await;
    });
}

#[test]
fn call_7_an_idempotent_closure_is_hedged() {
    run_paused(async || {
        let race = Race::start(hedged, vec![Do::Hang]).await;
        for (options, hedges) in [(repeatable(), 1), (CallOptions::default(), 0)] {
            let before = race.client.status().totals;
            let begun = Arc::new(AtomicU32::new(0));
            let by_result = |_: &Result<u32, ()>| Class::Success.into();
            let ran = race.client.run_with(options, by_result, || {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                async move {
                    pass(if number == 0 { 400 } else { 50 }).await;
                    Ok(number)
                }
            });
            assert_eq!(u64::from(ran.await.unwrap()), hedges);
            let after = race.client.status().totals;
            assert_eq!(after.hedges - before.hedges, hedges);
            assert_eq!(after.attempts - before.attempts, hedges + 1);
            assert_eq!(after.primary - before.primary, 1);
        }
        let tally = race.client.status().tally;
        assert_eq!((tally.failures, tally.cancelled), (0, 0));
        race.runtime.finish().await;
    });
}

#[test]
fn call_1_a_caller_that_leaves_cancels_both() {
    run_paused(async || {
        let race = Race::start(hedged, vec![Do::Hang]).await;
        let gone = tokio::time::timeout(ms(150), race.ask()).await;
        assert!(gone.is_err());
        assert_eq!(race.made(), (2, 1));
        let_others_run().await;
        let status = race.client.status();
        assert_eq!((status.in_flight, status.tally.cancelled), (0, 2));
        assert_eq!(status.totals.cancelled, 1, "one call");
        race.finish().await;
    });
}

#[test]
fn call_7_the_delay_may_follow_what_calls_take() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.timeout.attempt = None;
            settings.timeout.total = None;
            settings.hedge.as_mut().unwrap().delay = HedgeDelay::Quantile {
                quantile: Rate::new(0.9).unwrap(),
                at_least: ms(20),
            };
        };
        let mut plan = vec![Do::Answer(1).after(200); 30];
        plan.push(Do::Hang);
        plan.push(Do::Answer(2));
        let race = Race::start(configure, plan).await;
        // Not hedged, so that the plan is not used up.
        for _ in 0..30 {
            race.client.ask(Do::Hang).await.unwrap();
        }
        let (ended, after) = race.ask().await;
        assert_eq!(ended.unwrap(), 2);
        assert!((200..=210).contains(&after), "{after} ms");
        race.finish().await;
    });
}

#[test]
fn call_7_before_enough_is_known_the_delay_is_the_least_one() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.hedge.as_mut().unwrap().delay = HedgeDelay::Quantile {
                quantile: Rate::new(0.9).unwrap(),
                at_least: ms(20),
            };
        };
        let race = Race::start(configure, vec![Do::Hang, Do::Answer(2)]).await;
        let (ended, after) = race.ask().await;
        assert_eq!((ended.unwrap(), after), (2, 20));
        race.finish().await;
    });
}

#[test]
fn call_7_waiting_for_a_place_is_not_slow() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.bulkhead.max_concurrent = nonzero(2);
            settings.bulkhead.max_wait = ms(10_000);
        };
        let held = |millis| Do::Answer(9).after(millis);
        let plan = vec![held(500), held(550), Do::Hang, Do::Answer(2).after(50)];
        let race = Race::start(configure, plan).await;
        let holders = async { tokio::join!(race.client.ask(Do::Hang), race.client.ask(Do::Hang)) };
        let waiter = async {
            let_others_run().await;
            race.ask().await
        };
        let (_, (ended, after)) = tokio::join!(holders, waiter);
        // The call gets its slot at 500 ms, and the hedge delay starts then.
        assert_eq!((ended.unwrap(), after), (2, 500 + 100 + 50));
        assert_eq!(race.made(), (4, 1));
        race.finish().await;
    });
}
