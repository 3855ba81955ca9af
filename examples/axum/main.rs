//! A service on axum and multi-thread tokio that calls two APIs, each behind a breaker, with a time
//! limit and retries; with the dashboard mounted, and a graceful shutdown.
//!
//! `cargo run --example axum --features tower`, and its tests on virtual time:
//! `cargo test --example axum --features tower,testing`

#![allow(clippy::print_stdout, reason = "an example prints its results")]

mod app;

#[cfg(all(test, feature = "testing"))]
mod tests;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, serve};
use breakerbox::admin::{Admin, Phase};
use breakerbox::policy::State;
use breakerbox::prelude::*;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let down = Arc::new(AtomicBool::new(false));
    let weather = start_api("weather", Arc::default()).await?;
    let maps = start_api("maps", Arc::clone(&down)).await?;

    let settings = Settings::default();
    let runtime = Runtime::start(settings.clone()).await?;
    let http = || HttpClient::builder(TokioExecutor::new()).build(HttpConnector::new());
    let apis = app::Apis {
        weather: app::api(&runtime, "weather", weather, http()).await?,
        maps: app::api(&runtime, "maps", maps, http()).await?,
    };
    let admin = Admin::new(runtime.clone(), &settings);
    // `nest` or `nest_service`: the dashboard is at /breakers either way.
    let router = app::routes(apis).nest("/breakers", admin.router());

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel();
    let closing = admin.clone();
    let server = serve(listener, router).with_graceful_shutdown(async move {
        // A service of yours waits for `tokio::signal::ctrl_c()`, or for SIGTERM.
        let _ = stopped.await;
        closing.set_phase(Phase::ShuttingDown);
    });
    let server = tokio::spawn(server.into_future());
    admin.set_phase(Phase::Ready);

    let visitor = reqwest::Client::new();
    let ask = async |path: &str| {
        let answer = visitor.get(format!("{url}{path}")).send().await?;
        let status = answer.status();
        Ok::<_, reqwest::Error>((status.as_u16(), answer.text().await?))
    };
    println!("both work:      {:?}", ask("/trip/Oslo").await?);
    down.store(true, Ordering::Release);
    println!("maps are down:  {:?}", ask("/trip/Oslo").await?);
    while runtime
        .status("maps")
        .is_none_or(|maps| maps.state != State::Open)
    {
        ask("/trip/Oslo").await?;
    }
    let (status, text) = ask("/map/Oslo").await?;
    println!("breaker open:   ({status}, {text:?})");
    assert_eq!(status, 503);
    let (status, page) = ask("/breakers").await?;
    println!("the dashboard:  ({status}, {} bytes)", page.len());
    assert!(status == 200 && page.contains("<title>"));

    // First no more requests, then no more calls.
    let _ = stop.send(());
    server.await??;
    runtime.shutdown().await;
    Ok(())
}

/// Starts an API on loopback. While it is down, it answers 500.
async fn start_api(name: &'static str, down: Arc<AtomicBool>) -> std::io::Result<String> {
    let answer = move |Path(place): Path<String>| async move {
        if down.load(Ordering::Acquire) {
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        }
        Ok(format!("{name} of {place}"))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let routes = Router::new().route("/{place}", get(answer));
    tokio::spawn(serve(listener, routes).into_future());
    Ok(url)
}
