//! The process `breakerbox serve`: its configuration, its interface for operators, and what the
//! system knows of it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::PATIENCE;

/// A running sidecar; killed on drop.
pub(crate) struct Sidecar {
    child: Child,
    gateway: String,
    admin: String,
    http: reqwest::Client,
}

/// Writes a configuration at once, so that no reader sees half of it.
pub(crate) fn configure(folder: &Path, text: &str) {
    std::fs::create_dir_all(folder.join("config")).unwrap();
    let new = folder.join("config/new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, folder.join("config/default.toml")).unwrap();
}

/// Returns a client that keeps no connection, so that none is missed when the sidecar's are counted.
pub(crate) fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy();
    client.pool_max_idle_per_host(0).build().unwrap()
}

impl Sidecar {
    pub(crate) fn start(folder: &Path) -> Self {
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let program = std::env::var("BREAKERBOX_CHAOS_BINARY");
        let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_breakerbox").to_owned());
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("BREAKERBOX_") || name.starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("serve")
            .current_dir(folder)
            .env("BREAKERBOX__GATEWAY__BIND", "127.0.0.1:0")
            .env("BREAKERBOX__ADMIN__BIND", "127.0.0.1:0")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut found = [None, None];
        while found.iter().any(Option::is_none) {
            let mut line = String::new();
            if out.read_line(&mut line).unwrap() == 0 {
                let log = std::fs::read_to_string(folder.join("log")).unwrap();
                panic!("it ended: {log}");
            }
            for (place, word) in found.iter_mut().zip(["gateway ", "admin "]) {
                if let Some(url) = line.trim().strip_prefix(word) {
                    *place = Some(url.trim_end_matches('/').to_owned());
                }
            }
        }
        // It must not wait for a reader.
        std::thread::spawn(move || out.read_to_string(&mut String::new()));
        let [gateway, admin] = found.map(Option::unwrap);
        Self {
            child,
            gateway,
            admin,
            http: client(),
        }
    }

    pub(crate) fn gateway(&self) -> String {
        self.gateway.clone()
    }

    /// Asks the interface for operators; `None` if it does not answer.
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let asked = async {
            let response = self.http.get(format!("{}{path}", self.admin)).send().await;
            response.ok()?.json().await.ok()
        };
        let answer = tokio::time::timeout(Duration::from_secs(3), asked).await;
        answer.ok().flatten()
    }

    /// Returns the state of a dependency.
    pub(crate) async fn dependency(&self, name: &str) -> Value {
        let path = format!("/api/dependencies/{name}");
        let asked = async {
            loop {
                if let Some(state) = self.get(&path).await {
                    return state;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap()
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.id(), signal);
    }

    /// Returns the number of open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        open_descriptors(&self.id().to_string())
    }

    /// Limits the number of descriptors that it may have.
    pub(crate) fn limit_descriptors(&self, soft: usize) {
        let limited = Command::new("prlimit")
            .args(["--pid", &self.id().to_string()])
            .arg(format!("--nofile={soft}:"))
            .status();
        assert!(
            limited.is_ok_and(|status| status.success()),
            "prlimit fails"
        );
    }

    /// Returns the soft limit on descriptors.
    pub(crate) fn descriptor_limit(&self) -> usize {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.id())).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let mut words = line.unwrap().split_whitespace();
        words.nth(3).unwrap().parse().unwrap()
    }

    /// Returns the resident memory, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap().parse().unwrap()
    }

    /// Returns the ids of its child processes, and the number of those that are dead and not
    /// waited for.
    pub(crate) fn children(&self) -> (Vec<u32>, usize) {
        let (mut living, mut zombies) = (Vec::new(), 0);
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            // The name of the program is in brackets, and may contain anything.
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            let mut words = rest.split_whitespace();
            let (state, parent) = (words.next(), words.next());
            if parent == Some(&*self.id().to_string()) {
                match state {
                    Some("Z") => zombies += 1,
                    _ => living.push(id),
                }
            }
        }
        (living, zombies)
    }

    /// Asks it to end, and waits for that. Returns true for a good exit code.
    pub(crate) fn end(&mut self) -> bool {
        self.signal(Signal::SIGTERM);
        let begun = quanta::Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the number of open descriptors of a process.
pub(crate) fn open_descriptors(process: &str) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

pub(crate) fn signal_to(id: u32, signal: Signal) {
    // It may have ended meanwhile.
    let _ = kill(Pid::from_raw(id.try_into().unwrap()), signal);
}
