//! The same work in other libraries, with the settings that come closest.

use std::fmt;
use std::hint::black_box;
use std::time::Duration;

use failsafe::futures::CircuitBreaker as _;
use quanta::Instant;
use recloser::{AsyncRecloser, Recloser};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;
use tower_resilience_retry::RetryLayer;

use crate::cases::on_system;

/// An error that implements `std::error::Error`, as these libraries require.
#[derive(Debug, Clone)]
pub(crate) struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("failed")
    }
}

impl std::error::Error for Failed {}

async fn work(request: u64) -> Result<u64, Failed> {
    Ok(black_box(request))
}

async fn fails(_request: u64) -> Result<u64, Failed> {
    Err(Failed)
}

const FOREVER: Duration = Duration::from_secs(3600);

fn recloser() -> AsyncRecloser {
    let breaker = Recloser::custom().error_rate(0.5).closed_len(100);
    AsyncRecloser::from(breaker.open_wait(FOREVER).build())
}

/// Recloser's closed breaker, by a count of outcomes and without a clock.
pub(crate) fn recloser_closed(n: u64) -> Duration {
    on_system(async move {
        let breaker = recloser();
        let start = Instant::now();
        for i in 0..n {
            black_box(breaker.call(work(i)).await).expect("an answer");
        }
        start.elapsed()
    })
}

/// Recloser's refusal.
pub(crate) fn recloser_open(n: u64) -> Duration {
    on_system(async move {
        let breaker = recloser();
        for i in 0..1_000 {
            let _ = breaker.call(fails(i)).await;
        }
        let start = Instant::now();
        for i in 0..n {
            let refused = breaker.call(work(i)).await;
            assert!(black_box(&refused).is_err(), "a refusal");
        }
        start.elapsed()
    })
}

/// Failsafe's closed breaker, by the rate of successes over time.
pub(crate) fn failsafe_closed(n: u64) -> Duration {
    on_system(async move {
        let backoff = failsafe::backoff::constant(FOREVER);
        let window = Duration::from_secs(30);
        let policy =
            failsafe::failure_policy::success_rate_over_time_window(0.5, 10, window, backoff);
        let breaker = failsafe::Config::new().failure_policy(policy).build();
        let start = Instant::now();
        for i in 0..n {
            black_box(breaker.call(work(i)).await).expect("an answer");
        }
        start.elapsed()
    })
}

/// Calls a service `n` times.
async fn ask<S, E: fmt::Debug>(mut service: S, n: u64) -> Duration
where
    S: Service<u64, Response = u64, Error = E>,
{
    let start = Instant::now();
    for i in 0..n {
        let ready = service.ready().await.expect("a service that is ready");
        black_box(ready.call(i).await).expect("an answer");
    }
    start.elapsed()
}

/// The closed breaker for tower's services.
pub(crate) fn tower_breaker(n: u64) -> Duration {
    on_system(async move {
        let breaker = CircuitBreakerLayer::builder()
            .failure_rate_threshold(0.5)
            .sliding_window_size(100);
        let breaker = breaker.build().expect("good settings");
        ask(ServiceBuilder::new().layer(breaker).service_fn(work), n).await
    })
}

/// Tower's layers for the same features: timeout, concurrency, rate, breaker and retries.
pub(crate) fn tower_stack(n: u64) -> Duration {
    on_system(async move {
        let breaker = CircuitBreakerLayer::builder()
            .failure_rate_threshold(0.5)
            .sliding_window_size(100)
            .slow_call_duration_threshold(Duration::from_secs(2))
            .slow_call_rate_threshold(0.8);
        let retry = RetryLayer::<u64, u64, Failed>::builder()
            .max_attempts(3)
            .exponential_backoff(Duration::from_millis(100));
        let service = ServiceBuilder::new()
            .timeout(Duration::from_secs(10))
            .concurrency_limit(4096)
            .rate_limit(u64::from(u32::MAX), Duration::from_secs(1))
            .layer(breaker.build().expect("good settings"))
            .layer(retry.build())
            .service(service_fn(work));
        ask(service, n).await
    })
}
