//! The way to a server from one life of its worker.

use std::sync::Arc;

use super::error::McpError;
use super::session::Session;

/// The way to a server.
pub(super) enum Link {
    /// A connection that lives as long as the process behind it.
    Process(Arc<Session>),
}

impl Link {
    /// The connection to use now.
    ///
    /// # Errors  There is none, and none can be made.
    pub(super) async fn session(&self) -> Result<Arc<Session>, McpError> {
        match self {
            Self::Process(session) => Ok(Arc::clone(session)),
        }
    }

    /// Says goodbye.
    pub(super) async fn close(&self) {
        match self {
            Self::Process(session) => session.close().await,
        }
    }
}
