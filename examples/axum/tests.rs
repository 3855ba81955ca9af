//! Tests of the service on virtual time: its two APIs are functions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use breakerbox::prelude::*;
use breakerbox::testing::{TestRuntime, run_paused};
use tower::{ServiceExt, service_fn};

use crate::app::{self, Apis, BoxError};

async fn get(router: &axum::Router, path: &str) -> (StatusCode, Option<String>, String) {
    let request = Request::get(path).body(Body::empty());
    let request = request.expect("a good request");
    let answer = router.clone().oneshot(request).await;
    let answer = answer.expect("a router always answers");
    let wait = answer.headers().get("retry-after");
    let wait = wait.and_then(|wait| wait.to_str().ok()).map(str::to_owned);
    let status = answer.status();
    let text = to_bytes(answer.into_body(), 1024).await.expect("a text");
    let text = String::from_utf8_lossy(&text).into_owned();
    (status, wait, text)
}

#[test]
fn an_api_that_hangs_is_given_up_refused_and_found_again() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let attempts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&attempts);
        let maps = service_fn(move |_| {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                if number < 6 {
                    std::future::pending::<()>().await;
                }
                Ok::<_, BoxError>(Response::new(Body::from("a map")))
            }
        });
        let weather = service_fn(async |_| Ok::<_, BoxError>(Response::new(Body::from("rain"))));
        let url = || "http://test".to_owned();
        let weather = app::api(&runtime, "weather", url(), weather).await;
        let maps = app::api(&runtime, "maps", url(), maps).await;
        let apis = Apis {
            weather: weather.expect("it starts"),
            maps: maps.expect("it starts"),
        };
        let router = app::routes(apis);

        let began = tokio::time::Instant::now();
        let (status, _, text) = get(&router, "/trip/Oslo").await;
        assert_eq!((status, &*text), (StatusCode::OK, "rain; none"));
        let spent = began.elapsed();
        assert!(
            spent >= Duration::from_secs(3),
            "three attempts of a second: {spent:?}"
        );

        // Five attempts in a row have timed out by now, and the sixth is refused.
        get(&router, "/map/Oslo").await;
        let (status, wait, _) = get(&router, "/map/Oslo").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(wait.is_some(), "the caller learns when to come back");
        assert_eq!(attempts.load(Ordering::Relaxed), 5);

        tokio::time::sleep(Duration::from_secs(30)).await;
        get(&router, "/map/Oslo").await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        let (status, _, text) = get(&router, "/map/Oslo").await;
        assert_eq!((status, &*text), (StatusCode::OK, "a map"));
        runtime.finish().await;
    });
}
