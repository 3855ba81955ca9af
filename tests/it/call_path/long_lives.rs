//! Times that are far from the start: every kind of call and of wait, years after the start.

use std::time::Duration;

use breakerbox_actors::testing::{Script, TestRuntime, run_paused};
use breakerbox_actors::{CallContext, CallError, CallOptions, Client, Dependency};
use breakerbox_policy::{DependencySettings, RateLimitSettings, State};

use crate::scripted::{Bench, Dep, Do, ms, nonzero, opens_after, pass};
use crate::streamed::{Step, play, read};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Asks another dependency.
struct Outer(Client<Dep>);

impl Dependency for Outer {
    type Request = Do;
    type Response = u32;
    type Error = String;

    async fn call(&self, request: Do, _: &CallContext) -> Result<u32, String> {
        let asked = self.0.ask(request).await;
        asked
            .map(|answer| answer.value)
            .map_err(|error| error.to_string())
    }
}

async fn start(runtime: &TestRuntime, name: &str) -> Client<Dep> {
    let script = || Script::<Do, u32>::new(|told: Do, _| told.reaction()).dependency();
    let dependency = runtime
        .dependency(name)
        .configure(opens_after(2, ms(1_000)));
    dependency.workers(script).start().await.unwrap()
}

async fn years(count: u32) {
    tokio::time::advance(YEAR * count).await;
    pass(1).await;
}

#[test]
fn call_1_calls_within_calls_work_after_years() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let inner = start(&runtime, "inner").await;
        let asked = inner.clone();
        let outer = runtime.dependency("outer");
        let outer = outer
            .workers(move || Outer(asked.clone()))
            .start()
            .await
            .unwrap();
        for count in [0, 1, 2, 10] {
            years(count).await;
            for wait in [0, 20] {
                let told = Do::Answer(7).after(wait);
                assert_eq!(
                    outer.ask(told).await.unwrap().value,
                    7,
                    "{count} years later"
                );
            }
        }
        runtime.finish().await;
    });
}

#[test]
fn call_1_every_kind_of_call_and_wait_works_after_years() {
    run_paused(async || {
        let bench = Bench::start(|settings: &mut DependencySettings| {
            opens_after(2, ms(1_000))(settings);
            settings.rate_limit = Some(RateLimitSettings {
                rate: 10.0,
                per: ms(1_000),
                burst: nonzero(1),
                max_wait: ms(10_000),
            });
            settings.bulkhead.max_concurrent = nonzero(1);
        })
        .await;
        years(2).await;
        let client = &bench.client;
        assert_eq!(bench.ask(Do::Answer(1).after(30)).await.unwrap().value, 1);
        let error = bench.ask(Do::Hang).await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!(bench.state(), State::Closed);
        let work = async || {
            tokio::time::sleep(ms(20)).await;
            Ok::<_, String>(2)
        };
        assert_eq!(client.run(work).await, Ok(2));
        assert_eq!(client.run_once(work).await, Ok(2));
        let steps = [Step::Item(1), Step::Wait(20), Step::Item(2)];
        let stream = client.run_stream(async || Ok(play(steps))).await.unwrap();
        assert_eq!(read(stream).await, (vec![1, 2], None));
        // A wait for the only slot, one for an open breaker, and one for a deadline.
        let (one, other) =
            tokio::join!(bench.ask(Do::Answer(3).after(50)), bench.ask(Do::Answer(4)),);
        assert_eq!((one.unwrap().value, other.unwrap().value), (3, 4));
        for _ in 0..2 {
            bench.ask(Do::Fail).await.unwrap_err();
        }
        assert_eq!(bench.state(), State::Open);
        // Timers count in whole milliseconds.
        pass(1_001).await;
        assert_eq!(bench.state(), State::HalfOpen);
        let options = CallOptions {
            timeout: Some(ms(50)),
            ..CallOptions::default()
        };
        let late = client.ask_with(Do::Hang, options).await.unwrap_err();
        assert!(matches!(late, CallError::TimedOut { after, .. } if after == ms(50)));
        bench.finish().await;
    });
}
