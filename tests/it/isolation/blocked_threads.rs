//! CALL-9 and SUP-7: code of users that blocks its thread, on the real clock. Each runtime has the
//! default settings, in a tokio program without actix.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use breakerbox_actors::{
    CallContext, CallError, Child, Client, Dependency, Runtime, RuntimeSettings,
};
use breakerbox_policy::{BreakerCommand, DependencySettings, Placement, State};

use crate::scripted::ms;

/// Time for which the code of users blocks, unless it is let go.
const LONG: Duration = Duration::from_secs(5);

/// A block that a test can wait for, and end.
#[derive(Clone, Default)]
pub(super) struct Release(Arc<AtomicBool>, Arc<AtomicBool>);

impl Release {
    fn block(&self) {
        self.1.store(true, Ordering::Release);
        let began = tokio::time::Instant::now();
        while !self.0.load(Ordering::Acquire) && began.elapsed() < LONG {
            std::thread::sleep(ms(5));
        }
    }

    /// Waits until a thread is blocked.
    async fn begun(&self) {
        while !self.1.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn end(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The requests to [`Blocking`].
#[derive(Clone, Copy)]
pub(super) enum Wish {
    Answer,
    Fail,
    Block,
}

#[derive(Clone)]
pub(super) struct Blocking(Release);

impl Dependency for Blocking {
    type Request = Wish;
    type Response = u32;
    type Error = String;

    async fn call(&self, wish: Wish, _: &CallContext) -> Result<u32, String> {
        match wish {
            Wish::Answer => Ok(1),
            Wish::Fail => Err("it is down".to_owned()),
            Wish::Block => {
                self.0.block();
                Ok(2)
            }
        }
    }
}

pub(super) fn tokio<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

pub(super) async fn runtime() -> Runtime {
    Runtime::start(RuntimeSettings::default()).await.unwrap()
}

pub(super) async fn start(
    runtime: &Runtime,
    name: &str,
    release: &Release,
    configure: impl FnOnce(&mut DependencySettings),
) -> Client<Blocking> {
    let value = Blocking(release.clone());
    let built = runtime.dependency(name).configure(configure);
    built.workers(move || value.clone()).start().await.unwrap()
}

pub(super) fn within(span: Duration) -> impl FnOnce(&mut DependencySettings) {
    move |settings| {
        settings.timeout.total = Some(span);
        settings.timeout.attempt = Some(span);
    }
}

/// Blocks the thread of the workers by a call of `sick`.
pub(super) async fn block(
    sick: &Client<Blocking>,
    release: &Release,
) -> tokio::task::JoinHandle<()> {
    let caller = sick.clone();
    let blocked = tokio::spawn(async move { drop(caller.ask(Wish::Block).await) });
    release.begun().await;
    blocked
}

#[test]
fn call_9_a_deadline_holds_while_the_worker_blocks_its_thread() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let client = start(&runtime, "d", &release, within(ms(200))).await;
        let began = tokio::time::Instant::now();
        let ended = client.ask(Wish::Block).await;
        let took = began.elapsed();
        release.end();
        assert!(
            matches!(ended, Err(CallError::TimedOut { .. })),
            "{ended:?}"
        );
        assert!(took < ms(1_000), "{took:?}");
        runtime.shutdown().await;
    });
}

#[test]
fn call_9_calls_of_others_keep_their_deadlines_and_their_breakers_decide() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let sick = start(&runtime, "sick", &release, |_| {}).await;
        let well = start(&runtime, "well", &release, |settings| {
            within(ms(100))(settings);
            settings.breaker.failure_threshold = std::num::NonZeroU32::new(2);
            settings.breaker.consecutive_failures = None;
            settings.retry.max_attempts = std::num::NonZeroU32::MIN;
        })
        .await;
        let blocked = block(&sick, &release).await;
        for _ in 0..2 {
            let began = tokio::time::Instant::now();
            well.run(async || Err::<(), _>("it is down"))
                .await
                .unwrap_err();
            well.ask(Wish::Answer).await.unwrap_err();
            assert!(began.elapsed() < ms(1_000), "{:?}", began.elapsed());
        }
        assert_eq!(well.status().state, State::Open);
        well.operate(BreakerCommand::Close {
            reason: "a test".to_owned(),
        })
        .await
        .unwrap();
        assert_eq!(well.status().state, State::Closed);
        release.end();
        blocked.await.unwrap();
        assert_eq!(well.ask(Wish::Answer).await.unwrap().value, 1);
        runtime.shutdown().await;
    });
}

#[test]
fn call_9_a_breaker_leaves_its_open_state_while_another_worker_blocks() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let sick = start(&runtime, "sick", &release, |_| {}).await;
        let well = start(&runtime, "well", &release, |_| {}).await;
        let blocked = block(&sick, &release).await;
        let wait = Some(ms(50));
        let reason = "a test".to_owned();
        let trip = BreakerCommand::Trip { reason, wait };
        well.operate(trip).await.unwrap();
        let began = tokio::time::Instant::now();
        while well.status().state == State::Open {
            assert!(
                began.elapsed() < LONG / 2,
                "its timer waits for the other worker"
            );
            tokio::time::sleep(ms(5)).await;
        }
        release.end();
        blocked.await.unwrap();
        runtime.shutdown().await;
    });
}

#[test]
fn call_9_a_fallback_that_blocks_delays_only_those_of_its_dependency() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let held = release.clone();
        let value = Blocking(release.clone());
        let sick = runtime
            .dependency("sick")
            .workers(move || value.clone())
            .fallback(move |_: Wish, _: &CallError<String>| {
                let held = held.clone();
                async move {
                    held.block();
                    Ok::<u32, String>(7)
                }
            })
            .start()
            .await
            .unwrap();
        let well = start(&runtime, "well", &release, within(ms(300))).await;
        let caller = sick.clone();
        let blocked = tokio::spawn(async move { caller.ask(Wish::Fail).await });
        release.begun().await;
        let began = tokio::time::Instant::now();
        assert_eq!(well.ask(Wish::Answer).await.unwrap().value, 1);
        assert_eq!(sick.ask(Wish::Answer).await.unwrap().value, 1);
        let hasty = breakerbox_actors::CallOptions {
            timeout: Some(ms(100)),
            ..Default::default()
        };
        let failed = sick.ask_with(Wish::Fail, hasty).await.unwrap_err();
        assert!(failed.to_string().contains("it is down"), "{failed}");
        assert!(began.elapsed() < ms(800), "{:?}", began.elapsed());
        release.end();
        assert_eq!(blocked.await.unwrap().unwrap().value, 7);
        runtime.shutdown().await;
    });
}

struct Blocker(Release);

impl actix::Actor for Blocker {
    type Context = actix::Context<Self>;
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Block;

impl actix::Handler<Block> for Blocker {
    type Result = ();

    fn handle(&mut self, _: Block, _: &mut actix::Context<Self>) {
        self.0.block();
    }
}

#[test]
fn call_9_supervisors_restart_others_while_an_actor_blocks() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let value = release.clone();
        let actor = Child::permanent("blocker", move || Blocker(value.clone()));
        let actor = runtime.supervise(actor).await.unwrap();
        let crashes = runtime
            .dependency("crashes")
            .configure(|settings| {
                settings.workers.placement = Placement::Dedicated;
                settings.workers.backoff.base = ms(1);
            })
            .workers(|| Crashing)
            .start()
            .await
            .unwrap();
        let blocked = tokio::spawn(actor.addr().send(Block));
        release.begun().await;
        crashes.ask(true).await.unwrap_err();
        let began = tokio::time::Instant::now();
        while crashes.ask(false).await.is_err() {
            assert!(began.elapsed() < LONG / 2, "it is not restarted");
            tokio::time::sleep(ms(5)).await;
        }
        release.end();
        blocked.await.unwrap().unwrap();
        runtime.shutdown().await;
    });
}

/// A dependency that panics when it is told to.
struct Crashing;

impl Dependency for Crashing {
    type Request = bool;
    type Response = ();
    type Error = String;

    async fn call(&self, panics: bool, _: &CallContext) -> Result<(), String> {
        assert!(!panics, "told to");
        Ok(())
    }
}

#[test]
fn call_9_a_listener_that_blocks_delays_nothing() {
    tokio(async {
        let (runtime, release) = (runtime().await, Release::default());
        let held = release.clone();
        runtime.on_event(move |_| held.block());
        let client = start(&runtime, "d", &release, |_| {}).await;
        let began = tokio::time::Instant::now();
        let reason = "a test".to_owned();
        let trip = BreakerCommand::Trip { reason, wait: None };
        client.operate(trip).await.unwrap();
        client.ask(Wish::Answer).await.unwrap_err();
        assert!(began.elapsed() < ms(500), "{:?}", began.elapsed());
        let began = tokio::time::Instant::now();
        runtime.shutdown().await;
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        release.end();
    });
}

#[test]
fn sup_7_a_shutdown_ends_with_its_drain_whatever_blocks() {
    for placement in [Placement::Shared, Placement::Dedicated] {
        tokio(async {
            let (runtime, release) = (runtime().await, Release::default());
            let sick = start(&runtime, "sick", &release, |settings| {
                settings.workers.placement = placement;
                settings.workers.drain = ms(300);
            })
            .await;
            let other = start(&runtime, "other", &release, |settings| {
                settings.workers.drain = ms(300);
            });
            let other = other.await;
            let blocked = block(&sick, &release).await;
            let began = tokio::time::Instant::now();
            runtime.shutdown().await;
            let took = began.elapsed();
            assert!(took < ms(800), "{placement:?}: {took:?}");
            other.ask(Wish::Answer).await.unwrap_err();
            release.end();
            blocked.await.unwrap();
        });
    }
}
