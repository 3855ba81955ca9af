//! The thread that breakers share is not held by large messages of a server (MCP-2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};

use super::connection::{Connection, Link};
use super::liveness::Liveness;
use super::server_state::ServerState;
use super::session::Session;
use super::settings::McpSettings;
use super::stdio::{read_lines, write_lines};

/// Size of the large messages, in bytes.
const SIZE: usize = 6 << 20;
/// Maximum time for which the thread works at one thing. Without optimization everything takes longer.
const MOST: Duration = Duration::from_millis(40);

/// Returns the time for which this thread has worked.
fn worked() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split_whitespace().next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}

/// Many small objects, which take long to read.
fn objects(size: usize) -> String {
    let one = "{\"a\":[1,2]},";
    let mut all = one.repeat(size / one.len());
    all.push('0');
    all
}

/// A server whose description, list of tools, notifications and questions are large.
async fn speak(stream: DuplexStream) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = BufReader::new(reader).lines();
    let large = objects(SIZE);
    while let Ok(Some(line)) = lines.next_line().await {
        let asked: serde_json::Value = serde_json::from_str(&line).unwrap();
        let id = asked["id"].clone();
        let result = match asked["method"].as_str().unwrap_or_default() {
            "server/discover" => {
                let described = objects(1_000_000);
                format!(
                    "{{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],\
                     \"capabilities\":{{\"tools\":{{}},\"experimental\":{{\"x\":[{described}]}}}}}}"
                )
            }
            "tools/list" => {
                let tool = |number: usize| {
                    let schema = objects(1000);
                    format!("{{\"name\":\"tool{number}\",\"inputSchema\":{{\"enum\":[{schema}]}}}}")
                };
                let tools: Vec<String> = (0..SIZE / 1000).map(tool).collect();
                format!("{{\"tools\":[{}]}}", tools.join(","))
            }
            "ping" | "resources/list" => {
                for head in [
                    "\"method\":\"notifications/resources/updated\"",
                    "\"method\":\"notifications/message\"",
                    "\"method\":\"notifications/progress\"",
                    "\"id\":\"q\",\"method\":\"elicitation/create\"",
                ] {
                    let line = format!(
                        "{{\"jsonrpc\":\"2.0\",{head},\"params\":{{\"level\":\"info\",\
                         \"_meta\":{{\"x\":1}},\"data\":[{large}]}}}}\n"
                    );
                    writer.write_all(line.as_bytes()).await.unwrap();
                }
                format!("{{\"resources\":[{large}]}}")
            }
            _ => continue,
        };
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}\n");
        writer.write_all(answer.as_bytes()).await.unwrap();
    }
    let _ = writer.shutdown().await;
}

/// Runs a server on a thread of its own, and returns our end of its pipes.
fn server() -> DuplexStream {
    let (own, stream) = tokio::io::duplex(64 * 1024);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(speak(stream));
    });
    own
}

#[tokio::test]
async fn mcp_2_a4_large_messages_of_every_kind_hold_no_thread_that_breakers_share() {
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let watching = tokio::spawn(async move {
        let (mut most, mut last) = (Duration::ZERO, worked());
        while !over.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
            let now = worked();
            most = most.max(now.saturating_sub(last));
            last = now;
        }
        most
    });
    let settings = McpSettings::stdio("none", [""; 0]);
    let state = Arc::new(ServerState::new(settings));
    let (reader, writer) = tokio::io::split(server());
    let liveness = Arc::new(Liveness::default());
    let lines = write_lines(writer, Arc::clone(&liveness));
    let link = Link::Pipe(std::sync::Mutex::new(Some(lines)));
    let connection = Connection::new(link, liveness, &state, None);
    drop(tokio::spawn(read_lines(reader, Arc::clone(&connection))));
    let session = Session::open(Arc::clone(&connection), &state)
        .await
        .unwrap();
    assert_eq!(state.toolbox.load().listed.len(), SIZE / 1000);
    assert!(state.description.load().is_some());
    let asked = ("resources/list", None);
    let answered = session.ask(asked, super::audience::CallSide::default(), None);
    assert!(answered.await.unwrap().text.bytes().len() >= SIZE);
    is_over.store(true, Ordering::Relaxed);
    let most = watching.await.unwrap();
    assert!(most <= MOST, "{most:?}");
    session.close().await;
}
