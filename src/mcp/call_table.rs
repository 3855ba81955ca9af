//! The requests of a connection that wait for their answers.
//!
//! MCP-5: ids and progress tokens are ours towards the server, so that those of different callers
//! cannot collide.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use breakerbox_actors::ProgressHold;
use tokio::sync::oneshot;

use super::audience::{CallListener, CallSide, ServerNotice};
use super::error::McpError;
use super::json_text::{JsonText, MemberEdit, edited, joined};
use super::message::{MessageId, RawReply};
use crate::lock::LockExt as _;

/// Result of a request.
pub(super) type RequestOutcome = Result<RawReply, McpError>;

/// Requests in flight, by our id.
#[derive(Default)]
pub(super) struct CallTable {
    calls: Mutex<HashMap<u64, PendingCall>>,
    last: AtomicU64,
}

/// A request in flight.
struct PendingCall {
    /// Over HTTP the answer comes by the request's own response.
    reply: Option<oneshot::Sender<RequestOutcome>>,
    side: CallSide,
    /// The caller's own token for its progress.
    token: Option<JsonText>,
}

/// The caller to which a message without an address belongs.
pub(super) enum RelatedCaller {
    /// No call is in flight.
    None,
    /// All calls in flight are of one caller; one of its listeners.
    One(Arc<dyn CallListener>),
    /// Calls of several callers are in flight, or of one that cannot be asked.
    Unknown,
}

impl CallTable {
    /// Returns the next id.
    pub(super) fn next_id(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn insert(
        &self,
        id: u64,
        reply: Option<oneshot::Sender<RequestOutcome>>,
        (side, token): (CallSide, Option<JsonText>),
    ) {
        let call = PendingCall { reply, side, token };
        self.calls.acquire().insert(id, call);
    }

    /// Takes the answer of a request over HTTP by another stream than its own.
    pub(super) fn await_elsewhere(&self, id: u64, reply: oneshot::Sender<RequestOutcome>) {
        if let Some(call) = self.calls.acquire().get_mut(&id) {
            call.reply = Some(reply);
        }
    }

    /// Removes a request; false if it was answered.
    pub(super) fn remove(&self, id: u64) -> bool {
        self.calls.acquire().remove(&id).is_some()
    }

    /// Answers a request. Returns false if none of this id waits.
    pub(super) fn answer(&self, id: u64, outcome: RequestOutcome) -> bool {
        let call = self.calls.acquire().remove(&id);
        let Some(PendingCall { reply, .. }) = call else {
            return false;
        };
        if let Some(reply) = reply {
            // The caller may have left in this moment.
            let _ = reply.send(outcome);
        }
        true
    }

    /// Ends all requests without an answer.
    pub(super) fn clear(&self) {
        let calls = std::mem::take(&mut *self.calls.acquire());
        drop(calls);
    }

    /// Notes the progress of a call, and passes it on if its caller has a token for it.
    pub(super) fn progress(&self, notice: &ServerNotice) {
        let Some(head) = &notice.head else {
            return;
        };
        let token = head.progress_token.as_ref();
        let id = token.and_then(|token| MessageId::new(token.as_str())?.number());
        let found = id.and_then(|id: u64| {
            let calls = self.calls.acquire();
            let call = calls.get(&id)?;
            Some((call.side.clone(), call.token.clone()))
        });
        let Some((side, own)) = found else {
            return;
        };
        if let Some(progress) = &side.progress {
            // MCP-4: progress prolongs the attempt, up to the total.
            progress.note();
        }
        if let (Some(listener), Some(own), Some(params)) = (&side.listener, own, &notice.params) {
            let edit = MemberEdit {
                name: "progressToken",
                present: token,
                value: own.into_bytes(),
            };
            listener.heard(ServerNotice {
                method: Arc::clone(&notice.method),
                params: Some(JsonText::checked(joined(&edited(params, vec![edit])))),
                head: None,
            });
        }
    }

    /// Returns the listener of a request in flight.
    pub(super) fn listener(&self, id: u64) -> Option<Arc<dyn CallListener>> {
        self.calls.acquire().get(&id)?.side.listener.clone()
    }

    /// Notes a sign of life of a request in flight.
    pub(super) fn note_progress(&self, id: u64) {
        let calls = self.calls.acquire();
        if let Some(progress) = calls.get(&id).and_then(|call| call.side.progress.as_ref()) {
            progress.note();
        }
    }

    /// Begins holds of the calls that a question concerns: those of its caller, or the one that it
    /// belongs to.
    pub(super) fn hold(&self, of: Option<u64>) -> Vec<ProgressHold> {
        let calls = self.calls.acquire();
        let concerned = calls
            .iter()
            .filter(|(id, _)| of.is_none_or(|of| of == **id));
        concerned
            .filter_map(|(_, call)| Some(call.side.progress.as_ref()?.hold()))
            .collect()
    }

    /// Returns the caller to which a message without an address belongs.
    pub(super) fn related(&self) -> RelatedCaller {
        let calls = self.calls.acquire();
        let mut found: Option<&Arc<dyn CallListener>> = None;
        for call in calls.values() {
            match (&call.side.listener, found) {
                (Some(listener), Some(other)) if listener.caller() == other.caller() => {}
                (Some(listener), None) => found = Some(listener),
                // Our own requests are no calls.
                (None, _) if call.side.progress.is_none() => {}
                _ => return RelatedCaller::Unknown,
            }
        }
        found.map_or(RelatedCaller::None, |found| {
            RelatedCaller::One(Arc::clone(found))
        })
    }
}
