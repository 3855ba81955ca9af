//! The actor that asks a dependency's fallbacks, one after the other.
//!
//! It answers the caller first, and refreshes a cached answer after that.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use breakerbox_policy::{Executed, Time};
use futures_channel::mpsc;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, oneshot};

use super::{FallbackAnswer, FallbackOutcome, FallbackRule, FallbackSet, UnservedCall};
use crate::call;
use crate::call::core::DependencyCore;
use crate::deadline::{CallScope, DeadlineScope};
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::event::EventKind;
use crate::state::Shared;
use crate::supervisor::{PollHook, Threads, panic_report};
use crate::sync::LockExt;

/// Maximum number of concurrent refreshes for one dependency, regardless of its number of requests.
const RENEWALS: usize = 16;

/// Result of asking all fallbacks.
type FallbackReply<D> = Result<FallbackAnswer<<D as Dependency>::Response>, UnservedCall<D>>;

/// One request for the fallbacks.
pub(crate) struct ServeFallback<D: Dependency> {
    pub(super) set: Arc<FallbackSet<D>>,
    pub(super) request: D::Request,
    pub(super) write: bool,
    /// The caller's own deadline.
    pub(super) deadline: Option<Time>,
    pub(super) debt: PendingReply<D>,
}

/// The obligation to answer: dropped unanswered, it ends the call with its own error (rule CALL-1).
pub(super) struct PendingReply<D: Dependency> {
    /// The dependency's name.
    pub(super) name: Arc<str>,
    pub(super) why: Cause<D>,
    pub(super) reply: Option<oneshot::Sender<FallbackReply<D>>>,
}

/// A call that has no primary answer. Its caller takes it back when its own time is over while a
/// fallback blocks its thread.
pub(super) type Cause<D> = Arc<Mutex<Option<UnservedState<D>>>>;

/// The error of a call that has no primary answer, and the ends of its fallbacks so far.
pub(super) struct UnservedState<D: Dependency> {
    why: CallError<D::Error>,
    /// The latest answer of a fallback that counts as a failure.
    bad: Option<FallbackAnswer<D::Response>>,
    /// The name of the fallback that is at work.
    at_work: Option<Arc<str>>,
    /// The name and the error text of the last fallback that failed.
    failed: Option<(Arc<str>, String)>,
    /// Execution state of the work at all fallbacks that failed.
    executed: Executed,
}

impl<D: Dependency> UnservedState<D> {
    /// Makes the state of a call before its fallbacks are asked.
    pub(super) fn of(why: CallError<D::Error>) -> Self {
        Self {
            why,
            bad: None,
            at_work: None,
            failed: None,
            executed: Executed::No,
        }
    }

    /// Notes the failure of a fallback.
    fn note_failure(&mut self, fallback: &Arc<str>, message: String, executed: Executed) {
        self.failed = Some((Arc::clone(fallback), message));
        self.executed = self.executed.max(executed);
    }

    /// Ends the call without an answer: the caller gets the failure of the last fallback. `left`: the
    /// failure of one that is still at work.
    pub(super) fn into_unserved(mut self, dependency: &Arc<str>, left: &str) -> UnservedCall<D> {
        if let Some(fallback) = self.at_work.take() {
            // CALL-2: it has begun, and its end is not known.
            self.note_failure(&fallback, left.to_owned(), Executed::Maybe);
        }
        let error = match self.failed {
            None => self.why,
            Some(failed) => {
                let dependency = Arc::clone(dependency);
                self.why.fallback_failed(dependency, failed, self.executed)
            }
        };
        (error, self.bad)
    }
}

impl<D: Dependency> PendingReply<D> {
    fn send_reply(mut self, answer: FallbackAnswer<D::Response>) {
        if let Some(reply) = self.reply.take() {
            // The caller may just have gone.
            let _ = reply.send(Ok(answer));
        }
    }

    /// Notes the end of a fallback that has given no answer.
    fn note_end(&self, note: impl FnOnce(&mut UnservedState<D>)) {
        if let Some(state) = &mut *self.why.acquire() {
            state.at_work = None;
            note(state);
        }
    }
}

impl<D: Dependency> Drop for PendingReply<D> {
    fn drop(&mut self) {
        let Some(reply) = self.reply.take() else {
            return;
        };
        let why = self.why.acquire().take();
        if let Some(why) = why {
            let unserved = why.into_unserved(&self.name, "it was left before its end");
            let _ = reply.send(Err(unserved));
        }
    }
}

impl<D: Dependency> Message for ServeFallback<D> {
    type Result = ();
}

/// Asks a dependency's fallbacks in their order, on a thread that only they use: one that blocks it
/// delays no other dependency (rule CALL-9). The thread is made at the first request.
pub(crate) struct FallbackActor<D: Dependency> {
    core: Arc<DependencyCore<D>>,
    renewals: Arc<Semaphore>,
    threads: Threads,
    own_thread: Option<FallbackThread<D>>,
    /// The requests at work on the actor's own thread.
    at_work: FuturesUnordered<Pin<Box<dyn Future<Output = ()>>>>,
}

/// The thread of one dependency's fallbacks; it ends when this is dropped.
struct FallbackThread<D: Dependency> {
    number: u64,
    requests: mpsc::UnboundedSender<ServeFallback<D>>,
    threads: Threads,
}

impl<D: Dependency> Drop for FallbackThread<D> {
    fn drop(&mut self) {
        self.threads.release(self.number);
    }
}

impl<D: Dependency> FallbackThread<D> {
    fn start(
        core: &Arc<DependencyCore<D>>,
        renewals: &Arc<Semaphore>,
        threads: &Threads,
    ) -> Result<Self, String> {
        let (number, thread) = threads.dedicated()?;
        let (requests, mut inbox) = mpsc::unbounded::<ServeFallback<D>>();
        let (core, renewals) = (Arc::clone(core), Arc::clone(renewals));
        thread.spawn(move || async move {
            while let Some(serve) = inbox.next().await {
                tokio::task::spawn_local(serve_one(
                    Arc::clone(&core),
                    Arc::clone(&renewals),
                    serve,
                ));
            }
        })?;
        let threads = threads.clone();
        Ok(Self {
            number,
            requests,
            threads,
        })
    }
}

impl<D: Dependency> FallbackActor<D> {
    pub(crate) fn new(core: Arc<DependencyCore<D>>, threads: Threads) -> Self {
        Self {
            core,
            renewals: Arc::new(Semaphore::new(RENEWALS)),
            threads,
            own_thread: None,
            at_work: FuturesUnordered::new(),
        }
    }

    /// Passes a request to the thread of the fallbacks. Returns it if there is none.
    fn pass_on(&mut self, serve: ServeFallback<D>) -> Option<ServeFallback<D>> {
        if !self.threads.are_apart() {
            return Some(serve);
        }
        if self.own_thread.is_none() {
            match FallbackThread::start(&self.core, &self.renewals, &self.threads) {
                Ok(thread) => self.own_thread = Some(thread),
                Err(why) => {
                    let dependency = &*self.core.shared.name;
                    tracing::error!(dependency, why, "the fallbacks have no thread of their own");
                }
            }
        }
        let Some(thread) = &self.own_thread else {
            return Some(serve);
        };
        let sent = thread.requests.unbounded_send(serve);
        let refused = sent.err().map(mpsc::TrySendError::into_inner);
        if refused.is_some() {
            // The thread was lost; the next request gets another one.
            self.own_thread = None;
        }
        refused
    }
}

impl<D: Dependency> Actor for FallbackActor<D> {
    type Context = Context<Self>;
}

impl<D: Dependency> Unpin for FallbackActor<D> {}

impl<D: Dependency> Handler<ServeFallback<D>> for FallbackActor<D> {
    type Result = ();

    fn handle(&mut self, serve: ServeFallback<D>, _: &mut Context<Self>) {
        if let Some(serve) = self.pass_on(serve) {
            let (core, renewals) = (Arc::clone(&self.core), Arc::clone(&self.renewals));
            self.at_work
                .push(Box::pin(serve_one(core, renewals, serve)));
        }
    }
}

/// Answers one request, then refreshes a cached answer.
async fn serve_one<D: Dependency>(
    core: Arc<DependencyCore<D>>,
    renewals: Arc<Semaphore>,
    serve: ServeFallback<D>,
) {
    let ServeFallback {
        set,
        request,
        write,
        deadline,
        debt,
    } = serve;
    let served = answer(&core.shared, &set.rules, &request, (write, deadline), debt).await;
    if let Some(rule) = served.filter(|_| !write) {
        refresh(&core, rule, request, &renewals).await;
    }
}

/// Asks one fallback at `now`.
async fn begin<D: Dependency>(
    rule: &FallbackRule<D>,
    request: &D::Request,
    why: &Cause<D>,
    now: Time,
) -> FallbackOutcome<D::Response> {
    let begin = || {
        let mut state = why.acquire();
        let state = state.as_mut()?;
        state.at_work = Some(Arc::clone(&rule.name));
        Some(rule.fallback.answer(request.clone(), &state.why, now))
    };
    match begin() {
        Some(asked) => asked.await,
        // The caller has given up.
        None => FallbackOutcome::Nothing,
    }
}

/// Asks one fallback after the other and returns the first that answers; if none does, the caller
/// gets the last failure.
async fn answer<'a, D: Dependency>(
    shared: &Shared,
    rules: &'a [FallbackRule<D>],
    request: &D::Request,
    (write, deadline): (bool, Option<Time>),
    mut debt: PendingReply<D>,
) -> Option<&'a FallbackRule<D>> {
    // FBK-1: the fallbacks that serve this error are tried in their configured order.
    let chosen: Vec<&FallbackRule<D>> = {
        let why = debt.why.acquire();
        let serves = |rule: &&FallbackRule<D>| {
            let why = why.as_ref();
            why.is_some_and(|state| rule.serves(&state.why, write))
        };
        rules.iter().filter(serves).collect()
    };
    for rule in chosen {
        let Some(reply) = &mut debt.reply else {
            return None;
        };
        let now = shared.clock.now();
        // Calls that the fallback makes inherit the caller's deadline.
        let scope = CallScope::from(deadline.map(|end| shared.clock.moment(end)));
        let scope = scope.accepted_by(shared.events.runtime());
        // EDGE-3: another dependency answers within its own limits.
        let attempt = shared.settings().timeout.attempt;
        let own = attempt.filter(|_| !rule.fallback.has_own_limits());
        let fallen = {
            let asked = pin!(begin(rule, request, &debt.why, now));
            let asked = AssertUnwindSafe(DeadlineScope::new(scope, asked));
            tokio::select! {
                biased;
                // The caller is gone.
                () = reply.closed() => return None,
                fallen = asked.catch_unwind() => fallen,
                impatience = patience(shared, (now, own), deadline) => Ok(FallbackOutcome::failed(impatience)),
            }
        };
        match fallen {
            Ok(FallbackOutcome::Answer(value, age)) => {
                rule.served.fetch_add(1, Ordering::Relaxed);
                if let Some(state) = &*debt.why.acquire() {
                    note_outage(shared, &rule.name, &state.why);
                }
                let name = Arc::clone(&rule.name);
                debt.send_reply(FallbackAnswer { value, name, age });
                return Some(rule);
            }
            Ok(FallbackOutcome::Nothing) => debt.note_end(|_| ()),
            Ok(FallbackOutcome::BadAnswer { value, age, why }) => debt.note_end(|state| {
                let name = Arc::clone(&rule.name);
                state.bad = Some(FallbackAnswer { value, name, age });
                state.note_failure(&rule.name, why, Executed::Maybe);
            }),
            Ok(FallbackOutcome::Failed { message, executed }) => {
                debt.note_end(|state| state.note_failure(&rule.name, message, executed));
            }
            Err(payload) => {
                let panic = panic_report(payload);
                tracing::error!(dependency = &*shared.name, fallback = &*rule.name, %panic, "a fallback panicked");
                let message = format!("it panicked: {panic}");
                debt.note_end(|state| state.note_failure(&rule.name, message, Executed::Maybe));
            }
        }
    }
    None
}

/// Resolves, with the reason as text, when a fallback that was asked at `now` has used up its time,
/// or the caller's deadline has passed.
pub(crate) async fn patience(
    shared: &Shared,
    (now, own): (Time, Option<Duration>),
    deadline: Option<Time>,
) -> String {
    let own = own.map(|span| now.after(span));
    match (own, deadline) {
        (own, Some(deadline)) if own.is_none_or(|own| deadline < own) => {
            shared.clock.sleep_until(deadline).await;
            "the call's own time was over before it answered".to_owned()
        }
        (Some(own), _) => {
            shared.clock.sleep_until(own).await;
            "it took too long".to_owned()
        }
        (None, _) => std::future::pending().await,
    }
}

/// Refreshes the answer that `rule` has just given by a call to the dependency itself, if the
/// fallback asks for it. A panic is caught.
async fn refresh<D: Dependency>(
    core: &Arc<DependencyCore<D>>,
    rule: &FallbackRule<D>,
    request: D::Request,
    renewals: &Semaphore,
) {
    let work = AssertUnwindSafe(async {
        let Ok(_place) = renewals.try_acquire() else {
            return;
        };
        if let Some(_turn) = rule.fallback.refresh_guard(&request) {
            call::refresh(core, request).await;
        }
    });
    if let Err(payload) = work.catch_unwind().await {
        let panic = panic_report(payload);
        tracing::error!(dependency = &*core.shared.name, fallback = &*rule.name, %panic, "a fallback panicked");
    }
}

/// Counts a fallback's answer; only the first of an outage emits an event.
pub(crate) fn note_outage(shared: &Shared, fallback: &Arc<str>, why: &impl fmt::Display) {
    let now = shared.clock.now().as_nanos();
    shared.last_fallback.store(now, Ordering::Relaxed);
    let tag = shared.breaker.gate.read().tag();
    shared.last_fallback_tag.store(tag, Ordering::Relaxed);
    if shared.outage.fetch_add(1, Ordering::Relaxed) == 0 {
        let kind = EventKind::FallbackServing {
            fallback: Arc::clone(fallback),
            why: why.to_string(),
        };
        shared.events.emit(&shared.name, kind);
    }
}

/// The poll hook of the fallback actor.
#[derive(Debug)]
pub(crate) struct FallbackPollHook;

impl<D: Dependency> PollHook<FallbackActor<D>> for FallbackPollHook {
    fn poll(
        actor: &mut FallbackActor<D>,
        _: &mut Context<FallbackActor<D>>,
        cx: &mut std::task::Context<'_>,
    ) {
        while let std::task::Poll::Ready(Some(())) = actor.at_work.poll_next_unpin(cx) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependency::CallContext;

    struct AnyDependency;

    impl Dependency for AnyDependency {
        type Request = ();
        type Response = ();
        type Error = String;

        async fn call(&self, (): (), _: &CallContext) -> Result<(), String> {
            Ok(())
        }
    }

    /// A call that its dependency has not executed.
    fn unserved() -> UnservedState<AnyDependency> {
        UnservedState::of(CallError::Failed {
            dependency: "d".into(),
            error: "refused".to_owned(),
            executed: Executed::No,
        })
    }

    fn error(state: UnservedState<AnyDependency>) -> CallError<String> {
        state.into_unserved(&"d".into(), "it did not end in time").0
    }

    #[test]
    fn call_2_the_fallback_that_has_done_most_decides() {
        assert_eq!(error(unserved()).executed(), Executed::No);
        let failed = |all: &[Executed]| {
            let mut state = unserved();
            for executed in all {
                state.note_failure(&"f".into(), "it failed".to_owned(), *executed);
            }
            error(state).executed()
        };
        assert_eq!(failed(&[Executed::No]), Executed::No);
        assert_eq!(failed(&[Executed::Maybe, Executed::No]), Executed::Maybe);
        assert_eq!(failed(&[Executed::Yes, Executed::Maybe]), Executed::Yes);
    }

    /// A call with one fallback, which is at work and never ends.
    fn call_at_work() -> Cause<AnyDependency> {
        let never = |(): (), _: &CallError<String>| std::future::pending::<Result<(), String>>();
        let rule = FallbackRule::new(never).named("f");
        let why = Arc::new(Mutex::new(Some(unserved())));
        let asked = begin(&rule, &(), &why, Time::ZERO).now_or_never();
        assert!(asked.is_none(), "it is at work");
        why
    }

    #[test]
    fn call_2_a_fallback_that_blocks_its_thread_may_have_done_it() {
        let state = call_at_work().acquire().take().unwrap();
        let error = error(state);
        assert_eq!(error.executed(), Executed::Maybe);
        assert!(
            error.to_string().contains("it did not end in time"),
            "{error}"
        );
    }

    #[test]
    fn call_2_a_fallback_that_is_left_before_its_end_may_have_done_it() {
        let (reply, mut answer) = oneshot::channel();
        // As the end of its actor does.
        drop(PendingReply {
            name: "d".into(),
            why: call_at_work(),
            reply: Some(reply),
        });
        let Ok(Err((error, None))) = answer.try_recv() else {
            panic!("the call has an error of its own");
        };
        assert_eq!(error.executed(), Executed::Maybe);
        assert!(
            error.to_string().contains("it was left before its end"),
            "{error}"
        );
    }
}
