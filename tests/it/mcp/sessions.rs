//! A process, or a session at the server, for each session of a caller
//! (`sessions = "per_caller"`).

use std::sync::atomic::Ordering;

use breakerbox::policy::BreakerCommand;

use super::fake_server::{FakeServer, FrontBed};
use super::front_bed::{Front, FrontCaller, messages, next_event, said};
use super::*;

const OWN: &str = "sessions = \"per_caller\"\n";

/// Counts, and returns the process and its count.
async fn counted(caller: &FrontCaller<'_>) -> (u32, u64) {
    let answer = caller.call("count", json!({})).await;
    serde_json::from_str(said(&answer)).unwrap()
}

/// Waits until none of these processes exists.
pub(super) async fn until_gone(processes: &[u32]) {
    let gone = async {
        while processes.iter().any(|process| state(*process).is_some()) {
            tokio::time::sleep(MOMENT).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, gone).await;
    assert!(seen.is_ok(), "still there: {processes:?}");
}

#[tokio::test]
async fn mcp_5_each_session_has_a_process_of_its_own_under_one_breaker() {
    let Some(front) = Front::open("older", OWN).await else {
        return;
    };
    let (one, other) = (
        front.session(json!({})).await,
        front.session(json!({})).await,
    );
    let (first, second) = (counted(&one).await, counted(&other).await);
    assert_ne!(first.0, second.0);
    assert_eq!(
        (first.1, second.1),
        (1, 1),
        "neither sees the other's state"
    );
    assert_eq!(counted(&one).await, (first.0, 2));
    // A caller without a session is served by the server's own process.
    let (shared, _) = counted(&front.caller()).await;
    assert!(![first.0, second.0].contains(&shared));
    assert_eq!(counted(&front.newer(json!({}))).await, (shared, 2));
    let listed = one.ask("tools/list", json!({})).await;
    assert!(listed["result"]["tools"].is_array(), "{listed}");
    let status = front.server().client().status();
    assert_eq!((status.workers.len(), status.totals.restarts), (1, 0));
    // A session ends with its process, and no other does.
    assert_eq!(one.leave().await, 204);
    until_gone(&[first.0]).await;
    assert_eq!(counted(&other).await, (second.0, 2));
    assert_eq!(one.send("ping", json!({})).await.status(), 404);
    front.end().await;
    until_gone(&[second.0, shared]).await;
}

#[tokio::test]
async fn mcp_5_the_session_that_was_unused_for_longest_gives_way() {
    let more = format!("{OWN}max_sessions = 2\n");
    let Some(front) = Front::open("older", &more).await else {
        return;
    };
    let (one, two) = (
        front.session(json!({})).await,
        front.session(json!({})).await,
    );
    let ((first, _), (second, _)) = (counted(&one).await, counted(&two).await);
    counted(&one).await;
    let three = front.session(json!({})).await;
    until_gone(&[second]).await;
    assert_eq!(two.send("ping", json!({})).await.status(), 404);
    assert_eq!(counted(&one).await, (first, 3));
    // All are in use: then no session gives way.
    let slow = json!({ "name": "slow", "arguments": { "seconds": 30 } });
    let calls = [&one, &three].map(|caller| caller.request("tools/call", slow.clone()).send());
    let calls = calls.map(tokio::spawn);
    let busy = async {
        while front.server().client().status().in_flight < 2 {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, busy).await.unwrap();
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
    let refused = front.caller().send("initialize", hello).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    let told = messages(refused).await.remove(0);
    assert_eq!(told["error"]["code"], -31050, "{told}");
    assert_eq!(told["error"]["data"]["cause"], "max_sessions", "{told}");
    for call in calls {
        call.abort();
    }
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_session_without_a_call_gives_way_before_one_in_use() {
    let more = format!("{OWN}max_sessions = 2\n");
    let Some(front) = Front::open("older", &more).await else {
        return;
    };
    let one = front.session(json!({})).await;
    let (first, _) = counted(&one).await;
    for _ in 0..4 {
        front.session(json!({})).await;
    }
    assert_eq!(counted(&one).await, (first, 2));
    front.end().await;
}

#[tokio::test]
async fn edge_1_a_session_that_ends_with_a_call_in_flight_is_no_failure() {
    for more in [OWN, ""] {
        let Some(front) = Front::open("older", more).await else {
            return;
        };
        let slow = json!({ "name": "slow", "arguments": { "seconds": 30 } });
        for _ in 0..6 {
            let caller = front.session(json!({})).await;
            let call = tokio::spawn(caller.request("tools/call", slow.clone()).send());
            let front = &front;
            let in_flight = |wanted: u32| async move {
                while front.server().client().status().in_flight != wanted {
                    tokio::time::sleep(MOMENT).await;
                }
            };
            tokio::time::timeout(PATIENCE, in_flight(1)).await.unwrap();
            assert_eq!(caller.leave().await, 204);
            tokio::time::timeout(PATIENCE, in_flight(0)).await.unwrap();
            // CALL-1: the call is answered all the same.
            let response = call.await.unwrap().unwrap();
            let answer = messages(response).await.pop().unwrap();
            let told = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(told.contains("its session has ended"), "{answer}");
        }
        let status = front.server().client().status();
        assert_eq!(status.tally.failures, 0, "{more:?}: {status:#?}");
        front.end().await;
    }
}

#[tokio::test]
async fn mcp_5_a_session_that_is_not_used_ends_with_its_process() {
    let more = format!("{OWN}session_idle = \"2s\"\n");
    let Some(front) = Front::open("older", &more).await else {
        return;
    };
    let session = front.session(json!({})).await;
    let (process, _) = counted(&session).await;
    until_gone(&[process]).await;
    assert_eq!(session.send("ping", json!({})).await.status(), 404);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_question_of_a_process_reaches_its_own_caller() {
    let Some(front) = Front::open("older", OWN).await else {
        return;
    };
    let can = json!({ "elicitation": {} });
    let callers = [front.session(can.clone()).await, front.session(can).await];
    let ask = async |caller: &FrontCaller<'_>, name: &str| {
        let question = json!({ "method": "elicitation/create", "params": { "message": name } });
        let params = json!({ "name": "question", "arguments": question });
        caller.send("tools/call", params).await
    };
    // Both are asked at once: in one process the server's questions would have no address.
    let mut streams = [
        ask(&callers[0], "first").await,
        ask(&callers[1], "second").await,
    ];
    for (place, name) in ["first", "second"].into_iter().enumerate().rev() {
        let mut read = String::new();
        let asked = next_event(&mut streams[place], &mut read).await;
        assert_eq!(asked["params"]["message"], name, "{asked}");
        let answer = json!({ "jsonrpc": "2.0", "id": asked["id"],
            "result": { "action": "accept", "content": { "by": name } } });
        assert_eq!(callers[place].tell(answer).await, 202);
        let answered = next_event(&mut streams[place], &mut read).await;
        assert!(said(&answered).contains(name), "{answered}");
    }
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_process_that_ends_is_started_again_for_its_session_alone() {
    let more = format!("{OWN}[dependencies.s.breaker]\nfailure_threshold = 100\n");
    let Some(front) = Front::open("older", &more).await else {
        return;
    };
    let (one, other) = (
        front.session(json!({})).await,
        front.session(json!({})).await,
    );
    let (first, second) = (counted(&one).await, counted(&other).await);
    let ended = one.call("end", json!({})).await;
    let reason = ended["error"]["message"].as_str().unwrap();
    let is_known = ["exit status: 3", "it closed its output"];
    assert!(
        is_known.iter().any(|known| reason.contains(known)),
        "{reason}"
    );
    assert!(reason.contains("the end"), "{reason}");
    let again = counted(&one).await;
    assert_ne!(again.0, first.0);
    assert_eq!(again.1, 1, "its state is gone");
    assert_eq!(counted(&other).await, (second.0, 2));
    // The starts of one that ends again and again have pauses, which grow.
    let mut paused = Value::Null;
    for _ in 0..6 {
        one.call("end", json!({})).await;
        paused = one.call("count", json!({})).await;
        if paused["error"].is_object() {
            break;
        }
    }
    let reason = paused["error"]["message"].as_str().unwrap();
    assert!(reason.contains("starts it again"), "{reason}");
    assert_eq!(paused["error"]["data"]["executed"], "no", "{paused}");
    let back = async {
        while one.call("count", json!({})).await["error"].is_object() {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(3 * PATIENCE, back).await.unwrap();
    assert_eq!(counted(&other).await, (second.0, 3));
    let status = front.server().client().status();
    assert_eq!(status.totals.restarts, 0, "the worker lives on");
    front.end().await;
}

#[tokio::test]
async fn mcp_5_no_answer_that_was_kept_reaches_another_session() {
    let more = format!("{OWN}fallback = [{{ kind = \"stale_cache\" }}]\n");
    let Some(front) = Front::open("older", &more).await else {
        return;
    };
    let (one, other) = (
        front.session(json!({})).await,
        front.session(json!({})).await,
    );
    let kept = counted(&one).await;
    let open = BreakerCommand::Open {
        reason: "a drill".to_owned(),
        until: None,
    };
    front.server().client().operate(open).await.unwrap();
    assert_eq!(counted(&one).await, kept);
    let refused = other.call("count", json!({})).await;
    assert!(refused["error"].is_object(), "{refused}");
    front.end().await;
}

#[tokio::test]
async fn mcp_5_each_session_has_a_session_at_a_server_over_http() {
    let fake = FakeServer::start("first", &["read"]).await;
    let bed = FrontBed::of(&fake.table("one", OWN)).await;
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let (status, headers, text) = bed.send("/one/mcp", "initialize", hello.clone(), &[]).await;
        assert_eq!(status, 200, "{text}");
        sessions.push(headers["mcp-session-id"].to_str().unwrap().to_owned());
    }
    let read = json!({ "name": "read", "arguments": {} });
    for session in [&sessions[0], &sessions[1], &sessions[0]] {
        let own = [("mcp-session-id", session.as_str())];
        let (status, _, text) = bed.send("/one/mcp", "tools/call", read.clone(), &own).await;
        assert_eq!(status, 200, "{text}");
    }
    let calls = fake.seen("tools/call");
    let at: Vec<_> = calls
        .iter()
        .map(|(headers, _)| &headers["mcp-session-id"])
        .collect();
    assert_eq!(at[0], at[2]);
    assert_ne!(at[0], at[1]);
    let before = fake.ended.load(Ordering::SeqCst);
    let left = crate::gateway::serve::http().delete(bed.url("/one/mcp"));
    let left = left
        .header("mcp-session-id", &sessions[0])
        .send()
        .await
        .unwrap();
    assert_eq!(left.status(), 204);
    let ended = async {
        while fake.ended.load(Ordering::SeqCst) == before {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    bed.end().await;
}

#[tokio::test]
async fn mcp_5_the_next_life_of_a_server_tells_of_the_lists_that_may_be_others() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let mut stream = session.listen(None).await;
    // Its tools are the same in each life, and its resources are not known here.
    session.call("end", json!({})).await;
    let told = next_event(&mut stream, &mut String::new()).await;
    assert_eq!(told["method"], "notifications/resources/list_changed");
    drop(stream);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_process_of_a_session_is_told_all_that_its_caller_can() {
    let Some(front) = Front::open("older", "sessions = \"per_caller\"\n").await else {
        return;
    };
    let can = json!({ "experimental": { "x": {} }, "extensions": { "y": {} }, "roots": {},
        "tasks": { "list": {} } });
    let session = front.session(can.clone()).await;
    session.call("echo", json!({})).await;
    front
        .until_noted(&format!("capabilities {}", spaced(&can)))
        .await;
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_process_of_a_session_is_spoken_to_in_the_dialect_of_its_caller() {
    let own = "sessions = \"per_caller\"\n";
    for (dialect, handshake) in [("newer both", "initialize"), ("newer", "server/discover")] {
        let Some(front) = Front::open(dialect, own).await else {
            return;
        };
        assert_eq!(front.notes()[0], "server/discover", "that of all others");
        let session = front.session(json!({ "elicitation": {} })).await;
        let answered = session.call("echo", json!({ "text": "hi" })).await;
        assert_eq!(said(&answered), "hi");
        let notes = front.notes();
        let is_handshake =
            |line: &&String| ["initialize", "server/discover"].contains(&line.as_str());
        let last = notes.iter().rfind(is_handshake).unwrap();
        assert_eq!(last, handshake, "{notes:?}");
        front.end().await;
    }
}

/// Writes a value as Python does.
fn spaced(value: &Value) -> String {
    value.to_string().replace(':', ": ").replace(',', ", ")
}
