//! The layer with calls that last to the end of the response's body.
//!
//! A head that is judged a failure is the outcome at once, as with
//! [`BreakerLayer`], and its body then belongs to the caller alone.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use breakerbox_policy::Class;
use futures_util::StreamExt;
use http::Response;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{GuardedBody, ResponseFailure, ResponsePart, ResponseParts, has_ended};
use super::rules::{CallRules, HttpRules};
use super::service::{BreakerLayer, CallFuture, RequestCopies, attempt};
use crate::{AttemptProgress, CallError, CallOptions, Client, Closures, Dependency};

/// A layer by [`BreakerLayer::whole_bodies`].
pub struct WholeBodyLayer<R = HttpRules, D: Dependency = Closures> {
    pub(super) layer: BreakerLayer<R, D>,
}

impl<R, D: Dependency> Clone for WholeBodyLayer<R, D> {
    fn clone(&self) -> Self {
        Self {
            layer: self.layer.clone(),
        }
    }
}

impl<R, D: Dependency> fmt::Debug for WholeBodyLayer<R, D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WholeBodyLayer")
            .field("layer", &self.layer)
            .finish()
    }
}

impl<S, R, D: Dependency> Layer<S> for WholeBodyLayer<R, D> {
    type Service = WholeBodyService<S, R, D>;

    fn layer(&self, inner: S) -> Self::Service {
        let layer = self.layer.clone();
        WholeBodyService { inner, layer }
    }
}

/// A service with calls that end with the bodies of their responses.
pub struct WholeBodyService<S, R = HttpRules, D: Dependency = Closures> {
    inner: S,
    layer: BreakerLayer<R, D>,
}

impl<S: Clone, R, D: Dependency> Clone for WholeBodyService<S, R, D> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S, R, D: Dependency> fmt::Debug for WholeBodyService<S, R, D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WholeBodyService")
            .field("layer", &self.layer)
            .finish_non_exhaustive()
    }
}

impl<S, Req, B, R, D> Service<Req> for WholeBodyService<S, R, D>
where
    S: Service<Req, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
    Req: Send + 'static,
    R: CallRules<Req, Response<B>, S::Error> + Send + Sync + 'static,
    D: Dependency,
{
    type Response = Response<GuardedBody<B, S::Error>>;
    type Error = CallError<S::Error>;
    type Future = CallFuture<Self::Response, S::Error>;

    /// Is ready always, as [`BreakerService`](super::BreakerService) is.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (inner, layer) = (self.inner.clone(), self.layer.clone());
        Box::pin(async move {
            let BreakerLayer { client, rules } = layer;
            let mut options = rules.options(&request);
            let mut requests = RequestCopies::new(request, &mut options);
            let open = {
                let rules = Arc::clone(&rules);
                move || {
                    let request = requests.next(&*rules);
                    let progress = requests.progress.clone();
                    open(inner.clone(), request, Arc::clone(&rules), progress)
                }
            };
            answer(&client, options, rules, open).await
        })
    }
}

type OpenedParts<B, E> = Result<ResponseParts<B, E>, ResponseFailure<B, E>>;

/// One attempt, up to the head of the response.
async fn open<S, Req, B, R>(
    service: S,
    request: Option<Req>,
    rules: Arc<R>,
    progress: AttemptProgress,
) -> OpenedParts<B, S::Error>
where
    S: Service<Req, Response = Response<B>>,
    B: Body,
    R: CallRules<Req, Response<B>, S::Error> + Send + Sync + 'static,
{
    let opened = attempt(service, request, Arc::clone(&rules), progress).await;
    let (response, verdict) = opened.map_err(ResponseFailure::Attempt)?;
    if verdict.class != Class::Success {
        return Err(ResponseFailure::Answered(Box::new(response), verdict));
    }
    let classify = move |trailers: &_| rules.classify_trailers(trailers);
    Ok(ResponseParts::new(response, Box::new(classify)))
}

/// Makes the call, and returns the response when its head is there.
async fn answer<Req, B, E, R, D, F>(
    client: &Client<D>,
    options: CallOptions,
    rules: Arc<R>,
    open: impl FnMut() -> F,
) -> Result<Response<GuardedBody<B, E>>, CallError<E>>
where
    F: Future<Output = OpenedParts<B, E>>,
    B: Body,
    R: CallRules<Req, Response<B>, E> + Send + Sync + 'static,
    D: Dependency,
{
    let classify = move |result: Result<&ResponseParts<B, E>, &ResponseFailure<B, E>>| match result
    {
        Ok(ended) => ended.verdict(),
        Err(failure) => failure.verdict(|error| rules.classify(Err(error))),
    };
    let mut parts = match client.run_stream_with(options, classify, open).await {
        Ok(parts) => parts,
        Err(CallError::Failed {
            error: ResponseFailure::Answered(response, _),
            ..
        }) => return Ok((*response).map(GuardedBody::plain)),
        Err(error) => return Err(failed(error)),
    };
    let head = match parts.next().await {
        Some(Ok(ResponsePart::Head(head))) => *head,
        Some(Err(error)) => return Err(failed(error)),
        // Not reached: a head comes first, and once.
        Some(Ok(ResponsePart::Frame(_))) | None => Response::new(()).into_parts().0,
    };
    if has_ended(&parts) {
        // CALL-3: it is counted before its caller sees it. Nothing comes but the end.
        let _ = parts.next().await;
    }
    Ok(Response::from_parts(head, GuardedBody::open(parts)))
}

/// Converts the error of a call without a response.
fn failed<B: Body, E>(error: CallError<ResponseFailure<B, E>>) -> CallError<E> {
    error.map_failed(|failure| match failure {
        ResponseFailure::Attempt(failure) => failure.into_error(),
        ResponseFailure::Answered(..) | ResponseFailure::Broken(_) => {
            unreachable!("a response is returned as one, and its body comes after its head")
        }
    })
}
