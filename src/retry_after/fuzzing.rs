//! Target for fuzzers: the hints of a response.

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::{header, is_json, json, read};

/// Reads hints of lines `name: value` up to an empty one, and of the body behind it. The first byte
/// selects the status.
pub(crate) fn hints(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let status = [429, 503, 200, 500][usize::from(first % 4)];
    let (headers, body) = head_and_body(rest);
    let now = Timestamp::from_second(1_793_954_970).expect("it is in range");
    let in_waits = header::waits(&headers, now);
    let in_headers = header::largest(status, &headers, now);
    assert!(
        in_headers >= in_waits,
        "{in_headers:?} is shorter than {in_waits:?}"
    );
    // A limit of which something remains may be left out, but none is believed beyond the largest.
    #[cfg(feature = "model")]
    {
        let used_up = super::used_up_resets(&headers, now);
        let all = header::largest(429, &headers, now);
        assert!(all >= used_up, "{all:?} is shorter than {used_up:?}");
        let asked = super::asked(&headers, body, now);
        assert!(asked >= in_waits, "{asked:?} is shorter than {in_waits:?}");
    }
    if is_json(&headers, body) {
        let _ = json::largest(status, body, now);
    }
    // By the clock of this machine, as in production.
    let _ = read(status, &headers, Some(body));
}

/// Splits a text into headers and a body; lines that are no header are left out.
pub(crate) fn head_and_body(text: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = text;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = rest[..end].trim_ascii();
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            // A map of headers has a limit of its own.
            if headers.len() < 100 {
                headers.append(name, value);
            }
        }
    }
    (headers, rest)
}
