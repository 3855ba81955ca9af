//! Calls of many callers by one connection to a dependency that speaks HTTP/2.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::h2c::serve_http2;
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
    let io = TokioIo::new(bed.connect().await);
    // One connection, so that one thread makes all calls.
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let request = http::Request::get("/web/a").header("host", "a");
        let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        statuses.push(response.status().as_u16());
        use http_body_util::BodyExt as _;
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(statuses, [504, 504, 200, 200]);
    assert_eq!(upstream.hits(), 2);
    bed.end().await;
}
