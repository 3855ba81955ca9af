//! Vector search: a text becomes an embedding, the index names its neighbours, the store knows
//! what stands behind them.
//!
//! Embeddings and neighbours are two dependencies with two breakers. Where one of them does not
//! answer, local embeddings and a local index do, and the answer says so. A local embedding never
//! reaches the index: its numbers mean something else there.

mod config;
mod input;
mod local;
mod probe;
mod service;
mod store;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::token::{Tokens, keep};
use super::{AgentError, ServiceError};
use crate::{Answer, CallError, Client, NewDependency, Rule, Runtime, Source, StartError, tls};

pub use config::{Credentials, Missing, VectorConfig};
use input::check_count;
pub use local::{LOCAL_MODEL, LocalIndex, local_embedding};
use service::{Embed, Find, Place, Texts, Wanted};
pub use store::{ContentStore, Document};

/// What a question is for, to the model.
const QUERY: &str = "RETRIEVAL_QUERY";
/// What a text of the index is for.
const DOCUMENT: &str = "RETRIEVAL_DOCUMENT";
/// The name of the fallbacks, as answers and events give it.
const LOCAL_EMBEDDING: &str = "local_embedding";
const LOCAL_INDEX: &str = "local_index";

/// What a model makes of a text. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// Its numbers.
    pub values: Arc<[f32]>,
    /// The model; only embeddings of one model can be compared.
    pub model: Arc<str>,
    /// Whether the text was too long, and its end was left out.
    pub truncated: bool,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbor {
    /// Its id.
    pub id: String,
    /// How near it is: what the index measures, or the cosine of the local one.
    pub score: f64,
    /// Its text; `None` where the store does not know the id.
    pub content: Option<String>,
    /// What else is known of it.
    pub metadata: Map<String, Value>,
}

impl Neighbor {
    fn bare(id: String, score: f64) -> Self {
        Self {
            id,
            score,
            content: None,
            metadata: Map::new(),
        }
    }

    /// Whether the index knows it and the store does not: one of them is behind the other.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.content.is_none()
    }
}

/// Why vector search cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorStartError {
    /// Something is missing, and nothing is to stand in for the service.
    #[error("vector search cannot be started: {}", list(.0))]
    NotConfigured(Vec<Missing>),
    /// TLS or the credentials cannot be used.
    #[error("vector search cannot be started: {0}")]
    Unusable(String),
    /// The runtime did not start a dependency.
    #[error(transparent)]
    Start(#[from] StartError),
}

fn list(missing: &[Missing]) -> String {
    let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// Vector search, protected. Cheap to clone.
#[derive(Clone)]
pub struct VectorSearch {
    config: Arc<VectorConfig>,
    missing: Arc<[Missing]>,
    store: ContentStore,
    embed: Client<Embed>,
    find: Client<Find>,
    find_place: Place,
    embed_place: Place,
}

impl VectorSearch {
    /// Starts its dependencies, whose settings are those of the runtime's configuration.
    ///
    /// Where something is missing and `auto_fallback` is on, everything is answered locally, with
    /// one warning that says why.
    ///
    /// # Errors  Something is missing and nothing stands in, or a dependency did not start.
    pub async fn start(
        runtime: &Runtime,
        config: VectorConfig,
        store: ContentStore,
    ) -> Result<Self, VectorStartError> {
        let missing = config.missing();
        if !missing.is_empty() && !config.auto_fallback && !config.fallback_only {
            return Err(VectorStartError::NotConfigured(missing));
        }
        let local_only = config.fallback_only || !missing.is_empty();
        if !missing.is_empty() && !config.fallback_only {
            let why = list(&missing);
            tracing::warn!(
                dependency = config.name,
                "falling back to {LOCAL_INDEX}: {why}"
            );
        }
        let source = if missing.is_empty() {
            config.source()
        } else {
            VectorConfig::default().source()
        };
        let source = source.map_err(|error| VectorStartError::Unusable(error.to_string()))?;
        let tokens = Arc::new(Tokens::new(source, runtime.clock().clone()));
        if !local_only {
            keep(runtime, &format!("{}_token", config.name), &tokens).await?;
        }
        let embed_place = Place {
            url: config.embed_url(),
            model: Arc::from(config.model.as_str()),
            dimensions: config.dimensions,
            deployed_index: config.deployed_index.clone().unwrap_or_default(),
            tokens,
            tls: tls::client().map_err(VectorStartError::Unusable)?,
        };
        let find_place = Place {
            url: config.find_url(),
            ..embed_place.clone()
        };
        let embed = start_embed(runtime, &config, &embed_place, local_only).await?;
        let find = start_find(runtime, &config, &find_place, &store, local_only).await?;
        Ok(Self {
            config: Arc::new(config),
            missing: Arc::from(missing),
            store,
            embed,
            find,
            find_place,
            embed_place,
        })
    }

    /// Finds what is near to a text.
    ///
    /// # Errors  The input is none, or nobody could answer.
    pub async fn search(
        &self,
        text: &str,
        count: u32,
    ) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        let count = check_count(count)?;
        let embedded = self.embed(text).await?;
        if *embedded.value.model == *LOCAL_MODEL {
            // Its numbers mean nothing to the index.
            return Ok(Answer {
                value: self.store.nearest(text, count),
                source: Source::Fallback(Arc::from(LOCAL_INDEX)),
                age: None,
                attempts: embedded.attempts,
                elapsed: embedded.elapsed,
            });
        }
        let wanted = Wanted {
            text: Some(Arc::from(text)),
            vector: embedded.value,
            count,
        };
        self.ask_index(wanted).await
    }

    /// Finds what is near to an embedding of the index's model.
    ///
    /// # Errors  The embedding is of another model or another length, or nobody could answer: the
    /// local index knows words only.
    pub async fn find(
        &self,
        vector: Embedding,
        count: u32,
    ) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        self.find_place.check(&vector)?;
        let count = check_count(count)?;
        let wanted = Wanted {
            text: None,
            vector,
            count,
        };
        self.ask_index(wanted).await
    }

    async fn ask_index(&self, wanted: Wanted) -> Result<Answer<Vec<Neighbor>>, AgentError> {
        let mut answer = self.find.ask(wanted).await?;
        answer.value = self.store.join(answer.value);
        Ok(answer)
    }

    /// The embedding of a question.
    ///
    /// # Errors  The text is empty or too long, or nobody could answer.
    pub async fn embed(&self, text: &str) -> Result<Answer<Embedding>, AgentError> {
        let texts = Texts::of(&self.config, &[text.to_owned()], QUERY)?;
        let answer = self.embed.ask(texts).await?;
        let Answer {
            value,
            source,
            age,
            attempts,
            elapsed,
        } = answer;
        let first = value.into_iter().next();
        let value = first.unwrap_or_else(|| local_embedding(text));
        Ok(Answer {
            value,
            source,
            age,
            attempts,
            elapsed,
        })
    }

    /// The embeddings of documents, in as many requests as the limits of one make necessary.
    ///
    /// # Errors  A text is empty or too long by itself, and nothing was asked; or nobody could
    /// answer, and what was answered before is lost.
    pub async fn embed_all(&self, texts: &[String]) -> Result<Vec<Embedding>, AgentError> {
        let batches = Texts::batches(&self.config, texts, DOCUMENT)?;
        let mut all = Vec::with_capacity(texts.len());
        for batch in batches {
            all.extend(self.embed.ask(batch).await?.value);
        }
        Ok(all)
    }

    /// Its content store: documents may be put in at any time.
    #[must_use]
    pub fn store(&self) -> &ContentStore {
        &self.store
    }

    /// What is missing, for want of which everything is answered locally.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// The names of its dependencies: embeddings, neighbours.
    #[must_use]
    pub fn names(&self) -> [&str; 2] {
        [self.embed.name(), self.find.name()]
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.config.credentials
    }

    /// The index's model, and how long its vectors are.
    pub(super) fn model(&self) -> (Arc<str>, usize) {
        (
            Arc::clone(&self.find_place.model),
            self.find_place.dimensions,
        )
    }
}

impl fmt::Debug for VectorSearch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("VectorSearch")
            .field("names", &self.names())
            .field("missing", &self.missing)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// A dependency by its name, and how long a connection to it may take.
fn new(runtime: &Runtime, name: String) -> (NewDependency, Option<std::time::Duration>) {
    let mut connect = None;
    let new = runtime.dependency(name).configure(|settings| {
        connect = settings.timeout.connect;
    });
    (new, connect)
}

async fn start_embed(
    runtime: &Runtime,
    config: &VectorConfig,
    place: &Place,
    local_only: bool,
) -> Result<Client<Embed>, StartError> {
    let (new, connect) = new(runtime, format!("{}_embed", config.name));
    let place = place.clone();
    let mut builder = new.workers(move || Embed::new(place.clone(), connect));
    if local_only || config.auto_fallback {
        let local = |texts: Texts, _: &CallError<ServiceError>| {
            let all = texts
                .texts
                .iter()
                .map(|text| local_embedding(text))
                .collect();
            std::future::ready(Ok::<Vec<Embedding>, ServiceError>(all))
        };
        builder = builder.fallback_rule(Rule::new(local).named(LOCAL_EMBEDDING));
    }
    if local_only {
        builder = builder.fallback_only(true);
    }
    builder.start().await
}

async fn start_find(
    runtime: &Runtime,
    config: &VectorConfig,
    place: &Place,
    store: &ContentStore,
    local_only: bool,
) -> Result<Client<Find>, StartError> {
    let (new, connect) = new(runtime, format!("{}_find", config.name));
    let (place, store) = (place.clone(), store.clone());
    let mut builder = new.workers(move || Find::new(place.clone(), connect));
    if local_only || config.auto_fallback {
        let local = move |wanted: Wanted, _: &CallError<ServiceError>| {
            let found = wanted.text.map(|text| store.nearest(&text, wanted.count));
            std::future::ready(found.ok_or("the local index knows words only, no vectors"))
        };
        builder = builder.fallback_rule(Rule::new(local).named(LOCAL_INDEX));
    }
    if local_only {
        builder = builder.fallback_only(true);
    }
    builder.start().await
}
