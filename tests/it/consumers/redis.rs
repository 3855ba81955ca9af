//! A consumer of another queue, as the example in Python is one: real Redis, the example's own process,
//! and a real sidecar (rule MSG-10).

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::sidecar::Service;
use super::*;
use crate::gateway::serve::{Sidecar, command, configured};
use crate::tools::find;

const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis server on loopback, and its commands; killed on drop.
struct Redis {
    child: Child,
    port: String,
    cli: PathBuf,
    _folder: tempfile::TempDir,
}

impl Redis {
    /// Starts one. `None`: it is not installed, and the test passes by.
    async fn start() -> Option<Self> {
        let cli = find(&["redis-cli"])?;
        // The package with the tools has the server under the name of the checker.
        let server = find(&["redis-server", "redis-check-rdb"])?;
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("redis-server");
        std::os::unix::fs::symlink(server, &link).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let child = Command::new(link)
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", ""])
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self {
            child,
            port,
            cli,
            _folder: folder,
        };
        until("Redis answers", || redis.ask(&["PING"]) == "PONG").await;
        Some(redis)
    }

    fn ask(&self, words: &[&str]) -> String {
        let output = Command::new(&self.cli)
            .args(["-p", &self.port])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Adds an entry, and returns its id.
    fn add(&self, number: u32) -> String {
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
        self.ask(&words)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example's process; killed on drop.
struct Example(Child);

impl Example {
    fn start(redis: &Redis, sidecar: &Sidecar) -> Option<Self> {
        let python = find(&["python3"])?;
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/examples/redis_streams/consumer.py"
        );
        let child = Command::new(python)
            .arg(script)
            .args(["--redis", &format!("127.0.0.1:{}", redis.port)])
            .args(["--gateway", sidecar.url("").trim_end_matches('/')])
            .args(["--dependency", "web", "--claim-after", "1.5"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self(child))
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "it did not come to this: {what}");
}

#[tokio::test]
async fn msg_10_a_consumer_of_redis_that_asks_first_leaves_an_outage_to_the_queue() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configured(
        folder.path(),
        &format!(
            "[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\nretry = {{ max_attempts = 1 }}\n\
             bulkhead = {{ max_concurrent = 8 }}\n[dependencies.web.breaker]\n\
             window = {{ kind = \"consecutive\" }}\nfailure_threshold = 5\nrecovery_timeout = \"300ms\"\n\
             recovery_backoff = {{ factor = 1.0, max = \"300ms\", jitter = 0.0 }}\nhalf_open_attempt_limit = 1\n"
        ),
    );
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let Some(first) = Example::start(&redis, &sidecar) else {
        return;
    };
    let _second = Example::start(&redis, &sidecar);
    let mut added: Vec<String> = (0..100).map(|number| redis.add(number)).collect();
    until("some are answered", || service.calls() > 20).await;
    service.set_down(true);
    added.extend((100..200).map(|number| redis.add(number)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(first);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let while_down = service.calls_while_down();
    assert!(redis.ask(&["XLEN", "calls"]).parse::<u32>().unwrap() > 50);
    service.set_down(false);
    // Poison alone would keep the breaker open.
    let dead = || redis.ask(&["HLEN", "calls:dead"]) == "2";
    let mut more = 1_000_u32..;
    let end = tokio::time::Instant::now() + PATIENCE;
    while !dead() {
        assert!(tokio::time::Instant::now() < end, "the poison is not dead");
        added.push(redis.add(more.next().unwrap() * 100));
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
