//! HTTP/2 without TLS, with prior knowledge.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::wire_h2::{Fields, block, frame, status};
use super::*;

#[tokio::test]
async fn calls_of_one_connection_run_side_by_side() {
    let (feed, body) = fed();
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let upstream = Upstream::of(move |request: Request| {
        let body = body
            .lock()
            .unwrap()
            .take_if(|_| request.uri().path() == "/slow");
        async move {
            match body {
                Some(body) => body.into_response(),
                None => axum::body::to_bytes(request.into_body(), 1000)
                    .await
                    .unwrap()
                    .into_response(),
            }
        }
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str, body: &'static str| {
        let request = http::Request::post(bed.url(path));
        request.body(Full::new(Bytes::from(body))).unwrap()
    };
    feed.send("first").await.unwrap();
    let slow = sender.send_request(request("/web/slow", "")).await.unwrap();
    let mut slow = slow.into_body();
    let piece = slow.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(piece, "first");
    let quick = sender.send_request(request("/web/quick", "hello")).await;
    let quick = quick.unwrap();
    assert_eq!(quick.headers()["breakerbox-source"], "primary");
    assert_eq!(
        quick.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
    let lost = sender.send_request(request("/nobody", "")).await.unwrap();
    assert_eq!(lost.status(), 404);
    assert_eq!(lost.headers()["content-type"], "application/problem+json");
    feed.send("last").await.unwrap();
    drop(feed);
    assert_eq!(slow.collect().await.unwrap().to_bytes(), "last");
    drop(sender);
    connection.await.unwrap().unwrap();
    bed.end().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_breaks_its_own_only() {
    let upstream = Upstream::raw(|mut stream, number| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let length = if number == 0 { 9 } else { 4 };
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nhalf");
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    for is_whole in [false, true] {
        let request = http::Request::get(bed.url("/web/a"));
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.is_ok(), is_whole);
    }
    drop(sender);
    connection.await.unwrap().unwrap();
    bed.end().await;
}

#[tokio::test]
async fn edge_3_trailers_that_http2_forbids_cost_no_caller_the_others() {
    let upstream = Upstream::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
                    connection: x\r\nkeep-alive: timeout=5\r\nupgrade: h2c\r\nx-sum: 1\r\n\r\n";
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(bed.url("/web/a")).header("te", "trailers");
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let read = response.into_body().collect().await.unwrap();
    let trailers = read.trailers().unwrap();
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    assert_eq!(trailers["x-sum"], "1");
    assert_eq!(read.to_bytes(), "ok");
    drop(sender);
    connection.await.unwrap().unwrap();
    bed.end().await;
}

/// Sends the head of an upload of this many bytes on a connection, and its first piece.
async fn begun_upload(
    sender: &mut hyper::client::conn::http2::SendRequest<Body>,
    url: String,
    (length, first): (usize, &'static str),
) -> (
    tokio::sync::mpsc::Sender<&'static str>,
    http::Response<hyper::body::Incoming>,
) {
    let (feed, body) = fed();
    let request = http::Request::post(url).header("content-length", length);
    let sending = sender.send_request(request.body(body).unwrap());
    feed.send(first).await.unwrap();
    (feed, sending.await.unwrap())
}

#[tokio::test]
async fn edge_3_an_upload_whose_end_comes_late_is_not_reset() {
    // Longer than what is kept, so that it is passed on as it comes.
    const LENGTH: usize = 100_000;
    let upstream = Upstream::of(async |request: Request| {
        let body = axum::body::to_bytes(request.into_body(), LENGTH).await;
        body.unwrap().len().to_string()
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let whole: &'static str = "x".repeat(LENGTH).leak();
    let (feed, response) = begun_upload(&mut sender, bed.url("/web/a"), (LENGTH, whole)).await;
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "100000");
    // A reset would come before the answer to the next request.
    let next = http::Request::get(bed.url("/web/a")).body(Body::empty());
    let next = sender.send_request(next.unwrap()).await.unwrap();
    assert_eq!(next.into_body().collect().await.unwrap().to_bytes(), "0");
    assert!(!feed.is_closed(), "it was reset");
    drop((feed, sender));
    connection.await.unwrap().unwrap();
    let totals = bed.status().totals;
    assert_eq!((totals.primary, totals.cancelled), (2, 0));
    bed.end().await;
}

#[tokio::test]
async fn edge_3_the_rest_of_a_request_is_read_after_an_early_answer() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        let text = b"HTTP/1.1 413 X\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
        stream.write_all(text).await.unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    for (path, status) in [("/web/a", 413), ("/nobody", 404)] {
        let (feed, response) = begun_upload(&mut sender, bed.url(path), (3_000_000, "first")).await;
        assert_eq!(response.status(), status);
        response.into_body().collect().await.unwrap();
        let next = http::Request::get(bed.url("/nobody")).body(Body::empty());
        let next = sender.send_request(next.unwrap()).await.unwrap();
        assert_eq!(next.status(), 404);
        let second: &'static str = "x".repeat(100_000).leak();
        feed.send(second).await.expect("the stream is not reset");
        // It ends without its caller too.
        let ended = tokio::time::timeout(PATIENCE, feed.closed()).await;
        assert!(ended.is_ok(), "{path} is read for ever");
    }
    drop(sender);
    connection.await.unwrap().unwrap();
    bed.end().await;
}

/// Sends one request without a body as frames. Returns the status of its answer and the length of its
/// content.
async fn ask(caller: &mut TcpStream, fields: Fields) -> (u16, usize) {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 5, 1, &block(fields)));
    caller.write_all(&bytes).await.unwrap();
    let (mut answered, mut length) = (0, 0);
    loop {
        let mut head = [0; 9];
        caller.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(size).unwrap()];
        caller.read_exact(&mut payload).await.unwrap();
        match head[3] {
            0 => length += payload.len(),
            1 => answered = status(&payload),
            _ => continue,
        }
        if head[4] & 1 == 1 {
            return (answered, length);
        }
    }
}

macro_rules! head_of {
    ($path:literal) => {
        &[
            (":method", "HEAD"),
            (":scheme", "http"),
            (":path", $path),
            (":authority", "localhost"),
        ]
    };
}

#[tokio::test]
async fn edge_3_an_answer_to_head_has_no_content_whose_ever_it_is() {
    let text = "fallback = [{ kind = \"fixed\", body = \"hello\", on = [\"failed\"] }]";
    let bed = Bed::new("http://127.0.0.1:1", text).await;
    for (fields, status) in [
        (head_of!("/web/a"), 200),
        (head_of!("/nobody/a"), 404),
        (head_of!("/web/../a"), 400),
        (head_of!("/"), 200),
        (head_of!("/.breakerbox/web/ready"), 200),
    ] {
        let mut caller = bed.connect().await;
        let answered = tokio::time::timeout(PATIENCE, ask(&mut caller, fields)).await;
        assert_eq!(answered.unwrap(), (status, 0), "{fields:?}");
    }
    bed.end().await;
}

#[tokio::test]
async fn sup_7_an_idle_connection_by_http2_holds_up_no_stop() {
    let upstream = Upstream::of(async |_| "ok").await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut caller = bed.connect().await;
    let answered = ask(&mut caller, head_of!("/web/a")).await;
    assert_eq!(answered, (200, 0));
    // The caller does not read: no answer comes to the question whether it has seen the end.
    let stopped = tokio::time::timeout(PATIENCE, bed.end()).await;
    assert!(stopped.is_ok(), "less than gateway.shutdown");
    let mut rest = Vec::new();
    caller.read_to_end(&mut rest).await.unwrap();
    assert!(rest.windows(4).any(|part| part == [0, 0, 8, 7]), "GOAWAY");
}

#[tokio::test]
async fn edge_4_header_lines_are_limited_in_number_by_http2_too() {
    let upstream = Upstream::of(async |_| "ok").await;
    let bed = Bed::new(&upstream.url(), "").await;
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    // Each cookie of a browser may have a line of its own.
    for (name, lines, status) in [("x", 95, 200), ("x", 101, 431), ("cookie", 200, 200)] {
        let mut request = http::Request::get(bed.url("/web/a"));
        for number in 0..lines {
            let name = match name {
                "x" => format!("x-{number}"),
                name => name.to_owned(),
            };
            request = request.header(name, "a=b");
        }
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{lines} lines {name}");
    }
    bed.end().await;
}
