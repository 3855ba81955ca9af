//! Vector search over each of its services, against the fakes.

use std::sync::Arc;

use breakerbox::EventKind;
use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::agents::{
    AgentError, ContentStore, Document, EmbeddingService, StoreService, VectorConfig, VectorFilter,
    VectorQuery, VectorSearch,
};
use breakerbox::config::Secret;
use breakerbox_policy::State;
use serde_json::{Value, json};

use super::{Rig, run, service_error};
use crate::log::Log;

const KEY: &str = "sk-Rt6Zq81-vLx";

fn document(id: &str, content: &str, kind: &str) -> Document {
    let document = json!({ "id": id, "content": content, "metadata": { "kind": kind } });
    serde_json::from_value(document).unwrap()
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|value| value * value).sum::<f32>().sqrt()
}

#[test]
fn agents_a_model_is_asked_by_the_method_that_serves_it() {
    run(async || {
        let methods = [
            ("text-embedding-005", "predict", "us-central1"),
            ("gemini-embedding-001", "predict", "us-central1"),
            ("gemini-embedding-2", "embedContent", "global"),
        ];
        for (model, method, location) in methods {
            let rig = Rig::start(|_| {}).await;
            let vector = rig.vector(|config| config.model = model.to_owned()).await;
            let found = vector.search("restart actors", 1).await.unwrap();
            assert!(found.is_primary(), "{model}: {}", found.source);
            assert_eq!(found.value[0].id, "supervisors", "{model}");
            let asked = &rig.fakes.seen(Operation::Embed)[0];
            let path = format!(
                "/v1/projects/project-1/locations/{location}/publishers/google/models/{model}:{method}"
            );
            assert_eq!(asked.target, path);
            // The index has its own region.
            let index = &rig.fakes.seen(Operation::Find)[0].target;
            assert!(index.contains("/locations/us-central1/"), "{index}");
            rig.finish().await;
        }
    });
}

#[test]
fn agents_embed_content_has_one_text_with_its_task_in_words() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig
            .vector(|config| config.model = "gemini-embedding-2".to_owned())
            .await;
        vector.embed("who restarts").await.unwrap();
        let texts = ["one", "two"].map(str::to_owned);
        assert_eq!(vector.embed_all(&texts).await.unwrap().len(), 2);
        let seen = rig.fakes.seen(Operation::Embed);
        let body = |text: &str| json!({ "content": { "parts": [{ "text": text }] }, "outputDimensionality": 768 });
        let bodies: Vec<Value> = seen.into_iter().map(|one| one.body).collect();
        assert_eq!(
            bodies,
            [
                body("task: search result | query: who restarts"),
                body("title: none | text: one"),
                body("title: none | text: two")
            ]
        );
        rig.finish().await;
    });
}

#[test]
fn agents_shortened_vectors_are_scaled_to_the_norm_one() {
    run(async || {
        for model in ["gemini-embedding-001", "gemini-embedding-2"] {
            let rig = Rig::start(|_| {}).await;
            let vector = rig.vector(|config| config.model = model.to_owned()).await;
            let one = vector.embed("breakers open").await.unwrap();
            assert!(one.is_primary());
            let length = norm(&one.value.values);
            assert!((length - 1.0).abs() < 1e-4, "{model}: {length}");
            rig.finish().await;
        }
    });
}

#[test]
fn agents_a_failed_precondition_is_a_set_up_mistake_with_fallback_and_alert() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|_| {}).await;
        let refused = FakeFault::Google(400, "FAILED_PRECONDITION", "Precondition check failed.");
        rig.fakes.set(Operation::Embed, Some(refused));
        for _ in 0..3 {
            let found = vector.search("restart actors", 1).await.unwrap();
            assert_eq!(found.source.to_string(), "fallback:local_index");
        }
        let status = rig.status("vector_embed");
        assert_eq!(
            (status.counts.misconfigured, status.state),
            (3, State::Closed)
        );
        let events = rig.runtime.events_since(0).into_iter();
        let alerts = events.filter(|event| matches!(event.kind, EventKind::Misconfigured { .. }));
        assert_eq!(alerts.count(), 1);
        rig.finish().await;
    });
}

#[test]
fn agents_an_ended_model_is_warned_of_at_the_start() {
    run(async || {
        let log = Log::capture();
        let rig = Rig::start(|_| {}).await;
        rig.vector(|config| config.model = "text-embedding-004".to_owned())
            .await;
        let lines = log.lines("the model text-embedding-004 has ended or ends soon");
        assert_eq!(lines.len(), 1, "{lines:?}");
        rig.finish().await;
    });
}

#[test]
fn agents_an_index_of_vertex_is_filtered_and_written() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig
            .vector(|config| config.index = Some("99".to_owned()))
            .await;
        assert_eq!(vector.write_name(), Some("vector_write"));
        let mut note = document("n1", "a note on restarts", "note");
        note.metadata.insert("year".to_owned(), json!(2026));
        note.metadata.insert("tags".to_owned(), json!(["a", "b"]));
        vector.upsert(&[note]).await.unwrap();
        let written = &rig.fakes.seen(Operation::Write)[0];
        let path = "/v1/projects/project-1/locations/us-central1/indexes/99:upsertDatapoints";
        assert_eq!(written.target, path);
        let point = &written.body["datapoints"][0];
        assert_eq!(point["datapointId"], "n1");
        assert_eq!(point["featureVector"].as_array().unwrap().len(), 768);
        assert_eq!(
            point["restricts"],
            json!([{ "namespace": "kind", "allowList": ["note"] },
                { "namespace": "tags", "allowList": ["a", "b"] }])
        );
        let year = json!([{ "namespace": "year", "valueDouble": 2026.0 }]);
        assert_eq!(point["numericRestricts"], year);
        // The index keeps no content: the content store has it.
        assert_eq!(
            vector.store().get("n1").unwrap().content,
            "a note on restarts"
        );
        let filter = VectorFilter::default()
            .is("kind", "note")
            .is_not("kind", "page")
            .at_least("year", 2026.0);
        vector.search_where("restarts", 3, filter).await.unwrap();
        let query = &rig.fakes.seen(Operation::Find)[0].body["queries"][0]["datapoint"];
        assert_eq!(
            query["restricts"],
            json!([{ "namespace": "kind", "allowList": ["note"] },
                { "namespace": "kind", "denyList": ["page"] }])
        );
        let least = json!([{ "namespace": "year", "valueDouble": 2026.0, "op": "GREATER_EQUAL" }]);
        assert_eq!(query["numericRestricts"], least);
        vector.remove(&["n1".to_owned()]).await.unwrap();
        let removed = &rig.fakes.seen(Operation::Write)[1];
        assert_eq!(removed.body, json!({ "datapointIds": ["n1"] }));
        assert_eq!(vector.store().get("n1"), None);
        rig.finish().await;
    });
}

#[test]
fn agents_a_local_embedding_is_never_written_to_the_store() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig
            .vector(|config| config.index = Some("99".to_owned()))
            .await;
        rig.fakes.set(Operation::Embed, Some(FakeFault::internal()));
        let notes = [document("n1", "a note", "note")];
        let error = service_error(vector.upsert(&notes).await.unwrap_err());
        assert!(error.to_string().contains("500"), "{error}");
        assert_eq!(rig.fakes.calls(Operation::Write), 0);
        rig.finish().await;

        // Without the id of the index there is nothing to write to.
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|_| {}).await;
        assert_eq!(vector.write_name(), None);
        let error = vector.upsert(&notes).await.unwrap_err();
        assert!(matches!(error, AgentError::Invalid(_)), "{error}");
        assert_eq!(rig.calls(), 0);
        rig.finish().await;
    });
}

/// Returns a search over the fakes of an endpoint like OpenAI's and of Qdrant.
async fn openai_and_qdrant(rig: &Rig, change: impl FnOnce(&mut VectorConfig)) -> VectorSearch {
    let mut config = VectorConfig::from_variables(|_| None);
    config.embedding = EmbeddingService::OpenAi;
    config.store = StoreService::Qdrant;
    config.model = "text-embedding-3-small".to_owned();
    config.openai_url = format!("{}/v1", rig.fakes.base());
    config.openai_key = Some(Secret::new(KEY));
    config.store_url = Some(rig.fakes.base());
    config.store_key = Some(Secret::new(KEY));
    config.collection = Some("notes".to_owned());
    change(&mut config);
    let search = VectorSearch::start(&rig.runtime, config, ContentStore::default());
    search.await.unwrap()
}

const NOTES: [(&str, &str, &str); 3] = [
    ("notes/1.md", "supervisors restart actors", "note"),
    ("17", "breakers open after failures", "page"),
    (
        "5c56c793-69f3-4fbf-87e6-c4bf54c28c26",
        "bulkheads bound calls",
        "note",
    ),
];

#[test]
fn agents_openai_and_qdrant_make_a_search_without_google() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let search = openai_and_qdrant(&rig, |_| {}).await;
        assert_eq!(search.missing(), []);
        let notes = NOTES.map(|(id, content, kind)| document(id, content, kind));
        search.upsert(&notes).await.unwrap();
        let found = search.search("restart actors", 1).await.unwrap();
        assert!(found.is_primary());
        let first = &found.value[0];
        // Ids, content and metadata come back as they were given.
        assert_eq!(
            (&*first.id, first.metadata["kind"].as_str()),
            ("notes/1.md", Some("note"))
        );
        assert_eq!(first.content.as_deref(), Some("supervisors restart actors"));
        assert_eq!(first.metadata.len(), 1, "{:?}", first.metadata);
        let pages = VectorFilter::default().is("kind", "page");
        let found = search
            .search_where("restart actors", 5, pages)
            .await
            .unwrap();
        let ids: Vec<&str> = found.value.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["17"]);
        let others = VectorFilter::default().is_not("kind", "page");
        let found = search.search_where("calls", 5, others).await.unwrap();
        assert_eq!(found.value.len(), 2);
        search
            .remove(&["notes/1.md".to_owned(), "unknown".to_owned()])
            .await
            .unwrap();
        assert_eq!(
            search
                .search("restart actors", 5)
                .await
                .unwrap()
                .value
                .len(),
            2
        );

        let asked = &rig.fakes.seen(Operation::OpenAi)[0];
        assert_eq!(asked.headers["authorization"], format!("Bearer {KEY}"));
        // 768 where the model's own length is 1536.
        assert_eq!(asked.body["dimensions"], 768);
        assert_eq!(rig.fakes.seen(Operation::Qdrant)[0].headers["api-key"], KEY);
        assert_eq!(rig.fakes.calls(Operation::Token), 0);
        let report = search.check_health(rig.runtime.clock()).await;
        assert_eq!(report.success_rate, 100, "{report:?}");
        rig.finish().await;
    });
}

#[test]
fn agents_set_up_mistakes_are_told_from_mistakes_of_callers() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let search = openai_and_qdrant(&rig, |config| config.auto_fallback = false).await;
        let notes = NOTES.map(|(id, content, kind)| document(id, content, kind));
        search.upsert(&notes).await.unwrap();
        // A model of another length, on the collection of the first one.
        let long = openai_and_qdrant(&rig, |config| {
            config.name = "long".to_owned();
            config.dimensions = 1024;
            config.auto_fallback = false;
        });
        let error = service_error(long.await.search("actors", 1).await.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");
        // No such collection.
        let nowhere = openai_and_qdrant(&rig, |config| {
            config.name = "nowhere".to_owned();
            config.collection = Some("misspelt".to_owned());
            config.auto_fallback = false;
        });
        let error = service_error(nowhere.await.search("actors", 1).await.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");
        // An answer of another length than the configured one.
        let odd = openai_and_qdrant(&rig, |config| {
            config.name = "odd".to_owned();
            config.model = "nomic-embed-text".to_owned();
            config.dimensions = 512;
            config.auto_fallback = false;
        });
        let error = service_error(odd.await.search("actors", 1).await.unwrap_err());
        let text = "its embeddings have the length 768, configured is 512";
        assert_eq!(
            (error.is_misconfigured(), &*error.to_string()),
            (true, text)
        );
        rig.finish().await;
    });
}

#[test]
fn agents_the_local_index_answers_queries_by_vector_too() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let search = openai_and_qdrant(&rig, |_| {}).await;
        let notes = NOTES.map(|(id, content, kind)| document(id, content, kind));
        search.upsert(&notes).await.unwrap();
        let vector = search.embed("bulkheads bound calls").await.unwrap().value;
        rig.fakes.set(Operation::Qdrant, Some(FakeFault::Html(502)));
        let found = search.find(vector.clone(), 1).await.unwrap();
        assert_eq!(found.source.to_string(), "fallback:local_index");
        assert_eq!(found.value[0].id, NOTES[2].0);
        let pages = VectorFilter::default().is("kind", "page");
        let query = VectorQuery::by_vector(vector, 5).filter(pages);
        let found = search.find_by(query).await.unwrap();
        assert_eq!((found.value.len(), &*found.value[0].id), (1, "17"));
        let words = search.find_by(VectorQuery::by_words("calls", 5)).await;
        assert!(matches!(words, Err(AgentError::Invalid(_))), "{words:?}");
        rig.finish().await;
    });
}

#[test]
fn agents_no_key_of_a_new_service_is_to_be_seen() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let search = openai_and_qdrant(&rig, |config| config.auto_fallback = false).await;
        for operation in [Operation::OpenAi, Operation::Qdrant] {
            for status in [400, 401, 429, 500] {
                rig.fakes.once(operation, FakeFault::Echo(status));
                let error = search.search("actors", 1).await.unwrap_err();
                let shown = format!("{error} {error:?} {search:?}");
                let parts = (0..=KEY.len() - 5).map(|at| &KEY[at..at + 5]);
                let leaks: Vec<&str> = parts.filter(|part| shown.contains(part)).collect();
                assert_eq!(leaks, Vec::<&str>::new(), "{shown}");
                super::jump(std::time::Duration::from_secs(90)).await;
            }
        }
        rig.finish().await;
    });
}

/// The parts of a search may be put together by the program itself.
#[test]
fn agents_providers_are_joined_by_the_program() {
    use breakerbox::agents::{OpenAiEmbedding, QdrantStore, VectorProviders};
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let base = rig.fakes.base();
        let embedding = OpenAiEmbedding::new(format!("{base}/v1/"), "nomic-embed-text", 768);
        let store = QdrantStore::new(&base, "notes").content_field("page_content");
        let providers = VectorProviders::new(
            Arc::new(embedding.named("docs_embed")),
            Arc::new(store.named("docs_find", "docs_write")),
        );
        let search = VectorSearch::with_providers(&rig.runtime, providers, ContentStore::default());
        let search = search.await.unwrap();
        assert_eq!(search.names(), ["docs_embed", "docs_find"]);
        search
            .upsert(&[document("1", "actors", "note")])
            .await
            .unwrap();
        let put = &rig.fakes.seen(Operation::Qdrant)[0];
        assert_eq!(put.body["points"][0]["payload"]["page_content"], "actors");
        assert_eq!(
            rig.fakes.seen(Operation::OpenAi)[0].body.get("dimensions"),
            None
        );
        rig.finish().await;
    });
}
