//! Adapters to libraries that many Rust programs call services with: a layer for tower, verdicts and
//! a middleware for `reqwest`, verdicts on statuses of tonic.
//!
//! They translate: results into verdicts, errors of calls into answers. Every decision stays with
//! the runtime and its settings, and none of them opens a connection.

#[cfg(feature = "tower")]
pub mod tower;

#[cfg(feature = "reqwest")]
pub mod reqwest;

#[cfg(feature = "tonic")]
pub mod tonic;

// shared by the layer and tonic
#[cfg(any(feature = "tower", feature = "tonic"))]
mod grpc_code;

// shared by the layer and `reqwest`
#[cfg(any(feature = "tower", feature = "reqwest"))]
mod http_head;

// shared by all of them
#[cfg(any(feature = "tower", feature = "reqwest", feature = "tonic"))]
mod error_chain;
