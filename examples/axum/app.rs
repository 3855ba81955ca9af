//! The service itself: two routes over two APIs.

#![allow(
    clippy::result_large_err,
    reason = "in axum a response can be an error"
)]

use std::error::Error;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use breakerbox::StartError;
use breakerbox::integrations::tower::{BreakerLayer, call_error_response};
use breakerbox::prelude::*;
use bytes::Bytes;
use http_body_util::Empty;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceBuilder, ServiceExt};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

type ApiService = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Body>, CallError<BoxError>>;

/// An API under its breaker.
#[derive(Clone)]
pub(crate) struct Api {
    url: String,
    service: ApiService,
}

#[derive(Clone)]
pub(crate) struct Apis {
    pub(crate) weather: Api,
    pub(crate) maps: Api,
}

/// Puts a breaker, a time limit and retries before a client of HTTP.
pub(crate) async fn api<S, B>(
    runtime: &Runtime,
    name: &str,
    url: String,
    http: S,
) -> Result<Api, StartError>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: axum::body::HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let new = runtime.dependency(name).configure(|settings| {
        settings.timeout.attempt = Some(Duration::from_secs(1));
        settings.retry.max_attempts = 3.try_into().unwrap_or(settings.retry.max_attempts);
        settings.retry.backoff.base = Duration::from_millis(50);
    });
    let breaker = BreakerLayer::new(new.start().await?);
    let service = ServiceBuilder::new()
        .layer(breaker.repeat(|request: &Request<_>| Some(request.clone())))
        .map_response(|response: Response<B>| response.map(Body::new))
        .map_err(S::Error::into)
        .service(http);
    let service = BoxCloneSyncService::new(service);
    Ok(Api { url, service })
}

pub(crate) fn routes(apis: Apis) -> Router {
    Router::new()
        .route("/trip/{place}", get(trip))
        .route("/map/{place}", get(map))
        .with_state(apis)
}

/// Answers with what works, if anything does.
async fn trip(State(apis): State<Apis>, Path(place): Path<String>) -> String {
    let (weather, map) = tokio::join!(apis.weather.ask(&place), apis.maps.ask(&place));
    let or_none = |answer: Result<String, Response<Body>>| answer.unwrap_or("none".to_owned());
    format!("{}; {}", or_none(weather), or_none(map))
}

async fn map(
    State(apis): State<Apis>,
    Path(place): Path<String>,
) -> Result<String, Response<Body>> {
    apis.maps.ask(&place).await
}

impl Api {
    /// Asks the API. The error is a response for the caller.
    async fn ask(&self, place: &str) -> Result<String, Response<Body>> {
        let request = Request::get(format!("{}/{place}", self.url));
        let request = request.body(Empty::new()).map_err(bad_gateway)?;
        let answer = self.service.clone().oneshot(request).await;
        let answer = answer.map_err(|error| call_error_response(&error).into_response())?;
        if !answer.status().is_success() {
            return Err(bad_gateway(answer.status()));
        }
        let text = to_bytes(answer.into_body(), 64 * 1024).await;
        let text = text.map_err(bad_gateway)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn bad_gateway(reason: impl std::fmt::Display) -> Response<Body> {
    (StatusCode::BAD_GATEWAY, format!("no answer: {reason}\n")).into_response()
}
