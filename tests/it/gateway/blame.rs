//! Whose fault a failure is (rule EDGE-1), and how its cause is told (rule EDGE-8).

use super::*;

/// Answers one request of a connection, and closes it as the next one arrives.
async fn answer_once(mut stream: TcpStream) {
    read_until(&mut stream, "\r\n\r\n").await;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    stream.write_all(answer).await.unwrap();
    let mut rest = [0; 1024];
    // An end without a second request is as good.
    let _ = stream.read(&mut rest).await;
}

#[tokio::test]
async fn edge_1_e1a_a_deadline_of_the_caller_counts_for_nothing() {
    // It never answers within the time of a caller who is in a hurry.
    let upstream = Upstream::of(async |request: Request| {
        if request.headers().contains_key("breakerbox-deadline-ms") {
            std::future::pending::<()>().await;
        }
        "well"
    })
    .await;
    let bed = Bed::new(&upstream.url(), "breaker = { failure_threshold = 2 }").await;
    for _ in 0..4 {
        let request = bed.http.get(bed.url("/web/a"));
        let response = request.header("breakerbox-deadline-ms", "5").send().await;
        assert_eq!(response.unwrap().status(), 504);
    }
    let status = bed.status();
    assert_eq!((status.window.failures, status.tally.failures), (0, 0));
    assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "well");
    bed.end().await;
}

#[tokio::test]
async fn edge_1_e1a_a_limit_of_the_settings_counts_as_before() {
    let upstream = Upstream::of(async |_: Request| std::future::pending::<String>().await).await;
    let bed = Bed::new(&upstream.url(), "timeout = { first_byte = \"50ms\" }").await;
    let request = bed.http.get(bed.url("/web/a"));
    let response = request
        .header("breakerbox-deadline-ms", "5000")
        .send()
        .await;
    assert_eq!(response.unwrap().status(), 504);
    assert_eq!(bed.status().window.failures, 1);
    bed.end().await;
}

#[tokio::test]
async fn brk_5_a_dependency_that_answers_its_probes_with_404_is_well_again() {
    let is_down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let flag = Arc::clone(&is_down);
    let upstream = Upstream::of(move |_: Request| {
        let status = match flag.load(Ordering::SeqCst) {
            true => axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            false => axum::http::StatusCode::NOT_FOUND,
        };
        async move { (status, "no") }
    })
    .await;
    let settings = "breaker = { failure_threshold = 1, recovery_timeout = \"10ms\" }";
    let bed = Bed::new(&upstream.url(), settings).await;
    assert_eq!(bed.get("/web/a").await.status(), 500);
    is_down.store(false, Ordering::SeqCst);
    while bed.get("/web/a").await.status() != 404 {}
    let status = bed.status();
    assert_eq!(
        (status.state, status.tally.successes),
        (breakerbox::policy::State::Closed, 1)
    );
    // A closed breaker takes it for what it is: nothing.
    assert_eq!(bed.get("/web/a").await.status(), 404);
    assert_eq!(bed.status().tally.successes, 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_1_e1a_a_probe_that_its_caller_cuts_short_gives_its_slot_back() {
    let hangs = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let flag = Arc::clone(&hangs);
    let upstream = Upstream::of(move |request: Request| {
        let hangs = flag.load(Ordering::SeqCst);
        async move {
            match request.uri().path() {
                "/fail" => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, "no").into_response(),
                _ if hangs => std::future::pending::<Response>().await,
                _ => "well".into_response(),
            }
        }
    })
    .await;
    let breaker = "breaker = { failure_threshold = 1, recovery_timeout = \"10ms\" }";
    let bed = Bed::new(&upstream.url(), breaker).await;
    bed.get("/web/fail").await;
    // The first call after the open time is the probe.
    let probe = async {
        loop {
            let request = bed.http.get(bed.url("/web/a"));
            let response = request.header("breakerbox-deadline-ms", "30").send().await;
            if response.unwrap().status() == 504 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, probe).await.unwrap();
    hangs.store(false, Ordering::SeqCst);
    assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "well");
    bed.end().await;
}

#[tokio::test]
async fn edge_1_e1b_an_upload_that_is_refused_by_its_head_is_answered() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer =
            b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut refused = 0;
    for _ in 0..6 {
        let response = bed.post("/web/up", vec![b'z'; 3_000_000]).await;
        refused += u32::from(response.status() == 401);
    }
    assert!(refused >= 3, "{refused} of 6");
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_1_e1c_the_wait_for_an_answer_begins_at_the_end_of_the_request() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let mut left = 3_000_000 - (head.len() - head.find("\r\n\r\n").unwrap() - 4);
        let mut piece = vec![0; 100_000];
        while left > 0 {
            // As slow as the test needs it: all of it takes longer than any limit.
            tokio::time::sleep(Duration::from_millis(15)).await;
            let most = left.min(piece.len());
            left -= stream.read(&mut piece[..most]).await.unwrap();
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nall";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let limits = "timeout = { first_byte = \"300ms\", attempt = \"300ms\" }";
    let bed = Bed::new(&upstream.url(), limits).await;
    let response = bed.post("/web/up", vec![b'z'; 3_000_000]).await;
    assert_eq!(response.text().await.unwrap(), "all");
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_1_e1d_a_kept_connection_that_closes_at_its_reuse_is_no_failure() {
    let upstream = Upstream::raw(|stream, _| answer_once(stream)).await;
    let bed = Bed::new(&upstream.url(), "").await;
    for _ in 0..6 {
        assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "ok");
    }
    assert_eq!(bed.status().window.failures, 0);
    // What may not be repeated is told, and is no failure either.
    let posted = bed.post("/web/a", "x").await.status().as_u16();
    assert!([200, 502].contains(&posted), "{posted}");
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_1_e1d_a_body_of_any_framing_goes_out_once_more_with_its_request() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "abc").await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        // It closes as the next request arrives.
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let more = "idempotent = [\"GET\", \"PUT\"]";
    let bed = Bed::new(&upstream.url(), more).await;
    for method in ["GET", "PUT", "GET", "GET"] {
        let mut caller = bed.connect().await;
        let request = format!(
            "{method} /web/a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
             transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        caller.write_all(request.as_bytes()).await.unwrap();
        let answer = read_until(&mut caller, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
    }
    assert_eq!(bed.status().window.failures, 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_3_e1d_a_body_that_only_might_go_out_once_more_is_not_held_for_long() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "abc").await;
    })
    .await;
    let bed = Bed::new(&upstream.url(), "idempotent = [\"PUT\"]").await;
    let mut caller = bed.connect().await;
    let head = "PUT /web/a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    caller.write_all(head.as_bytes()).await.unwrap();
    bed.until("it is passed on", |_| upstream.hits() > 0).await;
    bed.end().await;
}

#[tokio::test]
async fn edge_1_a_server_that_ends_while_it_works_has_failed() {
    let upstream = Upstream::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        // It works on the request, and dies of it.
        tokio::time::sleep(Duration::from_millis(400)).await;
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    let mut caller = bed.connect().await;
    for (status, end, failures) in [("200", "ok", 0), ("502", "\r\n\r\n", 1)] {
        let request = b"POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        caller.write_all(request).await.unwrap();
        let answer = read_until(&mut caller, end).await;
        assert!(answer.contains(status), "{answer}");
        bed.until("it is counted", |status| status.window.failures == failures)
            .await;
    }
    assert_eq!(upstream.hits(), 1, "one connection served both");
    bed.end().await;
}

#[tokio::test]
async fn edge_1_a_slow_upload_is_no_slow_call() {
    let upstream = Upstream::of(async |request: Request| {
        axum::body::to_bytes(request.into_body(), 1 << 22)
            .await
            .unwrap();
        "ok"
    })
    .await;
    let rule = "breaker = { window = { kind = \"count\", size = 10 }, slow_call = \"200ms\", \
                slow_rate = 0.2, minimum_calls = 2 }";
    let bed = Bed::new(&upstream.url(), rule).await;
    // The first is kept until it is whole, the second is passed on as it comes.
    for length in [1_000, 2_000_000] {
        let mut callers = Vec::new();
        for _ in 0..3 {
            let mut caller = bed.connect().await;
            let head =
                format!("POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
            caller.write_all(head.as_bytes()).await.unwrap();
            caller.write_all(&vec![b'x'; length / 2]).await.unwrap();
            callers.push(caller);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(bed.get("/web/a").await.status(), 200, "none is overdue");
        for mut caller in callers {
            caller.write_all(&vec![b'x'; length / 2]).await.unwrap();
            let answer = read_until(&mut caller, "\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let status = bed.status();
        assert_eq!((status.window.slow, status.window.failures), (0, 0));
    }
    bed.end().await;
}

#[tokio::test]
async fn brk_9_a_call_is_overdue_once_its_upload_is_over() {
    let upstream = Upstream::of(async |request: Request| {
        if request.method() == "POST" {
            std::future::pending::<()>().await;
        }
        "ok"
    })
    .await;
    let rule = "breaker = { window = { kind = \"count\", size = 10 }, slow_call = \"200ms\", \
                slow_rate = 0.2, minimum_calls = 2 }";
    // Trailers that are not passed on end a body as others do.
    for (framing, body) in [
        ("content-length: 10", "0123456789"),
        (
            "transfer-encoding: chunked",
            "a\r\n0123456789\r\n0\r\nhost: b\r\n\r\n",
        ),
    ] {
        let bed = Bed::new(&upstream.url(), rule).await;
        let mut callers = Vec::new();
        for _ in 0..3 {
            let mut caller = bed.connect().await;
            let head = format!("POST /web/a HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
            caller.write_all(head.as_bytes()).await.unwrap();
            // Clients send the body apart from its head.
            caller.write_all(body.as_bytes()).await.unwrap();
            callers.push(caller);
        }
        let opened = async {
            while bed.get("/web/a").await.status() == 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let opened = tokio::time::timeout(PATIENCE, opened).await;
        assert!(opened.is_ok(), "{framing}: never overdue");
        drop(callers);
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_1_e1f_a_refused_credential_of_a_caller_is_its_own() {
    let upstream = Upstream::of(async |request: Request| {
        let status = request.uri().path().trim_start_matches('/');
        let status = axum::http::StatusCode::from_bytes(status.as_bytes());
        (status.unwrap(), "who are you?")
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    for status in [401, 403, 407] {
        let response = bed.get(&format!("/web/{status}")).await;
        assert_eq!(response.status().as_u16(), status);
    }
    let status = bed.status();
    assert_eq!(status.window.failures, 0);
    assert_eq!(status.health.to_string(), "ok");
    bed.end().await;
}

#[tokio::test]
async fn edge_1_a_method_that_the_service_does_not_know_is_the_callers_affair() {
    let upstream =
        Upstream::of(async |_: Request| (axum::http::StatusCode::NOT_IMPLEMENTED, "no")).await;
    let bed = Bed::new(&upstream.url(), "breaker = { failure_threshold = 2 }").await;
    for method in ["BREW", "PROPFIND", "DELETE", "BREW"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let response = bed.http.request(method, bed.url("/web/a")).send().await;
        assert_eq!(response.unwrap().status(), 501);
    }
    let status = bed.status();
    assert_eq!(
        (status.window.failures, status.health.to_string()),
        (0, "ok".to_owned())
    );
    // Each server has to know this one.
    assert_eq!(bed.get("/web/a").await.status(), 501);
    assert_eq!(bed.status().window.failures, 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6b_a_short_body_that_drips_has_an_end() {
    let upstream = Upstream::of(async |_: Request| "ok").await;
    let bed = Bed::of(&format!(
        "[gateway]\nbody_timeout = \"200ms\"\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        upstream.url()
    ))
    .await;
    let mut caller = bed.connect().await;
    let head = "POST /web/a HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n";
    caller.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 64];
    let dripping = async {
        loop {
            tokio::select! {
                read = caller.read(&mut answer) => return read.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(40)) => {}
            }
            // The gateway may have closed already.
            let _ = caller.write_all(b"x").await;
        }
    };
    let read = tokio::time::timeout(PATIENCE, dripping).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(upstream.hits(), 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_8_e9a_each_cause_of_a_lost_connection_is_told() {
    let plain = Upstream::of(async |_: Request| "plain").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let not_tls = format!("https://{}", plain.address);
    for (url, cause) in [
        (refused.as_str(), "connection refused"),
        (&not_tls, "not TLS"),
    ] {
        let bed = Bed::new(url, "breaker = { failure_threshold = 2 }").await;
        for _ in 0..2 {
            let told = problem(bed.get("/web/a").await, 502, "upstream-failed").await;
            assert_eq!(told["cause"], cause);
            assert!(told["detail"].as_str().unwrap().contains(cause), "{told}");
        }
        bed.until("it opens", |one| {
            one.reason.ends_with(&format!("; last: {cause}"))
        })
        .await;
        let told = problem(bed.get("/web/a").await, 503, "breaker-open").await;
        assert!(told["cause"].as_str().unwrap().ends_with(cause), "{told}");
        bed.end().await;
    }
}

#[tokio::test]
async fn lim_4_e11a_e11b_a_refusal_can_be_read_and_obeyed_by_clients_of_models() {
    let upstream =
        Upstream::of(async |_: Request| (axum::http::StatusCode::INTERNAL_SERVER_ERROR, "down"))
            .await;
    let bed = Bed::new(&upstream.url(), "breaker = { failure_threshold = 1 }").await;
    bed.get("/web/a").await;
    let response = bed.get("/web/a").await;
    assert_eq!(header(&response, "x-should-retry"), "false");
    let told = problem(response, 503, "breaker-open").await;
    assert_eq!(told["error"]["code"], "breaker-open");
    assert!(
        told["error"]["message"].as_str().unwrap().contains("web"),
        "{told}"
    );
    bed.end().await;
}

#[tokio::test]
async fn edge_8_a_trip_tells_the_status_and_the_limit_that_cut() {
    let upstream = Upstream::of(async |request: Request| {
        if request.uri().path().ends_with("/hang") {
            std::future::pending::<()>().await;
        }
        axum::http::StatusCode::INTERNAL_SERVER_ERROR
    })
    .await;
    let cases = [
        ("/web/fail", "; last: 500 from the dependency"),
        ("/web/hang", " ms (timeout.attempt)"),
    ];
    for (path, last) in cases {
        let more = "timeout = { attempt = \"100ms\" }\nbreaker = { failure_threshold = 2 }";
        let bed = Bed::new(&upstream.url(), more).await;
        for _ in 0..2 {
            bed.get(path).await;
        }
        bed.until("it opens", |one| one.reason.contains("at or above 2"))
            .await;
        let status = bed.status();
        assert!(status.reason.contains(last), "{}", status.reason);
        // The rule of the outage does not say it again.
        let outage = status.outage.unwrap();
        assert!(!outage.cause.rule.contains("last:"), "{outage:?}");
        bed.end().await;
    }
}
