//! Questions of a server to a user who takes time, tells of it, or never answers.

use tokio::time::Instant;

use super::front_bed::{Front, FrontCaller, next_event, program, said, until_started};
use super::*;

/// One place, which a call that asks takes, and little time for its user.
const ONE_PLACE: &str =
    "question_timeout = \"700ms\"\n[dependencies.s.bulkhead]\nmax_concurrent = 1\n";

fn question(times: u32, token: Option<&str>) -> Value {
    let mut params = json!({ "message": "name?" });
    if let Some(token) = token {
        params["_meta"] = json!({ "own/key": 1, "progressToken": token });
    }
    let arguments = json!({ "method": "elicitation/create", "params": params, "times": times });
    json!({ "name": "question", "arguments": arguments })
}

async fn tell_progress(caller: &FrontCaller<'_>, token: &Value, progress: u32) {
    let params = json!({ "progressToken": token, "progress": progress });
    let told = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
    assert_eq!(caller.tell(told).await, 202);
}

async fn accept(caller: &FrontCaller<'_>, asked: &Value) {
    let result = json!({ "action": "accept" });
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
    assert_eq!(caller.tell(answer).await, 202);
}

/// The progress that the servers were told, in order.
fn progress(front: &Front) -> Vec<String> {
    let mut notes = front.notes();
    notes.retain(|line| line.starts_with("progress "));
    notes
}

#[tokio::test]
async fn mcp_5_a15_the_progress_of_a_question_reaches_its_server_before_the_answer() {
    let Some(program) = program() else {
        return;
    };
    let text = format!(
        "[dependencies.two]\nkind = \"mcp_stdio\"\ncommand = \"python3\"\n\
         args = [\"-u\", {program:?}, \"older\"]\n\
         [dependencies.g]\nkind = \"mcp_group\"\nmembers = {{ a = \"s\", b = \"two\" }}\n"
    );
    let Some(mut front) = Front::open("older", &text).await else {
        return;
    };
    until_started(&front.gateway.servers().get("two").unwrap()).await;
    for (name, tool, token) in [("s", "question", "t1"), ("g", "a_question", "t2")] {
        front.name = name;
        let session = front.session(json!({ "elicitation": {} })).await;
        let mut params = question(1, Some(token));
        params["name"] = json!(tool);
        let mut stream = session.send("tools/call", params).await;
        let mut read = String::new();
        let asked = next_event(&mut stream, &mut read).await;
        let meta = &asked["params"]["_meta"];
        assert_eq!(meta["own/key"], 1, "{asked}");
        // The server's own token is of no use to a caller.
        let own = &meta["progressToken"];
        assert_ne!(own, token, "{asked}");
        tell_progress(&session, &json!(token), 9).await;
        let stranger = front.session(json!({ "elicitation": {} })).await;
        tell_progress(&stranger, own, 9).await;
        tell_progress(&session, own, 1).await;
        tell_progress(&session, own, 2).await;
        accept(&session, &asked).await;
        let answered = next_event(&mut stream, &mut read).await;
        assert!(said(&answered).contains("accept"), "{answered}");
        // It is over, and so is its progress.
        tell_progress(&session, own, 9).await;
        let expected = [1, 2].map(|done| {
            format!("progress {{\"progress\": {done}, \"progressToken\": \"{token}\"}}")
        });
        let told: Vec<String> = progress(&front)
            .into_iter()
            .filter(|line| line.contains(token))
            .collect();
        assert_eq!(told, expected);
        drop(stream);
    }
    assert_eq!(progress(&front).len(), 4);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_user_who_never_answers_holds_the_place_of_a_call_for_a_limited_time() {
    let Some(front) = Front::open("older", ONE_PLACE).await else {
        return;
    };
    let session = front.session(json!({ "elicitation": {} })).await;
    let began = Instant::now();
    let mut stream = session.send("tools/call", question(5, None)).await;
    let mut read = String::new();
    let asked = next_event(&mut stream, &mut read).await;
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    // Another caller waits for the place, and not for five answers.
    let other = front.caller().call("echo", json!({ "text": "next" })).await;
    assert_eq!(said(&other), "next");
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(700)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    let withdrawn = next_event(&mut stream, &mut read).await;
    assert_eq!(
        withdrawn["method"], "notifications/cancelled",
        "{withdrawn}"
    );
    let answered = next_event(&mut stream, &mut read).await;
    let told = said(&answered);
    assert!(told.contains("question_timeout = 700 ms"), "{told}");
    let totals = front.server().client().status().totals;
    assert_eq!(totals.failed, 0, "{totals:?}");
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_newer_caller_that_never_answers_holds_its_place_for_a_limited_time() {
    let Some(front) = Front::open("older", ONE_PLACE).await else {
        return;
    };
    let newer = front.newer(json!({ "elicitation": {} }));
    let began = Instant::now();
    let asked = newer.ask("tools/call", question(5, None)).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let other = front.caller().call("echo", json!({ "text": "next" })).await;
    assert_eq!(said(&other), "next");
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(700)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    let mut again = question(5, None);
    again["requestState"] = asked["result"]["requestState"].clone();
    again["inputResponses"] = json!({ "question": { "action": "accept" } });
    let late = newer.ask("tools/call", again).await;
    // The call ends by the error that its server got; once that is told, it is not held any more.
    let told = late["result"]["content"][0]["text"].as_str();
    let is_over = told.is_some_and(|told| told.contains("question_timeout = 700 ms"));
    assert!(is_over || late["error"]["code"] == -32602, "{late}");
    front.end().await;
}

#[tokio::test]
async fn mcp_5_mcp_6_a_held_call_goes_on_by_its_own_request_and_a_result_of_its_question() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let newer = front.newer(json!({ "elicitation": {}, "roots": {} }));
    let accepted = json!({ "action": "accept" });
    for (method, wrong, right) in [
        ("elicitation/create", json!({ "action": 7 }), accepted),
        ("roots/list", json!({ "roots": {} }), json!({ "roots": [] })),
    ] {
        let arguments = json!({ "method": method, "params": { "message": "name?" } });
        let asked = newer.call("question", arguments.clone()).await;
        let state = asked["result"]["requestState"].clone();
        assert!(state.is_string(), "{asked}");
        let again = |tool: &str, answer: Value| {
            json!({ "name": tool, "arguments": arguments, "requestState": state,
                "inputResponses": { "question": answer } })
        };
        for refused in [
            again("echo", right.clone()),
            again("question", wrong),
            again("question", json!("x")),
            again("question", json!([right])),
            again("question", Value::Null),
        ] {
            let told = newer.ask("tools/call", refused).await;
            assert_eq!(told["error"]["code"], -32602, "{method}: {told}");
        }
        // The call is held all the same.
        let answered = newer.ask("tools/call", again("question", right)).await;
        assert_eq!(answered["result"]["resultType"], "complete", "{answered}");
    }
    front.end().await;
}
