//! Redis, for consumers of queues that are not NATS's: a real server, and the examples' own processes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::gateway::serve::{Sidecar, configured};
use crate::tools::find;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis server on loopback, and its commands; killed on drop.
pub(super) struct Redis {
    child: Child,
    pub(super) port: String,
    cli: PathBuf,
    _folder: tempfile::TempDir,
}

impl Redis {
    /// Starts one. `None`: it is not installed, and the test passes by.
    pub(super) async fn start() -> Option<Self> {
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

    pub(super) fn ask(&self, words: &[&str]) -> String {
        let output = Command::new(&self.cli)
            .args(["-p", &self.port])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
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
pub(super) struct Example(Child);

impl Example {
    /// Starts a consumer of calls of the dependency `web`.
    pub(super) fn start(mut command: Command, redis: &Redis, sidecar: &Sidecar) -> Self {
        let child = command
            .args(["--redis", &format!("127.0.0.1:{}", redis.port)])
            .args(["--gateway", sidecar.url("").trim_end_matches('/')])
            .args(["--dependency", "web"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "it did not come to this: {what}");
}

/// Writes the configuration of a dependency whose breaker opens at the fifth failure in a row, for
/// 300 ms.
pub(super) fn configure(folder: &std::path::Path, url: &str) {
    configured(
        folder,
        &format!(
            "[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\nretry = {{ max_attempts = 1 }}\n\
             bulkhead = {{ max_concurrent = 8 }}\n[dependencies.web.breaker]\n\
             window = {{ kind = \"consecutive\" }}\nfailure_threshold = 5\nrecovery_timeout = \"300ms\"\n\
             recovery_backoff = {{ factor = 1.0, max = \"300ms\", jitter = 0.0 }}\nhalf_open_attempt_limit = 1\n"
        ),
    );
}
