//! A soak test: random faults, reloads every second and 200 callers. At the end every call has one
//! answer, and memory has not grown.
//!
//! `BREAKERBOX_SOAK_SECONDS` sets the duration, 3 by default; the gate runs a minute.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use breakerbox_actors::testing::{Reaction, Script, Scripted, ScriptedError};
use breakerbox_actors::{
    Call, CallContext, CallOptions, Client, Dependency, FallbackRule, Fixed, Runtime,
    RuntimeSettings, Session, StaleCache, Verdict,
};
use breakerbox_policy::{
    AdaptiveSettings, BreakerCommand, ChaosSettings, Class, DependencySettings, HedgeDelay,
    HedgeSettings, Priority, Rate, RateLimitSettings, Symptom, WindowKind,
};

const CALLERS: usize = 200;
const ON_PURPOSE: &str = "soaked";
const NAMES: [&str; 3] = ["vector", "web", "graph"];

/// A dependency with keys, fingerprints, writes and mostly repeatable requests.
struct Flaky(Scripted<u32, u32>);

impl Dependency for Flaky {
    type Request = u32;
    type Response = u32;
    type Error = ScriptedError;

    async fn call(&self, request: u32, call: &CallContext) -> Result<u32, ScriptedError> {
        self.0.call(request, call).await
    }

    fn classify(result: Result<&u32, &ScriptedError>) -> Verdict {
        Scripted::<u32, u32>::classify(result)
    }

    fn is_idempotent(request: &u32) -> bool {
        !request.is_multiple_of(5)
    }

    fn is_write(request: &u32) -> bool {
        request.is_multiple_of(11)
    }

    fn fingerprint(request: &u32) -> Option<u64> {
        Some(u64::from(*request))
    }

    fn key(request: &u32) -> Option<std::borrow::Cow<'_, str>> {
        request
            .is_multiple_of(3)
            .then(|| format!("tenant-{}", request % 300).into())
    }
}

fn chance(share: f64) -> bool {
    fastrand::f64() < share
}

fn ms(most: u64) -> Duration {
    Duration::from_micros(fastrand::u64(0..most.max(1) * 1_000))
}

/// The reaction of the dependency: mostly a success, and rarely each other kind of outcome.
fn reaction(request: u32) -> Reaction<u32> {
    let end = match fastrand::u32(0..1_000) {
        0..880 => Reaction::Answer(request + 1),
        880..920 => Reaction::Fail(ScriptedError::symptom(Symptom::Status(503))),
        920..940 => Reaction::Fail(ScriptedError::new(Class::Rejected, "bad request")),
        940..945 => Reaction::Fail(ScriptedError::throttled().retry_after(ms(5))),
        945..947 => Reaction::Fail(ScriptedError::quota_used_up().retry_after(ms(20))),
        947..957 => Reaction::Hang,
        957..962 => Reaction::Panic(ON_PURPOSE),
        _ => Reaction::Fail(ScriptedError::failure("down")),
    };
    if chance(0.3) { end.after(ms(5)) } else { end }
}

/// Random but valid settings, as a user might write them.
fn settings() -> DependencySettings {
    let mut settings = DependencySettings::default();
    let number = |range: std::ops::Range<u32>| fastrand::u32(range).try_into().expect("not zero");
    settings.breaker.window = match fastrand::u32(0..3) {
        0 => WindowKind::Consecutive,
        1 => WindowKind::Count {
            size: number(5..50),
        },
        _ => WindowKind::Time {
            span: Duration::from_millis(500),
            buckets: number(2..10),
        },
    };
    settings.breaker.failure_threshold = chance(0.7).then(|| number(3..30));
    settings.breaker.failure_rate = Rate::new(0.6).ok();
    settings.breaker.slow_call = chance(0.5).then(|| Duration::from_millis(20));
    settings.breaker.slow_rate = settings.breaker.slow_call.and(Rate::new(0.8).ok());
    settings.breaker.minimum_calls = 10;
    settings.breaker.open.base = Duration::from_millis(10);
    settings.timeout.attempt = Some(Duration::from_millis(30));
    settings.timeout.total = Some(Duration::from_millis(150));
    settings.retry.max_attempts = number(1..4);
    settings.retry.backoff.base = Duration::from_millis(1);
    settings.hedge = chance(0.5).then(|| HedgeSettings {
        delay: HedgeDelay::Quantile {
            quantile: Rate::new(0.9).expect("a share"),
            at_least: Duration::from_millis(2),
        },
        max_hedges: number(1..3),
    });
    settings.rate_limit = chance(0.3).then(|| RateLimitSettings {
        rate: 20_000.0,
        per: Duration::from_secs(1),
        burst: number(50..500),
        max_wait: Duration::from_millis(10),
    });
    settings.throttle.backoff.base = Duration::from_millis(10);
    settings.throttle.max_wait = ms(10);
    settings.bulkhead.max_concurrent = number(4..64);
    settings.bulkhead.max_concurrent_writes = chance(0.5).then(|| number(1..4));
    settings.bulkhead.max_queue = fastrand::u32(0..200);
    settings.bulkhead.max_wait = Duration::from_millis(20);
    settings.bulkhead.adaptive = chance(0.4).then(AdaptiveSettings::default);
    settings.keys.max_entries = number(10..80);
    settings.keys.idle = Duration::from_millis(200);
    settings.workers.count = number(2..3);
    settings.workers.intensity.max = 1_000_000;
    settings.workers.backoff.base = Duration::from_millis(1);
    settings.workers.backoff.max = Duration::from_millis(20);
    settings.workers.reset_after = Duration::from_millis(100);
    settings.workers.drain = Duration::from_millis(300);
    settings.chaos = chance(0.3).then(|| ChaosSettings {
        latency_rate: Rate::new(0.1).expect("a share"),
        latency: ms(10),
        error_rate: Rate::new(0.05).expect("a share"),
        hang_rate: Rate::new(0.01).expect("a share"),
        panic_rate: Rate::ZERO,
        lasts: Some(ms(1_500)),
    });
    settings
}

fn all_settings() -> RuntimeSettings {
    let names = NAMES.iter().chain(["guest"].iter());
    RuntimeSettings {
        dependencies: names.map(|name| ((*name).to_owned(), settings())).collect(),
        extra_threads: 1,
        ..RuntimeSettings::default()
    }
}

async fn start(runtime: &Runtime, name: &str) -> Client<Flaky> {
    let script = Script::new(|request: u32, _| reaction(request));
    let cache = StaleCache::new(Duration::from_secs(1), 100).refresh(true);
    runtime
        .dependency(name)
        .workers(move || Flaky(script.dependency()))
        .fallback_rule(FallbackRule::new(cache))
        .fallback_rule(FallbackRule::new(Fixed(0)).on(breakerbox_actors::ServeOn::Failed))
        .start()
        .await
        .expect("it starts")
}

/// The callers' own counts.
#[derive(Default)]
struct Count {
    made: AtomicU64,
    answered: AtomicU64,
    left: AtomicU64,
}

fn options() -> CallOptions {
    let priorities = [Priority::Low, Priority::Normal, Priority::High];
    CallOptions {
        timeout: chance(0.3).then(|| ms(60)),
        priority: priorities[fastrand::usize(..3)],
        session: chance(0.1).then(|| Session::new(2)),
        ..CallOptions::default()
    }
}

/// One call, by one of the possible ways.
async fn call(client: &Client<Flaky>) {
    let request = fastrand::u32(1..2_000);
    match fastrand::u32(0..4) {
        0 => drop(client.breaker().send(Call::with(request, options())).await),
        1 => {
            let work = || async {
                tokio::task::yield_now().await;
                if chance(0.8) { Ok(()) } else { Err("no") }
            };
            drop(client.run_with(options(), verdict, work).await);
        }
        _ => drop(client.ask_with(request, options()).await),
    }
}

fn verdict(result: &Result<(), &'static str>) -> Verdict {
    let class = match result {
        Ok(()) => Class::Success,
        Err(_) => Class::Failure,
    };
    Verdict::from(class)
}

async fn call_on(clients: Rc<[Client<Flaky>]>, count: Arc<Count>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let client = &clients[fastrand::usize(..clients.len())];
        count.made.fetch_add(1, Ordering::Relaxed);
        if chance(0.05) {
            // A caller that gives up early.
            match tokio::time::timeout(ms(3), call(client)).await {
                Ok(()) => count.answered.fetch_add(1, Ordering::Relaxed),
                Err(_) => count.left.fetch_add(1, Ordering::Relaxed),
            };
        } else {
            call(client).await;
            count.answered.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(ms(2)).await;
    }
}

/// Reloads every second, operates breakers, and adds and removes a guest dependency.
async fn disturb(runtime: Runtime, clients: Rc<[Client<Flaky>]>, stop: Arc<AtomicBool>) -> u64 {
    let mut reloads = 0;
    while !stop.load(Ordering::Relaxed) {
        runtime.reload(all_settings(), "the soak").await;
        reloads += 1;
        let guest = start(&runtime, "guest").await;
        let client = &clients[fastrand::usize(..clients.len())];
        let reason = "a drill".to_owned();
        let until = Some(runtime.clock().now().after(ms(50)));
        let command = match fastrand::u32(0..4) {
            0 => BreakerCommand::Open { reason, until },
            1 => BreakerCommand::Disable { reason, until },
            2 => BreakerCommand::Reset { reason },
            _ => BreakerCommand::Clear,
        };
        client
            .operate(command)
            .await
            .expect("allowed in every state");
        for _ in 0..20 {
            call(&guest).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(runtime.remove("guest", "the soak").await);
        let totals = guest.status().totals;
        assert_eq!(
            totals.submitted,
            totals.ended(),
            "the guest left calls behind"
        );
    }
    reloads
}

/// Resident memory of the process in kB; `None` if the system does not report it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
#[allow(clippy::print_stdout, reason = "the figures are the report")]
fn call_1_every_call_is_answered_once_through_faults_and_reloads_in_flat_memory() {
    let seconds = std::env::var("BREAKERBOX_SOAK_SECONDS");
    let seconds: u64 = seconds.map_or(3, |text| text.parse().expect("a number of seconds"));
    // Panics on purpose are counted by the runtime; thousands of backtraces would hide the rest.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some(ON_PURPOSE) {
            usual(panic);
        }
    }));
    actix::System::new().block_on(soak(seconds));
}

#[allow(clippy::print_stdout, reason = "the figures are the report")]
async fn soak(seconds: u64) {
    let runtime = Runtime::start(all_settings()).await.expect("it starts");
    let mut clients = Vec::new();
    for name in NAMES {
        clients.push(start(&runtime, name).await);
    }
    let clients: Rc<[Client<Flaky>]> = clients.into();
    let (count, stop) = (Arc::new(Count::default()), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (clients, count, stop) =
                (Rc::clone(&clients), Arc::clone(&count), Arc::clone(&stop));
            actix::spawn(call_on(clients, count, stop))
        })
        .collect();
    let disturbing = disturb(runtime.clone(), Rc::clone(&clients), Arc::clone(&stop));
    let disturbing = actix::spawn(disturbing);
    // By then caches, queues, histories and arenas have their usual size.
    tokio::time::sleep(Duration::from_secs(seconds) / 3).await;
    let early = resident();
    tokio::time::sleep(Duration::from_secs(seconds) * 2 / 3).await;
    let late = resident();
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let ended = tokio::time::timeout(Duration::from_secs(30), caller).await;
        ended.expect("every call ends").expect("no caller panics");
    }
    let reloads = disturbing.await.expect("nothing disturbs the disturber");
    runtime.shutdown().await;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (made, heard) = (load(&count.made), load(&count.answered) + load(&count.left));
    println!(
        "{seconds} s, {made} calls, {} left early, {reloads} reloads, {early:?} kB then {late:?} kB",
        load(&count.left)
    );
    assert_eq!(made, heard);
    let (mut submitted, mut faults) = (0, 0);
    for client in &*clients {
        let status = client.status();
        let totals = status.totals;
        println!("{}: {totals:?}", status.name);
        assert_eq!(totals.submitted, totals.ended(), "{}", status.name);
        assert_eq!(
            (status.in_flight, status.queued, status.writes),
            (0, 0, 0),
            "{}",
            status.name
        );
        submitted += totals.submitted;
        faults += totals.trips + totals.restarts;
    }
    assert!(faults > 0, "no fault has hit");
    // A call that its caller gave up at once may never have been submitted; cache refreshes are
    // calls too.
    assert!(
        submitted + load(&count.left) >= made,
        "{submitted} of {made}"
    );
    assert!(reloads >= seconds / 2, "{reloads} reloads");
    if let (Some(early), Some(late)) = (early, late) {
        let most = early + early / 5 + 4 * 1024;
        assert!(late <= most, "memory grows: {early} kB, then {late} kB");
    }
}
