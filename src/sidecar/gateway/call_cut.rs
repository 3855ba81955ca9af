//! The end of the calls that still wait for an answer when the time of a shutdown is over.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Time in which the last answers are written.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(250);

/// Cuts the calls of one thread that still wait for the head of an answer.
#[derive(Debug, Default)]
pub(super) struct CallCut {
    is_cut: AtomicBool,
    cut: Notify,
}

impl CallCut {
    /// Cuts all calls, and those that begin later.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.cut.notify_waiters();
    }

    /// Makes a call. Returns `None` if it was cut.
    ///
    /// # Cancel safety   That of the call.
    pub(super) async fn unless_cut<F: Future>(&self, call: Pin<&mut F>) -> Option<F::Output> {
        let cut = self.cut.notified();
        if self.is_cut.load(Ordering::Acquire) {
            return None;
        }
        tokio::select! {
            biased;
            done = call => Some(done),
            () = cut => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn call_1_f16_a_call_that_waits_is_cut_and_a_finished_one_is_not() {
        let cuts = CallCut::default();
        assert_eq!(cuts.unless_cut(pin!(async { 1 })).await, Some(1));
        let mut call = pin!(std::future::pending::<()>());
        let waiting = cuts.unless_cut(call.as_mut());
        let cutting = async {
            tokio::task::yield_now().await;
            cuts.cut();
        };
        assert_eq!(tokio::join!(waiting, cutting).0, None);
        assert_eq!(cuts.unless_cut(pin!(async { 1 })).await, None);
    }
}
