//! Callers who are hostile, or just unlucky, against places, bodies, stand-ins and tunnels.

use super::*;

/// A server that answers each request once its body has come.
async fn counting() -> Upstream {
    Upstream::of(async |request: Request| {
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        match body {
            Ok(body) => body.len().to_string().into_response(),
            Err(_) => answer(400, "cut"),
        }
    })
    .await
}

/// Sends a text on a new connection, which is kept open.
async fn sent(bed: &Bed, text: &str) -> TcpStream {
    let mut caller = bed.connect().await;
    caller.write_all(text.as_bytes()).await.unwrap();
    caller
}

const LENGTH: &str = "content-length: 200000";
const CHUNKED: &str = "transfer-encoding: chunked";

fn upload(framing: &str, more: &str) -> String {
    format!("POST /web/a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{framing}\r\n{more}\r\n")
}

#[tokio::test]
async fn edge_4_e6b_long_bodies_that_come_slowly_leave_places_to_others() {
    let upstream = counting().await;
    let text = "bulkhead = { max_concurrent = 4, max_queue = 0 }\n";
    for (framing, first) in [
        (LENGTH, ""),
        (CHUNKED, ""),
        (LENGTH, "xxxxxxxx"),
        (CHUNKED, "8\r\nxxxxxxxx\r\n"),
    ] {
        let bed = Bed::new(&upstream.url(), text).await;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(sent(&bed, &(upload(framing, "") + first)).await);
        }
        // While another call needs a place, half of them may be slow.
        let given_back =
            |one: &DependencyStatus| (2..4).contains(&one.in_flight) && one.totals.submitted == 4;
        bed.until("a place is given back", given_back).await;
        assert_eq!(bed.get("/web/a").await.status(), 200);
        let status = bed.status();
        assert_eq!((status.counts.failure, status.window.failures), (0, 0));
        let mut refused = 0;
        for caller in &mut held {
            let mut piece = [0; 12];
            let reading = caller.read_exact(&mut piece);
            let read = tokio::time::timeout(Duration::from_millis(50), reading).await;
            refused += usize::from(read.is_ok() && piece == *b"HTTP/1.1 408");
        }
        assert!((1..=2).contains(&refused), "{framing}: {refused}");
        drop(held);
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_4_e6b_a_body_that_comes_behind_its_head_costs_no_call() {
    let upstream = counting().await;
    // Longer than a distant caller needs; then longer than a body may be slow where places are short.
    for (places, pause) in [(4, 400), (5, 1_300)] {
        let text = format!("bulkhead = {{ max_concurrent = {places}, max_queue = 0 }}\n");
        let bed = Bed::new(&upstream.url(), &text).await;
        let mut callers = Vec::new();
        for number in 0..4 {
            let length = if number % 2 == 0 { 200 } else { 200_000 };
            let head = upload(&format!("content-length: {length}"), "");
            callers.push((sent(&bed, &head).await, length));
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        for (caller, length) in &mut callers {
            caller.write_all(&vec![b'x'; *length]).await.unwrap();
            let answer = read_to_end(caller).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_4_e6b_a_steady_upload_keeps_its_place_beside_slow_ones() {
    let upstream = counting().await;
    let text = "bulkhead = { max_concurrent = 4, max_queue = 0 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let mut steady = sent(&bed, &upload(LENGTH, "")).await;
    let mut slow = Vec::new();
    for turn in 0..100 {
        steady.write_all(&[b'x'; 2_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
        if turn % 10 == 1 && slow.len() < 3 {
            slow.push(sent(&bed, &upload(LENGTH, "")).await);
        }
    }
    let answer = read_to_end(&mut steady).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("200000"), "{answer}");
    drop(slow);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_streams_both_ways_may_be_silent_once_they_are_answered() {
    let upstream = Upstream::of(async |request: Request| Body::new(request.into_body())).await;
    let text = "bulkhead = { max_concurrent = 2, max_queue = 0 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let mut callers = Vec::new();
    for _ in 0..2 {
        let mut caller = sent(&bed, &upload(CHUNKED, "")).await;
        let piece = format!("400\r\n{}\r\n", "x".repeat(0x400));
        caller.write_all(piece.as_bytes()).await.unwrap();
        read_until(&mut caller, &"x".repeat(0x400)).await;
        callers.push(caller);
    }
    // Longer than a body may be slow.
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    for caller in &mut callers {
        caller.write_all(b"3\r\nend\r\n0\r\n\r\n").await.unwrap();
        read_until(caller, "3\r\nend\r\n0\r\n\r\n").await;
    }
    bed.until("both are answered", |one| one.totals.primary == 2)
        .await;
    bed.end().await;
}

#[tokio::test]
async fn edge_1_e1c_a_slow_body_is_no_failure_of_a_stand_in() {
    let first = Upstream::of(async |_| answer(500, "down")).await;
    let spare = counting().await;
    let bed = Bed::of(&format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\nbreaker = {{ failure_threshold = 1 }}\n\
         [[dependencies.web.fallback]]\nkind = \"dependency\"\nname = \"spare\"\nwrites = true\n\
         [dependencies.spare]\nkind = \"http\"\nurl = \"{}\"\nbreaker = {{ failure_threshold = 1 }}\n\
         timeout = {{ attempt = \"200ms\", first_byte = \"200ms\", total = \"20s\" }}\n",
        first.url(),
        spare.url()
    ))
    .await;
    assert_eq!(bed.get("/web/a").await.status(), 200);
    bed.until("it is open", |one| one.state.to_string() == "open")
        .await;
    // The first one is not asked, so its stand-in is the first to need the body.
    let mut caller = sent(&bed, &upload("content-length: 3000", "")).await;
    for _ in 0..6 {
        caller.write_all(&[b'x'; 500]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer = read_to_end(&mut caller).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.contains("breakerbox-source: fallback:spare\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("3000"), "{answer}");
    let spare = bed.runtime.status("spare").unwrap();
    assert_eq!((spare.counts.failure, spare.totals.trips), (0, 0));
    bed.end().await;
}

#[tokio::test]
async fn edge_3_trailers_of_a_kept_body_are_sent_with_each_attempt() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, number| {
        let got = read_until(&mut stream, "\r\nx-sum: 7\r\n\r\n").await;
        assert!(got.contains("\r\n5\r\nhello\r\n0\r\n"), "{got}");
        let status = if number == 0 { 500 } else { 200 };
        let text =
            format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let text = "retry = { max_attempts = 2, backoff = { base = \"1ms\" } }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let request = "POST /web/a HTTP/1.1\r\nhost: a\r\nidempotency-key: 1\r\ntrailer: x-sum\r\n\
                   transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n";
    let mut caller = bed.connect().await;
    // The whole of it was read: the connection can be used again.
    for attempts in [2, 1] {
        caller.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut caller, "\r\n\r\nok").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let attempts = format!("breakerbox-attempts: {attempts}\r\n");
        assert!(answer.contains(&attempts), "{answer}");
    }
    assert_eq!(upstream.hits(), 3);
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6f_a_tunnel_holds_its_callers_place_to_its_end() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        if !head.contains("upgrade: raw") {
            let text = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            return stream.write_all(text.as_bytes()).await.unwrap();
        }
        let head = "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0; 10]).await;
    })
    .await;
    let text = "[gateway]\nper_caller = { places = 1 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let upgrade = "GET /web/a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n";
    let mut tunnel = sent(&bed, upgrade).await;
    read_until(&mut tunnel, "\r\n\r\n").await;
    for _ in 0..3 {
        let mut second = sent(&bed, upgrade).await;
        let answer = read_until(&mut second, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    }
    tunnel.write_all(b"end").await.unwrap();
    assert_eq!(read_to_end(&mut tunnel).await, "");
    let gone = async { while bed.get("/web/a").await.status() != 200 {} };
    let given_back = tokio::time::timeout(PATIENCE, gone).await;
    assert!(given_back.is_ok(), "the place is kept for ever");
    bed.end().await;
}

/// Dependencies of which each is the fallback of the one before it. The last one is at an address of
/// its own.
fn chain(length: usize, down: &Upstream, last: &Upstream) -> String {
    let table = |number: usize| {
        let (url, rest) = match number + 1 == length {
            true => (last.url(), String::new()),
            false => (
                down.url(),
                format!(
                    "[[dependencies.c{number}.fallback]]\nkind = \"dependency\"\nname = \"c{}\"\n",
                    number + 1
                ),
            ),
        };
        format!("[dependencies.c{number}]\nkind = \"http\"\nurl = \"{url}\"\n{rest}")
    };
    (0..length).map(table).collect()
}

#[tokio::test]
async fn edge_4_a_chain_of_stand_ins_is_no_longer_than_the_stack_allows() {
    let down = Upstream::of(async |_| answer(500, "down")).await;
    let last = Upstream::of(async |_| answer(200, "last")).await;
    let bed = Bed::of(&chain(8, &down, &last)).await;
    let answer = bed.get("/c0/a").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), "last");
    assert_eq!((down.hits(), last.hits()), (7, 1));
    bed.end().await;
    for length in [9, 30] {
        let text = chain(length, &down, &last);
        let told = Settings::loader().bare().toml(&text).load().unwrap_err();
        let told = told.to_string();
        let expected = format!(
            "dependencies.c{}.fallback[0].name: given \"c{}\", a chain of 9 dependencies, allowed: \
             at most 8, each the fallback of the one before it",
            length - 9,
            length - 8
        );
        assert!(told.contains(&expected), "{told}");
        assert_eq!(told.matches("a chain of").count(), 1, "{told}");
    }
}

#[tokio::test]
async fn edge_4_a_flood_of_interim_answers_holds_up_no_other_call() {
    let flood = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        let heads = "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n".repeat(2_000);
        while stream.write_all(heads.as_bytes()).await.is_ok() {}
    })
    .await;
    let other = counting().await;
    let bed = Bed::of(&format!(
        "[gateway]\nthreads = 1\n\
         [dependencies.web]\nkind = \"http\"\nurl = \"{}\"\nretry = {{ max_attempts = 1 }}\n\
         timeout = {{ attempt = \"4s\", first_byte = \"4s\" }}\n\
         [dependencies.other]\nkind = \"http\"\nurl = \"{}\"\n",
        flood.url(),
        other.url()
    ))
    .await;
    let mut flooded = sent(&bed, "GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n").await;
    bed.until("it is asked", |one| one.in_flight == 1).await;
    for _ in 0..5 {
        assert_eq!(bed.get("/other/a").await.status(), 200);
    }
    assert_eq!(bed.status().in_flight, 1, "the others waited for its end");
    let answer = read_until(&mut flooded, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    bed.end().await;
}

#[tokio::test]
async fn edge_1_a_probe_that_waits_for_its_caller_reopens_no_breaker() {
    let is_down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let seen = Arc::clone(&is_down);
    let upstream = Upstream::of(move |request: Request| {
        let is_down = seen.load(Ordering::SeqCst);
        async move {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            answer(if is_down || body.is_err() { 500 } else { 200 }, "")
        }
    })
    .await;
    let text = "breaker = { failure_threshold = 1, recovery_timeout = \"100ms\", \
                probe_lease = \"2s\", half_open_max_calls = 1 }\n\
                timeout = { attempt = \"1s\", first_byte = \"1s\", total = \"20s\" }\n\
                retry = { max_attempts = 1 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    for framing in ["content-length: 50000", LENGTH, CHUNKED] {
        is_down.store(true, Ordering::SeqCst);
        assert_eq!(bed.get("/web/a").await.status(), 500);
        is_down.store(false, Ordering::SeqCst);
        let trips = bed.status().totals.trips;
        bed.until("it is half-open", |one| {
            one.state.to_string() == "half_open"
        })
        .await;
        let mut slow = sent(&bed, &upload(framing, "")).await;
        let answer = read_until(&mut slow, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        // The slot is free again: the next call decides.
        assert_eq!(bed.get("/web/a").await.status(), 200, "{framing}");
        bed.until("it is closed", |one| one.state.to_string() == "closed")
            .await;
        assert_eq!(bed.status().totals.trips, trips);
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6b_slow_writes_leave_the_places_of_writes_to_others() {
    let upstream = counting().await;
    let text = "bulkhead = { max_concurrent = 32, max_concurrent_writes = 2, max_queue = 0 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    for framing in ["content-length: 50000", LENGTH] {
        let before = bed.status().totals.submitted;
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(sent(&bed, &upload(framing, "")).await);
        }
        let given_back =
            |one: &DependencyStatus| one.in_flight == 1 && one.totals.submitted == before + 2;
        bed.until("a place is given back", given_back).await;
        let write = bed.http.delete(bed.url("/web/a")).send().await.unwrap();
        assert_eq!(write.status(), 200);
        drop(held);
        bed.until("all have left", |one| one.in_flight == 0).await;
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_1_a_probe_whose_answer_is_read_slowly_reopens_no_breaker() {
    let is_down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let seen = Arc::clone(&is_down);
    let upstream = Upstream::of(move |_| {
        let is_down = seen.load(Ordering::SeqCst);
        async move {
            let mut response = vec![b'x'; if is_down { 1 } else { 30_000_000 }].into_response();
            let status = if is_down { 500 } else { 200 };
            *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap();
            response
        }
    })
    .await;
    let text = "breaker = { failure_threshold = 1, recovery_timeout = \"100ms\", \
                probe_lease = \"1s\", half_open_max_calls = 1 }\n\
                timeout = { attempt = \"1s\", first_byte = \"1s\", total = \"20s\" }\n\
                retry = { max_attempts = 1 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    assert_eq!(bed.get("/web/a").await.status(), 500);
    is_down.store(false, Ordering::SeqCst);
    bed.until("it is half-open", |one| {
        one.state.to_string() == "half_open"
    })
    .await;
    // It reads nothing.
    let caller = sent(&bed, "GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n").await;
    bed.until("it is closed", |one| one.state.to_string() == "closed")
        .await;
    let status = bed.status();
    assert_eq!((status.totals.trips, status.in_flight), (1, 1));
    drop(caller);
    bed.until("the caller has left", |one| one.totals.cancelled == 1)
        .await;
    bed.end().await;
}
