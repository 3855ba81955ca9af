//! Calls of many callers by one connection to a dependency that speaks HTTP/2.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::h2c::serve_http2;
use super::wire_h2::frame;
use super::*;

/// Pieces of a long answer: more than the system's buffers of its caller take.
const LONG: usize = 2_000;

/// Serves a connection: a long answer at `/long`, a short one elsewhere. `sent`: number of pieces.
async fn serve_long(stream: TcpStream, sent: Arc<AtomicUsize>) {
    let piece = Bytes::from(vec![b'x'; 16_000]);
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (piece, pieces) = match request.uri().path() {
            "/long" => (piece.clone(), LONG),
            _ => (Bytes::from_static(b"short"), 1),
        };
        let sent = Arc::clone(&sent);
        let pieces = (0..pieces).map(move |_| {
            sent.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Frame::data(piece.clone()))
        });
        let body = StreamBody::new(stream::iter(pieces));
        std::future::ready(Ok::<_, Infallible>(http::Response::new(body)))
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // It ends with its caller.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// Makes calls one after the other, by one connection, so that one thread makes all of them. Returns
/// the statuses.
async fn ask(bed: &Bed, methods: &[&str]) -> Vec<u16> {
    let io = TokioIo::new(bed.connect().await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut statuses = Vec::new();
    for method in methods {
        let request = http::Request::builder().uri("/web/a").header("host", "a");
        let body = if *method == "POST" { "a body" } else { "" };
        let request = request.method(*method).body(Full::new(Bytes::from(body)));
        let response = sender.send_request(request.unwrap()).await.unwrap();
        statuses.push(response.status().as_u16());
        response.into_body().collect().await.unwrap();
    }
    statuses
}

/// Begins to serve a connection by HTTP/2.
async fn begin_http2(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    stream.write_all(&frame(4, 0, 0, &[])).await
}

/// Reads until the next request of a connection, and returns the number of its stream.
async fn next_request(stream: &mut TcpStream) -> std::io::Result<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(size).unwrap()];
        stream.read_exact(&mut payload).await?;
        match head[3] {
            4 if head[4] == 0 => stream.write_all(&frame(4, 1, 0, &[])).await?,
            1 => return Ok(u32::from_be_bytes([head[5], head[6], head[7], head[8]])),
            _ => {}
        }
    }
}

/// Serves this many requests of a connection by HTTP/2, and ends it as the next one comes: with GOAWAY,
/// as servers do that count the requests of a connection, or without a word.
async fn serve_some(mut stream: TcpStream, served: u32, goes_away: bool) -> std::io::Result<()> {
    begin_http2(&mut stream).await?;
    let mut requests = 0;
    loop {
        let number = next_request(&mut stream).await?;
        if requests == served {
            break;
        }
        requests += 1;
        stream.write_all(&frame(1, 5, number, &[0x88])).await?;
    }
    if goes_away {
        let last = (2 * served).saturating_sub(1).to_be_bytes();
        let payload = [last, [0; 4]].concat();
        stream.write_all(&frame(7, 0, 0, &payload)).await?;
    }
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

/// A gateway before such a server.
async fn ending(served: u32, goes_away: bool) -> (Upstream, Bed) {
    let upstream = Upstream::raw(move |stream, _| async move {
        // It ends with its caller.
        let _ = serve_some(stream, served, goes_away).await;
    })
    .await;
    let text = "http_version = \"2\"\nbreaker = { failure_threshold = 100 }\n\
                retry = { max_attempts = 1 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    (upstream, bed)
}

#[tokio::test]
async fn call_2_a_request_that_an_orderly_server_has_left_goes_out_once_more() {
    let (upstream, bed) = ending(2, true).await;
    let statuses = ask(&bed, &["GET", "POST", "POST", "POST", "GET", "GET"]).await;
    assert_eq!(statuses, [200; 6]);
    assert_eq!(upstream.hits(), 3);
    let status = bed.status();
    assert_eq!((status.window.failures, status.totals.attempts), (0, 6));
    bed.end().await;
}

#[tokio::test]
async fn edge_1_an_idle_connection_by_http2_that_closes_on_reuse_is_no_failure() {
    let (upstream, bed) = ending(1, false).await;
    // A POST may have been executed, and is not sent again.
    let statuses = ask(&bed, &["GET", "GET", "GET", "POST", "GET"]).await;
    assert_eq!(statuses, [200, 200, 200, 502, 200]);
    assert_eq!(upstream.hits(), 4);
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn call_2_a_repetition_by_http2_that_finds_no_connection_takes_nothing_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        begin_http2(&mut stream).await?;
        let number = next_request(&mut stream).await?;
        stream.write_all(&frame(1, 5, number, &[0x88])).await?;
        // It reads the next request too, and goes away with it.
        next_request(&mut stream).await?;
        drop(listener);
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    });
    let text = "http_version = \"2\"\nretry = { max_attempts = 1 }\n";
    let bed = Bed::new(&url, text).await;
    assert_eq!(bed.get("/web/a").await.status(), 200);
    let told = problem(bed.get("/web/a").await, 502, "upstream-failed").await;
    assert_eq!(told["executed"], "maybe", "{told}");
    assert_eq!(told["cause"], "connection refused", "{told}");
    assert_eq!(bed.status().window.failures, 1);
    bed.end().await;
}

/// Refuses the streams of a connection: each first one of two, or all.
async fn refuse_some(mut stream: TcpStream, all: bool) -> std::io::Result<()> {
    begin_http2(&mut stream).await?;
    for request in 0.. {
        let number = next_request(&mut stream).await?;
        let answer = if all || request % 2 == 0 {
            frame(3, 0, number, &7_u32.to_be_bytes())
        } else {
            frame(1, 5, number, &[0x88])
        };
        stream.write_all(&answer).await?;
    }
    Ok(())
}

#[tokio::test]
async fn edge_1_e1d_a_refused_stream_goes_out_once_more_and_is_no_failure() {
    for (all, status, failures) in [(false, 200, 0), (true, 502, 2)] {
        let upstream = Upstream::raw(move |stream, _| async move {
            // It ends with its caller.
            let _ = refuse_some(stream, all).await;
        })
        .await;
        let text = "http_version = \"2\"\nbreaker = { failure_threshold = 100 }\n\
                    retry = { max_attempts = 1 }\n";
        let bed = Bed::new(&upstream.url(), text).await;
        assert_eq!(ask(&bed, &["GET", "POST"]).await, [status; 2]);
        assert_eq!(bed.status().window.failures, failures);
        assert_eq!(bed.status().totals.attempts, 2);
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_1_a_server_that_leaves_every_connection_fails() {
    let (upstream, bed) = ending(0, true).await;
    assert_eq!(ask(&bed, &["GET", "POST"]).await, [502; 2]);
    assert_eq!(upstream.hits(), 4);
    assert_eq!(bed.status().window.failures, 2);
    bed.end().await;
}

#[tokio::test]
async fn edge_4_callers_that_do_not_read_hold_up_no_other_call_of_their_connection() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let upstream = Upstream::raw(move |stream, _| serve_long(stream, Arc::clone(&count))).await;
    let text = "http_version = \"2\"\ntimeout = { idle = \"5s\" }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let mut deaf = Vec::new();
    for number in 1..=12 {
        let mut caller = bed.connect().await;
        let request = b"GET /web/long HTTP/1.1\r\nhost: a\r\n\r\n";
        caller.write_all(request).await.unwrap();
        deaf.push(caller);
        bed.until("it is in flight", |status| status.in_flight == number)
            .await;
    }
    // Until all buffers on the way are full.
    let mut before = 0;
    let full = async {
        while before == 0 || before != sent.load(Ordering::SeqCst) {
            before = sent.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, full).await.unwrap();
    assert!(before < 12 * LONG, "they are not deaf");
    for _ in 0..8 {
        // A connection of its own: each thread of the gateway has its turn.
        let mut caller = bed.connect().await;
        let request = b"GET /web/short HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        caller.write_all(request).await.unwrap();
        let mut answer = String::new();
        let reading = caller.read_to_string(&mut answer);
        tokio::time::timeout(PATIENCE, reading)
            .await
            .unwrap()
            .unwrap();
        assert!(answer.contains("short"), "{answer}");
    }
    assert_eq!(bed.status().window.failures, 0);
    drop(deaf);
    bed.end().await;
}

#[tokio::test]
async fn edge_1_a_connection_that_has_fallen_silent_is_given_up() {
    let upstream = Upstream::raw(|mut stream, number| async move {
        if number > 0 {
            return serve_http2(stream).await;
        }
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let text = "http_version = \"2\"\ntimeout = { first_byte = \"100ms\" }\n\
                breaker = { failure_threshold = 100 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let statuses = ask(&bed, &["GET"; 4]).await;
    assert_eq!(statuses, [504, 504, 200, 200]);
    assert_eq!(upstream.hits(), 2);
    bed.end().await;
}

#[tokio::test]
async fn cfg_2_a_changed_time_of_idle_connections_holds_by_http2_too() {
    let upstream = Upstream::raw(|stream, _| serve_http2(stream)).await;
    let text = |keep: &str| {
        format!(
            "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\nhttp_version = \"2\"\n\
             timeout = {{ keep = \"{keep}\" }}\n",
            upstream.url()
        )
    };
    let bed = Bed::of(&text("1m")).await;
    // By one connection, so that one thread makes all calls.
    let io = TokioIo::new(bed.connect().await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut ask = async || {
        let request = http::Request::builder().uri("/web/a").header("host", "a");
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    };
    ask().await;
    ask().await;
    assert_eq!(upstream.hits(), 1);
    let settings = Settings::loader().bare().toml(text("1ms")).load().unwrap();
    let changed = &settings.dependencies["web"];
    let url = upstream.url();
    let put = bed.gateway.put("web", changed, &url, "test").await;
    put.unwrap();
    let until_new = async {
        while upstream.hits() < 4 {
            ask().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, until_new).await;
    assert!(seen.is_ok(), "its connections are kept as before");
    bed.end().await;
}

/// Serves one stream of a connection at a time: it answers the first request, and no other.
async fn serve_one_at_a_time(mut stream: TcpStream) -> std::io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    let one_stream = [0, 3, 0, 0, 0, 1];
    stream.write_all(&frame(4, 0, 0, &one_stream)).await?;
    let number = next_request(&mut stream).await?;
    stream.write_all(&frame(1, 5, number, &[0x88])).await?;
    loop {
        next_request(&mut stream).await?;
    }
}

#[tokio::test]
async fn call_2_what_waits_for_a_place_on_a_connection_was_not_executed() {
    let upstream = Upstream::raw(|stream, _| async move {
        // It ends with its caller.
        let _ = serve_one_at_a_time(stream).await;
    })
    .await;
    let text = "http_version = \"2\"\ntimeout = { first_byte = \"20s\" }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    // By one connection, so that one thread makes all calls.
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let mut ask = |millis: &str| {
        let request = http::Request::post(bed.url("/web/a"));
        let request = request.header("breakerbox-deadline-ms", millis);
        let request = request.body(Full::new(Bytes::new())).unwrap();
        tokio::spawn(sender.send_request(request))
    };
    let first = ask("20000").await.unwrap().unwrap();
    assert_eq!(first.status(), 200);
    // One has the place, and one the next; the third is still with the gateway.
    let mut held = Vec::new();
    for number in 1..=2 {
        held.push(ask("20000"));
        bed.until("it waits", |status| status.in_flight == number)
            .await;
    }
    let third = ask("200").await.unwrap().unwrap();
    assert_eq!(third.status(), 504);
    let told = third.into_body().collect().await.unwrap().to_bytes();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["executed"], "no", "{told}");
    assert_eq!(upstream.hits(), 1);
    for one in held {
        one.abort();
    }
    drop(sender);
    bed.end().await;
}
