//! CALL-1 and CALL-2: one answer for each call, and the guarantees of that answer.

use std::time::Duration;

use breakerbox_actors::testing::{Reaction, Script, ScriptedError, TestRuntime, run_paused};
use breakerbox_actors::{
    Answer, Call, CallError, CallOptions, Clock, Fault, Fixed, NotExecutedReason, Runtime,
    RuntimeSettings,
};
use breakerbox_policy::{
    BreakerCommand, DependencySettings, Executed, Intensity, QuarantineSettings, RetryJitter,
    State, WhileRestarting,
};
use futures_util::future::join_all;

use crate::scripted::{Asked, Bench, Do, let_others_run, ms, nonzero, opens_after, pass};

/// Returns the resident memory of this process in KiB, if the system reports it.
fn resident_kib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4)
}

/// Runs a test of this binary in its own process: other tests would show in its memory, and an
/// abort would end them all.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "BREAKERBOX_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let whole = format!("call_path::answers::{test}");
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &whole, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}: {said}", run.status);
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// Suppresses the reports of panics that are part of the test.
fn without_reports_of(panic: &'static str) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info
            .payload()
            .downcast_ref::<String>()
            .is_none_or(|text| text != panic)
        {
            report(info);
        }
    }));
}

fn never_opens(settings: &mut DependencySettings) {
    settings.breaker.failure_threshold = None;
    settings.workers.intensity = Intensity {
        max: 1_000_000,
        within: ms(1_000),
    };
    settings.workers.reset_after = Duration::ZERO;
}

const CALLS: u64 = 100_000;
const WARM: u64 = 10_000;
/// A leak of a hundred bytes per call would be 9 MB.
const MAX_GROWTH_KIB: u64 = 2 * 1024;

/// Counts of good answers, of crashes, and of calls that a neighbour's crash interrupted.
#[derive(Default)]
struct Seen {
    good: u64,
    crashed: u64,
    hit: u64,
}

impl Seen {
    fn note(&mut self, number: u64, answer: Result<Answer<u64>, CallError<ScriptedError>>) {
        match answer {
            Ok(answer) => {
                assert_eq!(answer.value, number, "the answer to another call");
                self.good += 1;
            }
            Err(CallError::WorkerCrashed { .. }) => self.crashed += 1,
            Err(CallError::Interrupted { .. }) => self.hit += 1,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn call_1_a_hundred_thousand_calls_with_panics_are_all_answered_in_flat_memory() {
    const POISON: &str = "one in fifty";
    if !is_alone("call_1_a_hundred_thousand_calls_with_panics_are_all_answered_in_flat_memory") {
        return;
    }
    without_reports_of(POISON);
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(number, panics): (u64, bool), _| {
            if panics {
                Reaction::Panic(POISON)
            } else {
                Reaction::Answer(number)
            }
        });
        let client = runtime
            .dependency("dep")
            .configure(never_opens)
            .workers(move || script.dependency())
            .start()
            .await
            .unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let (mut seen, mut warm) = (Seen::default(), None);
        for number in (0..CALLS).step_by(10) {
            if number == WARM {
                warm = resident_kib();
            }
            let ten = (number..number + 10).map(|one| client.ask((one, random.u8(..50) == 0)));
            for (one, answer) in (number..).zip(join_all(ten).await) {
                seen.note(one, answer);
            }
        }
        // Before the status: its code is loaded only then, which is no growth of the calls.
        let end = resident_kib();
        let totals = client.status().totals;
        assert_eq!((totals.submitted, totals.ended()), (CALLS, CALLS));
        let failed = seen.crashed + seen.hit;
        assert_eq!((totals.primary, totals.failed), (seen.good, failed));
        assert!(seen.crashed > CALLS / 100, "only {} panics", seen.crashed);
        if let (Some(warm), Some(end)) = (warm, end) {
            let grown = end.saturating_sub(warm);
            println!("grown by {grown} KiB");
            assert!(grown < MAX_GROWTH_KIB, "grown by {grown} KiB");
        }
        runtime.finish().await;
    });
}

/// Shuts a runtime down in every way, then calls it in every way.
#[test]
fn call_1_after_the_end_every_way_to_ask_is_answered() {
    run_paused(async || {
        for killed in [false, true] {
            let runtime = Runtime::start(RuntimeSettings {
                clock: Some(Clock::tokio()),
                ..Default::default()
            })
            .await
            .unwrap();
            let script = Script::new(|request: u32, _| Reaction::Answer(request).after(ms(1_000)));
            let client = runtime
                .dependency("dep")
                .configure(|settings| settings.workers.drain = ms(100))
                .workers(move || script.dependency())
                .fallback(Fixed(7))
                .start()
                .await
                .unwrap();
            // In flight during the shutdown, in the caller's own task: the runtime cannot interrupt
            // it.
            let running = tokio::spawn({
                let client = client.clone();
                async move {
                    let work = async || {
                        pass(5_000).await;
                        Err::<u32, _>("failed")
                    };
                    client.run(work).await
                }
            });
            let asked = tokio::spawn({
                let client = client.clone();
                async move { client.ask(1).await }
            });
            let_others_run().await;
            if !killed {
                runtime.shutdown().await;
            }
            drop(runtime);
            let whole = async {
                assert!(running.await.unwrap().is_err());
                // Interrupted, or answered by the fallback if that was still there.
                let _ = asked.await.unwrap();
                let error = client.ask(1).await.unwrap_err();
                assert_eq!(error.executed(), Executed::No, "{error}");
                assert!(client.breaker().send(Call::new(1)).await.is_err());
                let reset = BreakerCommand::Clear;
                client.operate(reset).await.unwrap();
            };
            let patience = tokio::time::timeout(ms(3_600_000), whole).await;
            patience.expect("a caller waits for ever");
            let totals = client.status().totals;
            assert_eq!(totals.submitted, totals.ended(), "{totals:?}");
        }
    });
}

async fn one_error(configure: impl FnOnce(&mut DependencySettings), told: Do) -> String {
    let bench = Bench::start(configure).await;
    let error = bench.ask(told).await.unwrap_err();
    let words = format!("{:?} {:?}", error.executed(), error.fault());
    bench.finish().await;
    words
}

#[test]
fn call_2_an_error_says_whether_the_work_was_executed() {
    run_paused(async || {
        let short = |settings: &mut DependencySettings| settings.timeout.total = Some(ms(10));
        assert_eq!(one_error(|_| {}, Do::Fail).await, "Maybe Dependency");
        assert_eq!(one_error(short, Do::Hang).await, "Maybe Dependency");
        assert_eq!(one_error(|_| {}, Do::Hang).await, "Maybe Dependency");
        assert_eq!(one_error(|_| {}, Do::Panic).await, "Maybe Dependency");
        let bench = Bench::start(opens_after(1, ms(1_000))).await;
        bench.fail_until_open().await;
        let open = bench.ask(Do::Answer(1)).await.unwrap_err();
        assert_eq!(
            (open.executed(), open.fault()),
            (Executed::No, Fault::Runtime)
        );
        assert!(open.is_refusal());
        bench.finish().await;
    });
}

#[test]
fn call_2_the_neighbours_of_a_crash_may_have_been_executed_and_the_queue_was_not() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            settings.workers.while_restarting = WhileRestarting::Reject;
            settings.workers.quarantine = Some(QuarantineSettings::default());
        };
        let bench = Bench::start(configure).await;
        let asked = [Do::Hang, Do::Panic, Do::Answer(1)].map(|told| bench.ask(told));
        let [hit, poison, queued]: [Asked; 3] = join_all(asked).await.try_into().unwrap();
        let (hit, poison, queued) = (hit.unwrap_err(), poison.unwrap_err(), queued.unwrap_err());
        assert!(matches!(hit, CallError::Interrupted { .. }), "{hit}");
        assert!(
            matches!(poison, CallError::WorkerCrashed { .. }),
            "{poison}"
        );
        let CallError::NotExecuted { reason, .. } = &queued else {
            panic!("{queued}");
        };
        assert_eq!(*reason, NotExecutedReason::Restarting);
        let executed = [hit, poison, queued].map(|error| error.executed());
        assert_eq!(executed, [Executed::Maybe, Executed::Maybe, Executed::No]);
        bench.finish().await;
    });
}

fn retries(settings: &mut DependencySettings) {
    settings.retry.max_attempts = nonzero(3);
    settings.retry.backoff.base = ms(100);
    settings.retry.backoff.jitter = RetryJitter::None;
}

/// The first attempt timed out and may have been executed. The refusal of the second must not make
/// the error promise "not executed".
#[test]
fn call_2_a_refused_retry_does_not_hide_an_attempt_that_may_have_been_executed() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            retries(settings);
            settings.bulkhead.max_concurrent = nonzero(1);
            settings.bulkhead.max_queue = 0;
            settings.timeout.attempt = Some(ms(1_000));
        };
        let bench = Bench::start(configure).await;
        let again = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        let first = bench.client.ask_with(Do::Hang, again);
        let second = async {
            pass(1_050).await;
            bench.ask(Do::Answer(1).after(500)).await
        };
        let (first, second) = tokio::join!(first, second);
        second.unwrap();
        let error = first.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!(error.executed(), Executed::Maybe);
        assert_eq!(bench.status().totals.failed, 1);
        bench.finish().await;
    });
}

#[test]
fn call_2_a_breaker_that_opens_under_a_retry_tells_that_the_work_may_have_been_executed() {
    run_paused(async || {
        let configure = |settings: &mut DependencySettings| {
            retries(settings);
            opens_after(2, ms(60_000))(settings);
        };
        let bench = Bench::start(configure).await;
        let again = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        let error = bench.client.ask_with(Do::Fail, again).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert_eq!(error.executed(), Executed::Maybe, "{error}");
        assert!(!error.is_refusal(), "the dependency was asked");
        assert_eq!((bench.state(), bench.script.calls()), (State::Open, 2));
        assert_eq!(bench.status().totals.failed, 1);
        let status = bench.status();
        assert_eq!(status.tally.cancelled, 0, "no permit is lost on the way");
        bench.finish().await;
    });
}
