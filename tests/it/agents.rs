//! Services of agent systems over real sockets: acceptance tests 43 to 63.
//!
//! The services are the fakes. Time is real while a request is in flight, and is advanced where
//! hours have to pass.

mod chroma;
mod credentials;
#[cfg(feature = "cli")]
mod graph;
mod health;
mod models;
mod own_provider;
#[cfg(feature = "cli")]
mod secrets;
mod services;
mod tokens;
mod vector;
mod web;
mod web_exa_serper;
mod web_options;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use breakerbox::agents::fakes::{ENGINE, Fakes, Operation};
use breakerbox::agents::{
    AgentError, Brave, ContentStore, CustomSearch, Document, ServiceError, VectorConfig,
    VectorSearch, VectorStartError, WebProvider, WebSearch,
};
use breakerbox::config::Secret;
use breakerbox::{CallError, Clock, DependencyStatus, RuntimeSettings};
use breakerbox_actors::testing::TestRuntime;
use breakerbox_policy::DependencySettings;
use serde_json::Map;

/// Key in the format of Google's keys.
const KEY: &str = "AIzaSyQx7-Wv3PkZ";
/// Key in the format of Brave's keys.
const BRAVE_KEY: &str = "BSAq9Zt-41xLmE";

/// Noon in California, in winter.
const NOON: &str = "2026-01-10T20:00:00Z";

/// Runs a test on one thread with an actix system, in real time. Every call has its own deadline;
/// all other waiting goes through [`until`].
fn run<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    actix::System::new().block_on(test())
}

/// Advances the time without waiting for requests in flight.
async fn jump(span: Duration) {
    tokio::time::pause();
    tokio::time::advance(span).await;
    tokio::time::resume();
}

/// Polls until the condition is true, for at most 20 seconds.
async fn until(mut wanted: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if wanted() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it did not come to pass");
}

/// Three documents in the store and in the index.
const DOCUMENTS: [(&str, &str); 3] = [
    ("breakers", "circuit breakers open after failures in a row"),
    ("supervisors", "supervisors restart actors after a panic"),
    ("bulkheads", "bulkheads bound the calls in flight"),
];

/// The fakes, a runtime, and the two searches, configured by the test.
struct Rig {
    fakes: Fakes,
    runtime: TestRuntime,
}

impl Rig {
    /// Starts with these settings for every dependency.
    async fn start(configure: impl Fn(&mut DependencySettings)) -> Self {
        let mut settings = DependencySettings::default();
        configure(&mut settings);
        let names = [
            "vector_embed",
            "vector_find",
            "vector_write",
            "web_google",
            "web_brave",
        ];
        let dependencies = names.map(|name| (name.to_owned(), settings.clone()));
        let runtime = TestRuntime::with(RuntimeSettings {
            dependencies: dependencies.into(),
            clock: Some(Clock::tokio_at(NOON.parse().unwrap())),
            ..RuntimeSettings::default()
        })
        .await;
        let fakes = Fakes::start().await.unwrap();
        for (id, text) in DOCUMENTS {
            fakes.index(id, text);
            fakes.publish(format!("https://example.org/{id}"), text);
        }
        Self { fakes, runtime }
    }

    fn store() -> ContentStore {
        let store = ContentStore::default();
        for (id, content) in DOCUMENTS {
            store.put(Document {
                id: id.to_owned(),
                content: content.to_owned(),
                metadata: Map::from_iter([("kind".to_owned(), "note".into())]),
            });
        }
        store
    }

    async fn try_vector(
        &self,
        change: impl FnOnce(&mut VectorConfig),
    ) -> Result<VectorSearch, VectorStartError> {
        let mut config = self.fakes.vector_config();
        change(&mut config);
        VectorSearch::start(&self.runtime, config, Self::store()).await
    }

    async fn vector(&self, change: impl FnOnce(&mut VectorConfig)) -> VectorSearch {
        self.try_vector(change).await.unwrap()
    }

    fn google(&self) -> Arc<dyn WebProvider> {
        let google = CustomSearch::new(Secret::new(KEY), ENGINE);
        Arc::new(google.at(self.fakes.base()))
    }

    fn brave(&self) -> Arc<dyn WebProvider> {
        Arc::new(Brave::new(Secret::new(BRAVE_KEY)).at(self.fakes.base()))
    }

    async fn web(&self, providers: Vec<Arc<dyn WebProvider>>) -> WebSearch {
        WebSearch::start(&self.runtime, providers).await.unwrap()
    }

    fn status(&self, name: &str) -> DependencyStatus {
        self.runtime.status(name).unwrap()
    }

    /// Returns the number of requests of all kinds so far.
    fn calls(&self) -> usize {
        let all = [
            Operation::Token,
            Operation::Embed,
            Operation::Find,
            Operation::CustomSearch,
            Operation::Brave,
        ];
        all.iter().map(|one| self.fakes.calls(*one)).sum()
    }

    async fn finish(self) {
        self.runtime.finish().await;
    }
}

/// Returns the service's own error that ended a call.
fn service_error(error: AgentError) -> ServiceError {
    match error {
        AgentError::Call(CallError::Failed { error, .. }) => error,
        other => panic!("another end: {other}"),
    }
}
