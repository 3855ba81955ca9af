//! Tests with the testkit: virtual time, a scripted dependency, and a mock.
//!
//! Each function below could be a `#[test]` of yours.
//!
//! `cargo run --example testkit --features testing`

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use breakerbox::policy::State;
use breakerbox::prelude::*;
use breakerbox::testing::{Reaction, Script, ScriptedError, TestRuntime, run_paused};

fn main() {
    an_outage_of_half_a_minute_takes_no_time();
    println!("virtual time: an outage of 30 s, in no time");
    a_worker_that_panics_is_replaced();
    println!("a scripted panic: the worker is replaced, the next call is served");
    a_mock_sees_what_the_runtime_asks();
    println!("mockall: two attempts for one call");
}

/// A whole outage. The clock is virtual: it advances when all tasks wait, so the 30 seconds take no
/// real time.
fn an_outage_of_half_a_minute_takes_no_time() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|query: &'static str, number| match number {
            1..=5 => Reaction::Fail(ScriptedError::failure("down")),
            _ => Reaction::Answer(query.len()).after(Duration::from_millis(20)),
        });
        let worker = script.clone();
        let client = runtime
            .dependency("vector_search")
            .workers(move || worker.dependency())
            .start()
            .await
            .expect("it starts");
        for _ in 0..5 {
            client.ask("rust").await.expect_err("it is down");
        }
        let refused = client.ask("rust").await.expect_err("the breaker is open");
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(30)));
        assert_eq!(script.calls(), 5, "a refusal costs the dependency nothing");

        tokio::time::sleep(Duration::from_secs(30)).await;
        let answer = client.ask("rust").await.expect("the probe goes through");
        assert_eq!(
            (answer.value, answer.elapsed),
            (4, Duration::from_millis(20))
        );
        let moves = runtime.transitions();
        let states: Vec<State> = moves.into_iter().map(|(_, _, to)| to).collect();
        assert_eq!(states, [State::Open, State::HalfOpen, State::Closed]);
        // Panics if a call is still pending or an actor has leaked.
        runtime.finish().await;
    });
}

fn a_worker_that_panics_is_replaced() {
    std::panic::set_hook(Box::new(|panic| {
        println!("({})", panic.to_string().replace('\n', " "));
    }));
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), number| match number {
            1 => Reaction::Panic("a bug"),
            _ => Reaction::Answer(number),
        });
        let worker = script.clone();
        let client = runtime
            .dependency("knowledge_graph")
            .workers(move || worker.dependency())
            .start()
            .await
            .expect("it starts");
        let error = client.ask(()).await.expect_err("the first call crashes it");
        assert!(
            matches!(error, CallError::WorkerCrashed { ref panic, .. } if panic.message == "a bug")
        );
        assert_eq!(error.executed(), Executed::Maybe);
        assert_eq!(
            client.ask(()).await.expect("the new worker answers").value,
            2
        );
        runtime
            .event(|event| event.kind == EventKind::Started { incarnation: 2 })
            .await;
        runtime.finish().await;
    });
}

mockall::mock! {
    Search {}

    impl Dependency for Search {
        type Request = String;
        type Response = u32;
        type Error = ScriptedError;

        async fn call(&self, query: String, call: &CallContext) -> Result<u32, ScriptedError>;
        fn is_idempotent(query: &String) -> bool;
    }
}

/// The mock checks the arguments of each call; the runtime counts the calls.
fn a_mock_sees_what_the_runtime_asks() {
    run_paused(async || {
        // A mocked static function applies to the whole process while this guard lives.
        let idempotent = MockSearch::is_idempotent_context();
        idempotent.expect().return_const(true);
        let runtime = TestRuntime::start().await;
        let client = runtime
            .dependency("web_search")
            .configure(|settings| settings.retry.max_attempts = 2.try_into().expect("not zero"))
            .workers(|| {
                let mut search = MockSearch::new();
                search
                    .expect_call()
                    .withf(|query, call| query == "rust" && call.dependency() == "web_search")
                    .returning(|_, call| match call.attempt() {
                        1 => Err(ScriptedError::failure("busy")),
                        attempt => Ok(attempt),
                    });
                search
            })
            .start()
            .await
            .expect("it starts");
        let answer = client.ask("rust".to_owned()).await;
        let answer = answer.expect("the second attempt works");
        assert_eq!((answer.value, answer.attempts), (2, 2));
        assert_eq!(client.status().totals.attempts, 2);
        runtime.finish().await;
    });
}
