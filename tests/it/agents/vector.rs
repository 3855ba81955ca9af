//! Items 43 to 50, 54, 55 and 87: vector search and its fallbacks.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::agents::{
    AgentError, ContentStore, Credentials, Embedding, LOCAL_MODEL, VectorConfig, VectorStartError,
    local_embedding,
};
use breakerbox::{Answer, CallError, EventKind, Health, Limit};
use breakerbox_policy::{RateLimitSettings, State};
use serde_json::json;

use super::{Rig, run, service_error};
use crate::log::Log;
use crate::scripted::nonzero;

fn source<T>(answer: &Answer<T>) -> String {
    answer.source.to_string()
}

/// Checks a configuration that `break_it` made incomplete: the search answers locally and says why,
/// or does not start.
async fn item_43_or_44(break_it: impl Fn(&mut VectorConfig), why: &str, variable: &str) {
    let log = Log::capture();
    let rig = Rig::start(|_| {}).await;
    let vector = rig.vector(&break_it).await;
    let found = vector.search("restart actors", 2).await.unwrap();
    assert_eq!(found.value[0].id, "supervisors");
    assert_eq!(source(&found), "fallback:local_index");
    let missing = &vector.missing()[0];
    assert!(missing.problem.contains(why), "{missing}");
    assert_eq!(missing.variable, variable);
    let lines = log.lines("falling back to local_index: ");
    assert!(lines.len() == 1 && lines[0].contains(why), "{lines:?}");
    assert_eq!(rig.calls(), 0);
    assert!(matches!(
        rig.status("vector_find").health,
        Health::Degraded { .. }
    ));
    rig.finish().await;

    let rig = Rig::start(|_| {}).await;
    let refused = rig.try_vector(|config| {
        break_it(config);
        config.auto_fallback = false;
    });
    let error = refused.await.unwrap_err();
    assert!(matches!(error, VectorStartError::NotConfigured(_)));
    assert!(error.to_string().contains(why), "{error}");
    rig.finish().await;
}

#[test]
fn item_43_without_a_project_it_starts_in_fallback_or_not_at_all() {
    run(async || {
        let without = |config: &mut VectorConfig| config.project = None;
        item_43_or_44(without, "project id missing", "GOOGLE_CLOUD_PROJECT").await;
    });
}

#[test]
fn item_44_without_credentials_it_starts_in_fallback_or_not_at_all() {
    run(async || {
        let nowhere = |config: &mut VectorConfig| {
            let path = std::env::temp_dir().join("breakerbox-no-such-key.json");
            config.credentials = Credentials::KeyFile(path);
        };
        let variable = "GOOGLE_APPLICATION_CREDENTIALS";
        item_43_or_44(nowhere, "credentials: there is no such file", variable).await;
    });
}

#[test]
fn item_45_what_the_service_refuses_is_misconfigured_told_once_and_not_retried() {
    run(async || {
        let rig = Rig::start(|settings| settings.retry.max_attempts = nonzero(3)).await;
        // A 404 from the service's own check.
        let wrong = |config: &mut VectorConfig| config.deployed_index = Some("other".to_owned());
        let vector = rig.vector(wrong).await;
        let mut searches = 0;
        for fault in [
            None,
            Some(FakeFault::Google(403, "PERMISSION_DENIED", "No rights.")),
        ] {
            rig.fakes.set(Operation::Find, fault);
            for _ in 0..2 {
                let found = vector.search("breakers", 3).await.unwrap();
                assert_eq!(source(&found), "fallback:local_index");
                searches += 1;
            }
        }
        assert_eq!(
            rig.fakes.calls(Operation::Find),
            searches,
            "one attempt each"
        );
        let status = rig.status("vector_find");
        assert_eq!(status.counts.misconfigured, searches as u64);
        assert_eq!((status.state, status.window.failures), (State::Closed, 0));
        let Health::Degraded { reason } = status.health else {
            panic!("{}", status.health);
        };
        assert_eq!(reason, "it refuses our configuration");
        let told = rig.runtime.events_since(0).into_iter();
        let told: Vec<String> = told
            .filter(|event| matches!(event.kind, EventKind::Misconfigured { .. }))
            .map(|event| format!("{}: {}", event.subject, event.kind))
            .collect();
        assert_eq!(
            told,
            [
                "vector_find: refuses our configuration; every call fails until it is corrected (it answered 404)"
            ]
        );
        rig.finish().await;

        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|config| {
            wrong(config);
            config.auto_fallback = false;
        });
        let error = service_error(vector.await.search("breakers", 3).await.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains("404 NOT_FOUND"), "{error}");
        rig.finish().await;
    });
}

#[test]
fn item_46_without_embeddings_the_local_index_answers_and_the_service_is_not_mixed_in() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|_| {}).await;
        rig.fakes.set(Operation::Embed, Some(FakeFault::internal()));
        let found = vector.search("supervisors restart", 3).await.unwrap();
        assert_eq!(found.value[0].id, "supervisors");
        assert_eq!(source(&found), "fallback:local_index");
        // A local embedding is meaningless to the index.
        assert_eq!(rig.fakes.calls(Operation::Find), 0);
        let local = vector.embed("supervisors").await.unwrap();
        assert_eq!(&*local.value.model, LOCAL_MODEL);
        assert_eq!(source(&local), "fallback:local_embedding");
        let error = vector.find(local.value, 3).await.unwrap_err();
        assert!(matches!(error, AgentError::Invalid(_)), "{error}");
        assert_eq!(rig.fakes.calls(Operation::Find), 0);
        rig.fakes.set(Operation::Embed, None);
        assert!(vector.search("supervisors", 3).await.unwrap().is_primary());
        rig.finish().await;
    });
}

#[test]
fn item_47_each_operation_has_its_own_breaker() {
    run(async || {
        let opens = |settings: &mut breakerbox_policy::DependencySettings| {
            settings.breaker.failure_threshold = Some(nonzero(1));
        };
        let rig = Rig::start(opens).await;
        let vector = rig.vector(|_| {}).await;
        rig.fakes.set(Operation::Find, Some(FakeFault::internal()));
        for _ in 0..2 {
            let found = vector.search("calls in flight", 3).await.unwrap();
            assert_eq!(found.value[0].id, "bulkheads");
            assert_eq!(source(&found), "fallback:local_index");
        }
        assert_eq!(rig.fakes.calls(Operation::Find), 1, "it is open");
        let embedded = vector.embed("calls in flight").await.unwrap();
        assert!(embedded.is_primary());
        assert_eq!(embedded.value.values.len(), 768);
        let states = [
            rig.status("vector_embed").state,
            rig.status("vector_find").state,
        ];
        assert_eq!(states, [State::Closed, State::Open]);
        rig.finish().await;
    });
}

#[test]
fn item_48_an_empty_text_is_refused_before_anything_is_asked() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|_| {}).await;
        for text in ["", "  \n"] {
            let error = vector.embed(text).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "the text: given none, allowed a text that is not empty"
            );
            let error = vector.search(text, 3).await.unwrap_err();
            assert!(matches!(error, AgentError::Invalid(_)));
        }
        for count in [0, 1_001] {
            let error = vector.search("breakers", count).await.unwrap_err();
            assert!(matches!(error, AgentError::Invalid(_)), "{count}");
        }
        assert_eq!(rig.fakes.calls(Operation::Embed), 0);
        for name in vector.names() {
            let status = rig.status(name);
            assert_eq!((status.totals.submitted, status.window.failures), (0, 0));
        }
        rig.finish().await;
    });
}

#[test]
fn item_49_a_local_answer_has_everything_that_an_answer_has() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|config| config.fallback_only = true).await;
        let found = vector.search("open after failures", 1).await.unwrap();
        let first = &found.value[0];
        assert_eq!(first.id, "breakers");
        assert!(first.score > 0.0 && first.score <= 1.0, "{}", first.score);
        let content = "circuit breakers open after failures in a row";
        assert_eq!(first.content.as_deref(), Some(content));
        assert_eq!(first.metadata["kind"], json!("note"));
        let one = vector.embed("open after failures").await.unwrap().value;
        assert_eq!(one.values.len(), 768);
        assert_eq!(one, local_embedding("open after failures"));
        assert_eq!(rig.calls(), 0, "not even for a token");
        rig.finish().await;
    });
}

#[test]
fn item_50_a_success_then_failures_up_to_the_threshold_then_the_open_error() {
    run(async || {
        let rig = Rig::start(|settings| {
            settings.breaker.failure_threshold = Some(nonzero(3));
        })
        .await;
        let vector = rig.vector(|config| config.auto_fallback = false).await;
        let found = vector.search("breakers", 3).await.unwrap();
        assert!(found.is_primary() && !found.value.is_empty());
        rig.fakes.set(Operation::Find, Some(FakeFault::internal()));
        for _ in 0..3 {
            let error = service_error(vector.search("breakers", 3).await.unwrap_err());
            assert_eq!(
                error.to_string(),
                "it answered 500 INTERNAL: Internal error encountered."
            );
        }
        let error = vector.search("breakers", 3).await.unwrap_err();
        assert!(matches!(error.call(), Some(CallError::Open(_))), "{error}");
        assert_eq!(rig.fakes.calls(Operation::Find), 4);
        rig.finish().await;
    });
}

#[test]
fn item_54_ids_are_joined_with_what_the_store_knows() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        rig.fakes
            .index("orphan", "circuit breakers open after failures");
        let vector = rig.vector(|_| {}).await;
        let found = vector
            .search("circuit breakers open after failures", 4)
            .await
            .unwrap();
        assert!(found.is_primary());
        let known: Vec<(&str, bool)> = found
            .value
            .iter()
            .map(|one| (one.id.as_str(), one.is_orphan()))
            .collect();
        assert_eq!(known[..2], [("orphan", true), ("breakers", false)]);
        assert_eq!(found.value[0].content, None);
        assert!(
            found.value[1]
                .content
                .as_ref()
                .unwrap()
                .ends_with("in a row")
        );
        // The request has the service's own format.
        let asked = &rig.fakes.seen(Operation::Find)[0];
        assert_eq!(
            asked.target,
            "/v1/projects/project-1/locations/us-central1/indexEndpoints/7:findNeighbors"
        );
        assert_eq!(asked.body["deployedIndexId"], "deployed_1");
        assert_eq!(asked.body["queries"][0]["neighborCount"], 4);
        assert_eq!(asked.body["returnFullDatapoint"], false);
        let asked = &rig.fakes.seen(Operation::Embed)[0];
        assert_eq!(
            asked.target,
            "/v1/projects/project-1/locations/us-central1/publishers/google/models/gemini-embedding-001:predict"
        );
        assert_eq!(asked.body["instances"][0]["task_type"], "RETRIEVAL_QUERY");
        assert_eq!(
            asked.body["parameters"],
            json!({ "autoTruncate": true, "outputDimensionality": 768 })
        );
        rig.finish().await;
    });
}

#[test]
fn item_54_a_store_is_read_from_lines_of_json() {
    let store = ContentStore::default();
    let lines = "{\"id\":\"a\",\"content\":\"one\",\"metadata\":{\"n\":1}}\n\n{\"id\":\"b\",\"content\":\"two\"}\n";
    assert_eq!(store.load(Cursor::new(lines)).unwrap(), 2);
    assert_eq!(store.get("a").unwrap().metadata["n"], 1);
    assert_eq!(store.nearest("two", 5)[0].id, "b");
    let error = store.load(Cursor::new("{\"id\":\"c\"}")).unwrap_err();
    assert!(
        error.to_string().starts_with("line 1 is not a document"),
        "{error}"
    );
    assert_eq!(store.len(), 2);
}

#[test]
fn item_55_a_vector_of_another_length_or_model_is_refused_here() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|_| {}).await;
        let of = |model: &str, length: usize| Embedding {
            values: Arc::from(vec![0.5; length]),
            model: Arc::from(model),
            truncated: false,
        };
        let error = vector
            .find(of("gemini-embedding-001", 3072), 3)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the vector: given 3072 numbers, allowed 768"
        );
        let error = vector
            .find(of("text-embedding-005", 768), 3)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the vector: given one of text-embedding-005, allowed one of gemini-embedding-001"
        );
        assert_eq!(rig.fakes.calls(Operation::Find), 0);
        assert_eq!(rig.status("vector_find").totals.submitted, 0);
        let found = vector.find(of("gemini-embedding-001", 768), 3).await;
        let found = found.unwrap();
        assert!(found.is_primary());
        rig.finish().await;
    });
}

#[test]
fn item_58_what_is_no_answer_is_an_error_or_a_labelled_fallback() {
    run(async || {
        for operation in [Operation::Embed, Operation::Find] {
            for fault in [
                FakeFault::internal(),
                FakeFault::Html(502),
                FakeFault::Malformed,
                FakeFault::OtherShape,
                FakeFault::CutOff,
                FakeFault::Hang,
            ] {
                let rig = Rig::start(|settings| {
                    settings.timeout.attempt = Some(Duration::from_millis(100));
                })
                .await;
                let vector = rig.vector(|_| {}).await;
                rig.fakes.set(operation, Some(fault.clone()));
                let found = vector.search("breakers", 3).await.unwrap();
                // Google sends an object without neighbours if there are none.
                let none_found = operation == Operation::Find && fault == FakeFault::OtherShape;
                assert_eq!(found.is_primary(), none_found, "{operation:?} {fault:?}");
                assert_eq!(found.value.is_empty(), none_found);
                rig.finish().await;
            }
        }
    });
}

#[test]
fn item_87_a_batch_is_split_by_texts_and_tokens_and_what_is_too_long_is_refused() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let vector = rig.vector(|config| {
            config.model = "text-embedding-005".to_owned();
            config.max_texts = 4;
            config.max_tokens = 100;
        });
        let vector = vector.await;
        let short = vec!["four letters".to_owned(); 9];
        assert_eq!(vector.embed_all(&short).await.unwrap().len(), 9);
        let sizes = |rig: &Rig| -> Vec<usize> {
            let seen = rig.fakes.seen(Operation::Embed).into_iter();
            seen.map(|one| one.body["instances"].as_array().unwrap().len())
                .collect()
        };
        assert_eq!(sizes(&rig), [4, 4, 1], "by the number of texts");
        let long = vec!["x".repeat(160); 3];
        assert_eq!(vector.embed_all(&long).await.unwrap().len(), 3);
        assert_eq!(sizes(&rig)[3..], [2, 1], "40 tokens each");
        let error = vector.embed_all(&["y".repeat(404)]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the text: given about 101 tokens, allowed 100 in one request"
        );
        assert_eq!(rig.fakes.calls(Operation::Embed), 5);
        rig.finish().await;
    });
}

#[test]
fn item_87_embeddings_weigh_their_tokens() {
    run(async || {
        let rig = Rig::start(|settings| {
            settings.rate_limit = Some(RateLimitSettings {
                rate: 10.0,
                per: Duration::from_secs(60),
                burst: nonzero(100),
                max_wait: Duration::ZERO,
            });
        })
        .await;
        let vector = rig.vector(|config| config.auto_fallback = false).await;
        vector.embed(&"x".repeat(240)).await.unwrap();
        let error = vector.embed(&"x".repeat(240)).await.unwrap_err();
        assert!(
            matches!(
                error.call(),
                Some(CallError::RateLimited {
                    limit: Limit::Rate,
                    ..
                })
            ),
            "{error}"
        );
        assert_eq!(rig.fakes.calls(Operation::Embed), 1);
        rig.finish().await;
    });
}
