//! A real Chroma: its collection is made, written, searched, filtered and made anew.
//!
//! The server is the program `chroma` in the variable `BREAKERBOX_TEST_CHROMA` or on the path;
//! `pip install chromadb` brings it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::agents::{
    ChromaStore, ContentStore, Document, Embedding, OpenAiEmbedding, ServicePort, ServiceRequest,
    VectorFilter, VectorPoint, VectorProviders, VectorSearch,
};
use serde_json::{Value, json};

use super::{Rig, run, service_error};
use crate::tools;

/// Limit for the start of the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with an empty folder; it ends when this is dropped.
struct ChromaServer {
    process: Child,
    base: String,
    port: ServicePort,
    _folder: tempfile::TempDir,
}

impl Drop for ChromaServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    match std::env::var_os("BREAKERBOX_TEST_CHROMA") {
        Some(path) if Path::new(&path).is_file() => Some(path.into()),
        _ => tools::find(&["chroma"]),
    }
}

impl ChromaServer {
    async fn start(program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        drop(free);
        let process = Command::new(program)
            .args(["run", "--host", "127.0.0.1", "--port", &port, "--path"])
            .arg(folder.path())
            .env("ANONYMIZED_TELEMETRY", "False")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            process,
            base: format!("http://127.0.0.1:{port}"),
            port: ServicePort::new(Some(Duration::from_secs(3))).unwrap(),
            _folder: folder,
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !server.is_up().await {
            assert_eq!(server.process.try_wait().unwrap(), None, "it ended");
            assert!(tokio::time::Instant::now() < deadline, "it did not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    async fn is_up(&self) -> bool {
        let asked = ServiceRequest::get(format!("{}/api/v2/heartbeat", self.base));
        self.port
            .send_alone(asked)
            .await
            .is_ok_and(|answer| answer.is_success())
    }

    async fn drop_collection(&self, name: &str) {
        let all = "api/v2/tenants/default_tenant/databases/default_database/collections";
        let asked = ServiceRequest::delete(format!("{}/{all}/{name}", self.base));
        let answer = self.port.send_alone(asked).await.unwrap();
        assert!(answer.is_success(), "{}", answer.message());
    }
}

fn note(id: &str, content: &str, metadata: Value) -> Document {
    let document = json!({ "id": id, "content": content, "metadata": metadata });
    serde_json::from_value(document).unwrap()
}

async fn search(rig: &Rig, server: &ChromaServer, fallback: bool) -> VectorSearch {
    let embedding = OpenAiEmbedding::new(format!("{}/v1", rig.fakes.base()), "nomic", 768);
    let store = ChromaStore::new(&server.base, "notes");
    let providers = VectorProviders::new(Arc::new(embedding), Arc::new(store));
    let content = ContentStore::default();
    let search =
        VectorSearch::with_providers(&rig.runtime, providers.auto_fallback(fallback), content);
    search.await.unwrap()
}

fn ids(found: &[breakerbox::agents::Neighbor]) -> Vec<&str> {
    found.iter().map(|one| one.id.as_str()).collect()
}

#[test]
fn agents_a_real_chroma_stores_finds_filters_and_removes() {
    let Some(program) = program() else { return };
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let server = ChromaServer::start(&program).await;
        let search = search(&rig, &server, false).await;

        // A search never makes the collection: its name may be misspelt.
        let error = service_error(search.search("actors", 3).await.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");
        assert!(
            error.to_string().contains("[notes] does not exist"),
            "{error}"
        );

        let notes = [
            note(
                "a",
                "supervisors restart actors",
                json!({ "kind": "note", "year": 2025 }),
            ),
            note(
                "b",
                "breakers open after failures",
                json!({ "kind": "page", "year": 2026 }),
            ),
            note("ü/1", "bulkheads bound calls", json!({})),
        ];
        search.upsert(&notes).await.unwrap();
        search.upsert(&notes).await.unwrap();
        let found = search
            .search("supervisors restart actors", 5)
            .await
            .unwrap();
        assert!(found.is_primary());
        assert_eq!(found.value.len(), 3, "stored once");
        let first = &found.value[0];
        assert_eq!(
            (&*first.id, first.metadata["year"].as_u64()),
            ("a", Some(2025))
        );
        assert_eq!(first.content.as_deref(), Some("supervisors restart actors"));
        assert!(
            (first.score - 1.0).abs() < 1e-4,
            "the cosine: {}",
            first.score
        );
        assert!(found.value[2].score < 0.9, "{}", found.value[2].score);

        let all = VectorFilter::default;
        for (filter, wanted) in [
            (all().is("kind", "page"), vec!["b"]),
            (all().is("kind", "note").at_most("year", 2025.0), vec!["a"]),
            (
                all().one_of("year", [2025, 2026]).is_not("kind", "page"),
                vec!["a"],
            ),
            (all().at_least("year", 2030.0), vec![]),
        ] {
            let found = search
                .search_where("calls", 5, filter.clone())
                .await
                .unwrap();
            assert_eq!(ids(&found.value), wanted, "{filter:?}");
        }

        let gone = ["a", "unknown"].map(str::to_owned);
        search.remove(&gone).await.unwrap();
        assert_eq!(search.search("actors", 5).await.unwrap().value.len(), 2);

        // Made anew under its name, it has another id.
        server.drop_collection("notes").await;
        search.upsert(&notes[..1]).await.unwrap();
        assert_eq!(ids(&search.search("actors", 5).await.unwrap().value), ["a"]);

        let mut nested = note("n", "nested", json!({ "a": { "b": 1 } }));
        let error = service_error(
            search
                .upsert(std::slice::from_ref(&nested))
                .await
                .unwrap_err(),
        );
        assert!(error.to_string().contains("field a is nested"), "{error}");
        nested.metadata.clear();
        search.upsert(&[nested]).await.unwrap();

        let status = rig.status("vector_find");
        assert_eq!((status.counts.misconfigured, status.counts.failure), (1, 0));
        rig.finish().await;
    });
}

#[test]
fn agents_a_real_chroma_refuses_vectors_of_another_length_and_dies() {
    let Some(program) = program() else { return };
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let mut server = ChromaServer::start(&program).await;
        let search = search(&rig, &server, true).await;
        let notes = [note("a", "supervisors restart actors", json!({}))];
        search.upsert(&notes).await.unwrap();

        let other = OpenAiEmbedding::new("http://127.0.0.1:1/v1", "tiny", 2).named("tiny_embed");
        let store = ChromaStore::new(&server.base, "notes").named("tiny_find", "tiny_write");
        let providers = VectorProviders::new(Arc::new(other), Arc::new(store));
        let tiny = VectorSearch::with_providers(
            &rig.runtime,
            providers.auto_fallback(false),
            ContentStore::default(),
        );
        let tiny = tiny.await.unwrap();
        let vector = Embedding {
            values: Arc::from([1.0, 0.0]),
            model: Arc::from("tiny"),
            truncated: false,
        };
        let error = service_error(tiny.find(vector.clone(), 1).await.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");
        let written = tiny
            .upsert_points(vec![VectorPoint::new("t", vector)])
            .await;
        let error = service_error(written.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");

        server.process.kill().unwrap();
        server.process.wait().unwrap();
        let found = search.search("restart actors", 1).await.unwrap();
        assert_eq!(found.source.to_string(), "fallback:local_index");
        assert_eq!(ids(&found.value), ["a"]);
        // The embeddings fail as well: the whole search is local.
        rig.fakes
            .set(Operation::OpenAi, Some(FakeFault::internal()));
        let found = search.search("restart actors", 1).await.unwrap();
        assert_eq!(ids(&found.value), ["a"]);
        rig.finish().await;
    });
}
