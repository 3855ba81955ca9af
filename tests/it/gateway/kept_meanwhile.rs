//! Kept answers and what happens while they are on their way, or between their keeping and their
//! serving (rule EDGE-2).

use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;

use super::*;

const CACHE: &str =
    "breaker = { failure_threshold = 1000 }\nfallback = [{ kind = \"stale_cache\" }]";

/// A server that holds back its answer to each request with `x-b3-flags`, until it is told.
struct HeldBack {
    upstream: Upstream,
    came: Arc<Notify>,
    go: Arc<Notify>,
    is_down: Arc<AtomicBool>,
}

impl HeldBack {
    /// `quick`: the status of its answers that are not held back.
    async fn new(quick: u16) -> Self {
        let [came, go] = [(); 2].map(|()| Arc::new(Notify::new()));
        let is_down = Arc::new(AtomicBool::new(false));
        let (telling, waiting, down) = (Arc::clone(&came), Arc::clone(&go), Arc::clone(&is_down));
        let upstream = Upstream::of(move |request: Request| {
            let (came, go) = (Arc::clone(&telling), Arc::clone(&waiting));
            let is_down = down.load(Ordering::SeqCst);
            async move {
                if is_down {
                    return answer(503, "down");
                }
                if !request.headers().contains_key("x-b3-flags") {
                    return answer(quick, "");
                }
                came.notify_one();
                go.notified().await;
                answer(200, "old")
            }
        })
        .await;
        Self {
            upstream,
            came,
            go,
            is_down,
        }
    }
}

#[tokio::test]
async fn edge_2_an_answer_from_before_a_change_is_not_kept_after_it() {
    // A write that succeeds, and a newer answer that takes the older one back.
    for (method, quick) in [("PUT", 204), ("GET", 403), ("GET", 404)] {
        let held = HeldBack::new(quick).await;
        let bed = Bed::new(&held.upstream.url(), CACHE).await;
        let ask = |method: &str, is_slow: bool| {
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let mut request = bed.http.request(method, bed.url("/web/a"));
            if is_slow {
                request = request.header("x-b3-flags", "1");
            }
            request.send()
        };
        let slow = tokio::spawn(ask("GET", true));
        held.came.notified().await;
        let changed = ask(method, false).await.unwrap();
        assert_eq!(changed.status(), quick);
        changed.bytes().await.unwrap();
        held.go.notify_one();
        let slow = slow.await.unwrap().unwrap();
        assert_eq!(slow.text().await.unwrap(), "old", "its caller gets it");
        held.is_down.store(true, Ordering::SeqCst);
        let later = ask("GET", false).await.unwrap();
        assert_eq!(later.status(), 503, "{method} {quick}");
        bed.end().await;
    }
}

/// The status, the headers and the body of an answer.
type ReadAnswer = (u16, reqwest::header::HeaderMap, String);

/// Asks for `/web/a` while the server is well and says this, and then while it is down.
async fn kept_of(head: String) -> ReadAnswer {
    let upstream = Upstream::raw(move |mut stream: TcpStream, number| {
        let head = head.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let down = "HTTP/1.1 503 Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let text = if number == 0 { head.as_str() } else { down };
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    })
    .await;
    let bed = Bed::new(&upstream.url(), CACHE).await;
    let first = bed.get("/web/a").await;
    assert_eq!(first.status(), 200);
    first.bytes().await.unwrap();
    let second = bed.get("/web/a").await;
    let (status, headers) = (second.status().as_u16(), second.headers().clone());
    let text = second.text().await.unwrap();
    bed.end().await;
    (status, headers, text)
}

fn said(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}content-length: 4\r\n\r\nkept")
}

#[tokio::test]
async fn edge_2_an_answer_whose_connection_names_its_fields_is_not_kept() {
    for line in [
        "cache-control: no-store",
        "vary: user-agent",
        "set-cookie: a=b",
        "x-of-one-hop: 1",
    ] {
        let (name, _) = line.split_once(':').unwrap();
        let head = said(&format!("connection: close, {name}\r\n{line}\r\n"));
        assert_eq!(kept_of(head).await.0, 503, "{line}");
    }
    // Nothing is lost of these.
    for names in ["close", "close, keep-alive, te", "close, x-of-none"] {
        let head = said(&format!("connection: {names}\r\nkeep-alive: timeout=5\r\n"));
        assert_eq!(kept_of(head).await.0, 200, "{names}");
    }
}

#[tokio::test]
async fn edge_2_the_age_of_a_kept_answer_counts_from_its_date() {
    let old = "date: Fri, 06 Nov 2020 08:49:37 GMT\r\n";
    let (status, headers, _) = kept_of(said(&format!("{old}connection: close\r\n"))).await;
    assert_eq!(status, 200);
    let age: u64 = headers["age"].to_str().unwrap().parse().unwrap();
    assert!(age > 365 * 24 * 3600, "{age}");
    let limits = "cache-control: max-age=60, stale-if-error=60\r\nconnection: close\r\n";
    let (status, ..) = kept_of(said(&format!("{old}{limits}"))).await;
    assert_eq!(status, 503);
}

#[tokio::test]
async fn edge_3_a_kept_answer_announces_no_trailers_that_it_has_not() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\
                connection: close\r\n\r\n4\r\nkept\r\n0\r\nx-sum: 1\r\n\r\n";
    let (status, headers, text) = kept_of(head.to_owned()).await;
    assert_eq!((status, text.as_str()), (200, "kept"));
    assert!(!headers.contains_key("trailer"));
}

#[tokio::test]
async fn edge_2_kept_answers_do_not_outlive_another_credential_of_ours() {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let upstream = Upstream::of(move |_| {
        let is_down = down.load(Ordering::SeqCst);
        async move { answer(if is_down { 503 } else { 200 }, "kept") }
    })
    .await;
    let one = "headers = { authorization = \"Bearer one\" }\n";
    for (before, after, is_kept) in [
        (one, "headers = { authorization = \"Bearer two\" }\n", false),
        (one, "", false),
        ("", "remove_headers = [\"authorization\"]\n", false),
        ("", "forwarded = false\n", false),
        (
            one,
            "headers = { authorization = \"Bearer one\" }\nidempotent = [\"GET\"]\n",
            true,
        ),
    ] {
        is_down.store(false, Ordering::SeqCst);
        let bed = Bed::new(&upstream.url(), &format!("{before}{CACHE}")).await;
        assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "kept");
        let text = format!(
            "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n{after}{CACHE}",
            upstream.url()
        );
        let settings = Settings::loader().bare().toml(&text).load().unwrap();
        bed.runtime.reload(settings.clone(), "test").await;
        let web = &settings.dependencies["web"];
        bed.gateway
            .put("web", web, &upstream.url(), "test")
            .await
            .unwrap();
        is_down.store(true, Ordering::SeqCst);
        let status = if is_kept { 200 } else { 503 };
        assert_eq!(bed.get("/web/a").await.status(), status, "{before}{after}");
        bed.end().await;
    }
}
