//! The pace of a caller's body while its call holds a place of the dependency.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::pending_bodies::{BodyPlace, PendingBody};

/// Bytes that a body brings at least in each span of `gateway.body_timeout` while it is buffered, and
/// in each [`PATIENCE`] unless it is slow.
pub(super) const LEAST_PIECE: usize = 1_000;

/// Time in which a body brings the next [`LEAST_PIECE`], and the time until the next look. A body that
/// takes longer is slow, and gives its place back if slow ones take too many. A distant caller that
/// waits for leave to send, a lost packet or a busy program may well take half of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// The limit that a slow body has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlowBody {
    /// It brought too little in a span of `gateway.body_timeout`.
    Pause,
    /// It held a place that other calls need.
    Place,
    /// It held the slot of a probe for too long.
    Probe,
    /// It had not come by the end of its call.
    CallEnd,
}

impl SlowBody {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Pause, Self::Place, Self::Probe, Self::CallEnd];

    /// Returns the key of the configuration, or words for a limit that a call may bring.
    pub(crate) const fn limit(self) -> &'static str {
        // EDGE-8: the limit is named, so that it can be found and changed.
        match self {
            Self::Pause => "gateway.body_timeout",
            Self::Place => "bulkhead.max_concurrent",
            Self::Probe => "breaker.probe_lease",
            Self::CallEnd => "the time of the call",
        }
    }
}

/// Watch over a body that is passed on as it comes.
pub(super) struct SlowBodyWatch {
    place: BodyPlace,
    /// The time by which a probe has to have its body, until its answer begins.
    end: Option<Pin<Box<Sleep>>>,
    /// The time of the next look, while the body waits for its caller.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Bytes since the last one.
    fresh: u64,
    slow: Option<PendingBody>,
}

impl SlowBodyWatch {
    /// `end`: the time by which the body has to have come.
    pub(super) fn new(place: BodyPlace, end: Option<Instant>) -> Self {
        Self {
            place,
            end: end.map(|end| Box::pin(sleep_until(end))),
            alarm: None,
            fresh: 0,
            slow: None,
        }
    }

    /// Notes a piece of this length.
    pub(super) fn arrived(&mut self, length: u64) {
        self.fresh = self.fresh.saturating_add(length);
        if self.fresh >= LEAST_PIECE as u64 {
            self.fresh = 0;
            self.alarm = None;
            self.slow = None;
        }
    }

    /// Waits for the end of its time.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.end {
            Some(end) => end.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Waits, while nothing arrives, until the body is slow and slow ones take too many places.
    pub(super) fn poll_too_many(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_end(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
            ready!(alarm.as_mut().poll(cx));
            let place = &self.place;
            self.slow.get_or_insert_with(|| place.begin());
            if place.is_wanted() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(Instant::now() + AGAIN);
        }
    }
}
