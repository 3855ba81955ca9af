//! Streams are judged by their true end, and nothing is invented where it is missing.

use super::*;

/// The events of a body that holds an error of ours: those before it, and the error.
fn error_at_end(body: &str) -> (String, Value) {
    let place = body
        .rfind("data: {\"error\"")
        .unwrap_or_else(|| panic!("{body}"));
    let event = body[place..].trim_start_matches("data: ");
    (
        body[..place].to_owned(),
        serde_json::from_str(event.trim()).unwrap(),
    )
}

#[tokio::test]
async fn llm_item_05_llm_8_an_error_event_after_content_passes_once_and_counts() {
    let pieces = vec![OPENING.to_owned(), chunk("a"), event(OVERLOADED)];
    let (first, spare) = (
        Provider::of([Act::Stream(pieces.clone())]).await,
        Provider::good("well").await,
    );
    let bed = bed(&first, Some(&spare), "").await;
    for failures in 1..=4 {
        let (body, _) = read_all(bed.ask("gpt", true).await).await;
        assert_eq!(body, pieces.concat(), "as the provider has sent it");
        // CALL-3: counted before the caller has seen it.
        assert_eq!(bed.failures("gpt"), failures);
    }
    read_all(bed.ask("gpt", true).await).await;
    check_good(bed.ask("gpt", true).await, "well", "fallback:spare").await;
    assert_eq!(first.hits(), 5, "the fifth has opened the breaker");
    bed.end().await;
}

#[tokio::test]
async fn llm_item_06_llm_8_a_stream_without_its_end_is_a_failure_with_an_error() {
    for act in [
        Act::Stream(vec![OPENING.to_owned(), chunk("a")]),
        Act::Reset(vec![OPENING.to_owned(), chunk("a")]),
        // An event that is cut in two.
        Act::Stream(vec![
            OPENING.to_owned(),
            chunk("a"),
            "data: {\"id\":".to_owned(),
        ]),
    ] {
        let is_cut = matches!(&act, Act::Stream(pieces) if pieces.len() == 3);
        let first = Provider::of([act.clone()]).await;
        let bed = bed(&first, None, "").await;
        let response = bed.ask("gpt", true).await;
        assert_eq!(response.status(), 200);
        let (body, is_whole) = read_all(response).await;
        assert!(!is_whole, "{act:?}");
        let (before, error) = error_at_end(&body);
        let rest = if is_cut { "data: {\"id\":\n\n" } else { "" };
        assert_eq!(before, format!("{OPENING}{}{rest}", chunk("a")));
        assert_eq!(error["error"]["code"], "upstream-failed", "{error}");
        assert_eq!(error["error"]["dependency"], "gpt");
        assert_eq!(bed.failures("gpt"), 1);
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_item_08_llm_8_no_end_is_invented() {
    for act in [
        Act::Stream(vec![OPENING.to_owned(), chunk("a")]),
        Act::Hang(vec![OPENING.to_owned(), chunk("a")]),
        Act::Reset(vec![OPENING.to_owned(), chunk("a")]),
    ] {
        let first = Provider::of([act]).await;
        let bed = bed(&first, None, "timeout.gap = \"50ms\"").await;
        let (body, is_whole) = read_all(bed.ask("gpt", true).await).await;
        assert!(!is_whole);
        for word in ["[DONE]", "\"stop\"", "message_stop", "usage"] {
            assert!(!body.contains(word), "{word}: {body}");
        }
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_item_10_llm_9_a_stall_after_content_ends_with_an_error_and_counts() {
    let pieces = vec![OPENING.to_owned(), chunk("a")];
    let every = Duration::from_millis(10);
    for act in [Act::Hang(pieces.clone()), Act::Ping(pieces, every)] {
        let first = Provider::of([act]).await;
        let open = "breaker.recovery_timeout = \"1h\"\ntimeout.gap = \"60ms\"";
        let bed = bed(&first, None, open).await;
        for failures in 1..=5 {
            let (body, is_whole) = read_all(bed.ask("gpt", true).await).await;
            assert!(!is_whole);
            let (_, error) = error_at_end(&body);
            assert_eq!(error["error"]["type"], "timeout_error", "{error}");
            assert!(failures == 5 || bed.failures("gpt") == failures);
        }
        let response = bed.ask("gpt", true).await;
        assert_eq!(response.status(), 503, "the fifth has opened the breaker");
        assert_eq!(first.hits(), 5);
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_7_llm_item_10_a_probe_that_stalls_does_not_close_the_breaker() {
    let pieces = vec![OPENING.to_owned(), chunk("a")];
    let first = Provider::of([Act::Hang(pieces)]).await;
    let open = "breaker.failure_threshold = 1\nbreaker.recovery_timeout = \"100ms\"\n\
                timeout.gap = \"60ms\"\n";
    let bed = bed(&first, None, open).await;
    read_all(bed.ask("gpt", true).await).await;
    for hits in 2..=3 {
        let probed = async {
            while first.hits() < hits {
                read_all(bed.ask("gpt", true).await).await;
            }
        };
        tokio::time::timeout(PATIENCE, probed).await.unwrap();
        let keys = bed.of_name("gpt").keys;
        assert!(
            keys.iter()
                .all(|key| key.state != breakerbox::policy::State::Closed)
        );
    }
    bed.end().await;
}

#[tokio::test]
async fn llm_item_29_llm_23_a_caller_that_leaves_ends_the_providers_work() {
    let (left, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    let left = Arc::new(Mutex::new(Some(left)));
    let upstream = Upstream::of(move |_| {
        let left = left.lock().unwrap().take();
        async move {
            let begun = format!("{OPENING}{}", chunk("a"));
            let first = futures_util::stream::once(async move { Ok::<_, std::io::Error>(begun) });
            let rest = futures_util::stream::unfold(left, |left| async move {
                std::future::pending::<()>().await;
                Some((Ok(String::new()), left))
            });
            let mut response = Response::new(Body::from_stream(first.chain(rest)));
            let media = "text/event-stream".parse().unwrap();
            response.headers_mut().insert("content-type", media);
            response
        }
    })
    .await;
    let seen = Arc::default();
    let first = Provider { upstream, seen };
    let bed = bed(&first, None, "").await;
    let mut response = bed.ask("gpt", true).await;
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    // The provider's side of the body is dropped once its connection is closed.
    let ended = tokio::time::timeout(Duration::from_secs(10), gone.recv()).await;
    assert_eq!(ended, Ok(None));
    bed.until_of("gpt", |one| one.totals.cancelled == 1 && one.in_flight == 0)
        .await;
    bed.end().await;
}

#[tokio::test]
async fn llm_8_a_mark_of_the_end_without_a_finish_reason_does_not_pass() {
    let done = "data: [DONE]\n\n".to_owned();
    let cut_in_two = vec![
        OPENING.to_owned(),
        format!("{}data: [DO", chunk("a")),
        "NE]\n\n".to_owned(),
    ];
    for (pieces, is_alone) in [
        (vec![OPENING.to_owned(), chunk("a"), done.clone()], true),
        (vec![format!("{OPENING}{}{done}", chunk("a"))], true),
        (cut_in_two, true),
        // One of two choices has ended.
        (
            vec![
                OPENING.to_owned(),
                chunk("a"),
                chunk("b").replace("\"index\":0", "\"index\":1"),
                END.to_owned(),
            ],
            false,
        ),
    ] {
        let first = Provider::of([Act::Stream(pieces.clone())]).await;
        let bed = bed(&first, None, "").await;
        let (body, is_whole) = read_all(bed.ask("gpt", true).await).await;
        assert!(!is_whole, "{pieces:?}");
        let (before, error) = error_at_end(&body);
        if is_alone {
            assert_eq!(before, format!("{OPENING}{}", chunk("a")), "{pieces:?}");
        }
        assert!(!body.contains("[DONE]"), "{body}");
        assert_eq!(error["error"]["code"], "upstream-failed", "{error}");
        assert_eq!(bed.failures("gpt"), 1);
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_8_a_good_end_passes_however_it_is_cut() {
    let whole = format!("{OPENING}{}{END}", chunk("a"));
    for length in [1, 5, 12, 13, 14, 20] {
        let (begin, end) = whole.split_at(whole.len() - length);
        let pieces = vec![begin.to_owned(), end.to_owned()];
        let first = Provider::of([Act::Stream(pieces)]).await;
        let bed = bed(&first, None, "").await;
        check_good(bed.ask("gpt", true).await, "a", "primary").await;
        bed.end().await;
    }
    // Some leave the last empty line out.
    let first = Provider::of([Act::Stream(vec![whole.trim_end().to_owned()])]).await;
    let bed = bed(&first, None, "").await;
    let (body, is_whole) = read_all(bed.ask("gpt", true).await).await;
    assert_eq!((body.as_str(), is_whole), (whole.trim_end(), true));
    assert_eq!(bed.failures("gpt"), 0);
    bed.end().await;
}
