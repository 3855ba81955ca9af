//! A consumer of another queue, as the example in Python is one: real Redis, the example's own process,
//! and a real sidecar (rule MSG-10).

use std::process::Command;

use super::redis_server::{Example, PATIENCE, Redis, configure, until};
use super::sidecar::Service;
use super::*;
use crate::gateway::serve::{Sidecar, command};
use crate::tools::find;

/// Adds an entry, and returns its id.
fn add(redis: &Redis, number: u32) -> String {
    let number = number.to_string();
    let path = match number.ends_with("77") {
        true => "/poison",
        false => "/work",
    };
    let fields = [
        "header.x-number",
        &number,
        "path",
        path,
        "body",
        "a question",
    ];
    let words: Vec<&str> = ["XADD", "calls", "*"].into_iter().chain(fields).collect();
    redis.ask(&words)
}

/// The command of the example. `None`: there is no Python, and the test passes by.
fn example() -> Option<Command> {
    let mut command = Command::new(find(&["python3"])?);
    command
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/examples/redis_streams/consumer.py"
        ))
        .args(["--claim-after", "1.5"]);
    Some(command)
}

#[tokio::test]
async fn msg_10_a_consumer_of_redis_that_asks_first_leaves_an_outage_to_the_queue() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &url);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let Some(first) = example() else {
        return;
    };
    let first = Example::start(first, &redis, &sidecar);
    let _second = example().map(|command| Example::start(command, &redis, &sidecar));
    let mut added: Vec<String> = (0..100).map(|number| add(&redis, number)).collect();
    until("some are answered", || service.calls() > 20).await;
    service.set_down(true);
    added.extend((100..200).map(|number| add(&redis, number)));
    // The fifth opened the breaker, and the others are its probes.
    until("it is tried", || service.calls_while_down() >= 7).await;
    drop(first);
    until("it is tried again", || service.calls_while_down() >= 10).await;
    let while_down = service.calls_while_down();
    assert!(redis.ask(&["XLEN", "calls"]).parse::<u32>().unwrap() > 50);
    service.set_down(false);
    // Poison alone would keep the breaker open.
    let dead = || redis.ask(&["HLEN", "calls:dead"]) == "2";
    let mut more = 1_000_u32..;
    let end = tokio::time::Instant::now() + PATIENCE;
    while !dead() {
        assert!(tokio::time::Instant::now() < end, "the poison is not dead");
        added.push(add(&redis, more.next().unwrap() * 100));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("all have ended", || redis.ask(&["XLEN", "calls"]) == "0").await;
    // The threshold and what was in flight, then a probe a period.
    assert!(
        while_down <= 5 + 8 + 8,
        "{while_down} calls while it was down"
    );
    let answers = redis.ask(&["HKEYS", "calls:answers"]);
    let mut ended: Vec<&str> = answers.lines().collect();
    let letters = redis.ask(&["HKEYS", "calls:dead"]);
    ended.extend(letters.lines());
    ended.sort_unstable();
    added.sort_unstable();
    assert_eq!(ended, added, "each entry has ended once");
    assert_eq!(redis.ask(&["HLEN", "calls:failures"]), "0");
    let letters = redis.ask(&["HVALS", "calls:dead"]);
    assert_eq!(letters.matches("/poison").count(), 2, "{letters}");
}

#[tokio::test]
async fn msg_10_an_odd_entry_ends_no_consumer_of_redis() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (_service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &url);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let Some(consumer) = example() else {
        return;
    };
    let _consumer = Example::start(consumer, &redis, &sidecar);
    let add = |fields: &[&str]| {
        let words = ["XADD", "calls", "*"].iter().chain(fields);
        redis.ask(&words.copied().collect::<Vec<_>>())
    };
    let spaced = add(&["path", "/find me", "body", "x"]);
    let no_header = add(&["path", "/work", "header.x-a", "a\nb"]);
    let other = add(&["path", "/work", "header.x-a", "\u{4e00}"]);
    let is_answered = |id: &str| redis.ask(&["HEXISTS", "calls:answers", id]) == "1";
    let is_dead = |id: &str| redis.ask(&["HEXISTS", "calls:dead", id]) == "1";
    until("a path with a space is called", || is_answered(&spaced)).await;
    until("what is no request is dead", || {
        is_dead(&no_header) && is_dead(&other)
    })
    .await;
    assert_eq!(
        redis.ask(&["XGROUP", "DESTROY", "calls", "breakerbox"]),
        "1"
    );
    let good = add(&["path", "/work", "body", "x"]);
    until("it goes on with a new group", || is_answered(&good)).await;
}
