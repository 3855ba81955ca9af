//! Kinds and causes of the errors of calls.

use super::ProblemKind;
use crate::sidecar::gateway::http::connect_failure::ConnectFailure;
use crate::sidecar::gateway::message::HttpFailure;
use crate::{CallError, Limit, NotExecutedReason};

/// Returns the cause of an error, in a few words. `own`: that of the dependency's own error.
pub(super) fn cause_of<E>(error: &CallError<E>, own: &dyn Fn(&E) -> String) -> String {
    match error {
        CallError::Failed { error, .. } => own(error),
        CallError::Open(refused) => refused.reason().reason.clone(),
        CallError::Overloaded { limit, .. } => {
            let (slots, queue) = limit.keys();
            format!("{slots}, {queue}")
        }
        CallError::NotExecuted {
            cause: Some(cause), ..
        } => cause.to_string(),
        CallError::TimedOut { limit, .. } => limit.name().to_owned(),
        CallError::Stalled { .. } => "timeout.idle".to_owned(),
        CallError::RateLimited { limit, .. } => match limit {
            Limit::Pause(_) => "pause asked for by the dependency".to_owned(),
            Limit::Tokens | Limit::TooManyTokens { .. } => "token_limit".to_owned(),
            _ => "rate_limit".to_owned(),
        },
        CallError::FallbackFailed { cause, .. } => cause_of(cause, own),
        other => kind_of(other, &|_| ProblemKind::FAILED).2.to_owned(),
    }
}

/// Returns the kind of an error. `own`: classifies the dependency's own error.
pub(super) fn kind_of<E>(error: &CallError<E>, own: &dyn Fn(&E) -> ProblemKind) -> ProblemKind {
    match error {
        CallError::Failed { error, .. } => own(error),
        CallError::Open(_) => ProblemKind::OPEN,
        CallError::Overloaded { .. } => ProblemKind::OVERLOADED,
        CallError::TimedOut { .. } | CallError::Stalled { .. } => ProblemKind::TIMED_OUT,
        CallError::WorkerCrashed { .. } | CallError::Interrupted { .. } => ProblemKind::CRASHED,
        CallError::NotExecuted { reason, .. } => match reason {
            NotExecutedReason::ShuttingDown => ProblemKind::STOPPING,
            // Any other reason why no worker is available.
            _ => ProblemKind::UNAVAILABLE,
        },
        CallError::Quarantined { .. } => ProblemKind::QUARANTINED,
        CallError::RateLimited { .. } | CallError::SessionSpent { .. } => ProblemKind::RATE_LIMITED,
        CallError::FallbackFailed { cause, .. } => kind_of(cause, own),
        // An attempt that chaos made fail, and variants added later.
        _ => ProblemKind::FAILED,
    }
}

pub(super) fn kind_of_failure(failure: HttpFailure) -> ProblemKind {
    match failure {
        HttpFailure::BodyTooLarge(_) => ProblemKind::BODY_TOO_LARGE,
        HttpFailure::BodyTooSlow(_) => ProblemKind::BODY_TOO_SLOW,
        HttpFailure::BodyCut => ProblemKind::BAD_REQUEST,
        HttpFailure::Late(_) => ProblemKind::TIMED_OUT,
        HttpFailure::Content(failure) if failure.is_silence() => ProblemKind::TIMED_OUT,
        HttpFailure::Unsent(body) => kind_of_failure(body.failure()),
        // Our own lack, told as such.
        HttpFailure::Connect(ConnectFailure::NoResources(_)) | HttpFailure::NoMemory => {
            ProblemKind::OVERLOADED
        }
        HttpFailure::Connect(ConnectFailure::Late(_)) => ProblemKind::TIMED_OUT,
        HttpFailure::Connect(_) => ProblemKind::FAILED,
        HttpFailure::Status(_)
        | HttpFailure::Declined
        | HttpFailure::Grpc(_)
        | HttpFailure::Reset
        | HttpFailure::Answer(_)
        | HttpFailure::UploadCut
        | HttpFailure::ClosedOnReuse
        | HttpFailure::Unprocessed
        | HttpFailure::Leaving
        | HttpFailure::TooLong
        | HttpFailure::Content(_)
        | HttpFailure::BodyGone => ProblemKind::FAILED,
    }
}
