//! The server behind an HTTP dependency. A reload may replace it while the dependency goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::address::UpstreamAddress;
use super::cache::HttpCache;
use super::outbound::OutboundHeaders;
use super::pending_bodies::PendingBodies;
use super::upstream::UpstreamClient;
use crate::buffer_budget::BufferBudget;
use crate::config::{DependencyConfig, ModelKeys, holds_credentials};
use crate::model::Api;
use crate::sidecar::gateway::message::HttpRequest;
use crate::sidecar::gateway::trace::AttemptTracer;

/// A server, with the connections that the gateway's threads keep to it.
pub(crate) struct UpstreamTarget {
    pub(crate) address: Arc<UpstreamAddress>,
    pub(crate) attempts: AttemptTracer,
    /// True if its requests carry credentials of ours.
    pub(crate) holds_credentials: AtomicBool,
    /// The budget of the bytes that are kept of requests and responses.
    pub(crate) budget: BufferBudget,
    /// Bodies of callers that are being read.
    pub(crate) pending: Arc<PendingBodies>,
    /// Connections of each thread.
    connections: Box<[OnceLock<UpstreamClient>]>,
}

impl UpstreamTarget {
    /// Creates a target without connections. `threads`: number of the gateway's threads.
    pub(crate) fn new(
        address: UpstreamAddress,
        attempts: AttemptTracer,
        threads: usize,
        budget: BufferBudget,
    ) -> Self {
        Self {
            address: Arc::new(address),
            attempts,
            holds_credentials: AtomicBool::new(false),
            budget,
            pending: Arc::default(),
            connections: (0..threads).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Applies the settings of requests that may change at any time.
    pub(crate) fn follow(&self, config: &DependencyConfig) {
        self.address.set_limits(&config.settings.timeout);
        let places = &config.settings.bulkhead;
        let most = places.max_concurrent.get();
        self.pending.set_places(most, places.max_concurrent_writes);
        let outbound = OutboundHeaders::of(&config.outbound);
        self.address.outbound.store(Arc::new(outbound));
        let (url, tls) = (config.url.as_deref(), config.tls.as_ref());
        let holds = holds_credentials(url, &config.outbound, tls);
        self.holds_credentials.store(holds, Ordering::Relaxed);
    }

    /// Returns the connections of one thread, created with the first call.
    pub(crate) fn of_thread(&self, thread: usize) -> &UpstreamClient {
        self.connections[thread].get_or_init(|| self.connect())
    }

    /// Creates further connections, for one worker.
    pub(crate) fn connect(&self) -> UpstreamClient {
        UpstreamClient::new(Arc::clone(&self.address))
    }
}

/// The parts of a route that the workers of its dependency use. A reload replaces them.
pub(crate) struct WorkerRoute {
    pub(crate) target: Arc<UpstreamTarget>,
    pub(crate) caches: Arc<[Arc<HttpCache>]>,
    /// The requests to a model.
    pub(crate) model: Option<WorkerModel>,
}

/// The requests of workers to a language model.
pub(crate) struct WorkerModel {
    pub(crate) api: Api,
    /// True if the key is ours.
    pub(crate) has_key: bool,
    pub(crate) keys_by: ModelKeys,
    /// Returns a request as the provider gets it.
    pub(crate) provide: Box<dyn Fn(&HttpRequest) -> HttpRequest + Send + Sync>,
}
