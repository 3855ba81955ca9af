//! Rules that the head of each request must meet before a dependency is chosen.
//!
//! What is ambiguous is refused: the server behind the gateway could read it in another way.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, COOKIE, EXPECT, HeaderName, MAX_FORWARDS, TRANSFER_ENCODING, VIA};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};

use super::connection::FragmentMark;
use super::headers::{DEADLINE, KEY, PRIORITY, has_own, instance};
use super::http::body::ReplyBody;
use super::http::upgrade;
use super::problem::{GatewayProblem, ProblemKind};
use crate::config::{GatewayConfig, TrustedHeader};
use crate::sidecar::host_guard::{ServedSites, SiteRefusal, UnlistedHosts, named_hosts};

/// Methods that the gateway may pass on, for answers that have to name them.
const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Reason why a request goes no further.
struct Refusal(ProblemKind, Cow<'static, str>);

impl Refusal {
    fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(kind, detail.into())
    }

    fn into_response(self) -> Response<ReplyBody> {
        let Self(kind, detail) = self;
        let mut response = GatewayProblem::of(kind, None, detail).into_response();
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, METHODS);
        }
        response
    }
}

/// Checks a head. Returns the response to a request that goes no further, and true if the
/// connection may be used for another one.
///
/// It removes the headers of ours that are not obeyed, and counts down `Max-Forwards`.
pub(super) fn screen(
    head: &mut Parts,
    config: &GatewayConfig,
    has_body: bool,
) -> Option<(Response<ReplyBody>, bool)> {
    if let Err(refusal) = check(head, config, has_body) {
        let Refusal(kind, _) = refusal;
        let is_clear = [
            ProblemKind::FOREIGN_HOST,
            ProblemKind::FOREIGN_ORIGIN,
            ProblemKind::HEAD_TOO_LARGE,
            ProblemKind::LOOP,
        ]
        .contains(&kind);
        return Some((refusal.into_response(), is_clear && !has_body));
    }
    let answered = if head.uri.path() == "*" {
        Some(options())
    } else {
        count_down(head).unwrap_or_else(|refusal| Some(refusal.into_response()))
    };
    if let Some(response) = answered {
        return Some((response, !has_body));
    }
    remove_untrusted(&mut head.headers, &config.trust);
    let refusal = check_single(&head.headers).err()?;
    Some((refusal.into_response(), !has_body))
}

/// Returns the refusal of a TRACE: its answer would show credentials of ours.
pub(super) fn refuse_trace() -> Response<ReplyBody> {
    let detail = "TRACE would show the credentials that the gateway adds";
    Refusal::new(ProblemKind::METHOD, detail).into_response()
}

/// Returns the refusal of a request without TLS.
pub(super) fn refuse_without_tls() -> Response<ReplyBody> {
    let detail = "the request came without TLS, which this address requires; use https://";
    Refusal::new(ProblemKind::BAD_REQUEST, detail).into_response()
}

fn check(head: &Parts, config: &GatewayConfig, has_body: bool) -> Result<(), Refusal> {
    let bad = |detail| Refusal::new(ProblemKind::BAD_REQUEST, detail);
    let mut named = named_hosts(head.version, &head.uri, &head.headers).map_err(bad)?;
    if head.method == Method::CONNECT {
        let detail = "the gateway is no tunnel; a path that begins with a name of / is allowed";
        return Err(Refusal::new(ProblemKind::NO_TUNNEL, detail));
    }
    check_count(head, config)?;
    check_target(head).map_err(bad)?;
    check_coding(head)?;
    let is_loopback = config.bind.ip().to_canonical().is_loopback();
    let sites = ServedSites {
        hosts: &config.hosts,
        origins: &config.origins,
        unlisted: if is_loopback {
            UnlistedHosts::Local
        } else {
            UnlistedHosts::AllIfNoneListed
        },
    };
    // A proxy replaces the header by the target's host (RFC 9112, section 3.2.2).
    named.header = None;
    // A page that opens a tunnel can read and write: no plain read.
    let is_more = has_body || upgrade::asked(head).is_some();
    sites
        .check(named, (&head.method, &head.headers), is_more)
        .map_err(|refusal| refused_site(refusal, is_loopback))?;
    if was_here(&head.headers) {
        let detail = "the request came through this gateway before; the url of a dependency leads \
                      back to it";
        return Err(Refusal::new(ProblemKind::LOOP, detail));
    }
    let expected = members(&head.headers, EXPECT);
    if expected.is_some_and(|mut members| {
        !members.all(|member| member.eq_ignore_ascii_case("100-continue"))
    }) {
        let detail = "expect has a value other than 100-continue";
        return Err(Refusal::new(ProblemKind::EXPECTATION, detail));
    }
    if head.method == Method::TRACE && has_body {
        return Err(bad("TRACE has no body"));
    }
    Ok(())
}

fn refused_site(refusal: SiteRefusal<'_>, is_loopback: bool) -> Refusal {
    match refusal {
        SiteRefusal::OtherHost(_) => {
            let allowed = if is_loopback {
                "an address, localhost or a name of gateway.hosts is allowed"
            } else {
                "a name of gateway.hosts is allowed"
            };
            let detail = format!("the request was made for another host; {allowed}");
            Refusal::new(ProblemKind::FOREIGN_HOST, detail)
        }
        SiteRefusal::OtherPage => {
            let detail = "the request comes from a page of another site; its origin must be listed \
                          in gateway.origins";
            Refusal::new(ProblemKind::FOREIGN_ORIGIN, detail)
        }
    }
}

/// Checks the number of header lines by HTTP/2: hyper checks those by HTTP/1.1 alone.
fn check_count(head: &Parts, config: &GatewayConfig) -> Result<(), Refusal> {
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    let most = config.max_headers.get();
    // A client may send each cookie in a line of its own (RFC 9113, section 8.2.3).
    let crumbs = head.headers.get_all(COOKIE).iter().count();
    let lines = head.headers.len() - crumbs.saturating_sub(1);
    // EDGE-4: the limit holds for every protocol.
    if u32::try_from(lines).is_ok_and(|lines| lines <= most) {
        return Ok(());
    }
    let detail = format!("the request has more than {most} header lines (gateway.max_headers)");
    Err(Refusal::new(ProblemKind::HEAD_TOO_LARGE, detail))
}

/// Checks the form of a request's target (RFC 9112, section 3.2).
fn check_target(head: &Parts) -> Result<(), &'static str> {
    // EDGE-3: the parts of a target are passed on whole, or not at all.
    if head.extensions.get::<FragmentMark>().is_some() {
        return Err("the target has a fragment; # is written %23");
    }
    let scheme = head.uri.scheme();
    if scheme.is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err("the target has a scheme other than http and https");
    }
    match head.uri.path() {
        "*" if head.method == Method::OPTIONS => Ok(()),
        path if path.starts_with('/') => Ok(()),
        _ => Err("the target is not a path; it begins with /"),
    }
}

/// Checks the transfer coding: a body in another one cannot be framed anew (RFC 9112, section 6.1).
fn check_coding(head: &Parts) -> Result<(), Refusal> {
    let Some(codings) = members(&head.headers, TRANSFER_ENCODING) else {
        return Ok(());
    };
    let codings: Vec<&str> = codings.collect();
    let is_chunked = |coding: &&&str| coding.eq_ignore_ascii_case("chunked");
    let chunked = codings.iter().filter(is_chunked).count();
    if chunked == 1 && codings.len() == 1 {
        return Ok(());
    }
    if chunked > 1 || codings.iter().any(|coding| coding.is_empty()) {
        let detail = "transfer-encoding is ambiguous; chunked is allowed once";
        return Err(Refusal::new(ProblemKind::BAD_REQUEST, detail));
    }
    let detail = "transfer-encoding has a value other than chunked";
    Err(Refusal::new(ProblemKind::UNKNOWN_CODING, detail))
}

/// Returns the members of a list, or `None` without the header. A member that is no text is empty.
fn members(headers: &HeaderMap, name: HeaderName) -> Option<impl Iterator<Item = &str>> {
    if !headers.contains_key(&name) {
        return None;
    }
    let lines = headers.get_all(name).iter();
    let lines = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
    Some(lines.map(str::trim))
}

/// Returns true if the request has come through this process before (RFC 9110, section 7.6.3).
fn was_here(headers: &HeaderMap) -> bool {
    let own = instance().as_bytes();
    let mut lines = headers.get_all(VIA).iter();
    lines.any(|line| {
        let mut places = line.as_bytes().windows(own.len());
        places.any(|place| place.eq_ignore_ascii_case(own))
    })
}

/// Counts down the hops that TRACE and OPTIONS may take. Returns the response of the last one.
///
/// # Source  RFC 9110, section 7.6.2.
fn count_down(head: &mut Parts) -> Result<Option<Response<ReplyBody>>, Refusal> {
    let is_counted = head.method == Method::TRACE || head.method == Method::OPTIONS;
    if !is_counted || !head.headers.contains_key(MAX_FORWARDS) {
        return Ok(None);
    }
    let mut lines = head.headers.get_all(MAX_FORWARDS).iter();
    let hops = match (lines.next(), lines.next()) {
        (Some(line), None) => line
            .to_str()
            .ok()
            .filter(|text| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())),
        _ => None,
    };
    let Some(hops) = hops else {
        let detail = "max-forwards is not a whole number";
        return Err(Refusal::new(ProblemKind::BAD_REQUEST, detail));
    };
    // A longer number is more than any path has hops.
    let hops: u32 = hops.parse().unwrap_or(u32::MAX);
    match hops.checked_sub(1) {
        Some(left) => {
            head.headers.insert(MAX_FORWARDS, HeaderValue::from(left));
            Ok(None)
        }
        None if head.method == Method::TRACE => {
            let detail = "the gateway does not answer TRACE itself";
            Err(Refusal::new(ProblemKind::METHOD, detail))
        }
        None => Ok(Some(options())),
    }
}

/// Returns the gateway's own response to OPTIONS.
fn options() -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::whole(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, METHODS);
    response
}

/// Checks that each header of ours comes once: the first one and the last one may differ.
fn check_single(headers: &HeaderMap) -> Result<(), Refusal> {
    if !has_own(headers) {
        return Ok(());
    }
    for name in [DEADLINE, PRIORITY, KEY] {
        if headers.get_all(&name).iter().nth(1).is_some() {
            let detail = format!("{name} is there more than once");
            return Err(Refusal::new(ProblemKind::BAD_REQUEST, detail));
        }
    }
    Ok(())
}

/// Removes the headers of ours that are not obeyed, so that no dependency obeys them either.
fn remove_untrusted(headers: &mut HeaderMap, trust: &[TrustedHeader]) {
    // EDGE-5: a header that is not trusted is neither obeyed nor passed on.
    for (header, name) in [
        (TrustedHeader::Deadline, DEADLINE),
        (TrustedHeader::Priority, PRIORITY),
        (TrustedHeader::Key, KEY),
    ] {
        if !trust.contains(&header) {
            headers.remove(name);
        }
    }
}
