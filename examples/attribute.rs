//! The `#[protected]` attribute: an async function as a protected call.
//!
//! It gets the same breaker, limits and fallback rules as a client, without workers or a handle.
//!
//! `cargo run --example attribute`

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox::policy::State;
use breakerbox::prelude::*;

/// Simulates an outage of a remote index.
static DOWN: AtomicBool = AtomicBool::new(false);

/// The body is written as without the attribute. Callers get a `CallError<io::Error>`.
#[protected("vector_search", timeout = "2s", idempotent, fallback = local_index)]
async fn vector_search(query: &str, limit: usize) -> Result<Vec<String>, io::Error> {
    if DOWN.load(Ordering::Acquire) {
        return Err(io::Error::other("the index is down"));
    }
    Ok(vec![format!("the best match for {query:?}"); limit])
}

/// The fallback. It takes the same arguments and the error of the call.
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
    // A program would load these with `Settings::load()`.
    let mut settings = RuntimeSettings::default();
    let vectors = DependencySettings::default();
    settings
        .dependencies
        .insert("vector_search".to_owned(), vectors);

    let runtime = Runtime::start(settings).await?;
    // Makes this runtime available on every thread. Fails if an attribute names a dependency that
    // is not configured.
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
    // The primary was refused, but the fallback ran, and what it had done before it failed is unknown.
    assert_eq!(error.executed(), Executed::Maybe);

    runtime.shutdown().await;
    let totals = status.totals;
    println!(
        "{} calls: {} primary, {} by the fallback",
        totals.submitted, totals.primary, totals.fallback
    );
    assert_eq!((totals.primary, totals.fallback), (1, 6));
    Ok(())
}
