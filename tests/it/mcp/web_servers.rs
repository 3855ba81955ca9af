//! Servers over HTTP with habits of their own, each answered by a function of its test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode};
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
pub(super) fn older(asked: &Value, sessions: &AtomicUsize) -> Response {
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
async fn mcp_3_a_status_without_an_answer_ends_a_call_of_the_newer_dialect_at_once() {
    let address = serve(|asked| match asked["method"].as_str() {
        Some("server/discover") => discovered(asked),
        Some("tools/list") => result(asked, tool("one")),
        Some("tools/call") => {
            let status = asked["params"]["arguments"]["status"].as_u64().unwrap();
            let status = u16::try_from(status).unwrap();
            StatusCode::from_u16(status).unwrap().into_response()
        }
        _ => StatusCode::ACCEPTED.into_response(),
    })
    .await;
    let front = front(address).await;
    for status in [202, 204] {
        let caller = front.caller();
        let calling = caller.call("one", json!({ "status": status }));
        let answer = tokio::time::timeout(PATIENCE, calling).await.unwrap();
        let told = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            told.contains(&format!("status {status} has none")),
            "{answer}"
        );
        assert_eq!(answer["error"]["data"]["executed"], "maybe", "{answer}");
    }
    let totals = front.server().client().status().tally;
    assert_eq!(totals.failures, 0, "{totals:?}");
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

#[tokio::test]
async fn mcp_5_m11_no_user_answers_for_a_call_that_cannot_go_on() {
    let address = serve(|asked| match asked["method"].as_str() {
        Some("server/discover") => discovered(asked),
        Some("tools/list") => result(asked, tool("one")),
        Some("tools/call") => {
            let url = json!({ "mode": "url", "message": "x", "url": "https://x.example" });
            let questions = json!({
                "a": { "method": "elicitation/create", "params": {} },
                "b": { "method": "elicitation/create", "params": url },
            });
            let round = json!({ "resultType": "input_required", "inputRequests": questions });
            result(asked, round)
        }
        _ => StatusCode::ACCEPTED.into_response(),
    })
    .await;
    let front = front(address).await;
    let session = front.session(json!({ "elicitation": {} })).await;
    let params = json!({ "name": "one", "arguments": {} });
    // It is the only message: the caller is not asked the first question either.
    let all = session.all("tools/call", params).await;
    assert_eq!(all.len(), 1, "{all:?}");
    let error = &all[0]["error"];
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("(elicitation.url)"), "{error}");
    let data = &error["data"];
    assert_eq!(data["type"], "urn:breakerbox:input-required", "{error}");
    assert_eq!(data["executed"], "maybe", "{error}");
    assert_eq!(data["state"], "closed", "{error}");
    front.end().await;
}

#[tokio::test]
async fn call_7_a_request_of_an_unknown_method_is_not_repeated() {
    let made = Arc::new(AtomicUsize::new(0));
    let (own, sessions) = (Arc::clone(&made), Arc::new(AtomicUsize::new(0)));
    let address = serve(move |asked| match asked["method"].as_str() {
        Some("extension/write" | "prompts/get") => {
            own.fetch_add(1, Ordering::SeqCst);
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        _ => older(asked, &sessions),
    })
    .await;
    let table = format!(
        "[dependencies.s]\nkind = \"mcp_http\"\nurl = \"http://{address}/mcp\"\n\
         retry = {{ max_attempts = 3, backoff = {{ base = \"1ms\", max = \"2ms\" }} }}\n"
    );
    let bed = FrontBed::of(&table).await;
    for (method, expected) in [("extension/write", 1), ("prompts/get", 3)] {
        made.store(0, Ordering::SeqCst);
        let failed = bed.ask("/s/mcp", method, json!({ "name": "x" })).await;
        assert!(failed["error"].is_object(), "{failed}");
        assert_eq!(made.load(Ordering::SeqCst), expected, "{method}");
    }
    bed.end().await;
}

#[tokio::test]
async fn mcp_5_what_a_server_says_in_a_list_before_its_answer_reaches_the_caller() {
    let sessions = Arc::new(AtomicUsize::new(0));
    let address = serve(move |asked| match asked["method"].as_str() {
        Some("tools/call") => {
            let told = json!({ "level": "info", "data": "working" });
            let told =
                json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": told });
            let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": text("well") });
            axum::Json(json!([told, answer])).into_response()
        }
        _ => older(asked, &sessions),
    })
    .await;
    let front = front(address).await;
    let params = json!({ "name": "one", "arguments": {} });
    let all = front.caller().all("tools/call", params).await;
    assert_eq!(all[0]["params"]["data"], "working", "{all:?}");
    assert_eq!(said(&all[1]), "well");
    front.end().await;
}

#[tokio::test]
async fn mcp_3_the_words_of_an_error_without_an_id_reach_the_caller_at_once() {
    let sessions = Arc::new(AtomicUsize::new(0));
    let address = serve(move |asked| match asked["method"].as_str() {
        Some("tools/call") => {
            let data = json!({ "of": "the server" });
            let error = json!({ "code": -32600, "message": "bad words", "data": data });
            let body = json!({ "jsonrpc": "2.0", "id": null, "error": error });
            let first = format!("data: {body}\n\n");
            match asked["params"]["arguments"]["way"].as_str() {
                Some("events") => ([("content-type", "text/event-stream")], first).into_response(),
                Some("open") => {
                    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(first)]);
                    let open = futures_util::StreamExt::chain(
                        first,
                        futures_util::stream::pending::<Result<String, std::io::Error>>(),
                    );
                    let events = [("content-type", "text/event-stream")];
                    (events, Body::from_stream(open)).into_response()
                }
                Some("400") => (StatusCode::BAD_REQUEST, axum::Json(body)).into_response(),
                _ => axum::Json(body).into_response(),
            }
        }
        _ => older(asked, &sessions),
    })
    .await;
    let front = front(address).await;
    let caller = front.caller();
    for way in ["json", "events", "open", "400"] {
        let asking = caller.call("one", json!({ "way": way }));
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        let answer = answer.unwrap_or_else(|_| panic!("{way}"));
        let told = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(told.contains("bad words"), "{way}: {answer}");
        assert_eq!(answer["error"]["code"], -32600, "{way}: {answer}");
        assert_eq!(
            answer["error"]["data"]["of"], "the server",
            "{way}: {answer}"
        );
    }
    front.end().await;
}

/// A request that is never answered; counted when its connection is closed.
struct OpenRequest(Arc<AtomicUsize>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn mcp_5_m8_a_cancellation_that_a_server_does_not_take_is_given_up() {
    let closed = Arc::new(AtomicUsize::new(0));
    let (own, sessions) = (Arc::clone(&closed), Arc::new(AtomicUsize::new(0)));
    let app = Router::new().fallback(move |body: Bytes| {
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let method = asked["method"].as_str().unwrap_or_default();
        let hangs = ["tools/call", "notifications/cancelled"].contains(&method);
        let answered = older(&asked, &sessions);
        let open = hangs.then(|| OpenRequest(Arc::clone(&own)));
        async move {
            if let Some(_open) = open {
                std::future::pending::<()>().await;
            }
            answered
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let table = format!(
        "[dependencies.s]\nkind = \"mcp_http\"\nurl = \"http://{address}/mcp\"\n\
         start_timeout = \"1s\"\ntimeout = {{ attempt = \"200ms\" }}\n"
    );
    let bed = FrontBed::of(&table).await;
    for _ in 0..3 {
        assert!(bed.call("/s/mcp", "one").await.is_err());
    }
    // The calls, and their cancellations.
    let look = async {
        while closed.load(Ordering::SeqCst) < 6 {
            tokio::time::sleep(MOMENT).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, look).await;
    assert!(seen.is_ok(), "{closed:?} requests are over");
    bed.end().await;
}

#[tokio::test]
async fn call_7_a_write_is_not_sent_again_when_another_request_finds_its_session_forgotten() {
    let made = Arc::new(AtomicUsize::new(0));
    let refused = Arc::new(tokio::sync::Notify::new());
    let (own, sessions, seen) = (
        Arc::clone(&made),
        Arc::new(AtomicUsize::new(0)),
        Arc::clone(&refused),
    );
    let app = Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_old = headers.get("mcp-session-id").is_some_and(|id| *id == "1");
        let (made, sessions, seen) = (Arc::clone(&own), Arc::clone(&sessions), Arc::clone(&seen));
        async move {
            let is_forgotten = is_old && made.load(Ordering::SeqCst) > 0;
            if asked["params"]["name"] == "write" {
                made.fetch_add(1, Ordering::SeqCst);
                // The session ends while the write is being done.
                seen.notified().await;
                return error(200, &asked, -32603);
            }
            if is_forgotten && asked["method"] == "tools/call" {
                seen.notify_one();
                return StatusCode::NOT_FOUND.into_response();
            }
            older(&asked, &sessions)
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let front = front(address).await;
    let (writer, reader) = (front.caller(), front.caller());
    let reading = async {
        while made.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(MOMENT).await;
        }
        reader.call("one", json!({})).await
    };
    let (written, read) = tokio::join!(writer.call("write", json!({})), reading);
    assert_eq!(written["error"]["code"], -32603, "{written}");
    assert_eq!(said(&read), "well", "it was refused, and is sent again");
    assert_eq!(made.load(Ordering::SeqCst), 1);
    front.end().await;
}

#[tokio::test]
async fn call_2_a_write_whose_stream_broke_off_may_be_executed_though_its_server_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let serving = Arc::new(std::sync::OnceLock::<tokio::task::AbortHandle>::new());
    let (own, sessions, server) = (
        Arc::clone(&made),
        Arc::new(AtomicUsize::new(0)),
        Arc::clone(&serving),
    );
    let app = Router::new().fallback(move |body: Bytes| {
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let answered = match asked["method"].as_str() {
            Some("tools/call") => {
                own.fetch_add(1, Ordering::SeqCst);
                // It takes no connection any more.
                server.get().unwrap().abort();
                let first = "id: 1\nretry: 100\ndata:\n\n";
                ([("content-type", "text/event-stream")], first).into_response()
            }
            _ => older(&asked, &sessions),
        };
        async move { answered }
    });
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    serving.set(task.abort_handle()).unwrap();
    let table = format!(
        "[dependencies.s]\nkind = \"mcp_http\"\nurl = \"http://{address}/mcp\"\n\
         retry = {{ max_attempts = 3, backoff = {{ base = \"1ms\", max = \"2ms\" }} }}\n"
    );
    let bed = FrontBed::of(&table).await;
    let params = json!({ "name": "one", "arguments": {} });
    let failed = bed.ask("/s/mcp", "tools/call", params).await;
    assert_eq!(failed["error"]["data"]["executed"], "maybe", "{failed}");
    let told = failed["error"]["message"].as_str().unwrap_or_default();
    assert!(told.contains("its response broke off"), "{failed}");
    assert_eq!(made.load(Ordering::SeqCst), 1);
    bed.end().await;
}

#[tokio::test]
async fn call_6_a_server_that_ends_each_stream_at_once_is_asked_ever_more_seldom() {
    let asked_at = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (own, sessions) = (Arc::clone(&asked_at), Arc::new(AtomicUsize::new(0)));
    let address = serve(move |asked| match asked["method"].as_str() {
        None => {
            own.lock().unwrap().push(tokio::time::Instant::now());
            // Its usual pause is short.
            ([("content-type", "text/event-stream")], "retry: 100\n\n").into_response()
        }
        _ => older(asked, &sessions),
    })
    .await;
    let front = front(address).await;
    let look = async {
        while asked_at.lock().unwrap().len() < 5 {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap();
    let asked_at = asked_at.lock().unwrap().clone();
    let last = asked_at[4] - asked_at[3];
    assert!(last > Duration::from_secs(1), "{last:?}");
    front.end().await;
}
