//! The document that leads a caller from a resource to its authorization server (RFC 9728).

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response};
use serde_json::json;

use crate::config::CallerAuth;
use crate::sidecar::gateway::http::body::ReplyBody;
use crate::sidecar::gateway::own_tls::OverTls;
use crate::sidecar::host_guard::named_hosts;

/// Beginning of the documents' paths; the resource's own path follows.
pub(crate) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Returns the gateway's address as the caller sees it.
fn base(config: &CallerAuth, head: &Parts) -> Option<String> {
    if let Some(base) = &config.public_url {
        return Some(base.clone());
    }
    let host = named_hosts(head.version, &head.uri, &head.headers).ok()?;
    let scheme = match head.extensions.get::<OverTls>() {
        Some(_) => "https",
        None => "http",
    };
    Some(format!("{scheme}://{}", host.host?))
}

/// Returns the address of a resource's document.
pub(super) fn address(config: &CallerAuth, head: &Parts, path: &str) -> Option<String> {
    Some(format!("{}{WELL_KNOWN}{path}", base(config, head)?))
}

/// Builds the document; `None` if callers need no authorization server.
pub(super) fn document(
    config: &CallerAuth,
    head: &Parts,
    path: &str,
) -> Option<Response<ReplyBody>> {
    let jwt = config.jwt.as_ref()?;
    let mut document = json!({
        "resource": format!("{}{path}", base(config, head)?),
        "authorization_servers": jwt.issuers,
        "bearer_methods_supported": ["header"],
    });
    if !jwt.scopes.is_empty() {
        document["scopes_supported"] = json!(jwt.scopes);
    }
    let mut response = Response::new(ReplyBody::whole(Bytes::from(document.to_string())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    Some(response)
}
