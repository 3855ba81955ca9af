//! The body of a caller's request, as it comes.
//!
//! It keeps nothing: bytes that are not needed any more are discarded.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::sidecar::gateway::activity::GRACE;

/// The body of a caller's request.
///
/// By HTTP/2, the rest of a body that is dropped before its end is read and discarded for up to
/// [`GRACE`], beside the response.
#[derive(Debug)]
pub(crate) struct CallerBody {
    /// `None` once it is dropped.
    incoming: Option<Incoming>,
    is_http2: bool,
}

impl CallerBody {
    /// Wraps the body of a request.
    pub(crate) fn of(request: Request<Incoming>) -> Request<Self> {
        let is_http2 = request.version() == Version::HTTP_2;
        request.map(|body| Self {
            incoming: Some(body),
            is_http2,
        })
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.get_mut().incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.incoming.as_ref().map(Body::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl Drop for CallerBody {
    fn drop(&mut self) {
        // EDGE-3: the stream of an unread body is reset as soon as the response is sent, even if only
        // its end is missing. Many clients then lose the response (RFC 9113, section 8.1). A connection
        // of HTTP/1.1 does the same for itself as it closes.
        let is_unread = self.is_http2 && !self.is_end_stream();
        if let (true, Some(mut rest), Ok(runtime)) =
            (is_unread, self.incoming.take(), Handle::try_current())
        {
            let discarding = async move { while let Some(Ok(_)) = rest.frame().await {} };
            // A longer rest is cut off by the stream's reset.
            runtime.spawn(async { drop(timeout(GRACE, discarding).await) });
        }
    }
}
