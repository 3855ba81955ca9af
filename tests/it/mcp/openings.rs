//! Connections to servers over HTTP that take long to be opened, and those that are opened in vain.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::fake_server::FrontBed;
use super::web_servers::older;
use super::*;

/// A server of the older dialect that does as it is told.
#[derive(Clone)]
struct ToldServer {
    address: SocketAddr,
    is_up: Arc<AtomicBool>,
    lists: Arc<AtomicBool>,
    /// One permit for each answer to `initialize`.
    gate: Arc<Semaphore>,
    /// One permit for each answer to a call of the tenant `held`.
    held: Arc<Semaphore>,
    /// Number of requests to begin a session, and of sessions.
    asked: Arc<AtomicUsize>,
    sessions: Arc<AtomicUsize>,
    /// The sessions that were ended.
    ended: Arc<Mutex<Vec<String>>>,
}

impl ToldServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            is_up: Arc::default(),
            lists: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            held: Arc::new(Semaphore::new(0)),
            asked: Arc::default(),
            sessions: Arc::default(),
            ended: Arc::default(),
        };
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        server
    }

    fn table(&self) -> String {
        let address = self.address;
        format!("[dependencies.s]\nkind = \"mcp_http\"\nurl = \"http://{address}/mcp\"\n")
    }

    async fn until_ended(&self, session: &str) {
        let look = async {
            while !self.ended.lock().unwrap().iter().any(|one| one == session) {
                tokio::time::sleep(MOMENT).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, look).await;
        assert!(seen.is_ok(), "{session}: {:?}", self.ended.lock().unwrap());
    }
}

async fn answer(
    State(server): State<ToldServer>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if method == Method::DELETE {
        let session = headers["mcp-session-id"].to_str().unwrap().to_owned();
        server.ended.lock().unwrap().push(session);
        return StatusCode::NO_CONTENT.into_response();
    }
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let method = asked["method"].as_str().unwrap_or_default();
    if !server.is_up.load(Ordering::SeqCst)
        || method == "tools/list" && !server.lists.load(Ordering::SeqCst)
    {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if method == "initialize" {
        server.asked.fetch_add(1, Ordering::SeqCst);
        server.gate.acquire().await.unwrap().forget();
    }
    let is_held = headers.get("x-tenant").is_some_and(|own| own == "held");
    if method == "tools/call" && is_held {
        server.asked.fetch_add(1, Ordering::SeqCst);
        server.held.acquire().await.unwrap().forget();
    }
    older(&asked, &server.sessions)
}

#[tokio::test]
async fn mcp_1_callers_in_a_hurry_do_not_keep_a_slow_server_out_of_reach() {
    let server = ToldServer::start().await;
    let bed = FrontBed::of(&server.table()).await;
    server.is_up.store(true, Ordering::SeqCst);
    server.lists.store(true, Ordering::SeqCst);
    let params = json!({ "name": "one", "arguments": {} });
    for method in ["tools/call", "tools/call", "prompts/get"] {
        let hurry = [("breakerbox-deadline-ms", "100")];
        let (_, _, text) = bed.send("/s/mcp", method, params.clone(), &hurry).await;
        let failed: Value = serde_json::from_str(&text).unwrap();
        // CALL-2: nothing was sent so far.
        assert_eq!(failed["error"]["data"]["executed"], "no", "{failed}");
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    server.gate.add_permits(1);
    assert_eq!(bed.call("/s/mcp", "one").await.as_deref(), Ok("well"));
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    bed.end().await;
}

#[tokio::test]
async fn mcp_5_a_session_at_a_server_that_was_begun_in_vain_is_ended() {
    let server = ToldServer::start().await;
    server.is_up.store(true, Ordering::SeqCst);
    server.gate.add_permits(2);
    let bed = FrontBed::of(&server.table()).await;
    server.until_ended("1").await;
    server.lists.store(true, Ordering::SeqCst);
    assert_eq!(bed.call("/s/mcp", "one").await.as_deref(), Ok("well"));
    assert_eq!(*server.ended.lock().unwrap(), ["1"]);
    bed.end().await;
    assert_eq!(*server.ended.lock().unwrap(), ["1", "2"]);
}

#[tokio::test]
async fn mcp_6_a_connection_that_gives_way_to_those_of_others_ends_after_its_calls() {
    let server = ToldServer::start().await;
    server.is_up.store(true, Ordering::SeqCst);
    server.lists.store(true, Ordering::SeqCst);
    server.gate.add_permits(100);
    let bed = FrontBed::of(&(server.table() + "forward_headers = [\"x-tenant\"]\n")).await;
    let call = async |tenant: &str| {
        let params = json!({ "name": "one", "arguments": {} });
        let sent = [("x-tenant", tenant)];
        let (_, _, text) = bed.send("/s/mcp", "tools/call", params, &sent).await;
        assert!(text.contains("well"), "{tenant}: {text}");
    };
    let others = async {
        // The first one is for all callers without such a header.
        let all_asked = async {
            while server.asked.load(Ordering::SeqCst) < 3 {
                tokio::time::sleep(MOMENT).await;
            }
        };
        tokio::time::timeout(PATIENCE, all_asked).await.unwrap();
        for number in 0..70 {
            call(&number.to_string()).await;
        }
        let ended = server.ended.lock().unwrap().clone();
        assert!(!ended.contains(&"2".to_owned()), "its call is in flight");
        server.held.add_permits(1);
    };
    tokio::join!(call("held"), others);
    server.until_ended("2").await;
    bed.end().await;
}

#[tokio::test]
async fn mcp_3_a_server_that_redirects_to_its_path_with_a_slash_serves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sessions = Arc::new(AtomicUsize::new(0));
    let app = Router::new().fallback(move |uri: Uri, body: Bytes| {
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let answered = match uri.path() {
            "/mcp/" => older(&asked, &sessions),
            _ => {
                let place = [("location", format!("http://{address}/mcp/"))];
                (StatusCode::TEMPORARY_REDIRECT, place).into_response()
            }
        };
        async move { answered }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let table = format!("[dependencies.s]\nkind = \"mcp_http\"\nurl = \"http://{address}/mcp\"\n");
    let bed = FrontBed::of(&table).await;
    assert_eq!(bed.call("/s/mcp", "one").await.as_deref(), Ok("well"));
    bed.end().await;
}
