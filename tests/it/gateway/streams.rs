//! Streaming bodies in both directions: in pieces, with back-pressure, and never a truncated body
//! as a complete one.

use std::sync::Mutex;

use super::*;

#[tokio::test]
async fn a_piece_of_an_answer_arrives_before_the_next_is_made() {
    let (feed, body) = fed();
    let body = Arc::new(Mutex::new(Some(body)));
    let upstream = Upstream::of(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async move { ([("content-type", "text/event-stream")], body) }
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    feed.send("data: 1\n\n").await.unwrap();
    let mut response = bed.get("/web/events").await;
    assert_eq!(header(&response, "breakerbox-source"), "primary");
    for (now, next) in [
        ("data: 1\n\n", "data: 2\n\n"),
        ("data: 2\n\n", "data: 3\n\n"),
    ] {
        assert_eq!(response.chunk().await.unwrap().unwrap(), now);
        assert_eq!(bed.status().in_flight, 1, "it keeps its place");
        feed.send(next).await.unwrap();
    }
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 3\n\n");
    drop(feed);
    assert_eq!(response.chunk().await.unwrap(), None);
    bed.until("a success", |one| {
        one.totals.primary == 1 && one.in_flight == 0
    })
    .await;
    bed.end().await;
}

#[tokio::test]
async fn a_piece_of_a_request_arrives_before_the_next_is_sent() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::of(move |request: Request| {
        let told = told.clone();
        async move {
            let mut pieces = request.into_body().into_data_stream();
            while let Some(piece) = futures_util::StreamExt::next(&mut pieces).await {
                told.send(piece.unwrap()).unwrap();
            }
            "done"
        }
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut caller = bed.connect().await;
    let head = "POST /web/up HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    caller.write_all(head.as_bytes()).await.unwrap();
    for piece in ["first", "later"] {
        let chunk = format!("5\r\n{piece}\r\n");
        caller.write_all(chunk.as_bytes()).await.unwrap();
        assert_eq!(seen.recv().await.unwrap(), piece);
    }
    caller.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_until(&mut caller, "done").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    bed.end().await;
}

/// Bytes that the upstream could send before back-pressure stopped it.
async fn settled(made: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    loop {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let now = made.load(Ordering::SeqCst);
        if now == before {
            return now;
        }
        before = now;
    }
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_the_dependency_up() {
    const PIECE: usize = 64 * 1024;
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let upstream = Upstream::of(move |_| {
        let counted = Arc::clone(&counted);
        let pieces = futures_util::stream::repeat_with(move || {
            counted.fetch_add(PIECE, Ordering::SeqCst);
            Ok::<_, std::io::Error>(vec![b'x'; PIECE])
        });
        async move { Body::from_stream(pieces) }
    })
    .await;
    let bed = Bed::new(
        &upstream.url(),
        "timeout = { attempt = \"off\", total = \"off\" }",
    )
    .await;
    let mut caller = bed.connect().await;
    let head = "GET /web/endless HTTP/1.1\r\nhost: a\r\n\r\n";
    caller.write_all(head.as_bytes()).await.unwrap();
    let held = settled(&made).await;
    assert!(
        held < 32_000_000,
        "{held} bytes were taken of nobody's reading"
    );
    let mut sink = vec![0; 1024 * 1024];
    for _ in 0..64 {
        caller.read_exact(&mut sink).await.unwrap();
    }
    assert!(
        made.load(Ordering::SeqCst) > held,
        "it goes on with its reader"
    );
    drop(caller);
    bed.until("cancelled by its caller", |one| one.totals.cancelled == 1)
        .await;
    assert_eq!(bed.status().in_flight, 0);
    bed.end().await;
}

#[tokio::test]
async fn item_84_a_stalled_stream_keeps_its_items_and_is_not_retried() {
    let upstream = Upstream::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let items = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                     3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n";
        stream.write_all(items.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let text = "idempotent = [\"GET\"]\nretry = { max_attempts = 3 }\n\
                timeout = { idle = \"200ms\", first_byte = \"10s\", attempt = \"10s\", total = \"20s\" }";
    let bed = Bed::new(&upstream.url(), text).await;
    let mut response = bed.get("/web/items").await;
    assert_eq!(header(&response, "breakerbox-attempts"), "1");
    let mut items = Vec::new();
    let end = loop {
        match response.chunk().await {
            Ok(Some(piece)) => items.extend_from_slice(&piece),
            end => break end,
        }
    };
    assert_eq!(items, b"onetwothree");
    assert!(end.is_err(), "a part must not be taken for the whole");
    bed.until("a failure", |one| one.totals.failed == 1).await;
    assert_eq!(upstream.hits(), 1, "a delivered response is never repeated");
    assert_eq!(bed.status().window.failures, 1);
    bed.end().await;
}

#[tokio::test]
async fn item_84_a_failure_before_the_first_item_is_tried_again() {
    let upstream = Upstream::raw(|mut stream, number| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        if number > 0 {
            let whole = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
            stream.write_all(whole.as_bytes()).await.unwrap();
        }
    })
    .await;
    let text = "idempotent = [\"GET\"]\n\
                retry = { max_attempts = 3, backoff = { base = \"1ms\" } }";
    let bed = Bed::new(&upstream.url(), text).await;
    let response = bed.get("/web/items").await;
    assert_eq!(header(&response, "breakerbox-attempts"), "2");
    assert_eq!(response.text().await.unwrap(), "good");
    bed.end().await;
}

#[tokio::test]
async fn a_cut_answer_is_cut_for_the_caller_too() {
    for head in ["content-length: 9", "transfer-encoding: chunked"] {
        let upstream = Upstream::raw(move |mut stream, _| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let part = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n4\r\nhalf");
            stream.write_all(part.as_bytes()).await.unwrap();
        })
        .await;
        let text = "idempotent = [\"GET\"]\nretry = { max_attempts = 3 }\n\
                    fallback = [{ kind = \"stale_cache\" }]";
        let bed = Bed::new(&upstream.url(), text).await;
        let response = bed.get("/web/cut").await;
        assert_eq!(response.status(), 200);
        assert!(response.bytes().await.is_err(), "{head}");
        bed.until("a failure", |one| one.totals.failed == 1).await;
        assert_eq!(upstream.hits(), 1);
        // The response was not cached.
        drop(upstream);
        problem(bed.get("/web/cut").await, 502, "upstream-failed").await;
        bed.end().await;
    }
}

#[tokio::test]
async fn what_has_no_body_ends_well() {
    let upstream = Upstream::of(|request: Request| async move {
        match request.uri().path() {
            "/none" => answer(204, ""),
            "/empty" => answer(200, ""),
            _ => answer(200, "some text"),
        }
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let head = bed.http.head(bed.url("/web/some")).send().await.unwrap();
    assert_eq!(header(&head, "content-length"), "9");
    assert_eq!(bed.get("/web/none").await.status(), 204);
    assert_eq!(bed.get("/web/empty").await.text().await.unwrap(), "");
    assert_eq!(
        bed.get("/web/some").await.text().await.unwrap(),
        "some text"
    );
    bed.until("four successes", |one| one.totals.primary == 4)
        .await;
    assert_eq!(bed.status().totals.cancelled, 0);
    bed.end().await;
}
