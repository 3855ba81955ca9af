//! CALL-5 around fallbacks: the caller's own time bounds them, the dependency's total time does
//! not.

use std::time::Duration;

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallError, CallOptions, FallbackRule, Fixed};
use breakerbox_policy::{DependencySettings, Executed};

use crate::scripted::{Bench, Dep, Do, Error, ms};

fn within(millis: u64) -> CallOptions {
    CallOptions {
        timeout: Some(ms(millis)),
        ..CallOptions::default()
    }
}

/// Returns a fallback that answers after this many milliseconds.
fn takes(millis: u64) -> FallbackRule<Dep> {
    let slow = move |_: Do, _: &Error| async move {
        tokio::time::sleep(ms(millis)).await;
        Ok::<_, String>(7)
    };
    FallbackRule::new(slow).named("slow")
}

fn no_attempt_timeout(settings: &mut DependencySettings) {
    settings.timeout.attempt = None;
    settings.timeout.total = Some(ms(2_000));
}

/// Makes a call that the dependency fails after a second.
async fn ask(bench: &Bench, options: CallOptions) -> (Result<u32, Error>, Duration) {
    let started = tokio::time::Instant::now();
    let asked = bench.client.ask_with(Do::Fail.after(1_000), options).await;
    (asked.map(|answer| answer.value), started.elapsed())
}

#[test]
fn call_5_the_callers_own_deadline_cuts_a_slow_fallback() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(no_attempt_timeout, vec![takes(5_000)]).await;
        let (ended, took) = ask(&bench, within(1_500)).await;
        let error = ended.unwrap_err();
        let CallError::FallbackFailed {
            fallback,
            message,
            cause,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(took, ms(1_500));
        assert_eq!(&**fallback, "slow");
        assert!(message.contains("time was over"), "{message}");
        assert!(matches!(**cause, CallError::Failed { .. }), "{cause}");
        assert_eq!(error.executed(), Executed::Maybe);
        let totals = bench.status().totals;
        assert_eq!((totals.failed, totals.fallback), (1, 0));
        bench.finish().await;
    });
}

#[test]
fn call_5_with_time_enough_the_same_fallback_answers() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(no_attempt_timeout, vec![takes(499)]).await;
        let (ended, took) = ask(&bench, within(1_500)).await;
        assert_eq!((ended.unwrap(), took), (7, ms(1_499)));
        bench.finish().await;
    });
}

#[test]
fn call_5_the_dependencys_total_time_does_not_bound_a_fallback() {
    run_paused(async || {
        let bench = Bench::with_fallbacks(no_attempt_timeout, vec![takes(5_000)]).await;
        let (ended, took) = ask(&bench, CallOptions::default()).await;
        assert_eq!((ended.unwrap(), took), (7, ms(6_000)));
        bench.finish().await;
    });
}

#[test]
fn call_5_after_the_callers_deadline_only_an_answer_at_once_counts() {
    run_paused(async || {
        let rules = vec![takes(10), FallbackRule::new(Fixed(77))];
        let bench = Bench::with_fallbacks(no_attempt_timeout, rules).await;
        // The dependency is still working when the caller's time is over.
        let (ended, took) = ask(&bench, within(500)).await;
        assert_eq!((ended.unwrap(), took), (77, ms(500)));
        bench.finish().await;
        let bench = Bench::with_fallbacks(no_attempt_timeout, vec![takes(10)]).await;
        let (ended, took) = ask(&bench, within(500)).await;
        let CallError::FallbackFailed { cause, .. } = ended.unwrap_err() else {
            panic!("another error");
        };
        assert!(matches!(*cause, CallError::TimedOut { .. }), "{cause}");
        assert_eq!(took, ms(500));
        bench.finish().await;
    });
}

#[test]
fn call_5_the_patience_of_an_attempt_holds_within_the_callers_time() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.timeout.attempt = Some(ms(1_200));
        };
        let rules = vec![takes(60_000), FallbackRule::new(Fixed(77))];
        let bench = Bench::with_fallbacks(configure, rules).await;
        let (ended, took) = ask(&bench, within(10_000)).await;
        assert_eq!((ended.unwrap(), took), (77, ms(1_000 + 1_200)));
        bench.finish().await;
    });
}
