//! `reqwest` on loopback: its results as verdicts, and the middleware.

use std::sync::atomic::Ordering;

use breakerbox::CallError;
use breakerbox::integrations::reqwest::{BreakerMiddleware, call_error, verdict};
use breakerbox::policy::{State, Symptom};
use breakerbox::prelude::*;
use reqwest::{Body, Client as HttpClient};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};

use super::{dependency, nowhere, opens_after, serve, statuses};

fn http() -> HttpClient {
    let http = HttpClient::builder().no_proxy();
    http.timeout(Duration::from_millis(300)).build().unwrap()
}

fn guarded(client: &Client<breakerbox::Closures>) -> ClientWithMiddleware {
    let middleware = BreakerMiddleware::new(client.clone());
    ClientBuilder::new(http()).with(middleware).build()
}

#[actix::test]
async fn call_2_errors_of_reqwest_say_what_is_known() {
    let of = async |url: String| {
        let result = http().post(url).send().await;
        let verdict = verdict(result.as_ref());
        (verdict.symptom, verdict.executed)
    };
    let refused = format!("http://{}/", nowhere().await);
    assert_eq!(of(refused).await, (Some(Symptom::Connect), Executed::No));
    let (hangs, _) = serve(|_, _| std::future::pending()).await;
    let late = (Some(Symptom::Timeout), Executed::Maybe);
    assert_eq!(of(format!("http://{hangs}/")).await, late);
    let (fails, _) = statuses(&[503, 429]).await;
    let failed = (Some(Symptom::Status(503)), Executed::Yes);
    assert_eq!(of(format!("http://{fails}/")).await, failed);
    let throttled = http().get(format!("http://{fails}/")).send().await;
    let wait = verdict(throttled.as_ref()).retry_after;
    assert_eq!(wait, Some(Duration::from_secs(7)));
    let verdict = verdict(http().get("no url").send().await.as_ref());
    assert_eq!(
        (verdict.class, verdict.executed),
        (Class::Rejected, Executed::No)
    );
}

#[actix::test]
async fn call_7_the_middleware_repeats_what_can_be_repeated() {
    let (address, count) = statuses(&[500; 30]).await;
    let retries = |settings: &mut DependencySettings| {
        opens_after(100)(settings);
        settings.retry.max_attempts = 3.try_into().unwrap();
    };
    let (runtime, client) = dependency(retries).await;
    let (http, url) = (guarded(&client), format!("http://{address}/"));
    let sent = async |request: reqwest_middleware::RequestBuilder| {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 500, "the last answer is the caller's");
        count.swap(0, Ordering::SeqCst)
    };
    assert_eq!(sent(http.get(&url)).await, 3);
    assert_eq!(sent(http.put(&url).body("a text")).await, 3);
    assert_eq!(sent(http.post(&url).body("a text")).await, 1);
    let again = CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    };
    assert_eq!(sent(http.post(&url).with_extension(again)).await, 3);
    let stream = Body::wrap(http_body_util::Full::new(bytes::Bytes::from("a text")));
    assert_eq!(
        sent(http.put(&url).body(stream)).await,
        1,
        "no copy of a stream"
    );
    runtime.finish().await;
}

#[actix::test]
async fn call_8_the_middleware_refuses_and_tells_why() {
    let (address, count) = statuses(&[500, 404]).await;
    let (runtime, client) = dependency(opens_after(3)).await;
    let http = guarded(&client);
    assert_eq!(
        http.get(format!("http://{address}/"))
            .send()
            .await
            .unwrap()
            .status(),
        500
    );
    assert_eq!(
        http.get(format!("http://{address}/"))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    assert_eq!(client.status().state, State::Closed);
    let refused = nowhere().await;
    for _ in 0..2 {
        let error = http
            .get(format!("http://{refused}/"))
            .send()
            .await
            .unwrap_err();
        assert!(
            error.is_connect() && call_error(&error).is_none(),
            "{error}"
        );
    }
    let error = http
        .get(format!("http://{address}/"))
        .send()
        .await
        .unwrap_err();
    let told = call_error(&error).unwrap();
    assert!(matches!(told, CallError::Open(_)), "{error}");
    assert!(told.retry_after().is_some());
    assert_eq!(count.load(Ordering::SeqCst), 2);
    runtime.finish().await;
}
