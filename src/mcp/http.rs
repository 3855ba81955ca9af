//! HTTP client for a remote server, on the same stack as the rest of the crate.
//!
//! The protocol library manages the sessions; this sends one request, and reads the response with a
//! size limit. It never retries (rule LIM-4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::{Sse, SseStream};

use super::error::McpError;
use crate::retry_after;
use breakerbox_actors::redact;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

type TransportError = StreamableHttpError<McpError>;

/// HTTP client for one server. Cheap to clone.
#[derive(Clone)]
pub(super) struct McpHttp {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Maximum size of a message, in bytes.
    max: usize,
}

impl McpHttp {
    /// Creates a client.
    ///
    /// # Errors  TLS cannot be set up.
    pub(super) fn new(connect: Duration, max: usize) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(crate::tls::client()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // No idle connection is kept: one that the server has closed meanwhile would look like a
        // server that went away.
        let http = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { http, max })
    }

    async fn send(
        &self,
        method: Method,
        uri: &str,
        body: Bytes,
        headers: &[(HeaderName, Option<&str>)],
        custom: HashMap<HeaderName, HeaderValue>,
    ) -> Result<Response<Incoming>, TransportError> {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .body(Full::new(body))
            .map_err(|error| own(McpError::protocol(error.to_string())))?;
        let all = request.headers_mut();
        all.extend(custom.into_iter().map(|(name, value)| (Some(name), value)));
        all.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        for (name, value) in headers {
            if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
                all.insert(name, value);
            }
        }
        let answered = self.http.request(request).await;
        answered.map_err(|error| {
            own(if error.is_connect() {
                McpError::Connect {
                    reason: innermost(&error),
                }
            } else {
                McpError::closed(innermost(&error))
            })
        })
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, TransportError> {
        match Limited::new(body, self.max).collect().await {
            Ok(read) => Ok(read.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let max = self.max;
                let reason = format!("its response is longer than {max} bytes");
                Err(own(McpError::protocol(reason)))
            }
            Err(_) => Err(own(McpError::closed("its response broke off"))),
        }
    }

    /// Returns the events of a response, with the size limit for each.
    fn events(&self, body: Incoming) -> BoxStream<'static, Result<Sse, SseError>> {
        let max = self.max;
        let mut length = 0;
        let pieces = body.into_data_stream().map_err(std::io::Error::other);
        let pieces = pieces.and_then(move |piece: Bytes| {
            // An event ends with an empty line: two adjacent line ends in one piece.
            let ends = piece
                .windows(2)
                .rposition(|pair| pair == b"\n\n" || pair == b"\n\r");
            length = match ends {
                Some(end) => piece.len() - end,
                None => length + piece.len(),
            };
            let fits = length <= max;
            async move {
                if fits {
                    Ok(piece)
                } else {
                    Err(std::io::Error::other("an event is too long"))
                }
            }
        });
        SseStream::from_bytes_stream(pieces).boxed()
    }

    /// Handles a response that is not a success.
    async fn refused(
        &self,
        message: &ClientJsonRpcMessage,
        has_session: bool,
        response: Response<Incoming>,
    ) -> Result<StreamableHttpPostResponse, TransportError> {
        let status = response.status();
        let headers = response.headers().clone();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let reason = format!("HTTP status {}", status.as_u16());
            return Err(own(McpError::Auth { reason }));
        }
        if status == StatusCode::NOT_FOUND && has_session {
            return Err(StreamableHttpError::SessionExpired);
        }
        let by_status = || {
            own(McpError::Http {
                status: status.as_u16(),
                retry_after: retry_after::read(status.as_u16(), &headers, None),
            })
        };
        if status == StatusCode::TOO_MANY_REQUESTS || !is_media(&headers, JSON) {
            return discovery(message, status, None).ok_or_else(by_status);
        }
        let body = self.read(response.into_body()).await?;
        let said = serde_json::from_slice::<ServerJsonRpcMessage>(&body);
        let Ok(JsonRpcMessage::Error(error)) = said else {
            return discovery(message, status, None).ok_or_else(by_status);
        };
        if let Some(answer) = discovery(message, status, Some(&error)) {
            return Ok(answer);
        }
        match error.id {
            Some(_) => {
                let answer = JsonRpcMessage::Error(error);
                Ok(StreamableHttpPostResponse::Json(answer, None))
            }
            // Some servers report a forgotten session so; an error that names no call would reach
            // no caller.
            None if has_session && status == StatusCode::BAD_REQUEST => {
                Err(StreamableHttpError::SessionExpired)
            }
            None => Err(own(error.error.into())),
        }
    }
}

/// Turns an error into the response to a discovery: a server of the older dialect refuses this
/// first request of the newer one.
fn discovery(
    message: &ClientJsonRpcMessage,
    status: StatusCode,
    error: Option<&rmcp::model::JsonRpcError>,
) -> Option<StreamableHttpPostResponse> {
    let JsonRpcMessage::Request(request) = message else {
        return None;
    };
    let is_question = matches!(request.request, ClientRequest::DiscoverRequest(_));
    if !is_question || !status.is_client_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let error = error.map_or_else(
        || {
            let text = format!("HTTP status {}", status.as_u16());
            rmcp::model::ErrorData::invalid_request(text, None)
        },
        |error| error.error.clone(),
    );
    let answer = JsonRpcMessage::error(error, Some(request.id.clone()));
    Some(StreamableHttpPostResponse::Json(answer, None))
}

fn own(error: McpError) -> TransportError {
    StreamableHttpError::Client(error)
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    redact(&cause.to_string()).into_owned()
}

fn is_media(headers: &HeaderMap, media: &str) -> bool {
    let line = headers
        .get(CONTENT_TYPE)
        .and_then(|line| line.to_str().ok());
    let own = line.and_then(|line| line.split(';').next());
    own.is_some_and(|own| own.trim().eq_ignore_ascii_case(media))
}

impl StreamableHttpClient for McpHttp {
    type Error = McpError;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _: Option<String>,
        custom: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, TransportError> {
        let body = serde_json::to_vec(&message)?;
        let headers = [(CONTENT_TYPE, Some(JSON)), (SESSION, session.as_deref())];
        let response = self
            .send(Method::POST, &uri, body.into(), &headers, custom)
            .await?;
        let status = response.status();
        let is_asking = matches!(message, JsonRpcMessage::Request(_));
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if !status.is_success() {
            return self.refused(&message, session.is_some(), response).await;
        }
        if !is_asking {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        let (head, body) = response.into_parts();
        let session = head.headers.get(SESSION);
        let session = session.and_then(|id| id.to_str().ok()).map(str::to_owned);
        if is_media(&head.headers, EVENTS) {
            return Ok(StreamableHttpPostResponse::Sse(self.events(body), session));
        }
        if !is_media(&head.headers, JSON) {
            let media = head.headers.get(CONTENT_TYPE);
            let media = media.map(|media| String::from_utf8_lossy(media.as_bytes()).into_owned());
            return Err(own(McpError::UnexpectedContentType(media)));
        }
        let body = self.read(body).await?;
        match serde_json::from_slice::<ServerJsonRpcMessage>(&body) {
            Ok(JsonRpcMessage::Error(error)) if error.id.is_none() => {
                let reason = format!("an error without a call id: {}", error.error.message);
                Err(own(McpError::protocol(redact(&reason))))
            }
            Ok(answer) => Ok(StreamableHttpPostResponse::Json(answer, session)),
            Err(_) => Err(own(McpError::protocol("its response is not a message"))),
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        _: Option<String>,
        custom: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), TransportError> {
        let headers = [(SESSION, Some(&*session))];
        let sent = self.send(Method::DELETE, &uri, Bytes::new(), &headers, custom);
        match sent.await?.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                Err(StreamableHttpError::ServerDoesNotSupportDeleteSession)
            }
            _ => Ok(()),
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _: Option<String>,
        custom: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, TransportError> {
        let headers = [
            (SESSION, session.as_deref()),
            (LAST_EVENT, last_event.as_deref()),
        ];
        let sent = self.send(Method::GET, &uri, Bytes::new(), &headers, custom);
        let response = sent.await?;
        if response.status().is_success() && is_media(response.headers(), EVENTS) {
            return Ok(self.events(response.into_body()));
        }
        Err(StreamableHttpError::ServerDoesNotSupportSse)
    }
}
