//! A layer for services of tower: clients of hyper and tonic, routes of axum, and any other.
//!
//! ```
//! use breakerbox::integrations::tower::BreakerLayer;
//! use breakerbox::prelude::*;
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::start(Settings::default()).await?;
//! let search = runtime.dependency("search").start().await?;
//!
//! // any service: a client of hyper, a channel of tonic, a router of axum
//! let http = service_fn(async |_: Request<String>| Ok::<_, std::io::Error>(Response::new("found")));
//! let http = ServiceBuilder::new().layer(BreakerLayer::new(search)).service(http);
//!
//! let answer = http.oneshot(Request::new(String::new())).await?; // or a `CallError`
//! assert_eq!(answer.into_body(), "found");
//! # runtime.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! The layer adds all that the dependency's settings say: breaker, time limits, rate, places,
//! retries, hedges. So no other layer of this kind is needed beside it.
//!
//! - **Outcome.** By default a response is judged by its head ([`HttpRules`]; [`GrpcRules`] for
//!   gRPC). [`BreakerLayer::whole_bodies`] judges it when its body has ended. An answer that is
//!   judged a failure is still an answer: after the last attempt the caller gets it as it is.
//! - **Errors.** [`CallError`] with the inner service's error, which [`call_error_response`] makes
//!   a response of.
//! - **Readiness.** The layered service is always ready. The inner one is waited for within each
//!   attempt, so an open breaker refuses at once, the wait is bounded by the time limits, and an
//!   inner service that does not get ready fails by its dependency's count, not executed.
//! - **Retries.** A request is sent once, unless [`BreakerLayer::repeat`] tells how to copy it.
//! - **State.** Clones of the layer and of its services share the dependency.

mod response;

mod rules;

mod service;

mod body;

mod whole;

pub use body::{BrokenBody, GuardedBody};
pub use response::call_error_response;
pub use rules::{
    CallRules, ClassifyRule, GrpcRules, HttpRules, OptionsRule, RepeatRule, ResultRules,
};
pub use service::{BreakerLayer, BreakerService, CallFuture};
pub use whole::{WholeBodyLayer, WholeBodyService};

#[cfg(doc)]
use crate::CallError;
