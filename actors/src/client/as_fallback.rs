//! A client as a fallback of another dependency.

use std::any::Any;

use breakerbox_policy::Time;

use super::Client;
use crate::call;
use crate::call_options::CallOptions;
use crate::dependency::Dependency;
use crate::error::CallError;
use crate::fallback::{ErasedFallback, Fallback, FallbackFuture, FallbackOutcome};

/// Another dependency with the same requests and responses as a fallback, under its own breaker.
impl<D, O> Fallback<D> for Client<O>
where
    D: Dependency,
    O: Dependency<Request = D::Request, Response = D::Response>,
{
    fn name(&self) -> &str {
        Client::name(self)
    }

    fn answer(
        &self,
        request: D::Request,
        _: &CallError<D::Error>,
        _: Time,
    ) -> FallbackFuture<D::Response> {
        ask_other(self.clone(), request)
    }

    fn depends_on(&self) -> Option<&str> {
        Some(Client::name(self))
    }
}

/// Asks the other dependency. The answer keeps its age, even if a fallback of the other one gave it
/// (rule FBK-3).
fn ask_other<O: Dependency>(other: Client<O>, request: O::Request) -> FallbackFuture<O::Response> {
    Box::pin(async move {
        let mut bad = None;
        let note_bad = |why: &CallError<O::Error>| bad = Some(why.to_string());
        let asked = call::ask_noting(&other.core, request, CallOptions::usual(), note_bad).await;
        match (asked, bad) {
            (Ok(answer), None) => FallbackOutcome::Answer(answer.value, answer.age),
            // CALL-8: the next fallback may have a better one.
            (Ok(answer), Some(why)) => FallbackOutcome::BadAnswer {
                value: answer.value,
                age: answer.age,
                why,
            },
            (Err(error), _) => FallbackOutcome::Failed {
                message: error.to_string(),
                executed: error.executed(),
            },
        }
    })
}

/// Erases the type of a dependency; the result can be downcast by its request and response types.
pub(crate) fn erased<D: Dependency>(client: Client<D>) -> Box<dyn Any> {
    Box::new(ErasedFallback::<D::Request, D::Response>::new(
        move |request| ask_other(client, request),
    ))
}
