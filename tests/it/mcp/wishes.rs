//! The levels of log messages and the subscriptions of several callers at one server.

use super::front_bed::{Front, FrontCaller, said};
use super::*;

fn leveled(level: Option<&str>) -> Value {
    let mut params = json!({ "name": "leveled", "arguments": {} });
    if let Some(level) = level {
        params["_meta"] = json!({ "io.modelcontextprotocol/logLevel": level });
    }
    params
}

/// The levels of the messages that a caller gets with its answer.
async fn heard(caller: &FrontCaller<'_>, level: Option<&str>) -> Vec<String> {
    let all = caller.all("tools/call", leveled(level)).await;
    let levels = all.iter().filter_map(|one| one["params"]["level"].as_str());
    levels.map(str::to_owned).collect()
}

async fn set_level(session: &FrontCaller<'_>, level: &str) {
    let set = session.ask("logging/setLevel", json!({ "level": level }));
    assert_eq!(set.await["result"], json!({}));
}

#[tokio::test]
async fn mcp_5_a9_the_level_of_a_newer_caller_takes_effect_at_an_older_server() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let newer = front.newer(json!({}));
    assert_eq!(
        heard(&newer, None).await,
        [""; 0],
        "it asks for no messages"
    );
    let severe = ["critical", "alert", "emergency"];
    // The server is told before the call is sent.
    assert_eq!(heard(&newer, Some("critical")).await, severe);
    let all = heard(&newer, Some("debug")).await;
    assert_eq!(all.len(), 8, "{all:?}");
    // A caller that wants less gets less, whatever the server says.
    let session = front.session(json!({})).await;
    set_level(&session, "alert").await;
    assert_eq!(heard(&session, None).await, ["alert", "emergency"]);
    assert_eq!(heard(&newer, Some("critical")).await, severe);
    assert_eq!(heard(&newer, Some("error")).await.len(), 4);
    // When the call is over, the level is that of the sessions again.
    assert_eq!(heard(&session, None).await, ["alert", "emergency"]);
    let is_back = async {
        while front
            .notes()
            .iter()
            .rfind(|line| line.starts_with("level "))
            .unwrap()
            != "level alert"
        {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_back).await.unwrap();
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a9_the_level_of_a_session_holds_for_its_next_call_at_either_server() {
    for dialect in ["older", "newer"] {
        let Some(front) = Front::open(dialect, "").await else {
            return;
        };
        let session = front.session(json!({})).await;
        for (level, number) in [("warning", 5), ("debug", 8), ("alert", 2)] {
            set_level(&session, level).await;
            let heard = heard(&session, None).await;
            assert_eq!(heard.len(), number, "{dialect} {level}: {heard:?}");
        }
        front.end().await;
    }
}

fn count(front: &Front, line: &str) -> usize {
    front.notes().iter().filter(|noted| *noted == line).count()
}

#[tokio::test]
async fn mcp_5_a22_a_resource_is_subscribed_once_and_one_unsubscription_ends_it() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let uri = json!({ "uri": "x://1" });
    let (one, other) = (
        front.session(json!({})).await,
        front.session(json!({})).await,
    );
    let ask = async |caller: &FrontCaller<'_>, method: &str| {
        let answer = caller.ask(method, uri.clone()).await;
        assert_eq!(answer["result"], json!({}), "{answer}");
    };
    ask(&one, "resources/subscribe").await;
    ask(&one, "resources/subscribe").await;
    ask(&other, "resources/subscribe").await;
    // What is asked later comes later.
    one.call("echo", json!({})).await;
    let subscribed = "resources/subscribe x://1";
    assert_eq!(count(&front, subscribed), 1, "{:?}", front.notes());
    ask(&other, "resources/unsubscribe").await;
    one.call("echo", json!({})).await;
    let unsubscribed = "resources/unsubscribe x://1";
    assert_eq!(count(&front, unsubscribed), 0, "the first caller wants it");
    ask(&one, "resources/unsubscribe").await;
    front.until_noted(unsubscribed).await;
    // It begins anew.
    ask(&one, "resources/subscribe").await;
    one.call("echo", json!({})).await;
    assert_eq!(
        (count(&front, subscribed), count(&front, unsubscribed)),
        (2, 1)
    );
    let answer = one.call("echo", json!({ "text": "well" })).await;
    assert_eq!(said(&answer), "well");
    front.end().await;
}
