//! Protected clients for services of agent systems: vector search, web search, a knowledge graph.
//! Fakes of these services are included for tests, examples and the demo.
//!
//! Each operation of a service is its own dependency with its own breaker: embeddings may be down
//! while the index answers. The clients neither retry nor cache; they classify the outcome of each
//! attempt, and the runtime decides (rules BRK-7 and LIM-4). They are small on purpose: copy one as
//! the start of your own client.

mod failure;
mod google;
mod http;
mod token;

mod graph;
mod vector;
mod web;

pub mod health;

pub mod fakes;

pub use failure::{AgentError, InvalidInput, ServiceError, clean_message};
pub use google::GoogleError;
pub use graph::{Entity, Graph, GraphError, KnowledgeGraph, Relation};
pub use http::{ServicePort, ServiceRequest, ServiceResponse, percent_encoded};
pub use token::{
    CredentialFile, Credentials, ServiceAccount, Token, TokenEndpoint, TokenSource, Tokens,
};
pub use vector::{
    ChromaStore, ContentStore, Document, EmbeddedText, Embedding, EmbeddingBatch, EmbeddingModel,
    EmbeddingProvider, EmbeddingService, EmbeddingTask, FieldCondition, FieldTest, LOCAL_MODEL,
    LocalIndex, Missing, Neighbor, OpenAiEmbedding, QdrantStore, ServiceFuture, StoreService,
    VectorConfig, VectorFilter, VectorPoint, VectorProviders, VectorQuery, VectorSearch,
    VectorStartError, VectorStore, VertexEmbedding, VertexIndex, local_embedding,
};
pub use web::{
    Brave, CustomSearch, ExaSearch, Freshness, Hit, SearxngSearch, SerperSearch, ServiceEnd,
    TavilySearch, WebPort, WebProvider, WebQuery, WebSearch, WebStartError, web_providers,
};
