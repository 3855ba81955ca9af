//! The breaker of a dependency: its machine under a lock, the gate that it publishes, and the actor
//! that takes calls as messages.
//!
//! Outcomes, questions and commands change the machine on the thread they arise on
//! ([`judgement`]); what happens because time has passed is the [`keeper`]'s.

pub(crate) mod active_probe;

pub(crate) mod admission;

mod desk;

pub(crate) mod gate;

pub(crate) mod gate_decision;

#[cfg(test)]
mod gate_tests;

pub(crate) mod hedge_member;

pub(crate) mod in_flight;

pub(crate) mod judgement;

mod keeper;

pub(crate) mod keyed;

pub(crate) mod message;

pub(crate) mod shared;

mod thread_counters;

use std::sync::Arc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler};
use futures_util::FutureExt as _;

use crate::breaker::message::{AnswerFuture, Call, CallAnswer, CallMaker};
use crate::dependency::Dependency;
use crate::state::Shared;
use crate::supervisor::Threads;

pub(crate) use desk::BreakerDesk;

/// The actor of one dependency's breaker; any actor may send it a [`Call`].
///
/// # Source  Rules BRK-3, BRK-12 and CALL-3 in docs/rules.md.
pub struct Breaker<D: Dependency> {
    shared: Arc<Shared>,
    /// Makes the calls that arrive as messages.
    calls: Arc<dyn CallMaker<D>>,
    threads: Threads,
}

impl<D: Dependency> std::fmt::Debug for Breaker<D> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Breaker").finish_non_exhaustive()
    }
}

impl<D: Dependency> Breaker<D> {
    pub(crate) fn new(shared: Arc<Shared>, calls: Arc<dyn CallMaker<D>>, threads: Threads) -> Self {
        Self {
            shared,
            calls,
            threads,
        }
    }
}

impl<D: Dependency> Actor for Breaker<D> {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        judgement::recover(&self.shared);
        keeper::start(&self.shared, self.threads.control());
    }
}

impl<D: Dependency> Unpin for Breaker<D> {}

impl<D: Dependency> Handler<Call<D>> for Breaker<D> {
    type Result = AnswerInProgress<D>;

    fn handle(&mut self, call: Call<D>, _: &mut Context<Self>) -> Self::Result {
        AnswerInProgress(Arc::clone(&self.calls).make(call))
    }
}

/// A call in progress. Unlike actix's own response, it ends when its caller goes away (rule
/// CALL-4).
pub struct AnswerInProgress<D: Dependency>(AnswerFuture<D>);

impl<D: Dependency> MessageResponse<Breaker<D>, Call<D>> for AnswerInProgress<D> {
    fn handle(self, _: &mut Context<Breaker<D>>, caller: Option<OneshotSender<CallAnswer<D>>>) {
        let Self(mut answering) = self;
        // Many calls end at their first poll; only the others are worth a task. A caller that has
        // gone needs no answer.
        // CALL-4: a caller that is gone costs the dependency nothing.
        let is_gone = caller.as_ref().is_some_and(OneshotSender::is_closed);
        if is_gone {
            return;
        }
        if let Some(answer) = answering.as_mut().now_or_never() {
            if let Some(caller) = caller {
                // The caller may have gone just now.
                let _ = caller.send(answer);
            }
            return;
        }
        actix_rt::spawn(async move {
            let Some(mut caller) = caller else {
                // The sender does not want an answer.
                drop(answering.await);
                return;
            };
            tokio::select! {
                biased;
                answer = answering => drop(caller.send(answer)),
                () = caller.closed() => {}
            }
        });
    }
}

impl<D: Dependency> std::fmt::Debug for AnswerInProgress<D> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("AnswerInProgress").finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
