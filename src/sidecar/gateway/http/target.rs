//! The server behind an HTTP dependency. A reload may replace it while the dependency goes on.

use std::sync::{Arc, OnceLock};

use super::connector::UpstreamAddress;
use super::upstream::UpstreamClient;
use crate::sidecar::gateway::trace::AttemptTracer;

/// A server, with the connections that the gateway's threads keep to it.
pub(crate) struct UpstreamTarget {
    pub(crate) address: Arc<UpstreamAddress>,
    pub(crate) attempts: AttemptTracer,
    /// Connections of each thread.
    connections: Box<[OnceLock<UpstreamClient>]>,
}

impl UpstreamTarget {
    /// Creates a target without connections. `threads`: number of the gateway's threads.
    pub(crate) fn new(address: UpstreamAddress, attempts: AttemptTracer, threads: usize) -> Self {
        Self {
            address: Arc::new(address),
            attempts,
            connections: (0..threads).map(|_| OnceLock::new()).collect(),
        }
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
