//! Unsuccessful answers of a dependency: their slot and their limits to the last byte, and their
//! bytes, whatever their framing.

use std::sync::Mutex;

use tokio::time::Instant;

use super::*;

/// A body that the test sends piece by piece.
type Feed = tokio::sync::mpsc::Sender<&'static str>;

/// An upstream whose first answer is one with this status and a body that the test sends. All
/// later answers are good.
async fn open_error(status: u16) -> (Upstream, Feed) {
    let (feed, body) = fed();
    let body = Arc::new(Mutex::new(Some(body)));
    let upstream = Upstream::of(move |_| {
        let body = body.lock().unwrap().take();
        async move {
            let Some(body) = body else {
                return answer(200, "good");
            };
            let mut response = Response::new(body);
            *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap();
            response
        }
    });
    (upstream.await, feed)
}

const ONE_SLOT: &str = "bulkhead = { max_concurrent = 1, max_queue = 0, max_wait = \"0ms\" }\n";

#[tokio::test]
async fn edge_4_e6a_an_error_keeps_its_slot_to_its_last_byte() {
    for status in [500, 503, 429, 401, 404, 422] {
        let (upstream, feed) = open_error(status).await;
        let bed = Bed::new(&upstream.url(), ONE_SLOT).await;
        feed.send("first").await.unwrap();
        let mut response = bed.get("/web/a").await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.chunk().await.unwrap().unwrap(), "first");
        assert_eq!(bed.status().in_flight, 1, "{status}");
        let totals = bed.status().totals;
        assert_eq!((totals.failed, totals.cancelled), (0, 0), "{status}");
        if status != 429 {
            problem(bed.get("/web/b").await, 503, "overloaded").await;
        }
        feed.send("last").await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), "last");
        drop(feed);
        assert_eq!(response.chunk().await.unwrap(), None);
        bed.until("its end", |one| {
            one.in_flight == 0 && one.totals.failed + one.totals.primary == 1
        })
        .await;
        assert_eq!(upstream.hits(), 1);
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_4_e6a_an_error_whose_caller_leaves_gives_its_slot_back() {
    let (upstream, feed) = open_error(500).await;
    let bed = Bed::new(&upstream.url(), ONE_SLOT).await;
    feed.send("first").await.unwrap();
    let mut response = bed.get("/web/a").await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "first");
    drop(response);
    let is_over = |one: &DependencyStatus| one.in_flight == 0 && one.totals.failed == 1;
    bed.until("its end", is_over).await;
    assert_eq!(bed.get("/web/b").await.status(), 200);
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6a_the_breaker_learns_of_an_error_when_it_begins() {
    let (upstream, feed) = open_error(500).await;
    let text = format!("{ONE_SLOT}breaker = {{ failure_threshold = 1 }}\n");
    let bed = Bed::new(&upstream.url(), &text).await;
    let response = bed.get("/web/a").await;
    assert_eq!(response.status(), 500);
    assert_eq!(header(&response, "breakerbox-source"), "primary");
    let status = bed.status();
    assert_eq!(
        (status.in_flight, status.state.to_string().as_str()),
        (1, "open")
    );
    problem(bed.get("/web/b").await, 503, "breaker-open").await;
    feed.send("late").await.unwrap();
    drop(feed);
    assert_eq!(response.text().await.unwrap(), "late");
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6a_total_and_idle_hold_for_errors() {
    for (limits, drips) in [
        ("idle = \"10s\", total = \"700ms\"", true),
        ("idle = \"10s\", total = \"700ms\"", false),
        ("idle = \"300ms\", total = \"30s\"", false),
    ] {
        let upstream = Upstream::raw(move |mut stream, _| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let head = "HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut beat = tokio::time::interval(Duration::from_millis(50));
            loop {
                beat.tick().await;
                if drips && stream.write_all(b"1\r\nx\r\n").await.is_err() {
                    return;
                }
            }
        })
        .await;
        let text =
            format!("timeout = {{ attempt = \"600ms\", first_byte = \"600ms\", {limits} }}\n");
        let bed = Bed::new(&upstream.url(), &text).await;
        let began = Instant::now();
        let response = bed.get("/web/a").await;
        assert_eq!(response.status(), 500);
        assert!(response.bytes().await.is_err(), "it is cut, not ended");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(250), "{took:?}");
        assert!(took < Duration::from_secs(5), "{limits}: {took:?}");
        bed.until("its end", |one| one.in_flight == 0).await;
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_4_e6a_a_retry_needs_no_second_slot() {
    let (upstream, feed) = open_error(503).await;
    let text = format!(
        "{ONE_SLOT}idempotent = [\"GET\"]\n\
         retry = {{ max_attempts = 2, backoff = {{ base = \"1ms\", max = \"1ms\" }} }}\n"
    );
    let bed = Bed::new(&upstream.url(), &text).await;
    feed.send("first").await.unwrap();
    let response = bed.get("/web/a").await;
    assert_eq!(header(&response, "breakerbox-attempts"), "2");
    assert_eq!(response.text().await.unwrap(), "good");
    // The first exchange is over: its connection is closed.
    feed.closed().await;
    bed.until("its end", |one| one.in_flight == 0).await;
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6a_a_fallback_ends_an_error_that_still_comes() {
    let (upstream, feed) = open_error(500).await;
    let text = format!("{ONE_SLOT}fallback = [{{ kind = \"fixed\", body = \"spare\" }}]\n");
    let bed = Bed::new(&upstream.url(), &text).await;
    feed.send("first").await.unwrap();
    let response = bed.get("/web/a").await;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:fixed");
    assert_eq!(response.text().await.unwrap(), "spare");
    feed.closed().await;
    bed.until("its end", |one| {
        one.in_flight == 0 && one.totals.fallback == 1
    })
    .await;
    bed.end().await;
}

/// The bytes of an answer in one framing, cut into pieces of random sizes.
fn framed(framing: usize, status: u16, media: &str, body: &[u8]) -> Vec<Vec<u8>> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {media}\r\n");
    let mut sizes = std::iter::repeat_with(|| fastrand::usize(1..40_000));
    let mut pieces = vec![head.into_bytes()];
    pieces.push(match framing {
        0 => format!("content-length: {}\r\n\r\n", body.len()).into_bytes(),
        1 => b"transfer-encoding: chunked\r\n\r\n".to_vec(),
        _ => b"connection: close\r\n\r\n".to_vec(),
    });
    let mut rest = body;
    while !rest.is_empty() {
        let size = sizes.next().unwrap().min(rest.len());
        let (piece, behind) = rest.split_at(size);
        rest = behind;
        if framing == 1 {
            let size = format!("{:x}\r\n", piece.len()).into_bytes();
            pieces.push([&size, piece, b"\r\n"].concat());
        } else {
            pieces.push(piece.to_vec());
        }
    }
    if framing == 1 {
        pieces.push(b"0\r\n\r\n".to_vec());
    }
    pieces
}

#[tokio::test]
async fn edge_3_e10b_the_bytes_of_an_error_are_those_that_were_sent() {
    let current = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
    let served = Arc::clone(&current);
    let upstream = Upstream::raw(move |mut stream, _| {
        let pieces = served.lock().unwrap().clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            for piece in pieces {
                stream.write_all(&piece).await.unwrap();
                if fastrand::u8(..) < 40 {
                    tokio::task::yield_now().await;
                }
            }
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    let text = "breaker = { failure_threshold = \"off\" }\nclassify = { throttled = [] }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    for round in 0..120 {
        let edge = [0, 1, 1_000, 65_535, 65_536, 65_537, 200_000, 2_000_000];
        let size = edge[round % edge.len()] + fastrand::usize(0..3);
        let body: Vec<u8> = (0..size).map(|_| fastrand::u8(..)).collect();
        let status = [400, 401, 404, 429, 500, 503][round % 6];
        let media = ["application/json", "text/plain"][round % 2];
        let framing = round % 3;
        *current.lock().unwrap() = framed(framing, status, media, &body);
        let response = bed.get("/web/a").await;
        let told = (framing, size, status);
        assert_eq!(response.status().as_u16(), status, "{told:?}");
        let length = header(&response, "content-length").parse::<usize>().ok();
        assert!(length.is_none_or(|length| length == size), "{told:?}");
        let got = response.bytes().await;
        assert!(got.is_ok_and(|got| got == body), "{told:?}");
    }
    bed.until("the end", |one| one.in_flight == 0).await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e10b_an_error_that_breaks_off_is_no_whole_one() {
    for (framing, size) in [("content-length: 9", 4), ("transfer-encoding: chunked", 0)] {
        let upstream = Upstream::raw(move |mut stream, _| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let body = if size == 0 { "4\r\nhalf\r\n" } else { "half" };
            let text = format!("HTTP/1.1 429 No\r\nretry-after: 60\r\n{framing}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).await.unwrap();
        })
        .await;
        let bed = Bed::new(&upstream.url(), "").await;
        let mut response = bed.get("/web/a").await;
        assert_eq!(response.status(), 429, "what has come is passed on");
        assert_eq!(response.chunk().await.unwrap().unwrap(), "half");
        assert!(response.chunk().await.is_err(), "{framing}");
        let paused = bed.status().paused.expect("its hint counts");
        assert!(paused.1 > Duration::from_secs(50));
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_3_e10b_trailers_follow_an_error() {
    for size in [5, 90_000] {
        let upstream = Upstream::raw(move |mut stream, _| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let text = format!(
                "HTTP/1.1 500 No\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                 {size:x}\r\n{}\r\n0\r\nx-sum: 7\r\n\r\n",
                "Z".repeat(size)
            );
            stream.write_all(text.as_bytes()).await.unwrap();
            read_to_end(&mut stream).await;
        })
        .await;
        let bed = Bed::new(&upstream.url(), "").await;
        let mut caller = bed.connect().await;
        let head = "GET /web/a HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\n\r\n";
        caller.write_all(head.as_bytes()).await.unwrap();
        let seen = read_until(&mut caller, "x-sum: 7\r\n\r\n").await;
        assert_eq!(seen.matches('Z').count(), size, "{size}");
        bed.end().await;
    }
}
