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
async fn edge_8_e9a_a_server_that_knows_no_http2_is_told_and_counted() {
    let upstream = Upstream::raw(|mut stream, _| async move {
        let mut preface = [0; 4096];
        if stream.read(&mut preface).await.is_ok() {
            let answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
            // It ends with its caller.
            let _ = stream.write_all(answer).await;
            let _ = stream.read(&mut preface).await;
        }
    })
    .await;
    let text = "http_version = \"2\"\nbreaker = { failure_threshold = 3 }\n\
                retry = { max_attempts = 1 }\n";
    let bed = Bed::new(&upstream.url(), text).await;
    let cause = "HTTP/1.1 where HTTP/2 was expected, see http_version";
    for _ in 0..3 {
        let told = problem(bed.get("/web/a").await, 502, "upstream-failed").await;
        assert_eq!(told["cause"], cause, "{told}");
    }
    problem(bed.get("/web/a").await, 503, "breaker-open").await;
    bed.end().await;
}

/// Serves a connection by HTTP/2, and ends each stream in a frame of its own, some time behind the last
/// byte. The path names the status, and whether there are trailers.
async fn serve_late_ends<S>(stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let service = hyper::service::service_fn(async |request: http::Request<Incoming>| {
        let path = request.uri().path();
        let status: u16 = path[1..4].parse().unwrap();
        let mut frames = Vec::new();
        let content = match *request.method() {
            http::Method::POST => MODEL_ANSWER,
            _ => "hello",
        };
        if status == 200 && request.method() != http::Method::HEAD {
            frames.push(Frame::data(Bytes::from(content)));
        }
        if path.ends_with("/trailers") {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", "1".parse().unwrap());
            frames.push(Frame::trailers(trailers));
        }
        let frames = futures_util::stream::iter(frames);
        let late = futures_util::StreamExt::then(frames, async |frame: Frame<Bytes>| {
            if frame.is_trailers() {
                tokio::time::sleep(LATE).await;
            }
            Ok::<_, std::convert::Infallible>(frame)
        });
        let end = futures_util::stream::once(tokio::time::sleep(LATE));
        let end = futures_util::StreamExt::filter_map(end, async |()| None);
        let body = StreamBody::new(futures_util::StreamExt::chain(late, end));
        let mut response = http::Response::new(Box::pin(body));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        if status == 200 {
            let length = http::HeaderValue::from(content.len());
            response.headers_mut().insert("content-length", length);
        }
        Ok::<_, std::convert::Infallible>(response)
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // It ends with its caller.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

const MODEL_ANSWER: &str = r#"{"id":"x","object":"chat.completion","choices":[{"index":0,
    "finish_reason":"stop","message":{"role":"assistant","content":"hi"}}],
    "usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

/// Far longer than a frame needs.
const LATE: Duration = Duration::from_millis(30);

#[tokio::test]
async fn edge_1_an_answer_whose_end_comes_in_a_frame_of_its_own_is_a_success() {
    let upstream = Upstream::raw(|stream, _| serve_late_ends(stream)).await;
    let text = format!(
        "http_version = \"2\"\n[[dependencies.web.fallback]]\nkind = \"stale_cache\"\n\
         max_age = \"1h\"\n[dependencies.llm]\nkind = \"model\"\napi = \"openai\"\n\
         url = \"{}/200\"\nhttp_version = \"2\"\nkey = \"sk-test\"\n",
        upstream.url()
    );
    let bed = Bed::new(&upstream.url(), &text).await;
    let io = TokioIo::new(bed.connect().await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let mut asked = 0;
    for (method, path, content) in [
        ("GET", "/200", "hello"),
        ("GET", "/200/trailers", "hello"),
        ("HEAD", "/200", ""),
        ("GET", "/204", ""),
        ("GET", "/304", ""),
    ] {
        let url = bed.url(&format!("/web{path}"));
        let status: u16 = path[1..4].parse().unwrap();
        let plain = bed.http.request(method.parse().unwrap(), &url).send().await;
        let plain = plain.unwrap();
        assert_eq!(plain.status().as_u16(), status);
        assert_eq!(plain.text().await.unwrap(), content, "{method} {path}");
        let request = http::Request::builder().method(method).uri(url);
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let body = response.into_body().collect().await.unwrap();
        let has_trailers = body.trailers().is_some_and(|all| all["x-sum"] == "1");
        assert_eq!(has_trailers, path.ends_with("/trailers"));
        assert_eq!(body.to_bytes(), content, "{method} {path}");
        asked += 2;
        // CALL-3: each is counted before its caller has seen all of it.
        let totals = bed.status().totals;
        assert_eq!((totals.primary, totals.cancelled), (asked, 0), "{path}");
    }
    let command = breakerbox_policy::BreakerCommand::Open {
        reason: "test".to_owned(),
        until: None,
    };
    bed.runtime.operate("web", command).await.unwrap().unwrap();
    let kept = bed.get("/web/200").await;
    assert_eq!(header(&kept, "breakerbox-source"), "fallback:stale_cache");
    assert_eq!(kept.text().await.unwrap(), "hello");
    let asked = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let told = bed.post("/llm/chat/completions", asked).await;
    assert_eq!(told.text().await.unwrap(), MODEL_ANSWER);
    assert_eq!(bed.runtime.status("llm").unwrap().totals.primary, 1);
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
