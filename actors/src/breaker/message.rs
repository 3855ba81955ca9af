//! The call as a message, and the reports of its callers' threads to the breaker.
//!
//! Work reaches a worker through its [queue](crate::worker::queue), not through a mailbox.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use breakerbox_policy::{BreakerCommand, Outcome, Permit};

use crate::answer::Answer;
use crate::breaker::shared::SharedBreaker;
use crate::call_options::CallOptions;
use crate::deadline::CallScope;
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::event::EventKind;

// client → breaker

/// Makes a call: any actor may send it to a dependency's breaker.
///
/// Created while a dependency's or a fallback's work is polled, it inherits the deadline of that
/// work, even if it is sent from elsewhere later.
pub struct Call<D: Dependency> {
    pub(crate) request: D::Request,
    /// The call's own options; few calls have any.
    pub(crate) options: Option<Box<CallOptions>>,
    /// The conditions of the surrounding work, which are unknown on the breaker's own thread.
    pub(crate) around: CallScope,
}

impl<D: Dependency> Call<D> {
    /// Creates a call with the dependency's own settings.
    pub fn new(request: D::Request) -> Self {
        Self {
            request,
            options: None,
            around: CallScope::present(),
        }
    }

    /// Creates a call with settings of its own.
    pub fn with(request: D::Request, options: CallOptions) -> Self {
        Self {
            options: Some(Box::new(options)),
            ..Self::new(request)
        }
    }
}

/// The future of a call's answer.
pub(crate) type AnswerFuture<D> = Pin<Box<dyn Future<Output = CallAnswer<D>>>>;
/// A call's answer, or the way in which it ended without one.
pub(crate) type CallAnswer<D> =
    Result<Answer<<D as Dependency>::Response>, CallError<<D as Dependency>::Error>>;

/// Makes a [`Call`] with all layers around it. The breaker actor hands its calls to it, so that it
/// need not know workers and fallbacks.
pub(crate) trait CallMaker<D: Dependency>: Send + Sync {
    /// Makes the call in the task that polls the future.
    fn make(self: Arc<Self>, call: Call<D>) -> AnswerFuture<D>;

    /// Returns the maximum time that the fallbacks may take after `timeout.total`; `None` if they
    /// have no limit.
    fn fallback_time(&self) -> Option<Duration>;
}

impl<D: Dependency> Message for Call<D> {
    type Result = CallAnswer<D>;
}

// worker, client → breaker

/// The end of an attempt. `then` runs once the attempt is counted, so that no answer is lost
/// (rules CALL-1 and CALL-3).
pub(crate) struct Report {
    pub(crate) key: Option<Arc<SharedBreaker>>,
    pub(crate) permit: Option<Permit>,
    pub(crate) outcome: Outcome,
    /// The generation of the dependency's own breaker for which the outcome of a key counts too, as
    /// [`tag_of`](super::gate::tag_of) returns it; `None` if it counts for the key alone.
    pub(crate) counts_for_all: Option<u64>,
    /// The hint as the dependency gave it; that of the outcome may be cut off.
    pub(crate) asked: Option<Duration>,
    pub(crate) then: Option<Box<dyn FnOnce() + Send>>,
}

impl Drop for Report {
    fn drop(&mut self) {
        // CALL-3: the answer of a queued call follows its outcome, here.
        if let Some(then) = self.then.take() {
            then();
        }
    }
}

// operator, supervisor → breaker

/// An operator's or the supervisor's command.
pub(crate) struct OperateBreaker {
    pub(crate) key: Option<Arc<SharedBreaker>>,
    pub(crate) command: BreakerCommand,
    /// The event of its author, if it is to be told once the command is carried out.
    pub(crate) note: Option<EventKind>,
}

impl OperateBreaker {
    /// A command for the dependency as a whole.
    pub(crate) const fn all(command: BreakerCommand) -> Self {
        Self {
            key: None,
            command,
            note: None,
        }
    }
}
