//! The runtime: one supervision tree, its threads, and the dependencies by name.

pub(crate) mod builder;

pub(crate) mod closures;

pub(crate) mod consumers;

mod controls;

mod fallback_directory;

mod fleet;

mod live;

pub(crate) mod orders;

pub(crate) mod replace;

mod protected;

mod registry;

pub(crate) mod renewal;

pub(crate) mod reload;

pub(crate) mod scope;

pub(crate) mod health;

pub(crate) mod outages;

pub(crate) mod status;

mod stop;

mod tree;

mod worker_hooks;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use breakerbox_policy::supervision::{CommandError, StopCause};
use breakerbox_policy::{BreakerCommand, ChaosSettings, DependencySettings, IllegalTransition};
use futures_channel::mpsc;
use tokio::sync::{broadcast, watch};

use crate::breaker::judgement::operate;
use crate::breaker::message::OperateBreaker;
use crate::client::Client;
use crate::clock::Clock;
use crate::consumer::ConsumerHandle;
use crate::dependency::Dependency;
use crate::error::StartError;
use crate::event::{Event, EventListener};
use crate::fallback::find_cycle;
use crate::state::recorder::OutcomeRecorder;
use crate::supervisor::{
    Child, ChildRef, ChildStatus, DeathWatch, DriverCommand, Group, GroupRef, SupervisorContext,
    remember_panics,
};
use crate::sync::LockExt;
use builder::{ChangeRules, NewDependency};
use orders::StandingOrder;
use registry::AnyDependency;
use tree::{OwnThread, StartContext, StartedTree};

/// The settings of a new runtime.
#[derive(Debug, Clone, Default)]
pub struct RuntimeSettings {
    /// Settings of dependencies by name; a dependency that is not listed gets the defaults.
    pub dependencies: BTreeMap<String, DependencySettings>,
    /// Number of threads to start besides the runtime's own; workers are spread over all of them.
    pub extra_threads: usize,
    /// Threads of the program that also get workers: a caller there has a worker on its own thread,
    /// and its calls do not cross threads. They must outlive the runtime.
    pub arbiters: Vec<actix::ArbiterHandle>,
    /// The clock; `None` for the real one.
    pub clock: Option<Clock>,
    /// The recorder of attempt outcomes; `None` for no recorder.
    pub recorder: Option<Arc<dyn OutcomeRecorder>>,
}

/// A running supervision tree. Cheap to clone; the tree lives until [`Runtime::shutdown`], or
/// until the last clone is dropped, which kills it.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<RuntimeState>,
}

/// A weak reference to a runtime; it does not keep the runtime alive.
#[derive(Clone)]
pub struct WeakRuntime(Weak<RuntimeState>);

impl fmt::Debug for WeakRuntime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WeakRuntime").finish_non_exhaustive()
    }
}

impl WeakRuntime {
    /// Returns the runtime; `None` if it has ended.
    #[must_use]
    pub fn upgrade(&self) -> Option<Runtime> {
        let inner = self.0.upgrade()?;
        Some(Runtime { inner })
    }
}

/// The sender to the root's driver, `None` once the tree has ended. The driver then ends and closes
/// the root's mailbox.
type RootCommands = Arc<Mutex<Option<mpsc::UnboundedSender<DriverCommand>>>>;

/// The dependencies by name.
type Registry = BTreeMap<String, Arc<dyn AnyDependency>>;

struct RuntimeState {
    /// Unique in this process.
    id: u64,
    around: SupervisorContext,
    settings: Mutex<BTreeMap<String, DependencySettings>>,
    /// Serializes reloads.
    reloading: tokio::sync::Mutex<()>,
    root: GroupRef,
    commands: RootCommands,
    end: watch::Receiver<Option<StopCause>>,
    registry: Mutex<Registry>,
    groups: Mutex<BTreeMap<String, GroupRef>>,
    /// Dependencies that were replaced, with their names in the tree.
    former: Mutex<Vec<(String, Arc<dyn AnyDependency>)>>,
    /// Dependencies that are being removed, with their names in the tree.
    leaving: Mutex<Vec<(String, Arc<dyn AnyDependency>)>>,
    recorder: Option<Arc<dyn OutcomeRecorder>>,
    /// The consumers that were started, by name.
    consumers: Mutex<BTreeMap<String, ConsumerHandle>>,
    /// Orders of operators that hold for every start of a dependency, by its name.
    standing_orders: Mutex<BTreeMap<String, StandingOrder>>,
    /// The limits of amounts that a fleet has together.
    shared_meters: Mutex<fleet::SharedMeters>,
    thread: Mutex<Option<OwnThread>>,
    /// True once a shutdown has begun.
    is_shut_down: AtomicBool,
}

impl Runtime {
    /// Starts an empty tree, on a thread of its own. Workers and actors of the program run on this
    /// thread if an actix system runs here, else on another new thread, so that it also works in any
    /// tokio program. On a virtual clock all of it is one thread.
    ///
    /// # Errors  The threads cannot be started, or the program aborts on panics.
    /// # Panics  Never, on any executor, with the real clock.
    /// # Cancel safety   Dropped, no handle is left, so all that was started ends.
    pub async fn start(settings: impl Into<RuntimeSettings>) -> Result<Self, StartError> {
        if cfg!(panic = "abort") {
            return Err(StartError::PanicAborts);
        }
        remember_panics();
        let RuntimeSettings {
            dependencies,
            extra_threads,
            arbiters,
            clock,
            recorder,
        } = settings.into();
        let clock = clock.unwrap_or_else(Clock::real);
        let context = StartContext {
            clock,
            extra_threads,
            arbiters,
        };
        let (tree, thread) = tree::start(context).await?;
        let StartedTree {
            around,
            root,
            commands,
            end,
        } = tree;
        Ok(Self {
            inner: Arc::new(RuntimeState {
                id: scope::new_id(),
                around,
                settings: Mutex::new(dependencies),
                reloading: tokio::sync::Mutex::default(),
                root,
                commands,
                end,
                registry: Mutex::default(),
                groups: Mutex::default(),
                former: Mutex::default(),
                leaving: Mutex::default(),
                recorder,
                consumers: Mutex::default(),
                standing_orders: Mutex::default(),
                shared_meters: Mutex::default(),
                thread: Mutex::new(thread),
                is_shut_down: AtomicBool::new(false),
            }),
        })
    }

    /// Begins the description of a dependency; its settings come from the configuration.
    pub fn dependency(&self, name: impl Into<String>) -> NewDependency {
        let name = name.into();
        let settings = self.inner.settings.acquire().get(&name).cloned();
        let settings = settings.unwrap_or_default();
        NewDependency {
            runtime: self.clone(),
            name,
            given: settings.clone(),
            settings,
            change: ChangeRules::default(),
        }
    }

    /// Supervises an actix actor of the program and waits until it runs.
    ///
    /// The actor is a child at the top of the tree. One that crashes more often than the tree's
    /// intensity allows ends the whole tree, with all dependencies, as in OTP. Put actors that may
    /// do so into a [`Group`], with [`Runtime::supervise_group`], or give them
    /// [`Child::give_up`]`(GiveUp::Park)`: they then give up for themselves.
    ///
    /// # Errors  [`StartError`]: the name is taken, the actor did not start, or the runtime is
    /// shutting down. Nothing of the child is left then, and its address is closed.
    /// # Panics  Never. A panic of the factory or of `started` is a failed start; a later panic of
    /// the actor is a crash, and its supervisor restarts it.
    /// # Cancel safety   Dropped, the child may run already, or still start, under its name:
    /// [`Runtime::children`] shows it.
    pub async fn supervise<A: actix::Actor<Context = actix::Context<A>>>(
        &self,
        child: Child<A>,
    ) -> Result<ChildRef<A>, StartError> {
        let name = child.spec.name.clone();
        let added = self.inner.root.add(child).await;
        added.map_err(|error| start_error(name, error))
    }

    /// Supervises a group of actors and waits until all of them run.
    ///
    /// # Errors  [`StartError`]: the group's specification contradicts itself, the name is taken, a
    /// child did not start, or the runtime is shutting down. The children that had started are
    /// stopped again.
    /// # Panics  As [`Runtime::supervise`].
    /// # Cancel safety   As [`Runtime::supervise`].
    pub async fn supervise_group(&self, group: Group) -> Result<GroupRef, StartError> {
        group.check()?;
        let name = group.own.name.clone();
        let added = self
            .inner
            .root
            .add_group(group, &self.inner.around, "")
            .await;
        let group = added.map_err(|error| start_error(name.clone(), error))?;
        self.inner.groups.acquire().insert(name, group.clone());
        Ok(group)
    }

    /// The group at the top of the tree: dependencies, actors and groups.
    #[must_use]
    pub fn root(&self) -> GroupRef {
        self.inner.root.clone()
    }

    /// The children at the top of the tree, in start order.
    pub async fn children(&self) -> Vec<ChildStatus> {
        self.inner.root.children().await
    }

    /// Watches a child, named by its path of groups: `"vector_search/worker-1"`.
    ///
    /// A child that has already ended, or never existed, is reported at once. One that another child has
    /// taken the place of, under the same name, is not reported: the watch goes on with the other.
    #[must_use]
    pub fn watch(&self, name: &str) -> DeathWatch {
        self.inner.around.watchers.watch(name)
    }

    /// Returns the handle of a running dependency, or `None` if none has this name and type.
    #[must_use]
    pub fn client<D: Dependency>(&self, name: &str) -> Option<Client<D>> {
        self.registry()
            .get(name)
            .and_then(|one| one.client().downcast_ref::<Client<D>>().cloned())
    }

    /// Closes every breaker, removes overrides and sets the breakers' counters to zero.
    ///
    /// # Panics  Never.
    pub async fn reset_all(&self, reason: &str) {
        let names: Vec<String> = self.registry().keys().cloned().collect();
        for name in names {
            let reason = reason.to_owned();
            // Reset is allowed in every state. A breaker that is gone by then needs none.
            let _ = self.operate(&name, BreakerCommand::Reset { reason }).await;
        }
    }

    /// Carries out an operator's command on a breaker. Returns `None` if no dependency has this
    /// name. A command that closes it starts parked workers again; until one runs, it stays open.
    ///
    /// # Errors  The breaker's state does not allow it.
    pub async fn operate(
        &self,
        name: &str,
        command: BreakerCommand,
    ) -> Option<Result<(), IllegalTransition>> {
        self.carry_out(name, OperateBreaker::all(command)).await
    }

    async fn carry_out(
        &self,
        name: &str,
        asked: OperateBreaker,
    ) -> Option<Result<(), IllegalTransition>> {
        let one = self.registry().get(name).cloned()?;
        let revives = matches!(
            asked.command,
            BreakerCommand::Close { .. } | BreakerCommand::Reset { .. }
        );
        let done = operate(one.shared(), asked);
        if revives {
            self.begin_restart(name, &*one);
        }
        Some(done)
    }

    /// Injects faults at a dependency, as [`Client::set_chaos`] does. Returns false if none has
    /// this name.
    pub fn chaos(&self, name: &str, settings: Option<ChaosSettings>, by: &str) -> bool {
        let one = self.registry().get(name).cloned();
        // An event listener may look up a dependency, so the lock must not be held.
        one.map(|one| one.set_chaos(settings, by)).is_some()
    }

    /// Returns the group of this name at the top of the tree; each dependency is a group.
    ///
    /// Restarting a child there revives a parked worker: `group.restart("worker-1")`.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<GroupRef> {
        self.inner.groups.acquire().get(name).cloned()
    }

    /// Registers a listener that is called for each event, in their order, until
    /// [`EventListener::end`]: on a thread of its own, or on the thread that emits them if the clock
    /// is a virtual one. A listener that blocks or panics affects no other part; one that is 4096
    /// events behind misses the next ones, and a log line says so.
    ///
    /// The listener is kept until the end of the runtime. One that holds a handle of the runtime
    /// keeps it alive until a shutdown.
    ///
    /// # Panics  Never. A panic of the listener is caught and logged, and it hears the next event.
    pub fn on_event(&self, listener: impl Fn(&Event) + Send + Sync + 'static) -> EventListener {
        self.inner.around.events.listen(listener)
    }

    /// Returns a stream of events from now on. A reader that is too slow gets the number of events
    /// it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.around.events.subscribe()
    }

    /// Returns the latest events with an id above `after`, oldest first. The last 1024 are kept, and
    /// beside them 256 older ones of operators: a gap in the ids is where other events are dropped.
    #[must_use]
    pub fn events_since(&self, after: u64) -> Vec<Event> {
        self.inner.around.events.since(after)
    }

    /// Number of threads abandoned because a worker blocks them. Each ends when its worker returns.
    #[must_use]
    pub fn abandoned_threads(&self) -> usize {
        self.inner.around.threads.abandoned()
    }

    /// The runtime's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.around.clock
    }

    /// Resolves with the cause when the tree has ended: [`StopCause::GaveUp`] if a failure has
    /// escalated to the top.
    pub async fn ended(&self) -> StopCause {
        let mut end = self.inner.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone().unwrap_or(StopCause::Lost),
            Err(_driver_gone) => StopCause::Lost,
        }
    }

    /// Returns a weak reference, for parts that the runtime itself owns.
    pub(crate) fn downgrade(&self) -> WeakRuntime {
        WeakRuntime(Arc::downgrade(&self.inner))
    }

    pub(crate) fn erased_fallback(&self, name: &str) -> Option<Box<dyn Any>> {
        self.registry().get(name).map(|one| one.erased_fallback())
    }

    pub(crate) fn supervisor_context(&self) -> &SupervisorContext {
        &self.inner.around
    }

    pub(crate) fn register<D: Dependency>(&self, client: &Client<D>) -> Result<(), StartError> {
        let name = client.name().to_owned();
        let mut registry = self.registry();
        if registry.get(&name).is_some_and(|one| !one.is_leaving()) {
            return Err(StartError::AlreadyRegistered { name });
        }
        check_cycle(&registry, &name, client.falls_back_on())?;
        registry.insert(name, Arc::new(client.clone()));
        Ok(())
    }

    pub(crate) fn unregister<D: Dependency>(&self, client: &Client<D>) {
        let mut registry = self.registry();
        let of = |one: &Arc<dyn AnyDependency>| Arc::ptr_eq(one.shared(), &client.core.shared);
        if registry.get(client.name()).is_some_and(of) {
            registry.remove(client.name());
        }
    }

    pub(crate) fn recorder(&self) -> Option<Arc<dyn OutcomeRecorder>> {
        self.inner.recorder.clone()
    }

    pub(crate) async fn add_group(&self, group: Group) -> Result<(), StartError> {
        self.supervise_group(group).await.map(drop)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.inner.registry.acquire()
    }
}

/// Refuses fallbacks of `name` that would come back to it.
fn check_cycle(registry: &Registry, name: &str, first: Vec<String>) -> Result<(), StartError> {
    let beyond = |name: &str| registry.get(name).map(|one| one.falls_back_on());
    let beyond = |name: &str| beyond(name).unwrap_or_default();
    match find_cycle(name, first, beyond) {
        None => Ok(()),
        Some(circle) => Err(StartError::FallbackCycle {
            name: name.to_owned(),
            circle,
        }),
    }
}

fn start_error(child: String, error: CommandError) -> StartError {
    match error {
        CommandError::StartFailed(cause) => StartError::Failed { child, cause },
        CommandError::AlreadyPresent | CommandError::AlreadyStarted => {
            StartError::AlreadyRegistered { name: child }
        }
        CommandError::BadSpec(reason) => StartError::BadSpec {
            name: child,
            reason: reason.to_string(),
        },
        _ => StartError::ShuttingDown,
    }
}

impl Drop for RuntimeState {
    fn drop(&mut self) {
        for one in self.registry.acquire().values() {
            one.stop();
        }
        // The root's driver ends, and the whole tree ends with it.
        drop(self.commands.acquire().take());
        // No caller is left to join the threads.
        for arbiter in self.around.threads.take() {
            arbiter.stop();
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Runtime").finish_non_exhaustive()
    }
}
