//! A dependency that answers in place of another one: its answer is passed on as it comes, under its
//! own breaker, limits and fallbacks (rule EDGE-3).

use axum::body::Bytes;
use http_body_util::BodyExt as _;

use super::*;

/// Settings of `web`, which falls back on `spare`, and of further dependencies.
async fn bed(first: &Upstream, spare: &Upstream, (web, more): (&str, &str)) -> Bed {
    Bed::of(&format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n{web}\n\
         [[dependencies.web.fallback]]\nkind = \"dependency\"\nname = \"spare\"\nwrites = true\n\
         [dependencies.spare]\nkind = \"http\"\nurl = \"{}\"\n{more}\n",
        first.url(),
        spare.url()
    ))
    .await
}

/// A server that is down.
async fn down() -> Upstream {
    Upstream::of(async |_| answer(500, "down")).await
}

/// A server that answers once with a body of the test.
async fn once(body: Body) -> Upstream {
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    Upstream::of(move |_| {
        let body = body.lock().unwrap().take();
        async move { body.unwrap_or_default().into_response() }
    })
    .await
}

async fn until(bed: &Bed, name: &str, is_so: impl Fn(&DependencyStatus) -> bool) {
    let status = || bed.runtime.status(name).unwrap();
    let look = async {
        while !is_so(&status()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, look).await;
    assert!(seen.is_ok(), "{name}: {:#?}", status());
}

#[tokio::test]
async fn edge_3_e5b_a_stand_ins_answer_is_streamed_under_its_own_breaker() {
    let (first, (feed, body)) = (down().await, fed());
    let spare = once(body).await;
    let bed = bed(&first, &spare, ("", "")).await;
    let asked = bed.post("/web/a", "{}");
    let (response, ()) = tokio::join!(asked, async { feed.send("first ").await.unwrap() });
    let mut response = response;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    assert_eq!(header(&response, "breakerbox-attempts"), "1");
    assert_eq!(response.chunk().await.unwrap().unwrap(), "first ");
    // It holds a place of its own dependency, and none of the first one.
    let status = |name| bed.runtime.status(name).unwrap();
    assert_eq!((status("spare").in_flight, status("web").in_flight), (1, 0));
    assert_eq!(status("spare").totals.primary, 0);
    feed.send("last").await.unwrap();
    drop(feed);
    assert_eq!(response.text().await.unwrap(), "last");
    until(&bed, "spare", |one| {
        one.totals.primary == 1 && one.in_flight == 0
    })
    .await;
    assert_eq!(status("web").totals.fallback, 1);
    assert_eq!(status("web").fallbacks, [("spare".to_owned(), 1)]);
    bed.end().await;
}

#[tokio::test]
async fn call_2_e3_the_error_of_a_call_speaks_for_its_stand_in_too() {
    let (first, spare) = (down().await, down().await);
    let open = "override = { mode = \"open\", reason = \"a test\" }";
    let bed = bed(&first, &spare, (open, "")).await;
    let told = problem(bed.post("/web/a", "pay 100").await, 503, "breaker-open").await;
    assert_eq!(told["executed"], "yes", "{told}");
    assert_eq!((first.hits(), spare.hits()), (0, 1));
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_a_stand_ins_answer_has_no_limit_of_size() {
    const PIECES: usize = 150;
    let first = down().await;
    let spare = Upstream::of(async |request: Request| {
        assert_eq!(request.headers()["x-own"], "1");
        let piece = Bytes::from(vec![b'a'; 65_536]);
        let pieces = std::iter::repeat_n(piece, PIECES).map(Ok::<_, std::io::Error>);
        Body::from_stream(futures_util::stream::iter(pieces)).into_response()
    })
    .await;
    let bed = bed(&first, &spare, ("", "headers = { x-own = \"1\" }")).await;
    let response = bed.get("/web/a").await;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    assert_eq!(response.bytes().await.unwrap().len(), PIECES * 65_536);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_a_stand_in_answers_within_its_own_times() {
    let first = down().await;
    let spare = Upstream::of(async |request: Request| {
        let millis = if request.uri().path() == "/slow" {
            400
        } else {
            60_000
        };
        tokio::time::sleep(Duration::from_millis(millis)).await;
        answer(200, "late")
    })
    .await;
    let times = (
        "timeout.attempt = \"100ms\"\nretry.max_attempts = 1",
        "timeout.first_byte = \"1s\"\nretry.max_attempts = 1",
    );
    let bed = bed(&first, &spare, times).await;
    let response = bed.get("/web/slow").await;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    assert_eq!(response.text().await.unwrap(), "late");
    let response = bed.get("/web/never").await;
    assert_eq!(response.status(), 500);
    assert_eq!(header(&response, "breakerbox-source"), "primary");
    until(&bed, "spare", |one| one.totals.failed == 1).await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_the_callers_own_deadline_bounds_a_stand_in_too() {
    let first = down().await;
    let spare = Upstream::of(async |_| std::future::pending::<Response>().await).await;
    let bed = bed(&first, &spare, ("", "")).await;
    let request = bed.http.get(bed.url("/web/a"));
    let response = request.header("breakerbox-deadline-ms", "200").send().await;
    assert_eq!(response.unwrap().status(), 500);
    // EDGE-1: that deadline is no failure of the stand-in.
    until(&bed, "spare", |one| one.in_flight == 0).await;
    assert_eq!(bed.runtime.status("spare").unwrap().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_a_caller_that_leaves_a_stand_in_is_booked_there() {
    let (first, (feed, body)) = (down().await, fed());
    let spare = once(body).await;
    let bed = bed(&first, &spare, ("", "")).await;
    let mut caller = bed.connect().await;
    let request = b"GET /web/a HTTP/1.1\r\nhost: a\r\n\r\n";
    caller.write_all(request).await.unwrap();
    feed.send("first").await.unwrap();
    read_until(&mut caller, "first").await;
    drop(caller);
    until(&bed, "spare", |one| {
        one.totals.cancelled == 1 && one.in_flight == 0
    })
    .await;
    assert_eq!(bed.status().totals.fallback, 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_a_stand_in_that_breaks_off_fails_and_is_cut() {
    let first = down().await;
    let spare = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
        stream.write_all(half).await.unwrap();
    })
    .await;
    let bed = bed(&first, &spare, ("", "")).await;
    let response = bed.get("/web/a").await;
    assert_eq!(header(&response, "content-length"), "9");
    assert!(response.bytes().await.is_err());
    until(&bed, "spare", |one| one.window.failures == 1).await;
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_an_error_of_a_stand_in_is_no_answer() {
    let first = Upstream::of(async |_| answer(503, "of the first")).await;
    let spare = Upstream::of(async |_| answer(404, "not there")).await;
    let bed = bed(&first, &spare, ("", "")).await;
    let response = bed.get("/web/a").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.text().await.unwrap(), "of the first");
    until(&bed, "spare", |one| {
        one.in_flight == 0 && one.totals.failed == 1
    })
    .await;
    // The caller's mistake, for all that is known.
    assert_eq!(bed.runtime.status("spare").unwrap().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_a_stand_ins_own_fallbacks_answer_for_it() {
    let first = down().await;
    let is_up = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let up = Arc::clone(&is_up);
    let spare = Upstream::of(move |_| {
        let is_up = up.load(Ordering::SeqCst);
        async move {
            if is_up {
                answer(200, "kept")
            } else {
                answer(500, "down")
            }
        }
    })
    .await;
    let (feed, body) = fed();
    let third = once(body).await;
    let more = format!(
        "[[dependencies.spare.fallback]]\nkind = \"stale_cache\"\n\
         [[dependencies.spare.fallback]]\nkind = \"dependency\"\nname = \"third\"\n\
         [dependencies.third]\nkind = \"http\"\nurl = \"{}\"\n",
        third.url()
    );
    let bed = bed(&first, &spare, ("", &more)).await;
    // The stand-in keeps its own good answers.
    let response = bed.get("/web/kept").await;
    assert_eq!(response.text().await.unwrap(), "kept");
    is_up.store(false, Ordering::SeqCst);
    let response = bed.get("/web/kept").await;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    assert!(!header(&response, "age").is_empty());
    assert_eq!(response.text().await.unwrap(), "kept");
    // What it has not kept comes from its own stand-in, streamed.
    let asked = bed.get("/web/other");
    let (response, ()) = tokio::join!(asked, async { feed.send("first ").await.unwrap() });
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    assert_eq!(bed.runtime.status("third").unwrap().in_flight, 1);
    feed.send("last").await.unwrap();
    drop(feed);
    assert_eq!(response.text().await.unwrap(), "first last");
    until(&bed, "third", |one| one.totals.primary == 1).await;
    assert_eq!(bed.runtime.status("spare").unwrap().totals.fallback, 2);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_a_stand_ins_answer_is_never_kept_as_one_of_the_first() {
    let first = down().await;
    let answers = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&answers);
    let spare = Upstream::of(move |_| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if number == 0 {
                answer(200, "spare")
            } else {
                answer(500, "down")
            }
        }
    })
    .await;
    let web = "[[dependencies.web.fallback]]\nkind = \"stale_cache\"\n";
    let bed = bed(&first, &spare, (web, "retry.max_attempts = 1")).await;
    assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "spare");
    let response = bed.get("/web/a").await;
    assert_eq!(header(&response, "breakerbox-source"), "primary");
    assert_eq!(response.status(), 500);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_a_reload_of_the_stand_in_holds_for_the_next_call() {
    let first = down().await;
    let (old, new) = (
        Upstream::of(async |_| answer(200, "old")).await,
        Upstream::of(async |_| answer(200, "new")).await,
    );
    let bed = bed(&first, &old, ("", "")).await;
    assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "old");
    let text = format!(
        "[dependencies.spare]\nkind = \"http\"\nurl = \"{}\"\n",
        new.url()
    );
    let settings = Settings::loader().bare().toml(&text).load().unwrap();
    let spare = &settings.dependencies["spare"];
    let put = bed.gateway.put("spare", spare, &new.url(), "test").await;
    put.unwrap();
    assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "new");
    bed.gateway.remove("spare", "test").await;
    assert_eq!(bed.get("/web/a").await.status(), 500);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e5b_trailers_lengths_and_event_streams_of_a_stand_in_pass() {
    let first = down().await;
    let spare = Upstream::raw(async |mut stream: TcpStream, _| {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let answer: &[u8] = match head.split(' ').next().unwrap() {
            "HEAD" => b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n",
            _ => {
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntrailer: x-sum\r\n\
                  transfer-encoding: chunked\r\n\r\n3\r\na\n\n\r\n0\r\nx-sum: 1\r\n\r\n"
            }
        };
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let bed = bed(&first, &spare, ("", "")).await;
    let mut caller = bed.connect().await;
    let request = b"HEAD /web/a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    caller.write_all(request).await.unwrap();
    let head = read_to_end(&mut caller).await;
    assert!(head.contains("content-length: 7\r\n"), "{head}");
    let io = hyper_util::rt::TokioIo::new(bed.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, io);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(bed.url("/web/a"));
    let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["breakerbox-source"], "fallback:spare");
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "1");
    assert_eq!(body.to_bytes(), "a\n\n");
    bed.end().await;
}
