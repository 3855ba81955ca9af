//! Answers are held back until their first content: what fails before has a status of its own, and may
//! be answered by others.

use super::*;

/// All ways in which a stream can be none, with their statuses where there is no other provider.
fn bad_beginnings() -> Vec<(&'static str, Act, u16)> {
    let opened = || OPENING.to_owned();
    let quota = event(
        "{\"error\":{\"message\":\"no credit\",\"type\":\"insufficient_quota\",\"param\":null,\
         \"code\":\"insufficient_quota\"}}",
    );
    vec![
        (
            "error event first",
            Act::Stream(vec![event(OVERLOADED)]),
            503,
        ),
        (
            "error event after the opening",
            Act::Stream(vec![opened(), event(OVERLOADED)]),
            503,
        ),
        (
            "quota inside a stream",
            Act::Stream(vec![opened(), quota]),
            429,
        ),
        ("no event at all", Act::Stream(Vec::new()), 502),
        ("no content", Act::Stream(vec![opened()]), 502),
        ("reset before content", Act::Reset(vec![opened()]), 502),
        ("error in a success", Act::error(200, OVERLOADED), 503),
        ("error", Act::error(500, OVERLOADED), 500),
    ]
}

#[tokio::test]
async fn llm_item_03_llm_6_another_provider_answers_what_fails_before_content() {
    for (what, act, _) in bad_beginnings() {
        let (first, spare) = (Provider::of([act]).await, Provider::good("well").await);
        let bed = bed(&first, Some(&spare), "").await;
        let response = bed.ask("gpt", true).await;
        assert_eq!(response.status(), 200, "{what}");
        assert_eq!(header(&response, "x-request-id"), "request-7");
        check_good(response, "well", "fallback:spare").await;
        bed.until_of("gpt", |one| one.totals.fallback == 1).await;
        let is_quota = what.starts_with("quota");
        assert_eq!(bed.failures("gpt"), u64::from(!is_quota), "{what}");
        assert_eq!((first.hits(), spare.hits()), (1, 1), "{what}");
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_item_04_llm_6_without_another_provider_the_error_has_its_status() {
    for (what, act, status) in bad_beginnings() {
        let first = Provider::of([act]).await;
        let bed = bed(&first, None, "").await;
        let response = bed.ask("gpt", true).await;
        assert_eq!(response.status(), status, "{what}");
        assert_eq!(header(&response, "x-should-retry"), "false", "{what}");
        assert!(header(&response, "content-type").starts_with("application/json"));
        let body: Value = response.json().await.unwrap();
        assert!(body["error"]["message"].is_string(), "{what}: {body}");
        if status == 503 {
            assert_eq!(
                body["error"]["code"], "server_is_overloaded",
                "{what}: {body}"
            );
        }
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_item_07_llm_3_a_success_with_an_error_is_that_error() {
    let (first, spare) = (
        Provider::of([Act::error(200, OVERLOADED)]).await,
        Provider::of([Act::error(200, whole("well"))]).await,
    );
    let bed = bed(&first, Some(&spare), "").await;
    let response = bed.ask("gpt", false).await;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    assert_eq!(response.text().await.unwrap(), whole("well"));
    assert_eq!(bed.failures("gpt"), 1);
    bed.end().await;
}

#[tokio::test]
async fn llm_10_a_whole_answer_that_breaks_off_is_answered_by_another_provider() {
    let upstream = Upstream::raw(async |mut stream: TcpStream, _| {
        read_until(&mut stream, "\r\n\r\n").await;
        let begun = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                      content-length: 500\r\n\r\n{\"id\":";
        stream.write_all(begun).await.unwrap();
    })
    .await;
    let first = Provider {
        upstream,
        seen: Arc::default(),
    };
    let spare = Provider::of([Act::error(200, whole("well"))]).await;
    let bed = bed(&first, Some(&spare), "").await;
    let response = bed.ask("gpt", false).await;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    assert_eq!(response.text().await.unwrap(), whole("well"));
    bed.end().await;
}

#[tokio::test]
async fn llm_item_09_llm_9_silence_after_the_head_ends_the_attempt() {
    let every = Duration::from_millis(10);
    for act in [
        Act::Hang(Vec::new()),
        Act::Ping(vec![OPENING.to_owned()], every),
    ] {
        let (first, spare) = (Provider::of([act]).await, Provider::good("well").await);
        let bed = bed(&first, Some(&spare), "timeout.first_token = \"100ms\"").await;
        check_good(bed.ask("gpt", true).await, "well", "fallback:spare").await;
        assert_eq!(bed.failures("gpt"), 1);
        bed.end().await;
    }
    let first = Provider::of([Act::Hang(Vec::new())]).await;
    let bed = bed(&first, None, "timeout.first_token = \"100ms\"").await;
    let response = bed.ask("gpt", true).await;
    assert_eq!(response.status(), 504);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["type"], "timeout_error");
    assert_eq!(body["error"]["code"], "timed-out");
    bed.end().await;
}

#[tokio::test]
async fn llm_item_23_llm_11_a_failure_before_content_is_tried_once_more() {
    let again = "retry.backoff.base = \"1ms\"\n";
    let first = Provider::of([Act::error(500, OVERLOADED), Act::good("well")]).await;
    let cut = Provider::of([Act::Stream(vec![OPENING.to_owned(), chunk("begun")])]).await;
    let bed = Bed::of(&(model("gpt", &first, again) + &model("cut", &cut, again))).await;
    let response = bed.ask("gpt", true).await;
    assert_eq!(header(&response, "breakerbox-attempts"), "2");
    check_good(response, "well", "primary").await;
    let (_, is_whole) = read_all(bed.ask("cut", true).await).await;
    assert!(!is_whole);
    assert_eq!(
        cut.hits(),
        1,
        "content that was passed on is never repeated"
    );
    bed.end().await;
}

#[tokio::test]
async fn llm_item_24_llm_11_work_that_goes_on_is_not_repeated() {
    for more in [
        json!({"background": true}),
        json!({"tools": [{"type": "mcp", "server_label": "a", "server_url": "http://a/"}]}),
    ] {
        let (first, spare) = (
            Provider::of([Act::Reset(Vec::new())]).await,
            Provider::good("well").await,
        );
        let text = model("gpt", &first, "") + FALLBACK + &model("spare", &spare, "");
        let bed = Bed::of(&text).await;
        let mut body = json!({"model": "m", "stream": true, "input": "hi"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let request = bed.http.post(bed.url("/gpt/v1/responses"));
        let request = request.header("content-type", "application/json");
        let response = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 502, "{body}");
        assert_eq!((first.hits(), spare.hits()), (1, 0), "{body}");
        bed.end().await;
    }
}

#[tokio::test]
async fn lim_2_no_call_waits_for_an_hour_because_a_provider_says_so() {
    let throttled = Act::Say(429, vec![("retry-after", "3600")], "{}".to_owned());
    let (first, spare) = (
        Provider::of([throttled]).await,
        Provider::good("well").await,
    );
    let bed = bed(&first, Some(&spare), "retry.max_attempts = 2").await;
    let asked = tokio::time::timeout(Duration::from_secs(60), bed.ask("gpt", true));
    let response = asked.await.expect("nobody waits for the hour");
    check_good(response, "well", "fallback:spare").await;
    assert_eq!((first.hits(), spare.hits()), (1, 1));
    bed.end().await;
}
