//! Dependencies that have no workers, only closures; and the handle for closures of any
//! dependency, whatever its requests are.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context as TaskContext;

use actix::{Actor, ActorContext, Context};
use breakerbox_policy::DependencySettings;

use crate::call::{self, CallOptions};
use crate::client::Client;
use crate::dependency::{CallContext, Dependency, Shared, Verdict};
use crate::error::CallError;
use crate::runtime::Runtime;
use crate::supervisor::{Life, Manner};
use crate::worker::drained;

/// A dependency without workers, as [`NewDependency::start`](crate::NewDependency::start) starts
/// it: its calls are closures, and functions under the attribute. It takes no requests, so there
/// is no value of it.
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

/// A handle for closures: of any dependency, whatever its requests are.
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

    /// The dependency's settings at this moment.
    #[must_use]
    pub fn settings(&self) -> Arc<DependencySettings> {
        Arc::clone(&self.shared.settings())
    }

    /// Runs a closure, as [`Client::run`] does.
    ///
    /// # Errors  As [`Client::run`].
    /// # Panics  As [`Client::run`].
    /// # Cancel safety   As [`Client::run`].
    pub fn run<T, E, F>(
        &self,
        work: impl FnMut() -> F,
    ) -> impl Future<Output = Result<T, CallError<E>>>
    where
        F: Future<Output = Result<T, E>>,
    {
        call::run(&self.shared, CallOptions::usual(), Verdict::by_result, work)
    }

    /// Runs a closure with options, as [`Client::run_with`] does.
    ///
    /// # Errors  As [`Client::run`].
    /// # Panics  As [`Client::run`].
    /// # Cancel safety   As [`Client::run`].
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

    /// The same handle: whoever has one of either kind may ask for this one.
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

impl<D: Dependency> Client<D> {
    /// A handle of the same dependency for closures only, which does not tell what its requests
    /// are.
    #[must_use]
    pub fn any(&self) -> AnyClient {
        AnyClient {
            shared: Arc::clone(&self.core.shared),
        }
    }
}

impl Runtime {
    /// The handle for closures of a running dependency; `None` when there is none of this name.
    #[must_use]
    pub fn any_client(&self, name: &str) -> Option<AnyClient> {
        let shared = self.shared(name)?;
        Some(AnyClient { shared })
    }
}

/// Stands where the workers of other dependencies stand in the tree: a drain waits here until the
/// closures that were accepted have ended.
pub(crate) struct Last {
    life: Rc<Life>,
    drained: Pin<Box<dyn Future<Output = ()>>>,
}

impl Last {
    pub(crate) fn new(shared: Arc<Shared>, life: &Rc<Life>) -> Self {
        Self {
            life: Rc::clone(life),
            drained: Box::pin(drained(shared)),
        }
    }
}

impl Actor for Last {
    type Context = Context<Self>;
}

/// How the one who waits for the closures is driven.
#[derive(Debug)]
pub(crate) struct LastManner;

impl Manner<Last> for LastManner {
    const DRAINS: bool = true;

    fn poll(last: &mut Last, ctx: &mut Context<Last>, cx: &mut TaskContext<'_>) {
        if last.life.is_stopping() && last.drained.as_mut().poll(cx).is_ready() {
            ctx.stop();
        }
    }
}
