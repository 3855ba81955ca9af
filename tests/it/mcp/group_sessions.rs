//! Sessions at a group: what its members say and ask reaches the caller of the group.

use super::front_bed::{Front, FrontCaller, next_event, program, said};
use super::sessions::until_gone;
use super::*;

/// A group `g` of the server `s` (`a_…`) and another one (`b_…`).
async fn group(more: &str) -> Option<Front> {
    let program = program()?;
    let text = format!(
        "{more}[dependencies.two]\nkind = \"mcp_stdio\"\ncommand = \"python3\"\n\
         args = [\"-u\", {program:?}, \"older\"]\n{more}\
         [dependencies.g]\nkind = \"mcp_group\"\nmembers = {{ a = \"s\", b = \"two\" }}\n"
    );
    let mut front = Front::open("older", &text).await?;
    front.name = "g";
    let two = front.gateway.servers().get("two").unwrap();
    super::front_bed::until_started(&two).await;
    Some(front)
}

async fn answer(caller: &FrontCaller<'_>, asked: &Value, result: Value) {
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
    assert_eq!(caller.tell(answer).await, 202);
}

#[tokio::test]
async fn mcp_5_the_user_of_a_group_is_asked_and_hears_of_changes() {
    let Some(front) = group("").await else {
        return;
    };
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
    let told = front.caller().ask("initialize", hello).await;
    let can = &told["result"]["capabilities"];
    assert_eq!(can["tools"]["listChanged"], true, "{told}");
    assert_eq!(can["resources"]["subscribe"], true, "{told}");
    assert!(can["logging"].is_object(), "{told}");
    let session = front.session(json!({ "elicitation": {} })).await;
    for name in ["a_question", "b_question"] {
        let question = json!({ "method": "elicitation/create", "params": { "message": name } });
        let params = json!({ "name": name, "arguments": question });
        let mut stream = session.send("tools/call", params).await;
        let mut read = String::new();
        let asked = next_event(&mut stream, &mut read).await;
        assert_eq!(asked["params"]["message"], name, "{asked}");
        answer(&session, &asked, json!({ "action": "decline" })).await;
        let answered = next_event(&mut stream, &mut read).await;
        assert!(said(&answered).contains("decline"), "{answered}");
    }
    let mut stream = session.listen(None).await;
    let mut read = String::new();
    stream.chunk().await.unwrap().unwrap();
    let touched = front
        .caller()
        .call("b_touch", json!({ "uri": "file:///x" }))
        .await;
    assert_eq!(said(&touched), "touched");
    let heard = next_event(&mut stream, &mut read).await;
    assert_eq!(
        heard["method"], "notifications/tools/list_changed",
        "{heard}"
    );
    assert_eq!(session.leave().await, 204);
    assert_eq!(session.send("ping", json!({})).await.status(), 404);
    assert_eq!(session.leave().await, 404);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_progress_levels_and_cancellation_pass_through_a_group() {
    let Some(front) = group("").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let slow = |seconds: f64| {
        json!({ "name": "a_slow", "arguments": { "seconds": seconds, "progress": true },
            "_meta": { "progressToken": "t" } })
    };
    let all = session.all("tools/call", slow(0.3)).await;
    assert_eq!(all[0]["params"]["progressToken"], "t", "{all:?}");
    let set = session
        .ask("logging/setLevel", json!({ "level": "error" }))
        .await;
    assert_eq!(set["result"], json!({}), "{set}");
    let quiet = session
        .all("tools/call", json!({ "name": "a_log", "arguments": {} }))
        .await;
    assert_eq!(quiet.len(), 1, "{quiet:?}");
    let calling = session.send("tools/call", slow(30.0));
    let cancelling = async {
        let calls = |front: &Front| {
            let notes = front.notes();
            notes.iter().filter(|line| *line == "tools/call").count()
        };
        while calls(&front) < 3 {
            tokio::time::sleep(MOMENT).await;
        }
        let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": { "requestId": "own" } });
        assert_eq!(session.tell(cancel).await, 202);
        front.until_noted("stopped").await;
    };
    let both = async { tokio::join!(calling, cancelling) };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_group_has_a_process_for_each_session_at_such_members() {
    let Some(front) = group("sessions = \"per_caller\"\n").await else {
        return;
    };
    let counted = async |caller: &FrontCaller<'_>, tool: &str| -> (u32, u64) {
        let answer = caller.call(tool, json!({})).await;
        serde_json::from_str(said(&answer)).unwrap()
    };
    let (one, other) = (
        front.session(json!({})).await,
        front.session(json!({})).await,
    );
    let (first, second) = (
        counted(&one, "a_count").await,
        counted(&other, "a_count").await,
    );
    assert_ne!(first.0, second.0);
    assert_eq!(counted(&one, "a_count").await, (first.0, 2));
    let third = counted(&one, "b_count").await;
    assert_eq!(one.leave().await, 204);
    until_gone(&[first.0, third.0]).await;
    assert_eq!(counted(&other, "a_count").await, (second.0, 2));
    front.end().await;
    until_gone(&[second.0]).await;
}
