//! An open stream, polled by its caller.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use breakerbox_policy::Class;
use futures_util::{Stream, TryStream};
use tokio::sync::oneshot;

use super::hold::StreamHold;
use crate::deadline::{self, CallScope};
use crate::error::CallError;
use crate::state::Shared;
use crate::state::call_record::{CallRecord, CallResult};
use crate::time_limit::TimeLimit;
use crate::verdict::Verdict;

/// Classifies a stream: by its error, or by the stream itself if it ended normally.
pub(super) type Classify<S> =
    Box<dyn Fn(Result<&S, &<S as TryStream>::Error>) -> Verdict + Send + Sync>;

/// A streamed answer under the breaker, by [`Client::run_stream`](crate::Client::run_stream).
///
/// It holds its bulkhead slot until it has ended or is dropped. An error is its last item, and is
/// counted by then (rule CALL-3). For the breaker, its duration is the time until its first item.
///
/// The limits apply while it is polled. Time that the caller spends between two items counts only
/// against `timeout.total` and the caller's deadline. If these expire meanwhile, that is not the
/// dependency's failure.
///
/// # Cancel safety   Dropped before its end, it is counted as cancelled, or as a failure if it was
/// waiting for the dependency after the deadline (rule BRK-6).
pub struct Streamed<S: TryStream> {
    /// `None` once it has ended. Dropped before the slot is given back.
    stream: Option<Pin<Box<S>>>,
    first: Option<S::Ok>,
    classify: Classify<S>,
    /// The conditions of the calls that the stream makes.
    scope: CallScope,
    /// `None` once the outcome is settled.
    hold: Option<StreamHold>,
    /// Resolves when the outcome is counted.
    counted: Option<oneshot::Receiver<()>>,
    error: Option<CallError<S::Error>>,
    /// True if it ended normally, and counts as a failure.
    is_bad: bool,
    /// True if its end says nothing of the service that callers get.
    is_neutral: bool,
    /// `None` once the caller knows the end.
    record: Option<CallRecord<Arc<Shared>>>,
}

/// The result of polling the stream.
enum NextItem<S: TryStream> {
    Item(S::Ok),
    End(Verdict, Option<CallError<S::Error>>),
}

impl<S: TryStream> Streamed<S> {
    pub(super) fn begun(
        stream: Pin<Box<S>>,
        first: S::Ok,
        classify: Classify<S>,
        hold: StreamHold,
        record: CallRecord<Arc<Shared>>,
    ) -> Self {
        Self {
            stream: Some(stream),
            first: Some(first),
            scope: hold.scope(),
            hold: Some(hold),
            record: Some(record),
            ..Self::empty(classify)
        }
    }

    pub(super) fn empty(classify: Classify<S>) -> Self {
        Self {
            stream: None,
            first: None,
            classify,
            scope: CallScope::default(),
            hold: None,
            counted: None,
            error: None,
            is_bad: false,
            is_neutral: false,
            record: None,
        }
    }

    /// Declares that the answer may last longer than an attempt, such as a followed event stream:
    /// from then on only `timeout.idle` and the total time bound it.
    ///
    /// As a probe of a half-open breaker it then succeeds with its first item, so that the breaker
    /// need not wait for its end. The breaker is not notified of its later result.
    #[must_use]
    pub fn long_lived(mut self) -> Self {
        if let (Some(stream), Some(hold)) = (&self.stream, &mut self.hold) {
            hold.end_attempt_limit(|| (self.classify)(Ok(&**stream)));
        }
        self
    }

    /// Declares that the caller may take longer for the answer than a probe has time. As a probe of a
    /// half-open breaker it then succeeds with its first item, as a [`Streamed::long_lived`] one does.
    /// All limits stay.
    #[must_use]
    pub fn good_from_first(mut self) -> Self {
        if let (Some(stream), Some(hold)) = (&self.stream, &mut self.hold) {
            hold.report_probe(|| (self.classify)(Ok(&**stream)));
        }
        self
    }

    /// Removes the limit of the attempt: from then on only `timeout.idle` and the total time bound the
    /// stream. A probe stays one until the stream ends, or [`Streamed::probe_succeeded`] is called.
    #[must_use]
    pub fn without_attempt_limit(mut self) -> Self {
        if let Some(hold) = &mut self.hold {
            hold.remove_attempt_limit();
        }
        self
    }

    /// Declares that the items so far are enough for a probe of a half-open breaker. Does nothing for
    /// other calls. The breaker is not notified of the later result of a probe.
    pub fn probe_succeeded(&mut self) {
        if let (Some(stream), Some(hold)) = (&self.stream, &mut self.hold) {
            hold.report_probe(|| (self.classify)(Ok(&**stream)));
        }
    }

    /// Returns the time until `timeout.total` or the caller's deadline ends it; `None` without these, and
    /// once it has ended. For a reader that may stop polling it.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.hold.as_ref()?.time_left()
    }

    /// The opened stream, such as a response with its head; `None` once it has ended.
    #[must_use]
    pub fn get_ref(&self) -> Option<&S> {
        self.stream.as_deref()
    }

    /// Polls the stream within its limits, whether it waits for the dependency or for the caller.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<Option<NextItem<S>>> {
        let (Some(stream), Some(hold)) = (&mut self.stream, &mut self.hold) else {
            return Poll::Ready(None);
        };
        if hold.is_too_late() {
            let verdict = Verdict::from(Class::Cancelled);
            return Poll::Ready(Some(NextItem::End(verdict, Some(hold.timed_out()))));
        }
        let polled = deadline::within(self.scope, || stream.as_mut().try_poll_next(cx));
        let Poll::Ready(next) = polled else {
            let error = ready!(hold.poll_wait(cx));
            let limit = match error {
                CallError::TimedOut { limit, .. } => limit,
                _ => TimeLimit::Idle,
            };
            let verdict = hold.shared().timed_out(limit);
            return Poll::Ready(Some(NextItem::End(verdict, Some(error))));
        };
        hold.end_wait();
        let (verdict, error) = match next {
            Some(Ok(item)) => return Poll::Ready(Some(NextItem::Item(item))),
            None => ((self.classify)(Ok(&**stream)), None),
            Some(Err(error)) => {
                let dependency = Arc::clone(&hold.shared().name);
                let verdict = (self.classify)(Err(&error));
                let executed = verdict.executed;
                let failed = CallError::Failed {
                    dependency,
                    error,
                    executed,
                };
                (verdict, Some(failed))
            }
        };
        let verdict = hold.shared().judge(verdict);
        Poll::Ready(Some(NextItem::End(verdict, error)))
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<<Self as Stream>::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        match ready!(self.look(cx)) {
            Some(NextItem::Item(item)) => return Poll::Ready(Some(Ok(item))),
            Some(NextItem::End(verdict, error)) => {
                self.stream = None;
                self.error = error;
                self.is_bad = verdict.is_bad();
                self.is_neutral = matches!(verdict.class, Class::Rejected | Class::Cancelled);
                self.counted = self.hold.take().and_then(|hold| hold.settle(verdict));
            }
            None => {}
        }
        if let Some(counted) = &mut self.counted {
            // Either the outcome was counted, or the breaker is gone.
            let _ = ready!(Pin::new(counted).poll(cx));
            self.counted = None;
        }
        let error = self.error.take();
        if let Some(mut record) = self.record.take() {
            if self.is_neutral {
                record.set_neutral();
            }
            record.close(match error {
                // CALL-8: the books follow the verdict.
                None if !self.is_bad => CallResult::Primary,
                _ => CallResult::Failed,
            });
        }
        Poll::Ready(error.map(Err))
    }
}

impl<S: TryStream> Stream for Streamed<S> {
    type Item = Result<S::Ok, CallError<S::Error>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match catch_unwind(AssertUnwindSafe(|| this.advance(cx))) {
            Ok(polled) => polled,
            Err(panic) => {
                if let Some(hold) = this.hold.take() {
                    hold.crash();
                }
                this.record = None;
                this.stream = None;
                resume_unwind(panic)
            }
        }
    }
}

/// Nothing in it is pinned except through its own box.
impl<S: TryStream> Unpin for Streamed<S> {}

impl<S: TryStream> fmt::Debug for Streamed<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Streamed")
            .field("has_ended", &self.record.is_none())
            .finish_non_exhaustive()
    }
}
