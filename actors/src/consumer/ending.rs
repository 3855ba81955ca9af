//! A call that is made for a message, and its end as it concerns the message.

use std::time::Duration;

use breakerbox_policy::{BreakerAfter, Class, Executed, MessageCallKind};

use crate::answer::Answer;
use crate::call_options::CallOptions;
use crate::client::{Client, Readiness, ReadinessObstacle};
use crate::dependency::Dependency;
use crate::error::{CallError, Limit};

/// The end of a call as it concerns the message for which it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageEnding {
    /// Its kind.
    pub kind: MessageCallKind,
    /// Execution state of the work, at the dependency and at its fallbacks together.
    pub executed: Executed,
    /// Execution state of the work at the fallbacks alone.
    pub executed_by_fallbacks: Executed,
    /// The wait that the refusal, or the dependency, asked for.
    pub wait: Option<Duration>,
    /// The breaker afterwards.
    pub breaker: BreakerAfter,
}

impl MessageEnding {
    /// An end of this kind, without fallbacks.
    #[must_use]
    pub fn new(
        kind: MessageCallKind,
        executed: Executed,
        wait: Option<Duration>,
        breaker: BreakerAfter,
    ) -> Self {
        Self {
            kind,
            executed,
            executed_by_fallbacks: Executed::No,
            wait,
            breaker,
        }
    }
}

/// Result of a call that is made for a message.
pub type MessageResult<D> =
    Result<Answer<<D as Dependency>::Response>, CallError<<D as Dependency>::Error>>;

/// Calls the dependency for a message, as [`Client::ask_with`] does, and tells how the call
/// ended as it concerns the message.
///
/// # Panics  As [`Client::ask`].
/// # Cancel safety   As [`Client::ask`].
/// # Source  Rules MSG-4 and MSG-5 in docs/rules.md.
pub async fn ask_for_message<D: Dependency>(
    client: &Client<D>,
    request: D::Request,
    options: CallOptions,
) -> (MessageResult<D>, MessageEnding) {
    let key = options.key.clone();
    let key = key.as_deref();
    let before = client.readiness(key);
    let was_trial = before.is_trial && before.available > 0;
    let result = client.ask_with(request, options).await;
    let after = client.readiness(key);
    let breaker = breaker_after(was_trial, &after);
    let ending = match &result {
        Ok(_) => MessageEnding::new(MessageCallKind::Answered, Executed::Yes, None, breaker),
        Err(error) => MessageEnding {
            kind: kind_of(client, error),
            executed: error.executed(),
            executed_by_fallbacks: error.executed_by_fallbacks(),
            wait: wait_of(error, &after),
            breaker,
        },
    };
    (result, ending)
}

fn kind_of<D: Dependency>(client: &Client<D>, error: &CallError<D::Error>) -> MessageCallKind {
    match error {
        CallError::Failed { error, .. } => {
            let verdict = D::classify(Err(error));
            let settings = client.settings();
            let judged = verdict.judged(|symptom| settings.classify.class_of(symptom));
            MessageCallKind::Ended(judged.class)
        }
        CallError::Open(_) | CallError::NotExecuted { .. } | CallError::Quarantined { .. } => {
            MessageCallKind::Refused
        }
        CallError::RateLimited {
            limit: Limit::TooHeavy { .. } | Limit::TooManyTokens { .. },
            ..
        }
        | CallError::SessionSpent { .. } => MessageCallKind::Ended(Class::Rejected),
        CallError::RateLimited { .. } => MessageCallKind::Limited,
        CallError::Overloaded { .. } => MessageCallKind::NoSlotFree,
        // The time was spent in the queue for a place.
        CallError::TimedOut {
            executed: Executed::No,
            ..
        } => MessageCallKind::NoSlotFree,
        CallError::FallbackFailed { cause, .. } => kind_of(client, cause),
        CallError::BadAnswer { .. }
        | CallError::TimedOut { .. }
        | CallError::Stalled { .. }
        | CallError::WorkerCrashed { .. }
        | CallError::Interrupted { .. }
        | CallError::Injected { .. } => MessageCallKind::Ended(Class::Failure),
    }
}

/// Returns the wait until the next try of a message.
fn wait_of<E>(error: &CallError<E>, after: &Readiness) -> Option<Duration> {
    match after.kept_back_by {
        // MSG-4: until the end of the pause, which the hint has begun.
        Some(ReadinessObstacle::Pause) => after.retry_after.or_else(|| error.retry_after()),
        _ => error.retry_after(),
    }
}

/// Returns the state of the breaker after a call, as it concerns the message. `was_trial`: of the
/// readiness before the call; `after`: the readiness now.
fn breaker_after(was_trial: bool, after: &Readiness) -> BreakerAfter {
    let refuses = matches!(
        after.kept_back_by,
        Some(ReadinessObstacle::Breaker | ReadinessObstacle::NoWorker)
    );
    if !refuses && !after.is_trial {
        return BreakerAfter::Closed;
    }
    if was_trial {
        return BreakerAfter::ByProbe;
    }
    // MSG-4: in half-open the wait is a matter of the probes under way.
    BreakerAfter::NotClosed(after.retry_after.filter(|_| !after.is_trial))
}
