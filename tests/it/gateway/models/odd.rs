//! Answers that are odd: with a coding, of another media type, or none at all although their head is
//! good.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// A provider that answers with these headers and pieces.
async fn saying(headers: &[(&'static str, &'static str)], pieces: Vec<Vec<u8>>) -> Provider {
    let headers = headers.to_vec();
    let upstream = Upstream::of(move |_| {
        let (headers, pieces) = (headers.clone(), pieces.clone());
        async move {
            let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
            let mut response = Response::new(Body::from_stream(futures_util::stream::iter(pieces)));
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
    })
    .await;
    Provider {
        upstream,
        seen: Arc::default(),
    }
}

/// Pieces of a gzip stream, each flushed by itself.
fn gzip(pieces: &[String]) -> Vec<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut all = Vec::new();
    for piece in pieces {
        encoder.write_all(piece.as_bytes()).unwrap();
        encoder.flush().unwrap();
        all.push(std::mem::take(encoder.get_mut()));
    }
    all.push(encoder.finish().unwrap());
    all
}

const STREAM: (&str, &str) = ("content-type", "text/event-stream");
const JSON: (&str, &str) = ("content-type", "application/json");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

#[tokio::test]
async fn llm_8_a_stream_with_a_coding_is_judged_and_passes_as_it_came() {
    let good = [OPENING.to_owned(), chunk("a"), END.to_owned()];
    let coded = gzip(&good);
    let first = saying(&[STREAM, GZIP], coded.clone()).await;
    let gateway = bed(&first, None, "token_limit = { rate = 100000 }").await;
    let response = gateway.ask("gpt", true).await;
    assert_eq!(header(&response, "content-encoding"), "gzip");
    assert_eq!(response.bytes().await.unwrap(), coded.concat());
    let figures = gateway.gateway.servers().models();
    assert_eq!(figures[0].model, "m");
    assert_eq!(figures[0].first_token.count, 1);
    gateway.end().await;

    let spare = Provider::good("well").await;
    let failing = saying(
        &[STREAM, GZIP],
        gzip(&[OPENING.to_owned(), event(OVERLOADED)]),
    )
    .await;
    let gateway = bed(&failing, Some(&spare), "").await;
    check_good(gateway.ask("gpt", true).await, "well", "fallback:spare").await;
    assert_eq!(gateway.failures("gpt"), 1);
    gateway.end().await;

    // Alone, its error is told without the coding, of which it was read.
    let gateway = bed(&failing, None, "").await;
    let response = gateway.ask("gpt", true).await;
    assert_eq!(response.status(), 503);
    assert_eq!(header(&response, "content-encoding"), "");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "server_is_overloaded");
    gateway.end().await;

    let cut = gzip(&[OPENING.to_owned(), chunk("a")]);
    let truncated = saying(&[STREAM, GZIP], cut.clone()).await;
    let gateway = bed(&truncated, None, "").await;
    let mut response = gateway.ask("gpt", true).await;
    let (mut all, mut is_whole) = (Vec::new(), true);
    loop {
        match response.chunk().await {
            Ok(Some(piece)) => all.extend_from_slice(&piece),
            Ok(None) => break,
            Err(_) => {
                is_whole = false;
                break;
            }
        }
    }
    assert!(
        !is_whole && cut.concat().starts_with(&all),
        "no event of ours in a coding"
    );
    assert_eq!(gateway.failures("gpt"), 1);
    gateway.end().await;
}

#[tokio::test]
async fn llm_3_a_whole_answer_with_a_coding_is_judged() {
    let spare = Provider::of([Act::error(200, whole("well"))]).await;
    let first = saying(&[JSON, GZIP], gzip(&[OVERLOADED.to_owned()])).await;
    let gateway = bed(&first, Some(&spare), "").await;
    let response = gateway.ask("gpt", false).await;
    assert_eq!(response.text().await.unwrap(), whole("well"));
    assert_eq!(gateway.failures("gpt"), 1);
    gateway.end().await;
}

/// Tokens are settled by the usage of an answer with a coding, and kept where it cannot be read.
#[tokio::test]
async fn llm_19_an_answer_with_a_coding_is_settled() {
    let limit = "token_limit = { rate = 3000, per = \"1h\", output_estimate = 1000 }";
    let reserved = |gateway: &Bed| gateway.gateway.servers().reserved_tokens()[0].clone();
    let first = saying(&[JSON, GZIP], gzip(&[whole("well")])).await;
    let gateway = bed(&first, None, limit).await;
    assert_eq!(gateway.ask("gpt", false).await.status(), 200);
    let left = reserved(&gateway);
    assert_eq!(
        (left.reserved, left.available),
        (0, 2_995),
        "3 and 2 were used"
    );
    gateway.end().await;
    let first = saying(
        &[JSON, ("content-encoding", "zstd")],
        vec![b"(\xb5/\xfd".to_vec()],
    )
    .await;
    let gateway = bed(&first, None, limit).await;
    let response = gateway.ask("gpt", false).await;
    assert_eq!(response.bytes().await.unwrap(), &b"(\xb5/\xfd"[..]);
    assert!(
        reserved(&gateway).available < 2_000,
        "all that was set aside"
    );
    gateway.end().await;
}

#[tokio::test]
async fn llm_item_07_llm_10_a_success_that_is_no_answer_is_a_failure() {
    let cut = whole("well")[..60].to_owned();
    for (what, headers, body, is_stream) in [
        ("an empty body", vec![JSON], String::new(), false),
        ("a part of an answer", vec![JSON], cut, false),
        (
            "a page",
            vec![("content-type", "text/html")],
            "<html>".to_owned(),
            false,
        ),
        (
            "a page for a stream",
            vec![("content-type", "text/html")],
            "<html>".to_owned(),
            true,
        ),
        (
            "an error as a text",
            vec![JSON],
            "{\"error\":\"crashed\"}".to_owned(),
            false,
        ),
        (
            "an error at the top",
            vec![JSON],
            "{\"object\":\"error\",\"message\":\"no\",\"code\":500}".to_owned(),
            false,
        ),
        (
            "an error without an event",
            vec![STREAM],
            OVERLOADED.to_owned(),
            true,
        ),
        (
            "another media type",
            vec![("content-type", "text/plain")],
            format!("{OPENING}{}", event(OVERLOADED)),
            true,
        ),
        (
            "letters of another case",
            vec![("content-type", "Text/Event-Stream; charset=UTF-8")],
            format!("{OPENING}{}", event(OVERLOADED)),
            true,
        ),
    ] {
        let first = saying(&headers, vec![body.into_bytes()]).await;
        let spare = match is_stream {
            true => Provider::good("well").await,
            false => Provider::of([Act::error(200, whole("well"))]).await,
        };
        let gateway = bed(&first, Some(&spare), "").await;
        let response = gateway.ask("gpt", is_stream).await;
        assert_eq!(response.status(), 200, "{what}");
        assert_eq!(
            header(&response, "breakerbox-source"),
            "fallback:spare",
            "{what}"
        );
        assert_eq!(gateway.failures("gpt"), 1, "{what}");
        gateway.end().await;
    }
}

/// Whatever its caller calls the body, it is read: it names the model, and says whether it streams.
#[tokio::test]
async fn llm_15_a_body_without_a_media_type_is_read() {
    let first = Provider::of([Act::Stream(vec![OPENING.to_owned()])]).await;
    let spare = Provider::good("well").await;
    let gateway = bed(&first, Some(&spare), "").await;
    let request = gateway.http.post(gateway.url("/gpt/v1/chat/completions"));
    let response = request.body(asked("m", true)).send().await.unwrap();
    check_good(response, "well", "fallback:spare").await;
    assert!(String::from_utf8_lossy(&spare.seen(0).body).contains("spare-1"));
    gateway.end().await;
}

#[tokio::test]
async fn llm_5_the_head_of_a_stream_has_the_hint_of_its_error() {
    let limited = event(
        "{\"error\":{\"message\":\"slow\",\"type\":\"tokens\",\"param\":null,\
         \"code\":\"rate_limit_exceeded\"}}",
    );
    let headers = [
        STREAM,
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "1m30s"),
    ];
    let pieces = vec![OPENING.as_bytes().to_vec(), limited.into_bytes()];
    let first = saying(&headers, pieces).await;
    let gateway = bed(&first, None, "").await;
    let response = gateway.ask("gpt", true).await;
    assert_eq!(response.status(), 429);
    let response = gateway.ask("gpt", true).await;
    let wait: u64 = header(&response, "retry-after").parse().unwrap();
    assert!((85..=91).contains(&wait), "{wait}");
    gateway.end().await;
}

#[tokio::test]
async fn llm_17_a_blocked_prompt_passes_as_it_came_or_goes_to_another_model() {
    let block = event("{\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}");
    let well = event(
        "{\"candidates\":[{\"index\":0,\"content\":{\"role\":\"model\",\
         \"parts\":[{\"text\":\"well\"}]},\"finishReason\":\"STOP\"}]}",
    );
    let first = saying(&[STREAM], vec![block.clone().into_bytes()]).await;
    let spare = saying(&[STREAM], vec![well.clone().into_bytes()]).await;
    let google = |text: String| {
        text.replace("\"openai\"", "\"google\"")
            .replace("/v1\"", "/v1beta\"")
    };
    let ask = async |gateway: &Bed| {
        let path = "/gpt/models/g:streamGenerateContent?alt=sse";
        let response = gateway.post(path, "{\"contents\":[]}").await;
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    };
    let alone = google(model("gpt", &first, "") + FALLBACK + &model("spare", &spare, ""));
    let gateway = Bed::of(&alone).await;
    assert_eq!(ask(&gateway).await, block);
    gateway.end().await;
    let filtered = format!("{FALLBACK}on = [\"filtered\"]\n");
    let text = google(model("gpt", &first, "") + &filtered + &model("spare", &spare, ""));
    let gateway = Bed::of(&text).await;
    assert_eq!(ask(&gateway).await, well);
    gateway.end().await;
}

#[tokio::test]
async fn llm_3_a_choice_that_ended_with_an_error_is_that_error() {
    let ended = json!({"id": "c", "object": "chat.completion", "model": "m", "choices": [
        {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "down"},
         "message": {"role": "assistant", "content": ""}}]});
    let mut without_words = ended.clone();
    without_words["choices"][0]["error"] = Value::Null;
    let mut not_ended = ended.clone();
    not_ended["choices"][0]["finish_reason"] = Value::Null;
    for (said, status) in [(ended, 502), (without_words, 500), (not_ended, 502)] {
        let first = Provider::of([Act::error(200, &said)]).await;
        let gateway = bed(&first, None, "").await;
        assert_eq!(gateway.ask("gpt", false).await.status(), status, "{said}");
        assert_eq!(gateway.failures("gpt"), 1, "{said}");
        gateway.end().await;
        let spare = Provider::good("well").await;
        let gateway = bed(&first, Some(&spare), "").await;
        let response = gateway.ask("gpt", false).await;
        assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
        gateway.end().await;
    }
}

#[tokio::test]
async fn llm_3_an_empty_error_beside_an_answer_is_none() {
    for error in [json!({}), json!(""), json!(false), Value::Null] {
        let mut said: Value = serde_json::from_str(&whole("well")).unwrap();
        said["error"] = error.clone();
        said["choices"][0]["error"] = error.clone();
        let mut piece = json!({"choices": [{"index": 0, "delta": {"content": "a"}}]});
        piece["error"] = error;
        let pieces = vec![
            OPENING.to_owned(),
            event(&piece.to_string()),
            END.to_owned(),
        ];
        let first = Provider::of([Act::error(200, &said), Act::Stream(pieces)]).await;
        let gateway = bed(&first, None, "").await;
        let response = gateway.ask("gpt", false).await;
        assert_eq!(response.status(), 200, "{said}");
        let (_, is_whole) = read_all(gateway.ask("gpt", true).await).await;
        assert!(is_whole, "{piece}");
        assert_eq!(gateway.failures("gpt"), 0, "{said}");
        gateway.end().await;
    }
}

#[tokio::test]
async fn llm_3_json_without_an_answer_in_it_is_a_failure() {
    for said in [
        json!({}),
        json!({"choices": []}),
        json!({"choices": null}),
        json!({"detail": "Not Found"}),
        json!({"message": "Internal server error", "statusCode": 500}),
    ] {
        let first = Provider::of([Act::error(200, &said)]).await;
        let spare = Provider::of([Act::error(200, whole("well"))]).await;
        let gateway = bed(&first, Some(&spare), "").await;
        let response = gateway.ask("gpt", false).await;
        assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
        assert_eq!(gateway.failures("gpt"), 1, "{said}");
        gateway.end().await;
    }
}
