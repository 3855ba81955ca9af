//! Answers that are none, or that a proxy has to repair (rules EDGE-3 and EDGE-8).

use super::*;

/// A server that answers the first request of each connection with these bytes, and closes.
async fn says(bytes: &'static [u8]) -> Upstream {
    Upstream::raw(move |mut stream: TcpStream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(bytes).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn edge_8_f6_a_missing_answer_is_told_by_what_came() {
    let cases: [(&[u8], &str); 10] = [
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9\r\n", "not HTTP"),
        (
            b"\x15\x03\x01\x00\x02\x02\x0a",
            "TLS where HTTP was expected",
        ),
        (
            b"\x00\x00\x06\x04\x00\x00\x00\x00\x00",
            "HTTP/2 where HTTP/1.1 was expected",
        ),
        (b"HTTP/1.1 200", "response cut off within its head"),
        (
            b"HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n",
            "response head not valid HTTP",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok",
            "response with a content-length that is not one number",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok",
            "response with a content-length that is not one number",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "response in an unknown transfer coding",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "protocol changed unasked",
        ),
    ];
    for (bytes, cause) in cases {
        let upstream = says(bytes).await;
        let bed = Bed::new(&upstream.url(), "breaker = { failure_threshold = 1 }").await;
        let told = problem(bed.get("/web/a").await, 502, "upstream-failed").await;
        assert!(
            told["cause"].as_str().unwrap().starts_with(cause),
            "{cause}: {told}"
        );
        bed.until(cause, |one| one.reason.contains(cause)).await;
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_8_f6_a_reset_and_a_long_head_are_told() {
    let resets = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        // Closed with an unread byte or this option, a socket is reset.
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    let long = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        let lines: String = (0..300)
            .map(|number| format!("x-{number}: 1\r\n"))
            .collect();
        let head = format!("HTTP/1.1 200 OK\r\n{lines}content-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    })
    .await;
    for (upstream, cause) in [
        (&resets, "connection reset"),
        (&long, "response head with too many lines or too long"),
    ] {
        let bed = Bed::new(&upstream.url(), "").await;
        let told = problem(bed.get("/web/a").await, 502, "upstream-failed").await;
        assert_eq!(told["cause"], cause);
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_3_f9_an_answer_that_has_to_be_repaired_is() {
    for (bytes, name, value) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
            "content-length",
            "2",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
            "content-length",
            "2",
        ),
        (
            "HTTP/1.1 200 OK\r\nx-a : 1\r\ncontent-length: 2\r\n\r\nok",
            "x-a",
            "1",
        ),
        (
            "HTTP/1.1 200 OK\r\nx-a: 1\r\n 2\r\ncontent-length: 2\r\n\r\nok",
            "x-a",
            "1",
        ),
    ] {
        let upstream = says(bytes.as_bytes()).await;
        let bed = Bed::new(&upstream.url(), "").await;
        let response = bed.get("/web/a").await;
        assert_eq!(response.status(), 200, "{bytes}");
        assert_eq!(
            response.headers().get_all(name).iter().count(),
            1,
            "{bytes}"
        );
        let first = header(&response, name).split_whitespace().next();
        assert_eq!(first, Some(value), "{bytes}");
        assert_eq!(response.text().await.unwrap(), "ok");
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_3_f9_an_answer_with_many_header_lines_is_passed_on() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        let lines: String = (0..120)
            .map(|number| format!("x-{number}: 1\r\n"))
            .collect();
        let whole = format!("HTTP/1.1 200 OK\r\n{lines}content-length: 2\r\n\r\nok");
        stream.write_all(whole.as_bytes()).await.unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    // The clients of other tests take no more than a hundred lines.
    let mut caller = bed.connect().await;
    let request = "GET /web/a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    caller.write_all(request.as_bytes()).await.unwrap();
    let whole = read_to_end(&mut caller).await;
    assert!(whole.starts_with("HTTP/1.1 200"), "{whole}");
    assert!(
        whole.contains("\r\nx-119: 1\r\n") && whole.ends_with("\r\n\r\nok"),
        "{whole}"
    );
    bed.end().await;
}
