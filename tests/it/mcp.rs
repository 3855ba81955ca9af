//! MCP servers under supervision (items 64 to 76): npm's real knowledge-graph server, and a
//! scripted server for faults that the real one never shows. They run in real time, as real
//! processes.

pub(crate) mod install;
mod scripted;

mod answers;
#[cfg(feature = "cli")]
mod beside;
#[cfg(feature = "cli")]
mod cancellation;
#[cfg(feature = "cli")]
mod conformance;
#[cfg(feature = "cli")]
mod elsewhere;
#[cfg(feature = "cli")]
mod endpoint;
#[cfg(feature = "cli")]
mod front_bed;
mod hangs;
mod kills;
mod memory;
mod noise;
mod passing;
#[cfg(feature = "cli")]
mod quarantine;
mod raw;
#[cfg(feature = "cli")]
mod real_servers;
#[cfg(feature = "cli")]
mod recovery;
#[cfg(feature = "cli")]
mod reloads;
#[cfg(feature = "cli")]
mod remote;
#[cfg(feature = "cli")]
mod served;
#[cfg(feature = "cli")]
mod starts;
#[cfg(feature = "cli")]
mod writes;

#[cfg(feature = "cli")]
mod auth;
#[cfg(feature = "cli")]
mod buffered;
#[cfg(feature = "cli")]
mod cors;
#[cfg(feature = "cli")]
mod credentials;
#[cfg(feature = "cli")]
mod fake_server;
#[cfg(feature = "cli")]
mod floods;
#[cfg(feature = "cli")]
mod group_sessions;
#[cfg(feature = "cli")]
mod groups;
#[cfg(feature = "cli")]
mod import;
#[cfg(feature = "cli")]
mod oddities;
#[cfg(feature = "cli")]
mod openings;

mod ownership;
#[cfg(feature = "cli")]
mod questions;
#[cfg(feature = "cli")]
mod resumption;
#[cfg(feature = "cli")]
mod roots;
#[cfg(feature = "cli")]
mod session_limits;
#[cfg(feature = "cli")]
mod sessions;
#[cfg(feature = "cli")]
mod tools_table;
#[cfg(feature = "cli")]
mod web_servers;
#[cfg(feature = "cli")]
mod wishes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use breakerbox::mcp::{self, McpClient, McpError, McpSettings, ToolResult};
use breakerbox::policy::DependencySettings;
use breakerbox::{Answer, CallError, EventKind, Runtime, RuntimeSettings};
use serde_json::{Map, Value, json};

/// Time limit for a step; far longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(5);

type Ended = Result<Answer<ToolResult>, CallError<McpError>>;

/// A runtime with one server, and a folder for its files.
struct Bed {
    runtime: Runtime,
    server: McpClient,
    folder: tempfile::TempDir,
}

impl Bed {
    /// The knowledge-graph server with its file in its own folder. `None` if Node is not installed.
    async fn memory(change: impl FnOnce(&mut DependencySettings)) -> Option<Self> {
        let folder = folder();
        let settings = memory(folder.path())?;
        Some(Self::of(settings, folder, change).await)
    }

    /// The scripted server.
    async fn scripted(
        change_server: impl FnOnce(&mut McpSettings),
        change: impl FnOnce(&mut DependencySettings),
    ) -> Option<Self> {
        let folder = folder();
        let mut settings = scripted::server(folder.path())?;
        change_server(&mut settings);
        Some(Self::of(settings, folder, change).await)
    }

    async fn of(
        settings: McpSettings,
        folder: tempfile::TempDir,
        change: impl FnOnce(&mut DependencySettings),
    ) -> Self {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let server = mcp::dependency(&runtime, "kg", &settings).configure(change);
        let server = server.start().await.unwrap();
        Self {
            runtime,
            server,
            folder,
        }
    }

    async fn call(&self, tool: &str, arguments: Value) -> Ended {
        self.server.call(tool, object(arguments)).await
    }

    /// The processes of the server's current incarnation: those with its folder in a variable.
    fn processes(&self) -> Vec<u32> {
        processes(self.folder.path())
    }

    /// The server's only process.
    fn process(&self) -> u32 {
        match self.processes()[..] {
            [process] => process,
            ref others => panic!("one process is running, not {others:?}"),
        }
    }

    /// Number of incarnations so far.
    fn lives(&self) -> u64 {
        self.server.client().status().workers[0].incarnation
    }

    fn last_exit(&self) -> String {
        let status = self.server.client().status();
        let exit = status.workers[0].last_exit.as_ref();
        exit.map(ToString::to_string).unwrap_or_default()
    }

    /// Waits until the condition holds.
    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let look = async {
            while !is_so(self) {
                tokio::time::sleep(MOMENT).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, look).await;
        let status = self.server.client().status();
        assert!(seen.is_ok(), "{what}: {status:#?}");
    }

    /// Waits until this incarnation of the server is running.
    async fn until_life(&self, number: u64) {
        let running = |bed: &Self| {
            let worker = &bed.server.client().status().workers[0];
            worker.incarnation == number && worker.running
        };
        self.until(&format!("incarnation {number}"), running).await;
    }

    /// Stops everything, and checks that no process of the server remains, not even a zombie.
    async fn end(self) {
        let last = self.processes();
        self.runtime.shutdown().await;
        gone(&last);
        // A process that had just been started is killed too, which takes a moment.
        gone(&self.processes());
    }
}

/// The knowledge-graph server's settings.
fn memory(folder: &Path) -> Option<McpSettings> {
    let modules = install::node_modules()?;
    let program = modules.join("@modelcontextprotocol/server-memory/dist/index.js");
    let settings = McpSettings::stdio("node", [program.to_string_lossy()]);
    Some(settings.env("MEMORY_FILE_PATH", memory_file(folder).to_string_lossy()))
}

fn memory_file(folder: &Path) -> PathBuf {
    folder.join("memory.jsonl")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder for the test")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn entity(name: &str) -> Value {
    json!({ "entities": [{ "name": name, "entityType": "person", "observations": ["wrote"] }] })
}

/// The processes with this folder in their environment.
fn processes(folder: &Path) -> Vec<u32> {
    let folder = folder.to_string_lossy().into_owned();
    let has_it = |process: &u32| {
        let variables = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&variables).contains(&folder)
    };
    all_processes().filter(has_it).collect()
}

fn all_processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").expect("Linux has it");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Checks that none of these processes is running; zombies are permitted.
fn dead(processes: &[u32]) {
    wait_for(processes, |process| {
        state(*process).is_some_and(|state| state != 'Z')
    });
}

/// The state letter of a process; `None` if it does not exist.
fn state(process: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// Checks that none of these processes exists, not even as a zombie.
fn gone(processes: &[u32]) {
    wait_for(processes, |process| state(*process).is_some());
}

fn wait_for(processes: &[u32], is_left: impl Fn(&u32) -> bool) {
    let mut left = processes.to_vec();
    for _ in 0..200 {
        left.retain(&is_left);
        if left.is_empty() {
            return;
        }
        std::thread::sleep(MOMENT);
    }
    panic!("still there: {left:?}");
}

fn signal(process: u32, name: &str) {
    let kill = std::process::Command::new("sh")
        .args(["-c", &format!("kill -{name} {process}")])
        .status();
    assert!(kill.expect("a shell").success());
}
