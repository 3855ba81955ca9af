//! Servers and users with odd habits: what they cost, and whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;

use super::fake_server::FrontBed;
use super::front_bed::{Front, next_event, said};
use super::*;

/// Limits that a user who thinks exceeds.
const HURRIED: &str = "[dependencies.s.timeout]\nattempt = \"500ms\"\ntotal = \"500ms\"\n";
/// Time that the user takes.
const THOUGHT: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn edge_1_a2_the_time_of_a_user_is_not_the_servers() {
    let Some(front) = Front::open("older", HURRIED).await else {
        return;
    };
    let arguments = json!({ "method": "elicitation/create" });
    let params = json!({ "name": "question", "arguments": arguments });
    let session = front.session(json!({ "elicitation": {} })).await;
    let mut response = session.send("tools/call", params.clone()).await;
    let mut read = String::new();
    let asked = next_event(&mut response, &mut read).await;
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    tokio::time::sleep(THOUGHT).await;
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "action": "accept" } });
    assert_eq!(session.tell(answer).await, 202);
    let answered = next_event(&mut response, &mut read).await;
    assert!(said(&answered).contains("accept"), "{answered}");
    // A caller of the newer dialect answers by another request.
    let newer = front.newer(json!({ "elicitation": {} }));
    let asked = newer.ask("tools/call", params.clone()).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    tokio::time::sleep(THOUGHT).await;
    let mut again = params;
    again["requestState"] = asked["result"]["requestState"].clone();
    again["inputResponses"] = json!({ "question": { "action": "accept" } });
    let answered = newer.ask("tools/call", again).await;
    assert!(said(&answered).contains("accept"), "{answered}");
    let totals = front.server().client().status().totals;
    assert_eq!(totals.failed, 0, "{totals:?}");
    // The limits are those of the server again.
    let late = session.call("slow", json!({ "seconds": 5 })).await;
    assert!(late["error"].is_object(), "{late}");
    front.end().await;
}

#[tokio::test]
async fn mcp_3_a5_an_odd_answer_ends_its_own_call_at_once() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let result = "\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"ok\"}]}";
    let caller = front.caller();
    for (line, is_result) in [
        (
            format!("{{\"jsonrpc\":\"2.0\",\"id\":ID.0,{result}}}"),
            true,
        ),
        // A21: some servers return the id as a text.
        (
            format!("{{\"jsonrpc\":\"2.0\",\"id\":\"ID\",{result}}}"),
            true,
        ),
        (
            format!("[{{\"jsonrpc\":\"2.0\",\"id\":ID,{result}}}]"),
            true,
        ),
        // The threads of some servers share their output.
        (
            format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"x\"}}{{\"jsonrpc\":\"2.0\",\"id\":ID,{result}}}"
            ),
            true,
        ),
        (
            format!("{{\"jsonrpc\":\"2.0\",\"id\":ID,\"method\":null,{result}}}"),
            true,
        ),
        (
            format!("\u{feff}{{\"jsonrpc\":\"2.0\",\"id\":ID,{result}}}"),
            true,
        ),
        (
            format!("{{\"jsonrpc\":\"2.0\",\"id\":IDe0,{result}}}"),
            true,
        ),
        // Some programs print JSON for people.
        (
            format!("{{\n  \"jsonrpc\": \"2.0\",\n  \"id\": ID,\n  {result}\n}}"),
            true,
        ),
        // It may be a question too.
        (
            format!("{{\"jsonrpc\":\"2.0\",\"id\":ID,\"method\":\"x\",{result}}}"),
            false,
        ),
        (
            format!("{{\"jsonrpc\":\"2.0\",\"id\":ID,\"id\":ID,{result}}}"),
            false,
        ),
        (
            format!("{{\"jsonrpc\":\"2.0\",\"id\":ID,{result},{result}}}"),
            false,
        ),
        (
            format!("{{\"jsonrpc\":\"2.0\",\"\\u0069d\":ID,{result},}}"),
            false,
        ),
    ] {
        let asking = caller.call("lines", json!({ "line": line }));
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        let answer = answer.unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(answer["result"].is_object(), is_result, "{line}: {answer}");
    }
    front.end().await;
}

/// Writes a line with its own call's id in the place of ID, and returns the answer of the caller.
async fn answer_to(front: &Front, line: &str) -> Value {
    let caller = front.caller();
    let asking = caller.call("lines", json!({ "line": line }));
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| panic!("{line}"))
}

#[tokio::test]
async fn mcp_3_m6_a_tools_result_that_is_no_object_is_an_error() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    for result in ["null", "\"x\"", "[1]", "3"] {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{result}}}");
        let error = &answer_to(&front, &line).await["error"];
        let text = error["message"].as_str().unwrap_or_default();
        assert!(text.contains("is no object"), "{result}: {error}");
    }
    front.end().await;
}

#[tokio::test]
async fn mcp_3_an_error_with_a_lenient_code_or_message_reaches_its_caller() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    for members in [
        "\"code\":-32042,\"message\":null",
        "\"code\":-32042.0,\"message\":\"m\"",
    ] {
        let error = format!("{{{members},\"data\":{{\"url\":\"u\"}}}}");
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":ID,\"error\":{error}}}");
        let answer = answer_to(&front, &line).await;
        assert_eq!(answer["error"]["code"], -32042, "{members}: {answer}");
        assert_eq!(answer["error"]["data"]["url"], "u", "{members}: {answer}");
    }
    front.end().await;
}

#[tokio::test]
async fn mcp_3_an_error_without_an_id_answers_the_only_call_in_flight() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let line =
        "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"bad words\"}}";
    let answer = answer_to(&front, line).await;
    assert_eq!(answer["error"]["code"], -32600, "{answer}");
    assert_eq!(answer["error"]["message"], "bad words", "{answer}");
    front.end().await;
}

#[tokio::test]
async fn edge_8_a_line_that_is_no_message_is_named_to_the_caller_that_waits_in_vain() {
    let Some(front) = Front::open("older", HURRIED).await else {
        return;
    };
    let message = "{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{\"content\":[]}}";
    let line = format!("Loading... {message}");
    let text = |answer: &Value| answer["error"]["message"].as_str().unwrap().to_owned();
    let told = text(&answer_to(&front, &line).await);
    assert!(
        told.contains("the server's output is no message: Loading... {\"jsonrpc\""),
        "{told}"
    );
    // MCP-5: while another caller's call is in flight, it may be the answer to that one.
    let (other, mine) = (front.caller(), front.caller());
    let other = other.call("slow", json!({ "seconds": 5 }));
    let mine = async {
        let calls = || {
            front
                .notes()
                .iter()
                .filter(|line| *line == "tools/call")
                .count()
        };
        while calls() < 2 {
            tokio::time::sleep(MOMENT).await;
        }
        mine.call("lines", json!({ "line": line })).await
    };
    let mine = tokio::time::timeout(PATIENCE, mine);
    let (other, mine) = tokio::join!(other, mine);
    let mine = mine.unwrap();
    for answer in [other, mine] {
        let told = text(&answer);
        assert!(!told.contains("Loading"), "{told}");
    }
    // A call without such a line is late for another reason.
    let told = text(&front.caller().call("slow", json!({ "seconds": 5 })).await);
    assert!(!told.contains("no message"), "{told}");
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a8_what_belongs_to_one_callers_call_is_told_to_no_other() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let (one, other) = (
        front.session(json!({})).await,
        front.session(json!({})).await,
    );
    let mut heard = other.listen(None).await;
    let line = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/own\"}\n\
                {\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{\"content\":[]}}";
    let params = json!({ "name": "lines", "arguments": { "line": line } });
    let told = one.all("tools/call", params).await;
    assert_eq!(told[0]["method"], "notifications/own", "{told:?}");
    one.call("touch", json!({ "uri": "x:1" })).await;
    let first = next_event(&mut heard, &mut String::new()).await;
    assert_eq!(first["method"], "notifications/tools/list_changed");
    drop(heard);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a10_ids_of_our_own_subscriptions_reach_no_caller() {
    let Some(front) = Front::open("newer", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let mut heard = session.listen(None).await;
    let key = "io.modelcontextprotocol/subscriptionId";
    let line = format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/list_changed\",\"params\":\
         {{\"_meta\":{{\"{key}\":\"3\",\"own\":1}}}}}}\n\
         {{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{{\"content\":[]}}}}"
    );
    session.call("lines", json!({ "line": line })).await;
    let notice = next_event(&mut heard, &mut String::new()).await;
    assert_eq!(notice["method"], "notifications/resources/list_changed");
    assert_eq!(notice["params"]["_meta"], json!({ "own": 1 }), "{notice}");
    drop(heard);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a21_metadata_and_members_that_are_null_are_none() {
    for dialect in ["older", "newer"] {
        let Some(front) = Front::open(dialect, "").await else {
            return;
        };
        let meta = "{\"jsonrpc\":\"2.0\",\"id\":\"own\",\"method\":\"tools/call\",\
                    \"params\":{\"name\":\"echo\",\"_meta\":null,\"arguments\":null}}";
        let sent = front.post(meta).send().await.unwrap();
        let answer = super::front_bed::messages(sent).await;
        assert_eq!(said(&answer[0]), "", "{dialect}");
        // A result with members of null gets no second member of the same name.
        let line = "{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{\"content\":[],\"_meta\":null,\
                    \"resultType\":null,\"ttlMs\":null}}";
        let newer = front.newer(json!({}));
        let params = json!({ "name": "lines", "arguments": { "line": line } });
        let text = newer.send("tools/call", params).await.text().await.unwrap();
        for name in ["\"_meta\"", "\"resultType\"", "\"ttlMs\""] {
            assert!(text.matches(name).count() <= 1, "{dialect} {text}");
        }
        front.end().await;
    }
}

/// The lines of a server `s` that takes its time to start.
fn late(seconds: &str, more: &str) -> Option<String> {
    let program = super::front_bed::program()?;
    Some(format!(
        "[dependencies.late]\nkind = \"mcp_stdio\"\ncommand = \"sh\"\n\
         args = [\"-c\", \"sleep {seconds}; exec python3 -u {} older\"]\n{more}",
        program.display()
    ))
}

#[tokio::test]
async fn mcp_1_a17_readers_that_come_while_their_server_starts_are_served_side_by_side() {
    let Some(late) = late("1", "") else {
        return;
    };
    let Some(mut front) = Front::open("older", &late).await else {
        return;
    };
    front.name = "late";
    let listing = front.caller();
    let listing = listing.ask("tools/list", json!({}));
    let call = async |seconds: f64| {
        let answer = front
            .caller()
            .call("slow", json!({ "seconds": seconds }))
            .await;
        assert_eq!(said(&answer), "done");
        tokio::time::Instant::now()
    };
    // As writers, they would go one at a time.
    let (one, other, listed) = tokio::join!(call(1.5), call(1.5), listing);
    // A cursor of the server would not be known when its tools are.
    assert!(listed["result"]["nextCursor"].is_null(), "{listed}");
    assert!(listed["result"]["tools"].as_array().unwrap().len() > 5);
    let between = one.max(other) - one.min(other);
    assert!(between < Duration::from_millis(1200), "{between:?}");
    front.end().await;
}

#[tokio::test]
async fn mcp_6_a19_a_group_waits_a_moment_for_a_member_that_starts() {
    let group = "[dependencies.g]\nkind = \"mcp_group\"\nmembers = { a = \"s\", b = \"late\" }\n";
    let Some(late) = late("0.2", group) else {
        return;
    };
    let Some(mut front) = Front::open("older", &late).await else {
        return;
    };
    front.name = "g";
    let listed = front.caller().ask("tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().unwrap();
    let has = |name: &str| tools.iter().any(|tool| tool["name"] == name);
    assert!(has("a_echo") && has("b_echo"), "{listed}");
    front.end().await;
}

#[tokio::test]
async fn sup_6_a3_a_request_of_any_kind_that_crashes_its_server_twice_is_refused() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let caller = front.caller();
    for _ in 0..2 {
        let crashed = caller.ask("extension/end", json!({ "x": 1 })).await;
        assert!(crashed["error"].is_object(), "{crashed}");
    }
    let refused = caller.ask("extension/end", json!({ "x": 1 })).await;
    let kind = &refused["error"]["data"]["type"];
    assert_eq!(kind, "urn:breakerbox:quarantined", "{refused}");
    let notes = front.notes();
    let made = notes.iter().filter(|line| *line == "extension/end");
    assert_eq!(made.count(), 2, "none was repeated");
    let other = caller.call("echo", json!({ "text": "well" })).await;
    assert_eq!(said(&other), "well");
    front.end().await;
}

#[tokio::test]
async fn mcp_3_a20_a_server_that_counts_its_pages_or_wants_an_old_version_serves() {
    let Some(front) = Front::open("older strict numbered", "").await else {
        return;
    };
    let answer = front.caller().call("echo", json!({ "text": "well" })).await;
    assert_eq!(said(&answer), "well");
    assert_eq!(
        front.server().protocol_version().as_deref(),
        Some("2025-06-18")
    );
    let listed = front.caller().ask("tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().unwrap();
    let echoes = tools.iter().filter(|tool| tool["name"] == "echo").count();
    assert_eq!(
        echoes, 2,
        "the page before the repeated cursor, and the one with it"
    );
    front.end().await;
}

/// A server over HTTP whose own stream is asked for the first time in vain, ends once, and stays then.
/// It has one tool more after each try.
async fn interrupted(
    State(asked): State<Arc<AtomicUsize>>,
    method: Method,
    body: axum::body::Bytes,
) -> Response {
    if method == Method::GET {
        let events = [("content-type", "text/event-stream")];
        return match asked.fetch_add(1, Ordering::SeqCst) {
            0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            1 => (events, ": hello\n\n").into_response(),
            _ => {
                let open = futures_util::stream::pending::<Result<String, std::io::Error>>();
                (events, axum::body::Body::from_stream(open)).into_response()
            }
        };
    }
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str() {
        Some("initialize") => json!({ "protocolVersion": "2025-11-25",
            "capabilities": { "tools": {} }, "serverInfo": { "name": "i", "version": "1" } }),
        Some("tools/list") => {
            let name = format!("tool{}", asked.load(Ordering::SeqCst).min(3));
            json!({ "tools": [{ "name": name, "inputSchema": { "type": "object" } }] })
        }
        Some("server/discover") => return StatusCode::BAD_GATEWAY.into_response(),
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    axum::Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response()
}

#[tokio::test]
async fn mcp_5_a11_a_servers_own_stream_comes_back_and_its_tools_are_listed_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let app = Router::new()
        .fallback(interrupted)
        .with_state(Arc::clone(&asked));
    let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let table = format!("[dependencies.s]\nkind = \"mcp_http\"\nurl = \"http://{address}/mcp\"\n");
    let bed = FrontBed::of(&table).await;
    let server = bed.gateway.servers().get("s").unwrap();
    let look = async {
        while !server.tools().iter().any(|tool| tool.name == "tool3") {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    bed.gateway.shutdown().await;
    bed.runtime.shutdown().await;
    serving.abort();
}
