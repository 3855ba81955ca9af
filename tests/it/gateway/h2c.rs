//! Dependencies that are reached by one version of HTTP: HTTP/2 with prior knowledge, as gRPC
//! servers without TLS speak it, or only HTTP/1.1.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::serve::folder;
use super::tls::{issuer, upstream};
use super::*;

/// Serves a connection by HTTP/2 alone, as a gRPC server does: the answer has trailers.
pub(super) async fn serve_http2<S>(stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = hyper::service::service_fn(async |request: http::Request<Incoming>| {
        let head = format!(
            "{:?} {} te={:?}",
            request.version(),
            request.uri(),
            request.headers().get("te"),
        );
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [
            Frame::data(Bytes::from(head)),
            Frame::data(body),
            Frame::trailers(trailers),
        ];
        let frames = frames.map(Ok::<_, std::convert::Infallible>);
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // It ends with its caller.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[tokio::test]
async fn edge_3_e5f_h2c_reaches_a_server_that_speaks_only_http2_with_trailers() {
    let upstream = Upstream::raw(|stream, _| serve_http2(stream)).await;
    let bed = Bed::new(
        &format!("{}/base", upstream.url()),
        "http_version = \"2\"\n",
    )
    .await;
    for _ in 0..3 {
        let response = bed.post("/web/a?b", "hello").await;
        assert_eq!(header(&response, "breakerbox-source"), "primary");
        let port = upstream.address.port();
        let expected = format!("HTTP/2.0 http://127.0.0.1:{port}/base/a?b te=Nonehello");
        assert_eq!(response.text().await.unwrap(), expected);
    }
    // As gRPC: from HTTP/2 to HTTP/2, with trailers.
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(bed.url("/web/grpc.Service/Call")).header("te", "trailers");
    let request = request.body(Full::new(Bytes::from("hello"))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    assert!(text.ends_with("te=Some(\"trailers\")hello"), "{text}");
    assert!(
        upstream.hits() <= 2,
        "a connection for each thread: {}",
        upstream.hits()
    );
    bed.end().await;
}

#[tokio::test]
async fn edge_5_h2c_to_a_server_without_http2_is_a_failure() {
    let upstream = Upstream::raw(|mut stream, _| async move {
        let mut head = [0; 100];
        let _ = stream.read(&mut head).await;
        let _ = stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            .await;
    })
    .await;
    let bed = Bed::new(&upstream.url(), "http_version = \"2\"\n").await;
    problem(bed.get("/web/a").await, 502, "upstream-failed").await;
    bed.end().await;
}

#[tokio::test]
async fn edge_5_the_version_of_http_over_tls_can_be_fixed() {
    let (trusted, folder) = (issuer(), folder());
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, trusted.pem()).unwrap();
    let both = upstream(&trusted, &["h2", "http/1.1"]).await;
    let old = upstream(&trusted, &["http/1.1"]).await;
    let mut text = String::new();
    for (name, upstream, version) in [
        ("auto", &both, "auto"),
        ("first", &both, "1.1"),
        ("second", &both, "2"),
        ("impossible", &old, "2"),
    ] {
        let port = upstream.address.port();
        text.push_str(&format!(
            "[dependencies.{name}]\nkind = \"http\"\nurl = \"https://localhost:{port}\"\n\
             http_version = \"{version}\"\ntls = {{ ca = {roots:?} }}\n"
        ));
    }
    let bed = Bed::of(&text).await;
    for (name, told) in [
        ("auto", "HTTP/2.0"),
        ("first", "HTTP/1.1"),
        ("second", "HTTP/2.0"),
    ] {
        let response = bed.get(&format!("/{name}/a")).await;
        assert_eq!(
            response.text().await.unwrap(),
            format!("{told} /a"),
            "{name}"
        );
    }
    let refused = problem(bed.get("/impossible/a").await, 502, "upstream-failed").await;
    assert_eq!(refused["executed"], "no");
    bed.end().await;
}

#[test]
fn edge_5_the_version_of_http_is_for_kind_http() {
    for (text, key) in [
        (
            "kind = \"http\"\nurl = \"http://a\"\nhttp_version = \"3\"",
            "http_version",
        ),
        (
            "kind = \"mcp_http\"\nurl = \"http://a\"\nhttp_version = \"2\"",
            "http_version",
        ),
        ("kind = \"mcp_http\"\nurl = \"unix:///a.sock\"", "url"),
        (
            "kind = \"http\"\nurl = \"http://a\"\nhost = \"a/b\"",
            "host",
        ),
    ] {
        let text = format!("[dependencies.web]\n{text}\n");
        let error = Settings::loader()
            .bare()
            .toml(text)
            .load()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("dependencies.web.{key}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn edge_3_a_head_by_http2_may_be_as_long_as_by_http1() {
    let upstream = Upstream::raw(|stream, _| async move {
        let service = hyper::service::service_fn(async |request: http::Request<Incoming>| {
            let length = request.uri().path()[1..].parse().unwrap();
            let response = http::Response::builder().header("x-long", "x".repeat(length));
            Ok::<_, std::convert::Infallible>(response.body(Full::new(Bytes::new())).unwrap())
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // It ends with its caller.
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    let bed = Bed::new(&upstream.url(), "http_version = \"2\"\n").await;
    for length in [17_000, 60_000] {
        let response = bed.get(&format!("/web/{length}")).await;
        assert_eq!(header(&response, "x-long").len(), length);
    }
    let refused = problem(bed.get("/web/70000").await, 502, "upstream-failed").await;
    assert_eq!(
        refused["cause"],
        "response head too long or not valid HTTP/2"
    );
    bed.end().await;
}
