//! The breaker of a dependency: its machine under a lock, the gate that it publishes, and the actor
//! that takes calls as messages ([`mailbox`], [`receiver`]).
//!
//! Outcomes, questions and commands change the machine on the thread they arise on
//! ([`judgement`]); what happens because time has passed is the [`keeper`]'s.

pub(crate) mod active_probe;

pub(crate) mod admission;

mod desk;

pub(crate) mod fleet;

pub(crate) mod gate;

pub(crate) mod gate_decision;

#[cfg(test)]
mod gate_tests;

pub(crate) mod hedge_member;

pub(crate) mod in_flight;

pub(crate) mod judgement;

mod keeper;

pub(crate) mod keyed;

pub(crate) mod mailbox;

mod mailbox_watch;

pub(crate) mod message;

pub(crate) mod receiver;

pub(crate) mod shared;

mod thread_counters;

use std::fmt;
use std::marker::PhantomData;

use actix::dev::{Envelope, EnvelopeProxy, MessageResponse, ToEnvelope};
use actix::{Actor, ActorContext, ActorState, Handler};

use crate::breaker::mailbox::CallReply;
use crate::breaker::message::Call;
use crate::dependency::Dependency;

pub(crate) use desk::BreakerDesk;

/// The actor of one dependency's breaker; any actor may send it a [`Call`].
///
/// Its mailbox keeps at most 4096 calls, or `bulkhead.max_concurrent` and `bulkhead.max_queue`
/// together if those are more; a further one ends with
/// [`CallError::Overloaded`](crate::CallError::Overloaded) at once, without fallbacks. A call ends by
/// its deadline, which counts from when it was sent, even if the actor's thread is blocked.
///
/// The actor runs on the thread of the first workers. Its restarts are not visible from outside.
///
/// # Source  Rules BRK-3, BRK-12, CALL-3, CALL-6 and CALL-9 in docs/rules.md.
pub struct Breaker<D: Dependency>(PhantomData<fn() -> D>);

impl<D: Dependency> Breaker<D> {
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl<D: Dependency> fmt::Debug for Breaker<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Breaker").finish_non_exhaustive()
    }
}

impl<D: Dependency> Actor for Breaker<D> {
    type Context = BreakerContext<D>;
}

impl<D: Dependency> Handler<Call<D>> for Breaker<D> {
    type Result = ArrivedCall<D>;

    fn handle(&mut self, call: Call<D>, _: &mut BreakerContext<D>) -> ArrivedCall<D> {
        ArrivedCall(call)
    }
}

/// A call that was taken out of its message, on its way into the mailbox.
pub struct ArrivedCall<D: Dependency>(Call<D>);

impl<D: Dependency> MessageResponse<Breaker<D>, Call<D>> for ArrivedCall<D> {
    fn handle(self, context: &mut BreakerContext<D>, reply: CallReply<D>) {
        context.0 = Some((self.0, reply));
    }
}

impl<D: Dependency> fmt::Debug for ArrivedCall<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ArrivedCall").finish_non_exhaustive()
    }
}

/// Hands each message of a breaker over to its mailbox.
pub struct BreakerContext<D: Dependency>(Option<(Call<D>, CallReply<D>)>);

impl<D: Dependency> BreakerContext<D> {
    fn take(&mut self) -> Option<(Call<D>, CallReply<D>)> {
        self.0.take()
    }
}

impl<D: Dependency> Default for BreakerContext<D> {
    fn default() -> Self {
        Self(None)
    }
}

impl<D: Dependency> fmt::Debug for BreakerContext<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BreakerContext").finish_non_exhaustive()
    }
}

impl<D: Dependency> ActorContext for BreakerContext<D> {
    fn stop(&mut self) {}

    fn terminate(&mut self) {}

    fn state(&self) -> ActorState {
        ActorState::Running
    }
}

impl<D: Dependency> ToEnvelope<Breaker<D>, Call<D>> for BreakerContext<D> {
    fn pack(call: Call<D>, reply: CallReply<D>) -> Envelope<Breaker<D>> {
        Envelope::with_proxy(Box::new(CallEnvelope(Some(call), reply)))
    }
}

/// A call in actix's queue.
struct CallEnvelope<D: Dependency>(Option<Call<D>>, CallReply<D>);

impl<D: Dependency> EnvelopeProxy<Breaker<D>> for CallEnvelope<D> {
    fn handle(&mut self, breaker: &mut Breaker<D>, context: &mut BreakerContext<D>) {
        if let Some(call) = self.0.take() {
            let arrived = breaker.handle(call, context);
            MessageResponse::handle(arrived, context, self.1.take());
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
