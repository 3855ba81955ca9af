//! BRK-3 for each key: a dependency with keys behaves like one kernel breaker per key and one for
//! all of them, and concurrent threads lose no outcome.

use std::collections::{BTreeMap, BTreeSet};

use breakerbox_actors::testing::{Script, run_paused};
use breakerbox_actors::{CallError, Runtime, RuntimeSettings};
use breakerbox_policy::{
    Breaker, BreakerSettings, Class, DependencySettings, Outcome, Permit, State, Time, WindowKind,
};

use super::{Bench, Do, ms, nonzero, of, pass};

fn breaker(settings: &mut BreakerSettings) {
    settings.window = WindowKind::Count { size: nonzero(8) };
    settings.failure_threshold = Some(nonzero(3));
    settings.open.base = ms(50);
    settings.open.factor = 2.0;
    settings.open.max = ms(400);
    settings.open.jitter = 0.0;
}

/// The kernel breakers of a dependency and its keys, and the rules between them.
struct ReferenceModel {
    settings: BreakerSettings,
    /// The breaker of all has no name.
    breakers: BTreeMap<&'static str, Breaker>,
    failing: BTreeSet<&'static str>,
    /// Number of keys that began to fail since the last success of a key.
    run: u32,
}

impl ReferenceModel {
    fn new(settings: BreakerSettings, now: Time) -> Self {
        let whole = Breaker::new(settings.clone(), now);
        Self {
            settings,
            breakers: BTreeMap::from([("", whole)]),
            failing: BTreeSet::new(),
            run: 0,
        }
    }

    fn of(&mut self, key: &'static str, now: Time) -> &mut Breaker {
        let settings = &self.settings;
        let breaker = self.breakers.entry(key);
        let breaker = breaker.or_insert_with(|| Breaker::new(settings.clone(), now));
        breaker.on_time(now, &mut || 0.5);
        breaker
    }

    /// Returns the name of the breaker that decides on a call.
    fn decides(&mut self, key: &'static str, now: Time) -> &'static str {
        let mut until = |name| {
            let breaker = self.of(name, now);
            let wait = breaker.view(now).retry_after.unwrap_or_default();
            (breaker.state(), wait)
        };
        match (until(""), until(key)) {
            ((State::Closed, _), _) => key,
            ((_, whole), (State::Open, own)) if own > whole => key,
            _ => "",
        }
    }

    fn record(&mut self, by: &'static str, permit: Permit, outcome: &Outcome, now: Time) {
        self.of(by, now).record(now, permit, outcome, &mut || 0.5);
        if by.is_empty() {
            return;
        }
        let counts = match outcome.class {
            Class::Failure => {
                let begins = self.failing.insert(by);
                self.run += u32::from(begins);
                begins && self.run >= 3
            }
            _ => {
                self.failing.remove(by);
                self.run = 0;
                true
            }
        };
        let whole = self.of("", now);
        if counts && whole.state() == State::Closed {
            let permit = Permit::normal(whole.generation(), now);
            whole.record(now, permit, outcome, &mut || 0.5);
        }
    }
}

#[test]
fn brk_3_a_dependency_with_keys_is_that_many_breakers_and_one_for_all() {
    const KEYS: [&str; 8] = ["", "a", "b", "c", "d", "e", "f", "g"];
    run_paused(async || {
        let mut refused = [0, 0];
        for seed in 0..12 {
            let mut random = fastrand::Rng::with_seed(seed);
            let configure = |settings: &mut DependencySettings| breaker(&mut settings.breaker);
            let bench = Bench::start(configure).await;
            let clock = bench.runtime.clock();
            let settings = bench.client.settings().breaker.clone();
            let mut model = ReferenceModel::new(settings, clock.now());
            for step in 0..300 {
                let key = KEYS[random.usize(..KEYS.len())];
                let (took, fails) = (random.u64(..3) * 10, random.f64() < 0.5);
                let told = if fails { Do::Fail } else { Do::Answer(1) }.after(took);
                let by = model.decides(key, clock.now());
                let admitted = model.of(by, clock.now()).admit(clock.now());
                let asked = match key {
                    "" => bench.ask(told).await,
                    key => bench.ask_of(key, told).await,
                };
                let opened = matches!(asked, Err(CallError::Open(_)));
                let context = format!("seed {seed}, step {step}, key {key:?}, by {by:?}");
                assert_eq!(opened, admitted.is_err(), "{context}");
                match admitted {
                    Err(refusal) => {
                        refused[usize::from(by.is_empty())] += 1;
                        let wait = asked.unwrap_err().retry_after();
                        assert_eq!(wait, refusal.retry_after, "{context}");
                    }
                    Ok(permit) => {
                        let class = if fails {
                            Class::Failure
                        } else {
                            Class::Success
                        };
                        model.record(by, permit, &Outcome::new(class, ms(took)), clock.now());
                    }
                }
                // The timers of the other breakers may be due at this very moment.
                let state = match by {
                    "" => bench.state(),
                    key => bench.state_of(key),
                };
                assert_eq!(state, model.of(by, clock.now()).state(), "{context}");
                pass(random.u64(..4) * 10).await;
            }
            bench.finish().await;
        }
        assert!(
            refused.into_iter().all(|count| count > 100),
            "{refused:?}: nothing was tested"
        );
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
        // Each success, and the first failure of each run.
        let (good, bad) = (status.tally.successes, status.tally.failures);
        assert_eq!(good, THREADS * CALLS - failures);
        assert!(bad <= failures, "{bad} of {failures}");
        runtime.shutdown().await;
    });
}
