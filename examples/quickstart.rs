//! A first program: a dependency with a worker, a breaker and a fallback, before, during and after
//! an outage.
//!
//! `cargo run --example quickstart`

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox::policy::State;
use breakerbox::prelude::*;

/// A client of some remote service. Each worker owns one.
struct VectorSearch {
    down: Arc<AtomicBool>,
}

impl Dependency for VectorSearch {
    type Request = String;
    type Response = Vec<String>;
    type Error = io::Error;

    // Makes one attempt. Retries, timeouts and limits are the runtime's task.
    async fn call(&self, query: String, _: &CallContext) -> Result<Vec<String>, io::Error> {
        if self.down.load(Ordering::Acquire) {
            return Err(io::Error::other("the index is down"));
        }
        Ok(vec![format!("the best match for {query:?}")])
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let down = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&down);

    let runtime = Runtime::start(Settings::default()).await?;
    let search = runtime
        .dependency("vector_search")
        .configure(|settings| settings.breaker.open.base = Duration::from_millis(100))
        .workers(move || VectorSearch {
            down: Arc::clone(&switch),
        })
        .fallback(StaleCache::new(Duration::from_secs(3600), 10_000))
        .start()
        .await?;

    let answer = search.ask("rust actors".to_owned()).await?;
    println!("from {}: {:?}", answer.source, answer.value);
    assert!(answer.is_primary());

    down.store(true, Ordering::Release);
    for _ in 0..5 {
        let answer = search.ask("rust actors".to_owned()).await?;
        assert_eq!(answer.source.to_string(), "fallback:stale_cache");
    }
    let status = search.status();
    println!(
        "after five failures the breaker is {}: {}",
        status.state, status.reason
    );
    assert_eq!(status.state, State::Open);
    let error = search
        .ask("something new".to_owned())
        .await
        .expect_err("nothing was kept");
    println!("a question without an earlier answer: {error}");
    assert_eq!(error.executed(), Executed::No);

    down.store(false, Ordering::Release);
    tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
    let answer = search.ask("rust actors".to_owned()).await?;
    println!("after the open time: from {}", answer.source);
    assert!(answer.is_primary());
    assert_eq!(search.status().state, State::Closed);

    runtime.shutdown().await;
    let totals = search.status().totals;
    println!(
        "{} calls: {} primary, {} by the fallback, {} refused",
        totals.submitted, totals.primary, totals.fallback, totals.refused
    );
    assert_eq!(totals.submitted, totals.ended());
    Ok(())
}
