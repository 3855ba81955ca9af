//! Bounds before reading (rule EDGE-4): a place first, then the body, within one budget of bytes.

use super::*;

/// Answers `/hang` never, and every other request with its body.
async fn hanging() -> Upstream {
    Upstream::of(async |request: Request| {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        body.map_or_else(|_| answer(400, "cut"), IntoResponse::into_response)
    })
    .await
}

fn post(length: usize, more: &str) -> String {
    format!("POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{more}\r\n")
}

/// Sends a text on a new connection, which is kept open.
async fn sent(bed: &Bed, text: &str) -> TcpStream {
    let mut caller = bed.connect().await;
    caller.write_all(text.as_bytes()).await.unwrap();
    caller
}

/// Takes places with calls that get no answer.
async fn take_places(bed: &Bed, number: u32) -> Vec<TcpStream> {
    let mut callers = Vec::new();
    for _ in 0..number {
        callers.push(sent(bed, "GET /web/hang HTTP/1.1\r\nhost: a\r\n\r\n").await);
    }
    bed.until("the places are taken", |one| one.in_flight == number)
        .await;
    callers
}

const TWO_PLACES: &str = "bulkhead = { max_concurrent = 2, max_queue = 0 }";

#[tokio::test]
async fn edge_4_e6c_a_call_without_a_place_is_refused_before_its_body() {
    let upstream = hanging().await;
    let bed = Bed::new(&upstream.url(), TWO_PLACES).await;
    let held = take_places(&bed, 2).await;
    for _ in 0..100 {
        let mut caller = sent(&bed, &post(63_000, "expect: 100-continue\r\n")).await;
        let answer = read_to_end(&mut caller).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.contains("urn:breakerbox:overloaded"), "{answer}");
    }
    assert_eq!(bed.gateway.buffered().used, 0);
    assert_eq!(upstream.hits(), 2);
    drop(held);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_4_e6c_bodies_of_callers_who_wait_are_not_kept() {
    const CALLERS: usize = 800;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let (let_go, gone) = tokio::sync::watch::channel(false);
    let upstream = Upstream::of(move |request: Request| {
        let mut gone = gone.clone();
        async move {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            gone.wait_for(|gone| *gone).await.unwrap();
            body.unwrap().into_response()
        }
    })
    .await;
    let text = "bulkhead = { max_concurrent = 2, max_queue = 1000, max_wait = \"1m\" }\n\
                timeout = { total = \"1m\" }";
    let bed = Bed::new(&upstream.url(), text).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let mut caller = bed.connect().await;
        calls.spawn(async move {
            let request = post(63_000, "") + &"x".repeat(63_000);
            let (mut read, mut write) = caller.split();
            let sending = async { write.write_all(request.as_bytes()).await.unwrap() };
            let reading = async {
                let mut head = [0; 15];
                read.read_exact(&mut head).await.unwrap();
                String::from_utf8_lossy(&head).into_owned()
            };
            tokio::join!(sending, reading).1
        });
    }
    bed.until("all others wait", |one| one.queued as usize == CALLERS - 2)
        .await;
    let two_bodies = 126_000..=130_000;
    let used = bed.gateway.buffered().used;
    assert!(two_bodies.contains(&used), "{used}");
    let_go.send_replace(true);
    let mut most = 0;
    while let Some(answered) = calls.join_next().await {
        assert_eq!(answered.unwrap(), "HTTP/1.1 200 OK");
        most = most.max(bed.gateway.buffered().used);
    }
    // A body may outlive its place for a moment.
    assert!(most <= 10 * 64_000, "{most}");
    assert_eq!(bed.gateway.buffered().refused, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6b_a_refusal_comes_before_the_body() {
    let upstream = Upstream::of(|_| async { answer(500, "sick") }).await;
    for (text, status, code) in [
        ("breaker = { failure_threshold = 1 }", 503, "breaker-open"),
        (
            "breaker = { failure_threshold = 9 }\n\
             rate_limit = { rate = 1, per = \"1h\", burst = 1, max_wait = \"0s\" }",
            429,
            "rate-limited",
        ),
    ] {
        let bed = Bed::new(&upstream.url(), text).await;
        assert_eq!(bed.get("/web/a").await.status(), 500);
        // The caller waits for leave to send its body.
        for length in [100, 63_000, 5_000_000] {
            let mut caller = sent(&bed, &post(length, "expect: 100-continue\r\n")).await;
            let answer = read_to_end(&mut caller).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(answer.contains(code), "{answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
            assert!(answer.contains("\"executed\":\"no\""), "{answer}");
        }
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_4_e6b_a_refused_call_keeps_its_connection_if_its_body_has_come() {
    let upstream = Upstream::of(|_| async { answer(500, "sick") }).await;
    let bed = Bed::new(&upstream.url(), "breaker = { failure_threshold = 1 }").await;
    assert_eq!(bed.get("/web/a").await.status(), 500);
    let mut caller = bed.connect().await;
    for _ in 0..3 {
        let text = post(5, "") + "hello";
        caller.write_all(text.as_bytes()).await.unwrap();
        let answer = read_until(&mut caller, "\"code\":\"breaker-open\"}}").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6b_leave_to_send_comes_with_the_place() {
    let upstream = hanging().await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut caller = sent(&bed, &post(5, "expect: 100-continue\r\n")).await;
    read_until(&mut caller, "HTTP/1.1 100 Continue\r\n\r\n").await;
    bed.until("it has a place", |one| one.in_flight == 1).await;
    caller.write_all(b"hello").await.unwrap();
    let answer = read_until(&mut caller, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6b_a_dripping_body_ends_with_the_call_s_time() {
    let upstream = hanging().await;
    let text = "timeout = { total = \"500ms\" }\nbreaker = { failure_threshold = 1 }";
    let bed = Bed::new(&upstream.url(), text).await;
    for headers in ["", "breakerbox-deadline-ms: 300\r\n"] {
        let (mut read, mut write) = sent(&bed, &post(50_000, headers)).await.into_split();
        let dripping = tokio::spawn(async move {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut answer = [0; 12];
        let reading = read.read_exact(&mut answer);
        let came = tokio::time::timeout(PATIENCE, reading).await;
        came.expect("an answer in time").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
        dripping.abort();
    }
    bed.until("no place is held", |one| one.in_flight == 0)
        .await;
    let status = bed.status();
    assert_eq!((status.window.failures, status.tally.failures), (0, 0));
    assert_eq!(bed.gateway.buffered().used, 0);
    assert_eq!(upstream.hits(), 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6b_slow_bodies_leave_half_of_the_places() {
    let upstream = hanging().await;
    let bed = Bed::new(
        &upstream.url(),
        "bulkhead = { max_concurrent = 4, max_queue = 0 }",
    )
    .await;
    let half = post(1000, "") + "half";
    let mut callers = Vec::new();
    for number in 1..=10 {
        callers.push(sent(&bed, &half).await);
        bed.until("slow ones leave a place free", |one| {
            one.totals.attempts == number && one.in_flight <= 3
        })
        .await;
    }
    assert_eq!(bed.get("/web/a").await.status(), 200);
    // Those that still have a place may send the rest.
    let rest = "x".repeat(996);
    let (mut served, mut late) = (0, 0);
    for caller in &mut callers {
        // It may be closed by now.
        let _ = caller.write_all(rest.as_bytes()).await;
        let answer = read_until(caller, "\r\n\r\n").await;
        served += usize::from(answer.starts_with("HTTP/1.1 200 "));
        late += usize::from(answer.starts_with("HTTP/1.1 408 "));
    }
    assert!(
        (1..=3).contains(&served) && served + late == 10,
        "{served}, {late}"
    );
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

/// Fails twice, then answers with the body.
async fn failing_twice() -> Upstream {
    let failed = AtomicUsize::new(0);
    let failed = Arc::new(failed);
    Upstream::of(move |request: Request| {
        let fails = failed.fetch_add(1, Ordering::SeqCst) < 2;
        async move {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            match fails {
                true => answer(503, "not yet"),
                false => body.unwrap().into_response(),
            }
        }
    })
    .await
}

const RETRY: &str = "idempotent = [\"PUT\"]\nbreaker = { failure_threshold = 100 }\n\
    retry = { max_attempts = 3, backoff = { base = \"1ms\", max = \"2ms\" } }";

#[tokio::test]
async fn edge_4_e6b_a_kept_body_of_unknown_length_is_sent_again() {
    let upstream = failing_twice().await;
    let bed = Bed::new(&upstream.url(), RETRY).await;
    let head = "PUT /web/a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut caller = sent(&bed, &format!("{head}4\r\none \r\n")).await;
    bed.until("it has a place", |one| one.in_flight == 1).await;
    assert_eq!(upstream.hits(), 0, "it is read before it is sent");
    caller.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    let answer = read_until(&mut caller, "one two").await;
    assert!(answer.contains("breakerbox-attempts: 3\r\n"), "{answer}");
    assert_eq!(bed.gateway.buffered().used, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6b_a_call_whose_body_is_on_its_way_is_not_hedged() {
    let upstream = hanging().await;
    let text = "idempotent = [\"PUT\"]\nhedge = { delay = \"20ms\" }";
    let bed = Bed::new(&upstream.url(), text).await;
    let head = "PUT /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\none ";
    let mut caller = sent(&bed, head).await;
    bed.until("it has a place", |one| one.in_flight == 1).await;
    // Several times the delay of a hedge.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(bed.status().in_flight, 1);
    caller.write_all(b"two").await.unwrap();
    let answer = read_until(&mut caller, "one two").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6b_a_body_that_was_passed_on_keeps_the_answer_it_got() {
    let upstream = failing_twice().await;
    let text = format!("{RETRY}\n[gateway]\nmax_replay_body = 100");
    let bed = Bed::new(&upstream.url(), &text).await;
    let piece = "x".repeat(5000);
    let text = format!(
        "PUT /web/a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
         1388\r\n{piece}\r\n0\r\n\r\n"
    );
    let answer = read_until(&mut sent(&bed, &text).await, "not yet").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("breakerbox-attempts: 1\r\n"), "{answer}");
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6b_a_stand_in_gets_the_body_after_a_refusal() {
    let sick = Upstream::of(|_| async { answer(500, "sick") }).await;
    let spare = hanging().await;
    let bed = Bed::of(&format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\nbreaker = {{ failure_threshold = 1 }}\n\
         fallback = [{{ kind = \"dependency\", name = \"spare\", writes = true }}]\n\
         [dependencies.spare]\nkind = \"http\"\nurl = \"{}\"\n",
        sick.url(),
        spare.url()
    ))
    .await;
    // The first one fails after it was sent, the second one is refused by the open breaker.
    for _ in 0..2 {
        let response = bed.post("/web/a", "hello").await;
        assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
        assert_eq!(response.text().await.unwrap(), "hello");
    }
    assert_eq!((sick.hits(), spare.hits()), (1, 2));
    // A slow caller is no fault of the stand-in.
    let request = post(5, "breakerbox-deadline-ms: 200\r\n") + "he";
    let mut slow = sent(&bed, &request).await;
    let answer = read_to_end(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(bed.runtime.status("spare").unwrap().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6c_streams_of_http_2_are_refused_before_their_bodies() {
    use http_body_util::{BodyExt as _, Empty, StreamBody};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    type Boxed = http_body_util::combinators::BoxBody<bytes::Bytes, std::convert::Infallible>;
    let upstream = hanging().await;
    let bed = Bed::new(&upstream.url(), TWO_PLACES).await;
    let held = take_places(&bed, 2).await;
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let pieces = || {
        let piece = hyper::body::Frame::data(bytes::Bytes::from_static(&[b'x'; 10_000]));
        let one = futures_util::stream::iter([Ok(piece)]);
        futures_util::StreamExt::chain(one, futures_util::stream::pending())
    };
    for _ in 0..100 {
        let body: Boxed = StreamBody::new(pieces()).boxed();
        let request = http::Request::post(bed.url("/web/a")).body(body).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 503);
    }
    assert_eq!(bed.gateway.buffered().used, 0);
    drop(held);
    bed.until("the places are free", |one| one.in_flight == 0)
        .await;
    let request = http::Request::get(bed.url("/web/a"));
    let request = request.body(Empty::new().boxed()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    drop((response, sender));
    connection.await.unwrap().unwrap();
    bed.end().await;
}
