//! The two ends of a user's value beside a crash: it says itself that it can serve no more, or it
//! is asked to say goodbye. What follows from either is not decided here.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use crate::dependency::Dependency;
use crate::supervisor::{Life, caught};

/// Watches one value. Each of its futures holds the value, so they are let go of with it.
#[derive(Default)]
pub(super) struct Ending {
    /// Resolves when the value can serve no more; polled once for each turn of the worker.
    ended: Option<Pin<Box<dyn Future<Output = String>>>>,
    /// The value's goodbye, once it was asked for.
    closing: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Ending {
    pub(super) fn of<D: Dependency>(dependency: &Rc<D>) -> Self {
        let dependency = Rc::clone(dependency);
        Self {
            ended: Some(Box::pin(async move { dependency.ended().await })),
            closing: None,
        }
    }

    /// Why the value can serve no more, when it has just said so.
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

    /// Whether it is saying goodbye: it takes no calls any more.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Says goodbye. From then on the value's end is what was asked for, and no failure.
    pub(super) fn poll_close<D: Dependency>(
        &mut self,
        dependency: &Rc<D>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let closing = self.closing.get_or_insert_with(|| {
            self.ended = None;
            let dependency = Rc::clone(dependency);
            Box::pin(async move { dependency.close().await })
        });
        closing.as_mut().poll(cx)
    }

    /// Lets go of the value; a panic in one of the futures spoils nothing else.
    pub(super) fn let_go(&mut self, life: &Life) {
        let (ended, closing) = (self.ended.take(), self.closing.take());
        for dropped in [caught(|| drop(ended)), caught(|| drop(closing))] {
            if let Err(panic) = dropped {
                life.note_second_panic(panic);
            }
        }
    }
}
