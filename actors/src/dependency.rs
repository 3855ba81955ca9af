//! The trait that users implement for an external service, and the context of its calls.

pub(crate) mod time_limit;

use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::{Class, Time};

use crate::state::PerWorker;
use crate::state::call_hold::OpenAnswer;
use crate::verdict::Verdict;

pub use time_limit::TimeLimitExceeded;

/// An external service that is called and can fail: an API, a database, a model.
///
/// A worker actor owns one value of it. After a panic the value is dropped and the factory makes a
/// new one, so keep connections in it, not results.
///
/// # Cancel safety   `call` is dropped when its caller is gone or its time is over; run work that
/// must not be interrupted in a task of its own.
pub trait Dependency: 'static {
    /// The request. It is cloned if a retry or a fallback may need it again: put large parts behind
    /// an `Arc`.
    type Request: Clone + Send + 'static;
    /// The response.
    type Response: Send + 'static;
    /// The error of a failed attempt: a type of yours, `String`, `anyhow::Error` or a boxed error.
    /// For `?` in a function that returns `anyhow::Error` or `Box<dyn Error + Send + Sync>` it has to
    /// implement `Error` and be `Sync`; others are converted first, by
    /// [`CallError::map_failed`](crate::CallError::map_failed).
    type Error: Debug + Display + Send + 'static;

    /// Makes one attempt.
    fn call(
        &self,
        request: Self::Request,
        call: &CallContext,
    ) -> impl Future<Output = Result<Self::Response, Self::Error>>;

    /// Resolves, with the reason, when this value can serve no more: its process or its connection
    /// is gone, or hangs. Its worker then ends as failed, and the supervisor applies its restart
    /// rules. Calls in flight end with the result that `call` gives in the same poll of the worker,
    /// else as interrupted. Queued calls are served by the next incarnation. By default it never
    /// resolves.
    ///
    /// It is polled beside the calls, in each poll of the worker, as long as the worker lives: a
    /// caller on the worker's thread may be served once more before the next of these polls.
    fn ended(&self) -> impl Future<Output = String> {
        std::future::pending()
    }

    /// Shuts the value down, after an orderly stop of the worker and the end of its last call. It
    /// must finish before the worker's deadline (`workers.drain`). After that deadline, and after a
    /// crash, the value is dropped without it. By default it does nothing.
    fn close(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// Classifies the result of an attempt (rule BRK-7). By default every error counts against the
    /// dependency.
    #[must_use]
    fn classify(result: Result<&Self::Response, &Self::Error>) -> Verdict {
        match result {
            Ok(_) => Verdict::from(Class::Success),
            Err(_) => Verdict::from(Class::Failure),
        }
    }

    /// Returns the unsuccessful answer in an error, if the rest of it still arrives. It then keeps
    /// the slot of its attempt until it has ended (rule EDGE-4). By default there is none. Asked for
    /// errors of streams that could not be opened only.
    fn open_answer(error: &mut Self::Error) -> Option<&mut dyn OpenAnswer> {
        let _ = error;
        None
    }

    /// Returns true if this request may be executed twice without harm (rule CALL-7). False by
    /// default.
    #[must_use]
    fn is_idempotent(request: &Self::Request) -> bool {
        let _ = request;
        false
    }

    /// Returns true if this request changes something. A fallback answers a write only if it
    /// declares so (rule FBK-2). False by default.
    #[must_use]
    fn is_write(request: &Self::Request) -> bool {
        let _ = request;
        false
    }

    /// Returns the key of the breaker for this request, if the dependency has one breaker for each
    /// tenant, model or credential. The key appears in events and in the status: return a name,
    /// never a secret. By default there is one breaker for all requests.
    #[must_use]
    fn key(request: &Self::Request) -> Option<Cow<'_, str>> {
        let _ = request;
        None
    }

    /// Returns the units of the rate limit that this request takes, such as its tokens (rule
    /// LIM-3). One by default.
    #[must_use]
    fn weight(request: &Self::Request) -> NonZeroU32 {
        let _ = request;
        NonZeroU32::MIN
    }

    /// Returns a fingerprint shared by all requests that do the same. Requests that crash workers
    /// again and again are refused by it (rule SUP-6). By default there is none, and no request is
    /// refused.
    #[must_use]
    fn fingerprint(request: &Self::Request) -> Option<u64> {
        let _ = request;
        None
    }
}

/// The information about a call that its dependency may use.
#[derive(Debug, Clone)]
pub struct CallContext {
    pub(crate) shared: Arc<PerWorker>,
    pub(crate) attempt: u32,
    /// Maximum time from the begin of the attempt to its end.
    pub(crate) attempt_limit: Option<Duration>,
    pub(crate) deadline: Option<Time>,
    pub(crate) fingerprint: Option<u64>,
}

impl CallContext {
    /// Returns the dependency's name.
    #[must_use]
    pub fn dependency(&self) -> &str {
        &self.shared.name
    }

    /// Returns the number of this attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the time limit of this attempt: that of the call's options, or else that of the settings;
    /// `None` if it has none. The deadline of the call may end it earlier.
    #[must_use]
    pub fn attempt_limit(&self) -> Option<Duration> {
        self.attempt_limit
    }

    /// Returns the remaining time of the call; `None` if it has no deadline.
    ///
    /// Pass it on to further calls.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.since(self.shared.clock.now()))
    }

    /// Returns the fingerprint of the call: that of its options, or else that of the dependency.
    #[must_use]
    pub fn fingerprint(&self) -> Option<u64> {
        self.fingerprint
    }

    /// Notes that the value ended after a call of this fingerprint that it has not answered, and that is
    /// not in flight any more, such as one that has run out of time. After two ends without an answer
    /// between them the call is refused for a while. Calls in flight at the end are noted without it.
    pub fn suspect(&self) {
        if let Some(fingerprint) = self.fingerprint {
            // SUP-6: another call may be the one.
            self.shared.suspect(fingerprint);
        }
    }

    /// Reports a problem of a dependency that still answers: its status is degraded with this text,
    /// until `None` clears it. The breaker ignores it.
    pub fn complain(&self, what: Option<String>) {
        self.shared.complain(what);
    }
}
