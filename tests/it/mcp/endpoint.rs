//! Who may speak at `/{dependency}/mcp`, and what is said to a malformed request.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::front_bed::{Front, messages};
use super::*;
use crate::gateway::serve::http;

#[tokio::test]
async fn mcp_5_m12_a_malformed_message_gets_an_error_of_the_protocol() {
    let Some(front) = Front::open("older", "max_line = \"100KB\"\n").await else {
        return;
    };
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(200_000));
    let deep = format!("{}{}", "[".repeat(40_000), "]".repeat(40_000));
    let twice =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#;
    for (body, status, code, id) in [
        ("{", 400, -32700, json!(null)),
        ("", 400, -32700, json!(null)),
        ("nonsense", 400, -32700, json!(null)),
        (
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            400,
            -32600,
            json!(null),
        ),
        (
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            400,
            -32600,
            json!(null),
        ),
        (
            r#"{"jsonrpc":"2.0","id":[],"method":"ping"}"#,
            400,
            -32600,
            json!(null),
        ),
        (
            r#"{"jsonrpc":"1.0","id":"a","method":"ping"}"#,
            400,
            -32600,
            json!("a"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":7}"#,
            400,
            -32600,
            json!(5),
        ),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":"ping","params":[]}"#,
            400,
            -32600,
            json!(5),
        ),
        (twice, 400, -32602, json!(1)),
        (&deep, 400, -32600, json!(null)),
        (&long, 413, -32600, json!(null)),
    ] {
        let shown = &body[..body.len().min(60)];
        let response = front.post(body.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), status, "{shown}");
        let answer = messages(response).await.remove(0);
        assert_eq!(answer["error"]["code"], code, "{shown}: {answer}");
        assert_eq!(answer["id"], id, "{shown}");
    }
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (header, value, status) in [
        ("accept", "text/html", 406),
        ("content-type", "text/plain", 415),
        ("breakerbox-deadline-ms", "soon", 400),
        ("breakerbox-key", "", 400),
        ("mcp-protocol-version", "1999-01-01", 400),
        ("mcp-session-id", "unknown", 404),
    ] {
        let asked = http().post(front.url()).body(ping);
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert(header, value.parse().unwrap());
        let response = asked.headers(headers).send().await.unwrap();
        assert_eq!(response.status(), status, "{header}: {value}");
        let answer = messages(response).await.remove(0);
        assert!(answer["error"]["code"].is_i64(), "{header}: {answer}");
    }
    let slashed = http().post(format!("{}/", front.url())).body(ping);
    let slashed = slashed.header("content-type", "application/json");
    assert_eq!(slashed.send().await.unwrap().status(), 200);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_m12_pages_that_are_not_listed_are_refused_and_others_get_their_answers() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for origin in ["http://evil.example", "null"] {
        let response = front
            .post(ping)
            .header("origin", origin)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 403, "{origin}");
        assert_eq!(messages(response).await[0]["error"]["code"], -32600);
    }
    let foreign = front.post(ping).header("host", "evil.example");
    assert_eq!(foreign.send().await.unwrap().status(), 403);
    let page = "http://page.example";
    let preflight = http().request(reqwest::Method::OPTIONS, front.url());
    let preflight = preflight.header("origin", page);
    let preflight = preflight.header("access-control-request-method", "POST");
    let preflight = preflight.send().await.unwrap();
    assert_eq!(preflight.status(), 204);
    let allowed = preflight.headers()["access-control-allow-headers"]
        .to_str()
        .unwrap();
    assert!(allowed.contains("mcp-session-id") && allowed.contains("breakerbox-key"));
    assert_eq!(preflight.headers()["access-control-allow-origin"], page);
    let response = front
        .post(ping)
        .header("origin", page)
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], page);
    assert_eq!(response.status(), 200);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_m12_capabilities_and_sessions_are_what_they_are_said_to_be() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {} });
    let begun = front.caller().send("initialize", params).await;
    let session = begun.headers()["mcp-session-id"].clone();
    let result = messages(begun).await.remove(0)["result"].clone();
    assert_eq!(result["protocolVersion"], "2025-06-18");
    assert_eq!(result["serverInfo"]["name"], "tested");
    assert_eq!(result["instructions"], "with care");
    let told = result["capabilities"].as_object().unwrap();
    assert_eq!(told["resources"]["subscribe"], true);
    assert!(told.contains_key("completions") && !told.contains_key("prompts"));
    let found = front
        .newer(json!({}))
        .ask("server/discover", json!({}))
        .await;
    let found = &found["result"];
    assert_eq!(found["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(found["capabilities"], result["capabilities"]);
    let info = &found["_meta"]["io.modelcontextprotocol/serverInfo"];
    assert_eq!(info["name"], "tested");
    let ended = http()
        .delete(front.url())
        .header("mcp-session-id", &session);
    assert_eq!(ended.send().await.unwrap().status(), 204);
    let after = front.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let after = after
        .header("mcp-session-id", session)
        .send()
        .await
        .unwrap();
    assert_eq!(after.status(), 404);
    let listed = front.caller().ask("tools/list", json!({})).await;
    assert_eq!(
        listed["result"]["tools"].as_array().unwrap().len(),
        13,
        "{listed}"
    );
    front.end().await;
}

#[tokio::test]
async fn mcp_2_m13_half_a_body_is_not_waited_for() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let address = front.gateway.address();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /s/mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: 1000\r\n\r\n{{"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut said = [0; 12];
    let read = tokio::time::timeout(PATIENCE, socket.read_exact(&mut said)).await;
    read.unwrap().unwrap();
    assert_eq!(&said, b"HTTP/1.1 408");
    front.end().await;
}
