//! Providers as another crate would write them: with the public interface alone, and tested against
//! a fake of their own.

use std::sync::Arc;
use std::time::Duration;

use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::agents::{
    ContentStore, EmbeddingBatch, EmbeddingModel, EmbeddingProvider, Neighbor, ServicePort,
    VectorFilter, VectorProviders, VectorSearch,
};
use breakerbox_policy::{Class, State};
use serde_json::{Value, json};

use super::{Rig, run, service_error};

// begin of the provider
mod cohere {
    use breakerbox::CallContext;
    use breakerbox::agents::*;
    use breakerbox::config::Secret;
    use serde::Deserialize;
    use serde_json::json;

    pub(super) struct CohereEmbedding {
        pub(super) base: String,
        pub(super) key: Secret,
        pub(super) model: EmbeddingModel,
    }

    #[derive(Deserialize)]
    struct Answer {
        embeddings: Floats,
    }

    #[derive(Deserialize)]
    struct Floats {
        float: Vec<Vec<f32>>,
    }

    impl EmbeddingProvider for CohereEmbedding {
        fn name(&self) -> &str {
            "cohere_embed"
        }

        fn model(&self) -> &EmbeddingModel {
            &self.model
        }

        fn embed<'a>(
            &'a self,
            batch: &'a EmbeddingBatch,
            port: &'a ServicePort,
            call: &'a CallContext,
        ) -> ServiceFuture<'a, Vec<EmbeddedText>> {
            Box::pin(async move {
                let kind = match batch.task {
                    EmbeddingTask::Query => "search_query",
                    _ => "search_document",
                };
                let body = json!({ "model": &*self.model.name, "texts": &*batch.texts,
                    "input_type": kind, "embedding_types": ["float"] });
                let asked = ServiceRequest::post_json(format!("{}/v2/embed", self.base), &body)
                    .bearer(&self.key)?
                    .try_header("x-client-name", &format!("agents-{}", call.attempt()))?;
                let answer = port.send(asked, call).await?;
                let answer: Answer = answer.success().map_err(|error| error.without(&self.key))?;
                let vectors = answer.embeddings.float.into_iter();
                Ok(vectors.map(Into::into).collect())
            })
        }
    }
}
// end of the provider

const KEY: &str = "co-Zk41xQ9-7f";

fn provider(base: String) -> cohere::CohereEmbedding {
    cohere::CohereEmbedding {
        base,
        key: breakerbox::config::Secret::new(KEY),
        model: EmbeddingModel::new("embed-v4.0", 3).max_texts(2),
    }
}

/// Returns three numbers for each text: how often it has the letters a, b and c.
fn answer(texts: &Value) -> Value {
    let vector = |text: &Value| {
        let text = text.as_str().unwrap_or_default().to_owned();
        ['a', 'b', 'c'].map(|letter| text.matches(letter).count())
    };
    let all: Vec<_> = texts.as_array().unwrap().iter().map(vector).collect();
    json!({ "embeddings": { "float": all } })
}

#[test]
fn agents_a_provider_of_ones_own_has_sixty_lines_and_all_that_ours_have() {
    let own = include_str!("own_provider.rs");
    let (_, rest) = own.split_once("// begin of the provider\n").unwrap();
    let (lines, _) = rest.split_once("// end of the provider").unwrap();
    assert!(lines.lines().count() <= 60, "{}", lines.lines().count());
    run(async || {
        let rig = Rig::start(|_| {}).await;
        rig.fakes
            .serve("/v2/embed", |seen| (200, answer(&seen.body["texts"])));
        let providers = VectorProviders::new(
            Arc::new(provider(rig.fakes.base())),
            Arc::new(ContentStore::default()),
        );
        let store = ContentStore::default();
        let search =
            VectorSearch::with_providers(&rig.runtime, providers.auto_fallback(false), store);
        let search = search.await.unwrap();
        let texts = ["aab", "ccc", "bbb"].map(str::to_owned);
        let all = search.embed_all(&texts).await.unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(
            rig.fakes.calls(Operation::Own),
            2,
            "two texts in one request"
        );
        // The service's vectors have any norm; ours have the norm one.
        assert_eq!(&*all[2].values, [0.0, 1.0, 0.0]);
        let seen = &rig.fakes.seen(Operation::Own)[0];
        assert_eq!(seen.headers["x-client-name"], "agents-1");
        assert_eq!(seen.body["input_type"], "search_document");

        let throttled = FakeFault::Throttled {
            retry_after: Some(7),
            retry_info: None,
        };
        rig.fakes.once(Operation::Own, throttled);
        let error = service_error(search.embed("abc").await.unwrap_err());
        let hint = error.verdict().retry_after;
        assert_eq!(
            (error.verdict().class, hint),
            (Class::Throttled, Some(Duration::from_secs(7)))
        );
        super::jump(Duration::from_secs(9)).await;

        rig.fakes.once(Operation::Own, FakeFault::Echo(401));
        let error = service_error(search.embed("abc").await.unwrap_err());
        assert!(error.is_misconfigured());
        assert!(!error.to_string().contains("Zk41"), "{error}");
        rig.fakes.once(Operation::Own, FakeFault::internal());
        let error = service_error(search.embed("abc").await.unwrap_err());
        assert_eq!(
            error.to_string(),
            "it answered 500: Internal error encountered."
        );
        let status = rig.status("cohere_embed");
        assert_eq!((status.state, status.counts.failure), (State::Closed, 1));
        rig.finish().await;
    });
}

#[test]
fn agents_a_provider_and_the_local_store_find_and_filter() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        rig.fakes
            .serve("/v2/embed", |seen| (200, answer(&seen.body["texts"])));
        let embedding: Arc<dyn EmbeddingProvider> = Arc::new(provider(rig.fakes.base()));
        let notes = ContentStore::default();
        let providers =
            VectorProviders::new(embedding, Arc::new(notes.named("notes", "notes_write")));
        let search = VectorSearch::with_providers(&rig.runtime, providers, notes)
            .await
            .unwrap();
        assert_eq!(search.names(), ["cohere_embed", "notes"]);
        let note = |id: &str, content: &str, year: i32| {
            let line = json!({ "id": id, "content": content, "metadata": { "year": year } });
            serde_json::from_value(line).unwrap()
        };
        let documents = [
            note("1", "aaa b", 2025),
            note("2", "aab", 2026),
            note("3", "ccc", 2026),
        ];
        search.upsert(&documents).await.unwrap();
        let ids = |found: &[Neighbor]| -> Vec<String> {
            found.iter().map(|one| one.id.clone()).collect()
        };
        let found = search.search("aaa", 2).await.unwrap();
        assert!(found.is_primary());
        assert_eq!(ids(&found.value), ["1", "2"]);
        let newer = VectorFilter::default().at_least("year", 2026.0);
        let found = search.search_where("aaa", 1, newer).await.unwrap();
        assert_eq!(ids(&found.value), ["2"]);
        assert_eq!(found.value[0].content.as_deref(), Some("aab"));
        let words = breakerbox::agents::VectorQuery::by_words("ccc", 5);
        assert_eq!(ids(&search.find_by(words).await.unwrap().value), ["3"]);
        search.remove(&["1".to_owned()]).await.unwrap();
        assert_eq!(ids(&search.search("aaa", 5).await.unwrap().value)[0], "2");
        rig.finish().await;
    });
}

/// A port works outside of a call as well, as sources of tokens need it.
#[test]
fn agents_a_port_is_made_and_used_without_a_runtime() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        rig.fakes.serve("/own/", |seen| {
            (
                200,
                json!({ "target": seen.target, "method": seen.method.as_str(), "body": seen.body }),
            )
        });
        let port = ServicePort::new(Some(Duration::from_secs(3))).unwrap();
        let url = |path: &str| format!("{}/own/{path}", rig.fakes.base());
        use breakerbox::agents::ServiceRequest as Request;
        let body = json!({ "a": 1 });
        for (asked, method, target, sent) in [
            (
                Request::get(url("a")).query("q", "x y&z"),
                "GET",
                "/own/a?q=x%20y%26z",
                Value::Null,
            ),
            (
                Request::put_json(url("b"), &body),
                "PUT",
                "/own/b",
                body.clone(),
            ),
            (
                Request::post_json(url("b?w=1"), &body).query("v", "2"),
                "POST",
                "/own/b?w=1&v=2",
                body.clone(),
            ),
            (
                Request::post_form(url("c"), &[("a b", "c&d")]),
                "POST",
                "/own/c",
                json!("a%20b=c%26d"),
            ),
            (Request::delete(url("d")), "DELETE", "/own/d", Value::Null),
        ] {
            let answer: Value = port.send_alone(asked).await.unwrap().success().unwrap();
            assert_eq!(
                answer,
                json!({ "target": target, "method": method, "body": sent })
            );
        }
        let wrong = Request::get(url("a")).try_header("x y", "z").unwrap_err();
        assert!(wrong.is_misconfigured());
        rig.finish().await;
    });
}

/// The batch is made by the client; a test of a provider may make one too.
#[test]
fn agents_a_batch_is_within_the_limits_of_its_model() {
    let model = EmbeddingModel::new("m", 3).max_tokens(4);
    let of = |text: &str| {
        let task = breakerbox::agents::EmbeddingTask::Query;
        EmbeddingBatch::of(&model, &[text.to_owned()], task)
    };
    assert_eq!(of("four letters").unwrap().tokens.get(), 3);
    assert!(of("many more than sixteen letters").is_err());
}
