//! A server that writes too much, or nonsense: item 70.

use super::*;

fn broke(ended: Ended, what: &str) {
    let error = ended.unwrap_err();
    let CallError::Failed { error: own, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        matches!(own, McpError::Protocol { reason } if reason.contains(what)),
        "{own}"
    );
}

#[tokio::test]
async fn item_70_garbage_where_messages_belong_costs_it_its_life() {
    let Some(bed) = Bed::scripted(|_| {}, |_| {}).await else {
        return;
    };
    let first = bed.process();
    // A few bad lines are tolerated, and kept among its standard-error lines.
    let answer = bed.call("garbage", json!({ "lines": 3 })).await.unwrap();
    assert_eq!(answer.value.content, "garbage");
    assert!(
        bed.server
            .stderr()
            .contains(&"stdout: garbage 2".to_owned())
    );
    broke(
        bed.call("garbage", json!({ "lines": 100 })).await,
        "are not messages",
    );
    bed.call("echo", json!({})).await.unwrap();
    assert_eq!(bed.lives(), 2);
    assert!(
        bed.last_exit().contains("broke the protocol"),
        "{}",
        bed.last_exit()
    );
    gone(&[first]);
    bed.end().await;
}

#[tokio::test]
async fn mcp_3_m6_a_line_of_fifty_megabytes_costs_its_own_call_only() {
    let Some(bed) = Bed::scripted(|_| {}, |_| {}).await else {
        return;
    };
    let other = bed.call("echo", json!({ "wait": 1500, "text": "other" }));
    let long = bed.call("long_line", json!({ "bytes": 50_000_000 }));
    let (other, long) = tokio::join!(other, long);
    assert_eq!(other.unwrap().value.content, "other");
    let error = long.unwrap_err();
    assert!(
        error.to_string().contains("max_line = 16777216 bytes"),
        "{error}"
    );
    assert_eq!(error.executed(), breakerbox::policy::Executed::Maybe);
    assert_eq!(bed.lives(), 1);
    // A long line within the limit is read.
    let long = bed.call("long_line", json!({ "bytes": 1_000_000 })).await;
    assert_eq!(long.unwrap().value.content.len(), 1_000_000);
    bed.end().await;
}

#[tokio::test]
async fn item_70_a_flood_on_standard_error_is_heard_to_its_last_lines() {
    let secret = "s3cr3t-of-the-server";
    let keyed = |server: &mut McpSettings| *server = server.clone().env("API_KEY", secret);
    let Some(bed) = Bed::scripted(keyed, |_| {}).await else {
        return;
    };
    let answer = bed.call("flood", json!({ "lines": 50_000 })).await;
    assert_eq!(answer.unwrap().value.content, "flooded");
    let last = |bed: &Bed| {
        let lines = bed.server.stderr();
        lines
            .last()
            .is_some_and(|line| line.starts_with("flood 49999 "))
    };
    bed.until("all was read", last).await;
    let lines = bed.server.stderr();
    assert_eq!(lines.len(), McpSettings::STDERR_LINES);
    assert!(lines.iter().all(|line| line.ends_with(" ***")), "{lines:?}");
    assert_eq!(bed.lives(), 1);
    bed.call("exit", json!({ "status": 7 })).await.unwrap_err();
    bed.until_life(2).await;
    let exit = bed.last_exit();
    assert!(
        exit.contains("exit status: 7") && exit.contains("last words: ***"),
        "{exit}"
    );
    let words = bed.server.last_words();
    assert_eq!(words.last().unwrap(), "last words: ***");
    let all = format!("{:?} {:?}", bed.runtime.events_since(0), bed.server);
    assert!(!all.contains(secret));
    bed.end().await;
}

#[tokio::test]
async fn item_70_a_greeting_where_messages_belong_is_overlooked() {
    let greets = |server: &mut McpSettings| *server = server.clone().env("GREETING", "5");
    let Some(bed) = Bed::scripted(greets, |_| {}).await else {
        return;
    };
    bed.call("echo", json!({})).await.unwrap();
    assert_eq!(bed.lives(), 1);
    bed.end().await;
}
