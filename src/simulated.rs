//! Simulated dependencies: real HTTP servers on loopback, with a switch for faults.
//!
//! They know nothing of breakers and workers. The demo breaks them; `serve` starts those that the
//! configuration names.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Json, Response};
use axum::serve::ListenerExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What is wrong with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None = 0,
    /// It answers 500.
    Fails = 1,
    /// It takes requests and never answers.
    Hangs = 2,
    /// Every second answer lacks what it should hold.
    Garbles = 3,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::None => "works again",
            Self::Fails => "answers 500 from now on",
            Self::Hangs => "hangs from now on: it takes requests and never answers",
            Self::Garbles => "garbles every second answer from now on: its workers panic",
        })
    }
}

/// The dependencies of config/default.toml: name, and the key under which an answer holds what was
/// found.
pub(crate) const SITES: [(&str, &str); 3] = [
    ("vector_search", "neighbors"),
    ("web_search", "results"),
    ("knowledge_graph", "nodes"),
];

/// One server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// Under which key its answers hold what was found.
    key: String,
    fault: AtomicU8,
    answers: AtomicU64,
}

impl Site {
    /// Listens on a port that the system picks.
    pub(crate) async fn start(name: &str, key: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            key: key.to_owned(),
            fault: AtomicU8::new(Fault::None as u8),
            answers: AtomicU64::new(0),
        });
        let listener = listener.tap_io(|stream| {
            // Without it small answers may wait for more; it is an optimisation only.
            let _ = stream.set_nodelay(true);
        });
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It ends only by being aborted.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            name: name.to_owned(),
            address,
            shared,
            server,
        })
    }

    /// Breaks or heals it.
    pub(crate) fn set(&self, fault: Fault) {
        self.shared.fault.store(fault as u8, Ordering::Release);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(site): State<Arc<Shared>>, uri: Uri) -> Response {
    let number = site.answers.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(2 + number % 7)).await;
    let fault = site.fault.load(Ordering::Acquire);
    if fault == Fault::Fails as u8 {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if fault == Fault::Hangs as u8 {
        std::future::pending::<()>().await;
    }
    if fault == Fault::Garbles as u8 && number.is_multiple_of(2) {
        return Json(json!({ "note": "out of memory" })).into_response();
    }
    let topic = uri.path().trim_start_matches('/');
    let found: Vec<String> = (1..=3).map(|rank| format!("{topic} #{rank}")).collect();
    let mut body = serde_json::Map::new();
    body.insert(site.key.clone(), Value::from(found));
    Json(body).into_response()
}
