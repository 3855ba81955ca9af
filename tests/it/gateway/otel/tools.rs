//! Spans of requests to MCP endpoints.

use axum::Json;
use axum::http::StatusCode;
use serde_json::json;

use super::*;

/// A server of the dialect with a handshake, with one tool.
async fn server() -> Upstream {
    Upstream::of(async |request: Request| {
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
        let asked: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap_or_default();
        let id = &asked["id"];
        if id.is_null() {
            return StatusCode::ACCEPTED.into_response();
        }
        let result = match asked["method"].as_str().unwrap_or_default() {
            "initialize" => json!({ "protocolVersion": "2025-11-25",
                "capabilities": { "tools": {} }, "serverInfo": { "name": "a", "version": "1" } }),
            "tools/list" => json!({ "tools": [{ "name": "read", "inputSchema": {} }] }),
            "tools/call" => json!({ "content": [] }),
            _ => {
                let error = json!({ "code": -32601, "message": "unknown method" });
                return Json(json!({ "jsonrpc": "2.0", "id": id, "error": error })).into_response();
            }
        };
        Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response()
    })
    .await
}

#[tokio::test]
async fn mcp_6_m12_a_span_names_the_method_and_the_tool() {
    let (upstream, collector) = (server().await, Collector::start().await);
    let folder = folder();
    let otel = format!("endpoint = \"http://{}/\"", collector.address);
    let url = upstream.url();
    let table = format!(
        "[dependencies.kg]\nkind = \"mcp_http\"\nurl = \"{url}/mcp\"\n\
         tools = {{ read = {{ rename = \"look\" }} }}\n"
    );
    let sidecar = sidecar(&folder, &otel, &table);
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "look", "arguments": {} } });
    let asked = http().post(sidecar.url("/kg/mcp")).json(&call);
    let asked = asked.header("accept", "application/json, text/event-stream");
    let asked = asked.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let answered = asked.send().await.unwrap();
    assert_eq!(answered.status(), 200);
    answered.text().await.unwrap();
    let spans = collector.trace(TRACE, 1).await;
    assert_eq!(spans[0].name, "POST /kg/mcp");
    let keys = [
        "breakerbox.dependency",
        "http.route",
        "mcp.method.name",
        "gen_ai.operation.name",
        "gen_ai.tool.name",
    ];
    let found = words(&spans[0], keys);
    assert_eq!(
        found,
        ["kg", "/kg/mcp", "tools/call", "execute_tool", "look"]
    );
}
