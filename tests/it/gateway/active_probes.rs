//! Active probes: a dependency is found sick, and well again, without a caller.

use std::sync::atomic::AtomicU16;

use axum::http::HeaderMap;
use breakerbox::ActiveProbeResult;
use breakerbox_policy::{CommandSource, State};

use super::*;

/// A server whose answers to probes and to calls the test sets.
struct Scripted {
    upstream: Upstream,
    health: Arc<AtomicU16>,
    calls: Arc<AtomicU16>,
    probes: Arc<AtomicUsize>,
    headers: Arc<std::sync::Mutex<HeaderMap>>,
}

impl Scripted {
    async fn new() -> Self {
        let (health, calls) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
        let probes = Arc::new(AtomicUsize::new(0));
        let headers = Arc::new(std::sync::Mutex::new(HeaderMap::new()));
        let own = (
            Arc::clone(&health),
            Arc::clone(&calls),
            Arc::clone(&probes),
            Arc::clone(&headers),
        );
        let upstream = Upstream::of(move |request: Request| {
            let (health, calls, probes, headers) = own.clone();
            async move {
                if request.uri() != "/healthz?deep=1" {
                    return answer(calls.load(Ordering::SeqCst), "an answer");
                }
                *headers.lock().unwrap() = request.headers().clone();
                probes.fetch_add(1, Ordering::SeqCst);
                answer(health.load(Ordering::SeqCst), "healthy or not")
            }
        })
        .await;
        Self {
            upstream,
            health,
            calls,
            probes,
            headers,
        }
    }

    async fn bed(&self, every: &str) -> Bed {
        let text = format!(
            "probe = {{ path = \"/healthz?deep=1\", every = \"{every}\" }}\n\
             headers = {{ authorization = \"Bearer of ours\" }}\n\
             [dependencies.web.breaker]\nfailure_threshold = 3\nrecovery_timeout = \"50ms\"\n"
        );
        Bed::new(&self.upstream.url(), &text).await
    }

    /// Makes calls fail until the breaker is open.
    async fn open(&self, bed: &Bed) {
        self.calls.store(500, Ordering::SeqCst);
        for _ in 0..3 {
            bed.get("/web/x").await;
        }
        bed.until("it opens", |status| status.tally.trips > 0).await;
    }
}

#[tokio::test]
async fn brk_13_an_open_breaker_closes_by_probes_without_a_call() {
    let scripted = Scripted::new().await;
    let bed = scripted.bed("1h").await;
    scripted.health.store(500, Ordering::SeqCst);
    scripted.open(&bed).await;
    let submitted = bed.status().totals.submitted;
    bed.until("probes fail", |status| status.tally.trips >= 3)
        .await;
    let failed = bed.status();
    let probes = failed.active_probes.unwrap();
    let (_, result, text) = probes.last.unwrap();
    assert_eq!(result, ActiveProbeResult::Failed);
    assert_eq!(text, "it answered 500");
    scripted.health.store(204, Ordering::SeqCst);
    bed.until("it closes", |status| status.state == State::Closed)
        .await;
    let status = bed.status();
    // No caller made it, and no book of calls knows it.
    assert_eq!(status.totals.submitted, submitted);
    assert_eq!(status.totals.attempts, submitted);
    assert_eq!(status.totals.refused, 0);
    let headers = scripted.headers.lock().unwrap().clone();
    assert_eq!(headers["authorization"], "Bearer of ours");
    assert!(headers["user-agent"].to_str().unwrap().contains("probe"));
    bed.end().await;
}

#[tokio::test]
async fn brk_13_an_idle_dependency_is_found_sick_before_the_first_call() {
    let scripted = Scripted::new().await;
    let bed = scripted.bed("100ms").await;
    scripted.health.store(503, Ordering::SeqCst);
    bed.until("it opens", |status| status.state != State::Closed)
        .await;
    assert_eq!(bed.status().totals.submitted, 0);
    bed.end().await;
}

#[tokio::test]
async fn brk_13_a_probe_that_asks_wrongly_leaves_the_decision_to_calls() {
    let scripted = Scripted::new().await;
    let bed = scripted.bed("100ms").await;
    scripted.health.store(404, Ordering::SeqCst);
    scripted.open(&bed).await;
    let is_waiting = |status: &DependencyStatus| {
        let probes = status.active_probes.as_ref();
        let last = probes.and_then(|probes| probes.last.as_ref());
        let is_uncounted = last.is_some_and(|last| last.1 == ActiveProbeResult::NotCounted);
        is_uncounted && status.state == State::HalfOpen
    };
    bed.until("its answer counts for nothing", is_waiting).await;
    scripted.calls.store(200, Ordering::SeqCst);
    let call = async {
        // A probe may have the one place at the moment.
        while bed.get("/web/x").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, call).await.unwrap();
    bed.until("a call closes it", |status| status.state == State::Closed)
        .await;
    assert_eq!(bed.status().tally.trips, 1);
    bed.end().await;
}

#[tokio::test]
async fn brk_13_an_operators_order_ends_the_probes() {
    let scripted = Scripted::new().await;
    let bed = scripted.bed("100ms").await;
    bed.until("it is probed", |status| {
        let probes = status.active_probes.as_ref();
        probes.is_some_and(|probes| probes.counted > 0)
    })
    .await;
    let reason = "a test".to_owned();
    let command = breakerbox_policy::BreakerCommand::Open {
        reason,
        until: None,
    };
    bed.runtime.operate("web", command).await.unwrap().unwrap();
    // The one in flight may still arrive.
    let settled = bed.status().active_probes.unwrap().counted + 1;
    // Several intervals of this other dependency have passed then.
    let other = Scripted::new().await;
    let witness = other.bed("100ms").await;
    witness
        .until("the other one is probed", |status| {
            let probes = status.active_probes.as_ref();
            probes.is_some_and(|probes| probes.counted >= 3)
        })
        .await;
    let status = bed.status();
    assert_eq!(status.overridden.unwrap().by, CommandSource::Operator);
    assert!(status.active_probes.unwrap().counted <= settled);
    assert!(scripted.probes.load(Ordering::SeqCst) as u64 <= settled);
    bed.end().await;
    witness.end().await;
}

#[tokio::test]
async fn brk_13_a_reload_changes_and_ends_the_probes() {
    let scripted = Scripted::new().await;
    let bed = scripted.bed("1h").await;
    let url = scripted.upstream.url();
    let put = async |probe: &str| {
        let text = format!("[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n{probe}");
        let settings = Settings::loader().bare().toml(&text).load().unwrap();
        let one = &settings.dependencies["web"];
        bed.gateway.put("web", one, &url, "a test").await.unwrap();
    };
    put("probe = { path = \"/healthz?deep=1\", every = \"100ms\", status = [\"200-204\"] }").await;
    bed.until("the new interval holds", |status| {
        let probes = status.active_probes.as_ref();
        probes.is_some_and(|probes| probes.counted >= 2)
    })
    .await;
    put("").await;
    bed.until("it is probed no more", |status| {
        status.active_probes.is_none()
    })
    .await;
    bed.end().await;
}
