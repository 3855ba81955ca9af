//! Configuration of vector search: the services, their credentials and the fallbacks, read from
//! variables and checked for missing settings.

use std::fmt;
use std::sync::Arc;

use super::store::ContentStore;
use super::vertex::{self, VertexEmbedding, VertexIndex};
use super::{ChromaStore, EmbeddingProvider, OpenAiEmbedding, QdrantStore, VectorStore};
use crate::agents::token::Credentials;
use crate::agents::{ServiceError, Tokens};
use crate::config::Secret;

mod variables;

/// OpenAI's own base URL.
pub(super) const OPENAI: &str = "https://api.openai.com/v1";

/// Lengths of the embeddings of known models.
const LENGTHS: [(&str, usize); 9] = [
    ("gemini-embedding-001", 768),
    ("gemini-embedding-2", 768),
    ("gemini-embedding-2-preview", 768),
    ("text-embedding-005", 768),
    ("text-multilingual-embedding-002", 768),
    ("text-embedding-004", 768),
    ("text-embedding-3-small", 1536),
    ("text-embedding-3-large", 3072),
    ("text-embedding-ada-002", 1536),
];

/// Models that have ended or have an announced end, by the beginning of their names.
const ENDED: [&str; 4] = [
    "text-embedding-004",
    "textembedding-gecko",
    "text-multilingual-embedding-001",
    "embedding-001",
];

/// A service for embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EmbeddingService {
    /// Vertex AI.
    #[default]
    Vertex,
    /// An endpoint that is compatible with OpenAI's.
    OpenAi,
}

/// A service that stores vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoreService {
    /// Vertex AI Vector Search.
    #[default]
    Vertex,
    /// Qdrant.
    Qdrant,
    /// Chroma.
    Chroma,
    /// The content store of this process.
    Local,
}

/// Configuration of vector search: the services, their credentials, and the fallbacks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VectorConfig {
    /// The service for embeddings, `VECTOR_EMBEDDING_PROVIDER`: `vertex` or `openai`.
    pub embedding: EmbeddingService,
    /// The store of vectors, `VECTOR_STORE`: `vertex`, `qdrant`, `chroma` or `local`.
    pub store: StoreService,
    /// The project, `GOOGLE_CLOUD_PROJECT`.
    pub project: Option<String>,
    /// The region of the index, `VECTOR_SEARCH_LOCATION` or `GOOGLE_CLOUD_LOCATION`;
    /// `us-central1` by default.
    pub location: String,
    /// The location of the model, `VECTOR_EMBEDDING_LOCATION` or `GOOGLE_CLOUD_LOCATION`: a region
    /// or `global`. By default `global` for the models that are served there only, else the index's
    /// region.
    pub model_location: Option<String>,
    /// The index endpoint's id, `VECTOR_SEARCH_ENDPOINT_ID`.
    pub index_endpoint: Option<String>,
    /// The index endpoint's public domain, `VECTOR_SEARCH_ENDPOINT_DOMAIN`: it serves
    /// `:findNeighbors`, the region's host does not.
    pub endpoint_domain: Option<String>,
    /// The index deployed there, `DEPLOYED_INDEX_ID`.
    pub deployed_index: Option<String>,
    /// The index's own id, `VECTOR_SEARCH_INDEX_ID`; only writes need it.
    pub index: Option<String>,
    /// The credentials for Google's services, `GOOGLE_APPLICATION_CREDENTIALS`.
    pub credentials: Credentials,
    /// Base URL of the endpoint that is compatible with OpenAI's, `OPENAI_BASE_URL`.
    pub openai_url: String,
    /// Its key, `OPENAI_API_KEY`; many such servers need none.
    pub openai_key: Option<Secret>,
    /// Base URL of Qdrant or Chroma, `QDRANT_URL` or `CHROMA_URL`.
    pub store_url: Option<String>,
    /// Its key, `QDRANT_API_KEY` or `CHROMA_API_KEY`; a server of one's own may need none.
    pub store_key: Option<Secret>,
    /// The collection there, `VECTOR_COLLECTION`.
    pub collection: Option<String>,
    /// Tenant and database of Chroma, `CHROMA_TENANT` and `CHROMA_DATABASE`.
    pub chroma_database: Option<(String, String)>,
    /// The model of the embeddings, `VECTOR_EMBEDDING_MODEL`; the index must have been made with it.
    pub model: String,
    /// Length of an embedding, `VECTOR_EMBEDDING_DIMENSIONS`.
    pub dimensions: usize,
    /// Maximum number of texts in one request; `gemini-` models always take one.
    pub max_texts: usize,
    /// Maximum number of tokens in one request.
    pub max_tokens: u32,
    /// Base URL for embeddings and neighbours in place of Google's, such as that of a fake.
    pub base: Option<String>,
    /// True if local embeddings and the local index answer when the service does not. Otherwise
    /// the error reaches the caller.
    pub auto_fallback: bool,
    /// True if the local fallbacks always answer, and the service is never called.
    pub fallback_only: bool,
    /// Prefix of the dependencies' names: `vector` makes `vector_embed`, `vector_find`,
    /// `vector_write` and `vector_token`.
    pub name: String,
    /// Variables with values that cannot be used.
    pub(in crate::agents) unusable: Vec<Missing>,
}

/// A required setting that is missing or unusable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// The environment variable of the setting.
    pub variable: &'static str,
    /// The setting and its problem.
    pub problem: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.problem, self.variable)
    }
}

impl Default for VectorConfig {
    fn default() -> Self {
        Self {
            embedding: EmbeddingService::Vertex,
            store: StoreService::Vertex,
            project: None,
            location: "us-central1".to_owned(),
            model_location: None,
            index_endpoint: None,
            endpoint_domain: None,
            deployed_index: None,
            index: None,
            credentials: Credentials::Missing,
            openai_url: OPENAI.to_owned(),
            openai_key: None,
            store_url: None,
            store_key: None,
            collection: None,
            chroma_database: None,
            model: "gemini-embedding-001".to_owned(),
            dimensions: 768,
            max_texts: 250,
            max_tokens: 20_000,
            base: None,
            auto_fallback: true,
            fallback_only: false,
            name: "vector".to_owned(),
            unusable: Vec::new(),
        }
    }
}

/// Providers made of a configuration.
pub(super) type ConfiguredProviders = (Arc<dyn EmbeddingProvider>, Arc<dyn VectorStore>);

impl VectorConfig {
    /// Returns all settings that are missing or unusable.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let mut all = self.unusable.clone();
        let mut need = |given: bool, variable, problem: &str| {
            let known = all.iter().any(|one| one.variable == variable);
            if !given && !known {
                let problem = problem.to_owned();
                all.push(Missing { variable, problem });
            }
        };
        let google = self.uses_google();
        let project = self.project.is_some() || !google;
        need(project, "GOOGLE_CLOUD_PROJECT", "project id missing");
        match self.store {
            StoreService::Vertex => self.need_index(&mut need),
            StoreService::Qdrant => {
                need(
                    self.store_url.is_some(),
                    "QDRANT_URL",
                    "Qdrant's address missing",
                );
            }
            StoreService::Chroma => {
                need(
                    self.store_url.is_some(),
                    "CHROMA_URL",
                    "Chroma's address missing",
                );
            }
            StoreService::Local => {}
        }
        if matches!(self.store, StoreService::Qdrant | StoreService::Chroma) {
            let collection = self.collection.is_some();
            need(
                collection,
                "VECTOR_COLLECTION",
                "the name of the collection missing",
            );
        }
        if self.embedding == EmbeddingService::OpenAi {
            let key = self.openai_key.is_some() || self.openai_url != OPENAI;
            need(key, "OPENAI_API_KEY", "the key of OpenAI missing");
        }
        let length = self.dimensions > 0;
        let problem = "the length of the embeddings missing";
        need(length, "VECTOR_EMBEDDING_DIMENSIONS", problem);
        if google && let Some(problem) = self.credentials.problem() {
            all.push(Missing {
                variable: "GOOGLE_APPLICATION_CREDENTIALS",
                problem,
            });
        }
        all
    }

    fn need_index(&self, need: &mut impl FnMut(bool, &'static str, &str)) {
        let id = self.index_endpoint.is_some();
        need(id, "VECTOR_SEARCH_ENDPOINT_ID", "index endpoint id missing");
        let domain = self.endpoint_domain.is_some() || self.base.is_some();
        let problem = "the index endpoint's domain missing";
        need(domain, "VECTOR_SEARCH_ENDPOINT_DOMAIN", problem);
        let index = self.deployed_index.is_some();
        need(index, "DEPLOYED_INDEX_ID", "deployed index id missing");
        let region = self.location != vertex::GLOBAL;
        let problem = "the region of the index: given global, allowed is a region";
        need(region, "VECTOR_SEARCH_LOCATION", problem);
    }

    /// Returns a configuration for a search that is local only, with credentials that always fail.
    pub(super) fn without_credentials(&self) -> Self {
        Self {
            credentials: Credentials::Missing,
            ..self.clone()
        }
    }

    fn uses_google(&self) -> bool {
        self.embedding == EmbeddingService::Vertex || self.store == StoreService::Vertex
    }

    /// Returns a warning if the model has ended.
    pub(super) fn ended_model(&self) -> Option<String> {
        let ended = ENDED.iter().any(|ended| self.model.starts_with(ended));
        ended.then(|| {
            format!(
                "the model {} has ended or ends soon; gemini-embedding-001 takes its place, with an \
                 index that is made anew",
                self.model
            )
        })
    }

    /// Returns the location of the model.
    pub(super) fn model_location(&self) -> &str {
        match &self.model_location {
            Some(location) => location,
            None if vertex::is_content_only(&self.model) => vertex::GLOBAL,
            None => &self.location,
        }
    }

    /// Returns the names of the dependencies: embeddings, searches, writes.
    pub(super) fn names(&self) -> [String; 3] {
        ["embed", "find", "write"].map(|operation| format!("{}_{operation}", self.name))
    }

    /// Makes the providers. `content`: the store of this process, for [`StoreService::Local`].
    pub(super) fn providers(
        &self,
        content: &ContentStore,
        clock: &crate::Clock,
    ) -> Result<ConfiguredProviders, ServiceError> {
        let source = if self.uses_google() {
            self.credentials.source()?
        } else {
            Credentials::Missing.source()?
        };
        let tokens = Arc::new(Tokens::new(source, clock.clone()));
        let [embed, find, write] = self.names();
        let project = self.project.as_deref().unwrap_or_default();
        let embedding: Arc<dyn EmbeddingProvider> = match self.embedding {
            EmbeddingService::Vertex => {
                let location = self.model_location();
                let base = self.base.clone().unwrap_or_else(|| vertex::host(location));
                let tokens = Arc::clone(&tokens);
                let (model, length) = (&self.model, self.dimensions);
                let made = VertexEmbedding::at(&base, project, location, model, length, tokens);
                Arc::new(made.limited(self.max_texts, self.max_tokens).named(embed))
            }
            EmbeddingService::OpenAi => {
                let model = &self.model;
                let mut made = OpenAiEmbedding::new(&self.openai_url, model, self.dimensions)
                    .limits(self.max_texts, self.max_tokens)
                    .named(embed);
                // Of the known models, only these can be shortened.
                let own = known_length(model);
                if model.starts_with("text-embedding-3") && own != Some(self.dimensions) {
                    made = made.shortened();
                }
                if let Some(key) = &self.openai_key {
                    made = made.key(key.clone());
                }
                Arc::new(made)
            }
        };
        Ok((embedding, self.vector_store(content, [find, write], tokens)))
    }

    fn vector_store(
        &self,
        content: &ContentStore,
        [find, write]: [String; 2],
        tokens: Arc<Tokens>,
    ) -> Arc<dyn VectorStore> {
        let project = self.project.as_deref().unwrap_or_default();
        let url = self.store_url.as_deref().unwrap_or_default();
        let collection = self.collection.as_deref().unwrap_or_default();
        match self.store {
            StoreService::Vertex => {
                let location = &self.location;
                let domain = self.endpoint_domain.as_deref().unwrap_or_default();
                let base = self
                    .base
                    .clone()
                    .unwrap_or_else(|| format!("https://{domain}"));
                let endpoint = self.index_endpoint.as_deref().unwrap_or_default();
                let deployed = self.deployed_index.as_deref().unwrap_or_default();
                let ids = [endpoint, deployed];
                let mut made = VertexIndex::at(&base, project, location, ids, tokens);
                if let Some(index) = &self.index {
                    let base = self.base.clone().unwrap_or_else(|| vertex::host(location));
                    made = made.writable_at(&base, project, location, index);
                }
                Arc::new(made.named(find, write))
            }
            StoreService::Qdrant => {
                let made = QdrantStore::new(url, collection).named(find, write);
                Arc::new(match &self.store_key {
                    Some(key) => made.key(key.clone()),
                    None => made,
                })
            }
            StoreService::Chroma => {
                let mut made = ChromaStore::new(url, collection).named(find, write);
                if let Some((tenant, database)) = &self.chroma_database {
                    made = made.within(tenant, database);
                }
                Arc::new(match &self.store_key {
                    Some(key) => made.key(key.clone()),
                    None => made,
                })
            }
            StoreService::Local => Arc::new(content.named(find, write)),
        }
    }
}

/// Returns the length of the embeddings of a known model.
pub(super) fn known_length(model: &str) -> Option<usize> {
    let known = LENGTHS.iter().find(|(known, _)| *known == model);
    known.map(|(_, length)| *length)
}
