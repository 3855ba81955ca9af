//! Signs of life of one connection: what was heard on it, and how often a call heard nothing.
//!
//! A server that answers one call and not another is slow, and the breaker's affair. One that says
//! nothing to several calls in a row hangs, and has to be replaced.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rmcp::model::{JsonRpcMessage, ServerJsonRpcMessage};
use tokio::sync::watch;

/// Where a connection stands.
#[derive(Debug, Default)]
pub(super) struct Signs {
    limit: Option<NonZeroU32>,
    /// Messages so far.
    heard: AtomicU64,
    /// Calls in a row that timed out without one.
    silent: AtomicU32,
    /// What the server did wrong, where that ended the connection.
    violation: Mutex<Option<String>>,
    end: watch::Sender<End>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum End {
    /// Not yet.
    #[default]
    None,
    /// It says nothing any more.
    Hung,
    /// It is closed.
    Closed,
}

impl Signs {
    pub(super) fn new(limit: Option<NonZeroU32>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Notes a message. An error without the id of a call is no answer to anything.
    pub(super) fn heard(&self, message: &ServerJsonRpcMessage) {
        if !matches!(message, JsonRpcMessage::Error(error) if error.id.is_none()) {
            self.heard.fetch_add(1, Ordering::Relaxed);
            self.silent.store(0, Ordering::Relaxed);
        }
    }

    /// How many messages there were when a call begins.
    pub(super) fn so_far(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Notes a call whose time ran out. `since`: what [`Signs::so_far`] said when it began.
    pub(super) fn timed_out(&self, since: u64) {
        if self.so_far() != since {
            return;
        }
        let silent = self.silent.fetch_add(1, Ordering::Relaxed) + 1;
        if self.limit.is_some_and(|limit| silent >= limit.get()) {
            self.end_as(End::Hung);
        }
    }

    /// Ends the connection, and says what the server did wrong if it did.
    pub(super) fn close(&self, violation: Option<String>) {
        if let Some(violation) = violation {
            *self.lock() = Some(violation);
        }
        self.end_as(End::Closed);
    }

    /// The first end counts.
    fn end_as(&self, end: End) {
        self.end.send_if_modified(|now| {
            let first = *now == End::None;
            if first {
                *now = end;
            }
            first
        });
    }

    pub(super) fn end(&self) -> End {
        *self.end.borrow()
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        match end.wait_for(|end| *end != End::None).await {
            Ok(end) => *end,
            // The sender is here.
            Err(_) => std::future::pending().await,
        }
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.lock().clone()
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.map_or(0, NonZeroU32::get)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
