//! Event stream: resumable, with keep-alives, and bounded for clients that do not read.

use breakerbox_policy::State;
use reqwest::{Method, Response};
use serde_json::Value;

use super::{Rig, read_until};
use crate::scripted::{Do, ms, opens_after};

async fn follow(rig: &Rig, last: Option<u64>) -> Response {
    let mut request = rig.request(Method::GET, "/api/events/stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response
}

/// Returns the ids of the events in a piece of the stream.
fn ids(text: &str) -> Vec<u64> {
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.map(|id| id.parse().unwrap()).collect()
}

/// Returns the data of the messages of this kind.
fn data(text: &str, kind: &str) -> Vec<Value> {
    let messages = text.split("\n\n").filter(|message| {
        let mut lines = message.lines();
        lines.any(|line| line.strip_prefix("event: ") == Some(kind))
    });
    let data = messages.filter_map(|message| {
        let line = message
            .lines()
            .find_map(|line| line.strip_prefix("data: "))?;
        serde_json::from_str(line).ok()
    });
    data.collect()
}

#[tokio::test]
async fn ops_1_what_happens_comes_live_and_a_reader_resumes_where_it_was() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    let mut stream = follow(&rig, None).await;
    let begin = read_until(&mut stream, "event: status").await;
    assert_eq!(data(&begin, "hello").len(), 1);
    assert_eq!(ids(&begin), Vec::<u64>::new());
    rig.bench.fail_until_open().await;
    let moved = read_until(&mut stream, "closed -> open").await;
    drop(moved);
    drop(stream);
    rig.finish().await;
}

#[tokio::test]
async fn ops_1_a_reader_that_comes_back_gets_each_event_once() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    let before = rig.get("/api/events").await["last_id"].as_u64().unwrap();
    rig.bench.fail_until_open().await;
    rig.operate("close").await;
    let last = rig.get("/api/events").await["last_id"].as_u64().unwrap();
    let mut stream = follow(&rig, Some(before)).await;
    let text = read_until(&mut stream, "event: status").await;
    assert_eq!(ids(&text), (before + 1..=last).collect::<Vec<_>>());
    // A future id comes from a previous process of the server, so every event is sent.
    let mut stream = follow(&rig, Some(last + 1_000)).await;
    let text = read_until(&mut stream, "event: status").await;
    assert_eq!(ids(&text), (1..=last).collect::<Vec<_>>());
    let bad = rig
        .request(Method::GET, "/api/events/stream")
        .header("last-event-id", "x");
    assert_eq!(rig.problem(bad).await.0, 400);
    rig.finish().await;
}

#[tokio::test]
async fn item_100_the_status_of_all_comes_by_the_same_stream_when_it_changes() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    let mut stream = follow(&rig, None).await;
    let begin = read_until(&mut stream, "event: status").await;
    let begin = begin + &read_until(&mut stream, "\n\n").await;
    let first = data(&begin, "status");
    assert_eq!(first[0][0]["state"], "closed");
    rig.bench.fail_until_open().await;
    assert_eq!(rig.bench.state(), State::Open);
    let text = read_until(&mut stream, "\"state\":\"open\"").await;
    assert!(text.contains("next_probe_at"), "{text}");
    rig.finish().await;
}

#[tokio::test]
async fn ops_1_a_reader_that_missed_events_is_told_how_many() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    // More events than are kept, before the reader reconnects.
    for _ in 0..700 {
        rig.bench.ask(Do::Fail).await.unwrap_err();
        rig.bench.runtime.reset_all("again").await;
    }
    let page = rig.get("/api/events").await;
    let last = page["last_id"].as_u64().unwrap();
    let mut stream = follow(&rig, Some(1)).await;
    let text = read_until(&mut stream, "event: status").await;
    // The latest 1024, and older commands beside them.
    let sent = ids(&text);
    assert!((1025..=1280).contains(&sent.len()), "{}", sent.len());
    assert_eq!(
        data(&text, "lagged")[0]["missed"],
        last - 1 - sent.len() as u64
    );
    rig.finish().await;
}
