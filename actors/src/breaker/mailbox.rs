//! The mailbox of a breaker actor: calls that arrive as messages, within a bound that holds.
//!
//! actix's own queue has no such bound, and only its actor can take from it. Here each sender moves
//! its message on by itself, from actix's queue into this one, or gets its refusal there and then.
//! Calls that the actor cannot end in time, because its thread is blocked, are ended by the
//! [watch](super::mailbox_watch).

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use actix::Addr;
use actix::dev::channel::AddressReceiver;
use actix::dev::{EnvelopeProxy, OneshotSender};
use breakerbox_policy::{Executed, Time};
use futures_util::Stream;
use slab::Slab;
use tokio::sync::Notify;

use super::mailbox_watch;
use crate::breaker::message::{Call, CallAnswer};
use crate::breaker::{Breaker, BreakerContext};
use crate::bulkhead_limit::BulkheadLimit;
use crate::clock::earliest;
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::state::Shared;
use crate::state::call_record::CallRecord;
use crate::supervisor::Threads;
use crate::sync::{LockExt, Mutex, MutexGuard};
use crate::time_limit::TimeLimit;

/// Number of calls that may wait in each mailbox, however narrow the bulkhead is: a burst of short
/// calls passes it, although few of them run at once.
const MIN_BOUND: u32 = 4096;

/// Where a call's answer goes; `None` if its sender wants none.
pub(super) type CallReply<D> = Option<OneshotSender<CallAnswer<D>>>;

/// The calls that wait for the breaker actor, and the replies of those that it makes.
pub(crate) struct CallMailbox<D: Dependency> {
    pub(super) shared: Arc<Shared>,
    threads: Threads,
    /// The address that actors send calls to.
    pub(crate) addr: Addr<Breaker<D>>,
    state: Mutex<MailboxState<D>>,
    /// Tells the watch of an earlier deadline.
    pub(super) earlier: Notify,
}

struct MailboxState<D: Dependency> {
    /// actix's queue; `None` once the mailbox is closed.
    arrivals: Option<AddressReceiver<Breaker<D>>>,
    waiting: VecDeque<WaitingCall<D>>,
    in_progress: Slab<GuardedReply<D>>,
    /// Wakes the breaker actor.
    actor: Option<Waker>,
    /// The deadline for which the watch sleeps; `None` if there is no watch.
    watched: Option<Time>,
}

/// A call that waits for the breaker actor.
pub(super) struct WaitingCall<D: Dependency> {
    pub(super) call: Call<D>,
    pub(super) reply: CallReply<D>,
    pub(super) arrived: Time,
    /// The deadline that its caller has set or inherited.
    pub(super) own_deadline: Option<Time>,
    /// The deadline by `timeout.total`.
    pub(super) total_deadline: Option<Time>,
    /// The time that it has waited; known once it is taken, if it has a deadline.
    pub(super) waited: Duration,
    /// True once it was ended without the actor, which then drops it.
    is_over: bool,
}

impl<D: Dependency> WaitingCall<D> {
    fn deadline(&self) -> Option<Time> {
        earliest(self.own_deadline, self.total_deadline)
    }

    /// The limit that the deadline is of.
    pub(super) fn limit(&self) -> TimeLimit {
        let total = self.total_deadline;
        match self.own_deadline {
            Some(own) if total.is_none_or(|total| own < total) => TimeLimit::Caller,
            _ => TimeLimit::Total,
        }
    }
}

/// The reply of a call that the breaker actor makes.
struct GuardedReply<D: Dependency> {
    /// `None` once it was told without the actor.
    reply: CallReply<D>,
    arrived: Time,
    deadline: Option<Time>,
    limit: TimeLimit,
}

impl<D: Dependency> CallMailbox<D> {
    pub(crate) fn new(shared: Arc<Shared>, threads: Threads) -> Arc<Self> {
        // Without actix's bound, which would let senders wait, and which `do_send` ignores.
        let (sender, arrivals) = actix::dev::channel::channel(0);
        let mailbox = Arc::new(Self {
            shared,
            threads,
            addr: Addr::new(sender),
            state: Mutex::new(MailboxState {
                arrivals: Some(arrivals),
                waiting: VecDeque::new(),
                in_progress: Slab::new(),
                actor: None,
                watched: None,
            }),
            earlier: Notify::new(),
        });
        let waker = Waker::from(Arc::new(ArrivalWaker(Arc::downgrade(&mailbox))));
        mailbox.collect(&waker);
        mailbox
    }

    /// Number of calls that wait for the breaker actor.
    pub(crate) fn waiting(&self) -> u32 {
        u32::try_from(self.state().waiting.len()).unwrap_or(u32::MAX)
    }

    /// Closes it for good: waiting calls and all later ones are dropped.
    pub(crate) fn close(&self) {
        let (arrivals, waiting, actor) = {
            let mut state = self.state();
            let waiting = std::mem::take(&mut state.waiting);
            (state.arrivals.take(), waiting, state.actor.take())
        };
        drop((arrivals, waiting));
        if let Some(actor) = actor {
            actor.wake();
        }
    }

    /// Moves all messages that have arrived into this queue. `waker` is called for the next one.
    fn collect(self: &Arc<Self>, waker: &Waker) {
        let now = self.shared.clock.now();
        let mut refused = Vec::new();
        let (actor, watch) = {
            let mut state = self.state();
            let known = state.waiting.len();
            state.collect(waker, |state, (call, reply)| {
                // CALL-6: the bound holds for every way to send a call.
                match self.bound_reached(state.waiting.len()) {
                    Some(bound) => refused.push((call, reply, bound)),
                    None => state.waiting.push_back(self.waiting_call(call, reply, now)),
                }
            });
            let watch = state.next_watch(known);
            let actor = (state.waiting.len() > known).then(|| state.actor.take());
            (actor.flatten(), watch)
        };
        if let Some(actor) = actor {
            actor.wake();
        }
        self.set_watch(watch);
        for (call, reply, bound) in refused {
            let error = self.refusal(bound);
            self.count(&error);
            tell(reply.map(|reply| (reply, Err(error))));
            drop(call);
        }
    }

    fn waiting_call(&self, call: Call<D>, reply: CallReply<D>, now: Time) -> WaitingCall<D> {
        let options = call.options.as_deref();
        let own = options.and_then(|options| options.timeout);
        let around = call.around.deadline(&self.shared.clock);
        let total = self.shared.call_settings().total;
        WaitingCall {
            own_deadline: earliest(own.map(|span| now.after(span)), around),
            total_deadline: total.map(|span| now.after(span)),
            call,
            reply,
            arrived: now,
            waited: Duration::ZERO,
            is_over: false,
        }
    }

    /// Returns the bound, if `waiting` calls are as many as may wait.
    fn bound_reached(&self, waiting: usize) -> Option<NonZeroU32> {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        if waiting < MIN_BOUND {
            return None;
        }
        let bulkhead = self.shared.settings().bulkhead;
        let at_once = bulkhead.max_concurrent.saturating_add(bulkhead.max_queue);
        let bound = at_once.max(NonZeroU32::new(MIN_BOUND)?);
        (waiting >= bound.get()).then_some(bound)
    }

    fn refusal(&self, bound: NonZeroU32) -> CallError<D::Error> {
        let bulkhead = self.shared.settings().bulkhead;
        CallError::Overloaded {
            dependency: Arc::clone(&self.shared.name),
            limit: BulkheadLimit {
                mailbox: Some(bound),
                ..BulkheadLimit::default()
            },
            max_concurrent: bulkhead.max_concurrent.get(),
            max_queue: bulkhead.max_queue,
        }
    }

    /// Counts a call that ends before the actor has taken it.
    fn count(&self, error: &CallError<D::Error>) {
        // CALL-1: it was made, and has ended.
        let record = CallRecord::open(&*self.shared);
        self.shared.counts.count_refusal(error);
        record.close_failed(error);
    }

    fn timed_out(
        &self,
        limit: TimeLimit,
        waited: Duration,
        executed: Executed,
    ) -> CallError<D::Error> {
        CallError::timed_out(Arc::clone(&self.shared.name), (limit, waited), executed)
    }

    /// Returns the next call to make; pending if none waits. For the breaker actor.
    pub(super) fn poll_take(&self, cx: &mut TaskContext<'_>) -> Poll<WaitingCall<D>> {
        loop {
            let next = {
                let mut state = self.state();
                let next = state.waiting.pop_front();
                if next.is_none() {
                    state.actor = Some(cx.waker().clone());
                }
                next
            };
            let Some(mut next) = next else {
                return Poll::Pending;
            };
            if next.is_over {
                continue;
            }
            let Some(deadline) = next.deadline() else {
                return Poll::Ready(next);
            };
            let now = self.shared.clock.now();
            if now < deadline {
                next.waited = now.since(next.arrived);
                return Poll::Ready(next);
            }
            // LIM-2: it cannot begin before its deadline any more.
            let error = self.timed_out(next.limit(), now.since(next.arrived), Executed::No);
            self.count(&error);
            tell(next.reply.map(|reply| (reply, Err(error))));
        }
    }

    /// Keeps the reply of a call that the actor makes, until the actor or the watch sends it.
    /// `deadline`: that of the call with its fallbacks.
    pub(super) fn guard(
        self: &Arc<Self>,
        reply: OneshotSender<CallAnswer<D>>,
        arrived: Time,
        (deadline, limit): (Option<Time>, TimeLimit),
    ) -> ReplyGuard<D> {
        let (key, watch) = {
            let mut state = self.state();
            let key = state.in_progress.insert(GuardedReply {
                reply: Some(reply),
                arrived,
                deadline,
                limit,
            });
            (key, state.watch_for(deadline))
        };
        self.set_watch(watch);
        ReplyGuard {
            mailbox: Arc::clone(self),
            key,
        }
    }

    /// Ends the calls with a deadline that is over for `moment` or longer, and returns the next
    /// deadline; `None` if there is no call with one, and the watch ends. For the watch.
    pub(super) fn end_overdue(&self, moment: Duration) -> Option<Time> {
        let now = self.shared.clock.now();
        let is_due = |deadline: Option<Time>| deadline.is_some_and(|at| at.after(moment) <= now);
        let mut told = Vec::new();
        let mut uncounted = Vec::new();
        let next = {
            let mut state = self.state();
            let mut next = None;
            for waiting in state.waiting.iter_mut().filter(|waiting| !waiting.is_over) {
                if is_due(waiting.deadline()) {
                    waiting.is_over = true;
                    uncounted.push((waiting.reply.take(), waiting.arrived, waiting.limit()));
                } else {
                    next = earliest(next, waiting.deadline());
                }
            }
            for (_, guarded) in &mut state.in_progress {
                if !is_due(guarded.deadline) {
                    next = earliest(next, guarded.deadline);
                } else if let Some(reply) = guarded.reply.take() {
                    // CALL-3: its outcome is counted when its thread turns again.
                    let error =
                        self.timed_out(guarded.limit, now.since(guarded.arrived), Executed::Maybe);
                    told.push((reply, Err(error)));
                    guarded.deadline = None;
                }
            }
            state.watched = next;
            next
        };
        for (reply, arrived, limit) in uncounted {
            let error = self.timed_out(limit, now.since(arrived), Executed::No);
            self.count(&error);
            told.extend(reply.map(|reply| (reply, Err(error))));
        }
        told.into_iter().for_each(|one| tell(Some(one)));
        next
    }

    /// Starts the watch, or tells it of an earlier deadline.
    fn set_watch(self: &Arc<Self>, change: WatchChange) {
        // On a virtual clock there is one thread, and time stands still while it works.
        if !self.threads.are_apart() {
            return;
        }
        match change {
            WatchChange::None => {}
            WatchChange::Earlier => self.earlier.notify_one(),
            WatchChange::Start => {
                // Without its control thread the runtime has ended, and each call with it.
                let mailbox = Arc::clone(self);
                let watch = move || mailbox_watch::watch(mailbox);
                let _ = self.threads.control().spawn(watch);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, MailboxState<D>> {
        self.state.acquire()
    }
}

/// Consequence of a new deadline for the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WatchChange {
    None,
    Start,
    Earlier,
}

impl<D: Dependency> MailboxState<D> {
    /// Passes each message in actix's queue to `arrive`.
    fn collect(
        &mut self,
        waker: &Waker,
        mut arrive: impl FnMut(&mut Self, (Call<D>, CallReply<D>)),
    ) {
        let mut cx = TaskContext::from_waker(waker);
        let mut context = BreakerContext::default();
        while let Some(arrivals) = &mut self.arrivals
            && let Poll::Ready(Some(mut envelope)) = Pin::new(arrivals).poll_next(&mut cx)
        {
            envelope.handle(&mut Breaker::new(), &mut context);
            if let Some(arrived) = context.take() {
                arrive(self, arrived);
            }
        }
    }

    /// Sets the watch for the calls that wait since there were `known` of them.
    fn next_watch(&mut self, known: usize) -> WatchChange {
        let deadlines = self.waiting.iter().skip(known).map(WaitingCall::deadline);
        let earliest = deadlines.fold(None, earliest);
        self.watch_for(earliest)
    }

    fn watch_for(&mut self, deadline: Option<Time>) -> WatchChange {
        let Some(deadline) = deadline else {
            return WatchChange::None;
        };
        match self.watched {
            Some(watched) if watched <= deadline => WatchChange::None,
            Some(_) => {
                self.watched = Some(deadline);
                WatchChange::Earlier
            }
            None => {
                self.watched = Some(deadline);
                WatchChange::Start
            }
        }
    }
}

/// Answers a caller, which may have gone just now.
fn tell<T>(told: Option<(OneshotSender<T>, T)>) {
    if let Some((reply, answer)) = told {
        let _ = reply.send(answer);
    }
}

/// Called by actix for a message that has arrived, on its sender's thread.
struct ArrivalWaker<D: Dependency>(Weak<CallMailbox<D>>);

impl<D: Dependency> Wake for ArrivalWaker<D> {
    fn wake(self: Arc<Self>) {
        if let Some(mailbox) = self.0.upgrade() {
            mailbox.collect(&Waker::from(self));
        }
    }
}

/// The reply of a call in progress. Dropped unsent, its caller learns that the actor is gone.
pub(super) struct ReplyGuard<D: Dependency> {
    mailbox: Arc<CallMailbox<D>>,
    key: usize,
}

impl<D: Dependency> ReplyGuard<D> {
    /// Answers the caller, unless the watch has done so.
    pub(super) fn send(self, answer: CallAnswer<D>) {
        let reply = self.take();
        tell(reply.map(|reply| (reply, answer)));
    }

    /// Resolves when the caller has gone away; never, if the watch has answered it.
    pub(super) fn poll_gone(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut state = self.mailbox.state();
        match state.in_progress.get_mut(self.key) {
            Some(GuardedReply {
                reply: Some(reply), ..
            }) => reply.poll_closed(cx),
            _ => Poll::Pending,
        }
    }

    fn take(&self) -> CallReply<D> {
        let mut state = self.mailbox.state();
        state.in_progress.get_mut(self.key)?.reply.take()
    }
}

impl<D: Dependency> Drop for ReplyGuard<D> {
    fn drop(&mut self) {
        let unsent = self.mailbox.state().in_progress.try_remove(self.key);
        // Its caller is woken outside of the lock.
        drop(unsent);
    }
}
