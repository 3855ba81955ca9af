//! The cause that an operator is told: limits, full bulkheads, refused credentials, probes that wait.

use std::convert::Infallible;

use breakerbox::ActiveProbeResult;
use breakerbox_policy::CauseKind;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::*;

/// Answers `/part` with a part of a body, `/hang` never, and everything else with `status`.
async fn upstream(status: u16) -> Upstream {
    Upstream::of(move |request: Request| async move {
        match request.uri().path() {
            "/hang" => std::future::pending().await,
            "/part" => {
                let part = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"a part"))]);
                Body::from_stream(part.chain(stream::pending())).into_response()
            }
            _ => answer(status, "an answer").into_response(),
        }
    })
    .await
}

#[tokio::test]
async fn edge_8_an_answer_that_stops_names_the_limit_of_its_outage() {
    let upstream = upstream(200).await;
    let text = "timeout = { idle = \"100ms\" }\n\
                breaker = { window = { kind = \"consecutive\" }, failure_threshold = 1 }";
    let bed = Bed::new(&upstream.url(), text).await;
    let response = bed.get("/web/part").await;
    response.bytes().await.unwrap_err();
    bed.until("it opens", |status| status.outage.is_some())
        .await;
    let cause = bed.status().outage.unwrap().cause;
    assert_eq!(
        (cause.kind, cause.limit),
        (CauseKind::Timeout, Some("timeout.idle"))
    );
    assert_eq!(
        cause.text,
        "an answer that stopped for 100 ms (timeout.idle)"
    );
    bed.end().await;
}

#[tokio::test]
async fn edge_8_a_probe_that_is_late_names_its_limit() {
    let upstream = upstream(200).await;
    let text = "probe = { path = \"/hang\", every = \"100ms\", timeout = \"100ms\" }\n\
                breaker = { window = { kind = \"consecutive\" }, failure_threshold = 1 }";
    let bed = Bed::new(&upstream.url(), text).await;
    bed.until("it opens", |status| status.outage.is_some())
        .await;
    let cause = bed.status().outage.unwrap().cause;
    assert_eq!(cause.limit, Some("probe.timeout"));
    assert!(cause.text.ends_with("(probe.timeout)"), "{}", cause.text);
    bed.end().await;
}

#[tokio::test]
async fn edge_8_calls_without_room_are_told_as_such() {
    let upstream = upstream(200).await;
    let text = "bulkhead = { max_concurrent = 1, max_queue = 0 }";
    let bed = Bed::new(&upstream.url(), text).await;
    let calls = async {
        bed.until("the place is taken", |one| one.in_flight == 1)
            .await;
        for _ in 0..25 {
            assert_eq!(bed.get("/web/x").await.status(), 503);
        }
    };
    tokio::select! {
        _ = bed.get("/web/hang") => unreachable!("it hangs"),
        () = calls => {}
    }
    let outage = bed.runtime.outages().remove(0).outage;
    assert_eq!(outage.cause.kind, CauseKind::Overload);
    assert_eq!(outage.cause.limit, Some("bulkhead.max_concurrent"));
    // HLT-2: the calls that made the share are its own.
    assert!(outage.affected.errors >= 20, "{outage:?}");
    bed.end().await;
}

#[tokio::test]
async fn hlt_1_callers_who_pay_for_our_credentials_get_errors() {
    let upstream = upstream(401).await;
    let text = "headers = { authorization = \"Bearer of ours\" }";
    let bed = Bed::new(&upstream.url(), text).await;
    for _ in 0..6 {
        assert_eq!(bed.get("/web/x").await.status(), 401);
    }
    let status = bed.status();
    assert_eq!(status.outage.unwrap().cause.kind, CauseKind::Misconfigured);
    assert_eq!(status.answers.counts.errors, 6);
    assert!(
        status.health.to_string().starts_with("down"),
        "{}",
        status.health
    );
    bed.end().await;
}

#[tokio::test]
async fn brk_13_a_probe_that_is_asked_to_wait_says_so_and_goes_on() {
    let upstream = Upstream::of(async |_: Request| {
        let wait = [("retry-after", "86400")];
        (axum::http::StatusCode::TOO_MANY_REQUESTS, wait, "later")
    })
    .await;
    let text = "probe = { path = \"/\", every = \"100ms\" }\nthrottle = { max = \"200ms\" }";
    let bed = Bed::new(&upstream.url(), text).await;
    let last = |status: &DependencyStatus| status.active_probes.clone()?.last;
    bed.until("it answered", |status| last(status).is_some())
        .await;
    let (_, result, text) = last(&bed.status()).unwrap();
    assert_eq!(result, ActiveProbeResult::NotCounted);
    assert_eq!(
        text,
        "it answered 429 and asked for 24 h without requests; the next probe follows after 200 ms"
    );
    let waited = async {
        while upstream.hits() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap();
    bed.end().await;
}
