//! The memory for messages (`gateway.max_buffered`), as callers see it when it is used up.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::PATIENCE;
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
    // A message that is being read takes most of it.
    let mut slow = TcpStream::connect(bed.gateway.address()).await.unwrap();
    let head = "POST /one/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 900000\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&vec![b' '; 600_000]).await.unwrap();
    let taken = async {
        while bed.gateway.buffered().used < 600_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.unwrap();
    for (path, tool) in [("/one/mcp", "read"), ("/all/mcp", "one_read")] {
        let large = json!({ "name": tool, "arguments": { "a": "x".repeat(700_000) } });
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
    // Without the other one there is room.
    drop(slow);
    let free = async {
        while bed.gateway.buffered().used > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
    bed.end().await;
}

#[tokio::test]
async fn mcp_3_a_message_that_never_finds_room_is_too_large() {
    let fake = FakeServer::start("first", &["read"]).await;
    let text = format!(
        "[gateway]\nmax_buffered = \"1MB\"\n{}",
        fake.table("one", "")
    );
    let bed = FrontBed::of(&text).await;
    let large = json!({ "name": "read", "arguments": { "a": "x".repeat(1_100_000) } });
    let (status, headers, text) = bed.send("/one/mcp", "tools/call", large, &[]).await;
    assert_eq!(status, 413, "{text}");
    assert!(
        !headers.contains_key("retry-after"),
        "it would be refused again"
    );
    assert!(text.contains("gateway.max_buffered"), "{text}");
    bed.end().await;
}
