//! A child as its supervisor sees it, and as a user describes it.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Addr, Context};
use breakerbox_policy::supervision::{ChildSpec, Shutdown, StopCause};
use breakerbox_policy::{GiveUp, Intensity, Placement, RestartType, Time};
use futures_channel::mpsc;

use super::Supervisor;
use super::driver::{
    Driver, DriverCommand, DriverParts, DriverQueue, Make, NoPollHook, PollHook, StableMailbox,
    Tell,
};
use super::health::{Condition, ConditionWord};
use super::incarnation::Incarnation;
use super::threads::{ThreadHandle, Threads};
use crate::clock::Clock;

/// Mailbox capacity of a user's actor; actix's default.
const DEFAULT_CAPACITY: usize = 16;

/// The part of a child that its supervisor needs beyond the specification.
pub(crate) trait ChildBody: Send + Sync {
    /// Spawns a driver for it on its thread. Called again after that thread was lost.
    fn spawn(
        &self,
        threads: &Threads,
        commands: mpsc::UnboundedReceiver<DriverCommand>,
        tell: Tell,
    ) -> Result<(), String>;

    fn health(&self) -> &ConditionWord;

    /// Returns the duration of one poll after which it is considered stuck.
    fn stuck_after(&self) -> Option<Duration> {
        None
    }

    /// Fences off its present driver, which is blocked, and gives up that thread.
    fn abandon(&self, threads: &Threads);

    fn hooks(&self) -> &dyn ChildHooks {
        &NoHooks
    }

    /// Refuses the messages to it, and to the children below it: it does not run again by itself.
    fn refuse(&self);

    /// Returns its address if it is a supervisor itself.
    fn supervisor(&self) -> Option<Addr<Supervisor>>;
}

/// Hooks for the start and the end of a child.
pub(crate) trait ChildHooks: Send + Sync {
    fn running(&self, incarnation: u64) {
        let _ = incarnation;
    }

    /// Called when it waits until `until` for its next incarnation.
    fn waits(&self, until: Time) {
        let _ = until;
    }

    fn parked(&self, cause: &StopCause) {
        let _ = cause;
    }

    /// Called when it did not start.
    fn not_started(&self, cause: &StopCause) {
        let _ = cause;
    }

    /// Called at each failure beyond its restart budget, if it is started again all the same.
    fn exhausted(&self, cause: &StopCause) {
        let _ = cause;
    }

    /// Called when it has ended and runs again only after a manual restart.
    fn stopped(&self) {}

    /// Called when it will not run again.
    fn gone(&self) {}
}

struct NoHooks;

impl ChildHooks for NoHooks {}

/// The body of one actor.
pub(crate) struct ActorBody<A: Actor<Context = Context<A>>, M> {
    pub(crate) slot: StableMailbox<A>,
    pub(crate) make: Make<A>,
    pub(crate) clock: Clock,
    pub(crate) place: DriverPlacement,
    pub(crate) queue: Option<Arc<dyn DriverQueue>>,
    pub(crate) clear_on_crash: bool,
    pub(crate) stuck_after: Option<Duration>,
    /// Maximum time of a start.
    pub(crate) start_timeout: Option<Duration>,
    /// The children that a group has in each incarnation.
    pub(crate) below: Vec<Arc<dyn ChildBody>>,
    pub(crate) hooks: Box<dyn ChildHooks>,
    /// Number of the dedicated thread of its present driver; 0 for none.
    thread: AtomicU64,
    pub(crate) manner: PhantomData<fn() -> M>,
}

/// The thread of an actor's drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriverPlacement {
    /// The supervisor's own thread.
    Beside,
    /// The n-th of the runtime's threads.
    Shared(usize),
    /// A dedicated thread; a new one for each driver.
    Dedicated,
}

impl<A: Actor<Context = Context<A>>, M: PollHook<A>> ActorBody<A, M> {
    /// A body without hooks on its supervisor's thread.
    pub(crate) fn beside(slot: StableMailbox<A>, make: Make<A>, clock: Clock) -> Self {
        Self {
            slot,
            make,
            clock,
            place: DriverPlacement::Beside,
            queue: None,
            clear_on_crash: false,
            stuck_after: None,
            start_timeout: None,
            below: Vec::new(),
            hooks: Box::new(NoHooks),
            thread: AtomicU64::new(0),
            manner: PhantomData,
        }
    }
}

impl<A: Actor<Context = Context<A>>, M: PollHook<A>> ChildBody for ActorBody<A, M> {
    fn spawn(
        &self,
        threads: &Threads,
        commands: mpsc::UnboundedReceiver<DriverCommand>,
        tell: Tell,
    ) -> Result<(), String> {
        let home = match self.place {
            DriverPlacement::Beside => ThreadHandle::Here,
            DriverPlacement::Shared(index) => threads.shared(index),
            DriverPlacement::Dedicated => {
                let (number, home) = threads.dedicated()?;
                self.thread.store(number, Ordering::Relaxed);
                home
            }
        };
        let parts = DriverParts {
            slot: self.slot.clone(),
            make: Arc::clone(&self.make),
            commands,
            tell,
            watched: self.stuck_after.map(|_| self.clock.clone()),
            start_limit: self.start_timeout.map(|limit| (limit, self.clock.clone())),
            queue: self.queue.clone(),
            clear_on_crash: self.clear_on_crash,
        };
        home.spawn(move || Driver::<A, M>::new(parts))
    }

    fn health(&self) -> &ConditionWord {
        &self.slot.health
    }

    fn stuck_after(&self) -> Option<Duration> {
        self.stuck_after
    }

    fn abandon(&self, threads: &Threads) {
        // The new owner is dropped at once: its only effect is to fence off the blocked driver.
        let health = &self.slot.health;
        drop(health.new_owner());
        health.leave();
        health.set(Condition::Down, health.incarnation());
        threads.abandon(self.thread.load(Ordering::Relaxed));
    }

    fn hooks(&self) -> &dyn ChildHooks {
        &*self.hooks
    }

    fn refuse(&self) {
        self.slot.refuse();
        for child in &self.below {
            child.refuse();
        }
    }

    fn supervisor(&self) -> Option<Addr<Supervisor>> {
        let addr: &dyn Any = &self.slot.addr;
        addr.downcast_ref::<Addr<Supervisor>>().cloned()
    }
}

/// A user's actix actor, to be supervised.
///
/// After a panic the factory makes a new value; the address and the queued messages stay.
/// `ctx.address()` belongs to one incarnation only: share [`Child::addr`] instead.
///
/// It is running once its `started` has returned. If `started` calls `ctx.wait`, it is running once
/// that wait is over; if it ends before, its start has failed.
///
/// # Source  Rules SUP-1 and SUP-8 in docs/rules.md.
pub struct Child<A: Actor<Context = Context<A>>> {
    pub(crate) spec: ChildSpec,
    factory: Arc<dyn Fn() -> A + Send + Sync>,
    slot: StableMailbox<A>,
    placement: Placement,
    stuck_after: Option<Duration>,
    start_timeout: Option<Duration>,
}

impl<A: Actor<Context = Context<A>>> Child<A> {
    fn new(
        name: impl Into<String>,
        restart: RestartType,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        let mut spec = ChildSpec::worker(name);
        spec.restart = restart;
        spec.give_up = GiveUp::Escalate;
        Self {
            spec,
            factory: Arc::new(factory),
            slot: StableMailbox::bounded(DEFAULT_CAPACITY),
            placement: Placement::Shared,
            stuck_after: None,
            start_timeout: None,
        }
    }

    /// A child that is always restarted.
    pub fn permanent(
        name: impl Into<String>,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, RestartType::Permanent, factory)
    }

    /// A child that is restarted after an abnormal end.
    pub fn transient(
        name: impl Into<String>,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, RestartType::Transient, factory)
    }

    /// A child that is never restarted.
    pub fn temporary(
        name: impl Into<String>,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, RestartType::Temporary, factory)
    }

    /// Sets the way it is stopped; by default within five seconds.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.spec.shutdown = shutdown;
        self
    }

    /// Sets the consequence of too many restarts; by default its supervisor gives up.
    #[must_use]
    pub fn give_up(mut self, give_up: GiveUp) -> Self {
        self.spec.give_up = give_up;
        self
    }

    /// Sets a restart budget of its own, in addition to its supervisor's.
    #[must_use]
    pub fn intensity(mut self, intensity: Intensity) -> Self {
        self.spec.intensity = Some(intensity);
        self
    }

    /// Marks it significant for its group's auto-shutdown.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.spec.significant = true;
        self
    }

    /// Sets its thread; by default the first one that the runtime's workers share.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Considers it stuck when one poll lasts this long, and replaces it on a new thread. Only for
    /// [`Placement::Dedicated`]: a shared thread cannot be given up.
    #[must_use]
    pub fn stuck_after(mut self, patience: Duration) -> Self {
        self.stuck_after = Some(patience);
        self
    }

    /// Sets the maximum time of each of its starts; none by default. A start that takes longer has
    /// failed. A `started` that blocks its thread cannot be ended.
    #[must_use]
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = Some(limit);
        self
    }

    /// Returns its address, which is the same for all incarnations.
    #[must_use]
    pub fn addr(&self) -> Addr<A> {
        self.slot.addr.clone()
    }

    pub(crate) fn into_parts(self, clock: &Clock) -> (ChildSpec, Arc<dyn ChildBody>, ChildRef<A>) {
        let Self {
            spec,
            factory,
            slot,
            placement,
            stuck_after,
            start_timeout,
        } = self;
        let handle = ChildRef {
            name: spec.name.clone(),
            addr: slot.addr.clone(),
            health: Arc::clone(&slot.health),
        };
        let make: Make<A> = Arc::new(move |_: &Rc<Incarnation>| factory());
        let mut body = ActorBody::<A, NoPollHook>::beside(slot, make, clock.clone());
        body.start_timeout = start_timeout;
        match placement {
            // CALL-9: an actor that blocks its thread blocks no supervisor.
            Placement::Shared => body.place = DriverPlacement::Shared(0),
            Placement::Dedicated => {
                body.place = DriverPlacement::Dedicated;
                body.stuck_after = stuck_after;
            }
        }
        (spec, Arc::new(body), handle)
    }
}

impl<A: Actor<Context = Context<A>>> fmt::Debug for Child<A> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Child")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// A supervised actor's handle.
///
/// Messages wait while its actor is started again, or was stopped by an operator's order. When it
/// will not run again by itself, because it has finished or was given up, its mailbox refuses them,
/// those that wait too (rule SUP-4).
pub struct ChildRef<A: Actor> {
    name: String,
    addr: Addr<A>,
    health: Arc<ConditionWord>,
}

impl<A: Actor<Context = Context<A>>> ChildRef<A> {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its address, which is the same for all incarnations.
    #[must_use]
    pub fn addr(&self) -> Addr<A> {
        self.addr.clone()
    }

    /// Returns true if it takes messages now; until then they wait.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.health.condition() == Condition::Running
    }

    /// Returns the number of its present incarnation, from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.health.incarnation()
    }
}

impl<A: Actor> Clone for ChildRef<A> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            addr: self.addr.clone(),
            health: Arc::clone(&self.health),
        }
    }
}

impl<A: Actor> fmt::Debug for ChildRef<A> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ChildRef")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
