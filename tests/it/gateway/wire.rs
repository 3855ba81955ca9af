//! HTTP/1.1 requests as bytes, each beside the answer that RFC 9110 and RFC 9112 ask for.

use super::*;

/// State of a connection after the answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum After {
    /// It ends: what follows would be read as another request.
    Closed,
    /// It may be used again, or ends.
    Any,
}

use After::{Any, Closed};

/// Name, bytes, statuses of the answers in order, and what follows.
type WireCase = (&'static str, &'static str, &'static [u16], After);

/// Heads. A request that is refused must not reach the dependency.
#[rustfmt::skip]
const HEADS: &[WireCase] = &[
    // Start lines: RFC 9112, sections 2.2 and 3.
    ("plain", "GET /web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[200], Any),
    ("empty line before", "\r\nGET /web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[200], Any),
    ("version in lower case", "GET /web/a http/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("unknown minor version", "GET /web/a HTTP/1.9\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("unknown major version", "GET /web/a HTTP/3.0\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("no version", "GET /web/a\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("space before the method", " GET /web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("space in the target", "GET /web/a b HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("tab as a separator", "GET\t/web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("no method", "/web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("method with a colon", "G:T /web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("unknown method", "BREW /web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[200], Any),
    ("NUL in the target", "GET /web/a\0b HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("CR in the target", "GET /web/a\rb HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("lone LFs", "GET /web/a HTTP/1.1\nhost: localhost\n\n", &[200], Any),
    // Hosts: RFC 9112, section 3.2.
    ("no host", "GET /web/a HTTP/1.1\r\n\r\n", &[400], Closed),
    ("no host in HTTP/1.0", "GET /web/a HTTP/1.0\r\n\r\n", &[200], Any),
    ("two hosts", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nhost: b\r\n\r\n", &[400], Closed),
    ("one host twice", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nHost: localhost\r\n\r\n", &[400], Closed),
    ("two hosts in HTTP/1.0", "GET /web/a HTTP/1.0\r\nhost: localhost\r\nhost: b\r\n\r\n", &[400], Closed),
    ("empty host", "GET /web/a HTTP/1.1\r\nhost:\r\n\r\n", &[400], Closed),
    ("two hosts in one line", "GET /web/a HTTP/1.1\r\nhost: localhost, b\r\n\r\n", &[400], Closed),
    ("host with a path", "GET /web/a HTTP/1.1\r\nhost: localhost/a\r\n\r\n", &[400], Closed),
    ("host with a user", "GET /web/a HTTP/1.1\r\nhost: me@localhost\r\n\r\n", &[400], Closed),
    ("host with a scheme", "GET /web/a HTTP/1.1\r\nhost: http://localhost\r\n\r\n", &[400], Closed),
    ("host with a bad port", "GET /web/a HTTP/1.1\r\nhost: localhost:x\r\n\r\n", &[400], Closed),
    ("host with a huge port", "GET /web/a HTTP/1.1\r\nhost: localhost:70700\r\n\r\n", &[400], Closed),
    ("broken address", "GET /web/a HTTP/1.1\r\nhost: [::1\r\n\r\n", &[400], Closed),
    ("address", "GET /web/a HTTP/1.1\r\nhost: [::1]:7070\r\n\r\n", &[200], Any),
    ("foreign host", "GET /web/a HTTP/1.1\r\nhost: evil.example\r\n\r\n", &[421], Any),
    // Targets: RFC 9112, section 3.2.
    ("absolute form", "GET http://localhost/web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[200], Any),
    ("absolute form over host", "GET http://localhost/web/a HTTP/1.1\r\nhost: b\r\n\r\n", &[200], Any),
    ("absolute form, bad host", "GET http://localhost/web/a HTTP/1.1\r\nhost: b c\r\n\r\n", &[400], Closed),
    ("absolute form without host", "GET http://localhost/web/a HTTP/1.1\r\n\r\n", &[400], Closed),
    ("absolute form, foreign", "GET http://evil.example/web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[421], Any),
    ("absolute form with a user", "GET http://me@localhost/web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("another scheme", "GET ftp://localhost/web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("asterisk", "OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n", &[204], Any),
    ("asterisk with GET", "GET * HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("authority with GET", "GET localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("no slash", "GET web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("CONNECT", "CONNECT localhost:80 HTTP/1.1\r\nhost: localhost:80\r\n\r\n", &[501], Closed),
    ("CONNECT with a path", "CONNECT /web/a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[501], Closed),
    ("dots", "GET /web/../a HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Any),
    ("hidden dots", "GET /web/..%2fa HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Any),
    // Fields: RFC 9112, section 5.
    ("space before the colon", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nx-a : b\r\n\r\n", &[400], Closed),
    ("space before the first field", "GET /web/a HTTP/1.1\r\n host: localhost\r\n\r\n", &[400], Closed),
    ("folded line", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nx-a: b\r\n c\r\n\r\n", &[400], Closed),
    ("line without a colon", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nx-a\r\n\r\n", &[400], Closed),
    ("no name", "GET /web/a HTTP/1.1\r\nhost: localhost\r\n: b\r\n\r\n", &[400], Closed),
    ("NUL in a value", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nx-a: b\0c\r\n\r\n", &[400], Closed),
    ("CR in a value", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nx-a: b\rc: d\r\n\r\n", &[400], Closed),
    ("name with a bracket", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nx[a]: b\r\n\r\n", &[400], Closed),
    ("empty value", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nx-a:\r\n\r\n", &[200], Any),
    ("no space after the colon", "GET /web/a HTTP/1.1\r\nhost:localhost\r\nx-a:b\r\n\r\n", &[200], Any),
    // Lengths: RFC 9112, section 6.3.
    ("length with a sign", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: +1\r\n\r\na", &[400], Closed),
    ("negative length", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\na", &[400], Closed),
    ("hexadecimal length", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0x1\r\n\r\na", &[400], Closed),
    ("empty length", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length:\r\n\r\n", &[400], Closed),
    ("length with a fraction", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1.0\r\n\r\na", &[400], Closed),
    ("two lengths", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", &[400], Closed),
    ("two lengths in one line", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1, 2\r\n\r\nab", &[400], Closed),
    ("huge length", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999\r\n\r\n", &[400], Closed),
    ("one length twice", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na", &[200], Any),
    // Codings: RFC 9112, sections 6.1 and 7.
    ("unknown coding", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", &[400], Closed),
    ("coding not last", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &[400], Closed),
    ("two codings", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[501], Closed),
    ("two codings in two lines", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[501], Closed),
    ("chunked twice", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", &[400], Closed),
    ("chunked in two lines", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400], Closed),
    ("identity", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: identity\r\n\r\n", &[400], Closed),
    ("empty coding", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding:\r\n\r\n", &[400], Closed),
    ("empty member", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: , chunked\r\n\r\n0\r\n\r\n", &[400], Closed),
    ("coding with a parameter", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n", &[400], Closed),
    ("coding with a vertical tab", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", &[400], Closed),
    ("coding in HTTP/1.0", "POST /web/a HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400], Closed),
    ("coding beside a length", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 30\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[200], Closed),
    ("length beside a coding", "POST /web/a HTTP/1.1\r\nhost: localhost\r\nTransfer-Encoding: Chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n", &[200], Closed),
    // Expectations, hops, upgrades and what belongs to one connection.
    ("expects the future", "POST /web/a HTTP/1.1\r\nhost: localhost\r\nexpect: 200-ok\r\ncontent-length: 1\r\n\r\n", &[417], Closed),
    ("expects two things", "POST /web/a HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue, x\r\ncontent-length: 1\r\n\r\n", &[417], Closed),
    ("expects nothing", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nexpect:\r\n\r\n", &[417], Closed),
    ("expects to go on", "POST /web/a HTTP/1.1\r\nhost: localhost\r\nExpect: 100-Continue\r\ncontent-length: 1\r\n\r\na", &[100, 200], Any),
    ("TRACE with a body", "TRACE /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\na", &[400], Closed),
    ("upgrade", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", &[200], Any),
    ("connection names the host", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nconnection: host, te\r\nte: gzip\r\n\r\n", &[200], Any),
    // Requests behind each other.
    ("two requests", "GET /web/a HTTP/1.1\r\nhost: localhost\r\n\r\nGET /web/b HTTP/1.1\r\nhost: localhost\r\n\r\n", &[200, 200], Any),
    ("body, then request", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nabGET /web/b HTTP/1.1\r\nhost: localhost\r\n\r\n", &[200, 200], Any),
    ("close, then request", "GET /web/a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\nGET /web/b HTTP/1.1\r\nhost: localhost\r\n\r\n", &[200], Closed),
    ("refused, then request", "GET /web/a HTTP/1.1\r\nhost: b c\r\n\r\nGET /web/b HTTP/1.1\r\nhost: localhost\r\n\r\n", &[400], Closed),
    ("tunnel, then request", "CONNECT localhost:80 HTTP/1.1\r\nhost: localhost:80\r\n\r\nGET /web/b HTTP/1.1\r\nhost: localhost\r\n\r\n", &[501], Closed),
    ("two framings, then request", "POST /web/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /web/b HTTP/1.1\r\nhost: localhost\r\n\r\n", &[200], Closed),
];

/// Bodies in chunks (RFC 9112, section 7.1), behind the head `CHUNKS`.
const CHUNKS: &str =
    "POST /web/a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
const BODIES: &[WireCase] = &[
    ("one chunk", "3\r\nabc\r\n0\r\n\r\n", &[200], Any),
    (
        "size in capitals",
        "A\r\n0123456789\r\n0\r\n\r\n",
        &[200],
        Any,
    ),
    ("leading zeros", "0003\r\nabc\r\n000\r\n\r\n", &[200], Any),
    (
        "extension",
        "3;a=b;c=\"d\"\r\nabc\r\n0\r\n\r\n",
        &[200],
        Any,
    ),
    ("trailers", "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n", &[200], Any),
    (
        "request behind",
        "0\r\n\r\nGET /web/b HTTP/1.1\r\nhost: localhost\r\n\r\n",
        &[200, 200],
        Any,
    ),
    (
        "size with a prefix",
        "0x3\r\nabc\r\n0\r\n\r\n",
        &[400],
        Closed,
    ),
    ("size with a sign", "+3\r\nabc\r\n0\r\n\r\n", &[400], Closed),
    ("negative size", "-1\r\nabc\r\n0\r\n\r\n", &[400], Closed),
    ("no size", "\r\nabc\r\n0\r\n\r\n", &[400], Closed),
    ("size is no number", "g\r\nabc\r\n0\r\n\r\n", &[400], Closed),
    (
        "huge size",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        &[400],
        Closed,
    ),
    (
        "space in the size",
        "3 3\r\nabc\r\n0\r\n\r\n",
        &[400],
        Closed,
    ),
    ("LF behind the size", "3\nabc\r\n0\r\n\r\n", &[400], Closed),
    ("CR behind the size", "3\rabc\r\n0\r\n\r\n", &[400], Closed),
    (
        "LF in an extension",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        &[400],
        Closed,
    ),
    ("chunk too long", "3\r\nabcd\r\n0\r\n\r\n", &[400], Closed),
    ("chunk too short", "4\r\nabc\r\n0\r\n\r\n", &[400], Closed),
    ("LF behind a chunk", "3\r\nabc\n0\r\n\r\n", &[400], Closed),
];

/// Reads answers until there are as many as expected, or the connection ends.
struct AnswerReader {
    stream: TcpStream,
    read: Vec<u8>,
}

impl AnswerReader {
    /// Returns false at the end of the connection; a reset counts as the end.
    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let reading = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        let read = reading.expect("no answer, and no end").unwrap_or(0);
        self.read.extend_from_slice(&buffer[..read]);
        read > 0
    }

    /// Returns the status of the next answer, after reading it whole.
    async fn next(&mut self) -> Option<u16> {
        let end = loop {
            let text = String::from_utf8_lossy(&self.read);
            if let Some(end) = text.find("\r\n\r\n") {
                break end + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).to_lowercase();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        assert!(
            !head.contains("transfer-encoding"),
            "an answer without a length: {head}"
        );
        while self.read.len() < end + length {
            assert!(self.more().await, "the answer was cut off: {head}");
        }
        self.read.drain(..end + length);
        Some(status)
    }
}

/// Returns what does not hold in a case.
async fn differs(
    bed: &Bed,
    (name, bytes, statuses, after): WireCase,
    head: &str,
) -> Option<String> {
    let mut stream = bed.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut reader = AnswerReader {
        stream,
        read: Vec::new(),
    };
    let mut seen = Vec::new();
    while seen.len() < statuses.len() {
        match reader.next().await {
            Some(status) => seen.push(status),
            None => break,
        }
    }
    if seen != statuses {
        return Some(format!("{name}: {seen:?} instead of {statuses:?}"));
    }
    if after == Closed {
        let more = reader.next().await;
        if more.is_some() || !reader.read.is_empty() {
            return Some(format!("{name}: another answer, {more:?}"));
        }
    }
    None
}

async fn whole() -> Upstream {
    Upstream::of(|request: Request| async move {
        let body = axum::body::to_bytes(request.into_body(), 10_000).await;
        answer(if body.is_ok() { 200 } else { 400 }, "ok")
    })
    .await
}

#[tokio::test]
async fn edge_5_e7d_heads_are_read_as_the_rfc_says() {
    let upstream = whole().await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut wrong = Vec::new();
    for case in HEADS {
        let before = upstream.hits();
        wrong.extend(differs(&bed, *case, "").await);
        let good = case.2.iter().filter(|status| **status == 200).count();
        if upstream.hits() - before != good {
            wrong.push(format!("{}: the dependency saw it", case.0));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        HEADS.len()
    );
    bed.end().await;
}

#[tokio::test]
async fn edge_5_e7d_chunks_are_read_as_the_rfc_says() {
    let upstream = whole().await;
    let text = "breaker = { failure_threshold = \"off\" }";
    let bed = Bed::new(&upstream.url(), text).await;
    let mut wrong = Vec::new();
    for case in BODIES {
        wrong.extend(differs(&bed, *case, CHUNKS).await);
    }
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        BODIES.len()
    );
    bed.end().await;
}
