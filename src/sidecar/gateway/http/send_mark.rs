//! The mark of a request that a connection has taken, and the body that sets it.
//!
//! The runtime and the verdict read from it whether anything may have been executed (rule CALL-2). It
//! judges nothing itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::request_body::Upload;
use crate::AttemptProgress;
use crate::sidecar::gateway::message::HttpFailure;

/// The sending of one attempt.
#[derive(Debug, Default)]
pub(crate) struct SendMark {
    has_sent: AtomicBool,
    is_repeated: AtomicBool,
    progress: AttemptProgress,
}

impl SendMark {
    /// Begins an attempt of which nothing is sent yet. `progress`: that of its call.
    pub(crate) fn begin(progress: AttemptProgress) -> Arc<Self> {
        progress.set_unsent(true);
        Arc::new(Self {
            progress,
            ..Self::default()
        })
    }

    /// Returns true once a connection has taken the request.
    pub(crate) fn has_sent(&self) -> bool {
        self.has_sent.load(Ordering::Relaxed)
    }

    /// Notes that the request goes out once more, although the server may have read it before.
    pub(super) fn repeat(&self) {
        self.is_repeated.store(true, Ordering::Relaxed);
    }

    /// Returns true if the request has gone out once more.
    pub(super) fn is_repeated(&self) -> bool {
        self.is_repeated.load(Ordering::Relaxed)
    }

    fn set_sent(&self) {
        if !self.has_sent() {
            self.has_sent.store(true, Ordering::Relaxed);
            self.progress.set_unsent(false);
        }
    }
}

/// A request's body that notes when a connection takes the request. The head says whether a body
/// follows, so a connection asks for that before it writes anything; while the request waits for a
/// connection, or for a place on one, nothing is asked.
pub(crate) struct MarkedBody {
    body: Upload,
    mark: Arc<SendMark>,
}

impl MarkedBody {
    pub(super) fn new(body: Upload, mark: &Arc<SendMark>) -> Self {
        Self {
            body,
            mark: Arc::clone(mark),
        }
    }

    /// Returns true if there is nothing to send, without setting the mark.
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Body for MarkedBody {
    type Data = Bytes;
    type Error = HttpFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpFailure>>> {
        let this = self.get_mut();
        this.mark.set_sent();
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        // CALL-2: from here on the request may arrive.
        self.mark.set_sent();
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_2_a_request_is_unsent_until_a_connection_asks_for_its_end() {
        let progress = AttemptProgress::default();
        let mark = SendMark::begin(progress.clone());
        let body = MarkedBody::new(Upload::Whole(None), &mark);
        assert!(body.is_empty());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(!mark.has_sent() && progress.is_unsent());
        assert!(body.is_end_stream());
        assert!(mark.has_sent() && !progress.is_unsent());
        // A later attempt that finds no connection takes nothing back.
        let later = SendMark::begin(progress.clone());
        assert!(!later.has_sent() && !progress.is_unsent());
    }
}
