//! Limits of sessions that are lowered, groups with other members, processes of sessions that do
//! not come up, and lists with one page.

use breakerbox::Settings;

use super::fake_server::{FakeServer, FrontBed};
use super::front_bed::{Front, next_event, program};
use super::sessions::until_gone;
use super::*;
use crate::gateway::serve::http;

const OWN: &str = "sessions = \"per_caller\"\n";

/// The server, through a script that does this from its second start on.
async fn failing_later(then: &str, more: &str) -> Option<Front> {
    let program = program()?;
    let folder = folder();
    let mark = folder.path().join("started");
    let script = format!(
        "if [ -e {mark:?} ]; then {then}; fi; : > {mark:?}; exec python3 -u {program:?} older"
    );
    let table = format!(
        "[dependencies.late]\nkind = \"mcp_stdio\"\ncommand = \"sh\"\nargs = [\"-c\", '{script}']\n\
         {OWN}{more}"
    );
    let mut front = Front::open("older", &table).await?;
    front.name = "late";
    super::front_bed::until_started(&front.gateway.servers().get("late")?).await;
    // The folder is needed until then.
    drop(folder.keep());
    Some(front)
}

#[tokio::test]
async fn mcp_5_a_lower_number_of_sessions_holds_at_once() {
    let Some(front) = Front::open("older", &format!("{OWN}max_sessions = 3\n")).await else {
        return;
    };
    let mut processes = Vec::new();
    for _ in 0..3 {
        let session = front.session(json!({})).await;
        let counted = session.call("count", json!({})).await;
        let (process, _): (u32, u64) =
            serde_json::from_str(super::front_bed::said(&counted)).unwrap();
        processes.push((session, process));
    }
    let program = program().unwrap();
    let notes = front.notes_file();
    let text = format!(
        "[dependencies.s]\nkind = \"mcp_stdio\"\ncommand = \"python3\"\n\
         args = [\"-u\", {program:?}, \"older\"]\nenv = {{ NOTES = {notes:?} }}\n\
         {OWN}max_sessions = 1\n"
    );
    let settings = Settings::loader().bare().toml(&text).load().unwrap();
    let one = &settings.dependencies["s"];
    front.gateway.put("s", one, "", "test").await.unwrap();
    until_gone(&[processes[0].1, processes[1].1]).await;
    for (session, status) in [(0, 404), (1, 404), (2, 200)] {
        let (session, _) = &processes[session];
        assert_eq!(session.send("ping", json!({})).await.status(), status);
    }
    front.end().await;
}

#[tokio::test]
async fn call_2_a_call_that_ends_while_its_process_starts_was_not_executed() {
    let Some(front) = failing_later("sleep 30", "timeout = { attempt = \"300ms\" }\n").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let failed = session.call("echo", json!({ "text": "x" })).await;
    let data = &failed["error"]["data"];
    assert_eq!(data["type"], "urn:breakerbox:timed-out", "{failed}");
    assert_eq!(data["executed"], "no", "{failed}");
    front.end().await;
}

#[tokio::test]
async fn mcp_1_a_session_whose_process_waits_for_its_next_start_says_how_long() {
    let Some(front) = failing_later("exit 3", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let paused = async {
        loop {
            let failed = session.call("echo", json!({ "text": "x" })).await;
            let data = failed["error"]["data"].clone();
            let told = failed["error"]["message"].as_str().unwrap();
            if told.contains("starts it again") {
                return data;
            }
        }
    };
    let data = tokio::time::timeout(PATIENCE, paused).await.unwrap();
    let wait = data["retry_after_ms"].as_u64().unwrap();
    assert!((1..=30_001).contains(&wait), "{data}");
    front.end().await;
}

#[tokio::test]
async fn mcp_5_callers_of_a_group_hear_that_it_has_other_members() {
    let (one, two) = (
        FakeServer::start("one", &["x"]).await,
        FakeServer::start("two", &["y"]).await,
    );
    let tables = format!("{}{}", one.table("one", ""), two.table("two", ""));
    let group = |members: &str| {
        format!("{tables}[dependencies.all]\nkind = \"mcp_group\"\nmembers = {members}\n")
    };
    let bed = FrontBed::of(&group("[\"one\", \"two\"]")).await;
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
    let (_, headers, _) = bed.send("/all/mcp", "initialize", hello, &[]).await;
    let asked = http().get(bed.url("/all/mcp"));
    let asked = asked.header("mcp-session-id", headers["mcp-session-id"].clone());
    let asked = asked.header("accept", "text/event-stream");
    let mut stream = asked.send().await.unwrap();
    let mut read = String::new();
    bed.reload(&group("[\"one\"]")).await;
    let heard = next_event(&mut stream, &mut read).await;
    assert_eq!(
        heard["method"], "notifications/tools/list_changed",
        "{heard}"
    );
    assert_eq!(bed.list("/all/mcp", "tools/list").await, ["one_x"]);
    bed.end().await;
}

#[tokio::test]
async fn mcp_3_a_cursor_that_was_never_given_is_refused() {
    let fake = FakeServer::start("one", &["x"]).await;
    let text = format!(
        "{}[dependencies.all]\nkind = \"mcp_group\"\nmembers = [\"one\"]\n",
        fake.table("one", "")
    );
    let bed = FrontBed::of(&text).await;
    bed.list("/one/mcp", "tools/list").await;
    for path in ["/one/mcp", "/all/mcp"] {
        let refused = bed.ask(path, "tools/list", json!({ "cursor": "9" })).await;
        assert_eq!(refused["error"]["code"], -32602, "{path}: {refused}");
        assert_eq!(bed.list(path, "tools/list").await.len(), 1, "{path}");
    }
    bed.end().await;
}

fn in_flight(front: &Front) -> u32 {
    front.server().client().status().in_flight
}

#[tokio::test]
async fn call_2_a_call_whose_session_ends_while_its_process_starts_was_not_executed() {
    let Some(front) = failing_later("sleep 30", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let server = front.gateway.servers().get("late").unwrap();
    let leaving = async {
        let look = async {
            while server.client().status().in_flight == 0 {
                tokio::time::sleep(MOMENT).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap();
        session.leave().await
    };
    let (ended, left) = tokio::join!(session.call("echo", json!({})), leaving);
    assert_eq!(left, 204);
    assert_eq!(ended["error"]["data"]["executed"], "no", "{ended}");
    front.end().await;
}

#[tokio::test]
async fn edge_4_a_call_that_goes_on_without_its_connection_keeps_its_callers_place() {
    let Some(front) = Front::open("older", "").await else {
        return;
    };
    let session = front.session(json!({})).await;
    let text = "[gateway]\nbind = \"127.0.0.1:0\"\nper_caller = { places = 1 }\n";
    let settings = Settings::loader().bare().toml(text).load().unwrap();
    front.gateway.configure(&settings.gateway);
    let slow = json!({ "name": "slow", "arguments": { "seconds": 1, "progress": true },
        "_meta": { "progressToken": "t" } });
    let mut stream = session.send("tools/call", slow).await;
    assert!(stream.chunk().await.unwrap().is_some());
    assert_eq!(in_flight(&front), 1);
    drop(stream);
    let again = async {
        while session.send("ping", json!({})).await.status() != 200 {
            tokio::time::sleep(MOMENT).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    assert_eq!(in_flight(&front), 0);
    front.end().await;
}
