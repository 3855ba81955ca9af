//! CALL-7 for closures whose attempts borrow from them: `run_mut`.

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{CallError, CallOptions, Client, Closures, Verdict};
use breakerbox_policy::{Class, DependencySettings, HedgeDelay, HedgeSettings, RetryJitter};

use crate::scripted::{ms, nonzero, pass};

/// A client library that has to be borrowed for a call.
#[derive(Default)]
struct Session {
    tries: Vec<String>,
    good_from: usize,
}

impl Session {
    async fn search(&mut self, query: &str) -> Result<usize, String> {
        pass(1).await;
        self.tries.push(query.to_owned());
        match self.tries.len() {
            tries if tries < self.good_from => Err(format!("try {tries} is bad")),
            tries => Ok(tries),
        }
    }
}

fn session(good_from: usize) -> Session {
    Session {
        good_from,
        ..Session::default()
    }
}

fn three_attempts(settings: &mut DependencySettings) {
    settings.retry.max_attempts = nonzero(3);
    settings.retry.backoff.base = ms(10);
    settings.retry.backoff.jitter = RetryJitter::None;
}

async fn start(
    runtime: &TestRuntime,
    configure: impl FnOnce(&mut DependencySettings),
) -> Client<Closures> {
    let built = runtime.dependency("d").configure(configure);
    built.start().await.unwrap()
}

fn judge<T>(result: &Result<T, String>) -> Verdict {
    let class = if result.is_ok() {
        Class::Success
    } else {
        Class::Failure
    };
    Verdict::from(class)
}

fn repeatable() -> CallOptions {
    CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    }
}

#[test]
fn call_7_run_mut_lends_its_state_to_one_attempt_after_the_other() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, three_attempts).await;
        let (mut session, query) = (session(3), "rust".to_owned());
        let search = async || session.search(&query).await;
        let found = client.run_mut_with(repeatable(), judge, search);
        assert_eq!(found.await, Ok(3));
        assert_eq!(session.tries, ["rust", "rust", "rust"]);
        assert_eq!(client.status().totals.attempts, 3);
        runtime.finish().await;
    });
}

#[test]
fn call_7_run_mut_repeats_nothing_that_may_have_been_executed() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, three_attempts).await;
        let mut session = session(3);
        let error = client.run_mut(async || session.search("rust").await).await;
        assert_eq!(error.unwrap_err().into_failed().unwrap(), "try 1 is bad");
        assert_eq!(session.tries.len(), 1);
        // By any handle, and as often as one likes.
        let any = client.any();
        for _ in 0..2 {
            let _ = any.run_mut(async || session.search("again").await).await;
        }
        assert_eq!(session.tries, ["rust", "again", "again"]);
        let totals = client.status().totals;
        assert_eq!((totals.submitted, totals.primary, totals.failed), (3, 1, 2));
        runtime.finish().await;
    });
}

#[test]
fn call_5_run_mut_passes_the_layers_of_run() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, |settings| {
            three_attempts(settings);
            settings.timeout.attempt = Some(ms(50));
            settings.hedge = Some(HedgeSettings {
                delay: HedgeDelay::Fixed(ms(1)),
                max_hedges: nonzero(1),
            });
            settings.breaker.consecutive_failures = None;
            settings.breaker.failure_threshold = Some(nonzero(3));
        })
        .await;
        let mut begun = 0;
        let hangs = async || {
            begun += 1;
            std::future::pending::<Result<(), String>>().await
        };
        let ended = client.run_mut_with(repeatable(), judge, hangs).await;
        assert!(
            matches!(ended, Err(CallError::TimedOut { .. })),
            "{ended:?}"
        );
        assert_eq!(begun, 3, "in three attempts, without a hedge");
        assert_eq!(client.state(), "open");
        let refused = client.any().run_mut(async || Ok::<_, String>(begun)).await;
        assert!(matches!(refused, Err(CallError::Open(_))), "{refused:?}");
        runtime.finish().await;
    });
}
