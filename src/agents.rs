//! What agent systems depend on, as protected dependencies: vector search, web search, a knowledge
//! graph. And fakes of the services behind them, for tests, examples and the demo.
//!
//! Each operation of a service is a dependency of its own, with its own breaker: embeddings may be
//! down while the index answers. The clients retry nothing and keep no answers; they name what an
//! attempt came to, and the runtime decides (rules BRK-7 and LIM-4). They are small on purpose:
//! copy one to begin with a client of your own.

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
pub use http::{Asked, Said};
pub use token::{ServiceAccount, Token, TokenEndpoint, TokenSource, Tokens};
pub use vector::{
    ContentStore, Credentials, Document, Embedding, LOCAL_MODEL, LocalIndex, Missing, Neighbor,
    VectorConfig, VectorSearch, VectorStartError, local_embedding,
};
pub use web::{Brave, CustomSearch, Hit, WebPort, WebProvider, WebQuery, WebSearch, WebStartError};
