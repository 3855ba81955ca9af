//! HTTP dependencies: requests, responses, connections and the cache.

// requests
pub(super) mod request_body;

// the dependency
pub(super) mod dependency;

pub(super) mod target;

pub(super) mod upstream;

pub(super) mod connector;

pub(super) mod pool;

pub(super) mod error;

// responses
pub(super) mod response_stream;

pub(super) mod cache;

pub(super) mod body;
