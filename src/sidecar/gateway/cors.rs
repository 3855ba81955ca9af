//! Pages of other sites that may use the gateway from a browser (CORS).
//!
//! The guard has refused every other page before. Credentials of the browser itself, such as
//! cookies, are never asked for: a page presents a token of its own.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::headers::SOURCE;
use super::http::body::ReplyBody;

/// Request headers that pages may send.
const ALLOWED: [&str; 14] = [
    "accept",
    "authorization",
    "baggage",
    "breakerbox-deadline-ms",
    "breakerbox-key",
    "breakerbox-priority",
    "content-type",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "traceparent",
    "tracestate",
];
/// Beginning of the headers in which the newer dialect repeats parameters of a tool.
const PARAMETERS: &str = "mcp-param-";
/// Maximum length of the list of allowed headers.
const MAX_LIST: usize = 4096;
/// Response headers that pages may read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "mcp-session-id, mcp-protocol-version, www-authenticate, retry-after, breakerbox-source",
);
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
/// Time for which a browser may keep the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Returns true if a browser asks for a page whether it may make a request. It sends no credentials
/// with that.
///
/// # Source  The Fetch standard, section "CORS-preflight fetch".
pub(super) fn is_preflight(head: &Parts) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        && !head.headers.contains_key(AUTHORIZATION)
}

/// Origin of a page that may use the gateway.
pub(super) struct PageOrigin(HeaderValue);

impl PageOrigin {
    /// Returns the origin of a request that a page of another site made; `None` for every other
    /// request. `origins`: those that are served.
    pub(super) fn of(headers: &HeaderMap, origins: &[String]) -> Option<Self> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        let mut listed = origins.iter();
        let is_listed = listed.any(|one| one.eq_ignore_ascii_case(text.trim()));
        is_listed.then(|| Self(origin.clone()))
    }

    /// Returns the answer to a preflight of an endpoint.
    pub(super) fn preflight(&self, head: &Parts) -> Response<ReplyBody> {
        let mut allowed = ALLOWED.join(", ");
        let lines = head.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS);
        let asked = lines.iter().filter_map(|line| line.to_str().ok());
        for name in asked.flat_map(|line| line.split(',')) {
            let name = name.trim().to_ascii_lowercase();
            if name.starts_with(PARAMETERS) && allowed.len() + name.len() < MAX_LIST {
                allowed.push_str(", ");
                allowed.push_str(&name);
            }
        }
        self.leave(METHODS, HeaderValue::try_from(allowed).ok())
    }

    /// Returns the answer to a preflight of an HTTP dependency: the page may ask for anything.
    pub(super) fn preflight_of_service(&self, head: &Parts) -> Response<ReplyBody> {
        let wanted = |name| head.headers.get(name).cloned();
        let method = wanted(ACCESS_CONTROL_REQUEST_METHOD).unwrap_or(METHODS);
        let mut leave = self.leave(method, wanted(ACCESS_CONTROL_REQUEST_HEADERS));
        // Whether the page may read an answer with credentials is for the dependency to say in it.
        let headers = leave.headers_mut();
        headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
        leave
    }

    /// Returns the answer that gives leave to requests with these methods and headers.
    fn leave(&self, methods: HeaderValue, headers: Option<HeaderValue>) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody::whole(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let own = response.headers_mut();
        own.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        own.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if let Some(headers) = headers {
            own.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
        }
        self.admit(&mut response);
        response
    }

    /// Lets the page read a response if it is the gateway's own.
    pub(super) fn admit_own(&self, response: &mut Response<ReplyBody>) {
        let headers = response.headers();
        let source = headers.get(SOURCE).map(HeaderValue::as_bytes);
        let is_own = matches!(source, Some(b"gateway" | b"fallback:fixed"));
        if is_own && !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            self.admit(response);
        }
    }

    /// Lets the page read a response.
    pub(super) fn admit(&self, response: &mut Response<ReplyBody>) {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.0.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}
