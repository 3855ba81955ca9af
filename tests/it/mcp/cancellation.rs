//! A server is told of a call that its caller does not wait for.

use super::front_bed::{Front, said};
use super::*;

const SLOW: &str = "[dependencies.s.timeout]\nattempt = \"60s\"\ntotal = \"60s\"\n\
                    [dependencies.s.bulkhead]\nmax_concurrent = 1\n";

fn slow() -> Value {
    json!({ "name": "slow", "arguments": { "seconds": 30 } })
}

async fn is_free(front: &Front) {
    assert_eq!(
        said(&front.caller().call("echo", json!({ "text": "next" })).await),
        "next"
    );
    let status = front.server().client().status();
    assert_eq!((status.in_flight, status.tally.failures), (0, 0));
}

#[tokio::test]
async fn mcp_5_m8_a_caller_that_leaves_frees_the_server_and_its_place() {
    let Some(front) = Front::open("older", SLOW).await else {
        return;
    };
    for caller in [front.newer(json!({})), front.caller()] {
        let before = front.notes().len();
        let calling = caller.request("tools/call", slow()).send();
        let begun = async {
            while !front.notes()[before..].contains(&"tools/call".to_owned()) {
                tokio::time::sleep(MOMENT).await;
            }
        };
        tokio::select! {
            answered = calling => panic!("{answered:?}"),
            begun = tokio::time::timeout(PATIENCE, begun) => begun.unwrap(),
        }
        let told = async {
            while !front.notes()[before..].contains(&"stopped".to_owned()) {
                tokio::time::sleep(MOMENT).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap();
        is_free(&front).await;
    }
    front.end().await;
}

#[tokio::test]
async fn mcp_5_m8_a_session_cancels_its_own_calls_by_their_ids() {
    let Some(front) = Front::open("older", SLOW).await else {
        return;
    };
    let (session, other) = (
        front.session(json!({})).await,
        front.session(json!({})).await,
    );
    let calling = session.all("tools/call", slow());
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": "own" } });
    let cancelling = async {
        front.until_noted("tools/call").await;
        // A call of another session with the same id goes on.
        assert_eq!(other.tell(cancel.clone()).await, 202);
        assert_eq!(front.server().client().status().in_flight, 1);
        assert_eq!(session.tell(cancel.clone()).await, 202);
    };
    let (answered, ()) = tokio::join!(calling, cancelling);
    // A22: a request that was cancelled has no answer, not even an error.
    assert_eq!(answered, <[Value; 0]>::default());
    front.until_noted("stopped").await;
    is_free(&front).await;
    front.end().await;
}

#[tokio::test]
async fn edge_8_m9_a_caller_that_takes_json_alone_hears_of_its_cancellation() {
    let Some(front) = Front::open("older", SLOW).await else {
        return;
    };
    let mut session = front.session(json!({})).await;
    let accepted = "application/json".parse().unwrap();
    session.headers.insert("accept", accepted);
    let calling = session.ask("tools/call", slow());
    let cancelling = async {
        front.until_noted("tools/call").await;
        let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": { "requestId": "own" } });
        assert_eq!(session.tell(cancel).await, 202);
    };
    let (answered, ()) = tokio::join!(calling, cancelling);
    let error = &answered["error"];
    assert_eq!(error["code"], -31050, "{answered}");
    let data = &error["data"];
    assert_eq!(data["type"], "urn:breakerbox:cancelled", "{answered}");
    assert_eq!(data["executed"], "maybe", "{answered}");
    assert_eq!(data["state"], "closed", "{answered}");
    front.until_noted("stopped").await;
    is_free(&front).await;
    front.end().await;
}
