//! The deadline of the call that is being executed: what it calls further in must be over by then
//! too.
//!
//! While a dependency's work is polled, its deadline stands in a thread-local; a call that is made
//! meanwhile takes it over.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use breakerbox_policy::Time;

use crate::clock::{Clock, Moment};

thread_local! {
    static AROUND: Cell<Option<Moment>> = const { Cell::new(None) };
}

/// The deadline of the work around whoever asks, if there is one.
pub(crate) fn around(clock: &Clock) -> Option<Time> {
    AROUND.get().and_then(|deadline| clock.time_of(deadline))
}

/// Polls something under a deadline.
pub(crate) fn within<T>(deadline: Option<Moment>, poll: impl FnOnce() -> T) -> T {
    /// Puts the deadline before it back, after a panic too.
    struct Back(Option<Moment>);

    impl Drop for Back {
        fn drop(&mut self) {
            AROUND.set(self.0);
        }
    }

    let _back = Back(AROUND.replace(deadline));
    poll()
}

/// A future that is always polled under a deadline.
pub(crate) struct Within<F> {
    deadline: Option<Moment>,
    future: F,
}

impl<F> Within<F> {
    pub(crate) fn new(deadline: Option<Moment>, future: F) -> Self {
        Self { deadline, future }
    }
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        within(this.deadline, || Pin::new(&mut this.future).poll(cx))
    }
}
