//! What a breaker looks at again and again: calls that are overdue, keys that are idle.
//!
//! Tasks beside the actor send it the time: what stands in its context would be polled with each
//! of its messages.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Context, Handler, Message, Recipient};
use tokio::task::JoinHandle;

use super::Breaker;
use crate::clock::random;
use crate::dependency::{Dependency, Shared};
use crate::gate::tag_of;
use crate::message::{ForgetIdle, LookForOverdue};

/// The rounds of one incarnation; dropped, they end.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    overdue: Option<Round>,
    idle: Option<Round>,
}

#[derive(Debug)]
struct Round {
    every: Duration,
    task: JoinHandle<()>,
}

impl Drop for Round {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rounds {
    /// Goes by what the settings say now.
    pub(super) fn set<D: Dependency>(&mut self, shared: &Shared, breaker: &Addr<Breaker<D>>) {
        let tick = shared.circuit.watch.tick();
        let tick = tick.map(|tick| tick.max(Duration::from_millis(1)));
        let overdue = || breaker.clone().recipient();
        renew(&mut self.overdue, tick, overdue, || LookForOverdue);
        // Each key is forgotten after once to one and a half times its span.
        const OFTEN: Duration = Duration::from_secs(1);
        const SELDOM: Duration = Duration::from_secs(3600);
        let half = (shared.settings().keys.idle / 2).clamp(OFTEN, SELDOM);
        let idle = || breaker.clone().recipient();
        renew(&mut self.idle, Some(half), idle, || ForgetIdle);
    }
}

/// Begins a round anew where it is to be made at other times than before.
fn renew<M>(
    round: &mut Option<Round>,
    every: Option<Duration>,
    breaker: impl FnOnce() -> Recipient<M>,
    message: fn() -> M,
) where
    M: Message<Result = ()> + Send + 'static,
{
    if round.as_ref().map(|round| round.every) == every {
        return;
    }
    *round = every.map(|every| {
        let breaker = breaker();
        let task = actix_rt::spawn(async move {
            loop {
                actix_rt::time::sleep(every).await;
                // One at a time, however long the breaker is busy with others.
                if breaker.send(message()).await.is_err() {
                    return;
                }
            }
        });
        Round { every, task }
    });
}

impl<D: Dependency> Handler<LookForOverdue> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, _: LookForOverdue, ctx: &mut Context<Self>) {
        let shared = Arc::clone(self.shared());
        self.each_circuit(|breaker, which| {
            let circuit = which.as_deref().unwrap_or(&shared.circuit);
            breaker.with_machine(which, ctx, |machine, now| {
                let overdue = circuit.overdue(now, tag_of(machine.generation()));
                machine.set_overdue(now, overdue, &mut random());
            });
        });
    }
}

impl<D: Dependency> Handler<ForgetIdle> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, _: ForgetIdle, _: &mut Context<Self>) {
        let shared = self.shared();
        let now = shared.clock.now();
        shared.keys.forget_idle(&shared.settings().keys, now);
    }
}
