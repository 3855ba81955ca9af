//! Fallback actors: who answers when there is no primary answer.
//!
//! One actor per dependency asks the fallbacks in their order. It never sees an outcome: what a
//! fallback answers is neither a success of the dependency nor a value to keep.

mod actor;

mod cache;
mod kinds;
mod named;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_policy::Time;
use breakerbox_policy::supervision::StopCause;
use tokio::sync::{Semaphore, oneshot};

use crate::dependency::{Dependency, Shared};
use crate::error::CallError;
use crate::supervisor::Mailslot;

use actor::{Debt, Serve};
pub(crate) use actor::{FallbackActor, FallbackManner, note_outage, patience};
pub use cache::StaleCache;
pub use kinds::{ActorFallback, FallbackCall, Fixed};
pub use named::ByName;
pub(crate) use named::{StandIn, circle};

/// What a fallback came to.
pub enum Fallen<T> {
    /// An answer, and how old it is when it was kept from an earlier call.
    Answer(T, Option<Duration>),
    /// It has nothing for this request; the next one is asked.
    Nothing,
    /// It failed; the next one is asked.
    Failed(String),
}

/// A fallback's work on one request.
pub type FallbackFuture<T> = Pin<Box<dyn Future<Output = Fallen<T>> + Send>>;

/// Leave to renew one answer in the background; dropped when that is done.
pub type Turn = Box<dyn Send>;

/// Something that can stand in for a dependency.
///
/// # Source  Rules FBK-1 to FBK-3 in docs/rules.md.
pub trait Fallback<D: Dependency>: Send + Sync + 'static {
    /// Its name, as answers and events give it.
    fn name(&self) -> &str;

    /// Answers in the dependency's place, because of `why`.
    fn answer(
        &self,
        request: D::Request,
        why: &CallError<D::Error>,
        now: Time,
    ) -> FallbackFuture<D::Response>;

    /// Sees a good answer of the dependency itself. By default it does nothing with it.
    fn remember(&self, request: &D::Request, response: &D::Response, now: Time) {
        let _ = (request, response, now);
    }

    /// Is asked after it has answered: whether the dependency is to be asked in the background
    /// for a newer answer. It gives no turn while one for the same request is out. By default
    /// nothing is renewed.
    fn turn_to_renew(&self, request: &D::Request) -> Option<Turn> {
        let _ = request;
        None
    }

    /// The dependency of the same runtime that it asks, if it asks one: a start that would close
    /// a circle of them is refused.
    fn depends_on(&self) -> Option<&str> {
        None
    }

    /// Why it could never answer, where that is known when its dependency is started.
    fn problem(&self) -> Option<String> {
        None
    }
}

/// For which errors a fallback serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum On {
    /// Refusals and failures.
    #[default]
    Any,
    /// Only when the dependency was not asked.
    Refused,
    /// Only when it was asked and failed.
    Failed,
}

/// A fallback, with when it serves.
pub struct Rule<D: Dependency> {
    fallback: Box<dyn Fallback<D>>,
    name: Arc<str>,
    depends_on: Option<String>,
    on: On,
    writes: bool,
    served: AtomicU64,
}

impl<D: Dependency> Rule<D> {
    /// A fallback that serves refusals and failures, but no writes.
    pub fn new(fallback: impl Fallback<D>) -> Self {
        Self {
            name: Arc::from(fallback.name()),
            depends_on: fallback.depends_on().map(str::to_owned),
            fallback: Box::new(fallback),
            on: On::Any,
            writes: false,
            served: AtomicU64::new(0),
        }
    }

    /// Gives it another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Arc::from(name);
        self
    }

    /// Narrows when it serves.
    #[must_use]
    pub fn on(mut self, on: On) -> Self {
        self.on = on;
        self
    }

    /// Lets it answer writes too.
    #[must_use]
    pub fn writes(mut self) -> Self {
        self.writes = true;
        self
    }

    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.fallback.problem()?;
        Some(format!(
            "its fallback {} could never answer: {problem}",
            self.name
        ))
    }

    fn serves(&self, why: &CallError<D::Error>, write: bool) -> bool {
        let wanted = match self.on {
            On::Any => true,
            On::Refused => why.is_refusal(),
            On::Failed => !why.is_refusal(),
        };
        wanted && (self.writes || !write)
    }
}

impl<D: Dependency> std::fmt::Debug for Rule<D> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Rule")
            .field("name", &self.name)
            .field("on", &self.on)
            .field("writes", &self.writes)
            .finish_non_exhaustive()
    }
}

/// An answer by a fallback.
#[derive(Debug)]
pub(crate) struct FallbackAnswer<T> {
    pub(crate) value: T,
    pub(crate) name: Arc<str>,
    pub(crate) age: Option<Duration>,
}

/// A dependency's fallbacks, in order, and the way to the actor that asks them.
pub(crate) struct Fallbacks<D: Dependency> {
    rules: Arc<[Rule<D>]>,
    pub(crate) mail: Mailslot<FallbackActor<D>>,
    /// Requests that the actor may have at once (rule CALL-6).
    places: Arc<Semaphore>,
}

impl<D: Dependency> Fallbacks<D> {
    pub(crate) fn new(rules: Vec<Rule<D>>, max_at_once: usize) -> Self {
        Self {
            rules: rules.into(),
            mail: Mailslot::new(),
            places: Arc::new(Semaphore::new(max_at_once.min(Semaphore::MAX_PERMITS))),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(crate) fn rules(&self) -> Arc<[Rule<D>]> {
        Arc::clone(&self.rules)
    }

    pub(crate) fn served(&self) -> Vec<(String, u64)> {
        let read = |rule: &Rule<D>| {
            let served = rule.served.load(Ordering::Relaxed);
            (rule.name.to_string(), served)
        };
        self.rules.iter().map(read).collect()
    }

    /// The dependencies that they ask.
    pub(crate) fn depend_on(&self) -> Vec<String> {
        let rules = self.rules.iter();
        rules.filter_map(|rule| rule.depends_on.clone()).collect()
    }

    pub(crate) fn remember(&self, request: &D::Request, response: &D::Response, now: Time) {
        // An answer can be no success, such as a tool's own error: that is nothing to keep.
        if !D::classify(Ok(response)).is_good() {
            return;
        }
        for rule in &*self.rules {
            rule.fallback.remember(request, response, now);
        }
    }

    /// Asks the actor; with no fallback for it, the call ends with its own error.
    ///
    /// From the caller's own deadline on only those answer that have an answer at once.
    pub(crate) async fn answer(
        &self,
        shared: &Shared,
        (request, write): (D::Request, bool),
        why: CallError<D::Error>,
        deadline: Option<Time>,
    ) -> Result<FallbackAnswer<D::Response>, CallError<D::Error>> {
        if !self.rules.iter().any(|rule| rule.serves(&why, write)) {
            return Err(why);
        }
        let Ok(_place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(why);
        };
        let (reply, answer) = oneshot::channel();
        self.mail.addr.do_send(Serve {
            request,
            write,
            deadline,
            debt: Debt {
                why: Some(why),
                reply: Some(reply),
            },
        });
        answer.await.unwrap_or_else(|_actor_gone| {
            Err(CallError::Interrupted {
                dependency: Arc::clone(&shared.name),
                cause: StopCause::Lost,
            })
        })
    }
}
