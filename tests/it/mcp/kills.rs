//! A server that dies: items 66, 67 and 72.

use breakerbox::Health;
use breakerbox::policy::{BackoffSettings, Executed, Intensity, RetryJitter};
use tokio::time::Instant;

use super::scripted::notes;
use super::*;

fn closed(error: &CallError<McpError>) -> bool {
    let own = |error: &McpError| matches!(error, McpError::TransportClosed { .. });
    matches!(error, CallError::Failed { error, .. } if own(error))
}

#[tokio::test]
async fn item_66_a_killed_graph_answers_again_at_once() {
    let Some(bed) = Bed::memory(|_| {}).await else {
        return;
    };
    bed.call("create_entities", entity("Ada")).await.unwrap();
    let before = bed.processes();
    let killed = Instant::now();
    signal(bed.process(), "KILL");
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let asked = Instant::now();
        match bed.call("read_graph", json!({})).await {
            Ok(answer) => {
                let graph = answer.value.structured.unwrap();
                assert_eq!(graph["entities"][0]["name"], "Ada");
                break;
            }
            Err(error) => {
                assert!(closed(&error), "{error}");
                assert!(asked.elapsed() < Duration::from_secs(1));
            }
        }
    }
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(bed.lives(), 2);
    assert_eq!(bed.server.tools().len(), 9);
    gone(&before);
    bed.end().await;
}

#[tokio::test]
async fn item_66_who_waits_for_an_answer_hears_of_the_end_within_a_moment() {
    let Some(bed) = Bed::scripted(|_| {}, |_| {}).await else {
        return;
    };
    // Adds a tool to those at its start; a new incarnation has to list them again.
    bed.call("grow", json!({})).await.unwrap();
    let grown = |bed: &Bed| bed.server.tools().iter().any(|tool| tool.name == "grown");
    bed.until("the list follows", grown).await;
    let before = bed.process();
    let killing = async {
        bed.until("it hangs", |bed| has_note(bed, "call hang"))
            .await;
        signal(before, "KILL");
        Instant::now()
    };
    let calling = async { (bed.call("hang", json!({})).await, Instant::now()) };
    let (killed, (ended, heard)) = tokio::join!(killing, calling);
    let error = ended.unwrap_err();
    assert!(closed(&error), "{error}");
    let took = heard - killed;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let answer = bed.call("echo", json!({ "text": "again" })).await.unwrap();
    assert_eq!(answer.value.content, "again");
    assert!(!grown(&bed), "the tools are listed anew");
    assert!(bed.last_exit().contains("signal: 9"), "{}", bed.last_exit());
    bed.end().await;
}

fn has_note(bed: &Bed, note: &str) -> bool {
    notes(bed.folder.path()).iter().any(|line| line == note)
}

fn count(bed: &Bed, note: &str) -> usize {
    let notes = notes(bed.folder.path());
    notes.iter().filter(|line| *line == note).count()
}

#[tokio::test]
async fn item_67_a_write_that_died_with_its_server_may_be_done_and_is_not_repeated() {
    let thrice = |policy: &mut DependencySettings| {
        policy.retry.max_attempts = 3.try_into().unwrap();
    };
    let Some(bed) = Bed::scripted(|_| {}, thrice).await else {
        return;
    };
    let killing = async {
        bed.until("it writes", |bed| has_note(bed, "call write"))
            .await;
        signal(bed.process(), "KILL");
    };
    let writing = bed.call("write", json!({ "wait": 10_000 }));
    let (ended, ()) = tokio::join!(writing, killing);
    let error = ended.unwrap_err();
    assert!(closed(&error), "{error}");
    assert_eq!(error.executed(), Executed::Maybe);
    bed.until_life(2).await;
    bed.call("echo", json!({})).await.unwrap();
    assert_eq!(count(&bed, "call write"), 1);
    bed.end().await;
}

#[tokio::test]
async fn item_67_what_may_be_repeated_is_in_the_next_life() {
    let thrice = |policy: &mut DependencySettings| {
        policy.retry.max_attempts = 3.try_into().unwrap();
    };
    // Repeatable once by the tool's annotation, once by the settings.
    for tool in ["delete", "once"] {
        let name = |server: &mut McpSettings| *server = server.clone().idempotent(["once"]);
        let Some(bed) = Bed::scripted(name, thrice).await else {
            return;
        };
        let answer = bed.call(tool, json!({})).await.unwrap();
        assert_eq!((&*answer.value.content, answer.attempts), ("done", 2));
        assert_eq!(count(&bed, &format!("call {tool}")), 2);
        assert_eq!(bed.lives(), 2);
        bed.end().await;
    }
    let Some(bed) = Bed::scripted(|_| {}, thrice).await else {
        return;
    };
    let error = bed.call("once", json!({})).await.unwrap_err();
    assert!(closed(&error), "{error}");
    assert_eq!(
        count(&bed, "call once"),
        1,
        "nobody said that it may be repeated"
    );
    bed.until_life(2).await;
    bed.end().await;
}

#[tokio::test]
async fn item_72_one_that_greets_and_leaves_is_given_up() {
    let leaves = |server: &mut McpSettings| *server = server.clone().env("MODE", "exit");
    let seldom = |policy: &mut DependencySettings| {
        policy.workers.intensity = Intensity {
            max: 3,
            within: Duration::from_secs(60),
        };
        policy.workers.backoff = BackoffSettings {
            base: Duration::from_millis(40),
            factor: 2.0,
            max: Duration::from_secs(10),
            jitter: RetryJitter::None,
        };
    };
    let Some(bed) = Bed::scripted(leaves, seldom).await else {
        return;
    };
    bed.until("it is given up", |bed| bed.server.client().status().parked)
        .await;
    let events = bed.runtime.events_since(0);
    let waits: Vec<Duration> = events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::RestartScheduled { after } => Some(after),
            _ => None,
        })
        .collect();
    // The first restart is immediate.
    let expected = [40, 80].map(Duration::from_millis);
    let about = |(wait, expected): (&Duration, Duration)| {
        *wait <= expected && *wait > expected - Duration::from_millis(20)
    };
    assert_eq!(waits.len(), 2, "{waits:?}");
    assert!(waits.iter().zip(expected).all(about), "{waits:?}");
    let parked = |kind: &EventKind| matches!(kind, EventKind::Parked { .. });
    assert!(events.iter().any(|event| parked(&event.kind)));
    let starts = notes(bed.folder.path());
    let starts = starts.iter().filter(|line| line.starts_with("start"));
    assert_eq!(starts.count(), 4, "one, and three restarts");
    let error = bed.call("echo", json!({})).await.unwrap_err();
    assert_eq!(error.executed(), Executed::No, "{error}");
    let health = bed.server.client().status().health;
    assert!(matches!(health, Health::Down { .. }), "{health}");
    bed.end().await;
}

#[tokio::test]
async fn item_72_a_life_that_lasted_begins_the_backoff_anew() {
    let soon = |policy: &mut DependencySettings| {
        policy.workers.reset_after = Duration::from_millis(50);
    };
    let Some(bed) = Bed::scripted(|_| {}, soon).await else {
        return;
    };
    for life in 2..5 {
        let lasted = bed.call("echo", json!({ "wait": 60 })).await;
        lasted.unwrap();
        signal(bed.process(), "KILL");
        bed.until_life(life).await;
    }
    let events = bed.runtime.events_since(0);
    let waits = |kind: &EventKind| matches!(kind, EventKind::RestartScheduled { .. });
    assert!(
        !events.iter().any(|event| waits(&event.kind)),
        "each at once"
    );
    bed.end().await;
}

#[tokio::test]
async fn one_that_does_not_come_up_says_why() {
    let folder = folder();
    let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
    let nothing = McpSettings::stdio("/no/such/program", Vec::<String>::new());
    let error = mcp::start(&runtime, "nothing", &nothing).await.unwrap_err();
    assert!(error.to_string().contains("cannot be started"), "{error}");
    let dies = McpSettings::stdio("sh", ["-c", "echo no key >&2; exit 3"]);
    let error = mcp::start(&runtime, "dies", &dies).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("exit status: 3") && text.contains("no key"),
        "{text}"
    );
    let Some(mut silent) = scripted::server(folder.path()) else {
        return;
    };
    silent.start_timeout = Duration::from_millis(300);
    let silent = silent.env("MODE", "silent");
    let began = Instant::now();
    let error = mcp::start(&runtime, "silent", &silent).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no handshake within 300 ms (start_timeout)"),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    runtime.shutdown().await;
    assert!(processes(folder.path()).is_empty());
}

#[tokio::test]
async fn mcp_3_the_last_answer_of_a_server_that_ends_right_after_it_arrives() {
    let Some(bed) = Bed::scripted(|_| {}, |_| {}).await else {
        return;
    };
    for (life, bytes) in [(2, 10), (3, 3_000_000)] {
        let answer = bed.call("last", json!({ "bytes": bytes })).await;
        assert_eq!(answer.unwrap().value.content.len(), bytes);
        bed.until_life(life).await;
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_8_a_script_without_its_interpreter_is_not_told_as_a_missing_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let program = folder.path().join("server");
    std::fs::write(&program, "#!/no/such/python -u\nprint(1)\n").unwrap();
    let runs = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, runs).unwrap();
    let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
    let orphan = McpSettings::stdio(program.to_string_lossy(), Vec::<String>::new());
    let error = mcp::start(&runtime, "orphan", &orphan).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("its interpreter \"/no/such/python\" is missing"),
        "{text}"
    );
    assert!(!text.contains("there is no file"), "{text}");
    runtime.shutdown().await;
}
