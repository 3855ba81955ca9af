//! Responses that are judged at the end of their bodies.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{Request, Response};
use breakerbox::integrations::tower::BreakerLayer;
use breakerbox::policy::State;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};

use super::{dependency, opens_after, serve, statuses};

fn hyper() -> HyperClient<HttpConnector, Empty<Bytes>> {
    HyperClient::builder(TokioExecutor::new()).build(HttpConnector::new())
}

fn get(address: SocketAddr) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://{address}/"));
    request.body(Empty::new()).unwrap()
}

#[actix::test]
async fn call_8_a_body_that_breaks_off_is_a_failure_of_its_call() {
    let (address, _) = serve(|_, _| async {
        let pieces = stream::iter([Ok("a begin"), Err(std::io::Error::other("cut"))]);
        Response::new(Body::from_stream(pieces.then(async |piece| {
            // The head and the first piece leave before the connection is cut.
            tokio::task::yield_now().await;
            piece
        })))
    })
    .await;
    let (runtime, client) = dependency(opens_after(2)).await;
    let heads = BreakerLayer::new(client.clone());
    let whole = heads.clone().whole_bodies().layer(hyper());
    let heads = heads.layer(hyper());
    for _ in 0..3 {
        let answer = heads.clone().oneshot(get(address)).await.unwrap();
        answer.into_body().collect().await.unwrap_err();
    }
    assert_eq!(
        client.status().state,
        State::Closed,
        "the head was the outcome"
    );
    for _ in 0..2 {
        let answer = whole.clone().oneshot(get(address)).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(client.status().in_flight, 1, "it holds its place");
        let error = answer.into_body().collect().await.unwrap_err();
        assert!(error.downcast_ref::<hyper::Error>().is_some(), "{error}");
    }
    assert_eq!(client.status().state, State::Open);
    runtime.finish().await;
}

#[actix::test]
async fn call_3_a_body_of_known_length_is_counted_by_its_last_byte() {
    let (address, _) = statuses(&[500]).await;
    let (runtime, client) = dependency(opens_after(5)).await;
    let http = BreakerLayer::new(client.clone())
        .whole_bodies()
        .layer(hyper());
    let answer = http.clone().oneshot(get(address)).await.unwrap();
    assert_eq!(answer.status(), 500, "a bad head is the outcome at once");
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&text[..], b"text");
    let answer = http.oneshot(get(address)).await.unwrap();
    let mut body = answer.into_body();
    // As a server does that knows the length, it asks for no more than that.
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "text");
    drop(body);
    let status = client.status();
    assert_eq!((status.totals.primary, status.totals.cancelled), (1, 0));
    assert_eq!(status.in_flight, 0);
    runtime.finish().await;
}
