//! The body of an unsuccessful response: its beginning, read to find hints, and the rest, which is
//! passed on as it arrives.
//!
//! Nothing is lost or reordered: pieces, then trailers, as they came.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::answer_fault::DeclinedMethod;
use super::content_coding;
use super::pool::PooledBody;
use crate::buffer_budget::{BufferBudget, BufferShare};
use crate::sidecar::gateway::message::HttpFailure;
use crate::{CallHold, OpenAnswer, retry_after};

/// Maximum size of the part that is read before the response is passed on, in bytes.
pub(super) const MAX_AHEAD: usize = 65_536;
/// Maximum time for that part: of a body that may contain a hint, and of any other, which is read
/// only so that its connection can be reused.
const JSON_WINDOW: Duration = Duration::from_millis(500);
const OTHER_WINDOW: Duration = Duration::from_millis(50);

/// The body of an unsuccessful response.
#[derive(Debug, Default)]
pub(crate) struct ErrorBody {
    /// The pieces that were read ahead.
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// True if the body broke off behind them.
    is_broken: bool,
    /// True once what came before the break had time to be sent.
    is_flushed: bool,
    /// True if it was given up for another attempt, and cannot be passed on.
    is_closed: bool,
    /// The share of the budget for the pieces that were read ahead.
    share: Option<BufferShare>,
    /// The part that still arrives. Dropped before the slot is given back.
    rest: Option<PooledBody>,
    /// The slot and the record of the call, while the rest arrives.
    holds: Vec<CallHold>,
}

/// The body broke off.
#[derive(Debug)]
pub(crate) struct BrokenBody;

impl ErrorBody {
    /// Wraps a body that was read whole.
    pub(crate) fn whole(body: Bytes, trailers: Option<HeaderMap>) -> Self {
        let pieces = (!body.is_empty()).then_some(body);
        Self {
            pieces: pieces.into_iter().collect(),
            trailers,
            ..Self::default()
        }
    }

    /// Wraps a body of which these pieces were read. `ended`: true if it broke off behind them, and
    /// the share of the budget for them.
    pub(super) fn resumed(
        pieces: VecDeque<Bytes>,
        rest: Option<PooledBody>,
        (is_broken, share): (bool, BufferShare),
    ) -> Self {
        Self {
            pieces,
            rest,
            is_broken,
            share: Some(share),
            ..Self::default()
        }
    }

    /// Returns the pieces as one.
    #[cfg(all(feature = "cli", feature = "fleet"))]
    pub(crate) fn into_bytes(mut self) -> Bytes {
        match self.pieces.len() {
            0 => Bytes::new(),
            1 => self.pieces.pop_front().unwrap_or_default(),
            _ => Vec::from_iter(self.pieces.iter().flatten().copied()).into(),
        }
    }

    /// Reads the beginning of a body. `left`: the time that the attempt has left.
    pub(crate) async fn read_ahead(
        head: &Parts,
        body: PooledBody,
        (left, budget): (Option<Duration>, &BufferBudget),
    ) -> Self {
        let window = if retry_after::is_json(&head.headers, b"{") {
            JSON_WINDOW
        } else {
            OTHER_WINDOW
        };
        // A body that drips must not hold its answer: what comes within the window counts.
        let until = Instant::now() + left.map_or(window, |left| window.min(left));
        let rest = Some(body).filter(|body| !body.is_end_stream());
        let mut this = Self {
            rest,
            ..Self::default()
        };
        let mut length = 0;
        let mut share = budget.share();
        // EDGE-4: above the budget of the process, no more is read ahead.
        while let Some(rest) = &mut this.rest
            && length < MAX_AHEAD
            && share.grow_to(length)
        {
            let Ok(frame) = timeout_at(until, rest.frame()).await else {
                break;
            };
            if let Some(piece) = this.take(frame) {
                length += piece.len();
                this.pieces.push_back(piece);
            }
        }
        this.share = Some(share);
        this
    }

    /// Takes in what a read of the rest has given; returns the piece if it was one.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Option<Bytes> {
        let mut piece = None;
        match frame {
            None => self.end(),
            Some(Err(_)) => {
                self.is_broken = true;
                self.end();
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => piece = Some(data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            },
        }
        if self.rest.as_ref().is_some_and(Body::is_end_stream) {
            // A reader that knows the length does not poll after the last piece.
            self.end();
        }
        piece
    }

    fn end(&mut self) {
        self.rest = None;
        self.holds.clear();
    }

    /// Returns true while a part of the body is still to come from the dependency.
    pub(crate) fn is_open(&self) -> bool {
        self.rest.is_some()
    }

    /// Returns true if it can be passed on whole, as far as it is known.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_closed
    }

    /// Returns the largest hint in the response, as far as it is read.
    pub(crate) fn hint(&self, head: &Parts) -> Option<Duration> {
        let status = head.status.as_u16();
        let trailers = self.trailers.as_ref();
        let in_trailers = trailers.and_then(|lines| retry_after::read(status, lines, None));
        let mut body = Vec::new();
        for piece in &self.pieces {
            let room = MAX_AHEAD - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let plain = content_coding::decoded(&head.headers, &body);
        in_trailers.max(retry_after::read(status, &head.headers, plain.as_deref()))
    }

    /// Polls for the next part.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(rest) = &mut self.rest {
                let frame = ready!(Pin::new(rest).poll_frame(cx));
                if let Some(piece) = self.take(frame) {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                continue;
            }
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if self.is_broken && !std::mem::replace(&mut self.is_flushed, true) {
                // An error at once would take back what is not sent yet, the head included.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let is_broken = std::mem::take(&mut self.is_broken);
            return Poll::Ready(is_broken.then_some(Err(BrokenBody)));
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.pieces.is_empty()
            && self.trailers.is_none()
            && !self.is_broken
            && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let ahead: usize = self.pieces.iter().map(Bytes::len).sum();
        let ahead = ahead as u64;
        let rest = self.rest.as_ref().map(Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(ahead + rest.as_ref().map_or(0, SizeHint::lower));
        let upper = rest.map_or(Some(0), |rest| rest.upper());
        // With trailers, or broken off, the length must not end the body.
        if let Some(upper) = upper.filter(|_| self.trailers.is_none() && !self.is_broken) {
            hint.set_upper(ahead + upper);
        }
        hint
    }
}

impl OpenAnswer for ErrorBody {
    fn hold(&mut self, hold: CallHold) {
        // EDGE-4: slot and record stay until the last byte.
        self.holds.push(hold);
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.end();
    }
}

/// Returns the failure of a response with this head.
pub(super) fn failure_of(head: &Parts) -> HttpFailure {
    match head.extensions.get::<DeclinedMethod>() {
        Some(_) => HttpFailure::Declined,
        None => HttpFailure::Status(head.status.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;
    use crate::sidecar::gateway::http::error::{HttpError, declined};

    #[test]
    fn edge_1_a_declined_method_is_rejected_for_workers_too() {
        for (method, is_declined) in [("PROPFIND", true), ("POST", false)] {
            let mut response = http::Response::new(());
            *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            if let Some(mark) = DeclinedMethod::of(&method, response.status()) {
                response.extensions_mut().insert(mark);
            }
            let error = HttpError::from(failure_of(&response.into_parts().0));
            assert_eq!(error.verdict() == declined(), is_declined, "{method}");
        }
    }
}
