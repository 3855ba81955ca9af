//! Pages of other sites at MCP endpoints.

use serde_json::json;

use super::fake_server::{FakeServer, FrontBed};
use crate::gateway::serve::http;

const KG: &str = "/kg/mcp";
const PAGE: &str = "https://app.example";

async fn bed(fake: &FakeServer, more: &str) -> FrontBed {
    let text = format!(
        "[gateway]\norigins = [\"{PAGE}\"]\n{}",
        fake.table("kg", more)
    );
    FrontBed::of(&text).await
}

#[tokio::test]
async fn mcp_6_m12_preflights_of_listed_pages_are_answered() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let bed = bed(&fake, "auth = { tokens = [\"0123456789abcdef\"] }").await;
    let ask = |origin: &str| {
        let asked = http().request(reqwest::Method::OPTIONS, bed.url(KG));
        let asked = asked.header("origin", origin);
        let asked = asked.header("access-control-request-method", "POST");
        let headers = "content-type,authorization,mcp-param-region,x-strange";
        asked.header("access-control-request-headers", headers)
    };
    let answered = ask(PAGE).send().await.unwrap();
    assert_eq!(answered.status(), 204);
    let headers = answered.headers();
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    let allowed = headers["access-control-allow-headers"].to_str().unwrap();
    for name in [
        "mcp-protocol-version",
        "mcp-session-id",
        "mcp-method",
        "mcp-name",
        "authorization",
        "content-type",
        "last-event-id",
        "mcp-param-region",
    ] {
        assert!(
            allowed.split(", ").any(|one| one == name),
            "{name}: {allowed}"
        );
    }
    assert!(!allowed.contains("x-strange"), "{allowed}");
    let methods = headers["access-control-allow-methods"].to_str().unwrap();
    assert!(methods.contains("POST") && methods.contains("DELETE"));
    assert_eq!(headers["vary"], "origin");
    for origin in ["http://evil.example", "null"] {
        let refused = ask(origin).send().await.unwrap();
        assert_eq!(refused.status(), 403, "{origin}");
        assert!(
            !refused
                .headers()
                .contains_key("access-control-allow-origin")
        );
    }
    assert!(fake.called().is_empty());
    bed.end().await;
}

#[tokio::test]
async fn mcp_6_m12_listed_pages_read_answers_and_refusals() {
    let fake = FakeServer::start("fake", &["read"]).await;
    let token = "0123456789abcdef";
    let bed = bed(&fake, &format!("auth = {{ tokens = [\"{token}\"] }}")).await;
    let bearer = format!("Bearer {token}");
    for (status, more) in [(200, Some(("authorization", bearer.as_str()))), (401, None)] {
        let mut sent = vec![("origin", PAGE)];
        sent.extend(more);
        let (got, headers, text) = bed.send(KG, "tools/list", json!({}), &sent).await;
        assert_eq!(got, status, "{text}");
        assert_eq!(headers["access-control-allow-origin"], PAGE);
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("mcp-session-id"), "{exposed}");
    }
    let evil = [
        ("origin", "http://evil.example"),
        ("authorization", &bearer),
    ];
    let (status, headers, _) = bed.send(KG, "tools/list", json!({}), &evil).await;
    assert_eq!(status, 403);
    assert!(!headers.contains_key("access-control-allow-origin"));
    // Without an origin nothing is added.
    let plain = [("authorization", bearer.as_str())];
    let (_, headers, _) = bed.send(KG, "tools/list", json!({}), &plain).await;
    assert!(!headers.contains_key("access-control-allow-origin"));
    bed.end().await;
}
