//! Messages are passed on whole (rule EDGE-3): bodies whatever the method, one framing, cookies.

use super::*;

/// Responds with the body that arrived, and with the headers that frame it.
async fn echo(request: Request) -> String {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let cookies: Vec<_> = head.headers.get_all("cookie").iter().collect();
    format!("{} {} {cookies:?}", head.method, body.len())
}

#[tokio::test]
async fn edge_3_e5a_a_body_of_unknown_length_arrives_with_any_method() {
    let upstream = Upstream::of(echo).await;
    for keys in ["", "idempotent = []\n", "retry.max_attempts = 2\n"] {
        let bed = Bed::new(&upstream.url(), keys).await;
        for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "QUERY"] {
            for length in [5, 100_000] {
                let mut caller = bed.connect().await;
                let text = "x".repeat(length);
                let asked = format!(
                    "{method} /web/a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\
                     connection: close\r\n\r\n{length:x}\r\n{text}\r\n0\r\n\r\n"
                );
                caller.write_all(asked.as_bytes()).await.unwrap();
                let answer = read_to_end(&mut caller).await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{method}: {answer}");
                let expected = format!("\r\n\r\n{method} {length} ");
                assert!(method == "HEAD" || answer.contains(&expected), "{answer}");
            }
        }
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_3_e5d_a_length_beside_chunks_says_nothing() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
                       4\r\nabcd\r\n0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let response = bed.get("/web/a").await;
    assert_eq!(response.content_length(), None);
    assert_eq!(response.text().await.unwrap(), "abcd");
    bed.until("it is counted", |one| one.totals.primary == 1)
        .await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5e_cookies_arrive_as_one_field() {
    let upstream = Upstream::of(echo).await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut caller = bed.connect().await;
    let request = "GET /web/a HTTP/1.1\r\nhost: a\r\ncookie: a=1\r\ncookie: csrf=2\r\n\
                   cookie: sid=3\r\nconnection: close\r\n\r\n";
    caller.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut caller).await;
    assert!(answer.contains("[\"a=1; csrf=2; sid=3\"]"), "{answer}");
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5c_by_default_only_silence_is_bounded() {
    let text = "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n";
    let settings = Settings::loader().bare().toml(text).load().unwrap();
    let timeout = settings.dependencies["web"].settings.timeout;
    assert_eq!((timeout.attempt, timeout.total), (None, None));
    assert_eq!(timeout.first_byte, Some(Duration::from_secs(60)));
    let text = format!("{text}timeout.attempt = \"2s\"\n");
    let settings = Settings::loader().bare().toml(&text).load().unwrap();
    let timeout = settings.dependencies["web"].settings.timeout;
    assert_eq!(timeout.first_byte, Some(Duration::from_secs(2)));
}

#[tokio::test]
async fn edge_3_a_write_without_a_body_says_so() {
    let upstream = Upstream::of(async |request: Request| {
        format!("{:?}", request.headers().get("content-length"))
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    for (method, length) in [
        ("POST", "Some(\"0\")"),
        ("PUT", "Some(\"0\")"),
        ("PATCH", "Some(\"0\")"),
        ("DELETE", "None"),
        ("GET", "None"),
    ] {
        let mut caller = bed.connect().await;
        let asked = format!("{method} /web/a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        caller.write_all(asked.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut caller).await;
        assert!(answer.ends_with(length), "{method}: {answer}");
    }
    bed.end().await;
}
