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
    Driver, DriverCommand, DriverParts, DriverQueue, Mailslot, Make, Manner, Plain, Tell,
};
use super::health::{Condition, Health};
use super::home::{Home, Homes};
use super::life::Life;
use crate::clock::Clock;

/// The bound of a user's actor, as actix sets it by default.
const DEFAULT_CAPACITY: usize = 16;

/// What a supervisor needs of a child beyond its specification.
pub(crate) trait Body: Send + Sync {
    /// Puts a driver for it where it lives. Called again after its thread was lost.
    fn spawn(
        &self,
        homes: &Homes,
        commands: mpsc::UnboundedReceiver<DriverCommand>,
        tell: Tell,
    ) -> Result<(), String>;

    fn health(&self) -> &Health;

    /// From how long on it is taken for stuck.
    fn stuck_after(&self) -> Option<Duration> {
        None
    }

    /// Fences its present driver off, which is blocked, and gives its thread up.
    fn abandon(&self, homes: &Homes);

    fn hooks(&self) -> &dyn ChildHooks {
        &NoHooks
    }

    /// How it is reached, where it is a supervisor itself.
    fn supervisor(&self) -> Option<Addr<Supervisor>>;
}

/// What else happens when a child comes and goes.
pub(crate) trait ChildHooks: Send + Sync {
    fn running(&self, incarnation: u64) {
        let _ = incarnation;
    }

    /// It waits for its next life until then.
    fn waits(&self, until: Time) {
        let _ = until;
    }

    fn parked(&self, cause: &StopCause) {
        let _ = cause;
    }

    /// It ended, and runs again only when somebody restarts it by hand.
    fn stopped(&self) {}

    /// It will not run again.
    fn gone(&self) {}
}

struct NoHooks;

impl ChildHooks for NoHooks {}

/// The body of one actor.
pub(crate) struct ActorBody<A: Actor<Context = Context<A>>, M> {
    pub(crate) slot: Mailslot<A>,
    pub(crate) make: Make<A>,
    pub(crate) clock: Clock,
    pub(crate) place: Place,
    pub(crate) queue: Option<Arc<dyn DriverQueue>>,
    pub(crate) clear_on_crash: bool,
    pub(crate) stuck_after: Option<Duration>,
    pub(crate) hooks: Box<dyn ChildHooks>,
    /// The number of the dedicated thread that its present driver is on; 0 for none.
    thread: AtomicU64,
    pub(crate) manner: PhantomData<fn() -> M>,
}

/// Where an actor's drivers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the supervisor's own thread.
    Beside,
    /// On the n-th of the runtime's threads.
    Shared(usize),
    /// On a thread of its own; another one for each driver.
    Dedicated,
}

impl<A: Actor<Context = Context<A>>, M: Manner<A>> ActorBody<A, M> {
    /// A body without hooks beside its supervisor.
    pub(crate) fn beside(slot: Mailslot<A>, make: Make<A>, clock: Clock) -> Self {
        Self {
            slot,
            make,
            clock,
            place: Place::Beside,
            queue: None,
            clear_on_crash: false,
            stuck_after: None,
            hooks: Box::new(NoHooks),
            thread: AtomicU64::new(0),
            manner: PhantomData,
        }
    }
}

impl<A: Actor<Context = Context<A>>, M: Manner<A>> Body for ActorBody<A, M> {
    fn spawn(
        &self,
        homes: &Homes,
        commands: mpsc::UnboundedReceiver<DriverCommand>,
        tell: Tell,
    ) -> Result<(), String> {
        let home = match self.place {
            Place::Beside => Home::Here,
            Place::Shared(index) => homes.shared(index),
            Place::Dedicated => {
                let (number, home) = homes.dedicated()?;
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
            queue: self.queue.clone(),
            clear_on_crash: self.clear_on_crash,
        };
        home.spawn(move || Driver::<A, M>::new(parts))
    }

    fn health(&self) -> &Health {
        &self.slot.health
    }

    fn stuck_after(&self) -> Option<Duration> {
        self.stuck_after
    }

    fn abandon(&self, homes: &Homes) {
        // A new owner that owns nothing: the blocked driver is fenced off from now on.
        let health = &self.slot.health;
        drop(health.new_owner());
        health.leave();
        health.set(Condition::Down, health.incarnation());
        homes.abandon(self.thread.load(Ordering::Relaxed));
    }

    fn hooks(&self) -> &dyn ChildHooks {
        &*self.hooks
    }

    fn supervisor(&self) -> Option<Addr<Supervisor>> {
        let addr: &dyn Any = &self.slot.addr;
        addr.downcast_ref::<Addr<Supervisor>>().cloned()
    }
}

/// An actix actor of a user's, to be supervised.
///
/// After a panic the factory makes a new value; the address and the messages that wait stay. A
/// context's own `ctx.address()` belongs to one life only: give others [`Child::addr`].
///
/// It is up when its `started` has returned; one that calls `ctx.wait` there is up when that is
/// over, and has failed to start when it ends before.
///
/// # Source  Rules SUP-1 and SUP-8 in docs/rules.md.
pub struct Child<A: Actor<Context = Context<A>>> {
    pub(crate) spec: ChildSpec,
    factory: Arc<dyn Fn() -> A + Send + Sync>,
    slot: Mailslot<A>,
    placement: Placement,
    stuck_after: Option<Duration>,
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
            slot: Mailslot::bounded(DEFAULT_CAPACITY),
            placement: Placement::Shared,
            stuck_after: None,
        }
    }

    /// A child that is always started again.
    pub fn permanent(
        name: impl Into<String>,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, RestartType::Permanent, factory)
    }

    /// A child that is started again after an abnormal end.
    pub fn transient(
        name: impl Into<String>,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, RestartType::Transient, factory)
    }

    /// A child that is never started again.
    pub fn temporary(
        name: impl Into<String>,
        factory: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, RestartType::Temporary, factory)
    }

    /// How it is stopped; by default within five seconds.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.spec.shutdown = shutdown;
        self
    }

    /// What happens when it was restarted too often; by default its supervisor gives up.
    #[must_use]
    pub fn give_up(mut self, give_up: GiveUp) -> Self {
        self.spec.give_up = give_up;
        self
    }

    /// A restart budget of its own, beside its supervisor's.
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

    /// On which thread it lives; by default beside its supervisor.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Takes it for stuck when one turn lasts this long, and replaces it on a new thread. Only
    /// for [`Placement::Dedicated`]: a shared thread cannot be left.
    #[must_use]
    pub fn stuck_after(mut self, patience: Duration) -> Self {
        self.stuck_after = Some(patience);
        self
    }

    /// Its address, which stays the same in every life.
    #[must_use]
    pub fn addr(&self) -> Addr<A> {
        self.slot.addr.clone()
    }

    pub(crate) fn into_parts(self, clock: &Clock) -> (ChildSpec, Arc<dyn Body>, ChildRef<A>) {
        let Self {
            spec,
            factory,
            slot,
            placement,
            stuck_after,
        } = self;
        let handle = ChildRef {
            name: spec.name.clone(),
            addr: slot.addr.clone(),
            health: Arc::clone(&slot.health),
        };
        let make: Make<A> = Arc::new(move |_: &Rc<Life>| factory());
        let mut body = ActorBody::<A, Plain>::beside(slot, make, clock.clone());
        if placement == Placement::Dedicated {
            body.place = Place::Dedicated;
            body.stuck_after = stuck_after;
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
/// It has no part in the mailbox, which closes when the actor will never run again.
pub struct ChildRef<A: Actor> {
    name: String,
    addr: Addr<A>,
    health: Arc<Health>,
}

impl<A: Actor<Context = Context<A>>> ChildRef<A> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, which stays the same in every life.
    #[must_use]
    pub fn addr(&self) -> Addr<A> {
        self.addr.clone()
    }

    /// Whether it takes messages now; those sent meanwhile wait.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.health.condition() == Condition::Running
    }

    /// Which of its lives this is, from 1.
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
