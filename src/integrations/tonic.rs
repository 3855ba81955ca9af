//! Verdicts on statuses of tonic, and statuses for errors of calls.
//!
//! A channel gets a breaker by the [layer](super::tower) (feature `tower`), a single call by a
//! closure:
//!
//! ```
//! use breakerbox::integrations::tonic::{call_status, verdict};
//! use breakerbox::prelude::*;
//! use tonic::{Response, Status};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let runtime = Runtime::start(Settings::default()).await?;
//! let users = runtime.dependency("users").start().await?;
//! # async fn get_user() -> Result<Response<&'static str>, Status> { Ok(Response::new("Ada")) }
//! let options = CallOptions { idempotent: Some(true), ..CallOptions::default() };
//! let user = users
//!     .run_with(options, |result| verdict(result.as_ref()), || get_user())
//!     .await
//!     .map_err(call_status)?; // a server passes it on to its own caller
//! # assert_eq!(user.into_inner(), "Ada");
//! # runtime.shutdown().await;
//! # Ok(())
//! # }
//! ```

use std::error::Error;

use breakerbox_policy::{Executed, Symptom};
use tonic::{Code, ConnectError, Status, TimeoutExpired};

use super::{error_chain, grpc_code};
use crate::grpc_details::wait_in;
use crate::{CallError, Fault, Verdict};

/// Classifies the result of a call: codes as the HTTP statuses that say the same, so that the
/// settings decide (`classify`). A hint goes with it: `grpc-retry-pushback-ms`, or a
/// `google.rpc.RetryInfo` in the details.
pub fn verdict<T>(result: Result<&T, &Status>) -> Verdict {
    match result {
        Ok(_) => grpc_code::verdict_on(0),
        Err(status) => verdict_on_status(status),
    }
}

/// Returns the verdict on a status that a call ended with.
pub(super) fn verdict_on_status(status: &Status) -> Verdict {
    let source = status.source();
    for error in source.into_iter().flat_map(error_chain::sources) {
        if error.is::<ConnectError>() {
            // CALL-2: without a connection there was nothing to send the call on.
            return Verdict::from(Symptom::Connect).executed(Executed::No);
        }
        if error.is::<TimeoutExpired>() {
            return Verdict::from(Symptom::Timeout);
        }
    }
    // The time limit of a channel is told as a cancellation, and its source is lost.
    if status.code() == Code::Cancelled && status.message() == TimeoutExpired(()).to_string() {
        return Verdict::from(Symptom::Timeout);
    }
    let verdict = grpc_code::verdict_on(status.code().into());
    let in_details = wait_in(status.details());
    grpc_code::with_wait(
        verdict,
        &status.metadata().clone().into_headers(),
        in_details,
    )
}

/// Returns the status that tells a caller of an error of a call: the dependency's own one, or else
/// the code that fits, with the wait as `grpc-retry-pushback-ms`.
#[must_use]
pub fn call_status<E>(error: CallError<E>) -> Status
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let code = match &error {
        CallError::TimedOut { .. } | CallError::Stalled { .. } => Code::DeadlineExceeded,
        CallError::RateLimited { .. } | CallError::SessionSpent { .. } => Code::ResourceExhausted,
        other if other.fault() == Fault::Dependency => Code::Internal,
        _ => Code::Unavailable,
    };
    let words = match code {
        Code::DeadlineExceeded => "did not answer in time",
        Code::ResourceExhausted => "is asked too often",
        Code::Internal => "failed",
        _ => "is not available at present",
    };
    let mut status = Status::new(code, format!("{} {words}", error.dependency()));
    if let Some(wait) = error.retry_after() {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let pushback = millis.to_string().parse();
        // Digits are a value always.
        if let Ok(value) = pushback {
            status
                .metadata_mut()
                .insert("grpc-retry-pushback-ms", value);
        }
    }
    match error.into_failed() {
        Some(own) => Status::from_error(own.into()),
        None => status,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::grpc_details::tests::status;

    #[test]
    fn lim_1_e10b_the_wait_in_the_details_of_a_status_is_read() {
        let details = status(b"\x08\x07").into();
        let mut status = Status::with_details(Code::ResourceExhausted, "quota", details);
        let wait = |status: &Status| verdict_on_status(status).retry_after;
        assert_eq!(wait(&status), Some(Duration::from_secs(7)));
        let pushback = "9000".parse().unwrap();
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", pushback);
        assert_eq!(wait(&status), Some(Duration::from_secs(9)));
    }
}
