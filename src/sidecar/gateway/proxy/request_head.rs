//! The head of the gateway's own request, made from that of the caller.

use std::net::SocketAddr;

use http::header::{HOST, TE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use crate::sidecar::gateway::headers::{
    DEADLINE, KEY, PRIORITY, append_forwarded, append_via, has_own, join_cookies, strip_one_hop,
    takes_trailers,
};
use crate::sidecar::gateway::http::upgrade;
use crate::sidecar::gateway::own_tls::OverTls;

/// Turns a caller's head into the head of the gateway's request. Returns the headers as they were,
/// if they are wanted.
pub(super) fn rewrite(head: &mut Parts, peer: SocketAddr, is_wanted: bool) -> Option<HeaderMap> {
    let host = match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => head.headers.get(HOST).cloned(),
    };
    let protocols = upgrade::asked(head);
    let headers = &mut head.headers;
    join_cookies(headers);
    let has_trailers = takes_trailers(headers);
    // EDGE-2: what is stripped may tell callers apart too.
    let sent = is_wanted.then(|| {
        let mut sent = headers.clone();
        if let Some(host) = &host {
            // The dependency sees it in `Forwarded`.
            sent.insert(HOST, host.clone());
        }
        sent
    });
    strip_one_hop(headers);
    if has_trailers {
        // EDGE-3: gRPC servers insist on it. It goes no further than to HTTP/2.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocols) = protocols {
        // EDGE-3: only where the request really asks for it.
        upgrade::name_in(headers, protocols);
    }
    if has_own(headers) {
        for name in [PRIORITY, KEY, DEADLINE] {
            headers.remove(name);
        }
    }
    let host = host.as_ref().and_then(|host| host.to_str().ok());
    let is_tls = head.extensions.get::<OverTls>().is_some();
    append_forwarded(headers, peer, host, is_tls);
    append_via(headers, head.version);
    sent
}
