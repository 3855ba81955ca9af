//! Requests that change the protocol of their connection, such as WebSocket handshakes.
//!
//! Each is sent on a connection of its own, which no pool ever sees.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;

use super::address::UpstreamAddress;
use super::answer_fault::AnswerFault;
use super::connect_failure::ConnectFailure;
use super::connector::UpstreamConnector;
use super::pool::{self, PooledBody, http1};
use super::send_mark::MarkedBody;
use crate::sidecar::gateway::message::{HttpFailure, HttpRequest};

/// Protocols that carry HTTP itself. Requests within them would pass the gateway unseen.
const SMUGGLING: [&str; 5] = ["h2c", "h2", "h3", "http", "tls"];

/// Returns the protocols that a request asks for in place of HTTP/1.1, if they may be passed on.
///
/// # Source  RFC 9110, section 7.8.
pub(in crate::sidecar::gateway) fn asked(head: &Parts) -> Option<HeaderValue> {
    // Few requests ask for one.
    let mut lines = head.headers.get_all(UPGRADE).iter().peekable();
    lines.peek()?;
    let is_fit = ![Method::HEAD, Method::CONNECT, Method::TRACE].contains(&head.method);
    if head.version != Version::HTTP_11 || !is_fit || has_body(&head.headers) {
        return None;
    }
    let is_named = head.headers.get_all(CONNECTION).iter().any(|line| {
        let mut names = line.to_str().unwrap_or_default().split(',');
        names.any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
    });
    if !is_named {
        return None;
    }
    let all = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
    // EDGE-3: what would hide requests from the gateway is never passed on.
    let is_harmless = |protocol: &&str| {
        let name = protocol.split('/').next().unwrap_or_default();
        !name.is_empty() && !SMUGGLING.iter().any(|bad| name.eq_ignore_ascii_case(bad))
    };
    let fit: Vec<&str> = all.map(str::trim).filter(is_harmless).collect();
    if fit.is_empty() {
        return None;
    }
    HeaderValue::try_from(fit.join(", ")).ok()
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH);
    headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Names the protocols in a head. The other fields of one connection are stripped before.
pub(in crate::sidecar::gateway) fn name_in(headers: &mut HeaderMap, protocols: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocols);
}

/// Removes the wish for another protocol.
pub(super) fn without(request: HttpRequest) -> HttpRequest {
    if !request.asks_upgrade() {
        return request;
    }
    let target = request.target().to_owned();
    request.changed(target, |headers| {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    })
}

/// Sends a request on a new connection, and waits for the head of its response.
pub(super) async fn send(
    connector: UpstreamConnector,
    address: &UpstreamAddress,
    (request, mut message): (&HttpRequest, Request<MarkedBody>),
) -> Result<Response<PooledBody>, HttpFailure> {
    *message.uri_mut() = address
        .path(request.target())
        .map_err(|_| HttpFailure::Reset)?;
    message.headers_mut().insert(HOST, address.host.clone());
    message.headers_mut().remove(TE);
    let failed =
        |error: &(dyn std::error::Error + 'static)| HttpFailure::Connect(ConnectFailure::of(error));
    let connecting = connector.only_http1().connect();
    let stream = connecting.await.map_err(|error| failed(&error))?;
    let history = Arc::clone(stream.inner().observer());
    let (mut sender, work) = http1()
        .handshake(stream)
        .await
        .map_err(|error| failed(&error))?;
    // The request reports its end.
    tokio::spawn(async move { drop(work.with_upgrades().await) });
    let response = sender.send_request(message).await;
    let response = response.map_err(|error| pool::failed(&history, false, &error))?;
    Ok(response.map(PooledBody::alone))
}

/// Returns an error for a response that changes the protocol although the request did not ask for
/// it.
pub(super) fn check(
    request: &HttpRequest,
    response: Response<PooledBody>,
) -> Result<Response<PooledBody>, HttpFailure> {
    let is_switch = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if is_switch && !(request.asks_upgrade() && response.headers().contains_key(UPGRADE)) {
        return Err(HttpFailure::Answer(AnswerFault::Upgrade));
    }
    Ok(response)
}

/// Returns the connection behind a response, and its protocol, if it changes the protocol.
pub(super) fn switched(response: &mut Response<PooledBody>) -> Option<(OnUpgrade, HeaderValue)> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let protocol = response.headers().get(UPGRADE)?.clone();
    Some((hyper::upgrade::on(response), protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocols(version: Version, method: &str, lines: &[(&'static str, &str)]) -> Option<String> {
        let mut request = Request::builder()
            .version(version)
            .method(method)
            .uri("/web/a");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        asked(&head).map(|line| line.to_str().unwrap().to_owned())
    }

    #[test]
    fn edge_3_an_upgrade_is_passed_on_only_where_it_is_asked_for() {
        let one = Version::HTTP_11;
        let upgrade = ("connection", "keep-alive, Upgrade");
        let websocket = ("upgrade", "websocket");
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            protocols(one, "GET", &[upgrade, websocket]),
            some("websocket")
        );
        assert_eq!(
            protocols(one, "POST", &[upgrade, websocket, ("content-length", "0")]),
            some("websocket")
        );
        let list = ("upgrade", "h2c, websocket, tcp/2");
        assert_eq!(
            protocols(one, "GET", &[upgrade, list]),
            some("websocket, tcp/2")
        );
        for bad in ["h2c", "H2C", "HTTP/2.0", "TLS/1.0", "h2", "", ","] {
            assert_eq!(
                protocols(one, "GET", &[upgrade, ("upgrade", bad)]),
                None,
                "{bad}"
            );
        }
        assert_eq!(protocols(one, "GET", &[websocket]), None);
        assert_eq!(protocols(one, "GET", &[upgrade]), None);
        assert_eq!(protocols(one, "HEAD", &[upgrade, websocket]), None);
        assert_eq!(
            protocols(Version::HTTP_10, "GET", &[upgrade, websocket]),
            None
        );
        let body = ("content-length", "1");
        assert_eq!(protocols(one, "POST", &[upgrade, websocket, body]), None);
        let body = ("transfer-encoding", "chunked");
        assert_eq!(protocols(one, "POST", &[upgrade, websocket, body]), None);
    }
}
