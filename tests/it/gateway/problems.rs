//! The gateway's own errors: one document for each way a call can end without an answer.

use breakerbox::prelude::BreakerCommand;
use tokio::sync::Semaphore;

use super::*;

/// An address without a listener.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn an_open_breaker_tells_when_to_come_back() {
    let url = nobody().await;
    let bed = Bed::new(
        &url,
        "breaker = { failure_threshold = 2, recovery_timeout = \"90s\" }",
    )
    .await;
    for _ in 0..2 {
        let failed = problem(bed.get("/web/a").await, 502, "upstream-failed").await;
        assert_eq!(failed["executed"], "no", "never sent: {failed}");
        assert_eq!(failed["dependency"], "web");
    }
    let open = bed.get("/web/a").await;
    assert_eq!(header(&open, "breakerbox-attempts"), "0");
    let open = problem(open, 503, "breaker-open").await;
    assert_eq!(open["state"], "open");
    assert_eq!(open["executed"], "no");
    let wait = open["retry_after_ms"].as_u64().unwrap();
    assert!((60_000..=90_001).contains(&wait), "{open}");
    let refused = bed.status().totals.refused;
    assert_eq!(refused, 1);
    bed.end().await;
}

/// The address has no listener, so no request is ever sent: the document says so, also when the
/// breaker opens because of it, and a method that is not idempotent is retried too.
#[tokio::test]
async fn call_2_e3a_a_service_without_a_listener_has_executed_nothing() {
    let retries = "retry = { max_attempts = 3, backoff = { base = \"1ms\", max = \"2ms\" } }\n\
                   idempotent = [\"GET\"]";
    let opens = format!("breaker = {{ failure_threshold = 1 }}\n{retries}");
    let bed = Bed::new(&nobody().await, &opens).await;
    let open = problem(bed.get("/web/a").await, 503, "breaker-open").await;
    assert_eq!(open["executed"], "no", "{open}");
    bed.end().await;
    let stays = format!("breaker = {{ failure_threshold = 100 }}\n{retries}");
    let bed = Bed::new(&nobody().await, &stays).await;
    for method in [reqwest::Method::GET, reqwest::Method::POST] {
        let asked = bed.http.request(method.clone(), bed.url("/web/a"));
        let answer = asked.body("a body").send().await.unwrap();
        assert_eq!(header(&answer, "breakerbox-attempts"), "3", "{method}");
        let failed = problem(answer, 502, "upstream-failed").await;
        assert_eq!(failed["executed"], "no", "{method}: {failed}");
    }
    bed.end().await;
}

#[tokio::test]
async fn an_operator_s_word_is_the_state() {
    let upstream = Upstream::of(async |_| "ok").await;
    let bed = Bed::new(&upstream.url(), "").await;
    let reason = "maintenance".to_owned();
    let command = BreakerCommand::Open {
        reason,
        until: None,
    };
    bed.runtime.operate("web", command).await.unwrap().unwrap();
    let shut = problem(bed.get("/web/a").await, 503, "breaker-open").await;
    assert_eq!(shut["state"], "forced_open");
    assert!(
        shut["detail"].as_str().unwrap().contains("maintenance"),
        "{shut}"
    );
    assert_eq!(shut["retry_after_ms"], serde_json::Value::Null);
    assert_eq!(upstream.hits(), 0);
    bed.end().await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout() {
    let upstream = Upstream::of(async |_| std::future::pending::<&str>().await).await;
    let bed = Bed::new(&upstream.url(), "timeout = { first_byte = \"100ms\" }").await;
    let late = problem(bed.get("/web/a").await, 504, "timed-out").await;
    assert_eq!(
        (&late["executed"], &late["state"]),
        (&"maybe".into(), &"closed".into())
    );
    let asked = bed.http.get(bed.url("/web/a"));
    let asked = asked.header("breakerbox-deadline-ms", "20").send().await;
    problem(asked.unwrap(), 504, "timed-out").await;
    assert_eq!(bed.status().totals.failed, 2);
    bed.end().await;
}

#[tokio::test]
async fn a_connection_that_breaks_may_have_done_the_work() {
    let upstream = Upstream::raw(|mut stream, number| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        if number > 0 {
            stream.write_all(b"SSH-2.0-nothing\r\n").await.unwrap();
        }
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    for _ in 0..2 {
        let broken = problem(bed.get("/web/a").await, 502, "upstream-failed").await;
        assert_eq!(broken["executed"], "maybe");
    }
    assert_eq!(bed.status().window.failures, 2);
    bed.end().await;
}

/// A failure with a response of its own: the response is forwarded, and the breaker counts a
/// failure.
#[tokio::test]
async fn the_dependency_s_own_words_are_passed_on() {
    let upstream = Upstream::of(async |request: Request| match request.uri().path() {
        "/401" => answer(401, "who are you?"),
        "/404" => answer(404, "not here"),
        "/large" => (axum::http::StatusCode::BAD_GATEWAY, "x".repeat(100_000)).into_response(),
        _ => answer(500, "sorry"),
    })
    .await;
    let bed = Bed::new(&upstream.url(), "").await;
    for (path, status, words) in [
        ("/web/500", 500, "sorry".to_owned()),
        ("/web/404", 404, "not here".to_owned()),
        ("/web/401", 401, "who are you?".to_owned()),
        ("/web/large", 502, "x".repeat(100_000)),
    ] {
        let response = bed.get(path).await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(header(&response, "breakerbox-source"), "primary");
        assert_eq!(header(&response, "breakerbox-attempts"), "1");
        assert_eq!(response.text().await.unwrap(), words);
    }
    bed.until("all are booked", |one| one.in_flight == 0).await;
    let status = bed.status();
    assert_eq!(
        status.window.failures, 2,
        "500 and 502; the others are not its fault"
    );
    // A refused credential is the caller's own, and its answer is the dependency's.
    assert_eq!((status.totals.primary, status.totals.failed), (2, 2));
    bed.end().await;
}

#[tokio::test]
async fn what_nobody_knows_is_not_told_more_than_that() {
    let bed = Bed::new("http://127.0.0.1:1", "").await;
    let unknown = problem(
        bed.get("/wep/a?key=s3cret").await,
        404,
        "unknown-dependency",
    )
    .await;
    assert_eq!(unknown["dependency"], "wep", "the requested name");
    assert_eq!(unknown["state"], serde_json::Value::Null);
    assert!(!unknown.to_string().contains("s3cret"), "{unknown}");
    assert_eq!(bed.get("/").await.text().await.unwrap(), "/web/\n");
    bed.end().await;
}

#[tokio::test]
async fn a_caller_s_own_words_are_checked() {
    let bed = Bed::new("http://127.0.0.1:1", "").await;
    for (name, value) in [
        ("breakerbox-deadline-ms", "soon"),
        ("breakerbox-deadline-ms", "-1"),
        ("breakerbox-priority", "urgent"),
        ("breakerbox-key", ""),
    ] {
        let asked = bed.http.get(bed.url("/web/a")).header(name, value);
        let wrong = problem(asked.send().await.unwrap(), 400, "bad-request").await;
        assert!(wrong["detail"].as_str().unwrap().contains(name), "{wrong}");
        assert_eq!(
            (&wrong["dependency"], &wrong["state"]),
            (&"web".into(), &"closed".into())
        );
    }
    assert_eq!(bed.status().totals.submitted, 0);
    bed.end().await;
}

#[tokio::test]
async fn a_runtime_that_goes_down_says_so() {
    let upstream = Upstream::of(async |_| "ok").await;
    let bed = Bed::new(&upstream.url(), "").await;
    bed.runtime.shutdown().await;
    let down = problem(bed.get("/web/a").await, 503, "shutting-down").await;
    assert_eq!(down["executed"], "no");
    assert_eq!(upstream.hits(), 0);
    bed.gateway.shutdown().await;
}

#[tokio::test]
async fn item_62_no_secret_of_a_request_is_told() {
    const KEY: &str = "AIza-s3cret-0123456789";
    let upstream = Upstream::raw(|mut stream, number| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        if number == 0 {
            let broken = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
            stream.write_all(broken.as_bytes()).await.unwrap();
        }
    })
    .await;
    let text = "breaker = { failure_threshold = 3 }\nfallback = [{ kind = \"dependency\", name = \"other\" }]\n\
                [dependencies.other]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"";
    let bed = Bed::new(&upstream.url(), text).await;
    let path = format!("/web/v1/search?key={KEY}");
    let mut told = String::new();
    for _ in 0..5 {
        let asked = bed.http.get(bed.url(&path)).bearer_auth(KEY);
        let response = asked.send().await.unwrap();
        told.push_str(&format!("{:?}", response.headers()));
        told.push_str(&response.text().await.unwrap_or_default());
    }
    bed.until("it opened", |one| one.totals.refused > 0).await;
    told.push_str(&format!("{:?}", bed.runtime.events_since(0)));
    told.push_str(&format!("{:?}", bed.runtime.statuses()));
    assert!(told.contains("urn:breakerbox:breaker-open"), "{told}");
    for at in 0..KEY.len() - 5 {
        let part = &KEY[at..at + 5];
        assert!(!told.contains(part), "{part} is told: {told}");
    }
    bed.end().await;
}

#[tokio::test]
async fn item_85_a_blocked_dependency_is_full_at_once_and_another_does_not_notice() {
    let open = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&open);
    let blocked = Upstream::of(move |_| {
        let opened = Arc::clone(&opened);
        async move {
            opened.acquire().await.unwrap().forget();
            "late"
        }
    })
    .await;
    let healthy = Upstream::of(async |_| "ok").await;
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n\
         bulkhead = {{ max_concurrent = 2, max_queue = 1, max_wait = \"30s\" }}\n\
         timeout = {{ attempt = \"30s\", first_byte = \"30s\", total = \"60s\" }}\n\
         [dependencies.b]\nkind = \"http\"\nurl = \"{}\"\n",
        blocked.url(),
        healthy.url()
    );
    let bed = Bed::of(&text).await;
    let first: Vec<_> = (0..3)
        .map(|_| tokio::spawn(bed.http.get(bed.url("/web/a")).send()))
        .collect();
    bed.until("two run and one waits", |one| {
        (one.in_flight, one.queued) == (2, 1)
    })
    .await;
    for _ in 0..7 {
        let full = problem(bed.get("/web/a").await, 503, "overloaded").await;
        assert_eq!(full["executed"], "no");
    }
    for _ in 0..10 {
        assert_eq!(bed.get("/b/a").await.text().await.unwrap(), "ok");
    }
    assert_eq!((bed.status().in_flight, bed.status().queued), (2, 1));
    assert_eq!(blocked.hits(), 2);
    // Any of the three may be the one that waits for a place.
    open.add_permits(3);
    for call in first {
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
    }
    bed.end().await;
}
