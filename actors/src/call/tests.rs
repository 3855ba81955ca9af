//! Attempts that are kept back.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_policy::{BreakerCommand, DependencySettings, State};

use crate::client::Client;
use crate::testing::{Reaction, Script, Scripted, ScriptedError, TestRuntime, run_paused};

type Echo = Client<Scripted<u64, u64>>;

/// A dependency that answers with the milliseconds that it takes, and fails at zero.
async fn echo(
    runtime: &TestRuntime,
    configure: impl FnOnce(&mut DependencySettings),
) -> (Echo, Script<u64, u64>) {
    let script = Script::new(|millis: u64, _| match millis {
        0 => Reaction::Fail(ScriptedError::failure("down")),
        _ => Reaction::Answer(millis).after(Duration::from_millis(millis)),
    });
    let worker = script.clone();
    let client = runtime
        .dependency("d")
        .configure(configure)
        .workers(move || worker.dependency())
        .start()
        .await
        .expect("it starts");
    (client, script)
}

fn trip(millis: u64) -> BreakerCommand {
    BreakerCommand::Trip {
        reason: "for the test".to_owned(),
        wait: Some(Duration::from_millis(millis)),
    }
}

#[test]
fn brk_6_a_probe_is_given_back_while_its_call_waits_for_our_own_limits() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (client, script) = echo(&runtime, |settings| {
            settings.bulkhead.max_concurrent = NonZeroU32::MIN;
            settings.bulkhead.max_wait = Duration::from_secs(60);
            settings.breaker.half_open.probe_lease = Duration::from_millis(500);
        })
        .await;
        let begin = |millis| {
            let client = client.clone();
            tokio::spawn(async move { client.ask(millis).await })
        };
        let late = begin(4_000);
        tokio::time::sleep(Duration::from_millis(1)).await;
        client.operate(trip(10)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let waiting = begin(1);
        tokio::time::sleep(Duration::from_millis(2_000)).await;
        let status = client.status();
        assert_eq!((status.state, status.queued), (State::HalfOpen, 1));
        assert_eq!(status.half_open.unwrap().in_flight, 0, "the probe is free");
        assert_eq!(script.calls(), 1);
        late.await.unwrap().unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().value, 1, "the probe");
        assert_eq!(client.status().state, State::Closed);
        runtime.finish().await;
    });
}
