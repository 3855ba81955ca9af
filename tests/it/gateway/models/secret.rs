//! Nothing of a prompt, an answer or a key is told elsewhere.

use std::process::Stdio;

use super::*;
use crate::gateway::serve::{Sidecar, command, configured, http};

const SECRETS: [&str; 6] = [
    "sk-first",
    "sk-spare",
    "sk-callers",
    "the-prompt",
    "the-answer",
    "the-words-of-an-error",
];

/// Neither in the log at its finest, nor in the recorder's file, nor on the admin side.
#[tokio::test]
async fn llm_item_22_sec_1_nothing_of_a_prompt_an_answer_or_a_key_is_told() {
    let error = OVERLOADED.replace("busy", "the-words-of-an-error");
    let wrong_key = json!({"error": {"message": "the-words-of-an-error sk-first", "type": "x",
        "param": null, "code": "invalid_api_key"}});
    let no_credit = error.replace("server_is_overloaded", "insufficient_quota");
    let first = Provider::of([
        Act::good("the-answer"),
        Act::error(500, &error),
        Act::Stream(vec![OPENING.to_owned(), chunk("the-answer"), event(&error)]),
        Act::Stream(vec![OPENING.to_owned(), event(&error)]),
        Act::Stream(vec![OPENING.to_owned(), chunk("the-answer")]),
        Act::error(401, wrong_key),
        Act::error(429, no_credit),
    ])
    .await;
    let spare = Provider::of([Act::error(500, &error)]).await;
    let folder = tempfile::tempdir().unwrap();
    let once = "retry.max_attempts = 1\nbreaker.failure_threshold = 100\n";
    let text = format!(
        "[recorder]\npath = \"outcomes.jsonl\"\n{}{FALLBACK}{}",
        model("gpt", &first, &format!("key = \"sk-first\"\n{once}")),
        model("spare", &spare, &format!("key = \"sk-spare\"\n{once}")),
    );
    configured(folder.path(), &text);
    let path = folder.path().join("log");
    let log = std::fs::File::create(&path).unwrap();
    let mut serve = command(folder.path());
    serve.env("RUST_LOG", "trace");
    let sidecar = Sidecar::start_logged(serve, 1, Stdio::from(log));
    let prompt = asked("m", true).replace("hi", "the-prompt");
    for _ in 0..9 {
        let request = http().post(sidecar.url("/gpt/v1/chat/completions"));
        let request = request
            .header("content-type", "application/json")
            .header("authorization", "Bearer sk-callers");
        let response = request.body(prompt.clone()).send().await.unwrap();
        // Some of them break off.
        response.bytes().await.ok();
    }
    assert_eq!(first.hits(), 7);
    let mut told = Vec::new();
    for page in [
        "/api/dependencies",
        "/api/events",
        "/api/models",
        "/api/alerts",
        "/metrics",
    ] {
        let answer = http().get(sidecar.admin(page)).send().await.unwrap();
        told.push((page, answer.text().await.unwrap()));
    }
    drop(sidecar);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    told.push(("the log", read("log")));
    told.push(("the recorder", read("outcomes.jsonl")));
    assert!(told[5].1.contains("gpt"), "{}", told[5].1);
    for (place, text) in &told {
        for secret in SECRETS {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{place}, {secret}: {line:?}");
        }
    }
}
