//! Fakes of model providers on loopback, with every fault: OpenAI's Chat Completions and Responses,
//! Anthropic's Messages, Google's `generateContent`.
//!
//! Each answers with the same few words, whole or as a stream, and with usage. A fault is set
//! permanently or for the next requests only. Every request is recorded, and so is each caller that
//! has left before the end.

mod model_answers;
mod model_errors;
mod model_fault;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use tokio::task::JoinHandle;

use super::{FakeRequest, MAX_BODY, answers};
use crate::lock::LockExt as _;
use crate::model::{Api, ApiShape, ModelRequest};

pub use model_fault::{ModelFault, StreamPart};

/// A fake model provider that speaks all dialects on one port; it stops when this is dropped.
#[derive(Debug)]
pub struct ModelFakes {
    address: SocketAddr,
    shared: Arc<FakeProvider>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct FakeProvider {
    script: Mutex<ProviderScript>,
    seen: Mutex<Vec<FakeRequest>>,
    left: AtomicUsize,
}

/// The plan of the provider for its next requests.
#[derive(Debug, Clone)]
struct ProviderScript {
    lasting: Option<ModelFault>,
    next: VecDeque<ModelFault>,
    words: Vec<String>,
    pace: Duration,
}

impl Default for ProviderScript {
    fn default() -> Self {
        Self {
            lasting: None,
            next: VecDeque::new(),
            words: ["Hello", " from", " a", " fake"]
                .map(str::to_owned)
                .to_vec(),
            pace: Duration::ZERO,
        }
    }
}

impl ModelFakes {
    /// Starts the provider on a port that the system picks.
    ///
    /// # Errors  No port is available.
    pub async fn start() -> io::Result<Self> {
        let shared = Arc::new(FakeProvider::default());
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let (address, server) = super::serve(app).await?;
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// Returns the URL that a client library takes as its `base_url`.
    #[must_use]
    pub fn url(&self, api: Api) -> String {
        let path = match api {
            Api::OpenAi => "/v1",
            Api::Anthropic => "",
            Api::Google => "/v1beta",
        };
        format!("http://{}{path}", self.address)
    }

    /// Sets a lasting fault; `None` clears it. Faults for the next requests are cleared in both
    /// cases.
    pub fn set(&self, fault: Option<ModelFault>) {
        let mut script = self.shared.script.acquire();
        script.next.clear();
        script.lasting = fault;
    }

    /// Adds a fault for one request: the next one that has none yet.
    pub fn once(&self, fault: ModelFault) {
        self.shared.script.acquire().next.push_back(fault);
    }

    /// Sets the pieces of the answers' text.
    pub fn say(&self, words: &[&str]) {
        let words = words.iter().map(|word| (*word).to_owned());
        self.shared.script.acquire().words = words.collect();
    }

    /// Sets the time between two pieces of a stream.
    pub fn pace(&self, pace: Duration) {
        self.shared.script.acquire().pace = pace;
    }

    /// Returns the requests, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<FakeRequest> {
        self.shared.seen.acquire().clone()
    }

    /// Returns the number of requests.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.shared.seen.acquire().len()
    }

    /// Returns the number of callers that left before the end of their answer.
    #[must_use]
    pub fn left(&self) -> usize {
        self.shared.left.load(Ordering::Acquire)
    }
}

impl Drop for ModelFakes {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Returns the shape of the operation at a path.
fn shape_of(target: &str) -> Option<ApiShape> {
    let mut shapes = Api::ALL.into_iter().map(|api| ApiShape::of(api, target));
    shapes.find(|shape| shape.is_generating())
}

async fn answer(State(shared): State<Arc<FakeProvider>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let target = head.uri.to_string();
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let Some(shape) = shape_of(&target) else {
        return answers::nowhere();
    };
    let request = ModelRequest::read(shape.api(), &target, &body);
    shared.seen.acquire().push(FakeRequest {
        method: head.method,
        target,
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    });
    let (fault, script) = {
        let mut script = shared.script.acquire();
        let fault = script.next.pop_front().or_else(|| script.lasting.clone());
        (fault, script.clone())
    };
    let answer = model_answers::ModelAnswer::new(&request, &body, script.words);
    model_fault::respond(&answer, fault, script.pace, &shared.left_counter()).await
}

/// Counts a caller that leaves before the end of its answer.
#[derive(Debug)]
struct LeavingCaller {
    provider: Arc<FakeProvider>,
    is_done: bool,
}

impl FakeProvider {
    fn left_counter(self: &Arc<Self>) -> impl Fn() -> LeavingCaller + use<> {
        let provider = Arc::clone(self);
        move || LeavingCaller {
            provider: Arc::clone(&provider),
            is_done: false,
        }
    }
}

impl LeavingCaller {
    /// Records that the whole answer was sent.
    fn done(&mut self) {
        self.is_done = true;
    }
}

impl Drop for LeavingCaller {
    fn drop(&mut self) {
        if !self.is_done {
            self.provider.left.fetch_add(1, Ordering::AcqRel);
        }
    }
}
