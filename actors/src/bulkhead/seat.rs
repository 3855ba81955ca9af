//! A seat in the queue: a future that comes to a place, or to nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use breakerbox_policy::{Ticket, Turn};

use super::{Bulkhead, NoPlace, Place, Step};

/// A seat in the queue. A place comes to it by its turn being taken off the queue.
///
/// No waker is woken or dropped under the lock: it may be the last that keeps a task, and other
/// seats with it.
///
/// # Cancel safety   Dropped, it leaves nothing behind; a place that came to it goes to the next.
pub(super) struct Seat<'a> {
    bulkhead: &'a Bulkhead,
    ticket: Ticket,
    turn: Option<Turn>,
}

impl<'a> Seat<'a> {
    pub(super) fn new(bulkhead: &'a Bulkhead, ticket: Ticket) -> Self {
        Self {
            bulkhead,
            ticket,
            turn: None,
        }
    }

    fn place(&self) -> Place<'a> {
        Place {
            bulkhead: self.bulkhead,
            ticket: self.ticket,
        }
    }

    fn sit_down(&mut self, cx: &Context<'_>) -> Poll<Result<Place<'a>, NoPlace>> {
        self.bulkhead.call_in();
        let mut queue = self.bulkhead.lock();
        let shed = match self.bulkhead.place_or_seat(self.ticket) {
            Step::Place => return Poll::Ready(Ok(self.place())),
            Step::Seat => None,
            Step::Nothing => match queue.line.shed_for(self.ticket.priority) {
                Some((turn, waker)) => {
                    queue.shed.insert(turn);
                    Some(waker)
                }
                None => return Poll::Ready(Err(NoPlace::Overloaded)),
            },
        };
        self.turn = Some(queue.line.join(self.ticket, cx.waker().clone()));
        drop(queue);
        if let Some(waker) = shed {
            waker.wake();
        }
        // A thread may have kept a place since, before it could see that anybody waits.
        self.bulkhead.call_in();
        Poll::Pending
    }
}

impl<'a> Future for Seat<'a> {
    type Output = Result<Place<'a>, NoPlace>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(turn) = self.turn else {
            return self.sit_down(cx);
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
            Err(NoPlace::Overloaded)
        } else {
            Ok(self.place())
        })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Some(turn) = self.turn else {
            return;
        };
        let mut queue = self.bulkhead.lock();
        let waker = queue.line.leave(turn);
        if waker.is_some() {
            self.bulkhead.change(|word| Some(word.get_up()));
        }
        let has_place = waker.is_none() && !queue.shed.remove(&turn);
        drop(queue);
        if has_place {
            // It came just now, and nobody will use it.
            self.bulkhead.leave(self.ticket);
        }
    }
}
