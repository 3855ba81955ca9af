//! Requests that are refused with their reason, or that must not lose their body: by their targets,
//! their headers and their pace (rules CALL-2, EDGE-3, EDGE-4, EDGE-5 and OPS-1).

use super::*;

/// The text of a whole answer to a raw request.
async fn raw(bed: &Bed, request: &str) -> String {
    let mut caller = bed.connect().await;
    caller.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut caller).await
}

#[tokio::test]
async fn call_2_f1_a_refused_connection_is_tried_again_whatever_the_body() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let retry = "breaker = { failure_threshold = 100 }\n\
        retry = { max_attempts = 3, backoff = { base = \"1ms\", max = \"2ms\" } }";
    let bed = Bed::new(&url, retry).await;
    let (short, long) = ("x".repeat(1024), "x".repeat(500_000));
    for (head, body) in [
        (
            "POST /web/a HTTP/1.1\r\ntransfer-encoding: chunked",
            format!("400\r\n{short}\r\n0\r\n\r\n"),
        ),
        (
            "PATCH /web/a HTTP/1.1\r\ncontent-length: 500000",
            long.clone(),
        ),
    ] {
        let answer = raw(
            &bed,
            &format!("{head}\r\nhost: a\r\nconnection: close\r\n\r\n{body}"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(answer.contains("breakerbox-attempts: 3\r\n"), "{answer}");
        assert!(answer.contains("\"executed\":\"no\""), "{answer}");
    }
    bed.end().await;
}

#[tokio::test]
async fn call_2_f1_a_body_that_was_not_begun_reaches_a_stand_in_whole() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let echo = Upstream::of(async |request: Request| {
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        format!("got {}", body.unwrap().len())
    })
    .await;
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n\
         [[dependencies.web.fallback]]\nkind = \"dependency\"\nname = \"other\"\nwrites = true\n\
         [dependencies.other]\nkind = \"http\"\nurl = \"{}\"\n",
        echo.url()
    );
    let bed = Bed::of(&text).await;
    // Longer than `gateway.max_replay_body`: it is not kept.
    let response = bed.post("/web/a", vec![b'x'; 1_200_000]).await;
    assert_eq!(response.text().await.unwrap(), "got 1200000");
    bed.end().await;
}

#[tokio::test]
async fn edge_4_f13_a_streamed_body_that_drips_has_an_end() {
    let upstream = Upstream::of(async |request: Request| {
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        body.map_or(0, |body| body.len()).to_string()
    })
    .await;
    let text = format!(
        "[gateway]\nbody_timeout = \"200ms\"\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    for (head, piece) in [
        ("transfer-encoding: chunked", "1\r\nx\r\n"),
        ("content-length: 1000000", "x"),
    ] {
        let mut caller = bed.connect().await;
        let head = format!("POST /web/a HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n");
        caller.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 64];
        let dripping = async {
            loop {
                tokio::select! {
                    read = caller.read(&mut answer) => return read.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(40)) => {}
                }
                // The gateway may have closed already.
                let _ = caller.write_all(piece.as_bytes()).await;
            }
        };
        let read = tokio::time::timeout(PATIENCE, dripping).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{head}: {answer}");
    }
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_f18_a_target_with_a_fragment_is_refused() {
    let upstream = Upstream::of(async |_: Request| "ok").await;
    let bed = Bed::new(&upstream.url(), "").await;
    let end = "HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = raw(&bed, &format!("GET /web/a#/../b {end}")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("fragment"), "{answer}");
    assert_eq!(upstream.hits(), 0);
    let answer = raw(&bed, &format!("GET /web/a%23b {end}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    bed.end().await;
}

#[tokio::test]
async fn edge_5_two_fields_of_one_of_our_headers_are_refused() {
    let upstream = Upstream::of(async |_: Request| "ok").await;
    let bed = Bed::new(&upstream.url(), "").await;
    for (name, one, other) in [
        ("breakerbox-deadline-ms", "5", "5000"),
        ("breakerbox-key", "a", "b"),
        ("breakerbox-priority", "high", "low"),
    ] {
        let request = bed.http.get(bed.url("/web/a"));
        let request = request.header(name, one).header(name, other);
        let told = problem(request.send().await.unwrap(), 400, "bad-request").await;
        assert!(told["detail"].as_str().unwrap().contains(name), "{told}");
    }
    assert_eq!(upstream.hits(), 0);
    bed.end().await;
}

#[tokio::test]
async fn ops_1_f19_a_head_that_is_refused_has_its_line() {
    let upstream = Upstream::of(async |_: Request| "ok").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let text = format!(
        "[gateway]\naccess_log = \"{}\"\nmax_head = \"9KB\"\n\
         [dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        path.display(),
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    raw(&bed, "GET /web/a b HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let long = "y".repeat(20_000);
    raw(
        &bed,
        &format!("GET /web/a HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"),
    )
    .await;
    bed.end().await;
    let text = std::fs::read_to_string(&path).unwrap();
    for status in [400, 431] {
        let status = format!("\"status\":{status}");
        assert!(text.lines().any(|line| line.contains(&status)), "{text}");
    }
}

#[tokio::test]
async fn call_1_f16_a_call_without_a_head_at_the_end_gets_one_answer() {
    let upstream = Upstream::of(async |_: Request| std::future::pending::<String>().await).await;
    let text = format!(
        "[gateway]\nshutdown = \"50ms\"\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        upstream.url()
    );
    let bed = Bed::of(&text).await;
    let request = bed.http.get(bed.url("/web/a")).send();
    let calling = tokio::spawn(request);
    bed.until("it is in flight", |one| one.in_flight == 1).await;
    assert!(!bed.gateway.shutdown().await, "not in time");
    let told = problem(calling.await.unwrap().unwrap(), 503, "shutting-down").await;
    assert_eq!(told["executed"], "maybe");
    bed.end().await;
}
