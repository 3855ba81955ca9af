//! Headers that the gateway forwards, and those that it removes.

use super::*;

/// An upstream that answers with the request it received.
async fn echo() -> Upstream {
    Upstream::of(|request: Request| async move {
        let mut text = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
        }
        let own = [
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("x-kept", "2"),
            ("proxy-authenticate", "Basic"),
        ];
        (own, text)
    })
    .await
}

#[tokio::test]
async fn hop_by_hop_headers_stay_where_they_are() {
    let upstream = echo().await;
    let bed = Bed::new(&upstream.url(), "").await;
    let sent = bed.http.get(bed.url("/web/a%2Fb/c?q=1&q=%20"));
    let sent = sent
        .header("connection", "x-mine")
        .header("x-mine", "secret")
        .header("te", "trailers")
        .header("proxy-authorization", "Basic abc")
        .header("forwarded", "for=10.0.0.1")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .header("tracestate", "a=b")
        .header("baggage", "user=7")
        .header("breakerbox-priority", "high")
        .header("x-end", "to end");
    let response = sent.send().await.unwrap();
    for gone in ["x-hop", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(header(&response, gone), "", "{gone}");
    }
    assert_eq!(header(&response, "x-kept"), "2");
    assert_eq!(header(&response, "breakerbox-source"), "primary");
    assert_eq!(header(&response, "breakerbox-attempts"), "1");
    let text = response.text().await.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "GET /a%2Fb/c?q=1&q=%20");
    let ours = bed.gateway.address();
    for line in [
        &format!("host: {}", upstream.address),
        "forwarded: for=10.0.0.1",
        &format!("forwarded: for=127.0.0.1;host=\"{ours}\";proto=http"),
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: a=b",
        "baggage: user=7",
        "x-end: to end",
    ] {
        assert!(lines.contains(&line), "{line} is missing:\n{text}");
    }
    for gone in [
        "x-mine",
        "te:",
        "proxy-authorization",
        "breakerbox-priority",
    ] {
        assert!(
            !text.contains(&format!("\n{gone}")),
            "{gone} was passed on:\n{text}"
        );
    }
    bed.end().await;
}

#[tokio::test]
async fn the_time_that_is_left_is_passed_on() {
    let upstream = echo().await;
    let bed = Bed::new(&upstream.url(), "timeout = { total = \"9s\" }").await;
    let left = |text: String| -> u64 {
        let line = text.lines().find_map(|line| {
            let value = line.strip_prefix("breakerbox-deadline-ms: ")?;
            Some(value.to_owned())
        });
        line.expect("a deadline").parse().unwrap()
    };
    let own = left(bed.get("/web/a").await.text().await.unwrap());
    assert!((8000..=9000).contains(&own), "{own}");
    let asked = bed.http.get(bed.url("/web/a"));
    let asked = asked.header("breakerbox-deadline-ms", "4000");
    let asked = asked.send().await.unwrap().text().await.unwrap();
    let asked = left(asked);
    assert!((3000..=4000).contains(&asked), "{asked}");
    bed.end().await;
}

#[tokio::test]
async fn llm_21_a_member_of_a_pool_is_told_of_no_limit_but_its_own() {
    let (mute, well) = (
        Upstream::of(async |_: Request| std::future::pending::<&str>().await).await,
        echo().await,
    );
    let text = format!(
        "timeout = {{ total = \"200ms\" }}\nretry = {{ max_attempts = 2 }}\n\
         [dependencies.two]\nkind = \"http\"\nurl = \"{}\"\n\
         [dependencies.many]\nkind = \"pool\"\nmembers = [\"web\", \"two\"]\n",
        well.url()
    );
    let bed = Bed::new(&mute.url(), &text).await;
    let answer = bed.get("/many/a").await;
    assert_eq!(header(&answer, "breakerbox-source"), "pool:two");
    let seen = answer.text().await.unwrap();
    assert!(!seen.contains("deadline"), "{seen}");
    assert_eq!(mute.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn a_path_that_leads_elsewhere_is_refused() {
    let upstream = echo().await;
    let bed = Bed::new(&format!("{}/inner", upstream.url()), "").await;
    let ask = async |path: &str| {
        let mut caller = bed.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        caller.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut caller).await
    };
    for path in ["/web/../x", "/web/a/%2e%2E/x", "/web/.", "/web/.%2e"] {
        let answer = ask(path).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        assert!(answer.contains("urn:breakerbox:bad-request"), "{answer}");
    }
    for (path, there) in [
        ("/web/a...b/..c", "GET /inner/a...b/..c\n"),
        ("/web", "GET /inner/\n"),
        ("/web?q", "GET /inner/?q\n"),
    ] {
        let answer = ask(path).await;
        assert!(answer.contains(there), "{path}: {answer}");
    }
    assert_eq!(upstream.hits(), 3);
    bed.end().await;
}

/// Content-Length beside Transfer-Encoding: the transfer coding counts and the length is not
/// forwarded, so the rest cannot be taken for a second request (request smuggling).
#[tokio::test]
async fn two_lengths_smuggle_nothing() {
    let upstream = Upstream::raw(|mut stream, _| async move {
        let first = read_until(&mut stream, "0\r\n\r\n").await;
        let body = format!("{}|", first.to_lowercase().contains("content-length"));
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(whole.as_bytes()).await.unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut caller = bed.connect().await;
    let request = "POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\
                   transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    caller.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut caller, "|").await;
    assert!(answer.ends_with("false|"), "{answer}");
    for twice in [
        "content-length: 4\r\ncontent-length: 5",
        "transfer-encoding: chunked, identity",
        "content-length: +4",
    ] {
        let mut caller = bed.connect().await;
        let request = format!("POST /web/a HTTP/1.1\r\nhost: a\r\n{twice}\r\n\r\nabcd");
        caller.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut caller).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{twice}: {answer}");
    }
    assert_eq!(upstream.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_a_redirect_to_the_dependencys_own_address_leads_through_the_gateway() {
    let upstream = Upstream::of(|request: Request| async move {
        let host = request.headers()["host"].to_str().unwrap();
        let own = format!("http://{host}/base/items/");
        let links = [("location", own.clone()), ("content-location", own)];
        (axum::http::StatusCode::CREATED, links)
    })
    .await;
    let bed = Bed::new(&format!("{}/base", upstream.url()), "").await;
    let response = bed.get("/web/items").await;
    assert_eq!(header(&response, "location"), "/web/items/");
    assert_eq!(header(&response, "content-location"), "/web/items/");
    bed.end().await;
}
