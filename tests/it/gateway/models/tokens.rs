//! Limits of tokens: set aside before an attempt, settled after it.

use super::*;

/// A request of 3,000 estimated tokens: 1,000 of its prompt, and 2,000 that it asks for at most.
fn long() -> String {
    let mut body = json!({"model": "m", "stream": true, "max_tokens": 2000,
        "messages": [{"role": "user", "content": ""}]});
    let room = 4_000 - body.to_string().len();
    body["messages"][0]["content"] = "x".repeat(room).into();
    assert_eq!(body.to_string().len(), 4_000);
    body.to_string()
}

/// The event that tells the usage.
fn usage(input: u64, output: u64) -> String {
    let usage = json!({"prompt_tokens": input, "completion_tokens": output,
        "total_tokens": input + output});
    event(
        &json!({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [],
        "usage": usage})
        .to_string(),
    )
}

const LIMIT: &str = "token_limit = { rate = 30000, per = \"1m\" }";

#[tokio::test]
async fn llm_item_25_llm_19_as_many_go_as_there_are_tokens_for() {
    let hang = Act::Hang(vec![OPENING.to_owned(), chunk("a")]);
    let first = Provider::of([hang]).await;
    let bed = bed(&first, None, LIMIT).await;
    let asked = (0..20).map(|_| bed.ask_with("gpt", long()));
    let answers = futures_util::future::join_all(asked).await;
    let (good, refused): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .partition(|answer| answer.status() == 200);
    assert_eq!((good.len(), refused.len(), first.hits()), (10, 10, 10));
    for answer in refused {
        assert_eq!(answer.status(), 429);
        let body: Value = answer.json().await.unwrap();
        let wait = body["error"]["retry_after_ms"].as_u64().unwrap();
        assert!((1..=6_000).contains(&wait), "{body}");
        assert!(
            body["error"]["message"]
                .as_str()
                .unwrap()
                .contains("token_limit"),
            "{body}"
        );
    }
    assert_eq!(bed.failures("gpt"), 0);
    bed.end().await;
}

#[tokio::test]
async fn llm_item_25_llm_19_what_was_not_used_is_given_back() {
    let pieces = vec![
        OPENING.to_owned(),
        chunk("a"),
        END.replace("data: [DONE]\n\n", ""),
        usage(400, 100),
        event("[DONE]"),
    ];
    let first = Provider::of([Act::Stream(pieces)]).await;
    let bed = bed(&first, None, LIMIT).await;
    // One after another: 500 each of 30,000, where 3,000 are set aside.
    for number in 0..50 {
        let response = bed.ask_with("gpt", long()).await;
        assert_eq!(response.status(), 200, "{number}");
        let (_, is_whole) = read_all(response).await;
        assert!(is_whole);
    }
    bed.end().await;
}

#[tokio::test]
async fn llm_item_26_llm_19_usage_above_the_estimate_delays_later_calls() {
    let pieces = vec![
        OPENING.to_owned(),
        chunk("a"),
        END.replace("data: [DONE]\n\n", ""),
        usage(1_000, 59_000),
        event("[DONE]"),
    ];
    let first = Provider::of([Act::Stream(pieces)]).await;
    let bed = bed(&first, None, LIMIT).await;
    let response = bed.ask_with("gpt", long()).await;
    assert_eq!(response.status(), 200, "never this one");
    read_all(response).await;
    let refused = bed.ask_with("gpt", long()).await;
    assert_eq!(refused.status(), 429);
    let body: Value = refused.json().await.unwrap();
    // 30,000 are owed, and 3,000 are wanted.
    let wait = body["error"]["retry_after_ms"].as_u64().unwrap();
    assert!((60_000..=66_000).contains(&wait), "{body}");
    bed.end().await;
}

#[tokio::test]
async fn llm_23_llm_item_29_the_tokens_of_a_caller_that_leaves_are_settled() {
    let hang = Act::Hang(vec![OPENING.to_owned(), chunk("a")]);
    let first = Provider::of([hang]).await;
    let bed = bed(&first, None, "token_limit = { rate = 5000, per = \"1h\" }").await;
    let mut held = bed.ask_with("gpt", long()).await;
    assert!(held.chunk().await.unwrap().is_some());
    assert_eq!(
        bed.ask_with("gpt", long()).await.status(),
        429,
        "2,000 are left"
    );
    drop(held);
    bed.until_of("gpt", |one| one.in_flight == 0).await;
    // The prompt counts, and the few bytes that were seen.
    assert_eq!(
        bed.ask_with("gpt", long()).await.status(),
        200,
        "4,000 are left"
    );
    bed.end().await;
}

#[tokio::test]
async fn llm_24_tokens_and_times_are_counted_by_the_providers_model() {
    use breakerbox::gateway::ContentEnd;
    let pieces = vec![
        OPENING.to_owned(),
        chunk("a"),
        END.replace("data: [DONE]\n\n", ""),
        usage(400, 100),
        event("[DONE]"),
    ];
    let cut = Act::Stream(vec![OPENING.to_owned(), chunk("a")]);
    let first = Provider::of([Act::Stream(pieces), cut]).await;
    let bed = bed(&first, None, "").await;
    for _ in 0..2 {
        read_all(
            bed.ask_with("gpt", asked("made up by a caller", true))
                .await,
        )
        .await;
    }
    let figures = bed.gateway.servers().models();
    assert_eq!(figures.len(), 1, "{figures:?}");
    let one = &figures[0];
    assert_eq!((&*one.dependency, &*one.model), ("gpt", "m"));
    assert_eq!((one.input, one.cached_input, one.output), (400, 0, 100));
    assert_eq!(one.streams[&ContentEnd::Good], 1);
    assert_eq!(one.streams[&ContentEnd::Truncated], 1);
    assert_eq!(one.first_token.count, 2);
    bed.end().await;
}

#[tokio::test]
async fn llm_20_what_can_never_go_is_refused_with_both_figures() {
    let first = Provider::good("well").await;
    let limit = "token_limit = [{ rate = 1000, per = \"1m\", of = \"output\" }]";
    let bed = bed(&first, None, limit).await;
    let refused = bed.ask_with("gpt", long()).await;
    assert_eq!(refused.status(), 429);
    let body: Value = refused.json().await.unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("2000") && message.contains("1000"),
        "{message}"
    );
    assert_eq!(first.hits(), 0);
    bed.end().await;
}

/// A call that waits for tokens holds no place of the bulkhead, and a fallback answers one that would
/// wait for too long.
#[tokio::test]
async fn llm_19_a_wait_for_tokens_holds_no_place() {
    let hang = Act::Hang(vec![OPENING.to_owned(), chunk("a")]);
    let first = Provider::of([hang.clone(), Act::good("well")]).await;
    let more = "token_limit = { rate = 4500, per = \"1h\", max_wait = \"2h\" }\n\
                bulkhead.max_concurrent = 2\n";
    let bed = bed(&first, None, more).await;
    let held = bed.ask_with("gpt", long()).await;
    assert_eq!(held.status(), 200);
    let mut waiting = Box::pin(bed.ask_with("gpt", long()));
    let other = async {
        // The other call has come, and waits.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(bed.of_name("gpt").in_flight, 1);
        // What was not used is given back to it.
        drop(held);
    };
    tokio::select! {
        answered = &mut waiting => panic!("it waits: {answered:?}"),
        () = other => {}
    }
    let answered = tokio::time::timeout(PATIENCE, waiting).await;
    check_good(answered.unwrap(), "well", "primary").await;
    bed.end().await;
}

#[tokio::test]
async fn llm_19_another_provider_answers_where_the_tokens_are_used_up() {
    let hang = Act::Hang(vec![OPENING.to_owned(), chunk("a")]);
    let (first, spare) = (Provider::of([hang]).await, Provider::good("well").await);
    let bed = bed(
        &first,
        Some(&spare),
        "token_limit = { rate = 3000, per = \"1h\" }",
    )
    .await;
    let held = bed.ask_with("gpt", long()).await;
    assert_eq!(header(&held, "breakerbox-source"), "primary");
    check_good(bed.ask_with("gpt", long()).await, "well", "fallback:spare").await;
    let refused = bed.of_name("gpt").counts;
    assert_eq!(first.hits(), 1, "{refused:?}");
    bed.end().await;
}

/// A prompt that a provider had before its caller left counts, also where no content had come.
#[tokio::test]
async fn llm_23_llm_item_29_a_caller_that_leaves_before_content_pays_for_its_prompt() {
    let first = Provider::of([Act::Hang(vec![OPENING.to_owned()])]).await;
    let bed = bed(&first, None, "token_limit = { rate = 5000, per = \"1h\" }").await;
    let mut asking = Box::pin(bed.ask_with("gpt", long()));
    tokio::select! {
        answered = &mut asking => panic!("{answered:?}"),
        () = bed.until_of("gpt", |one| one.in_flight == 1) => {}
    }
    let asked = async {
        while first.hits() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        answered = &mut asking => panic!("{answered:?}"),
        () = asked => {}
    }
    drop(asking);
    bed.until_of("gpt", |one| one.in_flight == 0).await;
    let left = bed.gateway.servers().reserved_tokens();
    assert_eq!((left[0].reserved, left[0].available), (0, 4_000));
    bed.end().await;
}

#[tokio::test]
async fn llm_20_a_call_above_the_burst_goes_to_the_fallback() {
    let (first, spare) = (Provider::good("first").await, Provider::good("well").await);
    let limit = "token_limit = { rate = 600, per = \"1m\" }";
    let bed = bed(&first, Some(&spare), limit).await;
    check_good(bed.ask_with("gpt", long()).await, "well", "fallback:spare").await;
    assert_eq!((first.hits(), spare.hits()), (0, 1));
    bed.end().await;
}
