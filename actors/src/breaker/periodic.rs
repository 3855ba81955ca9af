//! Periodic tasks of a breaker: the search for overdue calls, and the eviction of idle keys.
//!
//! They run beside the actor and send it messages: a future in its context would be polled with
//! each of its messages.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Context, Handler, Message, Recipient};
use tokio::task::JoinHandle;

use super::Breaker;
use crate::breaker::gate::tag_of;
use crate::breaker::message::{ForgetIdle, LookForOverdue};
use crate::clock::random;
use crate::dependency::Dependency;
use crate::state::Shared;

/// Periodic tasks of one incarnation; they end on drop.
#[derive(Debug, Default)]
pub(super) struct PeriodicTasks {
    overdue: Option<PeriodicTask>,
    idle: Option<PeriodicTask>,
}

#[derive(Debug)]
struct PeriodicTask {
    every: Duration,
    task: JoinHandle<()>,
}

impl Drop for PeriodicTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PeriodicTasks {
    /// Sets the intervals from the present settings.
    pub(super) fn set<D: Dependency>(&mut self, shared: &Shared, breaker: &Addr<Breaker<D>>) {
        let tick = shared.breaker.watch.tick();
        let tick = tick.map(|tick| tick.max(Duration::from_millis(1)));
        let overdue = || breaker.clone().recipient();
        restart_task(&mut self.overdue, tick, overdue, || LookForOverdue);
        // Each key is evicted after 1 to 1.5 times its idle time.
        const OFTEN: Duration = Duration::from_secs(1);
        const SELDOM: Duration = Duration::from_secs(3600);
        let half = (shared.settings().keys.idle / 2).clamp(OFTEN, SELDOM);
        let idle = || breaker.clone().recipient();
        restart_task(&mut self.idle, Some(half), idle, || ForgetIdle);
    }
}

/// Restarts a task if its interval has changed.
fn restart_task<M>(
    round: &mut Option<PeriodicTask>,
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
                // One message at a time, however long the breaker is busy with others.
                if breaker.send(message()).await.is_err() {
                    return;
                }
            }
        });
        PeriodicTask { every, task }
    });
}

impl<D: Dependency> Handler<LookForOverdue> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, _: LookForOverdue, ctx: &mut Context<Self>) {
        let shared = Arc::clone(&self.shared);
        self.each_breaker(|breaker, which| {
            let target = which.as_deref().unwrap_or(&shared.breaker);
            breaker.with_machine(which, ctx, |machine, now| {
                let overdue = target.overdue(now, tag_of(machine.generation()));
                machine.set_overdue(now, overdue, &mut random());
            });
        });
    }
}

impl<D: Dependency> Handler<ForgetIdle> for Breaker<D> {
    type Result = ();

    fn handle(&mut self, _: ForgetIdle, _: &mut Context<Self>) {
        let shared = &self.shared;
        let now = shared.clock.now();
        shared.keys.forget_idle(&shared.settings().keys, now);
    }
}
