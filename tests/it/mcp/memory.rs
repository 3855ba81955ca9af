//! The knowledge graph as its callers see it: items 64, 65, 69, 71 and 76, and 39 for its writes.

use breakerbox::mcp::ToolCall;
use breakerbox::policy::{BreakerCommand, Executed, State};
use breakerbox::{Fixed, Health};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn item_64_its_tools_are_listed_and_do_their_work() {
    let began = Instant::now();
    let Some(bed) = Bed::memory(|_| {}).await else {
        return;
    };
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let tools = bed.server.tools();
    let mut names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "add_observations",
        "create_entities",
        "create_relations",
        "delete_entities",
        "delete_observations",
        "delete_relations",
        "open_nodes",
        "read_graph",
        "search_nodes",
    ];
    assert_eq!(names, expected);
    for tool in tools.iter() {
        let reads = ["open_nodes", "read_graph", "search_nodes"].contains(&tool.name.as_str());
        assert_eq!(tool.read_only, reads, "{}", tool.name);
        let may_repeat = reads || tool.name.starts_with("delete_");
        assert_eq!(tool.idempotent, may_repeat, "{}", tool.name);
    }
    assert_eq!(bed.server.protocol_version().as_deref(), Some("2025-11-25"));
    let created = bed.call("create_entities", entity("Ada")).await.unwrap();
    assert!(created.is_primary() && !created.value.is_error);
    let found = bed.call("search_nodes", json!({ "query": "ada" })).await;
    let found = found.unwrap().value;
    assert_eq!(found.structured.unwrap()["entities"][0]["name"], "Ada");
    assert!(found.content.contains("Ada"), "{}", found.content);
    let heard = bed.server.stderr();
    assert!(heard[0].contains("running on stdio"), "{heard:?}");
    bed.end().await;
}

#[tokio::test]
async fn item_65_twenty_writes_at_once_are_all_kept() {
    let Some(bed) = Bed::memory(|_| {}).await else {
        return;
    };
    let creates = (0..20).map(|number| bed.call("create_entities", entity(&format!("n{number}"))));
    for created in join_all(creates).await {
        assert!(!created.unwrap().value.is_error);
    }
    let graph = bed.call("read_graph", json!({})).await.unwrap().value;
    let kept = graph.structured.unwrap()["entities"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(kept, 20);
    bed.end().await;
}

#[tokio::test]
async fn item_39_a_write_to_an_open_graph_is_refused_and_never_faked() {
    let folder = folder();
    let Some(settings) = memory(folder.path()) else {
        return;
    };
    let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
    let server = mcp::dependency(&runtime, "kg", &settings)
        .fallback(Fixed(ToolResult::text("from the fallback")));
    let server = server.start().await.unwrap();
    let open = BreakerCommand::Open {
        reason: "a drill".to_owned(),
        until: None,
    };
    server.client().operate(open).await.unwrap();
    let write = server.call("create_entities", object(entity("Ada"))).await;
    let refused = write.unwrap_err();
    assert!(matches!(refused, CallError::Open(_)), "{refused}");
    assert_eq!(refused.executed(), Executed::No);
    // An unknown tool may be a write.
    server.call("unheard_of", Map::new()).await.unwrap_err();
    let raw = server.client().ask(ToolCall::new("read_graph", Map::new()));
    raw.await.unwrap_err();
    let read = server.call("read_graph", Map::new()).await.unwrap();
    assert_eq!(read.source.to_string(), "fallback:fixed");
    assert_eq!(read.value.content, "from the fallback");
    runtime.shutdown().await;
}

/// The real server, started by npx through further processes.
async fn through_npx() -> Option<Bed> {
    let folder = folder();
    let modules = install::node_modules()?;
    let settings = McpSettings::stdio("npx", ["--offline", "mcp-server-memory"])
        .cwd(modules.parent().unwrap())
        .env(
            "MEMORY_FILE_PATH",
            memory_file(folder.path()).to_string_lossy(),
        );
    Some(Bed::of(settings, folder, |_| {}).await)
}

#[tokio::test]
async fn item_69_a_tree_that_npx_started_is_gone_with_the_runtime() {
    let Some(bed) = through_npx().await else {
        return;
    };
    let tree = bed.processes();
    assert!(tree.len() >= 2, "npx starts others: {tree:?}");
    bed.call("create_entities", entity("Ada")).await.unwrap();
    bed.end().await;
    gone(&tree);
}

#[tokio::test]
async fn item_69_a_tree_whose_head_was_cut_off_is_replaced_as_a_whole() {
    let Some(bed) = through_npx().await else {
        return;
    };
    let tree = bed.processes();
    // The first process is the root of the tree.
    signal(tree[0], "KILL");
    bed.until_life(2).await;
    // The orphans are reaped by another process, unless the program adopts orphans.
    dead(&tree);
    bed.call("create_entities", entity("Ada")).await.unwrap();
    let exit = bed.last_exit();
    assert!(exit.contains("SIGKILL"), "{exit}");
    bed.end().await;
}

#[tokio::test]
async fn item_71_a_tools_own_error_is_an_answer_and_nobodys_failure() {
    let Some(bed) = Bed::memory(|policy| policy.retry.max_attempts = 3.try_into().unwrap()).await
    else {
        return;
    };
    let observation = json!({ "observations": [{ "entityName": "Nobody", "contents": ["x"] }] });
    let answer = bed.call("add_observations", observation).await.unwrap();
    assert!(answer.value.is_error);
    assert!(answer.value.content.contains("Nobody"));
    assert_eq!(answer.attempts, 1);
    let status = bed.server.client().status();
    assert_eq!((status.window.calls, status.window.failures), (0, 0));
    assert_eq!(status.state, State::Closed);
    assert_eq!(status.health, Health::Ok);
    assert_eq!(bed.lives(), 1);
    bed.end().await;
}

#[tokio::test]
async fn item_76_a_corrupted_file_makes_it_degraded_and_no_loop_of_restarts() {
    let folder = folder();
    let broken = "{\"type\":\"entity\",\"name\":\"Ad";
    std::fs::write(memory_file(folder.path()), broken).unwrap();
    let Some(settings) = memory(folder.path()) else {
        return;
    };
    let bed = Bed::of(settings, folder, |_| {}).await;
    let first = bed.call("read_graph", json!({})).await.unwrap().value;
    assert!(first.is_error);
    assert_eq!(
        bed.server.client().status().health,
        Health::Ok,
        "one may be a mistake"
    );
    for _ in 0..4 {
        let read = bed.call("search_nodes", json!({ "query": "ada" })).await;
        assert!(read.unwrap().value.is_error);
    }
    let status = bed.server.client().status();
    let Health::Degraded { reason } = &status.health else {
        panic!("{}", status.health);
    };
    assert!(reason.contains("JSON"), "{reason}");
    assert_eq!(bed.lives(), 1);
    assert_eq!(status.state, State::Closed);
    std::fs::remove_file(memory_file(bed.folder.path())).unwrap();
    let read = bed.call("read_graph", json!({})).await.unwrap().value;
    assert!(!read.is_error, "{}", read.content);
    assert_eq!(bed.server.client().status().health, Health::Ok);
    bed.end().await;
}
