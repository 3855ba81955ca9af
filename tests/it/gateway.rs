//! The gateway through real sockets: an upstream of the test, the gateway on loopback, and a
//! caller.

mod access_log;
mod active_probes;
mod attacked;
mod blame;
mod bounded;
mod budget;
mod callers;
mod closed;
mod error_answers;
mod fallbacks;
#[cfg(target_os = "linux")]
pub(crate) mod first_address;
mod first_minute;
#[cfg(target_os = "linux")]
mod flood;
mod grpc;
mod h2c;
mod headers;
mod hints;
mod http2;
mod kept;
mod kept_meanwhile;
mod models;
#[cfg(unix)]
mod notify;
mod odd_answers;
mod odd_requests;
#[cfg(unix)]
mod orders;
#[cfg(feature = "otel")]
mod otel;
mod outbound_proxy;
#[cfg(unix)]
mod outlives;
mod own_tls;
mod pages;
mod passed_whole;
mod problems;
mod readme;
mod ready;
mod reloads;
mod retries;
pub(crate) mod serve;
#[cfg(unix)]
mod shared_connection;
mod shutdown_delay;
mod stand_in_streams;
mod streams;
mod substitutes;
mod times;
mod tls;
mod told;
mod trust;
mod undisturbed;
#[cfg(unix)]
mod unix_sockets;
mod upgrades;
mod upstream_tls;
mod whole;
mod wire;
mod wire_h2;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use breakerbox::gateway::Gateway;
use breakerbox::{DependencyStatus, Runtime, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Time limit for a step; far longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of the test; it ends with the test.
struct Upstream {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Upstream {
    /// A server that answers every request with a function.
    async fn of<F, W, R>(answer: F) -> Self
    where
        F: Fn(Request) -> W + Clone + Send + Sync + 'static,
        W: Future<Output = R> + Send + 'static,
        R: IntoResponse,
    {
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&hits);
        let app = Router::new().fallback(move |request: Request| {
            counted.fetch_add(1, Ordering::SeqCst);
            answer(request)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            hits,
            server,
        }
    }

    /// A server at byte level: a function handles each connection.
    async fn raw<F, W>(talk: F) -> Self
    where
        F: Fn(TcpStream, usize) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&hits);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(talk(stream, number));
            }
        });
        Self {
            address,
            hits,
            server,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A gateway with its runtime.
struct Bed {
    runtime: Runtime,
    gateway: Gateway,
    http: reqwest::Client,
}

impl Bed {
    /// One dependency, `web`, at an address; `text` holds more lines of its table.
    async fn new(url: &str, text: &str) -> Self {
        let text = format!("[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n{text}");
        Self::of(&text).await
    }

    /// A gateway with a whole configuration.
    async fn of(text: &str) -> Self {
        let own = "[gateway]\nbind = \"127.0.0.1:0\"\nthreads = 2\nhosts = [\"a\"]\n";
        let loader = Settings::loader().bare().toml(own).toml(text);
        let settings = loader.load().unwrap_or_else(|error| panic!("{error}"));
        let runtime = Runtime::start(settings.clone()).await.unwrap();
        let gateway = Gateway::start(&settings.gateway, &runtime).unwrap();
        for (name, one) in &settings.dependencies {
            let url = one.url.as_deref().unwrap_or_default();
            gateway.put(name, one, url, "test").await.unwrap();
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .retry(reqwest::retry::never())
            .build();
        let http = http.unwrap();
        Self {
            runtime,
            gateway,
            http,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address())
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        let request = self.http.post(self.url(path)).body(body);
        request.send().await.unwrap()
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.gateway.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn status(&self) -> DependencyStatus {
        self.runtime.status("web").unwrap()
    }

    /// Waits until the status meets a condition.
    async fn until(&self, what: &str, is_so: impl Fn(&DependencyStatus) -> bool) {
        let look = async {
            while !is_so(&self.status()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, look).await;
        assert!(seen.is_ok(), "{what}: {:#?}", self.status());
    }

    async fn end(self) {
        self.gateway.shutdown().await;
        self.runtime.shutdown().await;
    }
}

fn header<'r>(response: &'r reqwest::Response, name: &str) -> &'r str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// A problem document, after checking the fields common to all.
async fn problem(response: reqwest::Response, status: u16, code: &str) -> serde_json::Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(
        header(&response, "content-type"),
        "application/problem+json"
    );
    assert_eq!(header(&response, "breakerbox-source"), "gateway");
    let wait = header(&response, "retry-after").parse::<u64>().ok();
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!(
        problem["type"],
        format!("urn:breakerbox:{code}"),
        "{problem}"
    );
    assert_eq!(problem["status"], status);
    for text in ["title", "detail", "executed"] {
        assert!(problem[text].is_string(), "{text}: {problem}");
    }
    let millis = problem["retry_after_ms"].as_u64();
    assert_eq!(
        wait,
        millis.map(|millis| millis.div_ceil(1000)),
        "{problem}"
    );
    problem
}

/// Reads from a socket until a text arrives; returns everything read.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&all).contains(text) {
            let read = stream.read(&mut buffer).await.unwrap();
            let so_far = String::from_utf8_lossy(&all);
            assert!(read > 0, "it ended before {text:?}: {so_far:?}");
            all.extend_from_slice(&buffer[..read]);
        }
    };
    let came = tokio::time::timeout(PATIENCE, reading).await;
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(came.is_ok(), "{text:?} did not come: {all:?}");
    all
}

/// Reads to the end; a reset counts as the end.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "it did not end");
    String::from_utf8_lossy(&all).into_owned()
}

/// A body that the test sends piece by piece.
fn fed() -> (tokio::sync::mpsc::Sender<&'static str>, Body) {
    let (feed, fed) = tokio::sync::mpsc::channel(1);
    let pieces = futures_util::stream::unfold(fed, |mut fed| async {
        let piece: &'static str = fed.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), fed))
    });
    (feed, Body::from_stream(pieces))
}

fn answer(status: u16, body: &'static str) -> Response {
    let mut response = body.into_response();
    *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap();
    response
}
