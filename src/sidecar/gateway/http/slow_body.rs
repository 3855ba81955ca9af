//! The pace of a caller's body while its call holds a place of the dependency.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::pending_bodies::{PendingBodies, SlowBody};

/// Bytes that a body brings at least in each span of `gateway.body_timeout` while it is buffered, and
/// in each [`STEADY`] unless it is slow.
pub(super) const LEAST_PIECE: usize = 1_000;

/// Time in which a body brings its first [`LEAST_PIECE`], the time for each later one, and the time
/// until the next look. A body that takes longer is slow, and gives its place back if slow ones take
/// too many.
pub(super) const QUICK: Duration = Duration::from_millis(10);
pub(super) const STEADY: Duration = Duration::from_millis(250);
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// Watch over a body that is passed on as it comes.
pub(super) struct SlowBodyWatch {
    pending: Arc<PendingBodies>,
    /// The time of the next look, while the body waits for its caller.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Time for the next [`LEAST_PIECE`].
    patience: Duration,
    /// Bytes since the last one.
    fresh: u64,
    slow: Option<SlowBody>,
}

impl SlowBodyWatch {
    pub(super) fn new(pending: Arc<PendingBodies>) -> Self {
        Self {
            pending,
            alarm: None,
            patience: QUICK,
            fresh: 0,
            slow: None,
        }
    }

    /// Notes a piece of this length.
    pub(super) fn arrived(&mut self, length: u64) {
        self.fresh = self.fresh.saturating_add(length);
        if self.fresh >= LEAST_PIECE as u64 {
            self.fresh = 0;
            self.patience = STEADY;
            self.alarm = None;
            self.slow = None;
        }
    }

    /// Waits, while nothing arrives, until the body is slow and slow ones take too many places.
    pub(super) fn poll_too_many(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let patience = self.patience;
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(alarm.as_mut().poll(cx));
            let pending = &self.pending;
            self.slow.get_or_insert_with(|| pending.begin_slow());
            if self.pending.are_too_many() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(Instant::now() + AGAIN);
        }
    }
}
