//! The adapters to other libraries, each with the real library on loopback.

#[cfg(feature = "reqwest")]
mod reqwest_client;
#[cfg(feature = "tonic")]
mod tonic_channel;
mod tower_layer;
mod whole_body;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use breakerbox::Closures;
use breakerbox::prelude::*;
use breakerbox_actors::testing::TestRuntime;
use tokio::net::TcpListener;

/// Settings that open a breaker after `failures` in a row.
fn opens_after(failures: u32) -> impl FnOnce(&mut DependencySettings) {
    move |settings| {
        settings.breaker.failure_threshold = failures.try_into().ok();
        settings.retry.backoff.base = Duration::from_millis(1);
    }
}

/// A runtime on the real clock, with a dependency for closures.
async fn dependency(
    configure: impl FnOnce(&mut DependencySettings),
) -> (TestRuntime, Client<Closures>) {
    let settings = RuntimeSettings {
        clock: Some(breakerbox::Clock::real()),
        ..RuntimeSettings::default()
    };
    let runtime = TestRuntime::with(settings).await;
    let client = runtime.dependency("api").configure(configure).start().await;
    (runtime, client.unwrap())
}

/// A server on loopback that counts its requests, and answers each as `answer` says.
async fn serve<F>(
    answer: impl Fn(usize, Request<Body>) -> F + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let service = tower::service_fn(move |request| {
        let answered = answer(counted.fetch_add(1, Ordering::SeqCst) + 1, request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback_service(service);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, count)
}

/// A server on loopback whose answers have these statuses, and 200 after that.
async fn statuses(list: &'static [u16]) -> (SocketAddr, Arc<AtomicUsize>) {
    serve(move |number, _| async move {
        let status = list.get(number - 1).copied().unwrap_or(200);
        let response = Response::builder().status(status);
        let response = match status {
            429 => response.header("retry-after", "7"),
            _ => response,
        };
        response.body(Body::from("text")).unwrap()
    })
    .await
}

/// An address on loopback where nothing listens.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
