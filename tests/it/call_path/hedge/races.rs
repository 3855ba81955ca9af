//! CALL-2 and LIM-4: hedged calls without a winner, and hedges between workers.

use breakerbox_actors::testing::ScriptedError;
use breakerbox_actors::{CallContext, Dependency};
use breakerbox_policy::{Executed, Symptom};

use super::*;

#[test]
fn lim_4_when_both_fail_the_retry_loop_decides_once() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.breaker.failure_threshold = None;
            settings.retry.max_attempts = nonzero(2);
            settings.retry.backoff.base = ms(1_000);
        };
        let plan = vec![Do::Fail.after(150), Do::Fail.after(150), Do::Answer(3)];
        let race = Race::start(configure, plan).await;
        let asked = race.client.ask_with(Do::Hang, repeatable()).await.unwrap();
        assert_eq!((asked.value, asked.attempts), (3, 3));
        // The second attempt failed at 250, and the retry's wait began then.
        assert_eq!(asked.elapsed, ms(250 + 1_000));
        assert_eq!(race.made(), (3, 1));
        assert_eq!(race.client.status().tally.failures, 2);
        race.finish().await;
    });
}

#[test]
fn call_1_when_both_fail_there_is_one_error() {
    run_paused(async || {
        let race = Race::start(hedged, vec![Do::Fail.after(150)]).await;
        let (ended, after) = race.ask().await;
        let error = ended.unwrap_err();
        assert_eq!(error.into_failed(), Some(refused_connection()));
        assert_eq!((after, race.made()), (250, (2, 1)));
        let status = race.client.status();
        assert_eq!((status.totals.failed, status.tally.failures), (1, 2));
        race.finish().await;
    });
}

#[test]
fn call_7_an_attempt_that_failed_is_for_the_retries_not_for_hedges() {
    run_paused(async || {
        let race = Race::start(hedged, vec![Do::Fail.after(50)]).await;
        let (ended, after) = race.ask().await;
        assert!(ended.is_err());
        assert_eq!((after, race.made()), (50, (1, 0)));
        race.finish().await;
    });
}

#[test]
fn call_7_after_a_failure_no_further_hedge_goes_out() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.hedge.as_mut().unwrap().max_hedges = nonzero(2);
        };
        let plan = vec![Do::Fail.after(150), Do::Answer(2).after(900)];
        let race = Race::start(configure, plan).await;
        let (ended, after) = race.ask().await;
        assert_eq!((ended.unwrap(), after), (2, 1_000));
        assert_eq!(race.made(), (2, 1), "the one that is out is waited for");
        race.finish().await;
    });
}

#[test]
fn call_2_a_hedge_that_was_refused_here_hides_no_failure() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.retry.max_attempts = nonzero(2);
        };
        let race = Race::start(configure, vec![Do::Fail.after(150), Do::Answer(7)]).await;
        let asked = race.client.ask_with(Do::Hang, repeatable()).await.unwrap();
        assert_eq!((asked.value, asked.attempts), (7, 3), "it is tried again");
        assert_eq!(race.made(), (2, 0));
        race.finish().await;
    });
}

#[test]
fn call_2_when_a_hedge_was_refused_the_call_may_still_have_been_executed() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.timeout.attempt = Some(ms(150));
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_queue = 0;
        };
        let race = Race::start(configure, vec![Do::Hang]).await;
        let (ended, after) = race.ask().await;
        let error = ended.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!((error.executed(), after), (Executed::Maybe, 150));
        assert_eq!(race.made(), (1, 0));
        race.finish().await;
    });
}

#[test]
fn sup_1_a_first_attempt_that_crashed_its_worker_does_not_end_the_race() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.workers.count = nonzero(2);
        };
        let plan = vec![Do::Panic.after(150), Do::Answer(2).after(200)];
        let race = Race::start(configure, plan).await;
        let (ended, after) = race.ask().await;
        assert_eq!((ended.unwrap(), after), (2, 300));
        let status = race.client.status();
        assert_eq!((status.tally.failures, status.tally.successes), (1, 1));
        assert_eq!((status.totals.primary, status.totals.failed), (1, 0));
        race.finish().await;
    });
}

#[test]
fn sup_1_with_one_worker_a_crash_ends_both_attempts() {
    run_paused(async || {
        let race = Race::start(hedged, vec![Do::Panic.after(150), Do::Hang]).await;
        let (ended, after) = race.ask().await;
        let error = ended.unwrap_err();
        assert_eq!((error.executed(), after), (Executed::Maybe, 150));
        let status = race.client.status();
        assert_eq!((status.tally.failures, status.totals.failed), (2, 1));
        race.finish().await;
    });
}

#[test]
fn call_2_the_error_is_that_of_the_attempt_that_was_executed_for_sure() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            hedged(settings);
            settings.timeout.attempt = Some(ms(500));
        };
        let answers_500 = Do::Error(ScriptedError::symptom(Symptom::Status(500)));
        let race = Race::start(configure, vec![answers_500.after(150), Do::Hang]).await;
        let (ended, after) = race.ask().await;
        let error = ended.unwrap_err();
        assert_eq!((error.executed(), after), (Executed::Yes, 600), "{error}");
        race.finish().await;
    });
}

/// Dependency that hangs in its first worker value only.
struct Sticky {
    hangs: bool,
}

impl Dependency for Sticky {
    type Request = ();
    type Response = ();
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
        if self.hangs {
            return std::future::pending().await;
        }
        Ok(())
    }

    fn is_idempotent((): &()) -> bool {
        true
    }
}

#[test]
fn sup_1_a_worker_that_hangs_is_beaten_by_the_other() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let made = AtomicU32::new(0);
        let client = runtime
            .dependency("sticky")
            .configure(|settings| {
                hedged(settings);
                settings.workers.count = nonzero(2);
            })
            .workers(move || Sticky {
                hangs: made.fetch_add(1, Ordering::Relaxed) == 0,
            })
            .start()
            .await
            .unwrap();
        // For every number of other calls in between, the hedge goes to the worker that has not got
        // the call yet.
        for between in 0..4 {
            let other = async {
                pass(DELAY - 1).await;
                for _ in 0..between {
                    let _ = tokio::time::timeout(ms(0), client.ask(())).await;
                }
            };
            let (asked, ()) = tokio::join!(client.ask(()), other);
            assert!(asked.unwrap().elapsed <= ms(DELAY));
        }
        runtime.finish().await;
    });
}
