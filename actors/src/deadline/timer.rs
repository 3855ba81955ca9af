//! Waits that end at a deadline.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use breakerbox_policy::Time;
use tokio::time::Sleep;

use crate::clock::Clock;

/// A deadline to wait for. Its sleep is created at the first poll.
pub(crate) struct Timer {
    pub(crate) deadline: Option<Time>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(crate) fn new(deadline: Option<Time>) -> Self {
        Self {
            deadline,
            sleep: None,
        }
    }

    /// Arms the timer at the first poll; ready when the deadline has passed.
    pub(crate) fn poll(&mut self, clock: &Clock, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        self.sleep
            .get_or_insert_with(|| Box::pin(clock.sleep_until(deadline)))
            .as_mut()
            .poll(cx)
    }
}

/// Runs work with a deadline in the caller's own task; returns `None` if the deadline came first.
pub(crate) async fn bounded<F: Future>(
    clock: &Clock,
    deadline: Option<Time>,
    work: F,
) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut timer = Timer::new(deadline);
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => timer.poll(clock, cx).map(|()| None),
    })
    .await
}
