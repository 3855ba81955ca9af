//! The question whether a call could begin, as consumers of queues ask it (rule MSG-10).

use super::*;

/// Answers `/hang` once it is let go, `/fail` with 500, and everything else at once.
async fn upstream(gone: tokio::sync::watch::Receiver<bool>) -> Upstream {
    Upstream::of(move |request: Request| {
        let mut gone = gone.clone();
        async move {
            if request.uri().path() == "/hang" {
                gone.wait_for(|gone| *gone).await.unwrap();
            }
            let status = if request.uri().path() == "/fail" {
                500
            } else {
                200
            };
            answer(status, "an answer")
        }
    })
    .await
}

async fn available(bed: &Bed, wait: &str) -> u64 {
    let response = bed
        .get(&format!("/.breakerbox/web/ready?wait={wait}"))
        .await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), "application/json");
    let ready: serde_json::Value = response.json().await.unwrap();
    ready["available"].as_u64().unwrap()
}

#[tokio::test]
async fn msg_10_free_places_are_told_and_a_full_bulkhead_is_waited_for() {
    let (let_go, gone) = tokio::sync::watch::channel(false);
    let upstream = upstream(gone).await;
    let bed = Bed::new(&upstream.url(), "bulkhead = { max_concurrent = 2 }").await;
    assert_eq!(available(&bed, "0s").await, 2);
    let calls = [bed.get("/web/hang"), bed.get("/web/hang")];
    let asked = async {
        bed.until("the places are taken", |one| one.in_flight == 2)
            .await;
        let full = bed.get("/.breakerbox/web/ready").await;
        let told = problem(full, 503, "not-ready").await["detail"].to_string();
        assert!(told.contains("bulkhead.max_concurrent"), "{told}");
        let waiting = bed.get("/.breakerbox/web/ready?wait=20s");
        let freed = async { let_go.send_replace(true) };
        let (ready, _) = tokio::join!(waiting, freed);
        assert_eq!(ready.status(), 200);
    };
    tokio::join!(asked, futures_util::future::join_all(calls));
    assert_eq!(upstream.hits(), 2, "the question is no call");
    bed.end().await;
}

#[tokio::test]
async fn msg_10_an_open_breaker_is_waited_for_until_its_next_try() {
    let (_let_go, gone) = tokio::sync::watch::channel(false);
    let upstream = upstream(gone).await;
    let text = "breaker = { window = { kind = \"consecutive\" }, failure_threshold = 1, recovery_timeout = \"1s\", \
                recovery_backoff = { jitter = 0.0 } }";
    let bed = Bed::new(&upstream.url(), text).await;
    bed.get("/web/fail").await;
    let opened = tokio::time::Instant::now();
    let refused = problem(bed.get("/.breakerbox/web/ready").await, 503, "not-ready").await;
    let told = refused["detail"].as_str().unwrap();
    assert!(told.starts_with("its breaker is open"), "{told}");
    let wait = refused["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1001).contains(&wait), "{refused}");
    // One probe at most, however many places there are.
    assert_eq!(available(&bed, "30s").await, 1);
    assert!(opened.elapsed() >= Duration::from_millis(wait) - Duration::from_millis(50));
    assert_eq!(bed.get("/web/a").await.status(), 200);
    assert!(available(&bed, "0s").await > 1, "it is closed again");
    assert_eq!(upstream.hits(), 2, "the question is no probe");
    bed.end().await;
}

#[tokio::test]
async fn msg_10_a_wrong_question_gets_a_clear_answer() {
    let (_let_go, gone) = tokio::sync::watch::channel(false);
    let upstream = upstream(gone).await;
    let bed = Bed::new(&upstream.url(), "").await;
    let unknown = bed.get("/.breakerbox/other/ready").await;
    problem(unknown, 404, "unknown-dependency").await;
    let nearly = bed.get("/.breakerbox/wab/ready").await;
    let told = problem(nearly, 404, "unknown-dependency").await["detail"].to_string();
    assert!(told.contains("did you mean web?"), "{told}");
    let span = bed.get("/.breakerbox/web/ready?wait=30").await;
    let detail = problem(span, 400, "bad-request").await["detail"].to_string();
    assert!(detail.contains("30s"), "{detail}");
    let posted = bed.post("/.breakerbox/web/ready", "").await;
    assert_eq!(header(&posted, "allow"), "GET, HEAD");
    problem(posted, 405, "method-not-allowed").await;
    bed.end().await;
}

#[tokio::test]
async fn msg_10_a_wait_does_not_hold_up_the_end_of_the_process() {
    let (_let_go, gone) = tokio::sync::watch::channel(false);
    let upstream = upstream(gone).await;
    let bed = Bed::new(
        &upstream.url(),
        "bulkhead = { max_concurrent = 1, max_queue = 0 }",
    )
    .await;
    let mut call = bed.connect().await;
    call.write_all(b"GET /web/hang HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    bed.until("the place is taken", |one| one.in_flight == 1)
        .await;
    let mut asking = bed.connect().await;
    let question = b"GET /.breakerbox/web/ready?wait=60s HTTP/1.1\r\nhost: a\r\n\r\n";
    asking.write_all(question).await.unwrap();
    drop(call);
    let ended = tokio::time::timeout(PATIENCE, bed.end());
    let (ended, text) = tokio::join!(ended, read_to_end(&mut asking));
    ended.unwrap();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text}");
}
