//! The parts around one dependency that its calls need: shared state, breaker, workers, fallbacks.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::Time;
use breakerbox_policy::supervision::StopCause;

use crate::breaker::mailbox::CallMailbox;
use crate::breaker::receiver::CallReceiver;
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::fallback::{FallbackAnswer, FallbackSet, Fallbacks, UnservedCall};
use crate::state::configured::ConfiguredSettings;
use crate::state::{PerWorker, Route, Shared};
use crate::supervisor::{Condition, DriverQueue, StableMailbox};
use crate::sync::LockExt;
use crate::worker::Worker;
use crate::worker::inline::{InlineExecutor, InlineHandle};
use crate::worker::queue::WorkQueue;

/// The state around one dependency that a call needs.
pub(crate) struct DependencyCore<D: Dependency> {
    pub(crate) shared: Arc<Shared>,
    /// The calls that are sent as messages.
    pub(crate) mailbox: Arc<CallMailbox<D>>,
    /// The actor that makes them.
    pub(crate) breaker: StableMailbox<CallReceiver<D>>,
    pub(crate) workers: Box<[WorkerSlot<D>]>,
    pub(crate) next: AtomicUsize,
    pub(crate) fallbacks: Fallbacks<D>,
    pub(crate) configured: Mutex<ConfiguredSettings>,
    /// Held while new settings are applied and told.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// False before these parts have taken the place of others around the same state, and after
    /// others have taken theirs: they then say nothing about the dependency as a whole.
    pub(crate) is_current: AtomicBool,
}

/// A worker's queue, and its inline executor for callers on its own thread.
pub(crate) struct WorkerSlot<D: Dependency> {
    pub(crate) shared: Arc<PerWorker>,
    pub(crate) queue: Arc<WorkQueue<D>>,
    pub(crate) mail: StableMailbox<Worker<D>>,
    pub(crate) inline: Arc<InlineHandle>,
    /// The cause for which it is parked.
    pub(crate) parked: Mutex<Option<StopCause>>,
}

impl<D: Dependency> WorkerSlot<D> {
    /// Returns the cause for which it was given up, if it was.
    pub(crate) fn parked(&self) -> Option<StopCause> {
        self.parked.acquire().clone()
    }

    pub(crate) fn set_parked(&self, cause: Option<StopCause>) {
        *self.parked.acquire() = cause;
    }

    /// Answers all waiters and takes no more work: the worker is gone for good.
    pub(crate) fn close_for_good(&self) {
        let health = &self.mail.health;
        health.set(Condition::Gone, health.incarnation());
        self.queue.close();
        // A worker that has been told to stop ends without its calls.
        self.queue.wake_worker();
    }

    /// Takes no more work: the worker is gone for good, and another one serves those who wait.
    pub(crate) fn close_into(&self, other: &Self) {
        let health = &self.mail.health;
        health.set(Condition::Gone, health.incarnation());
        self.queue.close_into(&other.queue);
    }

    /// Returns the worker's inline executor, if the caller can run the first poll of its call
    /// itself.
    #[inline]
    pub(crate) fn inline_executor(&self) -> Option<Rc<InlineExecutor<D>>> {
        let is_running = self.mail.health.condition() == Condition::Running;
        is_running.then(|| self.inline.executor()).flatten()
    }

    /// Returns true if the worker is on the caller's thread.
    pub(crate) fn is_here(&self) -> bool {
        self.inline.is_here()
    }
}

impl<D: Dependency> DependencyCore<D> {
    /// Returns the worker for the next call: a running one, on the caller's own thread if there is
    /// one.
    ///
    /// Without a running worker the call waits for the next incarnation, if the settings allow it.
    pub(crate) fn pick(&self) -> Option<&WorkerSlot<D>> {
        let alive = |slot: &WorkerSlot<D>| slot.mail.health.condition() != Condition::Gone;
        // During a drain, only calls that were accepted before it arrive here.
        let drains = self.shared.route() == Route::Draining;
        let may_hold = |slot: &WorkerSlot<D>| {
            alive(slot) && (drains || super::queues_while_restarting(&self.shared))
        };
        let running = |slot: &WorkerSlot<D>| slot.mail.health.condition() == Condition::Running;
        if let [only] = &*self.workers {
            return (running(only) || may_hold(only)).then_some(only);
        }
        // With one worker for each thread, the shared round-robin counter is not needed.
        let mut here = self
            .workers
            .iter()
            .filter(|slot| running(slot) && slot.is_here());
        if let (Some(only), None) = (here.next(), here.next()) {
            return Some(only);
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.workers.len();
        let in_turn = || (0..count).map(|step| &self.workers[first.wrapping_add(step) % count]);
        in_turn()
            .find(|slot| running(slot) && slot.is_here())
            .or_else(|| in_turn().find(|slot| running(slot)))
            .or_else(|| in_turn().find(|slot| may_hold(slot)))
    }

    /// Returns the wait until the first worker is back, if it is known.
    pub(crate) fn back_in(&self, now: Time) -> Option<Duration> {
        let workers = self.workers.iter();
        workers
            .filter_map(|slot| slot.mail.health.back_in(now))
            .min()
    }

    /// Ends everything for good: calls are refused, and callers that wait for one of the actors
    /// learn that it is gone (rule CALL-1). The workers end first, because the breaker's queue
    /// answers their reports.
    pub(crate) fn stop(&self) {
        if self.is_current.load(Ordering::Acquire) {
            self.shared.set_route(Route::Stopped);
        }
        for slot in &self.workers {
            slot.close_for_good();
            slot.mail.close();
        }
        self.fallbacks.mail.close();
        self.mailbox.close();
        self.breaker.close();
    }

    pub(crate) async fn fall_back(
        &self,
        begun_with: Option<Arc<FallbackSet<D>>>,
        asked: (D::Request, bool),
        why: CallError<D::Error>,
        deadline: Option<Time>,
    ) -> Result<FallbackAnswer<D::Response>, UnservedCall<D>> {
        let Self {
            shared, fallbacks, ..
        } = self;
        let set = fallbacks.serving(begun_with, &why, asked.1);
        let Some(set) = set else {
            return Err((why, None));
        };
        fallbacks.answer(shared, set, asked, why, deadline).await
    }
}
