//! Waiter in the bulkhead's queue: a future that ends with a slot or a refusal.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use breakerbox_policy::{QueuePosition, Ticket};

use super::slot_pool::{BulkheadSlot, EntryDecision, NoSlot, QueueRefusal, SlotPool};

/// A waiter in the queue. It gets its slot by the removal of its position from the queue.
///
/// No waker is woken or dropped under the lock: a waker may be the last owner of a task, and so of
/// other waiters.
///
/// # Cancel safety   A dropped waiter leaves nothing behind; a slot already given to it goes to the
/// next.
pub(crate) struct Waiter<'a> {
    pool: &'a SlotPool,
    ticket: Ticket,
    turn: Option<QueuePosition>,
}

impl<'a> Waiter<'a> {
    pub(super) fn new(pool: &'a SlotPool, ticket: Ticket) -> Self {
        Self {
            pool,
            ticket,
            turn: None,
        }
    }

    fn slot(&self) -> BulkheadSlot<'a> {
        BulkheadSlot {
            pool: self.pool,
            ticket: self.ticket,
        }
    }

    fn enqueue(&mut self, cx: &Context<'_>) -> Poll<Result<BulkheadSlot<'a>, NoSlot>> {
        self.pool.reclaim();
        let mut queue = self.pool.lock();
        let shed = match self.pool.slot_or_wait(self.ticket) {
            EntryDecision::Slot => return Poll::Ready(Ok(self.slot())),
            EntryDecision::Wait => None,
            EntryDecision::Full => match queue.waiters.shed_for(self.ticket.priority) {
                Some((turn, waker)) => {
                    queue.shed.insert(turn);
                    Some(waker)
                }
                None => return Poll::Ready(Err(NoSlot::Overloaded(QueueRefusal::Full))),
            },
        };
        self.turn = Some(queue.waiters.join(self.ticket, cx.waker().clone()));
        drop(queue);
        if let Some(waker) = shed {
            waker.wake();
        }
        // A thread may have cached a slot meanwhile, before it could see this waiter.
        self.pool.reclaim();
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
        let mut queue = self.pool.lock();
        if let Some(waker) = queue.waiters.get_mut(turn) {
            std::mem::swap(waker, &mut new);
            drop(queue);
            return Poll::Pending;
        }
        let is_shed = queue.shed.remove(&turn);
        drop(queue);
        self.turn = None;
        Poll::Ready(if is_shed {
            Err(NoSlot::Overloaded(QueueRefusal::Full))
        } else {
            Ok(self.slot())
        })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(turn) = self.turn else {
            return;
        };
        let mut queue = self.pool.lock();
        let waker = queue.waiters.leave(turn);
        if waker.is_some() {
            self.pool.change(|word| Some(word.remove_waiter()));
        }
        let has_slot = waker.is_none() && !queue.shed.remove(&turn);
        drop(queue);
        if has_slot {
            // The slot was given just now, and no call will use it.
            self.pool.release(self.ticket);
        }
    }
}
