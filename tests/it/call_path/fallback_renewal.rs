//! FBK-1, the cache that refreshes itself: one call in the background for each stale answer, one at
//! a time for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use breakerbox_actors::testing::{Reaction, Script, TestRuntime, run_paused};
use breakerbox_actors::{
    CallContext, Client, Dependency, Fallback, FallbackFuture, FallbackOutcome, FallbackRule,
    RefreshGuard, StaleCache,
};
use breakerbox_policy::{BreakerCommand, DependencySettings, State, Time};
use futures_util::future::join_all;

use crate::scripted::{Bench, Dep, Do, ms, nonzero, opens_after, pass, refused_connection, start};

const HOUR: u64 = 3_600_000;

/// Behaviour of the dependency.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well = 0,
    Sick = 1,
    /// Answers after a second.
    Slow = 2,
    Hanging = 3,
}

/// Dependency with a mood, and with a cache that refreshes itself.
struct Fresh {
    runtime: TestRuntime,
    client: Client<Dep>,
    script: Script<Do, u32>,
    mood: Arc<AtomicU32>,
}

impl Fresh {
    async fn start(configure: impl FnOnce(&mut DependencySettings)) -> Self {
        let runtime = TestRuntime::start().await;
        let mood = Arc::new(AtomicU32::new(Mood::Well as u32));
        let now = Arc::clone(&mood);
        let script = Script::new(move |_: Do, number| {
            let answer = Reaction::Answer(u32::try_from(number).unwrap());
            match now.load(Ordering::Relaxed) {
                0 => answer,
                1 => Reaction::Fail(refused_connection()),
                2 => answer.after(ms(1_000)),
                _ => Reaction::Hang,
            }
        });
        let cache = StaleCache::<Dep>::new(ms(HOUR), 100).refresh(true);
        let client = start(
            &runtime,
            "fresh",
            &script,
            configure,
            vec![FallbackRule::new(cache)],
        )
        .await;
        Self {
            runtime,
            client,
            script,
            mood,
        }
    }

    fn be(&self, mood: Mood) {
        self.mood.store(mood as u32, Ordering::Relaxed);
    }

    /// Returns the age in seconds of the answer to this request; `None` for the dependency's own.
    async fn age(&self, request: u32) -> Option<u64> {
        let answer = self.client.ask(Do::Answer(request)).await.unwrap();
        answer.age.map(|age| age.as_secs())
    }

    fn state(&self) -> State {
        self.client.status().state
    }
}

/// Opens after one failure, for ten seconds.
fn brittle(settings: &mut DependencySettings) {
    opens_after(1, ms(10_000))(settings);
}

#[test]
fn fbk_1_the_dependency_is_tried_again_by_the_renewal_and_not_by_a_caller() {
    run_paused(async || {
        let fresh = Fresh::start(brittle).await;
        assert_eq!(fresh.age(1).await, None);
        fresh.be(Mood::Sick);
        assert_eq!(
            fresh.age(1).await,
            Some(0),
            "the caller's own call has failed"
        );
        assert_eq!(fresh.state(), State::Open);
        for _ in 0..50 {
            fresh.age(1).await;
        }
        pass(9_000).await;
        assert_eq!(fresh.script.calls(), 2, "an open breaker is not disturbed");
        fresh.be(Mood::Well);
        pass(1_100).await;
        assert_eq!((fresh.state(), fresh.script.calls()), (State::Closed, 3));
        // The refreshed answer is kept, with its own age.
        pass(5_000).await;
        fresh.be(Mood::Sick);
        let stale = fresh.client.ask(Do::Answer(1)).await.unwrap();
        assert_eq!(stale.value, 3);
        assert!(stale.age.unwrap() < ms(6_100), "{:?}", stale.age);
        fresh.runtime.finish().await;
    });
}

#[test]
fn fbk_1_a_probe_of_a_renewal_that_fails_costs_no_caller_anything() {
    run_paused(async || {
        let fresh = Fresh::start(brittle).await;
        fresh.age(1).await;
        fresh.be(Mood::Sick);
        for round in 0..5 {
            fresh.age(1).await;
            assert_eq!(fresh.script.calls(), 2 + round, "no caller was a probe");
            pass(10_050).await;
            assert_eq!(
                (fresh.state(), fresh.script.calls()),
                (State::Open, 3 + round)
            );
        }
        let totals = fresh.client.status().totals;
        assert_eq!(
            (totals.primary, totals.fallback, totals.failed),
            (1, 5, 5),
            "{totals:?}"
        );
        pass(HOUR).await;
        assert_eq!(
            fresh.script.calls(),
            7,
            "one for each stale answer, and no more"
        );
        fresh.runtime.finish().await;
    });
}

#[test]
fn fbk_1_fifty_callers_of_one_request_have_one_renewal_at_a_time() {
    run_paused(async || {
        let unbreakable = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = None;
            settings.bulkhead.max_concurrent = nonzero(100);
            settings.timeout.attempt = Some(ms(60_000));
        };
        let fresh = Fresh::start(unbreakable).await;
        fresh.age(1).await;
        fresh.be(Mood::Slow);
        // Each caller has less time than the dependency takes: each gets the stale answer.
        let options = breakerbox_actors::CallOptions {
            timeout: Some(ms(100)),
            ..Default::default()
        };
        let ask = |_| fresh.client.ask_with(Do::Answer(1), options.clone());
        for answer in join_all((0..50).map(ask)).await {
            assert!(answer.unwrap().age.is_some());
        }
        pass(100).await;
        let status = fresh.client.status();
        assert_eq!(
            (status.in_flight, status.totals.in_flight()),
            (1, 1),
            "one renewal"
        );
        assert_eq!(fresh.script.calls(), 1 + 50 + 1);
        pass(2_000).await;
        let totals = fresh.client.status().totals;
        assert_eq!(
            (totals.submitted, totals.primary, totals.fallback),
            (52, 2, 50)
        );
        // The refresh is over: the next stale answer starts a new one.
        fresh.client.ask_with(Do::Answer(1), options).await.unwrap();
        pass(2_000).await;
        assert_eq!(fresh.client.status().totals.primary, 3);
        fresh.runtime.finish().await;
    });
}

#[test]
fn call_6_renewals_of_many_requests_are_bounded() {
    run_paused(async || {
        let wide = |settings: &mut DependencySettings| {
            settings.breaker.failure_threshold = None;
            settings.bulkhead.max_concurrent = nonzero(1_000);
        };
        let fresh = Fresh::start(wide).await;
        for request in 0..50 {
            fresh.age(request).await;
        }
        fresh.be(Mood::Slow);
        let options = breakerbox_actors::CallOptions {
            timeout: Some(ms(100)),
            ..Default::default()
        };
        let ask = |request| fresh.client.ask_with(Do::Answer(request), options.clone());
        join_all((0..50).map(ask)).await;
        pass(100).await;
        assert_eq!(fresh.client.status().in_flight, 16);
        fresh.runtime.finish().await;
    });
}

#[test]
fn fbk_1_without_refresh_nothing_is_asked_in_the_background() {
    run_paused(async || {
        let rules = vec![FallbackRule::new(StaleCache::<Dep>::new(ms(HOUR), 10))];
        let bench = Bench::with_fallbacks(brittle, rules).await;
        bench.ask(Do::Answer(1)).await.unwrap();
        bench.ask(Do::Fail).await.unwrap_err();
        assert!(bench.ask(Do::Answer(1)).await.unwrap().age.is_some());
        pass(HOUR).await;
        assert_eq!(bench.script.calls(), 2);
        bench.finish().await;
    });
}

#[test]
fn brk_10_a_breaker_that_an_operator_opened_is_left_alone_by_renewals() {
    run_paused(async || {
        let fresh = Fresh::start(brittle).await;
        fresh.age(1).await;
        let command = BreakerCommand::Open {
            reason: "maintenance".to_owned(),
            until: None,
        };
        fresh.client.operate(command).await.unwrap();
        for _ in 0..5 {
            assert!(fresh.age(1).await.is_some());
        }
        pass(HOUR / 2).await;
        assert_eq!(fresh.script.calls(), 1);
        assert_eq!(
            fresh.client.status().totals.submitted,
            6,
            "nothing was even tried"
        );
        fresh.runtime.finish().await;
    });
}

/// Shutdown ends both the refreshes that wait for the breaker and those at the dependency.
#[test]
fn sup_7_a_shutdown_ends_renewals() {
    run_paused(async || {
        let fresh = Fresh::start(brittle).await;
        fresh.age(1).await;
        fresh.be(Mood::Sick);
        fresh.age(1).await;
        assert_eq!(fresh.state(), State::Open);
        fresh.runtime.finish().await;

        let fresh = Fresh::start(brittle).await;
        fresh.age(1).await;
        fresh.be(Mood::Sick);
        fresh.age(1).await;
        fresh.be(Mood::Hanging);
        pass(10_100).await;
        assert_eq!(fresh.client.status().totals.in_flight(), 1);
        let client = fresh.client.clone();
        fresh.runtime.finish().await;
        let totals = client.status().totals;
        assert_eq!((totals.submitted, totals.in_flight()), (3, 0));
    });
}

/// Custom cache that counts its refresh guards; it gives one for a write too.
struct OwnCache {
    asked: Arc<AtomicU64>,
    given_back: Arc<AtomicU64>,
    panics: bool,
}

struct GiveBack(Arc<AtomicU64>);

impl Drop for GiveBack {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<D: Dependency<Response = u32>> Fallback<D> for OwnCache {
    fn name(&self) -> &str {
        "own"
    }

    fn answer(
        &self,
        _: D::Request,
        _: &breakerbox_actors::CallError<D::Error>,
        _: Time,
    ) -> FallbackFuture<u32> {
        Box::pin(std::future::ready(FallbackOutcome::Answer(7, None)))
    }

    fn refresh_guard(&self, _: &D::Request) -> Option<RefreshGuard> {
        assert!(!self.panics, "no turn");
        self.asked.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(GiveBack(Arc::clone(&self.given_back))))
    }
}

#[test]
fn fbk_1_a_cache_of_the_users_own_is_renewed_and_may_panic() {
    run_paused(async || {
        for panics in [false, true] {
            let (asked, given_back) = (Arc::default(), Arc::default());
            let own = OwnCache {
                asked: Arc::clone(&asked),
                given_back: Arc::clone(&given_back),
                panics,
            };
            let unbreakable = |settings: &mut DependencySettings| {
                settings.breaker.failure_threshold = None;
            };
            let rules: Vec<FallbackRule<Dep>> = vec![FallbackRule::new(own)];
            let bench = Bench::with_fallbacks(unbreakable, rules).await;
            for _ in 0..3 {
                assert_eq!(bench.ask(Do::Fail).await.unwrap().value, 7);
                pass(10).await;
            }
            let turns = if panics { 0 } else { 3 };
            assert_eq!(bench.script.calls(), 3 + turns);
            assert_eq!(given_back.load(Ordering::Relaxed), turns);
            assert_eq!(bench.status().totals.failed, turns);
            bench.finish().await;
        }
    });
}

/// Dependency with only writes.
struct Ledger(Arc<AtomicU64>);

impl Dependency for Ledger {
    type Request = u32;
    type Response = u32;
    type Error = &'static str;

    async fn call(&self, _: u32, _: &CallContext) -> Result<u32, &'static str> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err("disk full")
    }

    fn is_write(_: &u32) -> bool {
        true
    }
}

#[test]
fn fbk_2_a_write_is_never_repeated_in_the_background() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let (written, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let disk = Arc::clone(&written);
        let own = OwnCache {
            asked: Arc::clone(&asked),
            given_back: Arc::default(),
            panics: false,
        };
        let ledger = runtime
            .dependency("ledger")
            .workers(move || Ledger(Arc::clone(&disk)))
            .fallback_rule(FallbackRule::new(own).writes())
            .start()
            .await
            .unwrap();
        assert_eq!(ledger.ask(1).await.unwrap().value, 7);
        pass(1_000).await;
        assert_eq!(written.load(Ordering::Relaxed), 1);
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        runtime.finish().await;
    });
}
