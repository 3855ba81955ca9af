//! Refusal of messages to an actor that does not run again by itself: its mailbox is emptied as it
//! fills, and senders learn at once that it is closed.
//!
//! The mailbox itself stays: an order of an operator, or a round of its group, may start the actor
//! again, under the same address.

use std::cell::RefCell;
use std::future::Future;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context as TaskContext, Poll, Waker};

use actix::dev::channel::AddressReceiver;
use actix::{Actor, Context};
use futures_util::Stream;

use super::incarnation::caught;
use crate::sync::LockExt;

/// Switch of one mailbox: whether its messages are refused at present.
#[derive(Debug, Default)]
pub(super) struct RefusalSwitch(Mutex<RefusalState>);

#[derive(Debug, Default)]
struct RefusalState {
    /// Number of the present refusal; 0 if messages wait.
    present: u64,
    last: u64,
    waker: Option<Waker>,
}

impl RefusalSwitch {
    /// Begins a refusal, unless there is one.
    fn begin(&self) -> Option<u64> {
        let mut state = self.0.acquire();
        if state.present != 0 {
            return None;
        }
        state.last += 1;
        state.present = state.last;
        Some(state.present)
    }

    /// Ends the refusal: from now on messages wait for the actor.
    pub(super) fn end(&self) {
        let waker = {
            let mut state = self.0.acquire();
            state.present = 0;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The identity of a mailbox: that of its addresses and of its recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MailboxIdentity(u64);

impl MailboxIdentity {
    /// Returns the identity of the mailbox behind an `Addr` or a `Recipient`.
    pub(crate) fn of(address: &impl Hash) -> Self {
        // actix hashes the place of the mailbox in memory, for both of them.
        Self(BuildHasherDefault::<DefaultHasher>::default().hash_one(address))
    }
}

/// A refusal, as a message that it has dropped sees it.
#[derive(Debug, Clone)]
pub(crate) struct RefusalWatch {
    mailbox: MailboxIdentity,
    switch: Weak<RefusalSwitch>,
}

impl RefusalWatch {
    /// Returns the refusal that drops the present message, if it is that of this mailbox. For the
    /// `Drop` of a message: dropped so, it was not handled.
    pub(crate) fn present(mailbox: MailboxIdentity) -> Option<Self> {
        DROPPING.with_borrow(|watch| watch.clone().filter(|watch| watch.mailbox == mailbox))
    }

    /// Returns true while messages to the mailbox are refused.
    pub(crate) fn stands(&self) -> bool {
        let switch = self.switch.upgrade();
        switch.is_some_and(|switch| switch.0.acquire().present != 0)
    }
}

thread_local! {
    /// The refusal that drops a message on this thread at present.
    static DROPPING: RefCell<Option<RefusalWatch>> = const { RefCell::new(None) };
}

/// Ends the refusal of a mailbox that is gone.
impl Drop for RefusalSwitch {
    fn drop(&mut self) {
        self.end();
    }
}

/// The queue of a mailbox; `None` once it is closed for good.
pub(super) type MailboxQueue<A> = Mutex<Option<AddressReceiver<A>>>;

/// Drops the messages of one mailbox until the refusal ends.
pub(super) struct MessageRefusal<A: Actor> {
    number: u64,
    mailbox: MailboxIdentity,
    /// Weak, both: the mailbox closes with its last owner.
    switch: Weak<RefusalSwitch>,
    queue: Weak<MailboxQueue<A>>,
}

impl<A: Actor<Context = Context<A>>> MessageRefusal<A> {
    /// Begins to refuse; `None` if that has begun already.
    pub(super) fn begin(
        mailbox: MailboxIdentity,
        switch: &Arc<RefusalSwitch>,
        queue: &Arc<MailboxQueue<A>>,
    ) -> Option<Self> {
        Some(Self {
            number: switch.begin()?,
            mailbox,
            switch: Arc::downgrade(switch),
            queue: Arc::downgrade(queue),
        })
    }
}

impl<A: Actor<Context = Context<A>>> Future for MessageRefusal<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            let (Some(queue), Some(switch)) = (self.queue.upgrade(), self.switch.upgrade()) else {
                return Poll::Ready(());
            };
            let refused = {
                // The switch is held during the pop: once it is turned, no message is taken from the
                // actor that starts.
                let mut state = switch.0.acquire();
                if state.present != self.number {
                    return Poll::Ready(());
                }
                state.waker = Some(cx.waker().clone());
                match &mut *queue.acquire() {
                    Some(queue) => Pin::new(queue).poll_next(cx),
                    None => Poll::Ready(None),
                }
            };
            match refused {
                // SUP-4: dropped, it tells its sender that the mailbox is closed.
                Poll::Ready(Some(message)) => {
                    let watch = RefusalWatch {
                        mailbox: self.mailbox,
                        switch: Weak::clone(&self.switch),
                    };
                    DROPPING.set(Some(watch));
                    if let Err(panic) = caught(|| drop(message)) {
                        tracing::error!(%panic, "a refused message panicked while it was dropped");
                    }
                    DROPPING.set(None);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
