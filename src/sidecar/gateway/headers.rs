//! Headers that a proxy may pass on, and headers that the gateway adds.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, MAX_FORWARDS, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Version};
use http_body::Frame;

/// Name of the answer's source.
pub(super) const SOURCE: HeaderName = HeaderName::from_static("breakerbox-source");
/// Number of attempts at the dependency.
pub(super) const ATTEMPTS: HeaderName = HeaderName::from_static("breakerbox-attempts");
/// Time that is left, in milliseconds.
pub(super) const DEADLINE: HeaderName = HeaderName::from_static("breakerbox-deadline-ms");
/// Priority of the call.
pub(super) const PRIORITY: HeaderName = HeaderName::from_static("breakerbox-priority");
/// Key that selects the breaker of the call.
pub(super) const KEY: HeaderName = HeaderName::from_static("breakerbox-key");
/// Set by the caller if a request may be sent twice.
pub(super) const IDEMPOTENCY: HeaderName = HeaderName::from_static("idempotency-key");

/// Returns the source of an answer that another gateway gave in place of its dependency.
pub(super) fn source_beyond(headers: &HeaderMap) -> Option<&HeaderValue> {
    let source = headers.get(SOURCE)?;
    let text = source.as_bytes();
    (text == b"gateway" || text.starts_with(b"fallback")).then_some(source)
}

/// Headers that belong to one connection (RFC 9110, section 7.6.1).
static ONE_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields that have a meaning in the head alone, beside those of one connection: they frame a message,
/// route it, authenticate its sender, or say how it is read.
///
/// # Source  RFC 9110, section 6.5.1.
static HEAD_ONLY: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TRAILER,
];

/// Returns a frame without what may not stand in trailers; `None` if nothing is left of it.
pub(super) fn without_head_fields<B>(frame: Frame<B>) -> Option<Frame<B>> {
    let mut trailers = match frame.into_trailers() {
        Ok(trailers) => trailers,
        Err(frame) => return Some(frame),
    };
    // EDGE-3: HTTP/2 resets a stream with such fields, and all other trailers would be lost.
    for name in ONE_HOP.iter().chain(&HEAD_ONLY) {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then(|| Frame::trailers(trailers))
}

/// Removes the headers that belong to one connection, and those that `Connection` names. Returns true
/// if there were such beside those that always belong to one.
pub(super) fn strip_one_hop(headers: &mut HeaderMap) -> bool {
    // Most messages have none or one, and looking up each name costs more.
    let of_one_hop = |name: &HeaderName| ONE_HOP.iter().position(|one| one == name);
    let present: u16 = headers
        .keys()
        .filter_map(of_one_hop)
        .fold(0, |present, at| present | 1 << at);
    if present == 0 {
        return false;
    }
    let named: Vec<HeaderName> = named_by_connection(headers).collect();
    let mut has_named = false;
    for name in named.iter().filter(|name| !ONE_HOP.contains(name)) {
        has_named |= headers.remove(name).is_some();
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // EDGE-3: the coding frames the message, and a length beside it says nothing.
        headers.remove(CONTENT_LENGTH);
    }
    for (_, name) in ONE_HOP
        .iter()
        .enumerate()
        .filter(|(at, _)| present & 1 << at != 0)
    {
        headers.remove(name);
    }
    has_named
}

/// A mark of answers of which `Connection` named fields, which are gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct NamedFields;

/// Removes the headers of an answer that belong to one connection, and notes if others were named
/// with them.
pub(super) fn strip_answer(head: &mut Parts) {
    if strip_one_hop(&mut head.headers) {
        head.extensions.insert(NamedFields);
    }
}

/// Returns true if `Connection` names fields that a message has, other than those that always belong
/// to one connection.
pub(super) fn names_fields(headers: &HeaderMap) -> bool {
    headers.contains_key(CONNECTION)
        && named_by_connection(headers)
            .any(|name| !ONE_HOP.contains(&name) && headers.contains_key(name))
}

/// Returns the names in `Connection`.
fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let lines = headers.get_all(CONNECTION).into_iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        // Most say one of these, which are no other fields.
        .filter(|name| !["close", "keep-alive"].contains(name))
        .filter_map(|name| name.parse().ok())
}

/// Returns true if a message has headers of ours. Most have none, and looking up each costs more.
pub(super) fn has_own(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|name| name.as_str().starts_with("breakerbox-"))
}

/// Joins the fields of a cookie, which HTTP/2 may split.
///
/// # Source  RFC 9113, section 8.2.3.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut fields = headers.get_all(COOKIE).iter();
    if fields.next().is_none() || fields.next().is_none() {
        return;
    }
    let fields: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    // EDGE-3: joined valid values form a valid value.
    if let Ok(joined) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Returns true if the sender of a request takes trailers.
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TE).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let mut words = lines.flat_map(|line| line.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

/// Appends the caller to `Forwarded` (RFC 7239), after the entries of earlier proxies.
/// `is_tls`: the caller speaks TLS.
pub(super) fn append_forwarded(
    headers: &mut HeaderMap,
    peer: SocketAddr,
    host: Option<&str>,
    is_tls: bool,
) {
    let mut element = String::with_capacity(64);
    // Writing into a string cannot fail.
    let _ = match peer.ip().to_canonical() {
        IpAddr::V4(ip) => write!(element, "for={ip}"),
        IpAddr::V6(ip) => write!(element, "for=\"[{ip}]\""),
    };
    if let Some(host) = host {
        element.push_str(";host=");
        quote(host, &mut element);
    }
    element.push_str(if is_tls {
        ";proto=https"
    } else {
        ";proto=http"
    });
    if let Ok(value) = HeaderValue::try_from(element) {
        headers.append(FORWARDED, value);
    }
}

/// Name of this process among the gateways that a request passes.
static INSTANCE: LazyLock<String> = LazyLock::new(|| {
    let random = RandomState::new().hash_one(std::process::id());
    format!("breakerbox-{:08x}", random & 0xffff_ffff)
});

/// Entries of this process in `Via`, for messages that came by HTTP/1.0, 1.1 and 2.
static VIA_ENTRIES: LazyLock<[Option<HeaderValue>; 3]> = LazyLock::new(|| {
    ["1.0", "1.1", "2"]
        .map(|version| HeaderValue::try_from(format!("{version} {}", instance())).ok())
});

/// Returns the name of this process in `Via`. It is random: it tells nothing of the machine.
pub(super) fn instance() -> &'static str {
    &INSTANCE
}

/// Appends this process to `Via`. `version`: of the message as it came.
///
/// # Source  RFC 9110, section 7.6.3.
pub(super) fn append_via(headers: &mut HeaderMap, version: Version) {
    let [old, one, two] = &*VIA_ENTRIES;
    let entry = match version {
        Version::HTTP_09 | Version::HTTP_10 => old,
        Version::HTTP_2 => two,
        _ => one,
    };
    if let Some(entry) = entry {
        headers.append(VIA, entry.clone());
    }
}

/// Writes a token as it is, everything else in quotes.
fn quote(text: &str, out: &mut String) {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for letter in text.chars() {
        if letter == '"' || letter == '\\' {
            out.push('\\');
        }
        // Writing into a string cannot fail.
        let _ = out.write_char(letter);
    }
    out.push('"');
}

/// Headers of a test.
#[cfg(test)]
pub(crate) fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_goes_with_it() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "x-other,, bad name"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "timeout=5"),
            ("traceparent", "00-1-2-01"),
        ]);
        assert!(strip_one_hop(&mut headers), "fields of its own are named");
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["traceparent"]);
        for line in ["close", "keep-alive", "Keep-Alive, TE", "x-absent"] {
            let mut headers = map(&[("connection", line), ("keep-alive", "timeout=5")]);
            assert!(!strip_one_hop(&mut headers), "{line}");
            assert!(headers.is_empty(), "{line}");
        }
    }

    #[test]
    fn edge_3_trailers_have_no_fields_that_only_a_head_may_have() {
        let trailers = map(&[
            ("x-sum", "1"),
            ("connection", "x"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("host", "a"),
            ("grpc-status", "0"),
        ]);
        let left = without_head_fields(Frame::<()>::trailers(trailers)).unwrap();
        let left = left.into_trailers().unwrap();
        assert_eq!(left, map(&[("x-sum", "1"), ("grpc-status", "0")]));
        let none = Frame::<()>::trailers(map(&[("upgrade", "h2c")]));
        assert!(without_head_fields(none).is_none());
        assert!(without_head_fields(Frame::data(())).is_some());
    }

    #[test]
    fn forwarded_is_appended_and_quoted() {
        let mut headers = map(&[("forwarded", "for=10.0.0.1")]);
        let peer = "[::ffff:192.0.2.7]:5".parse().unwrap();
        append_forwarded(&mut headers, peer, Some("api.local:7070"), false);
        append_forwarded(
            &mut headers,
            "[2001:db8::1]:5".parse().unwrap(),
            Some("a"),
            true,
        );
        append_forwarded(
            &mut headers,
            "10.0.0.2:1".parse().unwrap(),
            Some("\"\\"),
            false,
        );
        let lines: Vec<&str> = headers
            .get_all(FORWARDED)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        let expected = [
            "for=10.0.0.1",
            "for=192.0.2.7;host=\"api.local:7070\";proto=http",
            "for=\"[2001:db8::1]\";host=a;proto=https",
            "for=10.0.0.2;host=\"\\\"\\\\\";proto=http",
        ];
        assert_eq!(lines, expected);
    }
}
