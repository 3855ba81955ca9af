//! HTTP dependencies: requests, responses, connections and the cache.

// requests
pub(super) mod request_body;

// the dependency
pub(super) mod dependency;

pub(super) mod upstream;

pub(super) mod connector;

pub(super) mod pool;

mod content_coding;

pub(super) mod error_body;

pub(super) mod error;

// responses
pub(super) mod response_stream;

pub(super) mod cache;

pub(super) mod body;
