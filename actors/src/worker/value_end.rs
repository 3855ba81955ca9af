//! The two ends of a user's value other than a crash: the value declares that it can serve no more,
//! or it is asked to shut down. The consequences of either are not decided here.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use crate::dependency::Dependency;
use crate::supervisor::{Incarnation, caught};

/// The futures that watch one value for its end. Each of them holds the value, so they are dropped
/// together with it.
#[derive(Default)]
pub(super) struct ValueEnd {
    /// Resolves when the value can serve no more; polled once for each poll of the worker.
    ended: Option<Pin<Box<dyn Future<Output = String>>>>,
    /// The value's shutdown, once requested.
    closing: Option<Pin<Box<dyn Future<Output = ()>>>>,
    is_closed: bool,
}

impl ValueEnd {
    pub(super) fn of<D: Dependency>(dependency: &Rc<D>) -> Self {
        let dependency = Rc::clone(dependency);
        Self {
            ended: Some(Box::pin(async move { dependency.ended().await })),
            closing: None,
            is_closed: false,
        }
    }

    /// Returns the reason once, when the value has declared that it can serve no more.
    #[inline]
    pub(super) fn poll_ended(&mut self, cx: &mut TaskContext<'_>) -> Option<String> {
        match self.ended.as_mut()?.as_mut().poll(cx) {
            Poll::Pending => None,
            Poll::Ready(why) => {
                self.ended = None;
                Some(why)
            }
        }
    }

    /// Returns true while the value shuts down: it then takes no calls.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Shuts the value down. From then on its end is a requested stop, not a failure.
    pub(super) fn poll_close<D: Dependency>(
        &mut self,
        dependency: &Rc<D>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        if self.is_closed {
            return Poll::Ready(());
        }
        let closing = self.closing.get_or_insert_with(|| {
            self.ended = None;
            let dependency = Rc::clone(dependency);
            Box::pin(async move { dependency.close().await })
        });
        let closed = closing.as_mut().poll(cx);
        self.is_closed = closed.is_ready();
        closed
    }

    /// Drops the futures; a panic in one of them does not affect the rest.
    pub(super) fn drop_futures(&mut self, incarnation: &Incarnation) {
        let (ended, closing) = (self.ended.take(), self.closing.take());
        for dropped in [caught(|| drop(ended)), caught(|| drop(closing))] {
            if let Err(panic) = dropped {
                incarnation.note_second_panic(panic);
            }
        }
    }
}
