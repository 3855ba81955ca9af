//! Operators' events: traffic of callers does not push them out of the history.

use reqwest::Method;
use serde_json::Value;

use super::{LONG, Rig, read_until};
use crate::scripted::{Do, ms, opens_after};

/// Makes events by calls alone until more than this number have followed `id`.
async fn calls_until(rig: &Rig, id: u64, more: u64) {
    let calling = async {
        loop {
            // They open the breaker and close it again.
            let _ = rig.bench.ask(Do::Fail).await;
            let _ = rig.bench.ask(Do::Answer(1)).await;
            if !rig.bench.runtime.events_since(id + more).is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, calling).await.unwrap();
}

fn ids(events: &Value) -> Vec<u64> {
    let events = events.as_array().unwrap().iter();
    events.map(|event| event["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn edge_4_e6e_an_operators_command_stays_in_the_history() {
    let rig = Rig::start(opens_after(1, ms(1))).await;
    rig.operate("open").await;
    rig.operate("close").await;
    let operated = rig.get("/api/events?kind=operated").await;
    let ours = ids(&operated["events"]);
    assert_eq!(ours.len(), 2);
    calls_until(&rig, ours[1], 1100).await;
    let later = rig.get("/api/events?kind=operated").await;
    assert_eq!(later["events"], operated["events"]);
    assert_eq!(later["incomplete"], true);
    let all = ids(&rig.get("/api/events").await["events"]);
    assert!(all.is_sorted(), "{all:?}");
    assert!(ours.iter().all(|id| all.contains(id)));
    assert!((1024..=1280).contains(&all.len()), "{}", all.len());
    // By `since` both rings are read in the order of the ids.
    let page = rig.get(&format!("/api/events?since={}", ours[0] - 1)).await;
    assert_eq!(ids(&page["events"])[0], ours[0]);
    let late = all[all.len() - 1] - 10;
    let page = rig.get(&format!("/api/events?since={late}")).await;
    let last = page["last_id"].as_u64().unwrap();
    assert_eq!(page["incomplete"], false);
    assert_eq!(
        ids(&page["events"]),
        (late + 1..=last).collect::<Vec<u64>>()
    );
    let history = rig.get("/api/dependencies/dep/history?days=7").await;
    assert_eq!(history["incomplete"], true);
    assert!(ids(&history["events"]).contains(&ours[0]));
    rig.finish().await;
}

#[tokio::test]
async fn edge_4_e6e_a_stream_counts_only_the_events_that_are_gone() {
    let rig = Rig::start(opens_after(1, ms(1))).await;
    rig.operate("open").await;
    rig.operate("close").await;
    let operated = rig.get("/api/events?kind=operated").await;
    let first = ids(&operated["events"])[0];
    calls_until(&rig, first, 1100).await;
    let request = rig.request(Method::GET, "/api/events/stream");
    let request = request.header("last-event-id", first - 1);
    let mut stream = request.send().await.unwrap();
    let text = read_until(&mut stream, "event: status").await;
    let sent: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
        .collect();
    let newest = sent[sent.len() - 1];
    assert_eq!(sent[0], first);
    let missed = newest - (first - 1) - sent.len() as u64;
    assert!(missed > 0 && text.contains(&format!("{{\"missed\":{missed}}}")));
    rig.finish().await;
}
