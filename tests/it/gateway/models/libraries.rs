//! The client libraries of OpenAI, Anthropic and Vercel, as they are published.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use super::*;
use crate::mcp::install::{install_with_npm, install_with_pip};

const PYPI: &[&str] = &["openai==3.57.0", "anthropic==2.14.0"];
const NPM: &[&str] = &["openai@6.49.0", "ai@6.0.326", "@ai-sdk/openai@3.0.141"];

/// Time limit for all questions of one client.
const LONG: Duration = Duration::from_secs(120);

/// A client's answer to a question, or its exception.
#[derive(Debug, serde::Deserialize)]
struct Told {
    answer: Option<Value>,
    error: Option<String>,
    text: Option<String>,
    code: Option<Value>,
    seconds: f64,
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

async fn run(mut client: Command) -> Vec<Told> {
    client.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(LONG, client.output()).await;
    let ended = ended.expect("the client is slow").unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{wrong}");
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A stream of Responses, in its events.
fn responses_stream() -> Vec<String> {
    let response = |status: &str, output: Value| {
        json!({"id": "r", "object": "response", "created_at": 1, "status": status, "model": "m",
            "output": output, "parallel_tool_calls": true, "tool_choice": "auto", "tools": []})
    };
    let text = json!({"type": "output_text", "text": "well", "annotations": []});
    let item = json!({"type": "message", "id": "i", "status": "completed", "role": "assistant",
        "content": [text]});
    let events = [
        (
            "response.created",
            json!({"response": response("in_progress", json!([]))}),
        ),
        (
            "response.output_text.delta",
            json!({"item_id": "i", "output_index": 0, "content_index": 0, "delta": "well",
                "logprobs": []}),
        ),
        (
            "response.completed",
            json!({"response": response("completed", json!([item]))}),
        ),
    ];
    let numbered = events.into_iter().enumerate();
    let event = numbered.map(|(number, (name, mut data))| {
        data["type"] = name.into();
        data["sequence_number"] = number.into();
        named(name, &data)
    });
    event.collect()
}

#[tokio::test]
async fn llm_item_01_the_libraries_read_the_same_through_the_gateway() {
    let Some(python) = install_with_pip("pypi-models", PYPI) else {
        return;
    };
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "well"}], "stop_reason": "end_turn",
        "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 5}});
    let acts = [
        ("chat", "whole", Act::error(200, whole("well"))),
        ("chat", "stream", Act::good("well")),
        ("responses", "stream", Act::Stream(responses_stream())),
        ("messages", "whole", Act::error(200, message)),
        ("messages", "stream", Act::Stream(messages("well"))),
    ];
    let mut client = Command::new(python);
    client.arg(fixture("model_client.py"));
    let mut text = String::new();
    let mut providers = Vec::new();
    for (number, (kind, _, act)) in acts.iter().enumerate() {
        let provider = Provider::of([act.clone()]).await;
        let own = model(&format!("m{number}"), &provider, "");
        let own = match *kind {
            "messages" => own
                .replace("\"openai\"", "\"anthropic\"")
                .replace("/v1\"", "\""),
            _ => own,
        };
        text.push_str(&own);
        providers.push(provider);
    }
    let bed = Bed::of(&text).await;
    for (number, (kind, how, _)) in acts.iter().enumerate() {
        let rest = if *kind == "messages" { "" } else { "/v1" };
        let direct = providers[number].upstream.url();
        client.arg(format!(
            "{kind},{how},{}",
            bed.url(&format!("/m{number}{rest}"))
        ));
        client.arg(format!("{kind},{how},{direct}{rest}"));
    }
    let told = run(client).await;
    assert_eq!(told.len(), 2 * acts.len());
    for (pair, (kind, how, _)) in told.chunks(2).zip(&acts) {
        assert!(pair[1].answer.is_some(), "{kind} {how}: {:?}", pair[1]);
        assert_eq!(
            pair[0].answer, pair[1].answer,
            "{kind} {how}: {:?}",
            pair[0]
        );
    }
    bed.end().await;
}

/// A gateway with providers that are dead, or whose streams have no end; the former behind an open
/// breaker.
async fn bad_bed(dead: &Provider, cut: &Provider) -> Bed {
    let claude = |text: String| {
        text.replace("\"openai\"", "\"anthropic\"")
            .replace("/v1\"", "\"")
    };
    let open = "retry.max_attempts = 1\nbreaker.failure_threshold = 1\n\
                breaker.recovery_timeout = \"1h\"\n";
    let text =
        model("gpt", dead, open) + &claude(model("claude", dead, open)) + &model("cut", cut, "");
    let bed = Bed::of(&text).await;
    bed.ask("gpt", true).await;
    let request = bed.http.post(bed.url("/claude/v1/messages"));
    let request = request.header("content-type", "application/json");
    request.body(asked("m", true)).send().await.unwrap();
    bed
}

fn check_refused(told: &Told, what: &str) {
    assert!(told.error.is_some(), "{what}: {told:?}");
    let text = told.text.as_deref().unwrap_or_default();
    assert!(
        text.contains("the breaker refuses calls"),
        "{what}: {told:?}"
    );
    assert_eq!(told.code, Some(json!("breaker-open")), "{what}: {told:?}");
    assert!(told.seconds < 1.0, "{what}: {told:?}");
}

#[tokio::test]
async fn llm_item_18_19_the_libraries_of_python_raise_our_refusal_at_once() {
    let Some(python) = install_with_pip("pypi-models", PYPI) else {
        return;
    };
    let dead = Provider::of([Act::error(500, OVERLOADED)]).await;
    let cut = Provider::of([Act::Stream(vec![OPENING.to_owned(), chunk("a")])]).await;
    let bed = bad_bed(&dead, &cut).await;
    let hits = dead.hits();
    let mut client = Command::new(python);
    client.arg(fixture("model_client.py"));
    client.arg(format!("chat,stream,{}", bed.url("/gpt/v1")));
    client.arg(format!("responses,whole,{}", bed.url("/gpt/v1")));
    client.arg(format!("messages,stream,{}", bed.url("/claude")));
    client.arg(format!("chat,stream,{}", bed.url("/cut/v1")));
    let told = run(client).await;
    for (told, what) in told.iter().zip(["chat", "responses", "messages"]) {
        check_refused(told, what);
    }
    assert_eq!(dead.hits(), hits, "one attempt for each of the two models");
    // Item 6: a stream without its end is no answer.
    let last = told.last().unwrap();
    assert!(last.error.is_some() && last.answer.is_none(), "{last:?}");
    assert!(
        last.text
            .as_deref()
            .unwrap_or_default()
            .contains("without its end"),
        "{last:?}"
    );
    bed.end().await;
}

#[tokio::test]
async fn llm_item_19_the_libraries_of_node_raise_our_refusal() {
    let Some(modules) = install_with_npm("npm-models", NPM) else {
        return;
    };
    let dead = Provider::of([Act::error(500, OVERLOADED)]).await;
    let cut = Provider::of([Act::Stream(vec![OPENING.to_owned(), chunk("a")])]).await;
    let bed = bad_bed(&dead, &cut).await;
    let good = Provider::good("well").await;
    let well = Bed::of(&model("well", &good, "")).await;
    let hits = dead.hits();
    let mut client = Command::new("node");
    client.arg(fixture("model_client.mjs")).arg(&modules);
    for library in ["openai", "vercel"] {
        client.arg(format!("{library},{}", well.url("/well/v1")));
        client.arg(format!("{library},{}", bed.url("/gpt/v1")));
        client.arg(format!("{library},{}", bed.url("/cut/v1")));
    }
    let told = run(client).await;
    for (told, library) in told.chunks(3).zip(["openai", "vercel"]) {
        assert_eq!(
            told[0].answer,
            Some(json!("well")),
            "{library}: {:?}",
            told[0]
        );
        let text = told[1].text.as_deref().unwrap_or_default();
        assert!(
            text.contains("the breaker refuses calls"),
            "{library}: {:?}",
            told[1]
        );
        assert!(told[2].error.is_some(), "{library}: {:?}", told[2]);
    }
    check_refused(&told[1], "openai");
    assert_eq!(dead.hits(), hits, "no retry reaches the provider");
    well.end().await;
    bed.end().await;
}
