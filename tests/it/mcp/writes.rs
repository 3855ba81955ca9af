//! Time and turns of calls: long tools, and writes that go one at a time (rule MCP-4).

use futures_util::future::join_all;

use super::beside::{Beside, guarded};
use super::*;

#[tokio::test]
async fn mcp_4_m5_writers_wait_for_their_turn_and_a_refusal_names_its_limit() {
    let hasty = "[dependencies.sick.bulkhead]\nmax_wait = \"50ms\"\n";
    let Some(bed) = Beside::start(|folder| guarded(folder, "sick", "", hasty)) else {
        return;
    };
    let write = |name, wait| {
        let bed = &bed;
        async move { bed.call(name, "write", json!({ "wait": wait })).await }
    };
    // Longer than the 500 ms for which calls of other kinds wait.
    let written = join_all((0..4).map(|_| write("good", 400))).await;
    for answer in &written {
        assert_eq!(answer["result"]["content"][0]["text"], "write", "{answer}");
    }
    bed.until_well("sick").await;
    let (first, second) = tokio::join!(write("sick", 1_000), write("sick", 1_000));
    let refused = if first["error"].is_object() {
        first
    } else {
        second
    };
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    for part in [
        "1 write in flight",
        "bulkhead.max_concurrent_writes",
        "50 ms",
        "bulkhead.max_wait",
    ] {
        assert!(message.contains(part), "{part}: {refused}");
    }
    bed.end().await;
}

#[tokio::test]
async fn mcp_4_m3_a_caller_that_waits_longer_gets_a_longer_attempt_up_to_the_total() {
    let short = "[dependencies.sick.timeout]\nattempt = \"200ms\"\ntotal = \"1s\"\n";
    let Some(bed) = Beside::start(|folder| guarded(folder, "sick", "", short)) else {
        return;
    };
    bed.until_well("sick").await;
    let echo = |wait, deadline| {
        let (bed, params) = (
            &bed,
            json!({ "name": "echo", "arguments": { "wait": wait } }),
        );
        async move {
            let headers = [("breakerbox-deadline-ms", deadline)];
            bed.rpc("sick", "tools/call", params, &headers).await
        }
    };
    let answer = bed.call("sick", "echo", json!({ "wait": 600 })).await;
    assert_eq!(
        answer["error"]["data"]["type"], "urn:breakerbox:timed-out",
        "{answer}"
    );
    let answer = echo(600, "5000").await;
    assert!(answer["result"].is_object(), "{answer}");
    let answer = echo(1_500, "5000").await;
    assert_eq!(
        answer["error"]["data"]["type"], "urn:breakerbox:timed-out",
        "{answer}"
    );
    bed.end().await;
}
