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

pub use failure::{AgentError, InvalidInput, ServiceError};
pub use google::GoogleError;
pub use graph::{Entity, Graph, GraphError, KnowledgeGraph, Relation};
pub use http::{ServiceRequest, ServiceResponse};
pub use token::{ServiceAccount, Token, TokenEndpoint, TokenSource, Tokens};
pub use vector::{
    ContentStore, Credentials, Document, Embedding, LOCAL_MODEL, LocalIndex, Missing, Neighbor,
    VectorConfig, VectorSearch, VectorStartError, local_embedding,
};
pub use web::{Brave, CustomSearch, Hit, WebPort, WebProvider, WebQuery, WebSearch, WebStartError};
