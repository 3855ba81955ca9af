//! Changes of a caller's roots, and questions of a server outside of calls.

use super::front_bed::{Front, FrontCaller, next_event};
use super::*;

fn changed() -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" })
}

/// Answers the question for the roots that comes by the caller's own stream.
async fn answer_roots(caller: &FrontCaller<'_>, stream: &mut reqwest::Response, uri: &str) {
    let asked = next_event(stream, &mut String::new()).await;
    assert_eq!(asked["method"], "roots/list", "{asked}");
    let result = json!({ "roots": [{ "uri": uri }] });
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
    assert_eq!(caller.tell(answer).await, 202);
}

fn noted(uri: &str) -> String {
    format!("roots {{\"roots\": [{{\"uri\": \"{uri}\"}}]}}")
}

/// Reads the head of a stream: the caller has it then.
async fn begun(stream: &mut reqwest::Response) {
    let first = stream.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"id: "), "{first:?}");
}

#[tokio::test]
async fn mcp_5_the_roots_of_a_session_reach_its_own_process() {
    let Some(front) = Front::open("older", "sessions = \"per_caller\"\n").await else {
        return;
    };
    let can = json!({ "roots": { "listChanged": true } });
    let callers = [front.session(can.clone()).await, front.session(can).await];
    for (caller, uri) in callers.iter().zip(["file:///a", "file:///b"]) {
        // The process of a session begins with its first call.
        caller.call("echo", json!({})).await;
        let mut stream = caller.listen(None).await;
        begun(&mut stream).await;
        assert_eq!(caller.tell(changed()).await, 202);
        answer_roots(caller, &mut stream, uri).await;
        front.until_noted(&noted(uri)).await;
    }
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_shared_server_hears_of_roots_from_its_only_session() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let can = json!({ "roots": { "listChanged": true } });
    let (one, other) = (front.session(can.clone()).await, front.session(can).await);
    let mut stream = one.listen(None).await;
    begun(&mut stream).await;
    // The server would take the roots of one caller for those of both.
    assert_eq!(one.tell(changed()).await, 202);
    assert_eq!(other.leave().await, 204);
    assert_eq!(one.tell(changed()).await, 202);
    answer_roots(&one, &mut stream, "file:///only").await;
    front.until_noted(&noted("file:///only")).await;
    let told = front
        .notes()
        .iter()
        .filter(|line| *line == "roots changed")
        .count();
    assert_eq!(told, 1);
    // Without a stream of its own the caller cannot be asked, and nothing is answered for it.
    drop(stream);
    let refused = async {
        loop {
            assert_eq!(one.tell(changed()).await, 202);
            if front.notes().iter().any(|line| line.contains("-32601")) {
                return;
            }
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    front.end().await;
}
