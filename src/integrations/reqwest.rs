//! Verdicts on results of `reqwest`, and a middleware for `reqwest-middleware`.
//!
//! ```
//! use breakerbox::integrations::reqwest::{BreakerMiddleware, verdict};
//! use breakerbox::prelude::*;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::start(Settings::default()).await?;
//! let search = runtime.dependency("search").start().await?;
//! let http = reqwest::Client::new();
//!
//! // one call by a closure
//! # if false {
//! let options = CallOptions { idempotent: Some(true), ..CallOptions::default() };
//! let response = search
//!     .run_with(options, |result| verdict(result.as_ref()), || http.get("http://search/").send())
//!     .await?;
//! # }
//!
//! // or every call of a client
//! let http = reqwest_middleware::ClientBuilder::new(http)
//!     .with(BreakerMiddleware::new(search))
//!     .build();
//! # drop(http);
//! # runtime.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! The outcome is that of the response's head. Its body is read by the caller afterwards, under the
//! client's own time limit.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;

use breakerbox_policy::{Class, Executed, Symptom};
use http::Extensions;
use reqwest::{Error, Request, Response};
use reqwest_middleware::{Error as MiddlewareError, Middleware, Next};

use super::{error_chain, http_head};
use crate::lock::LockExt as _;
use crate::{AttemptProgress, CallError, CallOptions, Client, Closures, Dependency, Verdict};

/// Classifies the result of a request. The settings decide what a status, a time limit or a missing
/// connection means (`classify`).
#[must_use]
pub fn verdict(result: Result<&Response, &Error>) -> Verdict {
    let error = match result {
        Ok(response) => return http_head::verdict_on(response.status(), response.headers()),
        Err(error) => error,
    };
    if error.is_builder() {
        // CALL-2: there is no request at all.
        return Verdict::from(Class::Rejected).executed(Executed::No);
    }
    if error.is_connect() {
        // The time limit of a connection is one of these too.
        return Verdict::from(Symptom::Connect);
    }
    if error.is_timeout() {
        return Verdict::from(Symptom::Timeout);
    }
    if let Some(status) = error.status() {
        return Verdict::from(Symptom::Status(status.as_u16()));
    }
    if error.is_decode() {
        return Verdict::from(Class::Failure).executed(Executed::Yes);
    }
    error_chain::verdict_on(error)
}

/// A middleware that makes each request of a client a call of a dependency.
///
/// A request is sent again as the settings say, if its body can be copied
/// ([`Request::try_clone`]); after an attempt that may have been executed only with a method that
/// HTTP defines as idempotent. A request with an extension of type [`CallOptions`] has these options.
///
/// A failure of the request itself is passed on as it is. Everything else, such as a refusal, is an
/// error of the middleware, which [`call_error`] finds.
pub struct BreakerMiddleware<D: Dependency = Closures> {
    client: Client<D>,
}

impl<D: Dependency> BreakerMiddleware<D> {
    /// Makes a middleware for one dependency.
    #[must_use]
    pub fn new(client: Client<D>) -> Self {
        Self { client }
    }
}

impl<D: Dependency> Clone for BreakerMiddleware<D> {
    fn clone(&self) -> Self {
        Self::new(self.client.clone())
    }
}

impl<D: Dependency> fmt::Debug for BreakerMiddleware<D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BreakerMiddleware")
            .field("name", &self.client.name())
            .finish()
    }
}

/// Returns the error of the call behind an error of a client with [`BreakerMiddleware`], unless the
/// request itself failed.
#[must_use]
pub fn call_error(error: &MiddlewareError) -> Option<&CallError<MiddlewareError>> {
    match error {
        MiddlewareError::Middleware(error) => error.downcast_ref(),
        MiddlewareError::Reqwest(_) => None,
    }
}

/// A response, the extensions of its attempt, and the verdict on it.
type JudgedResponse = (Response, Extensions, Verdict);

fn verdict_on(result: &Result<JudgedResponse, MiddlewareError>) -> Verdict {
    match result {
        Ok((_, _, verdict)) => *verdict,
        Err(MiddlewareError::Reqwest(error)) => verdict(Err(error)),
        Err(MiddlewareError::Middleware(_)) => Verdict::from(Class::Failure),
    }
}

/// The requests of one call: a copy is kept for as long as another attempt may follow.
struct RequestQueue {
    next: Option<Request>,
    progress: AttemptProgress,
}

impl RequestQueue {
    fn take(&mut self) -> Option<Request> {
        let request = self.next.take()?;
        self.next = request.try_clone();
        if self.next.is_none() {
            // CALL-7: there is nothing to send a second time, not even beside this attempt.
            self.progress.forbid_repeats();
        }
        Some(request)
    }
}

impl<D: Dependency> BreakerMiddleware<D> {
    async fn call(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, MiddlewareError> {
        let mut options = match extensions.get::<CallOptions>() {
            Some(options) => options.clone(),
            None => http_head::options_of(request.method()),
        };
        let requests = Mutex::new(RequestQueue {
            progress: options.progress.get_or_insert_default().clone(),
            next: Some(request),
        });
        // Attempts may overlap, so each has extensions of its own.
        let own = &*extensions;
        let work = || {
            let (request, next) = (requests.acquire().take(), next.clone());
            let mut extensions = own.clone();
            async move {
                let Some(request) = request else {
                    // Not reached: no attempt follows the one that took the last copy.
                    return std::future::pending().await;
                };
                let response = next.run(request, &mut extensions).await;
                let response = response?;
                // CALL-8: a response that is judged a failure is retried as an error is.
                let verdict = verdict(Ok(&response));
                Ok((response, extensions, verdict))
            }
        };
        let (response, of_attempt, _) = match self.client.run_with(options, verdict_on, work).await
        {
            Ok(answered) => answered,
            Err(CallError::Failed { error, .. }) => return Err(error),
            Err(error) => return Err(MiddlewareError::middleware(error)),
        };
        *extensions = of_attempt;
        Ok(response)
    }
}

impl<D: Dependency> Middleware for BreakerMiddleware<D> {
    fn handle<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        request: Request,
        extensions: &'life1 mut Extensions,
        next: Next<'life2>,
    ) -> Pin<Box<dyn Future<Output = Result<Response, MiddlewareError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(self.call(request, extensions, next))
    }
}
