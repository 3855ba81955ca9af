//! HTTP/2 requests as frames, each beside the answer that RFC 9113 asks for.

use super::*;

/// Expected end of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum StreamEnd {
    /// An answer with this status.
    Status(u16),
    /// The stream was reset, or the connection ended with an error.
    Error,
    /// An error, or an answer 400: a malformed request (section 8.1.1).
    Malformed,
}

use StreamEnd::{Error, Malformed, Status};

pub(super) type Fields = &'static [(&'static str, &'static str)];

/// Name, header fields, body (`None`: the stream ends with its head), trailers, and the end.
type StreamCase = (
    &'static str,
    Fields,
    Option<&'static str>,
    Fields,
    StreamEnd,
);

const PLAIN: Fields = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/web/a"),
    (":authority", "localhost"),
];

macro_rules! with {
    ($($field:expr),* $(,)?) => {
        &[(":method", "GET"), (":scheme", "http"), (":path", "/web/a"), (":authority", "localhost"), $($field),*]
    };
}

const CASES: &[StreamCase] = &[
    ("plain", PLAIN, None, &[], Status(200)),
    (
        "body",
        &[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/web/a"),
            (":authority", "localhost"),
        ],
        Some("abc"),
        &[],
        Status(200),
    ),
    (
        "body of its length",
        with![("content-length", "3")],
        Some("abc"),
        &[],
        Status(200),
    ),
    (
        "trailers",
        with![("x-a", "b")],
        Some("abc"),
        &[("x-sum", "1")],
        Status(200),
    ),
    (
        "te trailers",
        with![("te", "trailers")],
        None,
        &[],
        Status(200),
    ),
    (
        "two cookies",
        with![("cookie", "a=b"), ("cookie", "c=d")],
        None,
        &[],
        Status(200),
    ),
    (
        "host instead of authority",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/web/a"),
            ("host", "localhost"),
        ],
        None,
        &[],
        Status(200),
    ),
    (
        "the same host",
        with![("host", "localhost")],
        None,
        &[],
        Status(200),
    ),
    (
        "https behind a terminator",
        &[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/web/a"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Status(200),
    ),
    (
        "foreign authority",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/web/a"),
            (":authority", "evil.example"),
        ],
        None,
        &[],
        Status(421),
    ),
    (
        "foreign host",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/web/a"),
            ("host", "evil.example"),
        ],
        None,
        &[],
        Status(421),
    ),
    (
        "another host",
        with![("host", "evil.example")],
        None,
        &[],
        Malformed,
    ),
    (
        "two hosts",
        with![("host", "localhost"), ("host", "localhost")],
        None,
        &[],
        Malformed,
    ),
    (
        "no authority",
        &[(":method", "GET"), (":scheme", "http"), (":path", "/web/a")],
        None,
        &[],
        Malformed,
    ),
    (
        "authority with a user",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/web/a"),
            (":authority", "me@localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "empty authority",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/web/a"),
            (":authority", ""),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "another scheme",
        &[
            (":method", "GET"),
            (":scheme", "ftp"),
            (":path", "/web/a"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "foreign origin",
        with![("origin", "http://evil.example")],
        None,
        &[],
        Status(403),
    ),
    (
        "another site",
        with![("sec-fetch-site", "cross-site")],
        None,
        &[],
        Status(403),
    ),
    (
        "CONNECT",
        &[(":method", "CONNECT"), (":authority", "localhost:80")],
        None,
        &[],
        Status(501),
    ),
    (
        "CONNECT with a path",
        &[
            (":method", "CONNECT"),
            (":scheme", "http"),
            (":path", "/web/a"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "asterisk",
        &[
            (":method", "OPTIONS"),
            (":scheme", "http"),
            (":path", "*"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Status(204),
    ),
    (
        "expectation",
        with![("expect", "x")],
        None,
        &[],
        Status(417),
    ),
    (
        "hidden dots",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/web/..%2fa"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Status(400),
    ),
    (
        "no method",
        &[
            (":scheme", "http"),
            (":path", "/web/a"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "no path",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "empty path",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", ""),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "path without a slash",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "web/a"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "no scheme",
        &[
            (":method", "GET"),
            (":path", "/web/a"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "two methods",
        with![(":method", "GET")],
        None,
        &[],
        Malformed,
    ),
    (
        "two paths",
        with![(":path", "/web/b")],
        None,
        &[],
        Malformed,
    ),
    (
        "unknown pseudo field",
        with![(":x", "b")],
        None,
        &[],
        Malformed,
    ),
    (
        "status in a request",
        with![(":status", "200")],
        None,
        &[],
        Malformed,
    ),
    (
        "pseudo field behind a field",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/web/a"),
            ("x-a", "b"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
    (
        "name in capitals",
        with![("X-A", "b")],
        None,
        &[],
        Malformed,
    ),
    (
        "connection",
        with![("connection", "close")],
        None,
        &[],
        Malformed,
    ),
    (
        "transfer-encoding",
        with![("transfer-encoding", "chunked")],
        None,
        &[],
        Malformed,
    ),
    (
        "keep-alive",
        with![("keep-alive", "1")],
        None,
        &[],
        Malformed,
    ),
    ("upgrade", with![("upgrade", "h2c")], None, &[], Malformed),
    (
        "proxy-connection",
        with![("proxy-connection", "close")],
        None,
        &[],
        Malformed,
    ),
    ("te gzip", with![("te", "gzip")], None, &[], Malformed),
    (
        "name with a space",
        with![("x a", "b")],
        None,
        &[],
        Malformed,
    ),
    (
        "CR and LF in a value",
        with![("x-a", "b\r\nc: d")],
        None,
        &[],
        Malformed,
    ),
    (
        "NUL in a value",
        with![("x-a", "b\0")],
        None,
        &[],
        Malformed,
    ),
    (
        "two lengths",
        with![("content-length", "3"), ("content-length", "4")],
        Some("abc"),
        &[],
        Malformed,
    ),
    (
        "length too long",
        with![("content-length", "4")],
        Some("abc"),
        &[],
        Malformed,
    ),
    (
        "length too short",
        with![("content-length", "2")],
        Some("abc"),
        &[],
        Error,
    ),
    (
        "length without a body",
        with![("content-length", "2")],
        None,
        &[],
        Malformed,
    ),
    // h2 drops it where section 8.1 calls the request malformed: nothing of it goes on.
    (
        "pseudo field in trailers",
        PLAIN,
        Some("abc"),
        &[(":path", "/b")],
        Status(200),
    ),
    (
        "extended CONNECT",
        &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/web/a"),
            (":authority", "localhost"),
        ],
        None,
        &[],
        Malformed,
    ),
];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Literal fields that are not indexed (RFC 7541, section 6.2.2), of less than 127 bytes.
pub(super) fn block(fields: Fields) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Reads the status, which is the first field of an answer.
pub(super) fn status(block: &[u8]) -> u16 {
    let known = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [index @ 0x88..=0x8e, ..] => known[usize::from(index - 0x88)],
        [_, length, rest @ ..] if length & 0x80 == 0 => {
            let text = &rest[..usize::from(*length)];
            std::str::from_utf8(text).unwrap().parse().unwrap()
        }
        // Huffman codes of digits: five bits up to 2, six bits from 3 on.
        [_, _, rest @ ..] => {
            let mut bits = rest
                .iter()
                .take(3)
                .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                << 8;
            (0..3).fold(0, |status, _| {
                let short = bits >> 27;
                let (digit, length) = if short < 3 {
                    (short, 5)
                } else {
                    ((bits >> 26) - 0x16, 6)
                };
                bits <<= length;
                status * 10 + u16::try_from(digit).unwrap()
            })
        }
        _ => panic!("an answer without a status"),
    }
}

async fn end_of(bed: &Bed, case: &StreamCase) -> StreamEnd {
    let (_, fields, body, trailers, _) = case;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    let (end_stream, end_headers) = (1, 4);
    let last = |is_last: bool| if is_last { end_stream } else { 0 };
    bytes.extend(frame(
        1,
        end_headers | last(body.is_none()),
        1,
        &block(fields),
    ));
    if let Some(body) = body {
        bytes.extend(frame(0, last(trailers.is_empty()), 1, body.as_bytes()));
        if !trailers.is_empty() {
            bytes.extend(frame(1, end_headers | end_stream, 1, &block(trailers)));
        }
    }
    let mut stream = bed.connect().await;
    // A connection that ends at once may not take all of it.
    let _ = stream.write_all(&bytes).await;
    let answered = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return Error;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            if stream.read_exact(&mut payload).await.is_err() {
                return Error;
            }
            match head[3] {
                1 => return Status(status(&payload)),
                3 => return Error,
                7 if payload[4..8] != [0; 4] => return Error,
                _ => {}
            }
        }
    };
    let answered = tokio::time::timeout(PATIENCE, answered).await;
    answered.unwrap_or_else(|_| panic!("no answer: {case:?}"))
}

#[tokio::test]
async fn edge_5_e7d_streams_are_read_as_the_rfc_says() {
    let upstream = Upstream::of(|request: Request| async move {
        let body = axum::body::to_bytes(request.into_body(), 10_000).await;
        answer(if body.is_ok() { 200 } else { 400 }, "ok")
    })
    .await;
    let text = "breaker = { failure_threshold = \"off\" }";
    let bed = Bed::new(&upstream.url(), text).await;
    let mut wrong = Vec::new();
    for case in CASES {
        let (before, expected) = (upstream.hits(), case.4);
        let end = end_of(&bed, case).await;
        let is_right = match expected {
            Malformed => matches!(end, Error | Status(400)),
            expected => end == expected,
        };
        if !is_right {
            wrong.push(format!("{}: {end:?} instead of {expected:?}", case.0));
        }
        if case.2.is_none() && upstream.hits() - before != usize::from(expected == Status(200)) {
            wrong.push(format!("{}: the dependency saw it", case.0));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        CASES.len()
    );
    bed.end().await;
}
