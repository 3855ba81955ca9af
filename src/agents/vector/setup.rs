//! Start of vector search: providers of a configuration or of the program, the dependencies for
//! them, and their local fallbacks.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::config::VectorConfig;
use super::local::local_embedding;
use super::provider::{EmbeddingBatch, EmbeddingProvider, VectorQuery, VectorStore};
use super::store::ContentStore;
use super::worker::{EmbeddingWorker, FindWorker, StoreWriter};
use super::{
    Credentials, Embedding, LOCAL_EMBEDDING, LOCAL_INDEX, Missing, VectorSearch, VectorStartError,
    list,
};
use crate::agents::token::{Tokens, keep};
use crate::agents::{ServiceError, ServicePort};
use crate::{CallError, Client, FallbackRule, NewDependency, Runtime, StartError, tls};

/// The providers of vector search, and the use of its local fallbacks. Cheap to clone.
#[derive(Clone)]
pub struct VectorProviders {
    pub(super) embedding: Arc<dyn EmbeddingProvider>,
    pub(super) store: Arc<dyn VectorStore>,
    pub(super) auto_fallback: bool,
    fallback_only: bool,
}

impl VectorProviders {
    /// Joins a provider of embeddings and a store of vectors. The store's vectors must be of the
    /// provider's model.
    #[must_use]
    pub fn new(embedding: Arc<dyn EmbeddingProvider>, store: Arc<dyn VectorStore>) -> Self {
        Self {
            embedding,
            store,
            auto_fallback: true,
            fallback_only: false,
        }
    }

    /// Sets the local fallbacks: true, the default, if local embeddings and the local index answer
    /// when a service does not; false if the error reaches the caller.
    #[must_use]
    pub fn auto_fallback(self, auto_fallback: bool) -> Self {
        Self {
            auto_fallback,
            ..self
        }
    }

    fn has_fallback(&self) -> bool {
        self.auto_fallback || self.fallback_only
    }
}

/// Starts vector search with the providers of a configuration.
pub(super) async fn start(
    runtime: &Runtime,
    config: VectorConfig,
    store: ContentStore,
) -> Result<VectorSearch, VectorStartError> {
    let missing = config.missing();
    if !missing.is_empty() && !config.auto_fallback && !config.fallback_only {
        return Err(VectorStartError::NotConfigured(missing));
    }
    let name = config.name.as_str();
    if !missing.is_empty() && !config.fallback_only {
        let why = list(&missing);
        tracing::warn!(dependency = name, "falling back to {LOCAL_INDEX}: {why}");
    }
    if let Some(warning) = config.ended_model() {
        tracing::warn!(dependency = name, "{warning}");
    }
    let unusable = |error: ServiceError| VectorStartError::Unusable(error.to_string());
    let usable = if missing.is_empty() {
        config.clone()
    } else {
        config.without_credentials()
    };
    let made = usable.providers(&store, runtime.clock());
    let (embedding, vectors) = made.map_err(unusable)?;
    let providers = VectorProviders {
        embedding,
        store: vectors,
        auto_fallback: config.auto_fallback,
        fallback_only: config.fallback_only || !missing.is_empty(),
    };
    let credentials = config.credentials.clone();
    let token_name = format!("{name}_token");
    dependencies(
        runtime,
        providers,
        store,
        (missing, credentials, token_name),
    )
    .await
}

/// Starts vector search with providers of the program.
pub(super) async fn start_with(
    runtime: &Runtime,
    providers: VectorProviders,
    store: ContentStore,
) -> Result<VectorSearch, VectorStartError> {
    let token_name = format!("{}_token", providers.embedding.name());
    let rest = (Vec::new(), Credentials::Missing, token_name);
    dependencies(runtime, providers, store, rest).await
}

async fn dependencies(
    runtime: &Runtime,
    providers: VectorProviders,
    store: ContentStore,
    (missing, credentials, token_name): (Vec<Missing>, Credentials, String),
) -> Result<VectorSearch, VectorStartError> {
    let tls = tls::client().map_err(VectorStartError::Unusable)?;
    if !providers.fallback_only {
        let tokens = distinct_tokens(&providers);
        for (tokens, name) in tokens
            .iter()
            .zip([&*token_name, &format!("{token_name}_2")])
        {
            keep(runtime, name, tokens).await?;
        }
    }
    let embed = start_embed(runtime, &providers, &tls).await?;
    let find = start_find(runtime, &providers, &tls, &store).await?;
    let write = start_write(runtime, &providers, &tls).await?;
    Ok(VectorSearch {
        missing: Arc::from(missing),
        credentials,
        providers,
        store,
        embed,
        find,
        write,
    })
}

/// Returns the tokens of both providers, once if they share them.
pub(super) fn distinct_tokens(providers: &VectorProviders) -> Vec<Arc<Tokens>> {
    let both = [providers.embedding.tokens(), providers.store.tokens()];
    let mut all: Vec<Arc<Tokens>> = Vec::new();
    for tokens in both.into_iter().flatten() {
        if !all.iter().any(|known| Arc::ptr_eq(known, &tokens)) {
            all.push(tokens);
        }
    }
    all
}

/// Returns a dependency by its name, with its connect timeout.
fn new(runtime: &Runtime, name: &str) -> (NewDependency, Option<Duration>) {
    let mut connect = None;
    let new = runtime.dependency(name).configure(|settings| {
        connect = settings.timeout.connect;
    });
    (new, connect)
}

async fn start_embed(
    runtime: &Runtime,
    providers: &VectorProviders,
    tls: &ClientConfig,
) -> Result<Client<EmbeddingWorker>, StartError> {
    let (new, connect) = new(runtime, providers.embedding.name());
    let (provider, tls) = (Arc::clone(&providers.embedding), tls.clone());
    let mut builder = new.workers(move || EmbeddingWorker {
        provider: Arc::clone(&provider),
        port: ServicePort::with_tls(tls.clone(), connect),
    });
    if providers.has_fallback() {
        let local = |batch: EmbeddingBatch, _: &CallError<ServiceError>| {
            let all = batch.texts.iter().map(|text| local_embedding(text));
            ready(Ok::<Vec<Embedding>, ServiceError>(all.collect()))
        };
        builder = builder.fallback_rule(FallbackRule::new(local).named(LOCAL_EMBEDDING));
    }
    builder.fallback_only(providers.fallback_only).start().await
}

async fn start_find(
    runtime: &Runtime,
    providers: &VectorProviders,
    tls: &ClientConfig,
    store: &ContentStore,
) -> Result<Client<FindWorker>, StartError> {
    let (new, connect) = new(runtime, providers.store.name());
    let (vectors, tls) = (Arc::clone(&providers.store), tls.clone());
    let mut builder = new.workers(move || FindWorker {
        store: Arc::clone(&vectors),
        port: ServicePort::with_tls(tls.clone(), connect),
    });
    if providers.has_fallback() {
        let store = store.clone();
        let local = move |query: VectorQuery, _: &CallError<ServiceError>| {
            let found = store.nearest_to(&query);
            ready(found.ok_or("the local index has no vectors of this model"))
        };
        builder = builder.fallback_rule(FallbackRule::new(local).named(LOCAL_INDEX));
    }
    builder.fallback_only(providers.fallback_only).start().await
}

/// Starts the dependency for writes. It has no fallback: a write that is kept here alone would be
/// lost.
async fn start_write(
    runtime: &Runtime,
    providers: &VectorProviders,
    tls: &ClientConfig,
) -> Result<Option<Client<StoreWriter>>, StartError> {
    let name = providers.store.write_name();
    let Some(name) = name.filter(|_| !providers.fallback_only) else {
        return Ok(None);
    };
    let (new, connect) = new(runtime, name);
    let (vectors, tls) = (Arc::clone(&providers.store), tls.clone());
    let builder = new.workers(move || StoreWriter {
        store: Arc::clone(&vectors),
        port: ServicePort::with_tls(tls.clone(), connect),
    });
    builder.start().await.map(Some)
}
