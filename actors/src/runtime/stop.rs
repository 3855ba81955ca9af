//! The end of a runtime: the drain, its limit, and the end of the threads.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Arbiter;
use breakerbox_policy::Time;
use tokio::sync::oneshot;

use super::Runtime;
use super::registry::AnyDependency;
use super::tree::OwnThread;
use crate::deadline::bounded;
use crate::state::shared_drain::SharedDrain;
use crate::supervisor::{DriverCommand, on_runtime_thread};
use crate::sync::LockExt;

/// Time between two looks at the threads, once the drain is over.
const LOOK: Duration = Duration::from_millis(50);

/// Time in which a thread that is not blocked answers.
const ANSWER: Duration = Duration::from_millis(200);

/// Time in which a thread that was stopped ends, unless it is blocked.
const JOIN: Duration = Duration::from_millis(150);

impl Runtime {
    /// Refuses new calls, lets those in flight finish within each dependency's drain time, stops
    /// everything in reverse order and joins the runtime's threads. The values of all workers are closed
    /// at the same time, once nothing is pending.
    ///
    /// A thread that code of users blocks holds the shutdown no longer than the longest drain: it
    /// is left behind, and ends when that code returns. The thread on which the shutdown is awaited,
    /// if it is one of the runtime's, is stopped and not joined; a log line tells of both.
    ///
    /// # Panics  On a virtual clock, outside of a tokio runtime.
    /// # Cancel safety   Dropped, the shutdown continues, but threads are not joined.
    pub async fn shutdown(&self) {
        self.inner.is_shut_down.store(true, Ordering::Release);
        self.inner.around.threads.begin_end();
        // An event listener may look up a dependency, so the lock must not be held.
        let all: Vec<Arc<dyn AnyDependency>> = self.registry().values().cloned().collect();
        let drains = all.iter().map(|one| one.settings().workers.drain);
        // Without a dependency, an actor has the time that it gets by default.
        let drain = drains.max().unwrap_or(Duration::from_secs(5));
        let until = self.clock().now().after(drain);
        // CALL-10: what accepted work asks for holds each of them until the last work has ended.
        let together = all.iter().map(|one| Arc::downgrade(one.shared()));
        let together = Arc::new(SharedDrain::new(until, together));
        for one in &all {
            one.shared().drain_with(Arc::clone(&together));
        }
        for one in &all {
            // SUP-7: no new calls from here on.
            one.drain();
        }
        together.begin();
        for one in &all {
            one.wake_workers();
        }
        // A root that is gone has ended already.
        if let Some(commands) = &*self.inner.commands.acquire() {
            let _ = commands.unbounded_send(DriverCommand::Stop { incarnation: 1 });
        }
        let stop_all = || all.iter().for_each(|one| one.stop());
        self.end_by(until, self.ended(), stop_all).await;
        let heard = self.inner.around.events.end_listeners(JOIN);
        tokio::join!(self.join_threads(), heard);
    }

    /// Waits for an end, until `until` at first. `stop_rest` ends what is left at that time, and the
    /// wait goes on while no thread is blocked.
    pub(super) async fn end_by<F: Future>(
        &self,
        until: Time,
        end: F,
        stop_rest: impl FnOnce(),
    ) -> Option<F::Output> {
        let (clock, threads) = (self.clock(), &self.inner.around.threads);
        let mut end = pin!(end);
        // On virtual time of another thread, the time until then is no measure.
        let is_here = self.inner.thread.acquire().is_none();
        // The supervisors kill at that time; a moment later only what they cannot end is left.
        let until = Some(until.after(LOOK)).filter(|_| threads.are_apart() || is_here);
        let ended = bounded(clock, until, end.as_mut()).await;
        // SUP-7: the drain is over.
        stop_rest();
        if ended.is_some() || !threads.are_apart() {
            return match ended {
                Some(ended) => Some(ended),
                None => Some(end.await),
            };
        }
        loop {
            let until = clock.now().after(LOOK);
            let ended = bounded(clock, Some(until), end.as_mut()).await;
            if ended.is_some() {
                return ended;
            }
            let until = clock.now().after(ANSWER);
            // CALL-9, SUP-7: a thread that is blocked does not hold the end of the others.
            if bounded(clock, Some(until), threads.answers())
                .await
                .is_none()
            {
                tracing::warn!("a thread is blocked at the end of the drain; it is left behind");
                return None;
            }
        }
    }

    /// Stops the runtime's threads, and waits until they have ended.
    async fn join_threads(&self) {
        let own = self.inner.thread.acquire().take();
        let arbiters = self.inner.around.threads.take();
        let is_here = on_runtime_thread();
        if is_here {
            tracing::warn!(
                "a shutdown is awaited on a thread of the runtime, which ends without being joined"
            );
        }
        let (tell, told) = oneshot::channel();
        if !self.inner.around.threads.are_apart() && !is_here {
            // Virtual time stands still while tokio's own threads are at work. This fails only while
            // the surrounding runtime is being torn down.
            let join = move || join_all(arbiters, own, tell, is_here);
            let _ = tokio::task::spawn_blocking(join).await;
            return;
        }
        // On a thread of its own, since joining blocks, and since this one may be among them. It
        // fails only if no thread can be made; they end all the same.
        let joining = std::thread::Builder::new()
            .name("breakerbox-end".to_owned())
            .spawn(move || join_all(arbiters, own, tell, is_here));
        if joining.is_err() {
            return;
        }
        if is_here {
            // The rest of the task runs before its thread is stopped.
            tokio::task::yield_now().await;
            return;
        }
        let until = self.clock().now().after(JOIN);
        // Fails if the thread is gone, which it is when all is done.
        let _ = bounded(self.clock(), Some(until), told).await;
    }
}

fn join_all(
    arbiters: Vec<Arbiter>,
    own: Option<OwnThread>,
    tell: oneshot::Sender<()>,
    is_here: bool,
) {
    if is_here {
        // The task that awaits the shutdown ends with its thread; it gets a moment to go on.
        std::thread::sleep(LOOK);
    }
    for arbiter in &arbiters {
        arbiter.stop();
    }
    if let Some(OwnThread { stop, handle }) = own {
        let _ = stop.send(());
        let _ = handle.join();
    }
    for arbiter in arbiters {
        // A thread that panicked is gone too.
        // SUP-7: every thread is joined, except those that a worker blocks.
        let _ = arbiter.join();
    }
    // The shutdown may have gone on without it.
    let _ = tell.send(());
}
