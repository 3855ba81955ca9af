//! An async function whose calls are protected: the same breaker, limits and fallback rules, and
//! no worker and no handle.
//!
//! `cargo run --example attribute`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox::policy::State;
use breakerbox::prelude::*;

/// Stands for an index somewhere else.
static DOWN: AtomicBool = AtomicBool::new(false);

/// It is written as it would be without the attribute; its callers get a `CallError<io::Error>`.
#[protected("vector_search", timeout = "2s", idempotent, fallback = local_index)]
async fn vector_search(query: &str, limit: usize) -> Result<Vec<String>, io::Error> {
    if DOWN.load(Ordering::Acquire) {
        return Err(io::Error::other("the index is down"));
    }
    Ok(vec![format!("the best match for {query:?}"); limit])
}

/// Stands in: the same arguments, and why it is asked.
async fn local_index(
    query: &str,
    _limit: usize,
    why: &CallError<io::Error>,
) -> Result<Vec<String>, io::Error> {
    if query.is_empty() {
        return Err(io::Error::other("there is nothing to look for"));
    }
    Ok(vec![format!("{query:?} in the local index, since {why}")])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // As `Settings::load()` reads it from the files.
    let mut settings = RuntimeSettings::default();
    let vectors = DependencySettings::default();
    settings
        .dependencies
        .insert("vector_search".to_owned(), vectors);

    let runtime = Runtime::start(settings).await?;
    // From here on every thread has it. A name that is not configured is an error here.
    runtime.install().await?;

    println!("{:?}", vector_search("rust actors", 2).await?);

    DOWN.store(true, Ordering::Release);
    for _ in 0..6 {
        println!("{:?}", vector_search("rust actors", 2).await?);
    }
    let status = runtime.status("vector_search").ok_or("it runs")?;
    assert_eq!(status.state, State::Open, "five failures in a row");
    let error = vector_search("", 1)
        .await
        .expect_err("the fallback has nothing");
    println!("{error}");
    assert_eq!(error.executed(), Executed::No);

    runtime.shutdown().await;
    let totals = status.totals;
    println!(
        "{} calls: {} primary, {} by the fallback",
        totals.submitted, totals.primary, totals.fallback
    );
    assert_eq!((totals.primary, totals.fallback), (1, 6));
    Ok(())
}
