//! HTTP dependencies: requests, responses, connections and the cache.

// requests
pub(super) mod caller_body;

pub(super) mod deferred_body;

mod pending_bodies;

pub(super) mod slow_body;

pub(super) mod request_body;

pub(super) mod send_mark;

// the dependency
pub(super) mod dependency;

pub(super) mod target;

pub(super) mod upstream;

pub(super) mod address;
pub(super) mod grpc;
pub(super) mod upgrade;

pub(super) mod connector;

mod proxy_tunnel;

pub(super) mod connect_failure;

pub(super) mod socket;

pub(super) mod outbound;

pub(super) mod pool;

mod content_coding;

pub(super) mod answer_fault;

pub(super) mod error_body;

pub(super) mod error;

pub(super) mod substitute;

pub(super) mod model_fallback;

mod model_reply;

pub(super) mod model_verdict;

pub(super) mod probe_request;

// responses
pub(super) mod response_stream;

pub(super) mod tunnel;

pub(super) mod cache;

pub(super) mod cache_key;

pub(super) mod directives;

pub(super) mod body;
