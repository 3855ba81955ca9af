//! BRK-3 for each key: a dependency with keys behaves like one kernel breaker per key, and
//! concurrent threads lose no outcome.

use std::collections::BTreeMap;

use breakerbox_actors::testing::{Script, run_paused};
use breakerbox_actors::{CallError, Runtime, RuntimeSettings};
use breakerbox_policy::{Breaker, BreakerSettings, Class, DependencySettings, Outcome, WindowKind};

use super::{Bench, Do, ms, nonzero, of, pass};

fn breaker(settings: &mut BreakerSettings) {
    settings.window = WindowKind::Count { size: nonzero(8) };
    settings.failure_threshold = Some(nonzero(3));
    settings.open.base = ms(50);
    settings.open.factor = 2.0;
    settings.open.max = ms(400);
    settings.open.jitter = 0.0;
}

#[test]
fn brk_3_a_dependency_with_keys_is_that_many_breakers() {
    const KEYS: [&str; 4] = ["", "a", "b", "c"];
    run_paused(async || {
        for seed in 0..12 {
            let mut random = fastrand::Rng::with_seed(seed);
            let configure = |settings: &mut DependencySettings| breaker(&mut settings.breaker);
            let bench = Bench::start(configure).await;
            let clock = bench.runtime.clock();
            let settings = bench.client.settings().breaker.clone();
            let mut models: BTreeMap<&str, Breaker> = BTreeMap::new();
            let mut refused = 0;
            for step in 0..300 {
                let key = KEYS[random.usize(..KEYS.len())];
                let (took, fails) = (random.u64(..3) * 10, random.f64() < 0.6);
                let told = if fails { Do::Fail } else { Do::Answer(1) }.after(took);
                let model = models
                    .entry(key)
                    .or_insert_with(|| Breaker::new(settings.clone(), clock.now()));
                let admitted = model.admit(clock.now());
                let asked = match key {
                    "" => bench.ask(told).await,
                    key => bench.ask_of(key, told).await,
                };
                let opened = matches!(asked, Err(CallError::Open(_)));
                assert_eq!(
                    opened,
                    admitted.is_err(),
                    "seed {seed}, step {step}, key {key:?}"
                );
                match admitted {
                    Err(refusal) => {
                        refused += 1;
                        let wait = asked.unwrap_err().retry_after();
                        assert_eq!(wait, refusal.retry_after, "seed {seed}, step {step}");
                    }
                    Ok(permit) => {
                        let class = if fails {
                            Class::Failure
                        } else {
                            Class::Success
                        };
                        let outcome = Outcome::new(class, ms(took));
                        model.record(clock.now(), permit, &outcome, &mut || 0.5);
                    }
                }
                let known = if key.is_empty() {
                    bench.state()
                } else {
                    bench.state_of(key)
                };
                assert_eq!(
                    known,
                    model.state(),
                    "seed {seed}, step {step}, key {key:?}"
                );
                pass(random.u64(..4) * 10).await;
            }
            assert!(refused > 20, "only {refused} refusals: nothing was tested");
            bench.finish().await;
        }
    });
}

#[test]
fn call_3_no_outcome_of_a_key_is_lost_between_threads() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 2_000;
    let main = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    main.block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let client = runtime
            .dependency("dep")
            .configure(|settings| {
                settings.breaker.window = WindowKind::Count {
                    size: nonzero(10_000),
                };
                settings.breaker.failure_threshold = None;
                settings.bulkhead.max_concurrent = nonzero(100);
            })
            .workers(|| Script::<Do, u32>::new(|told: Do, _| told.reaction()).dependency())
            .start()
            .await
            .unwrap();
        let call_all = |thread: u64| {
            let client = client.clone();
            move || {
                let here = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                here.block_on(async {
                    for number in 0..CALLS {
                        let key = ["a", "b", "c"][((number + thread) % 3) as usize];
                        let good = number % 7 != 0;
                        let by_result = |result: &Result<(), ()>| match result {
                            Ok(()) => Class::Success.into(),
                            Err(()) => Class::Failure.into(),
                        };
                        let work = async || good.then_some(()).ok_or(());
                        let ran = client.run_with(of(key), by_result, work).await;
                        assert_eq!(ran.is_ok(), good);
                    }
                });
            }
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| std::thread::spawn(call_all(thread)))
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let status = client.status();
        let sum =
            |of: fn(&breakerbox_actors::KeyStatus) -> u64| status.keys.iter().map(of).sum::<u64>();
        let failures = THREADS * CALLS.div_ceil(7);
        assert_eq!(status.keys.len(), 3);
        assert_eq!(sum(|key| key.tally.failures), failures);
        assert_eq!(sum(|key| key.tally.successes), THREADS * CALLS - failures);
        assert_eq!(sum(|key| key.window.calls), THREADS * CALLS);
        assert_eq!(status.tally.recorded, 0);
        runtime.shutdown().await;
    });
}
