//! The actor that makes the calls of a breaker's mailbox, on the thread of the first workers.
//!
//! Few calls need a task: most end at their first poll.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::OneshotSender;
use actix::{Actor, Context};
use breakerbox_policy::Time;
use futures_util::FutureExt as _;

use super::mailbox::{CallMailbox, ReplyGuard, WaitingCall};
use super::message::{AnswerFuture, CallMaker};
use super::{judgement, keeper};
use crate::clock::earliest;
use crate::dependency::Dependency;
use crate::supervisor::{PollHook, Threads};

/// Maximum number of calls that are begun in one poll, so that other tasks of the thread get a turn.
const BURST: u32 = 32;

/// Time in the mailbox beyond which it counts against a call's limits.
const NOTABLE_WAIT: Duration = Duration::from_millis(1);

/// Makes the calls that arrive as messages.
pub(crate) struct CallReceiver<D: Dependency> {
    pub(super) mailbox: Arc<CallMailbox<D>>,
    calls: Arc<dyn CallMaker<D>>,
    threads: Threads,
    /// True once its start was reported: a panic in a call is no failed start.
    has_started: bool,
}

impl<D: Dependency> CallReceiver<D> {
    pub(crate) fn new(
        mailbox: Arc<CallMailbox<D>>,
        calls: Arc<dyn CallMaker<D>>,
        threads: Threads,
    ) -> Self {
        Self {
            mailbox,
            calls,
            threads,
            has_started: false,
        }
    }

    /// Begins a call.
    fn make(&self, waiting: WaitingCall<D>) {
        let is_gone = waiting.reply.as_ref().is_some_and(OneshotSender::is_closed);
        // CALL-4: a caller that is gone costs the dependency nothing.
        if is_gone {
            return;
        }
        let (deadline, limit) = (self.deadline(&waiting), waiting.limit());
        let WaitingCall {
            mut call,
            reply,
            arrived,
            waited,
            ..
        } = waiting;
        if let Some(end) = deadline.filter(|_| waited > NOTABLE_WAIT) {
            // LIM-2: the wait for the actor was the call's own time.
            let clock = &self.mailbox.shared.clock;
            call.around = call.around.ending_by(clock.moment(end));
        }
        let mut answering = Arc::clone(&self.calls).make(call);
        if let Some(answer) = answering.as_mut().now_or_never() {
            if let Some(caller) = reply {
                // The caller may have gone just now.
                let _ = caller.send(answer);
            }
            return;
        }
        match reply {
            Some(reply) => {
                let guard = self.mailbox.guard(reply, arrived, (deadline, limit));
                actix_rt::spawn(answer(answering, guard));
            }
            // The sender does not want an answer.
            None => drop(actix_rt::spawn(async { drop(answering.await) })),
        }
    }

    /// The deadline of a call with its fallbacks.
    fn deadline(&self, waiting: &WaitingCall<D>) -> Option<Time> {
        let total = waiting.total_deadline;
        let total = total.and_then(|total| Some(total.after(self.calls.fallback_time()?)));
        earliest(waiting.own_deadline, total)
    }
}

/// Waits for the answer of a call, and passes it on.
async fn answer<D: Dependency>(mut answering: AnswerFuture<D>, guard: ReplyGuard<D>) {
    let answer = poll_fn(|cx| match answering.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        // CALL-4: unlike with actix's own response, a call ends when its caller goes away.
        Poll::Pending => guard.poll_gone(cx).map(|()| None),
    });
    if let Some(answer) = answer.await {
        guard.send(answer);
    }
}

impl<D: Dependency> Actor for CallReceiver<D> {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        let shared = &self.mailbox.shared;
        judgement::recover(shared);
        keeper::start(shared, self.threads.control());
    }
}

impl<D: Dependency> Unpin for CallReceiver<D> {}

/// The poll hook of the actor that makes the calls of a mailbox.
#[derive(Debug)]
pub(crate) struct ReceiverPollHook;

impl<D: Dependency> PollHook<CallReceiver<D>> for ReceiverPollHook {
    fn poll(
        actor: &mut CallReceiver<D>,
        _: &mut Context<CallReceiver<D>>,
        cx: &mut TaskContext<'_>,
    ) {
        if !std::mem::replace(&mut actor.has_started, true) {
            // The driver polls again once it has reported the start.
            return;
        }
        for _ in 0..BURST {
            match actor.mailbox.poll_take(cx) {
                Poll::Ready(waiting) => actor.make(waiting),
                Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }
}
