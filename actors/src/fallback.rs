//! Fallback actors: who answers when there is no primary answer.
//!
//! One actor per dependency asks the fallbacks in their order. It never sees an outcome: what a
//! fallback answers is neither a success of the dependency nor a value to keep.

mod cache;
mod kinds;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use breakerbox_policy::Time;
use breakerbox_policy::supervision::StopCause;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, oneshot};

use crate::dependency::{Dependency, Shared};
use crate::error::CallError;
use crate::event::EventKind;
use crate::supervisor::{Mailslot, Manner, panic_report};

pub use cache::StaleCache;
pub use kinds::{ActorFallback, FallbackCall, Fixed};

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
    on: On,
    writes: bool,
    served: AtomicU64,
}

impl<D: Dependency> Rule<D> {
    /// A fallback that serves refusals and failures, but no writes.
    pub fn new(fallback: impl Fallback<D>) -> Self {
        Self {
            name: Arc::from(fallback.name()),
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

    pub(crate) fn remember(&self, request: &D::Request, response: &D::Response, now: Time) {
        for rule in &*self.rules {
            rule.fallback.remember(request, response, now);
        }
    }

    /// Asks the actor; with no fallback for it, the call ends with its own error.
    pub(crate) async fn answer(
        &self,
        shared: &Shared,
        request: D::Request,
        why: CallError<D::Error>,
    ) -> Result<FallbackAnswer<D::Response>, CallError<D::Error>> {
        let write = D::is_write(&request);
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

/// What the fallbacks came to.
type Served<D> =
    Result<FallbackAnswer<<D as Dependency>::Response>, CallError<<D as Dependency>::Error>>;

/// One request for the fallbacks.
pub(crate) struct Serve<D: Dependency> {
    request: D::Request,
    write: bool,
    debt: Debt<D>,
}

/// The duty to answer: dropped unanswered, the call ends with its own error (rule CALL-1).
struct Debt<D: Dependency> {
    why: Option<CallError<D::Error>>,
    reply: Option<oneshot::Sender<Served<D>>>,
}

impl<D: Dependency> Debt<D> {
    fn pay(mut self, answer: FallbackAnswer<D::Response>) {
        if let Some(reply) = self.reply.take() {
            // The caller may have gone just now.
            let _ = reply.send(Ok(answer));
        }
    }

    /// The last fallback that failed is what the caller hears of.
    fn note_failure(&mut self, shared: &Shared, fallback: &Arc<str>, message: String) {
        self.why = self.why.take().map(|cause| CallError::FallbackFailed {
            dependency: Arc::clone(&shared.name),
            fallback: Arc::clone(fallback),
            message,
            cause: Box::new(cause),
        });
    }
}

impl<D: Dependency> Drop for Debt<D> {
    fn drop(&mut self) {
        if let (Some(why), Some(reply)) = (self.why.take(), self.reply.take()) {
            let _ = reply.send(Err(why));
        }
    }
}

impl<D: Dependency> Message for Serve<D> {
    type Result = ();
}

/// Asks a dependency's fallbacks in their order.
pub(crate) struct FallbackActor<D: Dependency> {
    shared: Arc<Shared>,
    rules: Arc<[Rule<D>]>,
    at_work: FuturesUnordered<Pin<Box<dyn Future<Output = ()>>>>,
}

impl<D: Dependency> FallbackActor<D> {
    pub(crate) fn new(shared: Arc<Shared>, rules: Arc<[Rule<D>]>) -> Self {
        Self {
            shared,
            rules,
            at_work: FuturesUnordered::new(),
        }
    }
}

impl<D: Dependency> Actor for FallbackActor<D> {
    type Context = Context<Self>;
}

impl<D: Dependency> Unpin for FallbackActor<D> {}

impl<D: Dependency> Handler<Serve<D>> for FallbackActor<D> {
    type Result = ();

    fn handle(&mut self, serve: Serve<D>, _: &mut Context<Self>) {
        let (shared, rules) = (Arc::clone(&self.shared), Arc::clone(&self.rules));
        self.at_work.push(Box::pin(serve_one(shared, rules, serve)));
    }
}

/// Asks one fallback after the other until one answers; the last failure is what the caller gets.
async fn serve_one<D: Dependency>(shared: Arc<Shared>, rules: Arc<[Rule<D>]>, serve: Serve<D>) {
    let Serve {
        request,
        write,
        mut debt,
    } = serve;
    let mut failure = None;
    let serves = |rule: &&Rule<D>| {
        let why = debt.why.as_ref();
        why.is_some_and(|why| rule.serves(why, write))
    };
    let chosen: Vec<&Rule<D>> = rules.iter().filter(serves).collect();
    for rule in chosen {
        let Debt {
            why: Some(why),
            reply: Some(reply),
        } = &mut debt
        else {
            return;
        };
        let now = shared.clock.now();
        let asked =
            AssertUnwindSafe(async { rule.fallback.answer(request.clone(), why, now).await });
        let fallen = tokio::select! {
            biased;
            // Nobody waits any more.
            () = reply.closed() => return,
            fallen = asked.catch_unwind() => fallen,
            () = patience(&shared, now) => Ok(Fallen::Failed("it took too long".to_owned())),
        };
        match fallen {
            Ok(Fallen::Answer(value, age)) => {
                note_outage(&shared, rule, why);
                let name = Arc::clone(&rule.name);
                debt.pay(FallbackAnswer { value, name, age });
                return;
            }
            Ok(Fallen::Nothing) => {}
            Ok(Fallen::Failed(message)) => failure = Some((&rule.name, message)),
            Err(payload) => {
                let panic = panic_report(payload);
                tracing::error!(dependency = &*shared.name, fallback = &*rule.name, %panic, "a fallback panicked");
                failure = Some((&rule.name, format!("it panicked: {panic}")));
            }
        }
    }
    if let Some((name, message)) = failure {
        debt.note_failure(&shared, name, message);
    }
}

/// A fallback gets the time of an attempt.
async fn patience(shared: &Shared, now: Time) {
    match shared.settings().timeout.attempt {
        Some(attempt) => shared.clock.sleep_until(now.after(attempt)).await,
        None => std::future::pending().await,
    }
}

/// Counts the answer; the first one of an outage is an event, the others are a number.
fn note_outage<D: Dependency>(shared: &Shared, rule: &Rule<D>, why: &CallError<D::Error>) {
    rule.served.fetch_add(1, Ordering::Relaxed);
    let now = shared.clock.now().as_nanos();
    shared.last_fallback.store(now, Ordering::Relaxed);
    let tag = shared.circuit.gate.read().tag();
    shared.last_fallback_tag.store(tag, Ordering::Relaxed);
    if shared.outage.fetch_add(1, Ordering::Relaxed) == 0 {
        let kind = EventKind::FallbackServing {
            fallback: Arc::clone(&rule.name),
            why: why.to_string(),
        };
        shared.events.emit(&shared.name, kind);
    }
}

/// How the fallback actor is driven.
#[derive(Debug)]
pub(crate) struct FallbackManner;

impl<D: Dependency> Manner<FallbackActor<D>> for FallbackManner {
    fn poll(
        actor: &mut FallbackActor<D>,
        _: &mut Context<FallbackActor<D>>,
        cx: &mut std::task::Context<'_>,
    ) {
        while let std::task::Poll::Ready(Some(())) = actor.at_work.poll_next_unpin(cx) {}
    }
}
