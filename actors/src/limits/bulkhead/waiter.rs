//! Waiter in the bulkhead's queue: a future that ends with a slot or a refusal.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use breakerbox_policy::{QueuePosition, Ticket};

use super::{Bulkhead, BulkheadSlot, EntryDecision, NoSlot};

/// A waiter in the queue. It gets its slot by the removal of its position from the queue.
///
/// No waker is woken or dropped under the lock: a waker may be the last owner of a task, and so of
/// other waiters.
///
/// # Cancel safety   A dropped waiter leaves nothing behind; a slot already given to it goes to the
/// next.
pub(super) struct Waiter<'a> {
    bulkhead: &'a Bulkhead,
    ticket: Ticket,
    turn: Option<QueuePosition>,
}

impl<'a> Waiter<'a> {
    pub(super) fn new(bulkhead: &'a Bulkhead, ticket: Ticket) -> Self {
        Self {
            bulkhead,
            ticket,
            turn: None,
        }
    }

    fn place(&self) -> BulkheadSlot<'a> {
        BulkheadSlot {
            bulkhead: self.bulkhead,
            ticket: self.ticket,
        }
    }

    fn enqueue(&mut self, cx: &Context<'_>) -> Poll<Result<BulkheadSlot<'a>, NoSlot>> {
        self.bulkhead.reclaim();
        let mut queue = self.bulkhead.lock();
        let shed = match self.bulkhead.place_or_seat(self.ticket) {
            EntryDecision::Place => return Poll::Ready(Ok(self.place())),
            EntryDecision::Seat => None,
            EntryDecision::Nothing => match queue.line.shed_for(self.ticket.priority) {
                Some((turn, waker)) => {
                    queue.shed.insert(turn);
                    Some(waker)
                }
                None => return Poll::Ready(Err(NoSlot::Overloaded)),
            },
        };
        self.turn = Some(queue.line.join(self.ticket, cx.waker().clone()));
        drop(queue);
        if let Some(waker) = shed {
            waker.wake();
        }
        // A thread may have cached a slot meanwhile, before it could see this waiter.
        self.bulkhead.reclaim();
        Poll::Pending
    }
}

impl<'a> Future for Waiter<'a> {
    type Output = Result<BulkheadSlot<'a>, NoSlot>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(turn) = self.turn else {
            return self.enqueue(cx);
        };
        let mut new = cx.waker().clone();
        let mut queue = self.bulkhead.lock();
        if let Some(waker) = queue.line.get_mut(turn) {
            std::mem::swap(waker, &mut new);
            drop(queue);
            return Poll::Pending;
        }
        let is_shed = queue.shed.remove(&turn);
        drop(queue);
        self.turn = None;
        Poll::Ready(if is_shed {
            Err(NoSlot::Overloaded)
        } else {
            Ok(self.place())
        })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(turn) = self.turn else {
            return;
        };
        let mut queue = self.bulkhead.lock();
        let waker = queue.line.leave(turn);
        if waker.is_some() {
            self.bulkhead.change(|word| Some(word.remove_waiter()));
        }
        let has_place = waker.is_none() && !queue.shed.remove(&turn);
        drop(queue);
        if has_place {
            // The slot was given just now, and no call will use it.
            self.bulkhead.leave(self.ticket);
        }
    }
}
