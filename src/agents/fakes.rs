//! Fakes of the services behind the clients, on loopback: for tests, examples and the demo.
//!
//! They respond in the documented shapes, and search the data put into them, so that responses
//! depend on the query. Each operation can be given every fault that the clients must handle,
//! permanently or for the next requests only. Every request is recorded for inspection. A program
//! in production does not need them.

mod answers;
mod fault;
mod stores;
mod tokens;

pub mod memory;
pub mod models;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::ListenerExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::lock::LockExt as _;

pub use fault::FakeFault;

/// An operation that the fakes serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Issues access tokens, for every kind of credentials.
    Token,
    /// Vertex AI's `:predict` and `:embedContent`.
    Embed,
    /// Vertex AI's `:findNeighbors`.
    Find,
    /// Vertex AI's `:upsertDatapoints` and `:removeDatapoints`.
    Write,
    /// Google's custom search.
    CustomSearch,
    /// Brave's web search.
    Brave,
    /// Tavily's web search.
    Tavily,
    /// SearXNG.
    Searxng,
    /// Embeddings as OpenAI's, below `/v1`.
    OpenAi,
    /// Qdrant.
    Qdrant,
    /// A service of the test's own: see [`Fakes::serve`].
    Own,
}

/// A request that the fakes received.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FakeRequest {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body: JSON, a string for a form, or `Null` for anything else.
    pub body: Value,
}

/// All fake services, on one port; they stop when this is dropped.
#[derive(Debug)]
pub struct Fakes {
    address: SocketAddr,
    shared: Arc<FakeServer>,
    server: JoinHandle<()>,
}

/// Status and JSON body of a response, made by a test's own service.
pub type FakeAnswer = (u16, Value);

type OwnService = Arc<dyn Fn(&FakeRequest) -> FakeAnswer + Send + Sync>;

#[derive(Debug, Default)]
struct FakeServer {
    inner: Mutex<FakeState>,
    tokens: AtomicU64,
    /// Tokens up to this number are rejected.
    revoked: AtomicU64,
}

#[derive(Default)]
struct FakeState {
    seen: HashMap<Operation, Vec<FakeRequest>>,
    lasting: HashMap<Operation, FakeFault>,
    next: HashMap<Operation, VecDeque<FakeFault>>,
    points: Vec<(String, String)>,
    pages: Vec<(String, String)>,
    /// Points of Qdrant: vector and payload, by id.
    stored: BTreeMap<String, (Vec<f64>, Value)>,
    own: Vec<(String, OwnService)>,
}

impl fmt::Debug for FakeState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("FakeState").finish_non_exhaustive()
    }
}

/// The search engine id that custom search accepts.
pub const ENGINE: &str = "engine-1";
/// The id of the deployed index.
pub const DEPLOYED_INDEX: &str = "deployed_1";

/// Serves an app on a port that the system picks, until the task is aborted.
async fn serve(app: Router) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        // Without it, small responses may be delayed; it is an optimisation only.
        let _ = stream.set_nodelay(true);
    });
    let server = tokio::spawn(async move {
        // It runs until it is aborted.
        let _ = axum::serve(listener, app).await;
    });
    Ok((address, server))
}

impl Fakes {
    /// Starts the fakes on a port that the system picks.
    ///
    /// # Errors  No port is available.
    pub async fn start() -> io::Result<Self> {
        let shared = Arc::new(FakeServer::default());
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let (address, server) = serve(app).await?;
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// Returns the base URL of all fakes.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the URL of the token endpoint.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/token", self.base())
    }

    /// Returns a complete configuration of vector search that uses the fakes.
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

    /// Adds a point to the index, with the embedding of this text.
    pub fn index(&self, id: impl Into<String>, text: impl Into<String>) {
        self.shared.lock().points.push((id.into(), text.into()));
    }

    /// Adds a web page, given by URL and text, for all providers.
    pub fn publish(&self, url: impl Into<String>, text: impl Into<String>) {
        self.shared.lock().pages.push((url.into(), text.into()));
    }

    /// Serves the paths that begin so with a function, for tests of a provider of one's own. All
    /// faults and records hold for it as [`Operation::Own`].
    pub fn serve(
        &self,
        path: impl Into<String>,
        answer: impl Fn(&FakeRequest) -> FakeAnswer + Send + Sync + 'static,
    ) {
        let own: OwnService = Arc::new(answer);
        self.shared.lock().own.push((path.into(), own));
    }

    /// Sets a lasting fault of an operation; `None` clears it. Faults for the next requests are
    /// cleared in both cases.
    pub fn set(&self, operation: Operation, fault: Option<FakeFault>) {
        let mut inner = self.shared.lock();
        inner.next.remove(&operation);
        match fault {
            Some(fault) => inner.lasting.insert(operation, fault),
            None => inner.lasting.remove(&operation),
        };
    }

    /// Adds a fault for one request of an operation: the next one that has none yet.
    pub fn once(&self, operation: Operation, fault: FakeFault) {
        let mut inner = self.shared.lock();
        inner.next.entry(operation).or_default().push_back(fault);
    }

    /// Revokes all tokens issued so far.
    pub fn revoke_tokens(&self) {
        let last = self.shared.tokens.load(Ordering::Acquire);
        self.shared.revoked.store(last, Ordering::Release);
    }

    /// Returns the requests for an operation, in order.
    #[must_use]
    pub fn seen(&self, operation: Operation) -> Vec<FakeRequest> {
        self.shared
            .lock()
            .seen
            .get(&operation)
            .cloned()
            .unwrap_or_default()
    }

    /// Returns the number of requests for an operation.
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

impl FakeServer {
    fn lock(&self) -> MutexGuard<'_, FakeState> {
        self.inner.acquire()
    }

    /// Records a request, and returns the fault to inject into its response.
    fn take(&self, operation: Operation, seen: FakeRequest) -> Option<FakeFault> {
        let mut inner = self.lock();
        inner.seen.entry(operation).or_default().push(seen);
        let next = inner.next.get_mut(&operation).and_then(VecDeque::pop_front);
        next.or_else(|| inner.lasting.get(&operation).cloned())
    }
}

fn operation(method: &Method, path: &str) -> Option<Operation> {
    let verb = path.rsplit_once(':').map(|(_, verb)| verb);
    match verb {
        Some("predict" | "embedContent") => return Some(Operation::Embed),
        Some("findNeighbors") => return Some(Operation::Find),
        Some("upsertDatapoints" | "removeDatapoints") => return Some(Operation::Write),
        Some("generateAccessToken") => return Some(Operation::Token),
        _ => {}
    }
    if path.starts_with("/collections/") {
        return Some(Operation::Qdrant);
    }
    match path {
        "/token" => Some(Operation::Token),
        "/customsearch/v1" => Some(Operation::CustomSearch),
        "/res/v1/web/search" => Some(Operation::Brave),
        "/search" if *method == Method::POST => Some(Operation::Tavily),
        "/search" => Some(Operation::Searxng),
        "/v1/embeddings" => Some(Operation::OpenAi),
        _ => None,
    }
}

/// Maximum size of a request body, in bytes.
const MAX_BODY: usize = 16_000_000;

async fn answer(State(shared): State<Arc<FakeServer>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let own = {
        let inner = shared.lock();
        let mut all = inner.own.iter();
        all.find(|(begin, _)| path.starts_with(begin.as_str()))
            .map(|(_, own)| Arc::clone(own))
    };
    let known = operation(&head.method, path);
    let Some(operation) = own.as_ref().map(|_| Operation::Own).or(known) else {
        return answers::nowhere();
    };
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let text = || Value::from(String::from_utf8_lossy(&body).into_owned());
    let form = head.headers.get(CONTENT_TYPE);
    let is_form = form.is_some_and(|media| media == "application/x-www-form-urlencoded");
    let seen = FakeRequest {
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
    if let Some(own) = own {
        let (status, body) = own(&seen);
        return fault::reply(status, body);
    }
    match operation {
        Operation::Token => tokens::token(&shared, &seen),
        Operation::Embed => answers::embed(&shared, &seen),
        Operation::Find => answers::find(&shared, &seen),
        Operation::Write => answers::write(&shared, &seen),
        Operation::CustomSearch => answers::custom_search(&shared, &seen),
        Operation::Brave => answers::brave(&shared, &seen),
        Operation::Tavily => answers::tavily(&shared, &seen),
        Operation::Searxng => answers::searxng(&shared, &seen),
        Operation::OpenAi => stores::openai(&seen),
        Operation::Qdrant => stores::qdrant(&shared, &seen),
        Operation::Own => answers::nowhere(),
    }
}
