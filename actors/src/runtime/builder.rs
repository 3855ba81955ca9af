//! Construction of a dependency: its shared state, its actors and their supervisor.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::supervision::{ChildSpec, RestartBackoff, Shutdown, Strategy};
use breakerbox_policy::{
    DependencySettings, GiveUp, Placement, RestartType, WhileRestarting, WorkerSettings,
};
use crossbeam_utils::CachePadded;

use crate::breaker::mailbox::CallMailbox;
use crate::breaker::message::CallMaker;
use crate::breaker::receiver::{CallReceiver, ReceiverPollHook};
use crate::call::core::{DependencyCore, WorkerSlot};
use crate::client::Client;
use crate::dependency::Dependency;
use crate::error::StartError;
use crate::fallback::{ByName, Fallback, FallbackActor, FallbackPollHook, FallbackRule, Fallbacks};
use crate::runtime::Runtime;
use crate::runtime::closures::{Closures, DrainPollHook, DrainWaiter};
use crate::runtime::reload;
use crate::runtime::worker_hooks::WorkerHooks;
use crate::state::Shared;
use crate::state::configured::{ConfiguredSettings, judge};
use crate::supervisor::{
    ActorBody, ChildBody, ChildHooks, DriverPlacement, Group, Incarnation, StableMailbox,
    SupervisorContext,
};
use crate::worker::queue::WorkQueue;
use crate::worker::{Factory, StartFuture, Worker, WorkerPollHook};

/// Makes the dependency's value for each incarnation of a worker.
///
/// Implemented by closures that return the value, a `Result`, or a future of a `Result`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot make the workers of a dependency",
    label = "not a factory",
    note = "a factory is a closure without arguments that returns a `Dependency`, a \
            `Result<Dependency, _>` with an error that is `Display`, or a future of such a result",
    note = "it is called on the workers' threads, for each restart: so it is `Fn`, `Send`, `Sync` \
            and `'static`; clone into it what each value needs"
)]
pub trait IntoFactory<D, Kind>: Send + Sync + 'static {
    /// Makes one value.
    fn make(&self) -> StartFuture<D>;
}

/// A closure that returns a value.
#[derive(Debug)]
pub struct PlainFactory;

/// A closure that returns a result.
#[derive(Debug)]
pub struct FallibleFactory<E>(PhantomData<E>);

/// A closure that returns a future of a result.
#[derive(Debug)]
pub struct AsyncFactory<F, E>(PhantomData<(F, E)>);

#[diagnostic::do_not_recommend]
impl<D: Dependency, F: Fn() -> D + Send + Sync + 'static> IntoFactory<D, PlainFactory> for F {
    fn make(&self) -> StartFuture<D> {
        Box::pin(std::future::ready(Ok(self())))
    }
}

#[diagnostic::do_not_recommend]
impl<D, E, F> IntoFactory<D, FallibleFactory<E>> for F
where
    D: Dependency,
    E: fmt::Display,
    F: Fn() -> Result<D, E> + Send + Sync + 'static,
{
    fn make(&self) -> StartFuture<D> {
        let made = self().map_err(|error| error.to_string());
        Box::pin(std::future::ready(made))
    }
}

#[diagnostic::do_not_recommend]
impl<D, E, W, F> IntoFactory<D, AsyncFactory<W, E>> for F
where
    D: Dependency,
    E: fmt::Display,
    W: Future<Output = Result<D, E>> + 'static,
    F: Fn() -> W + Send + Sync + 'static,
{
    fn make(&self) -> StartFuture<D> {
        let made = self();
        Box::pin(async move { made.await.map_err(|error| error.to_string()) })
    }
}

/// A dependency with a name and settings, and without workers so far.
#[derive(Debug)]
#[must_use = "nothing is started before `start`"]
pub struct NewDependency {
    pub(crate) runtime: Runtime,
    pub(crate) name: String,
    /// The settings given by the configuration.
    pub(crate) given: DependencySettings,
    pub(crate) settings: DependencySettings,
    pub(crate) change: ChangeRules,
}

/// Rules for later changes of a dependency.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ChangeRules {
    /// It takes the place of the running dependency of the same name.
    pub(crate) replaces: bool,
    /// Its fallbacks can be replaced, and `fallback_only` can be changed.
    pub(crate) replaceable_fallbacks: bool,
    /// Its start does not wait for its workers.
    pub(crate) background_start: bool,
}

impl NewDependency {
    /// Lets it take the place of a dependency that runs under the same name, of any type. It starts
    /// beside that one, and goes on with all that is known of it: the state of its breakers, their
    /// overrides, its pauses, its limits and its counters. Without such a dependency it is an
    /// ordinary start. End the former one with
    /// [`Runtime::end_former`](crate::Runtime::end_former).
    ///
    /// If the start fails, the former dependency goes on.
    ///
    /// # Source  Rule EDGE-6 in docs/rules.md.
    pub fn replacing(mut self) -> Self {
        self.change.replaces = true;
        self
    }

    /// Replaces the dependency's settings from the configuration.
    pub fn settings(mut self, settings: DependencySettings) -> Self {
        self.settings = settings;
        self
    }

    /// Changes some of the dependency's settings.
    pub fn configure(mut self, change: impl FnOnce(&mut DependencySettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Sets the maximum time of each start of a worker, the first one and all later ones, as
    /// `workers.start_timeout` does. A start that takes longer has failed. A factory that blocks its
    /// thread cannot be ended.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.settings.workers.start_timeout = Some(limit);
        self
    }

    /// Starts the dependency without workers: for closures, and for functions under the attribute.
    /// Closures can also use a dependency that has workers.
    ///
    /// # Errors  [`StartError`]: the name is taken, a setting cannot work, or the runtime is shutting
    /// down.
    /// # Panics  Never.
    /// # Cancel safety   Dropped, the start is rolled back, and the name is free.
    pub async fn start(self) -> Result<Client<Closures>, StartError> {
        start(self, None, Vec::new()).await
    }

    /// Sets the factory of a worker's value. It is called again for each restart, on the worker's
    /// thread.
    pub fn workers<D: Dependency, Kind>(
        self,
        factory: impl IntoFactory<D, Kind>,
    ) -> DependencyBuilder<D> {
        DependencyBuilder {
            new: self,
            factory: Arc::new(move || factory.make()),
            fallbacks: Vec::new(),
        }
    }
}

/// A dependency that is ready to be started.
#[must_use = "nothing is started before `start`"]
pub struct DependencyBuilder<D: Dependency> {
    new: NewDependency,
    factory: Factory<D>,
    fallbacks: Vec<FallbackRule<D>>,
}

impl<D: Dependency> fmt::Debug for DependencyBuilder<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DependencyBuilder")
            .field("new", &self.new)
            .field("fallbacks", &self.fallbacks)
            .finish_non_exhaustive()
    }
}

impl<D: Dependency> DependencyBuilder<D> {
    /// Appends a fallback that serves refusals and failures, but not writes.
    pub fn fallback(self, fallback: impl Fallback<D>) -> Self {
        self.fallback_rule(FallbackRule::new(fallback))
    }

    /// Appends another dependency of this runtime as a fallback, by its name; it may be started
    /// later. To give it a rule of its own, use [`ByName`].
    pub fn fallback_to(self, name: impl Into<String>) -> Self {
        let other = ByName::new(&self.new.runtime, name);
        self.fallback(other)
    }

    /// Appends a fallback with its own rule for when it serves.
    pub fn fallback_rule(mut self, rule: FallbackRule<D>) -> Self {
        self.fallbacks.push(rule);
        self
    }

    /// Changes some of the dependency's settings.
    pub fn configure(mut self, change: impl FnOnce(&mut DependencySettings)) -> Self {
        self.new = self.new.configure(change);
        self
    }

    /// Answers from the fallbacks only: no worker is started and the dependency is never called.
    /// For a demonstration, or while the credentials are missing. Answers name their source.
    pub fn fallback_only(mut self, only: bool) -> Self {
        self.new.settings.fallback_only = only;
        self
    }

    /// Permits [`Runtime::set_fallbacks`](crate::Runtime::set_fallbacks) while it runs. Its workers
    /// are started even if `fallback_only` is set.
    pub fn replaceable_fallbacks(mut self) -> Self {
        self.new.change.replaceable_fallbacks = true;
        self
    }

    /// Lets it take the place of a running dependency, as [`NewDependency::replacing`] does.
    pub fn replacing(mut self) -> Self {
        self.new = self.new.replacing();
        self
    }

    /// Sets the maximum time of each start of a worker, as [`NewDependency::start_timeout`] does.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.new = self.new.start_timeout(limit);
        self
    }

    /// Starts the workers in the background: [`DependencyBuilder::start`] returns when the
    /// dependency is registered. A worker that does not start is started again like one that has
    /// crashed, and callers wait for it or learn why it does not run.
    ///
    /// # Source  Rule MCP-1 in docs/rules.md.
    pub fn background_start(mut self) -> Self {
        self.new.change.background_start = true;
        self
    }

    /// Starts the breaker, the fallbacks and the workers, and waits until they run.
    ///
    /// # Errors  [`StartError`]: the name is taken, a setting cannot work, a worker did not start,
    /// there is no worker and no fallback to answer, the fallbacks form a cycle, or the runtime is
    /// shutting down. Parts already started are stopped again.
    /// # Panics  Never. A panic of the factory is a failed start.
    /// # Cancel safety   Dropped, the start is rolled back, and the name is free.
    pub async fn start(self) -> Result<Client<D>, StartError> {
        let Self {
            new,
            factory,
            fallbacks,
        } = self;
        if new.settings.fallback_only && fallbacks.is_empty() {
            let reason = "it answers from its fallbacks only and has none".to_owned();
            let name = new.name;
            return Err(StartError::BadSpec { name, reason });
        }
        start(new, Some(factory), fallbacks).await
    }
}

/// Starts a dependency; without a factory it has no workers.
async fn start<D: Dependency>(
    new: NewDependency,
    factory: Option<Factory<D>>,
    fallbacks: Vec<FallbackRule<D>>,
) -> Result<Client<D>, StartError> {
    let NewDependency {
        runtime,
        name,
        given,
        settings,
        change,
    } = new;
    // CFG-1: settings from code are judged as those of files are.
    if let Err(problem) = judge(&settings) {
        return Err(StartError::BadSetting { name, problem });
    }
    if let Some(reason) = fallbacks.iter().find_map(FallbackRule::problem) {
        return Err(StartError::BadSpec { name, reason });
    }
    let former = if change.replaces {
        runtime.shared_of_running(&name)
    } else {
        None
    };
    let fallback_only = settings.fallback_only;
    let configured = ConfiguredSettings::new(given, settings.clone());
    let around = runtime.supervisor_context().clone();
    let is_replacement = former.is_some();
    let shared = former.unwrap_or_else(|| {
        Arc::new(Shared::new(
            Arc::from(name),
            settings.clone(),
            around.clock.clone(),
            around.events.clone(),
            runtime.recorder(),
        ))
    });
    let has_workers = !fallback_only || change.replaceable_fallbacks;
    let workers = match &factory {
        Some(_) if has_workers => settings.workers.count.get(),
        _ => 0,
    };
    if !is_replacement {
        runtime.begin_overridden(&shared);
    }
    let mailbox = CallMailbox::new(Arc::clone(&shared), around.threads.clone());
    let core = core(shared, mailbox, workers, fallbacks, (configured, change));
    core.is_current.store(!is_replacement, Ordering::Release);
    let core = Arc::new(core);
    let client = Client {
        core: Arc::clone(&core),
    };
    let group = group(&core, factory, &settings.workers, change.background_start);
    if is_replacement {
        let mut undone = StartRollback::new(&runtime, &client);
        undone.is_registered = false;
        runtime.replace(&client, group).await?;
        undone.disarm();
        reload::install(&core, settings).await;
        return Ok(client);
    }
    if fallback_only {
        core.shared.set_fallback_only(true);
    }
    runtime.register(&client)?;
    core.shared.record_settings();
    let undone = StartRollback::new(&runtime, &client);
    runtime.add_group(group).await?;
    undone.disarm();
    Ok(client)
}

/// Frees the name of a dependency after a start that fails or is given up, and ends the calls that it
/// has.
struct StartRollback<'a, D: Dependency> {
    runtime: &'a Runtime,
    client: &'a Client<D>,
    is_registered: bool,
    is_armed: bool,
}

impl<'a, D: Dependency> StartRollback<'a, D> {
    fn new(runtime: &'a Runtime, client: &'a Client<D>) -> Self {
        Self {
            runtime,
            client,
            is_registered: true,
            is_armed: true,
        }
    }

    fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl<D: Dependency> Drop for StartRollback<'_, D> {
    fn drop(&mut self) {
        if !self.is_armed {
            return;
        }
        // SUP-1: all that a start has begun is undone with it.
        if self.is_registered {
            self.runtime.unregister(self.client);
        }
        self.client.core.stop();
    }
}

fn core<D: Dependency>(
    shared: Arc<Shared>,
    mailbox: Arc<CallMailbox<D>>,
    workers: u32,
    fallbacks: Vec<FallbackRule<D>>,
    (configured, change): (ConfiguredSettings, ChangeRules),
) -> DependencyCore<D> {
    let slot = |_| WorkerSlot {
        shared: Arc::new(CachePadded::new(Arc::clone(&shared))),
        queue: Arc::new(WorkQueue::new(Arc::clone(&shared))),
        mail: StableMailbox::new(),
        inline: Arc::default(),
        parked: Mutex::default(),
    };
    let bulkhead = shared.settings().bulkhead;
    let at_once = u64::from(bulkhead.max_concurrent.get()) + u64::from(bulkhead.max_queue);
    let at_once = usize::try_from(at_once).unwrap_or(usize::MAX);
    let replaceable = change.replaceable_fallbacks;
    DependencyCore {
        mailbox,
        breaker: StableMailbox::new(),
        workers: (0..workers).map(slot).collect(),
        next: AtomicUsize::new(0),
        fallbacks: Fallbacks::new(fallbacks, replaceable, at_once, &shared),
        configured: Mutex::new(configured),
        changing: tokio::sync::Mutex::default(),
        is_current: AtomicBool::new(true),
        shared: Arc::clone(&shared),
    }
}

/// Builds the dependency's supervisor: the breaker comes first, so that it stops last.
fn group<D: Dependency>(
    core: &Arc<DependencyCore<D>>,
    factory: Option<Factory<D>>,
    settings: &WorkerSettings,
    background: bool,
) -> Group {
    let mut group = Group::new(&*core.shared.name)
        .strategy(Strategy::OneForOne)
        .restart(RestartType::Permanent)
        .intensity(settings.intensity)
        .backoff(RestartBackoff {
            delay: settings.backoff,
            reset_after: settings.reset_after,
            // SUP-2: `workers.intensity` is the one limit that holds.
            max_in_a_row: None,
            ..RestartBackoff::default()
        });
    group.hooks = Some(Box::new(DependencyHooks {
        core: Arc::clone(core),
    }));
    group.push(child("breaker"), breaker_body(core));
    if core.fallbacks.need_actor() {
        group.push(child("fallback"), fallback_body(core));
    }
    let Some(factory) = factory else {
        let spec = ChildSpec {
            shutdown: Shutdown::Within(settings.drain),
            ..child("closures")
        };
        group.push(spec, drain_body(core));
        return group;
    };
    for index in 0..core.workers.len() {
        let spec = ChildSpec {
            restart: settings.restart,
            shutdown: Shutdown::Within(settings.drain),
            give_up: settings.give_up,
            background,
            ..ChildSpec::worker(format!("worker-{}", index + 1))
        };
        group.push(spec, worker_body(core, &factory, index, settings));
    }
    group
}

fn child(name: &str) -> ChildSpec {
    ChildSpec {
        give_up: GiveUp::Escalate,
        ..ChildSpec::worker(name)
    }
}

type MakeBody = Box<dyn FnOnce(&SupervisorContext, &str) -> Arc<dyn ChildBody> + Send>;

fn breaker_body<D: Dependency>(core: &Arc<DependencyCore<D>>) -> MakeBody {
    let core = Arc::clone(core);
    Box::new(move |around, _| {
        let slot = core.breaker.clone();
        let mailbox = Arc::clone(&core.mailbox);
        let threads = around.threads.clone();
        let calls: Arc<dyn CallMaker<D>> = core;
        let make = Arc::new(move |_: &Rc<Incarnation>| {
            CallReceiver::new(Arc::clone(&mailbox), Arc::clone(&calls), threads.clone())
        });
        let mut body = ActorBody::<_, ReceiverPollHook>::beside(slot, make, around.clock.clone());
        // CALL-9: the calls that it takes run code of users, which must not block the supervisors.
        body.place = DriverPlacement::Shared(0);
        Arc::new(body)
    })
}

fn fallback_body<D: Dependency>(core: &Arc<DependencyCore<D>>) -> MakeBody {
    let core = Arc::clone(core);
    Box::new(move |around, _| {
        let slot = core.fallbacks.mail.clone();
        let threads = around.threads.clone();
        let make = Arc::new(move |_: &Rc<Incarnation>| {
            FallbackActor::new(Arc::clone(&core), threads.clone())
        });
        Arc::new(ActorBody::<_, FallbackPollHook>::beside(
            slot,
            make,
            around.clock.clone(),
        ))
    })
}

fn drain_body<D: Dependency>(core: &Arc<DependencyCore<D>>) -> MakeBody {
    let shared = Arc::clone(&core.shared);
    Box::new(move |around, _| {
        let make = Arc::new(move |incarnation: &Rc<Incarnation>| {
            DrainWaiter::new(Arc::clone(&shared), incarnation)
        });
        Arc::new(ActorBody::<_, DrainPollHook>::beside(
            StableMailbox::new(),
            make,
            around.clock.clone(),
        ))
    })
}

fn worker_body<D: Dependency>(
    core: &Arc<DependencyCore<D>>,
    factory: &Factory<D>,
    index: usize,
    settings: &WorkerSettings,
) -> MakeBody {
    let (core, factory) = (Arc::clone(core), Arc::clone(factory));
    let settings = settings.clone();
    Box::new(move |around, _| {
        let shared = Arc::clone(&core.shared);
        let slot = core.workers[index].mail.clone();
        let queue = Arc::clone(&core.workers[index].queue);
        let inline = Arc::clone(&core.workers[index].inline);
        let is_shared = settings.placement == Placement::Shared;
        let make = Arc::new(move |incarnation: &Rc<Incarnation>| {
            if is_shared {
                // The same thread in every incarnation.
                inline.settle_here();
            }
            let (queue, inline) = (Arc::clone(&queue), Arc::clone(&inline));
            Worker::new(Arc::clone(&shared), queue, inline, &factory, incarnation)
        });
        let queue = Arc::clone(&core.workers[index].queue);
        let mut body = ActorBody::<_, WorkerPollHook>::beside(slot, make, around.clock.clone());
        body.place = match settings.placement {
            Placement::Shared => DriverPlacement::Shared(index),
            Placement::Dedicated => DriverPlacement::Dedicated,
        };
        body.stuck_after = match settings.placement {
            Placement::Shared => None,
            Placement::Dedicated => settings.stuck_after,
        };
        body.start_timeout = settings.start_timeout;
        body.queue = Some(queue);
        body.clear_on_crash = settings.while_restarting == WhileRestarting::Reject;
        body.hooks = Box::new(WorkerHooks { core, index });
        Arc::new(body)
    })
}

/// The effects of the end of a dependency's supervisor.
struct DependencyHooks<D: Dependency> {
    core: Arc<DependencyCore<D>>,
}

impl<D: Dependency> ChildHooks for DependencyHooks<D> {
    fn gone(&self) {
        self.core.stop();
    }
}
