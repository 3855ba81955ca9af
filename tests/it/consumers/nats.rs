//! A real NATS server for the tests, on loopback.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, Context};
use tempfile::TempDir;

use crate::tools::find;

/// Time limit for a step; far longer than any step takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Name of the server's own configuration.
const CONFIG: &str = "nats.conf";

/// A running server with JetStream; killed on drop.
pub(super) struct NatsServer {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl NatsServer {
    /// Starts one. `None`: it is not installed, and the test passes by.
    pub(super) async fn start() -> Option<Self> {
        Self::configured("").await
    }

    /// Starts one with this configuration.
    pub(super) async fn configured(text: &str) -> Option<Self> {
        find(&["nats-server"])?;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG), text).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = spawn(port, &folder);
        let server = Self {
            child,
            port,
            folder,
        };
        server.jetstream().await;
        Some(server)
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it, and starts it again with what it has stored.
    pub(super) async fn restart(&mut self, after: Duration) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        tokio::time::sleep(after).await;
        self.child = spawn(self.port, &self.folder);
        self.jetstream().await;
    }

    /// Connects, and waits until JetStream answers.
    pub(super) async fn jetstream(&self) -> Context {
        let connecting = async {
            loop {
                if let Ok(client) = async_nats::connect(self.url()).await {
                    let asked = client.request("$JS.API.INFO", "".into());
                    if asked.await.is_ok() {
                        return jetstream::new(client);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connecting).await.unwrap()
    }
}

fn spawn(port: u16, folder: &TempDir) -> Child {
    let port = port.to_string();
    Command::new("nats-server")
        .arg("-c")
        .arg(folder.path().join(CONFIG))
        .args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a stream that keeps everything.
pub(super) async fn stream(context: &Context, name: &str, subject: &str) {
    let config = jetstream::stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        ..Default::default()
    };
    context.get_or_create_stream(config).await.unwrap();
}

/// Publishes a message, and waits for the server's word.
pub(super) async fn publish(
    context: &Context,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &str,
) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let payload = payload.to_owned().into();
    let sent = context.publish_with_headers(subject.to_owned(), map, payload);
    sent.await.unwrap().await.unwrap();
}

/// A message of a stream: its headers in small letters, and its payload.
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) payload: String,
}

impl Stored {
    pub(super) fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Returns everything that a stream keeps.
pub(super) async fn stored(context: &Context, stream: &str) -> Vec<Stored> {
    let Ok(stream) = context.get_stream(stream).await else {
        return Vec::new();
    };
    let state = stream.get_info().await.unwrap().state;
    let mut all = Vec::new();
    if state.messages == 0 {
        return all;
    }
    for number in state.first_sequence..=state.last_sequence {
        let Ok(message) = stream.get_raw_message(number).await else {
            continue;
        };
        let headers = HeaderMap::iter(&message.headers).flat_map(|(name, values)| {
            let name = name.to_string().to_lowercase();
            values
                .iter()
                .map(move |value| (name.clone(), value.to_string()))
        });
        all.push(Stored {
            subject: message.subject.to_string(),
            headers: headers.collect(),
            payload: String::from_utf8_lossy(&message.payload).into_owned(),
        });
    }
    all
}

/// Returns the number of messages in a stream.
pub(super) async fn count(context: &Context, stream: &str) -> u64 {
    match context.get_stream(stream).await {
        Ok(stream) => stream.get_info().await.unwrap().state.messages,
        Err(_) => 0,
    }
}

/// Waits until a stream has this number of messages.
pub(super) async fn until_count(context: &Context, stream: &str, wanted: u64) {
    let waiting = async {
        while count(context, stream).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(
        waited.is_ok(),
        "{stream} has {} messages, not {wanted}",
        count(context, stream).await
    );
}
