//! Servers over HTTP: items 73 to 75, against fakes that answer as real servers do, and against two
//! real ones.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use breakerbox::Client;
use breakerbox::mcp::Mcp;
use breakerbox::policy::State as Breaker;
use std::sync::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;

/// The reaction of a fake server to a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Earlier sessions are unknown: 404, as the specification has it.
    Forgot404,
    /// Earlier sessions are unknown: a 400 with an error without a call id, as in the TypeScript
    /// SDK.
    Forgot400,
    /// The same with an id that no call has, as in the Python SDK.
    Forgot400OtherId,
    /// The same in words alone, as in earlier versions of the Python SDK.
    Forgot400Words,
    /// It accepts the call and never answers.
    Accepts,
    /// It answers with the id of another call.
    WrongId,
    /// A 400 with the error of the call.
    Refused,
    /// An error without a call id, with a success status.
    NoId,
    Unavailable,
    Throttled,
    Unauthorised,
    Broken,
    Page,
    Cut,
}

/// A server of the handshake dialect, in the test's process.
#[derive(Clone)]
struct Fake {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    /// Number of sessions begun.
    sessions: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            address: listener.local_addr().unwrap(),
            mood: Arc::new(Mutex::new(Mood::Well)),
            sessions: Arc::default(),
            calls: Arc::default(),
        };
        let app = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        fake
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn settings(&self) -> McpSettings {
        McpSettings::http(format!("http://{}/mcp", self.address))
    }
}

fn message(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, axum::Json(body)).into_response()
}

async fn answer(State(fake): State<Fake>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(asked) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    };
    let id = &asked["id"];
    let result =
        |result: Value| message(200, json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    let no_session = || {
        let error =
            json!({ "code": -32000, "message": "Bad Request: No valid session ID provided" });
        message(400, json!({ "jsonrpc": "2.0", "error": error, "id": null }))
    };
    let mood = *fake.mood.lock().unwrap();
    let session = headers
        .get("mcp-session-id")
        .map(|id| id.to_str().unwrap().to_owned());
    let newest = fake.sessions.load(Ordering::SeqCst).to_string();
    match asked["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let number = fake.sessions.fetch_add(1, Ordering::SeqCst) + 1;
            let begun = json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "fake", "version": "1" } });
            let mut response = result(begun);
            let number = number.to_string().parse().unwrap();
            response.headers_mut().insert("mcp-session-id", number);
            fake.is(Mood::Well);
            response
        }
        _ if session.is_none() => no_session(),
        _ if id.is_null() => StatusCode::ACCEPTED.into_response(),
        "tools/list" => result(json!({ "tools": [{ "name": "echo", "inputSchema": {},
            "annotations": { "readOnlyHint": true } }] })),
        _ => {
            fake.calls.fetch_add(1, Ordering::SeqCst);
            assert!(
                session == Some(newest) || mood != Mood::Well,
                "an old session"
            );
            let error = |error: Value| json!({ "jsonrpc": "2.0", "id": id, "error": error });
            match mood {
                Mood::Well => result(json!({ "content": [{ "type": "text", "text": "well" }] })),
                Mood::Forgot404 => {
                    let error = json!({ "code": -32600, "message": "Session not found" });
                    message(404, json!({ "jsonrpc": "2.0", "id": null, "error": error }))
                }
                Mood::Forgot400 => no_session(),
                Mood::Forgot400OtherId => {
                    let error = json!({ "code": -32600, "message": "Session not found" });
                    message(
                        400,
                        json!({ "jsonrpc": "2.0", "id": "server-error", "error": error }),
                    )
                }
                Mood::Forgot400Words => {
                    (StatusCode::BAD_REQUEST, "No valid session ID provided").into_response()
                }
                Mood::Refused => message(400, error(json!({ "code": -32602, "message": "no" }))),
                Mood::Accepts => StatusCode::ACCEPTED.into_response(),
                Mood::WrongId => {
                    message(200, json!({ "jsonrpc": "2.0", "id": 4711, "result": {} }))
                }
                Mood::NoId => {
                    let error = json!({ "code": -32603, "message": "lost" });
                    message(200, json!({ "jsonrpc": "2.0", "id": null, "error": error }))
                }
                Mood::Unavailable => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    [(header::RETRY_AFTER, "3")],
                    "later",
                )
                    .into_response(),
                Mood::Throttled => (
                    StatusCode::TOO_MANY_REQUESTS,
                    [(header::RETRY_AFTER, "7")],
                    "slower",
                )
                    .into_response(),
                Mood::Unauthorised => StatusCode::UNAUTHORIZED.into_response(),
                Mood::Broken => message(500, error(json!({ "code": -32603, "message": "broken" }))),
                Mood::Page => {
                    ([(header::CONTENT_TYPE, "text/html")], "<h1>hello</h1>").into_response()
                }
                Mood::Cut => {
                    let begun = Bytes::from_static(b"event: message\ndata: {\"jsonrpc\":");
                    let cut = Err(std::io::Error::other("cut"));
                    let pieces = futures_util::stream::iter([Ok(begun), cut]);
                    let media = [(header::CONTENT_TYPE, "text/event-stream")];
                    (media, Body::from_stream(pieces)).into_response()
                }
            }
        }
    }
}

fn quick(policy: &mut DependencySettings) {
    policy.timeout.attempt = Some(Duration::from_millis(300));
}

async fn reach(fake: &Fake) -> Bed {
    Bed::of(fake.settings(), folder(), quick).await
}

#[tokio::test]
async fn mcp_1_a_400_that_does_not_answer_its_call_opens_a_new_session_within_it() {
    let fake = Fake::start().await;
    let bed = reach(&fake).await;
    for mood in [Mood::Forgot400OtherId, Mood::Forgot400Words] {
        let before = fake.sessions.load(Ordering::SeqCst);
        fake.is(mood);
        let answer = bed.call("echo", json!({})).await;
        let answer = answer.unwrap_or_else(|error| panic!("{mood:?}: {error}"));
        assert_eq!(answer.value.content, "well", "{mood:?}");
        assert_eq!(fake.sessions.load(Ordering::SeqCst), before + 1, "{mood:?}");
    }
    // One that answers it is the call's own.
    let before = fake.sessions.load(Ordering::SeqCst);
    fake.is(Mood::Refused);
    let error = bed.call("echo", json!({})).await.unwrap_err();
    assert!(
        matches!(own(&error), McpError::Server { code: -32602, .. }),
        "{error}"
    );
    assert_eq!(fake.sessions.load(Ordering::SeqCst), before);
    bed.runtime.shutdown().await;
}

#[tokio::test]
async fn item_73_a_server_that_was_restarted_is_used_again() {
    let fake = Fake::start().await;
    let bed = reach(&fake).await;
    assert_eq!(
        bed.call("echo", json!({})).await.unwrap().value.content,
        "well"
    );
    // Cases (i) and (ii), the latter with an error without a call id: the call itself recovers.
    for mood in [Mood::Forgot404, Mood::Forgot400] {
        let before = fake.sessions.load(Ordering::SeqCst);
        fake.is(mood);
        let answer = bed.call("echo", json!({})).await;
        let answer = answer.unwrap_or_else(|error| panic!("{mood:?}: {error}"));
        assert_eq!(
            (&*answer.value.content, answer.attempts),
            ("well", 1),
            "{mood:?}"
        );
        assert_eq!(fake.sessions.load(Ordering::SeqCst), before + 1, "{mood:?}");
    }
    // Case (iii): the call times out, and the next one is answered.
    fake.is(Mood::Accepts);
    let began = Instant::now();
    let late = bed.call("echo", json!({})).await.unwrap_err();
    assert!(matches!(late, CallError::TimedOut { .. }), "{late}");
    assert!(began.elapsed() < Duration::from_secs(1));
    fake.is(Mood::Well);
    let answer = bed.call("echo", json!({})).await;
    assert_eq!(answer.unwrap().value.content, "well");
    // A response that answers no call is an answer that cannot be used: its caller hears at once.
    fake.is(Mood::WrongId);
    let error = bed.call("echo", json!({})).await.unwrap_err();
    let told = own(&error);
    assert!(
        matches!(told, McpError::UnusableAnswer { reason } if reason.contains("the id of another call")),
        "{told}"
    );
    // An error without an id is the server's own all the same.
    fake.is(Mood::NoId);
    let error = bed.call("echo", json!({})).await.unwrap_err();
    let told = own(&error);
    assert!(
        matches!(told, McpError::Server { code: -32603, message, .. } if message == "lost"),
        "{told}"
    );
    fake.is(Mood::Well);
    bed.call("echo", json!({})).await.unwrap();
    bed.runtime.shutdown().await;
}

fn own(error: &CallError<McpError>) -> &McpError {
    match error {
        CallError::Failed { error, .. } => error,
        other => panic!("{other}"),
    }
}

/// A predicate for an expected error.
type IsSo<'a> = &'a dyn Fn(&McpError) -> bool;

#[tokio::test]
async fn item_74_each_way_to_fail_is_told_as_what_it_is() {
    let fake = Fake::start().await;
    let bed = reach(&fake).await;
    let three = Some(Duration::from_secs(3));
    let closed = |error: &McpError| matches!(error, McpError::TransportClosed { .. });
    let ways: [(Mood, IsSo<'_>, u64); 5] = [
        (
            Mood::Unavailable,
            &move |error| {
                *error
                    == McpError::Http {
                        status: 503,
                        retry_after: three,
                    }
            },
            1,
        ),
        (
            Mood::Unauthorised,
            &|error| matches!(error, McpError::Auth { .. }),
            0,
        ),
        (
            Mood::Broken,
            &|error| matches!(error, McpError::Server { code: -32603, message, .. } if message == "broken"),
            1,
        ),
        (
            Mood::Page,
            &|error| *error == McpError::UnexpectedContentType(Some("text/html".to_owned())),
            1,
        ),
        (Mood::Cut, &closed, 1),
    ];
    for (mood, is_so, failures) in ways {
        let before = bed.server.client().status().tally.failures;
        fake.is(mood);
        let error = bed.call("echo", json!({})).await.unwrap_err();
        assert!(is_so(own(&error)), "{mood:?}: {error:?}");
        let counted = bed.server.client().status().tally.failures - before;
        assert_eq!(counted, failures, "{mood:?}");
        fake.is(Mood::Well);
        bed.call("echo", json!({})).await.unwrap();
    }
    fake.is(Mood::Throttled);
    bed.call("echo", json!({})).await.unwrap_err();
    let (_, left) = bed.server.client().status().paused.unwrap();
    assert!(left > Duration::from_secs(6), "{left:?}");
    assert_eq!(state(bed.server.client()), Breaker::Closed);
    bed.runtime.shutdown().await;
}

fn state(client: &Client<Mcp>) -> Breaker {
    client.status().state
}

#[tokio::test]
async fn one_that_is_not_there_yet_is_reached_when_it_is() {
    let address = free_address();
    let settings = McpSettings::http(format!("http://{address}/mcp"));
    let bed = Bed::of(settings, folder(), |_| {}).await;
    let error = bed.call("echo", json!({})).await.unwrap_err();
    assert!(matches!(own(&error), McpError::Connect { .. }), "{error}");
    assert_eq!(error.executed(), breakerbox::policy::Executed::No);
    assert_eq!(bed.server.protocol_version(), None);
    let fake = Fake {
        address,
        mood: Arc::new(Mutex::new(Mood::Well)),
        sessions: Arc::default(),
        calls: Arc::default(),
    };
    let app = Router::new().fallback(answer).with_state(fake.clone());
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    bed.call("echo", json!({})).await.unwrap();
    assert_eq!(bed.server.tools().len(), 1);
    assert_eq!(bed.lives(), 1, "its worker never ended");
    bed.runtime.shutdown().await;
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A real server, killed on drop.
struct Real(Child);

impl Real {
    async fn start(mut command: Command, address: SocketAddr) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let real = Self(quiet.stderr(Stdio::null()).spawn().unwrap());
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(MOMENT).await;
            }
        };
        let came = tokio::time::timeout(3 * PATIENCE, listening).await;
        assert!(came.is_ok(), "it does not listen");
        real
    }

    async fn everything(modules: &Path, address: SocketAddr) -> Self {
        let mut command = Command::new("node");
        let program = "@modelcontextprotocol/server-everything/dist/index.js";
        command.arg(modules.join(program)).arg("streamableHttp");
        command.env("PORT", address.port().to_string());
        Self::start(command, address).await
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const FASTMCP: &str = "
import sys
from fastmcp import FastMCP
server = FastMCP('adder')
@server.tool
def add(a: int, b: int) -> int:
    return a + b
server.run(transport='http', host='127.0.0.1', port=int(sys.argv[1]), show_banner=False)
";

#[tokio::test]
async fn item_75_servers_of_both_dialects_are_used_side_by_side() {
    let (Some(modules), Some(python)) = (install::node_modules(), install::python()) else {
        return;
    };
    let (old, new) = (free_address(), free_address());
    let everything = Real::everything(&modules, old).await;
    let mut command = Command::new(python);
    command.args(["-c", FASTMCP, &new.port().to_string()]);
    let _adder = Real::start(command, new).await;
    let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
    let at = |address| McpSettings::http(format!("http://{address}/mcp"));
    let old_one = mcp::start(&runtime, "everything", &at(old)).await.unwrap();
    let new_one = mcp::start(&runtime, "adder", &at(new)).await.unwrap();
    assert_eq!(old_one.protocol_version().as_deref(), Some("2025-11-25"));
    assert_eq!(new_one.protocol_version().as_deref(), Some("2026-07-28"));
    let echo = object(json!({ "message": "hello" }));
    let said = old_one.call("echo", echo.clone()).await.unwrap().value;
    assert!(said.content.contains("hello"), "{}", said.content);
    let sum = object(json!({ "a": 2, "b": 3 }));
    let sum = new_one.call("add", sum).await.unwrap().value;
    assert_eq!(sum.content, "5");
    // The real server rejects forgotten sessions with a 400 and an error without a call id.
    drop(everything);
    let _everything = Real::everything(&modules, old).await;
    let said = old_one.call("echo", echo).await.unwrap().value;
    assert!(said.content.contains("hello"), "{}", said.content);
    runtime.shutdown().await;
}
