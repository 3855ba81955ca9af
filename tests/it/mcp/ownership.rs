//! Sessions and states of questions belong to the caller that presented its credential.

use super::front_bed::{Front, FrontCaller, said};
use super::*;

const ADA: &str = "the-token-that-ada-has";
const BOB: &str = "the-token-that-bob-has";

async fn front() -> Option<Front> {
    let auth = format!("auth = {{ tokens = [{ADA:?}, {BOB:?}] }}\n");
    Front::open("older", &auth).await
}

fn holder<'a>(mut caller: FrontCaller<'a>, token: &str) -> FrontCaller<'a> {
    let bearer = format!("Bearer {token}").parse().unwrap();
    caller.headers.insert("authorization", bearer);
    caller
}

/// A session of the holder of a token.
async fn session<'a>(front: &'a Front, token: &str) -> FrontCaller<'a> {
    let mut caller = holder(front.caller(), token);
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": { "elicitation": {} } });
    let begun = caller.send("initialize", hello).await;
    let id = begun.headers()["mcp-session-id"].clone();
    caller.headers.insert("mcp-session-id", id);
    let version = "2025-11-25".parse().unwrap();
    caller.headers.insert("mcp-protocol-version", version);
    caller
}

#[tokio::test]
async fn mcp_6_a_session_of_another_caller_is_unknown() {
    let Some(front) = front().await else {
        return;
    };
    let ada = session(&front, ADA).await;
    let mut thief = holder(front.caller(), BOB);
    for name in ["mcp-session-id", "mcp-protocol-version"] {
        thief.headers.insert(name, ada.headers[name].clone());
    }
    let refused = thief.send("ping", json!({})).await;
    assert_eq!(refused.status(), 404);
    let told = front_bed::messages(refused).await.remove(0);
    let unknown = "there is no such session; initialize begins a new one";
    assert_eq!(told["error"]["message"], unknown, "{told}");
    assert_eq!(thief.listen(None).await.status(), 404);
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": "own" } });
    assert_eq!(thief.tell(cancelled).await, 404);
    assert_eq!(thief.leave().await, 404);
    // Its owner goes on.
    assert_eq!(ada.send("ping", json!({})).await.status(), 200);
    assert_eq!(ada.leave().await, 204);
    front.end().await;
}

#[tokio::test]
async fn mcp_6_the_state_of_a_question_is_of_use_to_its_caller_alone() {
    let Some(front) = front().await else {
        return;
    };
    let ada = holder(front.newer(json!({ "elicitation": {} })), ADA);
    let bob = holder(front.newer(json!({ "elicitation": {} })), BOB);
    let arguments = json!({ "method": "elicitation/create", "params": { "message": "name?" } });
    let asked = ada.call("question", arguments.clone()).await;
    let state = asked["result"]["requestState"].clone();
    assert!(state.is_string(), "{asked}");
    let answer = |text: &str| {
        json!({ "name": "question", "arguments": arguments, "requestState": state,
            "inputResponses": { "question": { "action": "accept", "content": { "name": text } } } })
    };
    let refused = bob.ask("tools/call", answer("bob")).await;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    let answered = ada.ask("tools/call", answer("ada")).await;
    assert!(said(&answered).contains("ada"), "{answered}");
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_question_that_could_be_for_either_caller_says_so() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let capable = json!({ "elicitation": {} });
    let (one, other) = (
        front.session(capable.clone()).await,
        front.session(capable).await,
    );
    let question = json!({ "name": "question",
        "arguments": { "method": "elicitation/create", "params": { "message": "name?" } } });
    // Its user does not answer.
    let mut stream = one.send("tools/call", question.clone()).await;
    let mut read = String::new();
    let asked = front_bed::next_event(&mut stream, &mut read).await;
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    let refused = other.ask("tools/call", question).await;
    assert!(said(&refused).contains("-32603"), "{refused}");
    assert!(said(&refused).contains("per_caller"), "{refused}");
    let id = asked["id"].clone();
    let declined = json!({ "jsonrpc": "2.0", "id": id, "result": { "action": "decline" } });
    assert_eq!(one.tell(declined).await, 202);
    let answered = front_bed::next_event(&mut stream, &mut read).await;
    assert!(said(&answered).contains("decline"), "{answered}");
    front.end().await;
}
