//! State of a server's start, for requests that are not sent to its worker.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::connector::McpConnector;
use super::error::McpError;

/// The connector of the current incarnation, and a way to wait for it.
#[derive(Default)]
pub(super) struct StartState {
    connector: ArcSwapOption<McpConnector>,
    /// Number of failed starts, and the latest failure.
    failures: watch::Sender<(u64, Option<McpError>)>,
}

/// Number of failed starts for which a request waits: the first try after an end is made at once.
const TRIES: u64 = 2;

impl StartState {
    /// Publishes the connector of an incarnation that has started.
    pub(super) fn publish(&self, connector: &Arc<McpConnector>) {
        self.connector.store(Some(Arc::clone(connector)));
        // Wakes those that wait.
        self.failures.send_modify(|failures| failures.1 = None);
    }

    /// Takes the connector of an incarnation that has ended back, unless the next one has started.
    pub(super) fn withdraw(&self, connector: &Arc<McpConnector>) {
        let published = self.connector.load();
        let is_it = |now: &Arc<McpConnector>| Arc::ptr_eq(now, connector);
        if published.as_ref().is_some_and(is_it) {
            self.connector.compare_and_swap(&*published, None);
        }
    }

    /// Notes a failed start.
    pub(super) fn fail(&self, error: &McpError) {
        let error = error.clone();
        self.failures
            .send_modify(|(count, latest)| (*count, *latest) = (*count + 1, Some(error)));
    }

    /// Waits until an incarnation has started. The caller sets the time limit.
    ///
    /// # Errors  The server could not be started meanwhile.
    pub(super) async fn connector(&self) -> Result<Arc<McpConnector>, McpError> {
        let mut failures = self.failures.subscribe();
        let before = failures.borrow_and_update().0;
        loop {
            if let Some(connector) = self.connector.load_full() {
                return Ok(connector);
            }
            if failures.changed().await.is_err() {
                // Unreachable: `self` owns the sender.
                std::future::pending::<()>().await;
            }
            let (count, latest) = failures.borrow_and_update().clone();
            if let Some(error) = latest.filter(|_| count >= before + TRIES) {
                return Err(error);
            }
        }
    }
}
