//! The stream of a session that breaks off, and goes on after the last event that the caller got.

use super::front_bed::{Front, FrontCaller, messages};
use super::*;

/// An event of a session's own stream: its id and its message.
type ReadEvent = (Option<u64>, Value);

/// A stream that is read event by event.
struct EventReader {
    response: reqwest::Response,
    read: String,
}

impl EventReader {
    async fn open(caller: &FrontCaller<'_>, after: Option<&str>) -> Self {
        let response = caller.listen(after).await;
        assert_eq!(response.status(), 200);
        Self {
            response,
            read: String::new(),
        }
    }

    async fn next(&mut self) -> ReadEvent {
        let (id, message) = self.read_event().await;
        (id.map(|id| id.parse().unwrap()), message)
    }

    async fn next_named(&mut self) -> (String, Value) {
        let (id, message) = self.read_event().await;
        (id.unwrap(), message)
    }

    /// The ids of the next events.
    async fn named(&mut self, number: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..number {
            ids.push(self.next_named().await.0);
        }
        ids
    }

    async fn read_event(&mut self) -> (Option<String>, Value) {
        // Comments keep the stream alive, and are no events.
        let read = tokio::time::timeout(PATIENCE, self.read_on()).await;
        read.expect("an event")
    }

    async fn read_on(&mut self) -> (Option<String>, Value) {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name))?;
                    Some(line.trim().to_owned())
                };
                let (id, data) = (field("id:"), field("data:"));
                self.read = rest.to_owned();
                let Some(data) = data else { continue };
                let data = match data.as_str() {
                    "" => Value::Null,
                    data => serde_json::from_str(data).unwrap(),
                };
                return (id, data);
            }
            let piece = self.response.chunk().await;
            let piece = piece.unwrap().expect("more of the stream");
            self.read.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn take(&mut self, number: usize) -> Vec<ReadEvent> {
        let mut events = Vec::new();
        for _ in 0..number {
            events.push(self.next().await);
        }
        events
    }
}

const CHANGED: &str = "notifications/tools/list_changed";

/// Lets the server announce a change so many times.
async fn touch(front: &Front, times: u64) {
    let arguments = json!({ "uri": "file:///x", "times": times });
    let params = json!({ "name": "touch", "arguments": arguments });
    front
        .caller()
        .send("tools/call", params)
        .await
        .text()
        .await
        .unwrap();
}

#[tokio::test]
async fn mcp_5_a_stream_goes_on_after_the_last_event() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let mut stream = EventReader::open(&session, None).await;
    assert_eq!(
        stream.next().await,
        (Some(0), Value::Null),
        "an id to come back with"
    );
    touch(&front, 1).await;
    let (id, first) = stream.next().await;
    assert_eq!((id, &first["method"]), (Some(1), &json!(CHANGED)));
    drop(stream);
    touch(&front, 2).await;
    let mut stream = EventReader::open(&session, Some("1")).await;
    let events = stream.take(3).await;
    let ids: Vec<_> = events.iter().map(|(id, _)| id.unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert!(
        events[1..]
            .iter()
            .all(|(_, message)| message["method"] == CHANGED)
    );
    // The same once more, and then what is new.
    let mut again = EventReader::open(&session, Some("2")).await;
    touch(&front, 1).await;
    let ids: Vec<_> = again
        .take(3)
        .await
        .into_iter()
        .map(|(id, _)| id.unwrap())
        .collect();
    assert_eq!(ids, [2, 3, 4]);
    for unknown in ["5", "x", "-1", ""] {
        let refused = session.listen(Some(unknown)).await;
        assert_eq!(refused.status(), 400, "{unknown}");
        let told = messages(refused).await.remove(0);
        assert_eq!(told["error"]["code"], -32600, "{told}");
        let text = told["error"]["message"].as_str().unwrap();
        assert!(text.starts_with("last-event-id"), "{text}");
    }
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_caller_is_told_what_it_has_missed_for_good() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let watch = json!({ "uri": "file:///x" });
    session.ask("resources/subscribe", watch).await;
    let mut stream = EventReader::open(&session, None).await;
    stream.next().await;
    drop(stream);
    // Two messages each time.
    touch(&front, 200).await;
    let until = async {
        loop {
            let mut stream = EventReader::open(&session, Some("0")).await;
            stream.next().await;
            let (id, told) = stream.next().await;
            let text = told["params"]["data"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if text.starts_with("144 messages were missed") {
                return (id, told, stream);
            }
            tokio::time::sleep(MOMENT).await;
        }
    };
    let (id, told, mut stream) = tokio::time::timeout(PATIENCE, until).await.unwrap();
    assert_eq!(
        (id, &told["method"]),
        (None, &json!("notifications/message")),
        "{told}"
    );
    let told = stream.take(3).await;
    let methods: Vec<_> = told
        .iter()
        .map(|(_, told)| told["method"].as_str().unwrap())
        .collect();
    let expected = [
        CHANGED,
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    ];
    assert_eq!(methods, expected, "it looks again at all that it knows");
    let (id, _) = stream.next().await;
    assert_eq!(id, Some(145), "and the rest comes");
    assert!(front.gateway.buffered().used > 0, "what is kept counts");
    assert_eq!(session.leave().await, 204);
    front.end().await;
}

#[tokio::test]
async fn mcp_5_a_call_goes_on_when_its_stream_breaks_off() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let slow = json!({ "name": "slow", "arguments": { "seconds": 1, "progress": true },
        "_meta": { "progressToken": "t" } });
    let response = session.send("tools/call", slow.clone()).await;
    let mut stream = EventReader {
        response,
        read: String::new(),
    };
    let ids = stream.named(2).await;
    assert_eq!(ids, ["1-0", "1-1"]);
    drop(stream);
    let mut again = EventReader::open(&session, Some("1-1")).await;
    let mut last = 1;
    let answer = loop {
        let (id, message) = again.next_named().await;
        last += 1;
        assert_eq!(
            id,
            format!("1-{last}"),
            "none is missing, and none comes twice"
        );
        if message["id"] == "own" {
            break message;
        }
        assert_eq!(message["params"]["progressToken"], "t", "{message}");
    };
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    // Once more, since the answer may have been lost too.
    let mut late = EventReader::open(&session, Some(&format!("1-{}", last - 1))).await;
    assert_eq!(late.next_named().await.1, answer);
    for unknown in ["2-0", "1-x", "1-1000"] {
        let refused = session.listen(Some(unknown)).await;
        assert_eq!(refused.status(), 400, "{unknown}");
    }
    // A caller that gives up says so.
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": "own" } });
    let mut long = slow;
    long["arguments"]["seconds"] = json!(30);
    let mut response = session.send("tools/call", long).await;
    response.chunk().await.unwrap().unwrap();
    drop(response);
    assert_eq!(session.tell(cancelled).await, 202);
    front.until_noted("stopped").await;
    front.end().await;
}
