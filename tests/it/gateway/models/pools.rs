//! Pools: one call, answered by the first member that can.

use super::*;

/// A pool of models, each with its own key.
async fn pool(members: &[&Provider], choose: &str, each: &str) -> Bed {
    let mut text = String::new();
    let mut names = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let name = format!("m{number}");
        let own = format!("key = \"sk-{number}\"\nretry.max_attempts = 2\n{each}\n");
        text.push_str(&model(&name, member, &own));
        names.push(format!("{name:?}"));
    }
    let names = names.join(", ");
    text.push_str(&format!(
        "[dependencies.chat]\nkind = \"pool\"\nmembers = [{names}]\nchoose = {choose:?}\n"
    ));
    Bed::of(&text).await
}

fn limited() -> String {
    json!({"error": {"message": "no", "type": "tokens", "param": null,
        "code": "rate_limit_exceeded"}})
    .to_string()
}

fn no_credit() -> String {
    json!({"error": {"message": "no", "type": "insufficient_quota", "param": null,
        "code": "insufficient_quota"}})
    .to_string()
}

#[tokio::test]
async fn llm_item_27_llm_21_the_third_key_answers_all_calls() {
    let first = Provider::of([Act::Say(429, vec![("retry-after", "60")], limited())]).await;
    let second = Provider::of([Act::error(429, no_credit())]).await;
    let third = Provider::good("well").await;
    let bed = pool(&[&first, &second, &third], "first", "").await;
    for number in 0..5 {
        let response = bed.ask("chat", true).await;
        let attempts = if number == 0 { "3" } else { "1" };
        assert_eq!(header(&response, "breakerbox-attempts"), attempts);
        check_good(response, "well", "pool:m2").await;
    }
    assert_eq!((first.hits(), second.hits(), third.hits()), (1, 1, 5));
    assert_eq!(third.seen(0).headers["authorization"], "Bearer sk-2");
    bed.end().await;
}

#[tokio::test]
async fn llm_item_28_llm_22_the_refusal_with_the_shortest_wait_is_told() {
    let late = Provider::of([Act::Say(429, vec![("retry-after", "60")], limited())]).await;
    let soon = Provider::of([
        Act::Say(429, vec![("retry-after-ms", "400")], limited()),
        Act::good("back"),
    ])
    .await;
    let bed = pool(&[&late, &soon], "first", "").await;
    // Each was asked, and the last word is told.
    let response = bed.ask("chat", true).await;
    assert_eq!(response.status(), 429);
    assert_eq!(header(&response, "breakerbox-source"), "pool:m1");
    let response = bed.ask("chat", true).await;
    assert_eq!(response.status(), 429);
    assert_eq!(header(&response, "breakerbox-source"), "gateway");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["dependency"], "m1", "{body}");
    assert!(
        body["error"]["retry_after_ms"].as_u64() < Some(2_000),
        "{body}"
    );
    let back = async {
        loop {
            let response = bed.ask("chat", true).await;
            if response.status() == 200 {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let response = tokio::time::timeout(PATIENCE, back).await.unwrap();
    check_good(response, "back", "pool:m1").await;
    assert_eq!(late.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn llm_22_a_pool_without_a_member_that_would_go_asks_none() {
    let dead = || {
        Provider::of([Act::error(
            500,
            no_credit().replace("insufficient_quota", "x"),
        )])
    };
    let (first, second) = (dead().await, dead().await);
    let open = "breaker.failure_threshold = 1\nbreaker.recovery_timeout = \"1h\"";
    let bed = pool(&[&first, &second], "first", open).await;
    assert_eq!(bed.ask("chat", true).await.status(), 500);
    for _ in 0..3 {
        let response = bed.ask("chat", true).await;
        assert_eq!(response.status(), 503);
        assert_eq!(header(&response, "breakerbox-attempts"), "0");
    }
    assert_eq!((first.hits(), second.hits()), (1, 1));
    bed.end().await;
}

#[tokio::test]
async fn llm_21_a_member_that_fails_before_content_gives_way() {
    let act = Act::Stream(vec![OPENING.to_owned(), event(OVERLOADED)]);
    let (first, second) = (Provider::of([act]).await, Provider::good("well").await);
    let bed = pool(&[&first, &second], "first", "breaker.failure_threshold = 2").await;
    for _ in 0..4 {
        check_good(bed.ask("chat", true).await, "well", "pool:m1").await;
    }
    assert_eq!(
        first.hits(),
        2,
        "one attempt each, until its breaker is open"
    );
    let refused = bed
        .http
        .get(bed.url("/chat/v1/models"))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 200);
    bed.end().await;
}

#[tokio::test]
async fn llm_21_the_least_busy_member_is_asked() {
    let hang = Act::Hang(vec![OPENING.to_owned(), chunk("a")]);
    let (first, second) = (Provider::of([hang]).await, Provider::good("well").await);
    let bed = pool(&[&first, &second], "least_busy", "").await;
    let held = bed.ask("chat", true).await;
    assert_eq!(header(&held, "breakerbox-source"), "pool:m0");
    check_good(bed.ask("chat", true).await, "well", "pool:m1").await;
    drop(held);
    bed.until_of("m0", |one| one.in_flight == 0).await;
    let again = bed.ask("chat", true).await;
    assert_eq!(header(&again, "breakerbox-source"), "pool:m0");
    drop(again);
    bed.end().await;
}

#[tokio::test]
async fn llm_21_a_rejected_prompt_is_the_members_answer() {
    let body = json!({"error": {"message": "too long", "type": "invalid_request_error",
        "param": null, "code": "context_length_exceeded"}});
    let (first, second) = (
        Provider::of([Act::error(400, &body)]).await,
        Provider::good("well").await,
    );
    let bed = pool(&[&first, &second], "first", "").await;
    let response = bed.ask("chat", true).await;
    assert_eq!(response.status(), 400);
    assert_eq!(header(&response, "breakerbox-source"), "pool:m0");
    assert_eq!((first.hits(), second.hits()), (1, 0));
    bed.end().await;
}

#[tokio::test]
async fn call_7_a_pool_does_not_repeat_what_a_member_must_not_repeat() {
    for (repeat, status, hits) in [("never", 500, 0), ("until_content", 200, 1)] {
        let broken = json!({"error": {"message": "it broke", "type": "server_error"}});
        let second = Provider::of([Act::error(500, broken)]).await;
        let third = Provider::good("well").await;
        // Nothing listens at the first one, so that the second one is asked.
        let text = format!(
            "[dependencies.a]\nkind = \"model\"\napi = \"openai\"\nurl = \"http://127.0.0.1:1\"\n\
             key = \"sk-a\"\n{}{}[dependencies.chat]\nkind = \"pool\"\nmembers = [\"a\", \"b\", \"c\"]\n",
            model(
                "b",
                &second,
                &format!("key = \"sk-b\"\nrepeat = \"{repeat}\"\n")
            ),
            model("c", &third, "key = \"sk-c\"\n"),
        );
        let bed = Bed::of(&text).await;
        assert_eq!(bed.ask("chat", true).await.status(), status, "{repeat}");
        assert_eq!((second.hits(), third.hits()), (1, hits), "{repeat}");
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_21_a_pool_refuses_the_same_bodies_whichever_member_is_asked_first() {
    let provider = Provider::good("well").await;
    let words = "x".repeat(2_000);
    let body =
        json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": words}]});
    for (first, second) in [(1_000, 100_000), (100_000, 1_000)] {
        let own = |most: u64| format!("key = \"sk\"\nmax_replay_body = {most}\n");
        let text = format!(
            "{}{}[dependencies.chat]\nkind = \"pool\"\nmembers = [\"m0\", \"m1\"]\n",
            model("m0", &provider, &own(first)),
            model("m1", &provider, &own(second))
        );
        let bed = Bed::of(&text).await;
        let response = bed.ask_with("chat", body.to_string()).await;
        check_good(response, "well", "pool:m0").await;
        bed.end().await;
    }
}

#[tokio::test]
async fn llm_item_20_llm_14_each_member_sees_its_own_key_path_and_model() {
    let first = Provider::of([Act::error(500, limited())]).await;
    let second = Provider::good("well").await;
    let text = format!(
        "{}{}[dependencies.chat]\nkind = \"pool\"\nmembers = [\"a\", \"b\"]\n",
        model("a", &first, "key = \"sk-a\"\nmodel = \"a-1\"\n"),
        model(
            "b",
            &second,
            "key = \"sk-b\"\nkey_header = \"api-key\"\nmodel = { m = \"b-1\" }\n"
        )
        .replace("/v1\"", "/openai/v1\""),
    );
    let bed = Bed::of(&text).await;
    let request = bed.http.post(bed.url("/chat/v1/chat/completions?x=1"));
    let request = request
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-callers")
        .header("api-key", "sk-callers")
        .header("cookie", "a=sk-callers")
        .header("breakerbox-priority", "high");
    let response = request.body(asked("m", true)).send().await.unwrap();
    check_good(response, "well", "pool:b").await;
    let (a, b) = (first.seen(0), second.seen(0));
    assert_eq!(a.path, "/v1/chat/completions?x=1");
    assert_eq!(b.path, "/openai/v1/chat/completions?x=1");
    assert_eq!(a.headers["authorization"], "Bearer sk-a");
    assert_eq!(b.headers["api-key"], "sk-b");
    assert!(!b.headers.contains_key("authorization"));
    for (seen, name) in [(&a, "a-1"), (&b, "b-1")] {
        assert_eq!(seen.body, asked(name, true));
        let told = format!("{:?}", seen.headers);
        for word in ["sk-callers", "cookie", "breakerbox", "forwarded", "\"via\""] {
            assert!(!told.contains(word), "{word}: {told}");
        }
    }
    bed.end().await;
}

/// CALL-2: the first member may have done the work, so the caller hears of it and not of the second one,
/// which was never reached.
#[tokio::test]
async fn call_2_a_member_that_may_have_done_the_work_is_not_hidden_by_one_that_has_not() {
    let broken = json!({"error": {"message": "it broke", "type": "server_error"}});
    let wrong = json!({"error": {"message": "no", "code": "invalid_api_key"}});
    let first = Provider::of([Act::error(500, broken), Act::error(401, wrong)]).await;
    let text = format!(
        "{}{}[dependencies.chat]\nkind = \"pool\"\nmembers = [\"a\", \"b\"]\n",
        model("a", &first, "key = \"sk-a\"\n"),
        "[dependencies.b]\nkind = \"model\"\napi = \"openai\"\nurl = \"http://127.0.0.1:1\"\nkey = \"sk-b\"\n",
    );
    let bed = Bed::of(&text).await;
    let failed = bed.ask("chat", true).await;
    assert_eq!(failed.status(), 500);
    assert_eq!(header(&failed, "breakerbox-source"), "pool:a");
    assert_eq!(header(&failed, "breakerbox-attempts"), "2");
    // With a wrong key of ours nothing was done: the caller may try again.
    let failed = bed.ask("chat", true).await;
    assert_eq!(failed.status(), 502);
    bed.end().await;
}

/// A wrong key is a mistake of the set-up: the next member answers, also what may not be repeated.
#[tokio::test]
async fn llm_item_27_llm_3_a_wrong_key_gives_way_for_every_request() {
    let wrong = json!({"error": {"message": "no", "type": "invalid_request_error", "param": null,
        "code": "invalid_api_key"}});
    let first = Provider::of([Act::error(401, wrong)]).await;
    let second = Provider::of([Act::error(200, whole("well"))]).await;
    let bed = pool(&[&first, &second], "first", "").await;
    let body = json!({"model": "m", "messages": [],
        "tools": [{"type": "mcp", "server_url": "https://x"}]});
    let response = bed.ask_with("chat", body.to_string()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "breakerbox-source"), "pool:m1");
    bed.end().await;
}

/// A member without tokens does not take the call: none waits there while another is free.
#[tokio::test]
async fn llm_21_llm_19_a_member_without_tokens_is_passed_over() {
    let hang = Act::Hang(vec![OPENING.to_owned(), chunk("a")]);
    let (first, second) = (Provider::of([hang]).await, Provider::good("well").await);
    let limit = "token_limit = { rate = 1500, per = \"1h\", max_wait = \"1h\" }\n";
    let text = format!(
        "{}{}[dependencies.chat]\nkind = \"pool\"\nmembers = [\"a\", \"b\"]\n",
        model("a", &first, &format!("key = \"sk-a\"\n{limit}")),
        model("b", &second, "key = \"sk-b\"\n"),
    );
    let bed = Bed::of(&text).await;
    let held = bed.ask("chat", true).await;
    assert_eq!(header(&held, "breakerbox-source"), "pool:a");
    check_good(bed.ask("chat", true).await, "well", "pool:b").await;
    assert_eq!((first.hits(), second.hits()), (1, 1));
    bed.end().await;
}

#[tokio::test]
async fn llm_22_a_pool_is_ok_degraded_or_down() {
    use breakerbox::Health;
    let dead = || Provider::of([Act::error(500, OVERLOADED)]);
    let (first, second) = (dead().await, dead().await);
    let open = "breaker.failure_threshold = 1\nbreaker.recovery_timeout = \"1h\"";
    let bed = pool(&[&first, &second], "first", open).await;
    let state = || {
        let pool = bed.gateway.servers().pools().remove(0);
        let next = pool.next().map(|member| member.name.clone());
        (pool.health(), next)
    };
    assert_eq!(state(), (Health::Ok, Some("m0".to_owned())));
    let ready = async || {
        let asked = bed.get("/.breakerbox/chat/ready").await;
        asked.status().as_u16()
    };
    assert_eq!(ready().await, 200);
    // One of two models has no first choice.
    bed.ask_with("m0", asked("other", true)).await;
    let (health, next) = state();
    assert!(
        matches!(health, Health::Down { .. } | Health::Degraded { .. }),
        "{health:?}"
    );
    assert_eq!(next.as_deref(), Some("m1"));
    bed.ask_with("m1", asked("other", true)).await;
    assert!(matches!(state().0, Health::Down { .. }), "{:?}", state());
    bed.end().await;
}
