//! The driver: the future that polls one supervised actor, one incarnation after the other.
//!
//! actix restarts nothing after a panic, keeps the panicked value where it does restart, and
//! answers every queued message with the same `Closed`. So the queue lives here, outside of the
//! incarnation: a pump inside of each incarnation takes messages from it. After a panic the whole
//! incarnation is dropped, and the next one goes on with the same queue and the same address.
//!
//! It never decides whether there is a next incarnation; the supervisor does.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::channel::AddressReceiver;
use actix::dev::{ContextFut, EnvelopeProxy};
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, Addr, AsyncContext, Context};
use breakerbox_policy::RoundedDuration;
use breakerbox_policy::supervision::StopCause;
use futures_channel::mpsc;
use futures_util::{Stream, StreamExt};

use super::health::{Condition, ConditionWord, QueueFence};
use super::incarnation::{Incarnation, Readiness, caught};
use super::refusal::{MailboxIdentity, MailboxQueue, MessageRefusal, RefusalSwitch};
use crate::clock::Clock;
use crate::deadline::Timer;
use crate::sync::LockExt;

/// Maximum number of messages that one actor handles in one poll, so that other tasks of the thread
/// get a turn.
///
/// actix's own mailbox loop has no such bound: one flooded actor starves its thread.
const BURST: u32 = 32;

/// The poll hook of one kind of actor.
pub(crate) trait PollHook<A: Actor<Context = Context<A>>>: 'static {
    /// True if the actor may finish before it stops; otherwise its context is stopped at once.
    const DRAINS: bool = false;

    /// Called at each poll, after the messages.
    fn poll(actor: &mut A, ctx: &mut Context<A>, cx: &mut TaskContext<'_>) {
        let _ = (actor, ctx, cx);
    }
}

/// No poll hook: a user's own actor.
#[derive(Debug)]
pub(crate) struct NoPollHook;

impl<A: Actor<Context = Context<A>>> PollHook<A> for NoPollHook {}

/// The queue of a supervised actor, and its stable address. It outlives every incarnation.
pub(crate) struct StableMailbox<A: Actor> {
    pub(crate) addr: Addr<A>,
    pub(crate) health: Arc<ConditionWord>,
    queue: Arc<MailboxQueue<A>>,
    refusal: Arc<RefusalSwitch>,
}

impl<A: Actor> Clone for StableMailbox<A> {
    fn clone(&self) -> Self {
        Self {
            addr: self.addr.clone(),
            health: Arc::clone(&self.health),
            queue: Arc::clone(&self.queue),
            refusal: Arc::clone(&self.refusal),
        }
    }
}

impl<A: Actor<Context = Context<A>>> StableMailbox<A> {
    /// A queue without a bound of its own: its senders limit it (rule CALL-6), because actix's
    /// bound does not hold.
    pub(crate) fn new() -> Self {
        Self::bounded(0)
    }

    /// A queue with actix's bound, for a user's actor.
    pub(crate) fn bounded(capacity: usize) -> Self {
        let (sender, receiver) = actix::dev::channel::channel(capacity);
        Self {
            addr: Addr::new(sender),
            health: Arc::default(),
            queue: Arc::new(Mutex::new(Some(receiver))),
            refusal: Arc::default(),
        }
    }

    /// Closes the queue for good: queued messages and all later ones are dropped.
    ///
    /// Without it a message to an actor that will never run again would wait for ever.
    pub(crate) fn close(&self) {
        let receiver = self.lock().take();
        drop(receiver);
    }

    /// Refuses the messages from now on, and those that wait, until the next start. On a thread that
    /// runs local tasks.
    pub(crate) fn refuse(&self) {
        let mailbox = MailboxIdentity::of(&self.addr);
        if let Some(refusal) = MessageRefusal::begin(mailbox, &self.refusal, &self.queue) {
            tokio::task::spawn_local(refusal);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<AddressReceiver<A>>> {
        self.queue.acquire()
    }

    fn poll_next(&self, cx: &mut TaskContext<'_>) -> Poll<Option<actix::dev::Envelope<A>>> {
        // The lock is held for the pop alone, so that a new driver can take over while the thread
        // of the old one is blocked in a handler.
        match &mut *self.lock() {
            Some(queue) => Pin::new(queue).poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}

/// A queue beside the mailbox, polled by the driver while no incarnation runs.
pub(crate) trait DriverQueue: Send + Sync {
    /// Accepts new entries from now on.
    fn open(&self);

    /// Drops the queued entries; each entry answers its own caller.
    fn clear(&self);

    /// Drops the queued entries and accepts no more.
    fn close(&self);

    /// Ends the entries that are overdue, and wakes the driver at the next deadline.
    fn poll_idle(&self, cx: &mut TaskContext<'_>);
}

/// A command of the supervisor to a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DriverCommand {
    Start { incarnation: u64 },
    Stop { incarnation: u64 },
    Kill { incarnation: u64 },
}

/// A driver's report to its supervisor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DriverNews {
    Started,
    StartFailed(StopCause),
    Ended(StopCause),
}

/// Sends a report to the supervisor; the number is the incarnation's.
pub(crate) type Tell = Box<dyn Fn(u64, DriverNews) + Send>;

/// Makes an incarnation.
pub(crate) type Make<A> = Arc<dyn Fn(&Rc<Incarnation>) -> A + Send + Sync>;

/// The parts that a driver keeps for its whole life.
pub(crate) struct DriverParts<A: Actor> {
    pub(crate) slot: StableMailbox<A>,
    pub(crate) make: Make<A>,
    pub(crate) commands: mpsc::UnboundedReceiver<DriverCommand>,
    pub(crate) tell: Tell,
    /// Set if the duration of each poll is watched.
    pub(crate) watched: Option<Clock>,
    /// Maximum time of a start, by this clock.
    pub(crate) start_limit: Option<(Duration, Clock)>,
    pub(crate) queue: Option<Arc<dyn DriverQueue>>,
    /// True if queued entries fail with the incarnation instead of waiting for the next one.
    pub(crate) clear_on_crash: bool,
}

/// Polls one child of a supervisor.
pub(crate) struct Driver<A: Actor<Context = Context<A>>, M: PollHook<A>> {
    parts: DriverParts<A>,
    fence: QueueFence,
    current: Option<RunningActor<A>>,
    manner: PhantomData<M>,
}

struct RunningActor<A: Actor<Context = Context<A>>> {
    incarnation: u64,
    life: Rc<Incarnation>,
    future: ContextFut<A, Context<A>>,
    announced: bool,
    /// The deadline of its start.
    patience: Timer,
}

impl<A: Actor<Context = Context<A>>, M: PollHook<A>> Unpin for Driver<A, M> {}

impl<A: Actor<Context = Context<A>>, M: PollHook<A>> Driver<A, M> {
    pub(crate) fn new(parts: DriverParts<A>) -> Self {
        let fence = parts.slot.health.new_owner();
        Self {
            parts,
            fence,
            current: None,
            manner: PhantomData,
        }
    }

    fn start(&mut self, incarnation: u64) {
        self.parts.slot.refusal.end();
        if let Some(queue) = &self.parts.queue {
            queue.open();
        }
        let life = Rc::new(Incarnation::new(self.fence.clone()));
        let patience = self.patience();
        match caught(|| (self.parts.make)(&life)) {
            Err(panic) => {
                let cause = StopCause::Crashed(panic);
                (self.parts.tell)(incarnation, DriverNews::StartFailed(cause));
            }
            Ok(actor) => {
                let mut ctx = Context::new();
                ctx.spawn(MessagePump::<A, M> {
                    slot: self.parts.slot.clone(),
                    life: Rc::clone(&life),
                    manner: PhantomData,
                });
                self.current = Some(RunningActor {
                    incarnation,
                    life,
                    future: ctx.into_future(actor),
                    announced: false,
                    patience,
                });
            }
        }
    }

    /// The deadline of a start that begins now.
    fn patience(&self) -> Timer {
        let limit = self.parts.start_limit.as_ref();
        Timer::new(limit.map(|(limit, clock)| clock.now().after(*limit)))
    }

    /// Ends an incarnation that has not started within its limit.
    fn poll_patience(&mut self, cx: &mut TaskContext<'_>) -> Option<StopCause> {
        let (limit, clock) = self.parts.start_limit.as_ref()?;
        let current = self.current.as_mut().filter(|current| !current.announced)?;
        let is_over = current.patience.poll(clock, cx).is_ready();
        is_over.then(|| late_start(*limit))
    }

    /// Returns the failure of a start that is complete now, if it took longer than its limit: code
    /// that blocks the thread lets no timer run.
    fn late(&self) -> Option<StopCause> {
        let (limit, clock) = self.parts.start_limit.as_ref()?;
        let current = self.current.as_ref().filter(|current| !current.announced)?;
        let deadline = current.patience.deadline?;
        (clock.now() > deadline).then(|| late_start(*limit))
    }

    fn stop(&mut self) {
        if let Some(current) = &mut self.current {
            current.life.ask_to_stop();
            let health = &self.parts.slot.health;
            health.set(Condition::Stopping, current.incarnation);
            if !M::DRAINS || !current.announced {
                current.future.ctx().stop();
            }
        }
    }

    /// Ends the incarnation: marks it down, then drops it, then reports its end.
    fn end(&mut self, cause: StopCause) {
        let Some(RunningActor {
            incarnation,
            life,
            mut future,
            announced,
            ..
        }) = self.current.take()
        else {
            return;
        };
        self.parts.slot.health.set(Condition::Down, incarnation);
        life.set_death(cause);
        // A terminated context runs no `stopping` and no further handler when it is dropped.
        future.ctx().terminate();
        if let Err(panic) = caught(|| drop(future)) {
            life.note_second_panic(panic);
        }
        let cause = life.death().unwrap_or(StopCause::Killed);
        if self.parts.clear_on_crash
            && !cause.is_normal()
            && let Some(queue) = &self.parts.queue
        {
            queue.clear();
        }
        let asked = life.is_stopping() || matches!(cause, StopCause::Killed | StopCause::Lost);
        if !announced && !asked {
            if !cause.is_normal() {
                (self.parts.tell)(incarnation, DriverNews::StartFailed(cause));
                return;
            }
            // It started and had nothing to do.
            (self.parts.tell)(incarnation, DriverNews::Started);
        }
        (self.parts.tell)(incarnation, DriverNews::Ended(cause));
    }

    /// Executes the supervisor's commands; `Ready` if the supervisor is gone.
    fn poll_commands(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        loop {
            match std::task::ready!(self.parts.commands.poll_next_unpin(cx)) {
                None => {
                    self.end(StopCause::Killed);
                    return Poll::Ready(());
                }
                Some(DriverCommand::Start { incarnation }) => self.start(incarnation),
                Some(DriverCommand::Stop { incarnation }) if self.is_current(incarnation) => {
                    self.stop();
                }
                Some(DriverCommand::Kill { incarnation }) if self.is_current(incarnation) => {
                    self.end(StopCause::Killed);
                }
                Some(_of_a_life_that_is_over) => {}
            }
        }
    }

    fn is_current(&self, incarnation: u64) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.incarnation == incarnation)
    }

    /// Polls the incarnation; `Some` if it has ended.
    fn poll_current(&mut self, cx: &mut TaskContext<'_>) -> Option<StopCause> {
        let current = self.current.as_mut()?;
        let health = &self.parts.slot.health;
        if let Some(clock) = &self.parts.watched {
            health.enter(clock.now());
        }
        let polled = caught(|| Pin::new(&mut current.future).poll(cx));
        if self.parts.watched.is_some() {
            health.leave();
        }
        let declared = super::take_declared_end();
        let late = self.late();
        let current = self.current.as_mut()?;
        if let Some(panic) = current.life.take_crash() {
            return Some(StopCause::Crashed(panic));
        }
        match polled {
            Err(panic) => Some(StopCause::Crashed(panic)),
            Ok(Poll::Ready(())) => Some(match declared {
                Some(cause) => cause,
                None if current.life.is_stopping() => StopCause::Shutdown,
                None => StopCause::Normal,
            }),
            Ok(Poll::Pending) => match current.life.readiness() {
                Readiness::Failed(cause) => Some(cause),
                Readiness::Starting => None,
                Readiness::Ready if !current.life.is_settled() => None,
                // SUP-1: a start that takes longer than its limit has failed, also if it blocks its thread.
                Readiness::Ready if late.is_some() => late,
                Readiness::Ready => {
                    if !current.announced {
                        current.announced = true;
                        if !current.life.is_stopping() {
                            health.set(Condition::Running, current.incarnation);
                        }
                        (self.parts.tell)(current.incarnation, DriverNews::Started);
                    }
                    None
                }
            },
        }
    }
}

impl<A: Actor<Context = Context<A>>, M: PollHook<A>> Future for Driver<A, M> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            if this.fence.is_passed() {
                // Another driver took over while this thread was blocked; no supervisor listens to
                // this one.
                this.parts.tell = Box::new(|_, _| {});
                this.end_quietly();
                return Poll::Ready(());
            }
            if this.poll_commands(cx).is_ready() {
                return Poll::Ready(());
            }
            match this.poll_current(cx).or_else(|| this.poll_patience(cx)) {
                // The supervisor decides the next step; its command wakes this driver.
                Some(cause) if !this.fence.is_passed() => this.end(cause),
                Some(_) => {}
                None => {
                    if let (None, Some(queue)) = (&this.current, &this.parts.queue) {
                        queue.poll_idle(cx);
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>, M: PollHook<A>> Driver<A, M> {
    /// Drops the incarnation without changing the state that the new owner has published.
    fn end_quietly(&mut self) {
        if let Some(RunningActor {
            life, mut future, ..
        }) = self.current.take()
        {
            life.set_death(StopCause::Lost);
            future.ctx().terminate();
            if let Err(panic) = caught(|| drop(future)) {
                tracing::error!(%panic, "a fenced-off actor panicked while it was dropped");
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>, M: PollHook<A>> Drop for Driver<A, M> {
    fn drop(&mut self) {
        if self.fence.is_passed() {
            self.end_quietly();
        } else {
            self.end(StopCause::Lost);
            if let Some(queue) = &self.parts.queue {
                queue.close();
            }
        }
    }
}

/// Returns the failure of a start that took longer than its limit.
fn late_start(limit: Duration) -> StopCause {
    let limit = RoundedDuration(limit);
    StopCause::Failed(format!("it did not start within {limit} (start_timeout)"))
}

/// The part of a driver that lives inside of an incarnation and passes messages to it.
struct MessagePump<A: Actor, M> {
    slot: StableMailbox<A>,
    life: Rc<Incarnation>,
    manner: PhantomData<M>,
}

impl<A: Actor, M> Unpin for MessagePump<A, M> {}

impl<A: Actor<Context = Context<A>>, M: PollHook<A>> ActorFuture<A> for MessagePump<A, M> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut Context<A>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        if !self.life.is_settled() {
            // actix polls nothing in a context that waits: an actor that called `ctx.wait` in its
            // `started` is up when that wait is over. Messages are handled only after the start was
            // reported, or a panic in the first of them would count as a failed start.
            self.life.settle();
            M::poll(actor, ctx, cx);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut left = BURST;
        while self.life.is_ready()
            && !ctx.waiting()
            && !self.life.has_crashed()
            && !self.life.is_fenced()
        {
            if left == 0 {
                cx.waker().wake_by_ref();
                break;
            }
            left -= 1;
            match self.slot.poll_next(cx) {
                Poll::Ready(Some(mut envelope)) => envelope.handle(actor, ctx),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if !self.life.has_crashed() {
            let was_ready = self.life.is_ready();
            M::poll(actor, ctx, cx);
            if self.life.is_ready() != was_ready {
                // The actor has just become ready: poll again for the messages that waited for
                // this.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}
