//! Stand-ins for the services behind the clients, on loopback: for tests, examples and the demo.
//!
//! They answer in the documented shapes, and search what was put into them, so that answers differ
//! with the question. Each operation can be broken in every way that the clients must stand, for
//! good or for the next requests only, and every request is kept for whoever wants to see it.
//! They are no part of what a program in production needs.

mod answers;
mod fault;

pub mod memory;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::ListenerExt as _;
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use fault::Fault;

/// What a fake does for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Gives access tokens out.
    Token,
    /// Vertex AI's `:predict`.
    Embed,
    /// Vertex AI's `:findNeighbors`.
    Find,
    /// Google's custom search.
    CustomSearch,
    /// Brave's web search.
    Brave,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; `Null` where it is no JSON, a text where it is a form.
    pub body: Value,
}

/// The services, on one port; they end when this is dropped.
#[derive(Debug)]
pub struct Fakes {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    tokens: AtomicU64,
    /// Tokens up to this one are not taken any more.
    revoked: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    seen: HashMap<Operation, Vec<Seen>>,
    lasting: HashMap<Operation, Fault>,
    next: HashMap<Operation, VecDeque<Fault>>,
    points: Vec<(String, String)>,
    pages: Vec<(String, String)>,
}

/// The search engine's id that custom search knows.
pub const ENGINE: &str = "engine-1";
/// The index that is deployed.
pub const DEPLOYED_INDEX: &str = "deployed_1";

impl Fakes {
    /// Listens on a port that the system picks.
    ///
    /// # Errors  There is none to be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| {
            // Without it small answers may wait for more; it is an optimisation only.
            let _ = stream.set_nodelay(true);
        });
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It ends only by being aborted.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// Where all of them are.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where tokens are given out.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/token", self.base())
    }

    /// A vector search that is complete, and asks the fakes.
    #[must_use]
    pub fn vector_config(&self) -> super::VectorConfig {
        super::VectorConfig {
            project: Some("project-1".to_owned()),
            index_endpoint: Some("7".to_owned()),
            deployed_index: Some(DEPLOYED_INDEX.to_owned()),
            credentials: super::Credentials::Endpoint(self.token_url()),
            base: Some(self.base()),
            ..super::VectorConfig::default()
        }
    }

    /// Puts a point into the index, as if this text had been embedded for it.
    pub fn index(&self, id: impl Into<String>, text: impl Into<String>) {
        self.shared.lock().points.push((id.into(), text.into()));
    }

    /// Puts a page into the web, for both providers: its address, and its words.
    pub fn publish(&self, url: impl Into<String>, text: impl Into<String>) {
        self.shared.lock().pages.push((url.into(), text.into()));
    }

    /// Breaks an operation until it is told otherwise; `None` heals it, for the next requests too.
    pub fn set(&self, operation: Operation, fault: Option<Fault>) {
        let mut inner = self.shared.lock();
        inner.next.remove(&operation);
        match fault {
            Some(fault) => inner.lasting.insert(operation, fault),
            None => inner.lasting.remove(&operation),
        };
    }

    /// Breaks the next request of an operation that is not broken yet.
    pub fn once(&self, operation: Operation, fault: Fault) {
        let mut inner = self.shared.lock();
        inner.next.entry(operation).or_default().push_back(fault);
    }

    /// Takes no token any more that was given out so far.
    pub fn revoke_tokens(&self) {
        let last = self.shared.tokens.load(Ordering::Acquire);
        self.shared.revoked.store(last, Ordering::Release);
    }

    /// The requests for an operation, in order.
    #[must_use]
    pub fn seen(&self, operation: Operation) -> Vec<Seen> {
        self.shared
            .lock()
            .seen
            .get(&operation)
            .cloned()
            .unwrap_or_default()
    }

    /// How many there were.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> usize {
        self.shared.lock().seen.get(&operation).map_or(0, Vec::len)
    }
}

impl Drop for Fakes {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a request, and says what is to go wrong with it.
    fn take(&self, operation: Operation, seen: Seen) -> Option<Fault> {
        let mut inner = self.lock();
        inner.seen.entry(operation).or_default().push(seen);
        let next = inner.next.get_mut(&operation).and_then(VecDeque::pop_front);
        next.or_else(|| inner.lasting.get(&operation).cloned())
    }
}

fn operation(path: &str) -> Option<Operation> {
    if path.ends_with(":predict") {
        return Some(Operation::Embed);
    }
    if path.ends_with(":findNeighbors") {
        return Some(Operation::Find);
    }
    match path {
        "/token" => Some(Operation::Token),
        "/customsearch/v1" => Some(Operation::CustomSearch),
        "/res/v1/web/search" => Some(Operation::Brave),
        _ => None,
    }
}

/// The longest body that is read.
const MAX_BODY: usize = 16_000_000;

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Some(operation) = operation(head.uri.path()) else {
        return answers::nowhere();
    };
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let text = || Value::from(String::from_utf8_lossy(&body).into_owned());
    let is_form = operation == Operation::Token && head.method == Method::POST;
    let seen = Seen {
        method: head.method,
        target: head.uri.to_string(),
        headers: head.headers,
        body: if is_form {
            text()
        } else {
            serde_json::from_slice(&body).unwrap_or_default()
        },
    };
    if let Some(fault) = shared.take(operation, seen.clone()) {
        return fault.answer(&seen).await;
    }
    match operation {
        Operation::Token => answers::token(&shared, &seen),
        Operation::Embed => answers::embed(&shared, &seen),
        Operation::Find => answers::find(&shared, &seen),
        Operation::CustomSearch => answers::custom_search(&shared, &seen),
        Operation::Brave => answers::brave(&shared, &seen),
    }
}
