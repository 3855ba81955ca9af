//! A response's body that is a part of its call, up to its end.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use breakerbox_policy::{Class, Symptom};
use futures_util::Stream;
use http::HeaderMap;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};

use super::service::AttemptFailure;
use crate::{CallError, Streamed, Verdict};

/// A piece of a response: its head first, then the frames of its body.
pub(super) enum ResponsePart<T> {
    Head(Box<Parts>),
    Frame(Frame<T>),
}

/// The failure of a response: of the attempt that it began with, by its head, or within its body.
pub(super) enum ResponseFailure<B: Body, E> {
    Attempt(AttemptFailure<E>),
    /// The caller gets this response if no other attempt follows.
    Answered(Box<http::Response<B>>, Verdict),
    Broken(B::Error),
}

/// Classifies the trailers of a body that ended well.
type ClassifyTrailers = Box<dyn Fn(&HeaderMap) -> Option<Verdict> + Send + Sync>;

/// A response as a stream of its parts.
pub(super) struct ResponseParts<B, E> {
    head: Option<Box<Parts>>,
    body: Pin<Box<B>>,
    classify: ClassifyTrailers,
    end: Option<Verdict>,
    error: std::marker::PhantomData<fn() -> E>,
}

impl<B: Body, E> ResponseParts<B, E> {
    pub(super) fn new(response: http::Response<B>, classify: ClassifyTrailers) -> Self {
        let (head, body) = response.into_parts();
        Self {
            head: Some(Box::new(head)),
            body: Box::pin(body),
            classify,
            end: None,
            error: std::marker::PhantomData,
        }
    }

    /// Returns the verdict on a response that has ended.
    pub(super) fn verdict(&self) -> Verdict {
        self.end.unwrap_or(Verdict::from(Class::Success))
    }
}

impl<B: Body, E> Stream for ResponseParts<B, E> {
    type Item = Result<ResponsePart<B::Data>, ResponseFailure<B, E>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(head) = this.head.take() {
            return Poll::Ready(Some(Ok(ResponsePart::Head(head))));
        }
        let Some(frame) = ready!(this.body.as_mut().poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        if let Ok(frame) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            this.end = (this.classify)(trailers);
        }
        let frame = frame.map(ResponsePart::Frame);
        Poll::Ready(Some(frame.map_err(ResponseFailure::Broken)))
    }
}

impl<B: Body, E> ResponseFailure<B, E> {
    pub(super) fn verdict(&self, classify: impl FnOnce(&E) -> Verdict) -> Verdict {
        match self {
            Self::Attempt(failure) => failure.verdict(classify),
            Self::Answered(_, verdict) => *verdict,
            Self::Broken(_) => Verdict::from(Symptom::Reset),
        }
    }
}

/// The error of a call with a response that broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenBody;

impl fmt::Display for BrokenBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the response broke off")
    }
}

impl Error for BrokenBody {}

/// A body that ends its call with its own end.
///
/// Its errors are those of the inner body, or a `CallError<BrokenBody>` if a limit of time was over
/// first: `error.downcast_ref()` finds either.
///
/// # Cancel safety   Dropped before its end, the call is counted as cancelled.
pub struct GuardedBody<B: Body, E> {
    state: BodyState<B, E>,
}

enum BodyState<B: Body, E> {
    /// The body of a head that was the outcome.
    Plain(Pin<Box<B>>),
    Open(Streamed<ResponseParts<B, E>>),
    /// The last frame, which its caller gets when the outcome is counted (CALL-3).
    Last(Streamed<ResponseParts<B, E>>, Frame<B::Data>),
    Ended,
}

impl<B: Body, E> GuardedBody<B, E> {
    pub(super) fn plain(body: B) -> Self {
        let state = BodyState::Plain(Box::pin(body));
        Self { state }
    }

    pub(super) fn open(parts: Streamed<ResponseParts<B, E>>) -> Self {
        let state = BodyState::Open(parts);
        Self { state }
    }

    /// Returns the inner body, unless it has ended.
    fn inner(&self) -> Option<&B> {
        match &self.state {
            BodyState::Plain(body) => Some(body),
            BodyState::Open(parts) => parts.get_ref().map(|parts| &*parts.body),
            BodyState::Last(..) | BodyState::Ended => None,
        }
    }
}

/// Returns true if nothing follows. A reader that knows the length never asks for more, and the
/// outcome has to be told all the same.
pub(super) fn has_ended<B: Body, E>(parts: &Streamed<ResponseParts<B, E>>) -> bool {
    let parts = parts.get_ref();
    parts.is_some_and(|parts| parts.head.is_none() && parts.body.is_end_stream())
}

type BodyFrame<T> = Result<Frame<T>, Box<dyn Error + Send + Sync>>;

impl<B, E> Body for GuardedBody<B, E>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BodyFrame<B::Data>>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                BodyState::Ended => return Poll::Ready(None),
                BodyState::Plain(body) => {
                    let frame = ready!(body.as_mut().poll_frame(cx));
                    return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
                }
                BodyState::Open(parts) => {
                    let part = ready!(Pin::new(&mut *parts).poll_next(cx));
                    let ends = has_ended(parts);
                    match part {
                        // Not reached: the head was taken before the body was made.
                        Some(Ok(ResponsePart::Head(_))) => {}
                        Some(Ok(ResponsePart::Frame(frame))) if ends => {
                            let open = std::mem::replace(&mut this.state, BodyState::Ended);
                            if let BodyState::Open(parts) = open {
                                this.state = BodyState::Last(parts, frame);
                            }
                        }
                        Some(Ok(ResponsePart::Frame(frame))) => {
                            return Poll::Ready(Some(Ok(frame)));
                        }
                        Some(Err(error)) => {
                            this.state = BodyState::Ended;
                            return Poll::Ready(Some(Err(source_of(error))));
                        }
                        None => this.state = BodyState::Ended,
                    }
                }
                BodyState::Last(parts, _) => {
                    // Nothing comes but the end; an error has no place after the last frame.
                    let _ = ready!(Pin::new(parts).poll_next(cx));
                    let last = std::mem::replace(&mut this.state, BodyState::Ended);
                    if let BodyState::Last(_, frame) = last {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            BodyState::Ended => true,
            BodyState::Plain(body) => body.is_end_stream(),
            BodyState::Open(_) | BodyState::Last(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.inner() {
            Some(body) => body.size_hint(),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

/// Returns the error of a body: the inner one's own, or that of the call.
fn source_of<B, E>(error: CallError<ResponseFailure<B, E>>) -> Box<dyn Error + Send + Sync>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match error {
        CallError::Failed {
            error: ResponseFailure::Broken(error),
            ..
        } => error.into(),
        error => error.map_failed(|_| BrokenBody).into(),
    }
}

/// Nothing in it is pinned except through a box.
impl<B: Body, E> Unpin for GuardedBody<B, E> {}

impl<B: Body, E> fmt::Debug for GuardedBody<B, E> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("GuardedBody")
            .field("has_ended", &matches!(self.state, BodyState::Ended))
            .finish_non_exhaustive()
    }
}
