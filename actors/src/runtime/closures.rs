//! Dependencies without workers, for closures only; and the handle for closures of a dependency of
//! any type.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context as TaskContext;

use actix::{Actor, ActorContext, Context};
use breakerbox_policy::DependencySettings;

use crate::call;
use crate::call_options::CallOptions;
use crate::dependency::{CallContext, Dependency};
use crate::error::CallError;
use crate::runtime::Runtime;
use crate::state::Shared;
use crate::supervisor::{Incarnation, PollHook};
use crate::verdict::Verdict;
use crate::worker::drained;

/// A dependency without workers, as [`NewDependency::start`](crate::NewDependency::start) starts
/// it: its calls are closures, and functions under the attribute. It takes no requests, so it has
/// no values.
#[derive(Debug)]
pub enum Closures {}

impl Dependency for Closures {
    type Request = Infallible;
    type Response = Infallible;
    type Error = Infallible;

    async fn call(&self, request: Infallible, _: &CallContext) -> Result<Infallible, Infallible> {
        match request {}
    }
}

/// A handle for closures, of a dependency of any type.
#[derive(Clone)]
pub struct AnyClient {
    pub(crate) shared: Arc<Shared>,
}

impl AnyClient {
    /// The dependency's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The dependency's current settings.
    #[must_use]
    pub fn settings(&self) -> Arc<DependencySettings> {
        Arc::clone(&self.shared.settings())
    }

    /// Runs a closure, as [`Client::run`](crate::Client::run) does.
    ///
    /// # Errors  As [`Client::run`](crate::Client::run).
    /// # Panics  As [`Client::run`](crate::Client::run).
    /// # Cancel safety   As [`Client::run`](crate::Client::run).
    pub fn run<T, E, F>(
        &self,
        work: impl FnMut() -> F,
    ) -> impl Future<Output = Result<T, CallError<E>>>
    where
        F: Future<Output = Result<T, E>>,
    {
        call::run(&self.shared, CallOptions::usual(), Verdict::by_result, work)
    }

    /// Runs a closure with options, as [`Client::run_with`](crate::Client::run_with) does.
    ///
    /// # Errors  As [`Client::run`](crate::Client::run).
    /// # Panics  As [`Client::run`](crate::Client::run).
    /// # Cancel safety   As [`Client::run`](crate::Client::run).
    pub fn run_with<T, E, F>(
        &self,
        options: CallOptions,
        classify: impl Fn(&Result<T, E>) -> Verdict,
        work: impl FnMut() -> F,
    ) -> impl Future<Output = Result<T, CallError<E>>>
    where
        F: Future<Output = Result<T, E>>,
    {
        call::run(&self.shared, options, classify, work)
    }

    /// Runs a closure that lends its state to each attempt, as
    /// [`Client::run_mut`](crate::Client::run_mut) does.
    ///
    /// # Errors  As [`Client::run`](crate::Client::run).
    /// # Panics  As [`Client::run`](crate::Client::run).
    /// # Cancel safety   As [`Client::run`](crate::Client::run).
    pub async fn run_mut<T, E>(
        &self,
        work: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        let options = CallOptions::usual();
        call::run_mut(&self.shared, options, Verdict::by_result, work).await
    }

    /// Runs a closure as [`AnyClient::run_mut`] does, with options, and a function that classifies
    /// each result.
    ///
    /// # Errors  As [`Client::run`](crate::Client::run).
    /// # Panics  As [`Client::run`](crate::Client::run).
    /// # Cancel safety   As [`Client::run`](crate::Client::run).
    pub async fn run_mut_with<T, E>(
        &self,
        options: CallOptions,
        classify: impl Fn(&Result<T, E>) -> Verdict,
        work: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        call::run_mut(&self.shared, &options, classify, work).await
    }

    /// Returns the same handle, so that both kinds of handles have this method.
    #[must_use]
    pub fn any(&self) -> Self {
        self.clone()
    }
}

impl fmt::Debug for AnyClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AnyClient")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Returns the handle for closures of a running dependency, or `None` if none has this name.
    #[must_use]
    pub fn any_client(&self, name: &str) -> Option<AnyClient> {
        let shared = self.shared(name)?;
        Some(AnyClient { shared })
    }
}

/// Takes the place of workers in the tree: a drain waits here until the accepted closures have
/// ended.
pub(crate) struct DrainWaiter {
    incarnation: Rc<Incarnation>,
    drained: Pin<Box<dyn Future<Output = ()>>>,
}

impl DrainWaiter {
    pub(crate) fn new(shared: Arc<Shared>, incarnation: &Rc<Incarnation>) -> Self {
        Self {
            incarnation: Rc::clone(incarnation),
            drained: Box::pin(drained(shared)),
        }
    }
}

impl Actor for DrainWaiter {
    type Context = Context<Self>;
}

/// The poll hook of the actor that waits for the closures.
#[derive(Debug)]
pub(crate) struct DrainPollHook;

impl PollHook<DrainWaiter> for DrainPollHook {
    const DRAINS: bool = true;

    fn poll(last: &mut DrainWaiter, ctx: &mut Context<DrainWaiter>, cx: &mut TaskContext<'_>) {
        if last.incarnation.is_stopping() && last.drained.as_mut().poll(cx).is_ready() {
            ctx.stop();
        }
    }
}
