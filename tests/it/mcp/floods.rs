//! Floods of small messages, from a server or from a caller.

use futures_util::future::join_all;

use super::front_bed::{Front, said};
use super::*;

fn count(front: &Front, line: &str) -> usize {
    front.notes().iter().filter(|noted| *noted == line).count()
}

#[tokio::test]
async fn mcp_2_m14_a_server_that_announces_without_end_is_asked_for_few_lists() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let before = count(&front, "tools/list");
    let touched = json!({ "uri": "x://1", "times": 1000 });
    assert_eq!(said(&session.call("touch", touched).await), "touched");
    // It is listed after the last one too.
    front.caller().call("echo", json!({})).await;
    let listed = async {
        while count(&front, "tools/list") == before {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, listed).await.unwrap();
    assert_eq!(
        said(&front.caller().call("echo", json!({ "text": "well" })).await),
        "well"
    );
    let asked = count(&front, "tools/list") - before;
    // A list has several pages.
    assert!(asked < 500, "{asked} pages");
    front.end().await;
}

#[tokio::test]
async fn mcp_2_m14_notifications_to_a_server_that_reads_nothing_wait_and_are_not_kept() {
    let limits = "hang_limit = \"off\"\n";
    let Some(front) = Front::open("older", limits).await else {
        return;
    };
    let session = front.session(json!({ "roots": {} })).await;
    let deaf = session.call("deaf", json!({ "seconds": 3 }));
    let telling = async {
        front.until_noted("deaf").await;
        let large = "x".repeat(200_000);
        let told = (0..100).map(|_| {
            let message = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed",
                "params": { "x": large } });
            tokio::time::timeout(Duration::from_secs(1), session.tell(message))
        });
        let told = join_all(told).await;
        told.iter().filter(|told| told.is_err()).count()
    };
    let (heard, waiting) = tokio::join!(deaf, telling);
    assert_eq!(said(&heard), "hears");
    // As many as fit into its pipe and the queue before it are taken.
    assert!(waiting >= 40, "{waiting} of 100 wait");
    front.end().await;
}

#[tokio::test]
async fn mcp_3_a_server_that_writes_null_for_an_empty_list_serves() {
    let Some(front) = Front::open("older empty", "").await else {
        return;
    };
    let caller = front.caller();
    let listed = caller.ask("tools/list", json!({})).await;
    assert_eq!(listed["result"]["tools"], json!([]), "{listed}");
    let answer = caller.call("echo", json!({ "text": "well" })).await;
    assert_eq!(said(&answer), "well");
    front.end().await;
}

#[tokio::test]
async fn mcp_5_an_unknown_notification_reaches_the_server_of_its_session_alone() {
    for (more, is_told) in [("sessions = \"per_caller\"\n", true), ("", false)] {
        let Some(front) = Front::open("older", more).await else {
            return;
        };
        let (one, _other) = (
            front.session(json!({})).await,
            front.session(json!({})).await,
        );
        // The process of a session begins with its first call.
        one.call("echo", json!({})).await;
        let told = json!({ "jsonrpc": "2.0", "method": "notifications/own", "params": { "x": 1 } });
        assert_eq!(one.tell(told).await, 202);
        // A call without an id is none, and no way past the table of tools.
        let hidden =
            json!({ "jsonrpc": "2.0", "method": "tools/call", "params": { "name": "end" } });
        assert_eq!(one.tell(hidden).await, 202);
        one.call("echo", json!({})).await;
        assert_eq!(count(&front, "told tools/call"), 0);
        assert_eq!(
            count(&front, "told notifications/own") == 1,
            is_told,
            "{more}"
        );
        front.end().await;
    }
}
