//! Retry hints of dependencies over HTTP: in every framing, coding and spelling, and never without
//! a cap.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::*;

const RETRY_INFO: &str = r#"{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"7s"}]}}"#;

/// An upstream that gives one answer, as bytes.
async fn says(bytes: Vec<u8>) -> Upstream {
    Upstream::raw(move |mut stream, _| {
        let bytes = bytes.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await
}

fn message(status: u16, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\n{lines}\r\n");
    [head.as_bytes(), body].concat()
}

/// Asks once, and returns the length of the pause that follows.
async fn pause_after(bytes: Vec<u8>) -> Option<Duration> {
    let upstream = says(bytes).await;
    let bed = Bed::new(&upstream.url(), "").await;
    bed.get("/web/a").await.bytes().await.unwrap();
    let paused = bed.status().paused.map(|(_, left)| left);
    bed.end().await;
    paused
}

fn gzip(body: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn lim_1_e10b_a_hint_is_read_in_every_framing_and_coding() {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(RETRY_INFO.as_bytes()).unwrap();
    let zlib = zlib.finish().unwrap();
    let open = RETRY_INFO.strip_suffix('}').unwrap();
    let long = format!("{open},\"filler\":\"{}\"}}", "z".repeat(100_000));
    let halves = RETRY_INFO.split_at(40);
    let chunked = format!(
        "{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        halves.0.len(),
        halves.0,
        halves.1.len(),
        halves.1
    );
    let json = "content-type: application/json\r\n";
    for (what, lines, body) in [
        (
            "length",
            format!("{json}content-length: {}\r\n", RETRY_INFO.len()),
            RETRY_INFO.into(),
        ),
        (
            "chunked",
            format!("{json}transfer-encoding: chunked\r\n"),
            chunked.clone().into_bytes(),
        ),
        ("close", json.to_owned(), RETRY_INFO.into()),
        (
            "gzip",
            format!("{json}content-encoding: gzip\r\n"),
            gzip(RETRY_INFO),
        ),
        (
            "deflate",
            format!("{json}content-encoding: deflate\r\n"),
            zlib,
        ),
        (
            "problem",
            "content-type: application/problem+json; charset=utf-8\r\n".into(),
            RETRY_INFO.into(),
        ),
        (
            "text",
            "Content-Type: Text/JSON\r\n".into(),
            RETRY_INFO.into(),
        ),
        (
            "list",
            json.to_owned(),
            format!("[{RETRY_INFO}]").into_bytes(),
        ),
        ("long", json.to_owned(), long.into_bytes()),
        (
            "nested",
            json.to_owned(),
            br#"{"error":{"retry_after":7}}"#.to_vec(),
        ),
    ] {
        let paused = pause_after(message(429, &lines, &body)).await;
        let paused = paused.unwrap_or_default();
        assert!(paused > Duration::from_millis(6_000), "{what}: {paused:?}");
    }
}

#[tokio::test]
async fn lim_1_e10b_a_body_that_drips_does_not_hold_its_answer() {
    let upstream = Upstream::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "content-type: application/json\r\nretry-after: 60\r\n\
                    transfer-encoding: chunked\r\n";
        stream
            .write_all(&message(429, head, b"1\r\n{\r\n"))
            .await
            .unwrap();
        read_to_end(&mut stream).await;
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let asked = tokio::time::timeout(Duration::from_secs(4), bed.get("/web/a")).await;
    assert_eq!(asked.expect("it comes soon").status(), 429);
    let (_, left) = bed.status().paused.expect("its header counts");
    assert!(left > Duration::from_secs(50), "{left:?}");
    bed.end().await;
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn lim_1_e10a_no_hint_is_believed_beyond_a_day() {
    let epoch = "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 9999999999\r\n";
    for line in [
        "retry-after: 31536000\r\n",
        "retry-after: 18446744073709551615\r\n",
        "retry-after: 99999999999999999999999999\r\n",
        "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
        "retry-after-ms: 18446744073709551615\r\n",
        epoch,
    ] {
        let paused = pause_after(message(429, line, b"")).await.expect("a pause");
        assert!(paused <= DAY, "{line}: {paused:?}");
        assert!(paused > DAY - PATIENCE, "{line}: {paused:?}");
        let upstream = says(message(503, line, b"")).await;
        let bed = Bed::new(&upstream.url(), "breaker = { failure_threshold = 1 }").await;
        bed.get("/web/a").await;
        let refused = problem(bed.get("/web/a").await, 503, "breaker-open").await;
        let wait = refused["retry_after_ms"].as_u64().unwrap();
        // Its end is rounded up to a whole millisecond.
        assert!((86_000_000..=86_400_001).contains(&wait), "{line}: {wait}");
        let events = bed.runtime.events_since(0).into_iter();
        let told = events.filter(|event| event.kind.to_string().ends_with("believed 24 h"));
        assert_eq!(told.count(), 1, "{line}");
        bed.end().await;
    }
}

#[tokio::test]
async fn lim_1_e10a_the_cap_is_a_setting_and_the_event_tells_what_was_cut() {
    let upstream = says(message(429, "retry-after: 31536000\r\n", b"")).await;
    let bed = Bed::new(&upstream.url(), "throttle = { max = \"90s\" }").await;
    bed.get("/web/a").await;
    let paused = problem(bed.get("/web/a").await, 429, "rate-limited").await;
    assert!(
        paused["retry_after_ms"].as_u64().unwrap() <= 90_000,
        "{paused}"
    );
    let events = bed.runtime.events_since(0);
    let texts: Vec<String> = events.iter().map(|event| event.kind.to_string()).collect();
    let told = "(it asked for 370 d, believed 90 s)";
    assert!(texts.iter().any(|text| text.ends_with(told)), "{texts:?}");
    bed.end().await;
}

#[tokio::test]
async fn lim_1_e10c_a_throttle_pauses_the_key_of_its_call() {
    let upstream = Upstream::of(async |request: Request| {
        if request.uri().path() == "/much" {
            let mut response = answer(429, "less");
            let wait = axum::http::HeaderValue::from_static("60");
            response.headers_mut().insert("retry-after", wait);
            return response;
        }
        answer(200, "good")
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let ask = async |path: &str, key: &str| {
        let request = bed.http.get(bed.url(path));
        let response = request.header("breakerbox-key", key).send().await;
        response.unwrap().status().as_u16()
    };
    assert_eq!(ask("/web/much", "alice").await, 429);
    assert_eq!(ask("/web/a", "alice").await, 429, "its own key is paused");
    assert_eq!(ask("/web/a", "bob").await, 200, "another is not");
    assert_eq!(
        bed.get("/web/a").await.status(),
        200,
        "nor a call without one"
    );
    assert_eq!(bed.status().paused, None);
    assert_eq!(bed.get("/web/much").await.status(), 429);
    assert_eq!(ask("/web/a", "bob").await, 429, "without a key, all are");
    assert!(bed.status().paused.is_some());
    bed.end().await;
}
