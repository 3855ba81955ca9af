//! Targets for fuzzers: the head of a request, its path, and JSON objects that pass.

use std::time::Duration;

use http::{HeaderValue, Uri};

use super::headers::{DEADLINE, KEY, append_via, strip_one_hop};
use super::http::address::UpstreamAddress;
use super::http::{directives, grpc};
use super::mcp::call_headers::call_options;
use super::mcp::raw_object::RawObject;
use super::message_calls::read_head;
use super::path::has_dot_segment;
use super::ready;
use crate::config::UpstreamConfig;
use crate::retry_after::fuzzing::head_and_body;

/// Reads the headers of a request that say how a call is made.
pub(crate) fn deadlines(data: &[u8]) {
    let (mut headers, rest) = head_and_body(data);
    if let Some(span) = grpc::timeout(&headers) {
        // Eight digits of hours.
        assert!(span < Duration::from_secs(100_000_000 * 3600), "{span:?}");
    }
    if let Ok(options) = call_options(&headers) {
        if let Some(key) = &options.key {
            assert!((1..=256).contains(&key.len()), "{key:?}");
        }
        let given = headers.get(DEADLINE).and_then(|text| text.to_str().ok());
        let given = given.map(|text| text.trim().parse().map(Duration::from_millis));
        assert_eq!(options.timeout, given.and_then(Result::ok));
    }
    let asked = directives::CacheDirectives::of_request(&headers);
    let _ = directives::may_serve(&asked, &headers, directives::age_on_arrival(&headers));
    let query = String::from_utf8_lossy(rest);
    if let Ok(wait) = ready::wait_of(&query) {
        assert!(wait <= ready::LONGEST, "{wait:?}");
    }
    strip_one_hop(&mut headers);
    for name in ["connection", "transfer-encoding", "keep-alive", "upgrade"] {
        assert!(!headers.contains_key(name), "{name} is passed on");
    }
    append_via(&mut headers, http::Version::HTTP_11);
}

/// Reads the target of a request.
pub(crate) fn paths(data: &[u8]) {
    let target = String::from_utf8_lossy(data);
    let path = target.split('?').next().unwrap_or_default();
    let leads_out = has_dot_segment(path);
    if !leads_out {
        check_path(path);
    }
    if let Some(name) = ready::dependency_of(path) {
        assert!(!name.is_empty() && !name.contains('/'), "{name:?}");
    }
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(path) {
        headers.insert(KEY, value);
    }
    let is_taken = read_head(&target, &mut headers).is_ok();
    assert!(!(is_taken && leads_out), "{target:?}");
    let Ok(uri) = target.parse::<Uri>() else {
        return;
    };
    // The part behind the name of a dependency, as the gateway passes it on.
    let Some(rest) = uri.path().get(1..).and_then(|path| path.find('/')) else {
        return;
    };
    let mut rest = uri.path()[1 + rest..].to_owned();
    if let Some(query) = uri.query() {
        rest.push('?');
        rest.push_str(query);
    }
    let address = UpstreamAddress::new("http://a.example/v1/", None, &UpstreamConfig::default());
    let address = address.expect("a good address");
    for sent in [address.path(&rest), address.whole(&rest)] {
        let sent = sent.expect("what came as a target goes out as one");
        let begin = sent.path().starts_with("/v1/");
        assert!(begin, "{rest:?} goes to {sent:?}");
        assert_eq!(sent.query(), uri.query(), "{rest:?}");
    }
}

/// Checks a path that is passed on with the plainest of decoders, up to three times.
fn check_path(path: &str) {
    let mut reading = path.as_bytes().to_vec();
    for times in 0..=3 {
        let mut parts = reading.split(|byte| *byte == b'/');
        let leads_out = parts.any(|part| part == b"." || part == b"..");
        assert!(!leads_out, "{path:?}, decoded {times} times");
        reading = decoded_once(&reading);
    }
}

fn decoded_once(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let digit = |place: usize| char::from(*path.get(place)?).to_digit(16);
        match (path[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            (other, ..) => {
                decoded.push(other);
                at += 1;
            }
        }
    }
    decoded
}

/// Reads and changes JSON objects of which most passes as it came.
pub(crate) fn raw_objects(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(mut object) = RawObject::read(&text) else {
        let value = serde_json::from_str::<serde_json::Value>(&text);
        assert!(!value.is_ok_and(|value| value.is_object()), "{text:?}");
        return;
    };
    let written = object.write();
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text);
    // A tree has no members of the same name, and no depth beyond its own limit.
    if let Ok(before) = value(&text) {
        assert_eq!(value(&written).expect("it is JSON"), before, "{text:?}");
    }
    let again = RawObject::read(&written).expect("what is written can be read");
    assert_eq!(again.write(), written);
    object.set_string("name", "a \"b\"\n");
    let changed = object.write();
    let changed = RawObject::read(&changed).expect("what is written can be read");
    assert_eq!(changed.string("name").as_deref(), Some("a \"b\"\n"));
    let _ = changed.items("tools");
}
