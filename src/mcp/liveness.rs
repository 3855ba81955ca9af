//! Liveness of one connection: the messages received, and the calls that timed out without one.
//!
//! A server that answers one call and not another is slow, and left to the breaker. One that sends
//! nothing during several consecutive calls hangs, and has to be replaced.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rmcp::model::{JsonRpcMessage, ServerJsonRpcMessage};
use tokio::sync::watch;

use crate::lock::LockExt as _;

/// Liveness of a connection.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    limit: Option<NonZeroU32>,
    /// Number of messages received.
    heard: AtomicU64,
    /// Number of consecutive calls that timed out without a message.
    silent: AtomicU32,
    /// The protocol violation that ended the connection, if any.
    violation: Mutex<Option<String>>,
    end: watch::Sender<ConnectionEnd>,
    /// The reason for the end of the incarnation, once declared.
    over: watch::Sender<Option<String>>,
}

/// End of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ConnectionEnd {
    /// It has not ended.
    #[default]
    None,
    /// The server hangs.
    Hung,
    /// It is closed.
    Closed,
}

impl Liveness {
    pub(super) fn new(limit: Option<NonZeroU32>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Counts a message, except an error without a call id: it answers no call.
    pub(super) fn heard(&self, message: &ServerJsonRpcMessage) {
        if !matches!(message, JsonRpcMessage::Error(error) if error.id.is_none()) {
            self.heard.fetch_add(1, Ordering::Relaxed);
            self.silent.store(0, Ordering::Relaxed);
        }
    }

    /// Returns the number of messages received, for a call to remember at its start.
    pub(super) fn so_far(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Counts a call that timed out. `since`: the result of [`Liveness::so_far`] at its start.
    pub(super) fn timed_out(&self, since: u64) {
        if self.so_far() != since {
            return;
        }
        let silent = self.silent.fetch_add(1, Ordering::Relaxed) + 1;
        if self.limit.is_some_and(|limit| silent >= limit.get()) {
            self.end_as(ConnectionEnd::Hung);
        }
    }

    /// Ends the connection, and stores the protocol violation, if any.
    pub(super) fn close(&self, violation: Option<String>) {
        if let Some(violation) = violation {
            *self.violation.acquire() = Some(violation);
        }
        self.end_as(ConnectionEnd::Closed);
    }

    /// Sets the end, unless one is set already.
    fn end_as(&self, end: ConnectionEnd) {
        self.end.send_if_modified(|now| {
            let first = *now == ConnectionEnd::None;
            if first {
                *now = end;
            }
            first
        });
    }

    pub(super) fn end(&self) -> ConnectionEnd {
        *self.end.borrow()
    }

    /// Waits for the end of the connection.
    pub(super) async fn ended(&self) -> ConnectionEnd {
        let mut end = self.end.subscribe();
        match end.wait_for(|end| *end != ConnectionEnd::None).await {
            Ok(end) => *end,
            // Unreachable: `self` owns the sender.
            Err(_) => std::future::pending().await,
        }
    }

    /// Declares the incarnation over, and wakes its callers in the same turn.
    pub(super) fn declare_over(&self, why: &str) {
        self.over.send_replace(Some(why.to_owned()));
    }

    /// Waits until the incarnation is declared over, and returns the reason. A caller that learned
    /// of it earlier would call again at once, and find no server.
    pub(super) async fn over(&self) -> Option<String> {
        let mut over = self.over.subscribe();
        let over = over.wait_for(Option::is_some).await;
        over.ok().and_then(|over| over.clone())
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.violation.acquire().clone()
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.map_or(0, NonZeroU32::get)
    }
}
