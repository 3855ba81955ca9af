//! Timeouts and rate limits through real sockets.

use tokio::time::Instant;

use super::*;

async fn timed(bed: &Bed, path: &str) -> (reqwest::Response, Duration) {
    let began = Instant::now();
    let response = bed.get(path).await;
    (response, began.elapsed())
}

/// Far above the expected time, far below the time without the limit.
const SLACK: Duration = Duration::from_secs(3);

fn within(took: Duration, limit: u64) {
    let limit = Duration::from_millis(limit);
    assert!(took >= limit, "too early: {took:?}");
    assert!(took < limit + SLACK, "too late: {took:?}");
}

const LIMITS: &str = "timeout = { connect = \"200ms\", first_byte = \"400ms\", idle = \"400ms\", \
    attempt = \"1s\", total = \"1500ms\" }\n";

#[tokio::test]
async fn item_83_a_host_without_a_way_is_no_connection_in_time() {
    // The kernel accepts no connection into a full queue: connecting hangs as with an unreachable
    // host.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    loop {
        let connecting = TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_millis(300), connecting).await {
            Ok(stream) => fillers.push(stream.unwrap()),
            Err(_full) => break,
        }
    }
    let bed = Bed::new(&format!("http://{address}"), LIMITS).await;
    let (response, took) = timed(&bed, "/web/a").await;
    let failed = problem(response, 502, "upstream-failed").await;
    assert!(
        failed["detail"].as_str().unwrap().contains("no connection"),
        "{failed}"
    );
    within(took, 200);
    bed.end().await;
}

#[tokio::test]
async fn item_83_a_head_that_never_comes_ends_with_the_first_byte_s_limit() {
    let upstream = Upstream::of(async |_| std::future::pending::<&str>().await).await;
    let bed = Bed::new(&upstream.url(), LIMITS).await;
    let (response, took) = timed(&bed, "/web/a").await;
    problem(response, 504, "timed-out").await;
    within(took, 400);
    bed.end().await;
}

#[tokio::test]
async fn item_83_a_byte_now_and_then_ends_with_the_attempt_s_limit() {
    let upstream = Upstream::of(async |_| {
        let bytes = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            Some((Ok::<_, std::io::Error>("."), ()))
        });
        Body::from_stream(bytes)
    })
    .await;
    let bed = Bed::new(&upstream.url(), LIMITS).await;
    let began = Instant::now();
    let response = bed.get("/web/a").await;
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err(), "it was cut");
    within(began.elapsed(), 1000);
    bed.until("a failure", |one| one.totals.failed == 1).await;
    bed.end().await;
}

#[tokio::test]
async fn item_83_retries_never_pass_the_deadline() {
    let upstream = Upstream::of(async |_| std::future::pending::<&str>().await).await;
    let text = "idempotent = [\"GET\"]\nbreaker = { failure_threshold = 100 }\n\
                retry = { max_attempts = 50, backoff = { base = \"1ms\", max = \"1ms\" } }\n";
    let bed = Bed::new(&upstream.url(), &format!("{LIMITS}{text}")).await;
    let (response, took) = timed(&bed, "/web/a").await;
    let attempts: usize = header(&response, "breakerbox-attempts").parse().unwrap();
    problem(response, 504, "timed-out").await;
    within(took, 1400);
    assert!((2..=4).contains(&attempts), "{attempts}");
    let began = Instant::now();
    let asked = bed.http.get(bed.url("/web/a"));
    let asked = asked.header("breakerbox-deadline-ms", "600").send().await;
    problem(asked.unwrap(), 504, "timed-out").await;
    within(began.elapsed(), 500);
    bed.end().await;
}

#[tokio::test]
async fn item_60_a_throttle_pauses_it_for_every_caller() {
    for (line, body, least) in [
        ("retry-after: 7", "", 7000),
        (
            "retry-after: 1",
            r#"{"error":{"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3.5s"}]}}"#,
            3500,
        ),
    ] {
        let upstream = Upstream::raw(move |mut stream, _| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let whole = format!(
                "HTTP/1.1 429 Too Many Requests\r\n{line}\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(whole.as_bytes()).await.unwrap();
        })
        .await;
        let bed = Bed::new(&upstream.url(), "breaker = { failure_threshold = 1 }").await;
        let throttled = bed.get("/web/a").await;
        assert_eq!(throttled.status(), 429);
        assert_eq!(header(&throttled, "breakerbox-source"), "primary");
        for _ in 0..5 {
            let paused = bed.get("/web/a").await;
            assert_eq!(header(&paused, "breakerbox-attempts"), "0");
            let paused = problem(paused, 429, "rate-limited").await;
            let wait = paused["retry_after_ms"].as_u64().unwrap();
            assert!(wait > least - 2000, "{paused}");
            assert_eq!(paused["state"], "closed", "the breaker is not touched");
        }
        assert_eq!(upstream.hits(), 1);
        bed.end().await;
    }
}

#[tokio::test]
async fn item_61_a_throttle_without_a_hint_pauses_by_backoff() {
    let upstream = Upstream::of(async |_| answer(429, "slow down")).await;
    let text = "throttle = { backoff = { base = \"20s\", max = \"40s\", jitter = \"none\" } }";
    let bed = Bed::new(&upstream.url(), text).await;
    assert_eq!(bed.get("/web/a").await.status(), 429);
    let paused = problem(bed.get("/web/b").await, 429, "rate-limited").await;
    let wait = paused["retry_after_ms"].as_u64().unwrap();
    assert!((10_000..=20_000).contains(&wait), "{paused}");
    assert_eq!(upstream.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn item_86_a_burst_goes_at_once_and_the_rest_is_paced_or_refused() {
    let upstream = Upstream::of(async |_| "ok").await;
    let text = "rate_limit = { rate = 5, per = \"1s\", burst = 5, max_wait = \"1s\" }";
    let bed = Bed::new(&upstream.url(), text).await;
    let began = Instant::now();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let asked = bed.http.get(bed.url("/web/a"));
            let asked = asked.header("breakerbox-deadline-ms", "1100");
            tokio::spawn(async move { (asked.send().await.unwrap(), began.elapsed()) })
        })
        .collect();
    let (mut good, mut refused) = (Vec::new(), 0);
    for call in calls {
        let (response, took) = call.await.unwrap();
        if response.status() == 200 {
            good.push(took);
        } else {
            problem(response, 429, "rate-limited").await;
            assert!(
                took < Duration::from_millis(900),
                "refused after waiting: {took:?}"
            );
            refused += 1;
        }
    }
    good.sort();
    assert!((9..=11).contains(&good.len()), "{good:?}");
    assert_eq!(good.len() + refused, 20);
    assert_eq!(upstream.hits(), good.len());
    assert!(
        *good.last().unwrap() > Duration::from_millis(600),
        "paced: {good:?}"
    );
    bed.end().await;
}

#[tokio::test]
async fn item_60_when_the_pause_is_over_it_is_called_again() {
    let upstream = Upstream::raw(|mut stream, number| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = if number == 0 {
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\
             connection: close\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let bed = Bed::new(&upstream.url(), "breaker = { failure_threshold = 1 }").await;
    assert_eq!(bed.get("/web/a").await.status(), 429);
    let began = Instant::now();
    let mut refused = 0;
    let again = loop {
        let response = bed.get("/web/a").await;
        if response.status() == 200 {
            break response;
        }
        assert_eq!(upstream.hits(), 1, "it was called while it is left alone");
        assert!(began.elapsed() < PATIENCE, "it is never called again");
        refused += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let waited = began.elapsed();
    assert!(waited > Duration::from_millis(950), "too early: {waited:?}");
    assert!(refused > 0);
    assert_eq!(header(&again, "breakerbox-source"), "primary");
    assert_eq!((upstream.hits(), bed.status().totals.trips), (2, 0));
    bed.end().await;
}

#[tokio::test]
async fn call_2_e3_a_limit_that_passes_before_a_connection_stands_leaves_a_call_unexecuted() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let _silent = super::first_address::silent(address).await;
    for version in ["1.1", "2"] {
        for limit in ["attempt", "first_byte", "total"] {
            let text = format!(
                "http_version = \"{version}\"\nretry = {{ max_attempts = 1 }}\n\
                 timeout = {{ connect = \"off\", {limit} = \"200ms\" }}\n"
            );
            let bed = Bed::new(&format!("http://{address}"), &text).await;
            for response in [bed.get("/web/a").await, bed.post("/web/a", "x").await] {
                let told = problem(response, 504, "timed-out").await;
                assert_eq!(told["executed"], "no", "{text}: {told}");
            }
            bed.end().await;
        }
    }
}

#[tokio::test]
async fn call_2_what_no_connection_has_taken_in_time_is_tried_again_with_any_method() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let _silent = super::first_address::silent(address).await;
    for version in ["1.1", "2"] {
        let text = format!(
            "http_version = \"{version}\"\nbreaker = {{ failure_threshold = 100 }}\n\
             retry = {{ max_attempts = 2, backoff = {{ base = \"1ms\", max = \"2ms\" }} }}\n\
             timeout = {{ connect = \"off\", attempt = \"100ms\" }}\n"
        );
        let bed = Bed::new(&format!("http://{address}"), &text).await;
        for body in ["", "x"] {
            let response = bed.post("/web/a", body).await;
            assert_eq!(header(&response, "breakerbox-attempts"), "2", "{text}");
            let told = problem(response, 504, "timed-out").await;
            assert_eq!(told["executed"], "no", "{told}");
        }
        bed.end().await;
    }
}

#[tokio::test]
async fn call_2_a_model_that_no_connection_reaches_in_time_has_executed_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let _silent = super::first_address::silent(address).await;
    let bed = Bed::of(&format!(
        "[dependencies.gpt]\nkind = \"model\"\napi = \"openai\"\nurl = \"http://{address}/v1\"\n\
         retry.max_attempts = 1\ntimeout = {{ connect = \"off\", first_token = \"200ms\" }}\n"
    ))
    .await;
    let body = r#"{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}"#;
    let request = bed.http.post(bed.url("/gpt/v1/chat/completions"));
    let request = request.header("content-type", "application/json");
    let response = request.body(body).send().await.unwrap();
    assert_eq!(response.status(), 504);
    let told: serde_json::Value = response.json().await.unwrap();
    assert_eq!(told["error"]["executed"], "no", "{told}");
    bed.end().await;
}

#[tokio::test]
async fn call_2_e3_a_worker_that_finds_no_connection_in_time_has_executed_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let _silent = super::first_address::silent(address).await;
    let text = "when_all_down = \"try\"\nretry = { max_attempts = 1 }\n\
                timeout = { connect = \"off\", first_byte = \"200ms\" }\n\
                breaker = { failure_threshold = 1, recovery_timeout = \"1h\" }\n";
    let bed = Bed::new(&format!("http://{address}"), text).await;
    problem(bed.get("/web/a").await, 504, "timed-out").await;
    // The last resort has not reached it either, so the call ends as the breaker has it.
    let told = problem(bed.get("/web/a").await, 503, "breaker-open").await;
    assert_eq!(told["executed"], "no", "{told}");
    bed.end().await;
}
