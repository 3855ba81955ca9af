//! The installed runtime, tested in a program of its own: a process has at most one.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

use breakerbox::prelude::*;
use breakerbox::{NotExecutedReason, StartError};

/// Configured; only the runtime starts it.
#[protected("configured")]
async fn configured() -> Result<u32, String> {
    Ok(1)
}

/// Started by the program, with workers.
#[protected("with_workers", timeout = "1m")]
async fn with_workers(number: u32) -> Result<u32, String> {
    Ok(number)
}

/// Uses a runtime given by its argument, so the installed runtime does not check its name.
#[protected("elsewhere", runtime = runtime)]
async fn elsewhere(runtime: &Runtime) -> Result<u32, String> {
    Ok(2)
}

struct Echo;

impl Dependency for Echo {
    type Request = u32;
    type Response = u32;
    type Error = String;

    async fn call(&self, request: u32, _: &CallContext) -> Result<u32, String> {
        Ok(request)
    }
}

fn settings(names: &[&str]) -> RuntimeSettings {
    let each = names
        .iter()
        .map(|name| ((*name).to_owned(), DependencySettings::default()));
    RuntimeSettings {
        dependencies: each.collect(),
        ..RuntimeSettings::default()
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, CallError<String>>) -> NotExecutedReason {
    match result.unwrap_err() {
        CallError::NotExecuted { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn item_21_the_attribute_goes_to_the_installed_runtime_from_every_thread() {
    assert_eq!(reason(configured().await), NotExecutedReason::NoRuntime);
    let runtime = Runtime::start(settings(&["configured"])).await.unwrap();

    let StartError::UnknownNames { names } = runtime.install().await.unwrap_err() else {
        panic!("another error");
    };
    let names: Vec<&str> = names.iter().map(|unknown| &*unknown.name).collect();
    assert_eq!(
        names,
        ["with_workers"],
        "only what goes to the installed one"
    );
    assert!(
        runtime.status("configured").is_none(),
        "nothing was started"
    );
    assert_eq!(
        reason(configured().await),
        NotExecutedReason::NoRuntime,
        "nor installed"
    );

    let echo = runtime.dependency("with_workers").workers(|| Echo);
    let echo = echo.start().await.unwrap();
    runtime.install().await.unwrap();
    assert_eq!(configured().await, Ok(1));
    assert!(runtime.status("configured").unwrap().workers.is_empty());
    assert_eq!(with_workers(7).await, Ok(7));
    assert_eq!(echo.ask(8).await.unwrap().value, 8);
    assert_eq!(echo.status().totals.primary, 2, "one dependency");
    let elsewhere_too = Runtime::start(settings(&[])).await.unwrap();
    assert_eq!(
        reason(elsewhere(&elsewhere_too).await),
        NotExecutedReason::NotStarted
    );
    elsewhere_too.dependency("elsewhere").start().await.unwrap();
    assert_eq!(elsewhere(&elsewhere_too).await, Ok(2));

    let other_thread = std::thread::spawn(|| {
        let tokio = tokio::runtime::Builder::new_current_thread();
        let tokio = { tokio }.enable_all().build().unwrap();
        tokio.block_on(with_workers(9))
    });
    assert_eq!(other_thread.join().unwrap(), Ok(9));

    let second = Runtime::start(settings(&["configured", "with_workers"]))
        .await
        .unwrap();
    let refused = second.install().await;
    assert_eq!(refused, Err(StartError::AlreadyInstalled));
    assert!(second.status("configured").is_none(), "nothing was started");
    second.dependency("configured").start().await.unwrap();
    assert_eq!(second.scope(configured()).await, Ok(1));
    assert_eq!(runtime.status("configured").unwrap().totals.primary, 1);
    assert_eq!(second.status("configured").unwrap().totals.primary, 1);

    runtime.shutdown().await;
    assert_eq!(reason(configured().await), NotExecutedReason::ShuttingDown);
    drop((echo, runtime));
    assert_eq!(
        reason(configured().await),
        NotExecutedReason::NoRuntime,
        "it has gone"
    );
    second.install().await.unwrap();
    assert_eq!(configured().await, Ok(1));
    assert_eq!(second.status("configured").unwrap().totals.primary, 2);
    second.shutdown().await;
    elsewhere_too.shutdown().await;
}
