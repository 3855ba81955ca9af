//! Authorization of changes, and security headers of every response.
//!
//! Reads need no authentication. Changes need the token, and are refused when the browser names
//! another origin (CSRF).

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq as _;

use super::Admin;
use super::problem::AdminProblem;

/// Maximum body size of a change, in bytes.
pub(super) const MAX_BODY: usize = 4 * 1024;

/// The remote address of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddress(pub(super) SocketAddr);

/// Names the operator in the audit record.
pub(super) fn author(peer: Option<PeerAddress>) -> String {
    match peer {
        Some(PeerAddress(address)) => format!("token holder at {}", address.ip()),
        None => "token holder".to_owned(),
    }
}

/// Admits a change that carries the token.
///
/// # Source  Rule SEC-1 in docs/rules.md.
pub(super) async fn authorise(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Result<Response, AdminProblem> {
    let checked = check_site(&admin, request.headers(), request.uri())
        .and_then(|()| check_token(&admin, request.headers()));
    if let Err(problem) = checked {
        let peer = request.extensions().get::<PeerAddress>().map(|peer| peer.0);
        tracing::warn!(
            ?peer,
            path = request.uri().path(),
            "a change was not allowed"
        );
        return Err(problem);
    }
    Ok(next.run(request).await)
}

fn check_token(admin: &Admin, headers: &HeaderMap) -> Result<(), AdminProblem> {
    let Some(token) = &admin.inner.token else {
        let detail = "nothing can be changed, since no token is configured";
        return Err(
            AdminProblem::new(403, "no-token", detail).allowed("to set BREAKERBOX__ADMIN__TOKEN")
        );
    };
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let (scheme, given) = match given.and_then(|given| given.split_at_checked(7)) {
        Some((scheme, given)) => (scheme, given),
        None => (&b""[..], &b""[..]),
    };
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
    // Constant time: the duration reveals only the length.
    // SEC-1: tokens are compared in constant time.
    let is_equal = bool::from(given.ct_eq(token.expose().as_bytes()));
    if is_bearer && is_equal {
        return Ok(());
    }
    let detail = "a change needs the admin token";
    Err(AdminProblem::new(401, "unauthorised", detail)
        .allowed("the header authorization: Bearer <token>"))
}

/// Refuses requests that a page of another site made the browser send. This includes a site that
/// points its own host name here (DNS rebinding); a bare address cannot be rebound.
fn check_site(admin: &Admin, headers: &HeaderMap, uri: &Uri) -> Result<(), AdminProblem> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let authority = uri.authority().map(axum::http::uri::Authority::as_str);
    let host = authority.or_else(|| text(HOST)).unwrap_or_default();
    let allowed = "an address, localhost, or a name of admin.hosts";
    if !is_known(admin, bare(host)) {
        let detail = "the request was made for another host";
        return Err(AdminProblem::new(403, "foreign-host", detail)
            .given(host)
            .allowed(allowed));
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let from = origin.split_once("://").map(|(_, authority)| authority);
    if from.is_some_and(|from| from.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    let detail = "the request comes from a page of another site";
    Err(AdminProblem::new(403, "foreign-origin", detail)
        .given(origin)
        .allowed("pages of this server"))
}

/// Returns a host without its port.
fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_known(admin: &Admin, name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let mut names = admin
        .inner
        .hosts
        .iter()
        .map(String::as_str)
        .chain(["localhost"]);
    address.parse::<IpAddr>().is_ok() || names.any(|known| known.eq_ignore_ascii_case(name))
}

/// Adds headers that make the browser cache nothing, sniff no types, and load nothing.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ];
    let mut response = next.run(request).await;
    for (name, value) in headers {
        // A page sets its own policy.
        let entry = response.headers_mut().entry(name);
        entry.or_insert(HeaderValue::from_static(value));
    }
    response
}
