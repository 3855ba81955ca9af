//! Callers that are too slow, too long or too many.

use super::*;

/// A test gateway with shorter limits.
async fn impatient(upstream: &Upstream, keys: &str) -> Bed {
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n\
         timeout = {{ attempt = \"30s\", first_byte = \"30s\", total = \"60s\" }}\n\
         breaker = {{ failure_threshold = 1 }}\n[gateway]\n{keys}\n",
        upstream.url()
    );
    Bed::of(&text).await
}

async fn echo() -> Upstream {
    Upstream::of(async |request: Request| {
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        body.map_or_else(|_| answer(400, "cut"), IntoResponse::into_response)
    })
    .await
}

#[tokio::test]
async fn sec_1_a_body_that_is_too_long_is_refused() {
    let upstream = echo().await;
    let bed = impatient(&upstream, "max_body = 100000").await;
    let told = problem(
        bed.post("/web/a", vec![b'x'; 100_001]).await,
        413,
        "body-too-large",
    );
    assert_eq!(told.await["executed"], "no");
    assert_eq!(upstream.hits(), 0, "its length was told before");
    let fits = bed.post("/web/a", vec![b'x'; 100_000]).await;
    assert_eq!(fits.bytes().await.unwrap().len(), 100_000);
    // The second body does not declare its length.
    let mut caller = bed.connect().await;
    let head = "POST /web/a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    caller.write_all(head.as_bytes()).await.unwrap();
    let piece = format!("c351\r\n{}\r\n", "x".repeat(0xc351));
    caller.write_all(piece.as_bytes()).await.unwrap();
    caller.write_all(piece.as_bytes()).await.unwrap();
    let answer = read_until(&mut caller, "body-too-large").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let status = bed.status();
    assert_eq!(
        (status.window.failures, status.state.to_string().as_str()),
        (0, "closed")
    );
    bed.end().await;
}

/// The response is sent before the body has arrived: the caller must still receive it.
#[tokio::test]
async fn an_answer_reaches_a_caller_who_is_still_sending() {
    let upstream = echo().await;
    let bed = impatient(&upstream, "max_body = 100000").await;
    for _ in 0..50 {
        let mut caller = bed.connect().await;
        let head = "POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: 3000000\r\n\r\n";
        caller.write_all(head.as_bytes()).await.unwrap();
        caller.write_all(&vec![b'x'; 3_000_000]).await.unwrap();
        let answer = read_to_end(&mut caller).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    bed.end().await;
}

#[tokio::test]
async fn sec_1_heads_are_limited_in_length_and_number() {
    let upstream = echo().await;
    let bed = impatient(&upstream, "max_head = 8192\nmax_headers = 20").await;
    let many: String = (0..21).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "x".repeat(9000));
    for lines in [many, long] {
        let mut caller = bed.connect().await;
        let head = format!("GET /web/a HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
        caller.write_all(head.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut caller).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    assert_eq!(upstream.hits(), 0);
    bed.end().await;
}

#[tokio::test]
async fn sec_1_a_head_that_does_not_end_ends_its_connection() {
    let upstream = echo().await;
    let bed = impatient(
        &upstream,
        "header_timeout = \"200ms\"\nidle_timeout = \"10s\"",
    )
    .await;
    let mut silent = bed.connect().await;
    let mut slow = bed.connect().await;
    slow.write_all(b"GET /web/a HTTP/1.1\r\nx-").await.unwrap();
    // A connection that was served once and then begins a second request.
    let mut second = bed.connect().await;
    second
        .write_all(b"GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut second, "\r\n\r\n").await;
    second.write_all(b"GET /web").await.unwrap();
    for caller in [&mut silent, &mut slow, &mut second] {
        assert_eq!(read_to_end(caller).await, "");
    }
    assert_eq!(bed.get("/web/a").await.status(), 200);
    bed.end().await;
}

#[tokio::test]
async fn sec_1_a_connection_without_a_request_is_closed_after_a_while_only() {
    let upstream = echo().await;
    let keys = "header_timeout = \"100ms\"\nidle_timeout = \"600ms\"";
    let bed = impatient(&upstream, keys).await;
    let mut caller = bed.connect().await;
    for _ in 0..2 {
        caller
            .write_all(b"GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut caller, "\r\n\r\n").await;
        // Longer than `header_timeout`, shorter than `idle_timeout`.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(read_to_end(&mut caller).await, "");
    bed.end().await;
}

#[tokio::test]
async fn sec_1_a_body_that_does_not_go_on_is_the_caller_s_fault() {
    let upstream = echo().await;
    let bed = impatient(&upstream, "body_timeout = \"150ms\"\nmax_replay_body = 100").await;
    // A short body is read before the dependency is called, a long one during the call.
    for length in [50, 5000] {
        let mut caller = bed.connect().await;
        let head =
            format!("POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nabc");
        caller.write_all(head.as_bytes()).await.unwrap();
        let answer = read_until(&mut caller, "request-timeout").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{length}: {answer}");
    }
    assert_eq!(bed.status().window.failures, 0);
    assert_eq!(
        bed.get("/web/a").await.status(),
        200,
        "the breaker is closed"
    );
    bed.end().await;
}

#[tokio::test]
async fn sec_1_a_slow_upload_is_not_blamed_on_the_dependency() {
    let upstream = echo().await;
    let text = "max_replay_body = 0";
    let bed = impatient(&upstream, text).await;
    let mut caller = bed.connect().await;
    let head = "POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\
                breakerbox-deadline-ms: 300\r\n\r\nabc";
    caller.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut caller, "urn:breakerbox").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn sec_1_a_caller_that_takes_no_answer_gives_its_place_back() {
    let upstream = Upstream::of(async |_| {
        let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 65_536]));
        Body::from_stream(pieces)
    })
    .await;
    let bed = impatient(&upstream, "send_timeout = \"200ms\"").await;
    let mut caller = bed.connect().await;
    caller
        .write_all(b"GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    bed.until("it is served", |one| one.in_flight == 1).await;
    bed.until("it is cut", |one| {
        one.totals.cancelled == 1 && one.in_flight == 0
    })
    .await;
    assert_eq!(bed.status().window.failures, 0);
    drop(caller);
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6f_a_call_ends_with_its_total_although_its_caller_takes_nothing() {
    let upstream = Upstream::of(async |request: Request| {
        let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 65_536]));
        let status = match request.method() == axum::http::Method::GET {
            true => axum::http::StatusCode::OK,
            false => axum::http::StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Body::from_stream(pieces))
    })
    .await;
    let limits = "timeout = { total = \"500ms\" }\nbreaker = { failure_threshold = \"off\" }";
    let bed = Bed::new(&upstream.url(), limits).await;
    // The caller's patience is the default of `send_timeout`, 30 s.
    for (method, failures) in [("GET", 0), ("DELETE", 1)] {
        let mut caller = bed.connect().await;
        let request = format!("{method} /web/a HTTP/1.1\r\nhost: a\r\n\r\n");
        caller.write_all(request.as_bytes()).await.unwrap();
        bed.until("it is served", |one| one.in_flight == 1).await;
        bed.until("it is cut", |one| one.in_flight == 0).await;
        assert_eq!(bed.status().tally.failures, failures, "{method}");
    }
    bed.end().await;
}

#[tokio::test]
async fn sec_1_callers_above_the_limit_wait_for_a_place() {
    let upstream = echo().await;
    let bed = impatient(&upstream, "max_connections = 2").await;
    let request = b"GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n";
    let (mut first, mut second) = (bed.connect().await, bed.connect().await);
    for caller in [&mut first, &mut second] {
        caller.write_all(request).await.unwrap();
        read_until(caller, "\r\n\r\n").await;
    }
    let mut third = bed.connect().await;
    third.write_all(request).await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), third.read(&mut byte)).await;
    assert!(early.is_err(), "there is no place for a third one");
    drop(first);
    read_until(&mut third, "\r\n\r\n").await;
    bed.end().await;
}

#[tokio::test]
async fn a_caller_who_goes_away_before_the_answer_is_cancelled() {
    let upstream = Upstream::of(async |_| std::future::pending::<&str>().await).await;
    let bed = impatient(&upstream, "").await;
    let mut caller = bed.connect().await;
    caller
        .write_all(b"GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    bed.until("it is in flight", |one| one.in_flight == 1).await;
    drop(caller);
    bed.until("it is cancelled", |one| {
        one.totals.cancelled == 1 && one.in_flight == 0
    })
    .await;
    bed.end().await;
}

/// A full queue would drop connections: the clients retry after a second, then ever more rarely,
/// and some do not connect in time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn many_callers_at_once_wait_in_the_systems_queue() {
    const MANY: usize = 500;
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let allowed: usize = allowed.trim().parse().unwrap();
    assert!(allowed > MANY, "the system has a queue of {allowed} only");
    let room = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(room > 2 * MANY as u64, "only {room} files may be open");
    let upstream = Upstream::of(|_| async { answer(200, "good") }).await;
    let bed = impatient(&upstream, "max_connections = 1").await;
    let mut first = bed.connect().await;
    let request = b"GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n";
    first.write_all(request).await.unwrap();
    read_until(&mut first, "good").await;
    // The gateway accepts no further connection, so none of these can have made room for another.
    let all = futures_util::future::join_all((0..MANY).map(|_| bed.connect()));
    let waiting = tokio::time::timeout(PATIENCE, all).await;
    let waiting = waiting.expect("each of them has its place in the queue");
    assert_eq!((waiting.len(), upstream.hits()), (MANY, 1));
    drop((first, waiting));
    bed.end().await;
}

#[tokio::test]
async fn edge_8_of_the_limits_of_a_slow_body_the_one_that_has_passed_is_told() {
    let upstream = echo().await;
    // Read whole before it is sent, and passed on as it comes.
    for kept in ["max_replay_body = 100000", "max_replay_body = 0"] {
        for (pause, deadline, cause) in [
            ("150ms", 20_000, "gateway.body_timeout"),
            ("20s", 150, "the time of the call"),
        ] {
            let bed = impatient(&upstream, &format!("body_timeout = \"{pause}\"\n{kept}")).await;
            let mut caller = bed.connect().await;
            let head = format!(
                "POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\
                 breakerbox-deadline-ms: {deadline}\r\n\r\nabc"
            );
            caller.write_all(head.as_bytes()).await.unwrap();
            let told = format!("\"cause\":\"{cause}\"");
            let answer = read_until(&mut caller, &told).await;
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            assert_eq!(bed.status().window.failures, 0);
            bed.end().await;
        }
    }
}

#[tokio::test]
async fn sec_1_a_target_that_is_too_long_is_answered() {
    let upstream = echo().await;
    for (max_head, length, status) in [(9_000, 20_000, 431), (200_000, 70_000, 414)] {
        let bed = impatient(&upstream, &format!("max_head = {max_head}")).await;
        let mut caller = bed.connect().await;
        let target = "a".repeat(length);
        let head = format!("GET /web/{target} HTTP/1.1\r\nhost: a\r\n\r\n");
        caller.write_all(head.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut caller).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        bed.end().await;
    }
    assert_eq!(upstream.hits(), 0);
}
