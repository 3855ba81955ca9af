//! Connections that change their protocol, such as WebSockets (rule EDGE-3).

use axum::body::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::*;

const ASKED: &str = "connection: Upgrade\r\nupgrade: raw\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\nx-own: 1\r\n\r\n";

/// A WebSocket server that sends back what it gets.
async fn echo() -> Upstream {
    Upstream::raw(async |stream: TcpStream, _| {
        let Ok(mut socket) = accept_async(stream).await else {
            return;
        };
        // It answers pings and the end by itself.
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// A server that changes to a protocol of the test's, and goes on with a function.
async fn raw<F, W>(talk: F) -> Upstream
where
    F: Fn(TcpStream) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    Upstream::raw(move |mut stream: TcpStream, _| {
        let talk = talk.clone();
        async move {
            let head = read_head(&mut stream).await.to_lowercase();
            assert!(head.contains("\r\nupgrade: raw\r\n"), "{head}");
            assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
            stream.write_all(SWITCHED.as_bytes()).await.unwrap();
            talk(stream).await;
        }
    })
    .await
}

/// Reads exactly one head.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await;
        assert_eq!(read.unwrap().unwrap(), 1, "it ended within the head");
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

async fn open(bed: &Bed, path: &str) -> WebSocketStream<TcpStream> {
    let url = format!("ws://{}{path}", bed.gateway.address());
    let opened = client_async(url, bed.connect().await).await;
    let (socket, response) = opened.unwrap();
    assert_eq!(response.status(), 101);
    assert!(response.headers().contains_key("breakerbox-source"));
    socket
}

/// Opens a tunnel of the test's protocol. `more`: bytes that follow the head at once.
async fn tunnel(bed: &Bed, more: &str) -> (TcpStream, String) {
    let mut caller = bed.connect().await;
    let request = format!("GET /web/a HTTP/1.1\r\nhost: a\r\n{ASKED}\r\n{more}");
    caller.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut caller).await;
    (caller, head)
}

#[tokio::test]
async fn edge_3_a_websocket_flows_both_ways_and_holds_its_place() {
    let upstream = echo().await;
    let bed = Bed::new(&upstream.url(), "timeout.attempt = \"5s\"\n").await;
    let mut socket = open(&bed, "/web/chat?room=1").await;
    for text in ["one", "two", &"x".repeat(300_000)] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    let ping = Bytes::from_static(b"are you there");
    socket.send(Message::Ping(ping.clone())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(ping));
    assert_eq!(bed.status().in_flight, 1);
    socket.close(None).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_close());
    bed.until("a success", |one| {
        one.in_flight == 0 && one.totals.primary == 1
    })
    .await;
    let status = bed.status();
    assert_eq!((status.counts.success, status.window.failures), (1, 0));
    // Its connection serves no other request.
    let mut again = open(&bed, "/web/chat").await;
    again.send(Message::text("again")).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap(), Message::text("again"));
    assert_eq!(upstream.hits(), 2);
    drop(again);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_bytes_right_behind_the_heads_are_not_lost() {
    let upstream = raw(async |mut stream| {
        stream.write_all(b"first of the server;").await.unwrap();
        let got = read_until(&mut stream, "early;").await;
        stream.write_all(got.as_bytes()).await.unwrap();
        let rest = read_to_end(&mut stream).await;
        stream
            .write_all(format!("rest {rest}").as_bytes())
            .await
            .unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let (mut caller, head) = tunnel(&bed, "early;").await;
    assert!(head.contains("x-own: 1\r\n"), "{head}");
    assert!(head.contains("upgrade: raw\r\n"), "{head}");
    let got = read_until(&mut caller, "early;").await;
    assert_eq!(got, "first of the server;early;");
    // The caller's end goes on, and the dependency may still answer.
    caller.write_all(b"late").await.unwrap();
    caller.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut caller).await, "rest late");
    bed.until("a success", |one| one.totals.primary == 1).await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_an_answer_other_than_101_is_an_ordinary_one() {
    let upstream = Upstream::of(async |request: Request| {
        let head = format!("{:?}", request.headers().get("upgrade"));
        answer(if head == "None" { 200 } else { 426 }, "ordinary")
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut caller = bed.connect().await;
    for (lines, status) in [(ASKED, "426"), ("", "200"), (ASKED, "426")] {
        let request = format!("GET /web/a HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
        caller.write_all(request.as_bytes()).await.unwrap();
        let got = read_until(&mut caller, "ordinary").await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{got}");
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_3_http2_within_a_connection_is_never_asked_for() {
    let upstream = Upstream::of(async |request: Request| {
        let names = ["upgrade", "connection", "http2-settings"];
        let headers = request.headers();
        let seen = names.iter().filter(|name| headers.contains_key(**name));
        format!("seen {};", seen.count())
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut caller = bed.connect().await;
    for lines in [
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n",
        "connection: upgrade\r\nupgrade: TLS/1.2, HTTP/2.0\r\n",
        // Not asked for in truth.
        "upgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n",
    ] {
        let request = format!("GET /web/a HTTP/1.1\r\nhost: a\r\n{lines}\r\n{{}}");
        let request = match lines.contains("content-length") {
            true => &request[..],
            false => &request[..request.len() - 2],
        };
        caller.write_all(request.as_bytes()).await.unwrap();
        let got = read_until(&mut caller, ";").await;
        assert!(got.ends_with("seen 0;"), "{lines}: {got}");
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_change_that_no_request_asked_for_is_no_answer() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        read_head(&mut stream).await;
        stream.write_all(SWITCHED.as_bytes()).await.unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "retry.max_attempts = 1\n").await;
    problem(bed.get("/web/a").await, 502, "upstream-failed").await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_an_upgrade_is_refused_while_the_breaker_is_open() {
    let upstream = Upstream::of(async |_| answer(500, "down")).await;
    let keys = "retry.max_attempts = 1\nbreaker.failure_threshold = 1\n";
    let bed = Bed::new(&upstream.url(), keys).await;
    assert_eq!(bed.get("/web/a").await.status(), 500);
    let (mut caller, head) = tunnel(&bed, "").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    read_until(&mut caller, "urn:breakerbox:breaker-open").await;
    assert_eq!(upstream.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_5_a_page_of_another_site_opens_no_websocket() {
    let upstream = echo().await;
    let text = format!(
        "[gateway]\norigins = [\"https://app.example\"]\n\
         [dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    let asked = async |lines: &[(&'static str, &'static str)]| {
        let url = format!("ws://{}/web/a", bed.gateway.address());
        let mut request = url.into_client_request().unwrap();
        for (name, value) in lines {
            let value = value.parse().unwrap();
            request.headers_mut().insert(*name, value);
        }
        let opened = client_async(request, bed.connect().await).await;
        match opened {
            Ok((_, response)) => response.status().as_u16(),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                response.status().as_u16()
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(asked(&[]).await, 101);
    assert_eq!(asked(&[("origin", "https://app.example")]).await, 101);
    assert_eq!(asked(&[("origin", "https://evil.example")]).await, 403);
    assert_eq!(asked(&[("sec-fetch-site", "cross-site")]).await, 403);
    // A link leads a person here, and opens no tunnel.
    let link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    assert_eq!(asked(&link).await, 403);
    assert_eq!(asked(&[("host", "evil.example")]).await, 421);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_tunnel_that_the_dependency_breaks_is_a_failure() {
    let upstream = raw(async |mut stream| {
        read_until(&mut stream, "go").await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let (mut caller, _) = tunnel(&bed, "go").await;
    assert_eq!(read_to_end(&mut caller).await, "");
    bed.until("a failure", |one| {
        one.window.failures == 1 && one.in_flight == 0 && one.totals.failed == 1
    })
    .await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_caller_that_leaves_its_tunnel_is_cancelled() {
    let upstream = raw(async |mut stream| {
        stream.write_all(b"ready").await.unwrap();
        read_to_end(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let (mut caller, _) = tunnel(&bed, "").await;
    read_until(&mut caller, "ready").await;
    caller.set_zero_linger().unwrap();
    drop(caller);
    bed.until("cancelled", |one| {
        one.totals.cancelled == 1 && one.in_flight == 0
    })
    .await;
    assert_eq!(bed.status().window.calls, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_silence_of_both_sides_ends_a_tunnel_and_is_no_failure() {
    let upstream = raw(async |mut stream| {
        // It talks for longer than the limit of silence.
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            stream.write_all(b"tick;").await.unwrap();
        }
        read_to_end(&mut stream).await;
    })
    .await;
    let bed = Bed::new(&upstream.url(), "timeout.idle = \"400ms\"\n").await;
    let (mut caller, _) = tunnel(&bed, "").await;
    assert_eq!(read_to_end(&mut caller).await, "tick;".repeat(5));
    bed.until("cancelled", |one| {
        one.totals.cancelled == 1 && one.in_flight == 0
    })
    .await;
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_total_limit_ends_a_tunnel_that_talks() {
    let upstream = raw(async |mut stream| {
        while stream.write_all(b"tick;").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let bed = Bed::new(&upstream.url(), "timeout.total = \"300ms\"\n").await;
    let (mut caller, _) = tunnel(&bed, "").await;
    read_to_end(&mut caller).await;
    bed.until("its place is free", |one| one.in_flight == 0)
        .await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_tunnel_ends_with_the_gateway() {
    let upstream = echo().await;
    let text = format!(
        "[gateway]\nshutdown = \"200ms\"\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    let mut socket = open(&bed, "/web/a").await;
    let ended = tokio::time::timeout(PATIENCE, bed.gateway.shutdown()).await;
    assert!(!ended.unwrap(), "it was cut off");
    assert!(!matches!(socket.next().await, Some(Ok(_))));
    bed.until("its place is free", |one| one.in_flight == 0)
        .await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_tunnel_takes_a_place() {
    let upstream = echo().await;
    let keys = "bulkhead = { max_concurrent = 1 }\n";
    let bed = Bed::new(&upstream.url(), keys).await;
    let mut first = open(&bed, "/web/a").await;
    let (mut caller, head) = tunnel(&bed, "").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    read_until(&mut caller, "urn:breakerbox:overloaded").await;
    first.close(None).await.unwrap();
    while first.next().await.is_some() {}
    bed.until("its place is free", |one| one.in_flight == 0)
        .await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_stand_in_takes_a_websocket_over() {
    let first = Upstream::of(async |_| answer(503, "down")).await;
    let spare = echo().await;
    let bed = Bed::of(&format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n\
         fallback = [{{ kind = \"dependency\", name = \"spare\" }}]\n\
         [dependencies.spare]\nkind = \"http\"\nurl = \"{}\"\n",
        first.url(),
        spare.url()
    ))
    .await;
    let mut socket = open(&bed, "/web/a").await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("hello")
    );
    assert_eq!(bed.runtime.status("spare").unwrap().in_flight, 1);
    drop(socket);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_an_upgrade_by_tls_goes_out_by_http1() {
    let trusted = super::tls::issuer();
    let upstream = Box::pin(super::tls::upstream(&trusted, &["h2", "http/1.1"])).await;
    let folder = super::serve::folder();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, trusted.pem()).unwrap();
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"https://localhost:{}\"\ntls.ca = \"{}\"\n",
        upstream.address.port(),
        roots.display()
    );
    let bed = Bed::of(&text).await;
    assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "HTTP/2.0 /a");
    let (mut caller, head) = tunnel(&bed, "").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    read_until(&mut caller, "HTTP/1.1 /a").await;
    bed.end().await;
}
