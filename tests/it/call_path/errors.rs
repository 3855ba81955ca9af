//! Errors in the hands of callers: each thing is said once, and an error passes on to an outer layer.

use std::error::Error;
use std::sync::Arc;

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{CallContext, CallError, CallOptions, Client, Dependency, Verdict};
use breakerbox_policy::{Class, DependencySettings, Executed};

use crate::scripted::{Bench, Do, ms, nonzero, opens_after};

/// An error with a source.
#[derive(Debug)]
struct SocketError(std::io::Error);

impl std::fmt::Display for SocketError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("the socket")
    }
}

impl Error for SocketError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

struct ClosedSocket;

impl Dependency for ClosedSocket {
    type Request = ();
    type Response = ();
    type Error = SocketError;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), SocketError> {
        Err(SocketError(std::io::Error::other("was closed")))
    }
}

/// The texts of an error and of all its sources.
fn report(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[test]
fn call_2_a_report_says_each_thing_once() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = runtime.dependency("d").workers(|| ClosedSocket);
        let error = client.start().await.unwrap().ask(()).await.unwrap_err();
        assert_eq!(report(&error), "d failed: the socket: was closed");
        let failed = CallError::FallbackFailed {
            dependency: Arc::from("d"),
            fallback: Arc::from("f"),
            message: "no".to_owned(),
            executed: Executed::No,
            executed_by_fallbacks: Executed::No,
            cause: Box::new(error),
        };
        let told = "fallback f failed: no; it was asked because d failed: the socket: was closed";
        assert_eq!(report(&failed), told);
        runtime.finish().await;
    });
}

#[test]
fn call_2_an_error_that_is_converted_keeps_what_it_tells() {
    run_paused(async || {
        let bench = Bench::start(opens_after(1, ms(30_000))).await;
        let failed = bench.ask(Do::Fail).await.unwrap_err();
        let executed = failed.executed();
        let told = failed.to_string();
        let boxed: CallError<Box<dyn Error + Send + Sync>> = failed.map_failed(Into::into);
        assert_eq!((boxed.to_string(), boxed.executed()), (told, executed));
        let open = bench.ask(Do::Answer(1)).await.unwrap_err();
        let wait = open.retry_after();
        let inner = CallError::FallbackFailed {
            dependency: Arc::from("d"),
            fallback: Arc::from("f"),
            message: "no".to_owned(),
            executed: Executed::No,
            executed_by_fallbacks: Executed::No,
            cause: Box::new(open),
        };
        let mapped: CallError<u32> = inner.map_failed(|_| 1);
        assert!(mapped.is_refusal() && mapped.retry_after() == wait && wait.is_some());
        bench.finish().await;
    });
}

/// A body that cannot be made twice.
struct OwnedBody(Vec<u8>);

async fn send(body: OwnedBody, told: &str) -> Result<usize, String> {
    if told.is_empty() {
        Ok(body.0.len())
    } else {
        Err(told.to_owned())
    }
}

#[test]
fn call_7_a_closure_that_can_be_called_once_has_one_attempt() {
    run_paused(async || {
        let bench = Bench::start(|settings: &mut DependencySettings| {
            opens_after(2, ms(30_000))(settings);
            settings.retry.max_attempts = nonzero(5);
        })
        .await;
        let client: &Client<_> = &bench.client;
        let body = OwnedBody(vec![1, 2, 3]);
        assert_eq!(
            client.run_once(async move || send(body, "").await).await,
            Ok(3)
        );
        let body = OwnedBody(vec![1]);
        let unsent =
            |_: &Result<usize, String>| Verdict::from(Class::Failure).executed(Executed::No);
        let options = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        let ran = client.run_once_with(options, unsent, async move || send(body, "no").await);
        let error = ran.await.unwrap_err();
        assert_eq!(
            (error.executed(), error.into_failed()),
            (Executed::No, Some("no".to_owned()))
        );
        let totals = bench.status().totals;
        assert_eq!((totals.attempts, totals.primary, totals.failed), (2, 1, 1));
        let text = String::from("moved");
        let ran = client.run_once(async move || Err::<(), _>(text)).await;
        assert_eq!(ran.unwrap_err().to_string(), "dep failed: moved");
        let open = client.run_once(async || Ok::<_, String>(())).await;
        assert!(matches!(open, Err(CallError::Open(_))));
        bench.finish().await;
    });
}
