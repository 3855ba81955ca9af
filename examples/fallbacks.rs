//! Fallbacks: answers for callers while the dependency fails.
//!
//! The runtime tries the fallbacks in order, and each answer names its source.
//!
//! `cargo run --example fallbacks`

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Query {
    text: &'static str,
    /// True for a change of data. No fallback may answer it, since nothing would be changed.
    write: bool,
}

fn query(text: &'static str) -> Query {
    Query { text, write: false }
}

/// A search service, on the web or local.
struct Search {
    place: &'static str,
    down: Arc<AtomicBool>,
}

impl Dependency for Search {
    type Request = Query;
    type Response = String;
    type Error = io::Error;

    async fn call(&self, query: Query, _: &CallContext) -> Result<String, io::Error> {
        if self.down.load(Ordering::Acquire) {
            return Err(io::Error::other("no answer"));
        }
        Ok(format!("{} on {}", self.place, query.text))
    }

    fn is_write(query: &Query) -> bool {
        query.write
    }
}

/// A function as a fallback. On an error the runtime tries the next fallback.
async fn encyclopedia(query: Query) -> Result<String, String> {
    match query.text {
        "actors" => Ok("the encyclopedia on actors".to_owned()),
        other => Err(format!("no entry for {other}")),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::start(Settings::default()).await?;
    let (web_down, local_down) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let worker = |place: &'static str, down: &Arc<AtomicBool>| {
        let down = Arc::clone(down);
        move || Search {
            place,
            down: Arc::clone(&down),
        }
    };

    // The local index is a dependency of its own, with its own breaker; below it becomes a fallback
    // of the web search.
    let local = runtime
        .dependency("local_index")
        .workers(worker("the local index", &local_down))
        .start()
        .await?;
    let search = runtime
        .dependency("web_search")
        .workers(worker("the web", &web_down))
        .fallback(StaleCache::new(Duration::from_secs(3600), 1000))
        .fallback_rule(
            FallbackRule::new(|query: Query, _: &CallError<io::Error>| encyclopedia(query))
                .named("encyclopedia"),
        )
        .fallback(local)
        .fallback(Fixed("nothing found".to_owned()))
        .start()
        .await?;

    let show = async |text: &'static str, from: &str| {
        let answer = search.ask(query(text)).await?;
        let age = answer
            .age
            .map_or(String::new(), |age| format!(", {age:.0?} old"));
        let source = answer.source.to_string();
        println!("{text:<10} {source:<22} {}{age}", answer.value);
        assert_eq!(answer.source.to_string(), from);
        assert_eq!(answer.age.is_some(), from == "fallback:stale_cache");
        Ok::<(), CallError<io::Error>>(())
    };
    show("breakers", "primary").await?;
    web_down.store(true, Ordering::Release);
    show("breakers", "fallback:stale_cache").await?;
    show("actors", "fallback:encyclopedia").await?;
    show("clocks", "fallback:local_index").await?;
    local_down.store(true, Ordering::Release);
    show("clocks", "fallback:fixed").await?;

    let write = Query {
        text: "a note",
        write: true,
    };
    let error = search
        .ask(write)
        .await
        .expect_err("a write is never answered by a fallback");
    println!("a write    no fallback            {error}");

    let totals = search.status().totals;
    assert_eq!(
        (totals.primary, totals.fallback, totals.failed),
        (1, 4, 1),
        "fallback answers are no successes"
    );
    for (name, served) in search.status().fallbacks {
        println!("{name} answered {served}");
        assert_eq!(served, 1);
    }
    runtime.shutdown().await;
    Ok(())
}
