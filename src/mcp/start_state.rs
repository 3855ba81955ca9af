//! State of a server's start, for requests that are not sent to its worker.

use tokio::sync::watch;

use super::error::McpError;

/// Signal that an incarnation has started, or could not be started.
#[derive(Debug, Default)]
pub(super) struct StartState {
    /// Number of failed starts, and the latest failure, unless an incarnation has started since.
    failures: watch::Sender<(u64, Option<McpError>)>,
}

/// Number of failed starts for which a request waits: the first try after an end is made at once.
const TRIES: u64 = 2;

impl StartState {
    /// Wakes the requests that wait for an incarnation: it has started.
    pub(super) fn up(&self) {
        self.failures.send_modify(|failures| failures.1 = None);
    }

    /// Notes a failed start.
    pub(super) fn fail(&self, error: &McpError) {
        let error = error.clone();
        self.failures
            .send_modify(|(count, latest)| (*count, *latest) = (*count + 1, Some(error)));
    }

    /// Returns true if the latest start has failed.
    #[cfg(feature = "gateway")]
    pub(super) fn has_failed(&self) -> bool {
        self.failures.borrow().1.is_some()
    }

    /// Waits until a start has failed.
    #[cfg(feature = "gateway")]
    pub(super) async fn failed(&self) {
        let mut failures = self.failures.subscribe();
        if failures
            .wait_for(|failures| failures.1.is_some())
            .await
            .is_err()
        {
            // Unreachable: `self` owns the sender.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until an incarnation has started, which is when `started` returns something. The
    /// caller sets the time limit.
    ///
    /// # Errors  The server could not be started meanwhile.
    pub(super) async fn wait<T>(&self, started: impl Fn() -> Option<T>) -> Result<T, McpError> {
        let mut failures = self.failures.subscribe();
        let before = failures.borrow_and_update().0;
        loop {
            if let Some(started) = started() {
                return Ok(started);
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

#[cfg(all(test, feature = "gateway"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn mcp_1_a_start_that_has_failed_is_told_to_its_waiters() {
        let state = StartState::default();
        let mut failed = std::pin::pin!(state.failed());
        assert!(futures_util::poll!(&mut failed).is_pending());
        let reason = "no such program".to_owned();
        state.fail(&McpError::StartFailed { reason });
        failed.await;
        state.up();
        let mut failed = std::pin::pin!(state.failed());
        assert!(futures_util::poll!(&mut failed).is_pending(), "it runs");
    }
}
