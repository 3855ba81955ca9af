//! `breakerbox serve` with the provider behind both kinds, and its use of the system.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running gateway; killed on drop.
pub(crate) struct Sidecar {
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unused() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

impl Sidecar {
    pub(crate) async fn start(provider: SocketAddr) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (address, admin) = (unused()?, unused()?);
        let text = format!(
            "[gateway]\nbind = \"{address}\"\nthreads = 1\n[admin]\nbind = \"{admin}\"\n\
             [dependencies.web]\nkind = \"http\"\nurl = \"http://{provider}\"\n\
             bulkhead.max_concurrent = 2048\n\
             [dependencies.gpt]\nkind = \"model\"\napi = \"openai\"\nurl = \"http://{provider}/v1\"\n\
             bulkhead.max_concurrent = 2048\n"
        );
        fs::write(folder.path().join("default.toml"), text)?;
        let own = env!("CARGO_BIN_EXE_breakerbox").to_owned();
        let program = std::env::var("BREAKERBOX_BENCH_BINARY").unwrap_or(own);
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("BREAKERBOX_") {
                command.env_remove(variable);
            }
        }
        let command = command.args(["serve", "--config"]).arg(folder.path());
        let silent = command.env_remove("RUST_LOG").stdin(Stdio::null());
        let child = silent.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let this = Self {
            address,
            child,
            _folder: folder,
        };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return Ok(this);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(io::Error::other("the gateway does not start"))
    }

    /// Returns the CPU time that it has used, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = fs::read_to_string(path).unwrap_or_default();
        let fields = text.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        // A tick is a hundredth of a second on Linux.
        ticks as f64 / 100.0
    }

    /// Returns the memory that it has in RAM, in MiB.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap_or_default() / 1_024
    }
}
