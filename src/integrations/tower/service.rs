//! The layer and its service: each call of the inner service is an attempt under the dependency's
//! limits.
//!
//! It keeps no state of its own. What an answer means is up to the rules.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use breakerbox_policy::Executed;
use tower_layer::Layer;
use tower_service::Service;

use super::rules::{CallRules, ClassifyRule, HttpRules, OptionsRule, RepeatRule};
use super::whole::WholeBodyLayer;
use crate::{AttemptProgress, CallError, CallOptions, Client, Closures, Dependency, Verdict};

/// A layer that calls a service under a dependency's breaker and limits, with rules of type `R`.
///
/// # Source  Rule CALL-5 in docs/rules.md.
pub struct BreakerLayer<R = HttpRules, D: Dependency = Closures> {
    pub(super) client: Client<D>,
    pub(super) rules: Arc<R>,
}

impl<D: Dependency> BreakerLayer<HttpRules, D> {
    /// Makes a layer for HTTP.
    #[must_use]
    pub fn new(client: Client<D>) -> Self {
        Self::with_rules(client, HttpRules)
    }
}

impl<R, D: Dependency> BreakerLayer<R, D> {
    /// Makes a layer with rules for another protocol.
    #[must_use]
    pub fn with_rules(client: Client<D>, rules: R) -> Self {
        let rules = Arc::new(rules);
        Self { client, rules }
    }

    /// Makes a layer that judges a response when its body has ended. Its bodies are
    /// [`GuardedBody`](super::GuardedBody): a body that breaks off is a failure, one that stops is
    /// too (`timeout.idle`), and the call holds its place to the end.
    #[must_use]
    pub fn whole_bodies(self) -> WholeBodyLayer<R, D> {
        WholeBodyLayer { layer: self }
    }
}

impl<R, D: Dependency> BreakerLayer<R, D> {
    /// Sets the function that classifies each result, in place of the rules.
    #[must_use]
    pub fn classify<Res, E, F>(self, classify: F) -> BreakerLayer<ClassifyRule<R, F>, D>
    where
        F: Fn(Result<&Res, &E>) -> Verdict,
    {
        let rules = self.rules;
        BreakerLayer::with_rules(self.client, ClassifyRule { rules, classify })
    }

    /// Sets the function that returns the options of each request, in place of the rules: a key, a
    /// weight, a time limit, a priority.
    #[must_use]
    pub fn options<Req, F>(self, options: F) -> BreakerLayer<OptionsRule<R, F>, D>
    where
        F: Fn(&Req) -> CallOptions,
    {
        let rules = self.rules;
        BreakerLayer::with_rules(self.client, OptionsRule { rules, options })
    }

    /// Sets the function that copies a request, so that it can be sent again: retries and hedges of
    /// the settings then apply. It returns `None` for a request that is sent once.
    #[must_use]
    pub fn repeat<Req, F>(self, repeat: F) -> BreakerLayer<RepeatRule<R, F>, D>
    where
        F: Fn(&Req) -> Option<Req>,
    {
        let rules = self.rules;
        BreakerLayer::with_rules(self.client, RepeatRule { rules, repeat })
    }
}

impl<R, D: Dependency> Clone for BreakerLayer<R, D> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            rules: Arc::clone(&self.rules),
        }
    }
}

impl<R, D: Dependency> fmt::Debug for BreakerLayer<R, D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BreakerLayer")
            .field("name", &self.client.name())
            .finish_non_exhaustive()
    }
}

impl<S, R, D: Dependency> Layer<S> for BreakerLayer<R, D> {
    type Service = BreakerService<S, R, D>;

    fn layer(&self, inner: S) -> Self::Service {
        BreakerService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service under a dependency's breaker and limits.
pub struct BreakerService<S, R = HttpRules, D: Dependency = Closures> {
    inner: S,
    layer: BreakerLayer<R, D>,
}

impl<S: Clone, R, D: Dependency> Clone for BreakerService<S, R, D> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S, R, D: Dependency> fmt::Debug for BreakerService<S, R, D> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BreakerService")
            .field("name", &self.layer.client.name())
            .finish_non_exhaustive()
    }
}

/// The future of a call. Dropped, the call is counted as cancelled.
pub type CallFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, CallError<E>>> + Send>>;

impl<S, Req, R, D> Service<Req> for BreakerService<S, R, D>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
    Req: Send + 'static,
    R: CallRules<Req, S::Response, S::Error> + Send + Sync + 'static,
    D: Dependency,
{
    type Response = S::Response;
    type Error = CallError<S::Error>;
    type Future = CallFuture<S::Response, S::Error>;

    /// Is ready always: the inner service is waited for within each attempt, under the limits of
    /// time, and not at all while the breaker refuses.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (inner, layer) = (self.inner.clone(), self.layer.clone());
        Box::pin(async move {
            let BreakerLayer { client, rules } = &layer;
            let mut options = rules.options(&request);
            let mut requests = RequestCopies::new(request, &mut options);
            let work = {
                // The closure owns the service: it need not be `Sync`.
                let rules = Arc::clone(rules);
                move || {
                    let request = requests.next(&*rules);
                    let progress = requests.progress.clone();
                    attempt(inner.clone(), request, Arc::clone(&rules), progress)
                }
            };
            let classify = |result: &AttemptResult<S::Response, S::Error>| match result {
                Ok((_, verdict)) => *verdict,
                Err(failure) => failure.verdict(|error| rules.classify(Err(error))),
            };
            match client.run_with(options, classify, work).await {
                // CALL-8: a response that is judged a failure was retried as an error is.
                Ok((response, _)) => Ok(response),
                Err(error) => Err(error.map_failed(AttemptFailure::into_error)),
            }
        })
    }
}

/// The result of an attempt, with the verdict on a response.
pub(super) type AttemptResult<Res, E> = Result<(Res, Verdict), AttemptFailure<E>>;

/// Waits for a service, calls it, and judges its response. The call's `progress` is noted as unsent
/// until the service of one of its attempts is ready.
pub(super) async fn attempt<S, Req, R>(
    mut service: S,
    request: Option<Req>,
    rules: Arc<R>,
    progress: AttemptProgress,
) -> AttemptResult<S::Response, S::Error>
where
    S: Service<Req>,
    R: CallRules<Req, S::Response, S::Error>,
{
    let Some(request) = request else {
        // Not reached: no attempt follows the one that took the last copy.
        return std::future::pending().await;
    };
    poll_fn(|cx| service.poll_ready(cx))
        .await
        .map_err(AttemptFailure::NotReady)?;
    progress.set_unsent(false);
    let response = service.call(request).await;
    let response = response.map_err(AttemptFailure::Failed)?;
    let verdict = rules.classify(Ok(&response));
    Ok((response, verdict))
}

/// The failure of an attempt: before the service took the request, or with it.
pub(super) enum AttemptFailure<E> {
    NotReady(E),
    Failed(E),
}

impl<E> AttemptFailure<E> {
    /// Returns the service's own error.
    pub(super) fn into_error(self) -> E {
        match self {
            Self::NotReady(error) | Self::Failed(error) => error,
        }
    }

    pub(super) fn verdict(&self, classify: impl FnOnce(&E) -> Verdict) -> Verdict {
        match self {
            // CALL-2: the service has not got the request.
            Self::NotReady(error) => classify(error).executed(Executed::No),
            Self::Failed(error) => classify(error),
        }
    }
}

/// A request, with the copies that its rules make of it.
pub(super) struct RequestCopies<Req> {
    next: Option<Req>,
    pub(super) progress: AttemptProgress,
}

impl<Req> RequestCopies<Req> {
    pub(super) fn new(request: Req, options: &mut CallOptions) -> Self {
        let progress = options.progress.get_or_insert_default().clone();
        // CALL-2: until it is ready, the service has not got the request.
        progress.set_unsent(true);
        let next = Some(request);
        Self { next, progress }
    }

    /// Returns the request of the next attempt.
    pub(super) fn next<Res, E>(&mut self, rules: &impl CallRules<Req, Res, E>) -> Option<Req> {
        let request = self.next.take()?;
        self.next = rules.repeat(&request);
        if self.next.is_none() {
            // CALL-7: there is nothing to send a second time, not even beside this attempt.
            self.progress.forbid_repeats();
        }
        Some(request)
    }
}
