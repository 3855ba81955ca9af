//! The memory for messages (`gateway.max_buffered`), as callers see it when it is used up.

use serde_json::{Value, json};

use super::fake_server::{FakeServer, FrontBed};

#[tokio::test]
async fn mcp_3_a_lack_of_memory_is_no_fault_of_the_message() {
    let fake = FakeServer::start("first", &["read"]).await;
    let text = format!(
        "[gateway]\nmax_buffered = \"1MB\"\n{}\
         [dependencies.all]\nkind = \"mcp_group\"\nmembers = [\"one\"]\n",
        fake.table("one", "")
    );
    let bed = FrontBed::of(&text).await;
    for (path, tool) in [("/one/mcp", "read"), ("/all/mcp", "one_read")] {
        let large = json!({ "name": tool, "arguments": { "a": "x".repeat(1_000_000) } });
        let (status, headers, text) = bed.send(path, "tools/call", large, &[]).await;
        assert_eq!(
            (status, &headers["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        let told: Value = serde_json::from_str(&text).unwrap();
        let (error, data) = (&told["error"], &told["error"]["data"]);
        assert_eq!(error["code"], -31050, "{told}");
        assert_eq!(data["cause"], "gateway.max_buffered", "{told}");
        assert_eq!(
            (&data["type"], &data["executed"]),
            (&json!("urn:breakerbox:overloaded"), &json!("no"))
        );
        assert_eq!(data["retry_after_ms"], 1000, "{told}");
        let passed = bed.call(path, tool).await;
        assert_eq!(
            passed.unwrap(),
            "first read {\"a\":1}",
            "a small one has room"
        );
    }
    assert_eq!(fake.called(), ["read", "read"]);
    assert_eq!(bed.gateway.buffered().used, 0);
    bed.end().await;
}
