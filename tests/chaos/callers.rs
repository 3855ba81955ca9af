//! Callers of each kind, and their own books.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::Context;
use serde_json::json;

use crate::sidecar::client;

/// Number of callers of each dependency.
const CALLERS: usize = 8;
/// Number of callers that leave at once.
const LEAVERS: u64 = 50;
/// Longest wait of a caller for its answer: longer than any limit of the sidecar.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// What the callers of one dependency have seen.
#[derive(Debug, Default)]
pub(crate) struct CallBook {
    pub(crate) made: AtomicU64,
    /// Answers with 200, to their ends.
    pub(crate) good: AtomicU64,
    /// Other answers.
    pub(crate) other: AtomicU64,
    /// Answers that broke off.
    pub(crate) cut: AtomicU64,
    /// Calls without any answer.
    pub(crate) lost: AtomicU64,
    /// Calls that their caller gave up.
    pub(crate) left: AtomicU64,
    /// Calls under way.
    active: AtomicU64,
}

/// The counts of a book at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallCounts {
    pub(crate) made: u64,
    pub(crate) good: u64,
    pub(crate) other: u64,
    pub(crate) cut: u64,
    pub(crate) lost: u64,
    pub(crate) left: u64,
}

impl CallBook {
    pub(crate) fn counts(&self) -> CallCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        CallCounts {
            made: load(&self.made),
            good: load(&self.good),
            other: load(&self.other),
            cut: load(&self.cut),
            lost: load(&self.lost),
            left: load(&self.left),
        }
    }
}

impl CallCounts {
    /// Returns the counts since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            made: self.made - earlier.made,
            good: self.good - earlier.good,
            other: self.other - earlier.other,
            cut: self.cut - earlier.cut,
            lost: self.lost - earlier.lost,
            left: self.left - earlier.left,
        }
    }
}

/// A dependency, as its callers see it.
pub(crate) struct Called {
    pub(crate) name: &'static str,
    pub(crate) book: CallBook,
}

/// The dependencies that callers call.
pub(crate) const CALLED: [&str; 3] = ["web", "chat", "tools"];

/// All callers.
pub(crate) struct Callers {
    gateway: String,
    http: reqwest::Client,
    pub(crate) called: [Called; 3],
    is_paused: AtomicBool,
    pub(crate) is_over: AtomicBool,
    /// Messages that the broker has acknowledged, and those that it may have.
    pub(crate) published: AtomicU64,
    pub(crate) unsure: AtomicU64,
}

impl Callers {
    pub(crate) fn start(gateway: String) -> Arc<Self> {
        let called = CALLED.map(|name| Called {
            name,
            book: CallBook::default(),
        });
        let callers = Arc::new(Self {
            gateway,
            http: client(),
            called,
            is_paused: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
            published: AtomicU64::new(0),
            unsure: AtomicU64::new(0),
        });
        for at in 0..CALLED.len() * CALLERS {
            let own = Arc::clone(&callers);
            tokio::spawn(async move { own.keep_calling(at % CALLED.len()).await });
        }
        callers
    }

    async fn keep_calling(&self, at: usize) {
        let called = &self.called[at];
        while !self.is_over.load(Ordering::SeqCst) {
            if self.is_paused.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            let pause = Duration::from_millis(fastrand::u64(5..40));
            called.book.active.fetch_add(1, Ordering::SeqCst);
            // A pause that began just now does not wait for a call that has not begun.
            if !self.is_paused.load(Ordering::SeqCst) {
                let limit = match fastrand::u32(0..20) {
                    0 => Duration::from_millis(fastrand::u64(0..20)),
                    _ => CALL_LIMIT,
                };
                self.call(called, limit).await;
            }
            called.book.active.fetch_sub(1, Ordering::SeqCst);
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes one call, which its caller gives up after `limit`.
    async fn call(&self, called: &Called, limit: Duration) {
        let book = &called.book;
        book.made.fetch_add(1, Ordering::SeqCst);
        let seen = match tokio::time::timeout(limit, self.ask(called.name)).await {
            Ok(Ok(true)) => &book.good,
            Ok(Ok(false)) => &book.other,
            Ok(Err(true)) => &book.cut,
            Ok(Err(false)) => &book.lost,
            Err(_) if limit < CALL_LIMIT => &book.left,
            Err(_) => &book.lost,
        };
        seen.fetch_add(1, Ordering::SeqCst);
    }

    /// Asks a dependency. Returns true for a good answer.
    ///
    /// # Errors  There is no answer; true if it has begun.
    pub(crate) async fn ask(&self, name: &str) -> Result<bool, bool> {
        let gateway = &self.gateway;
        let request = match name {
            "chat" => self
                .http
                .post(format!("{gateway}/chat/v1/chat/completions"))
                .json(&json!({ "model": "m", "stream": true, "messages": [] })),
            "tools" => {
                // Equal calls that were under way at each kill would be put into quarantine.
                let text = format!("a word {}", fastrand::u64(..));
                let params = json!({ "name": "echo", "arguments": { "text": text } });
                let message =
                    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
                let request = self
                    .http
                    .post(format!("{gateway}/tools/mcp"))
                    .json(&message);
                request.header("accept", "application/json, text/event-stream")
            }
            _ => self.http.get(format!("{gateway}/{name}/a/path?q=1")),
        };
        let response = request.send().await.map_err(|_| false)?;
        let is_good = response.status().is_success();
        let body = response.text().await.map_err(|_| true)?;
        let whole = match name {
            "chat" => "[DONE]",
            "tools" => "a word",
            _ => "a good answer",
        };
        Ok(is_good && body.contains(whole))
    }

    pub(crate) fn go_on(&self) {
        self.is_paused.store(false, Ordering::SeqCst);
    }

    /// Pauses all callers, and waits until none of their calls is under way.
    pub(crate) async fn pause(&self) {
        self.is_paused.store(true, Ordering::SeqCst);
        let is_calling = || {
            let mut all = self.called.iter();
            all.any(|called| called.book.active.load(Ordering::SeqCst) > 0)
        };
        let quiet = async {
            while is_calling() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let quiet = tokio::time::timeout(CALL_LIMIT * 2, quiet).await;
        quiet.expect("each call ends");
    }

    /// Publishes messages until all is over.
    pub(crate) async fn publish(self: Arc<Self>, context: Context) {
        let mut number = 0_u64;
        while !self.is_over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(30)).await;
            if self.is_paused.load(Ordering::SeqCst) {
                continue;
            }
            number += 1;
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", number.to_string().as_str());
            let sent = async {
                let subject = "calls.work".to_owned();
                let sent = context.publish_with_headers(subject, headers, "a message".into());
                sent.await.ok()?.await.ok()
            };
            let sent = tokio::time::timeout(Duration::from_secs(2), sent).await;
            let counter = match sent {
                Ok(Some(_)) => &self.published,
                _ => &self.unsure,
            };
            counter.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Connects, sends the half of a request, and leaves, many times at once.
    pub(crate) async fn leave_at_once(&self) {
        use tokio::io::AsyncWriteExt as _;

        let address = self.gateway.strip_prefix("http://").unwrap();
        let book = &self.called[0].book;
        book.made.fetch_add(LEAVERS, Ordering::SeqCst);
        book.left.fetch_add(LEAVERS, Ordering::SeqCst);
        let leaving = (1..=LEAVERS).map(|at| async move {
            let Ok(mut socket) = tokio::net::TcpStream::connect(address).await else {
                return;
            };
            let request = "POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf";
            let length = request.len() / usize::try_from(at % 5 + 1).unwrap();
            let _ = socket.write_all(&request.as_bytes()[..length]).await;
        });
        futures_util::future::join_all(leaving).await;
    }
}
