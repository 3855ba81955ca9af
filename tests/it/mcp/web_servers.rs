//! Servers over HTTP with habits of their own, each answered by a function of its test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;

use super::fake_server::FrontBed;
use super::front_bed::{Front, next_event, said};
use super::*;

/// Starts a server whose answer to each message is that of a function; `Null` is the message of a
/// request that is no POST.
async fn serve(answer: impl Fn(&Value) -> Response + Clone + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(move |method: Method, body: Bytes| {
        let message = match method {
            Method::POST => serde_json::from_slice(&body).unwrap_or_default(),
            _ => Value::Null,
        };
        let answered = answer(&message);
        async move { answered }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// A gateway in front of such a server, named `s`.
async fn front(address: SocketAddr) -> Front {
    let table = format!("[dependencies.s]\nkind = \"mcp_http\"\nurl = \"http://{address}/mcp\"\n");
    let bed = FrontBed::of(&table).await;
    Front::of(bed.runtime, bed.gateway)
}

fn result(asked: &Value, result: Value) -> Response {
    axum::Json(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result })).into_response()
}

fn error(status: u16, asked: &Value, code: i32) -> Response {
    let error = json!({ "code": code, "message": "no" });
    let body = json!({ "jsonrpc": "2.0", "id": asked["id"], "error": error });
    let status = StatusCode::from_u16(status).unwrap();
    (status, axum::Json(body)).into_response()
}

fn tool(name: &str) -> Value {
    json!({ "tools": [{ "name": name, "inputSchema": { "type": "object" } }] })
}

fn text(text: impl ToString) -> Value {
    json!({ "content": [{ "type": "text", "text": text.to_string() }] })
}

/// The answers of a server of the older dialect, with a session for each handshake.
fn older(asked: &Value, sessions: &AtomicUsize) -> Response {
    match asked["method"].as_str().unwrap_or_default() {
        "" => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        "initialize" => {
            let number = sessions.fetch_add(1, Ordering::SeqCst) + 1;
            let begun = json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "odd", "version": "1" } });
            let mut response = result(asked, begun);
            let id = number.to_string().parse().unwrap();
            response.headers_mut().insert("mcp-session-id", id);
            response
        }
        "tools/list" => result(asked, tool("one")),
        "tools/call" => result(asked, text("well")),
        _ if asked["id"].is_null() => StatusCode::ACCEPTED.into_response(),
        _ => error(404, asked, -32601),
    }
}

#[tokio::test]
async fn mcp_3_a12_an_unknown_method_or_resource_ends_no_session_at_a_server() {
    let sessions = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&sessions);
    let address = serve(move |asked| match asked["method"].as_str() {
        Some("resources/read") => error(404, asked, -32002),
        _ => older(asked, &own),
    })
    .await;
    let front = front(address).await;
    let caller = front.caller();
    for (method, code) in [("extension/x", -32601), ("resources/read", -32002)] {
        let refused = caller.ask(method, json!({ "uri": "x://1" })).await;
        assert_eq!(refused["error"]["code"], code, "{refused}");
    }
    assert_eq!(said(&caller.call("one", json!({})).await), "well");
    assert_eq!(sessions.load(Ordering::SeqCst), 1);
    front.end().await;
}

#[tokio::test]
async fn mcp_3_a20_a_server_that_answers_the_first_question_with_nonsense_serves() {
    for nonsense in [
        "{}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":7}",
        "<html>",
        "",
    ] {
        let sessions = Arc::new(AtomicUsize::new(0));
        let address = serve(move |asked| match asked["method"].as_str() {
            Some("server/discover") => {
                let media = [("content-type", "application/json")];
                (media, nonsense).into_response()
            }
            _ => older(asked, &sessions),
        })
        .await;
        let front = front(address).await;
        let answer = front.caller().call("one", json!({})).await;
        assert_eq!(said(&answer), "well", "{nonsense}");
        front.end().await;
    }
}

fn discovered(asked: &Value) -> Response {
    let capabilities = json!({ "tools": { "listChanged": true } });
    let known = json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"],
        "capabilities": capabilities });
    result(asked, known)
}

#[tokio::test]
async fn mcp_5_a11_a_subscription_at_a_newer_server_is_begun_again_after_its_end() {
    let listened = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&listened);
    let address = serve(move |asked| match asked["method"].as_str() {
        Some("server/discover") => discovered(asked),
        Some("tools/list") => {
            let name = format!("tool{}", own.load(Ordering::SeqCst));
            result(asked, tool(&name))
        }
        Some("subscriptions/listen") => match own.fetch_add(1, Ordering::SeqCst) {
            // The first one breaks off, and the second one ends in order.
            0 => ([("content-type", "text/event-stream")], ": hello\n\n").into_response(),
            1 => result(asked, json!({ "resultType": "complete" })),
            _ => {
                let open = futures_util::stream::pending::<Result<String, std::io::Error>>();
                let events = [("content-type", "text/event-stream")];
                (events, Body::from_stream(open)).into_response()
            }
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    })
    .await;
    let front = front(address).await;
    let session = front.session(json!({})).await;
    let mut stream = session.listen(None).await;
    // The tools are listed again, and callers hear that they have changed.
    let look = async {
        while !front
            .server()
            .tools()
            .iter()
            .any(|tool| tool.name == "tool3")
        {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap();
    assert_eq!(listened.load(Ordering::SeqCst), 3);
    let heard = next_event(&mut stream, &mut String::new()).await;
    assert_eq!(heard["method"], "notifications/tools/list_changed");
    drop(stream);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_state_is_sent_in_its_own_round_only() {
    let address = serve(|asked| match asked["method"].as_str() {
        Some("server/discover") => discovered(asked),
        Some("tools/list") => result(asked, tool("one")),
        Some("tools/call") => {
            let params = &asked["params"];
            let questions = json!({ "who": { "method": "elicitation/create", "params": {} } });
            let round = |state: Option<&str>| {
                let mut round =
                    json!({ "resultType": "input_required", "inputRequests": questions });
                if let Some(state) = state {
                    round["requestState"] = json!(state);
                }
                round
            };
            let said = params["inputResponses"]["who"]["content"].as_str();
            match (said, params["requestState"].as_str()) {
                (None, None) => result(asked, round(Some("first"))),
                (Some("1"), Some("first")) => result(asked, round(None)),
                (Some("2"), state) => result(asked, text(format!("{state:?}"))),
                other => result(asked, text(format!("{other:?}"))),
            }
        }
        _ => StatusCode::ACCEPTED.into_response(),
    })
    .await;
    let front = front(address).await;
    let session = front.session(json!({ "elicitation": {} })).await;
    let params = json!({ "name": "one", "arguments": {} });
    let mut stream = session.send("tools/call", params).await;
    let mut read = String::new();
    for round in ["1", "2"] {
        let asked = next_event(&mut stream, &mut read).await;
        let answer = json!({ "action": "accept", "content": round });
        let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": answer });
        assert_eq!(session.tell(answer).await, 202);
    }
    let answered = next_event(&mut stream, &mut read).await;
    assert_eq!(said(&answered), "None");
    front.end().await;
}
