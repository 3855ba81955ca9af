//! Requests that are retried, and those that never are.

use super::*;

/// An upstream that fails so many times, then echoes the request body.
async fn failing(times: usize) -> Upstream {
    let left = Arc::new(AtomicUsize::new(times));
    Upstream::of(move |request: Request| {
        let fails = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        async move {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            if fails {
                return answer(503, "not yet");
            }
            body.unwrap().into_response()
        }
    })
    .await
}

const RETRY: &str = "idempotent = [\"GET\", \"PUT\"]\nbreaker = { failure_threshold = 100 }\n\
    retry = { max_attempts = 3, backoff = { base = \"1ms\", max = \"2ms\" } }";

async fn send(bed: &Bed, method: &str, body: String, key: bool) -> (u16, String, usize) {
    let request = bed.http.request(method.parse().unwrap(), bed.url("/web/a"));
    let request = if key {
        request.header("idempotency-key", "0001")
    } else {
        request
    };
    let response = request.body(body).send().await.unwrap();
    let attempts = header(&response, "breakerbox-attempts").to_owned();
    let status = response.status().as_u16();
    (status, attempts, response.bytes().await.unwrap().len())
}

#[tokio::test]
async fn call_7_only_what_is_declared_idempotent_is_sent_again() {
    let cases = [
        ("GET", 0, false, (200, "3", 0)),
        ("PUT", 5, false, (200, "3", 5)),
        ("PUT", 1_000_000, false, (200, "3", 1_000_000)),
        ("PUT", 1_000_001, false, (503, "1", 7)),
        ("POST", 5, false, (503, "1", 7)),
        ("POST", 5, true, (200, "3", 5)),
        ("DELETE", 0, false, (503, "1", 7)),
    ];
    for (method, length, key, (status, attempts, answered)) in cases {
        let upstream = failing(2).await;
        let bed = Bed::new(&upstream.url(), RETRY).await;
        let got = send(&bed, method, "x".repeat(length), key).await;
        assert_eq!(
            got,
            (status, attempts.to_owned(), answered),
            "{method} of {length}"
        );
        assert_eq!(upstream.hits(), attempts.parse::<usize>().unwrap());
        bed.end().await;
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_kept_if_it_turns_out_to_be_short() {
    for (length, status, hits) in [(10, 200, 3), (1_100_000, 503, 1)] {
        let upstream = failing(2).await;
        let bed = Bed::new(&upstream.url(), RETRY).await;
        let mut caller = bed.connect().await;
        let text = "x".repeat(length);
        let request = format!(
            "PUT /web/a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\
             connection: close\r\n\r\n{length:x}\r\n{text}\r\n0\r\n\r\n"
        );
        caller.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut caller).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{length}: {answer}"
        );
        assert_eq!(upstream.hits(), hits);
        bed.end().await;
    }
}

#[tokio::test]
async fn the_last_answer_is_passed_on_when_no_attempt_is_left() {
    let upstream = failing(9).await;
    let bed = Bed::new(&upstream.url(), RETRY).await;
    let response = bed.get("/web/a").await;
    assert_eq!(response.status(), 503);
    assert_eq!(header(&response, "breakerbox-attempts"), "3");
    assert_eq!(response.text().await.unwrap(), "not yet");
    let totals = bed.status().totals;
    assert_eq!((totals.submitted, totals.failed), (1, 1));
    bed.end().await;
}

#[tokio::test]
async fn call_2_a_repetition_that_finds_no_connection_takes_nothing_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        // It reads the next request too, and goes away with it.
        read_until(&mut stream, "\r\n\r\n").await;
        drop(listener);
    });
    let bed = Bed::new(&url, "retry = { max_attempts = 1 }\n").await;
    assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "ok");
    let told = problem(bed.get("/web/a").await, 502, "upstream-failed").await;
    server.await.unwrap();
    assert_eq!(told["executed"], "maybe", "{told}");
    // Nothing listens there: that is a failure of the dependency.
    assert_eq!(told["cause"], "connection refused", "{told}");
    assert_eq!(bed.status().window.failures, 1);
    let told = problem(bed.get("/web/a").await, 502, "upstream-failed").await;
    assert_eq!(told["executed"], "no", "{told}");
    bed.end().await;
}
