//! Workers of a BullMQ queue, as the example in Node is one: real Redis, the real library, and a real
//! sidecar (rule MSG-10).

use std::path::Path;
use std::process::Command;

use super::redis_server::{Example, PATIENCE, Redis, configure, until};
use super::sidecar::Service;
use crate::gateway::serve::{Sidecar, command};
use crate::mcp::install::install_with_npm;

const NPM: &[&str] = &["bullmq@6.7.0", "ioredis@5.11.1"];

/// Adds the jobs of the numbers from the first to before the second: 77 and 177 are poison.
const PRODUCER: &str = r#"
import { Queue } from "bullmq";
const [port, begin, end] = process.argv.slice(2).map(Number);
const queue = new Queue("calls", { connection: { host: "127.0.0.1", port } });
const job = (number) => ({
  name: "call",
  data: {
    path: [77, 177].includes(number) ? "/poison" : "/work",
    body: "a question",
    headers: { "x-number": String(number) },
  },
  opts: { jobId: `job-${number}`, attempts: 5, backoff: { type: "fixed", delay: 100 } },
});
const numbers = Array.from({ length: end - begin }, (_, index) => begin + index);
await queue.addBulk(numbers.map(job));
await queue.close();
"#;

/// Adds jobs; returns when the queue has them.
async fn produce(folder: &Path, redis: &Redis, begin: u32, end: u32) {
    let mut producer = tokio::process::Command::new("node");
    let (begin, end) = (begin.to_string(), end.to_string());
    producer.current_dir(folder).arg("producer.mjs");
    let status = producer.args([&redis.port, &begin, &end]).status().await;
    assert!(status.unwrap().success(), "the producer has failed");
}

/// A folder with the library, the example and the producer.
fn workshop(modules: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let example = include_str!("../../../examples/bullmq/worker.mjs");
    std::fs::write(folder.path().join("worker.mjs"), example).unwrap();
    std::fs::write(folder.path().join("producer.mjs"), PRODUCER).unwrap();
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    folder
}

#[tokio::test]
async fn msg_10_workers_of_bullmq_that_ask_first_leave_an_outage_to_the_queue() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let Some(modules) = install_with_npm("npm-bullmq", NPM) else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &url);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let workshop = workshop(&modules);
    let worker = || {
        let mut worker = Command::new("node");
        worker.current_dir(workshop.path()).arg("worker.mjs");
        worker.args(["--claim-after", "2000"]);
        Example::start(worker, &redis, &sidecar)
    };
    let first = worker();
    let _second = worker();
    let size = |set: &str| {
        let key = format!("bull:calls:{set}");
        redis.ask(&["ZCARD", &key]).parse::<u32>().unwrap()
    };
    produce(workshop.path(), &redis, 0, 100).await;
    until("some are answered", || size("completed") > 20).await;
    service.set_down(true);
    produce(workshop.path(), &redis, 100, 200).await;
    // The fifth opened the breaker, and the others are its probes.
    until("it is tried", || service.calls_while_down() >= 7).await;
    drop(first);
    until("it is tried again", || service.calls_while_down() >= 10).await;
    let while_down = service.calls_while_down();
    let ended = size("completed") + size("failed");
    assert!(ended < 150, "{ended} of 200 have ended in the outage");
    service.set_down(false);
    // Poison alone would keep the breaker open.
    let mut added = 200;
    let end = tokio::time::Instant::now() + PATIENCE;
    while size("failed") < 2 {
        assert!(tokio::time::Instant::now() < end, "the poison is not dead");
        produce(workshop.path(), &redis, added, added + 20).await;
        added += 20;
    }
    until("all have ended", || {
        size("completed") + size("failed") == added
    })
    .await;
    // The threshold and what was in flight, then a probe a period.
    assert!(
        while_down <= 5 + 8 + 8,
        "{while_down} calls while it was down"
    );
    let dead = redis.ask(&["ZRANGE", "bull:calls:failed", "0", "-1"]);
    let mut dead: Vec<&str> = dead.lines().collect();
    dead.sort_unstable();
    assert_eq!(dead, ["job-177", "job-77"]);
}
