//! The layer on clients of hyper, on routes of axum, and on services that are not ready.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::http::{Method, Request, Response, StatusCode};
use axum::routing::get;
use breakerbox::CallError;
use breakerbox::integrations::tower::{BreakerLayer, ResultRules, call_error_response};
use breakerbox::policy::State;
use breakerbox::prelude::*;
use breakerbox_actors::testing::{TestRuntime, run_paused};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};

use super::{dependency, nowhere, opens_after, statuses};

fn hyper() -> HyperClient<HttpConnector, Empty<Bytes>> {
    HyperClient::builder(TokioExecutor::new()).build(HttpConnector::new())
}

fn request(address: std::net::SocketAddr, method: Method) -> Request<Empty<Bytes>> {
    let request = Request::builder().method(method);
    request
        .uri(format!("http://{address}/"))
        .body(Empty::new())
        .unwrap()
}

#[actix::test]
async fn call_8_statuses_of_hyper_are_outcomes_and_answers() {
    let (address, count) = statuses(&[404, 500, 429, 503, 503]).await;
    let (runtime, client) = dependency(opens_after(2)).await;
    let http = BreakerLayer::new(client.clone()).layer(hyper());
    let ask = async || http.clone().oneshot(request(address, Method::GET)).await;
    for status in [404, 500] {
        assert_eq!(
            ask().await.unwrap().status(),
            status,
            "an answer as it came"
        );
    }
    let totals = client.status().totals;
    // A rejected request is answered.
    assert_eq!((totals.primary, totals.failed), (1, 1));
    assert_eq!(ask().await.unwrap().status(), 429);
    let paused = ask().await.unwrap_err();
    assert!(matches!(paused, CallError::RateLimited { .. }), "{paused}");
    let wait = paused.retry_after().unwrap();
    assert!(
        wait > Duration::from_secs(6),
        "the wait of its header: {wait:?}"
    );
    let response = call_error_response(&paused);
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let told: u64 = response.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(told, wait.as_millis().div_ceil(1000) as u64, "never sooner");
    assert_eq!(count.load(Ordering::SeqCst), 3);
    runtime.finish().await;
}

#[actix::test]
async fn call_7_a_request_is_repeated_only_if_it_can_be_copied() {
    let (address, count) = statuses(&[500; 30]).await;
    let retries = |settings: &mut DependencySettings| {
        opens_after(100)(settings);
        settings.retry.max_attempts = 3.try_into().unwrap();
    };
    let (runtime, client) = dependency(retries).await;
    let once = BreakerLayer::new(client.clone());
    let copied = once
        .clone()
        .repeat(|request: &Request<Empty<Bytes>>| Some(request.clone()));
    let sent = async |answered: Result<Response<_>, CallError<_>>| {
        assert_eq!(
            answered.unwrap().status(),
            500,
            "the last answer is the caller's"
        );
        count.swap(0, Ordering::SeqCst)
    };
    let answered = once
        .layer(hyper())
        .oneshot(request(address, Method::GET))
        .await;
    assert_eq!(sent(answered).await, 1, "it was not told how to copy");
    let answered = copied
        .layer(hyper())
        .oneshot(request(address, Method::GET))
        .await;
    assert_eq!(sent(answered).await, 3);
    let answered = copied
        .layer(hyper())
        .oneshot(request(address, Method::POST))
        .await;
    assert_eq!(sent(answered).await, 1, "POST is not idempotent");
    let never = once.repeat(|_: &Request<Empty<Bytes>>| None);
    let answered = never
        .layer(hyper())
        .oneshot(request(address, Method::GET))
        .await;
    assert_eq!(sent(answered).await, 1, "the rule may refuse");
    runtime.finish().await;
}

#[actix::test]
async fn call_2_without_a_connection_nothing_was_executed() {
    let (runtime, client) = dependency(opens_after(1)).await;
    let http = BreakerLayer::new(client.clone()).layer(hyper());
    let address = nowhere().await;
    let error = http
        .clone()
        .oneshot(request(address, Method::POST))
        .await
        .unwrap_err();
    assert_eq!(error.executed(), Executed::No, "{error}");
    assert!(error.into_failed().unwrap().is_connect());
    let error = http
        .oneshot(request(address, Method::POST))
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Open(_)), "{error}");
    assert_eq!(call_error_response(&error).status(), 503);
    runtime.finish().await;
}

/// A service that is never ready, or fails to get ready.
#[derive(Clone)]
struct Unready(Option<&'static str>);

impl Service<()> for Unready {
    type Response = ();
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {
            Some(reason) => Poll::Ready(Err(io::Error::other(reason))),
            None => Poll::Pending,
        }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        panic!("it was called, and is not ready");
    }
}

#[test]
fn call_2_a_service_that_does_not_get_ready_fails_under_the_limits() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = runtime.dependency("api").configure(opens_after(2)).start();
        let client = client.await.unwrap();
        let layer = BreakerLayer::with_rules(client.clone(), ResultRules);
        let mut broken = layer.layer(Unready(Some("no connection")));
        let mut hanging = layer.layer(Unready(None));
        for service in [&mut broken, &mut hanging] {
            let ready = std::future::poll_fn(|cx| service.poll_ready(cx)).await;
            ready.expect("the wait is a part of the attempt");
        }
        let error = broken.call(()).await.unwrap_err();
        assert_eq!(error.executed(), Executed::No, "{error}");
        let error = hanging.call(()).await.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!(error.executed(), Executed::No, "{error}");
        assert_eq!(client.status().state, State::Open, "both have counted");
        let error = hanging.call(()).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "at once: {error}");
        runtime.finish().await;
    });
}

#[test]
fn call_8_a_function_classifies_and_another_sets_options() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = runtime.dependency("api").configure(opens_after(1)).start();
        let client = client.await.unwrap();
        let layer = BreakerLayer::with_rules(client.clone(), ResultRules)
            .classify(|result: Result<&u32, &Infallible>| match result {
                Ok(13) => Verdict::from(Class::Failure),
                _ => Verdict::from(Class::Success),
            })
            .options(|tenant: &u32| CallOptions {
                key: Some(format!("tenant {}", tenant % 10).into()),
                ..CallOptions::default()
            });
        let service = layer.layer(service_fn(async |number: u32| Ok(number)));
        let ask = async |number: u32| service.clone().oneshot(number).await;
        assert_eq!(ask(13).await.unwrap(), 13, "still an answer");
        assert!(client.has_key("tenant 3"));
        let error = ask(23).await.unwrap_err();
        assert!(matches!(error, CallError::Open(_)), "{error}");
        assert_eq!(ask(14).await.unwrap(), 14, "another key");
        runtime.finish().await;
    });
}

#[actix::test]
async fn call_8_routes_of_axum_answer_for_a_breaker() {
    let (runtime, client) = dependency(opens_after(2)).await;
    let refused =
        HandleErrorLayer::new(async |error: CallError<Infallible>| call_error_response(&error));
    let layers = ServiceBuilder::new()
        .layer(refused)
        .layer(BreakerLayer::new(client));
    let fails = get(async || StatusCode::INTERNAL_SERVER_ERROR);
    let router = axum::Router::new().route("/", fails).layer(layers);
    let ask = async || {
        let request = Request::get("/").body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    assert_eq!(ask().await.status(), 500);
    assert_eq!(ask().await.status(), 500);
    let refused = ask().await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "30");
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(
        &text[..],
        b"api is not available at present; nothing was done\n"
    );
    runtime.finish().await;
}
