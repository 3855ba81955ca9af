//! A NATS server that can be killed, stopped and started again, and the messages in it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::PATIENCE;

/// The server.
pub(crate) struct Broker {
    program: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

/// Returns the server's program; `None` if there is none.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian has it where only the administrator looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut files = folders.map(|folder| folder.join("nats-server"));
    files.find(|file| file.is_file())
}

impl Broker {
    pub(crate) async fn start() -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut broker = Self {
            program: program()?,
            folder: tempfile::tempdir().unwrap(),
            // Free a moment ago, and this process asks for no other one meanwhile.
            port: listener.local_addr().unwrap().port(),
            child: None,
        };
        drop(listener);
        broker.begin();
        Some(broker)
    }

    pub(crate) fn begin(&mut self) {
        let child = Command::new(&self.program)
            .args([
                "-a",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-js",
                "-sd",
            ])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Kills it, as a crash of its host does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it without an end, or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(id.try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Connects to it, and waits until it keeps messages.
    pub(crate) async fn context(&self) -> Context {
        let connecting = async {
            loop {
                if let Ok(client) = async_nats::connect(self.url()).await {
                    let asked = client.request("$JS.API.INFO", "".into());
                    if asked.await.is_ok() {
                        return jetstream::new(client);
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connecting).await.unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the number of messages in a stream; `None` if that is not known.
pub(crate) async fn count(context: &Context, stream: &str) -> Option<u64> {
    let asked = async {
        let stream = context.get_stream(stream).await.ok()?;
        Some(stream.get_info().await.ok()?.state.messages)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), asked).await;
    answer.ok().flatten()
}
