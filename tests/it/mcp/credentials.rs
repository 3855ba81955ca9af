//! Credentials of callers that pass to a server which refuses them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use breakerbox::Health;
use tokio::net::TcpListener;

use super::fake_server::{FakeServer, FrontBed};
use super::web_servers::older;
use super::*;
use crate::gateway::serve::http;

const CHALLENGE: &str = "Bearer resource_metadata=\"https://keys.example/meta\"";

/// A gateway in front of a server that wants a token. `more`: further lines of its table.
async fn guarded(more: &str) -> FrontBed {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sessions = Arc::new(AtomicUsize::new(0));
    let app = Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_right = headers
            .get("authorization")
            .is_some_and(|one| one == "Bearer right");
        let answered = match is_right {
            true => older(&asked, &sessions),
            false => {
                let challenge = [("www-authenticate", CHALLENGE)];
                (StatusCode::UNAUTHORIZED, challenge, "no").into_response()
            }
        };
        async move { answered }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let table =
        format!("[dependencies.s]\nkind = \"mcp_http\"\nurl = \"http://{address}/mcp\"\n{more}\n");
    FrontBed::of(&table).await
}

#[tokio::test]
async fn edge_1_a_refused_credential_is_answered_to_the_caller_that_brought_it() {
    let bed = guarded("forward_headers = [\"authorization\"]").await;
    let call = json!({ "name": "one", "arguments": {} });
    for (method, params) in [("tools/call", &call), ("prompts/get", &call)] {
        for sent in [Some("Bearer wrong"), None] {
            let sent: Vec<_> = sent.iter().map(|one| ("authorization", *one)).collect();
            let (status, headers, text) = bed.send("/s/mcp", method, params.clone(), &sent).await;
            assert_eq!(status, 401, "{method}: {text}");
            assert_eq!(headers["www-authenticate"], CHALLENGE);
            let told: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(told["error"]["data"]["executed"], "no", "{told}");
        }
    }
    let status = bed.status("s");
    assert_eq!(status.health, Health::Ok);
    assert_eq!(status.tally.failures, 0);
    let right = [("authorization", "Bearer right")];
    let (status, _, text) = bed.send("/s/mcp", "tools/call", call, &right).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("well"), "{text}");
    bed.end().await;
}

#[tokio::test]
async fn edge_1_a_refused_credential_of_our_own_is_a_mistake_of_the_configuration() {
    let own = "headers = { authorization = \"Bearer wrong\" }";
    for more in [
        own.to_owned(),
        format!("{own}\nforward_headers = [\"x-tenant\"]"),
    ] {
        let bed = guarded(&more).await;
        let call = json!({ "name": "one", "arguments": {} });
        let sent = [("x-tenant", "a")];
        let (status, headers, text) = bed.send("/s/mcp", "tools/call", call, &sent).await;
        assert_eq!(status, 200, "{text}");
        assert!(!headers.contains_key("www-authenticate"));
        let health = bed.status("s").health;
        assert_ne!(health, Health::Ok);
        bed.end().await;
    }
}

#[tokio::test]
async fn mcp_6_a_notification_takes_the_connection_of_its_callers_headers() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let more = "sessions = \"per_caller\"\nforward_headers = [\"authorization\"]";
    let table = format!(
        "{}[dependencies.g]\nkind = \"mcp_group\"\nmembers = {{ a = \"kg\" }}\n",
        fake.table("kg", more)
    );
    let bed = FrontBed::of(&table).await;
    for (path, tool) in [("/kg/mcp", "read"), ("/g/mcp", "a_read")] {
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": { "roots": {} } });
        let (_, headers, text) = bed.send(path, "initialize", hello, &[]).await;
        let session = headers
            .get("mcp-session-id")
            .unwrap_or_else(|| panic!("{text}"));
        let own = [
            ("authorization", "Bearer of-the-caller"),
            ("mcp-session-id", session.to_str().unwrap()),
        ];
        let call = json!({ "name": tool, "arguments": {} });
        let (status, _, text) = bed.send(path, "tools/call", call, &own).await;
        assert_eq!(status, 200, "{text}");
        let (called, _) = fake.seen("tools/call").pop().unwrap();
        let method = "notifications/roots/list_changed";
        let told = json!({ "jsonrpc": "2.0", "method": method });
        let mut telling = http().post(bed.url(path)).json(&told);
        telling = telling.header("accept", "application/json, text/event-stream");
        for (name, value) in own {
            telling = telling.header(name, value);
        }
        assert_eq!(telling.send().await.unwrap().status(), 202, "{path}");
        let (told, _) = fake.seen(method).pop().unwrap_or_else(|| panic!("{path}"));
        for name in ["authorization", "mcp-session-id"] {
            assert_eq!(told[name], called[name], "{path}");
        }
    }
    bed.end().await;
}
