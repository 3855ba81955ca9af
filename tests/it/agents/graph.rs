//! Knowledge graph by name and type, over npm's official server and over its fake, which is this
//! program itself.

use std::path::Path;
use std::process::Command;

use breakerbox::agents::{Entity, GraphError, KnowledgeGraph, Relation};
use breakerbox::mcp::McpSettings;
use breakerbox_policy::State;
use futures_util::future::join_all;

use super::{Rig, run};
use crate::tools;

/// Version of the official server that the fake imitates.
const OFFICIAL: &str = "@modelcontextprotocol/server-memory@2026.8.31";

/// Installs the official server once into the target folder. Returns `None` if that is not
/// possible; the test is then skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn official(folder: &tempfile::TempDir) -> Option<McpSettings> {
    tools::find(&["node"])?;
    let npm = tools::find(&["npm"])?;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agents-npm");
    let package = place.join("node_modules/@modelcontextprotocol/server-memory");
    if !package.is_dir() {
        std::fs::create_dir_all(&place).unwrap();
        let mut install = Command::new(npm);
        install.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
        ]);
        let output = install.arg(&place).arg(OFFICIAL).output().unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let required = std::env::var("BREAKERBOX_TEST_REQUIRE_ALL");
            assert_ne!(required.as_deref(), Ok("1"), "{OFFICIAL}: {said}");
            eprintln!("passed by: {OFFICIAL} cannot be installed: {said}");
            return None;
        }
    }
    let file = folder.path().join("memory.jsonl").display().to_string();
    Some(KnowledgeGraph::installed(
        &place.display().to_string(),
        file,
    ))
}

fn stand_in(folder: &tempfile::TempDir) -> McpSettings {
    let server = McpSettings::stdio(env!("CARGO_BIN_EXE_breakerbox"), ["memory-server"]);
    let file = folder.path().join("memory.jsonl").display().to_string();
    server.env("MEMORY_FILE_PATH", file)
}

async fn process(graph: &KnowledgeGraph) -> u64 {
    let told = graph
        .server()
        .call("process_id", serde_json::Map::new())
        .await
        .unwrap();
    told.value.structured.unwrap()["process_id"]
        .as_u64()
        .unwrap()
}

#[test]
fn every_tool_of_the_official_server_has_its_method() {
    let folder = tempfile::tempdir().unwrap();
    if let Some(server) = official(&folder) {
        every_tool(&server);
    }
}

#[test]
fn every_tool_of_the_stand_in_has_its_method() {
    let folder = tempfile::tempdir().unwrap();
    every_tool(&stand_in(&folder));
}

fn every_tool(server: &McpSettings) {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let graph = KnowledgeGraph::start(&rig.runtime, "kg", server)
            .await
            .unwrap();
        let ada = Entity::new("Ada", "person", ["wrote notes"]);
        let engine = Entity::new("Engine", "machine", ["never built"]);
        let both = [ada.clone(), engine.clone()];
        assert_eq!(graph.create_entities(&both).await.unwrap().value, both);
        assert_eq!(graph.create_entities(&both).await.unwrap().value, []);
        let writes = Relation {
            from: "Ada".to_owned(),
            to: "Engine".to_owned(),
            relation_type: "describes".to_owned(),
        };
        let writes = [writes];
        assert_eq!(graph.create_relations(&writes).await.unwrap().value, writes);
        let more = ["and proofs".to_owned()];
        graph.add_observations("Ada", &more).await.unwrap();
        let error = graph.add_observations("Bob", &more).await.unwrap_err();
        let GraphError::Tool { tool, said } = error else {
            panic!("{error}");
        };
        assert_eq!(tool, "add_observations");
        assert!(said.contains("not found"), "{said}");
        let found = graph.search_nodes("proofs").await.unwrap();
        assert!(found.is_primary());
        assert_eq!(
            found.value.entities[0].observations,
            ["wrote notes", "and proofs"]
        );
        let names = ["Ada".to_owned(), "Engine".to_owned()];
        assert_eq!(
            graph.open_nodes(&names).await.unwrap().value.relations,
            writes
        );
        graph.delete_observations("Ada", &more).await.unwrap();
        graph.delete_relations(&writes).await.unwrap();
        graph.delete_entities(&names[1..]).await.unwrap();
        let all = graph.read_graph().await.unwrap().value;
        assert_eq!((all.entities, all.relations.len()), (vec![ada], 0));
        for error in [
            graph.search_nodes(" ").await.unwrap_err(),
            graph.open_nodes(&[]).await.unwrap_err(),
            graph.create_entities(&[]).await.unwrap_err(),
        ] {
            assert!(matches!(error, GraphError::Invalid(_)), "{error}");
        }
        // A tool's own error is not a failure of the server.
        let status = rig.status("kg");
        assert_eq!((status.state, status.counts.failure), (State::Closed, 0));
        rig.finish().await;
    });
}

#[test]
fn item_39_reads_are_answered_from_before_while_the_server_is_away_and_writes_are_not() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let rig = Rig::start(|_| {}).await;
        let graph = KnowledgeGraph::start(&rig.runtime, "kg", &stand_in(&folder))
            .await
            .unwrap();
        let ada = [Entity::new("Ada", "person", ["wrote notes"])];
        graph.create_entities(&ada).await.unwrap();
        graph.search_nodes("ada").await.unwrap();
        let reason = "it is being upgraded".to_owned();
        let open = breakerbox_policy::BreakerCommand::Open {
            reason,
            until: None,
        };
        rig.runtime.operate("kg", open).await.unwrap().unwrap();
        let found = graph.search_nodes("ada").await.unwrap();
        assert_eq!(found.source.to_string(), "fallback:stale_cache");
        assert!(found.age.is_some());
        assert_eq!(found.value.entities, ada);
        let error = graph.create_entities(&ada).await.unwrap_err();
        let GraphError::Call(error) = error else {
            panic!("{error}");
        };
        assert_eq!(error.executed(), breakerbox_policy::Executed::No);
        rig.finish().await;
    });
}

#[test]
fn item_65_twenty_notes_at_once_are_all_kept_and_outlive_the_process() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let rig = Rig::start(|_| {}).await;
        let graph = KnowledgeGraph::start(&rig.runtime, "kg", &stand_in(&folder))
            .await
            .unwrap();
        let create = async |number: u32| {
            let one = [Entity::new(format!("topic {number}"), "topic", [""; 0])];
            graph.create_entities(&one).await
        };
        let all = join_all((0..20).map(create)).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(graph.read_graph().await.unwrap().value.entities.len(), 20);
        let first = process(&graph).await;
        let killed = Command::new("sh")
            .args(["-c", &format!("kill -9 {first}")])
            .status();
        assert!(killed.unwrap().success());
        super::until(|| {
            let worker = rig.status("kg").workers[0].clone();
            worker.incarnation == 2 && worker.running
        })
        .await;
        let kept = graph.read_graph().await.unwrap();
        assert!(kept.is_primary());
        assert_eq!(kept.value.entities.len(), 20);
        assert_ne!(process(&graph).await, first);
        rig.finish().await;
    });
}
