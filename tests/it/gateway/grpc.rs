//! gRPC: the status of an answer is its outcome, and the gateway's own errors have a status too (rule
//! EDGE-3).

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body as _;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

/// The answer of a unary call, with its status in the trailers.
fn in_trailers(code: u8) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntrailer: grpc-status\r\n\
         transfer-encoding: chunked\r\n\r\n5\r\n\0\0\0\0\0\r\n0\r\ngrpc-status: {code}\r\n\r\n"
    )
}

/// The answer of a call that failed at once: headers only.
fn at_once(code: u8) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc+proto\r\ngrpc-status: {code}\r\n\
         grpc-message: no\r\ncontent-length: 0\r\n\r\n"
    )
}

/// A server with one answer for each path: `/trailers/N`, `/head/N`, or something broken.
async fn server() -> Upstream {
    Upstream::raw(async |mut stream: TcpStream, _| {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte).await {
                    Ok(1..) => head.push(byte[0]),
                    _ => return,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let mut parts = path.split('/').skip(1);
            let answer = match (parts.next().unwrap(), parts.next()) {
                ("trailers", Some(code)) => in_trailers(code.parse().unwrap()),
                ("head", Some(code)) => at_once(code.parse().unwrap()),
                ("silent", _) => std::future::pending().await,
                _ => "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\
                      content-length: 0\r\n\r\n"
                    .to_owned(),
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn client(bed: &Bed) -> SendRequest<Full<Bytes>> {
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The status of a call as a gRPC client sees it, and the source of the answer.
async fn call(
    sender: &mut SendRequest<Full<Bytes>>,
    url: String,
    lines: &[(&str, &str)],
) -> (String, String) {
    let mut request = http::Request::post(url)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    assert_eq!(head.status, 200);
    let media = head.headers["content-type"].to_str().unwrap();
    assert!(media.starts_with("application/grpc"), "{media}");
    let text = |map: &http::HeaderMap, name: &str| {
        map.get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let source = text(&head.headers, "breakerbox-source").unwrap();
    let in_head = text(&head.headers, "grpc-status");
    if in_head.is_some() && source == "gateway" {
        assert!(body.is_end_stream(), "headers only");
        assert!(text(&head.headers, "grpc-message").is_some());
    }
    let body = body.collect().await.unwrap();
    let in_trailers = body.trailers().and_then(|map| text(map, "grpc-status"));
    let status = in_head.or(in_trailers).unwrap_or_default();
    (status, source)
}

#[tokio::test]
async fn edge_3_a_grpc_status_is_the_outcome_of_its_call() {
    let upstream = server().await;
    // Neither the breaker nor a pause refuses the next call.
    let keys = "retry.max_attempts = 1\nbreaker.failure_threshold = \"off\"\n\
                throttle.backoff.base = \"1ms\"\n";
    let bed = Bed::new(&upstream.url(), keys).await;
    let mut sender = client(&bed).await;
    let (mut failures, mut throttled) = (0, 0);
    for code in 0..=16_u8 {
        let is_failure = matches!(code, 2 | 4 | 13 | 14 | 15);
        for way in ["trailers", "head"] {
            let url = bed.url(&format!("/web/{way}/{code}"));
            let before = bed.status();
            let seen = call(&mut sender, url, &[]).await;
            assert_eq!(seen, (code.to_string(), "primary".to_owned()), "{way}");
            failures += u64::from(is_failure);
            throttled += u64::from(code == 8);
            let ended = |one: &DependencyStatus| one.counts != before.counts && one.in_flight == 0;
            bed.until("it is counted", ended).await;
            let counts = bed.status().counts;
            let seen = (counts.failure, counts.throttled);
            assert_eq!(seen, (failures, throttled), "{way} {code}: {counts:?}");
            bed.until("no pause", |one| one.paused.is_none()).await;
        }
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_8_an_outage_by_a_grpc_status_tells_that_status() {
    let upstream = server().await;
    for path in ["head", "trailers"] {
        let keys = "retry.max_attempts = 1\nbreaker.failure_threshold = 2\n";
        let bed = Bed::new(&upstream.url(), keys).await;
        let mut sender = client(&bed).await;
        for _ in 0..2 {
            call(&mut sender, bed.url(&format!("/web/{path}/14")), &[]).await;
        }
        bed.until("it opens", |one| one.outage.is_some()).await;
        let cause = bed.status().outage.unwrap().cause;
        // It has answered 200.
        assert_eq!(cause.text, "gRPC status 14, UNAVAILABLE", "{path}");
        assert_eq!(cause.status, None);
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_3_a_grpc_answer_without_a_status_is_a_failure() {
    let upstream = server().await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut sender = client(&bed).await;
    let seen = call(&mut sender, bed.url("/web/none"), &[]).await;
    assert_eq!(seen.0, "");
    bed.until("a failure", |one| one.window.failures == 1).await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_deadline_of_a_grpc_caller_is_its_own() {
    let upstream = server().await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut sender = client(&bed).await;
    let deadline = [("grpc-timeout", "100m")];
    let late = call(&mut sender, bed.url("/web/silent"), &deadline).await;
    assert_eq!(late, ("4".to_owned(), "gateway".to_owned()));
    // The dependency may be the first to say so.
    let told = call(&mut sender, bed.url("/web/head/4"), &deadline).await;
    assert_eq!(told, ("4".to_owned(), "primary".to_owned()));
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_an_untrusted_grpc_deadline_is_not_obeyed() {
    let upstream = server().await;
    let text = format!(
        "[gateway]\ntrust = []\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n\
         timeout.first_byte = \"300ms\"\nretry.max_attempts = 1\n",
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    let mut sender = client(&bed).await;
    let deadline = [("grpc-timeout", "1m")];
    let late = call(&mut sender, bed.url("/web/silent"), &deadline).await;
    assert_eq!(late.0, "4");
    assert_eq!(
        bed.status().window.failures,
        1,
        "of the dependency's own limit"
    );
    bed.end().await;
}

#[tokio::test]
async fn edge_3_the_gateways_own_errors_have_a_grpc_status() {
    let upstream = server().await;
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\nbreaker.failure_threshold = 1\nretry.max_attempts = 1\n\
         [dependencies.gone]\nkind = \"http\"\nurl = \"http://127.0.0.1:9\"\n",
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    let mut sender = client(&bed).await;
    let ours = |code: &str| (code.to_owned(), "gateway".to_owned());
    let unknown = call(&mut sender, bed.url("/nobody/a"), &[]).await;
    assert_eq!(unknown, ours("12"));
    let gone = call(&mut sender, bed.url("/gone/a"), &[]).await;
    assert_eq!(gone, ours("14"));
    let seen = call(&mut sender, bed.url("/web/trailers/14"), &[]).await;
    assert_eq!(seen.0, "14");
    bed.until("it is open", |one| one.state.to_string() == "open")
        .await;
    let refused = call(&mut sender, bed.url("/web/trailers/0"), &[]).await;
    assert_eq!(refused, ours("14"));
    assert_eq!(upstream.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn call_7_a_failed_grpc_call_is_not_repeated_unless_it_may_be() {
    let upstream = server().await;
    let bed = Bed::new(&upstream.url(), "retry.max_attempts = 3\n").await;
    let mut sender = client(&bed).await;
    let attempts = |bed: &Bed| bed.status().totals.attempts;
    let seen = call(&mut sender, bed.url("/web/head/14"), &[]).await;
    assert_eq!((seen.0.as_str(), attempts(&bed)), ("14", 1));
    let key = [("idempotency-key", "1")];
    let seen = call(&mut sender, bed.url("/web/head/14"), &key).await;
    assert_eq!((seen.0.as_str(), attempts(&bed)), ("14", 4));
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_stand_in_answers_a_grpc_call_with_its_trailers() {
    let upstream = server().await;
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{url}/head/14\"\nretry.max_attempts = 1\n\
         [[dependencies.web.fallback]]\nkind = \"dependency\"\nname = \"spare\"\nwrites = true\n\
         [dependencies.spare]\nkind = \"http\"\nurl = \"{url}\"\n",
        url = upstream.url()
    );
    let bed = Bed::of(&text).await;
    let mut sender = client(&bed).await;
    let seen = call(&mut sender, bed.url("/web/trailers/0"), &[]).await;
    assert_eq!(seen, ("0".to_owned(), "fallback:spare".to_owned()));
    // An error of the stand-in is no answer.
    let seen = call(&mut sender, bed.url("/web/head/5"), &[]).await;
    assert_eq!(seen, ("14".to_owned(), "primary".to_owned()));
    bed.end().await;
}
