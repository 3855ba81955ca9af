//! The figures of the last hour and day, and the notes beside them.

use std::process::Command;

use breakerbox::config::Settings;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Rig, TOKEN, read_until};
use crate::scripted::{Do, ms, opens_after};

fn sum(series: &Value, field: &str) -> u64 {
    let all = series[field].as_array().unwrap().iter();
    all.filter_map(Value::as_u64).sum()
}

#[tokio::test]
async fn item_101_the_series_has_what_callers_got() {
    let rig = Rig::start(opens_after(1000, ms(60_000))).await;
    for _ in 0..20 {
        rig.bench.ask(Do::Answer(1)).await.unwrap();
    }
    for _ in 0..7 {
        rig.bench.ask(Do::Fail).await.unwrap_err();
    }
    // An attempt's time is recorded beside its call's end.
    let counted = |series: &Value| (sum(series, "calls"), sum(series, "errors"));
    for (path, step) in [
        ("/api/dependencies/dep/series", 5_000),
        ("/api/dependencies/dep/series?step=1m", 60_000),
    ] {
        let series = rig.get(path).await;
        assert_eq!(series["dependency"], "dep");
        assert_eq!(series["step_ms"], step, "{path}");
        assert_eq!(counted(&series), (27, 7), "{path}: {series}");
        assert_eq!(sum(&series, "fallback"), 0);
        let latencies = series["latency_ms"].as_array().unwrap();
        assert!(latencies.iter().any(Value::is_f64), "{series}");
        assert_eq!(
            series["calls"].as_array().unwrap().len(),
            latencies.len(),
            "{series}"
        );
    }
    let all = rig.get("/api/series").await;
    assert_eq!(all[0]["dependency"], "dep");
    assert_eq!(all[0]["step_ms"], 30_000);
    assert_eq!(counted(&all[0]), (27, 7));
    let steps = all[0]["calls"].as_array().unwrap().len();
    assert!((1..=121).contains(&steps), "{steps}");
    // What comes later is added to it.
    rig.bench.ask(Do::Fail).await.unwrap_err();
    let series = rig.get("/api/dependencies/dep/series").await;
    assert_eq!(counted(&series), (28, 8));
    rig.finish().await;
}

#[tokio::test]
async fn item_101_the_samples_are_taken_without_a_reader() {
    let rig = Rig::start(|_| {}).await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    // Only the task of the admin server samples: a second look at the same series finds the buckets
    // between closed, which needs one sample for each.
    let first = rig.get("/api/dependencies/dep/series").await;
    let known = first["calls"].as_array().unwrap().len();
    let looking = async {
        loop {
            // This request takes no sample.
            let events = rig.get("/api/events").await;
            assert!(events["events"].is_array());
            let began = first["begin"].as_str().unwrap();
            let began: jiff::Timestamp = began.parse().unwrap();
            let buckets = jiff::Timestamp::now().duration_since(began).as_secs() / 5;
            if usize::try_from(buckets).unwrap() >= known + 3 {
                break;
            }
            tokio::time::sleep(ms(100)).await;
        }
    };
    tokio::time::timeout(ms(120_000), looking).await.unwrap();
    let series = rig.get("/api/dependencies/dep/series").await;
    let calls = series["calls"].as_array().unwrap();
    assert!(calls.len() >= known + 3, "{series}");
    // Three buckets without a sample would be a gap.
    let unknown = calls.iter().filter(|calls| calls.is_null()).count();
    assert!(unknown < 3, "{series}");
    rig.finish().await;
}

#[tokio::test]
async fn ops_1_notes_are_kept_with_their_author_and_told_to_readers_of_the_stream() {
    let rig = Rig::start(|_| {}).await;
    let stream = rig.request(Method::GET, "/api/events/stream");
    let mut stream = stream.send().await.unwrap();
    read_until(&mut stream, "event: notes").await;
    let note = json!({ "text": " deploy 1.2 ", "dependency": "dep" });
    let answer = rig.order("/api/notes", &note).send().await.unwrap();
    let note: Value = answer.json().await.unwrap();
    assert_eq!(note["text"], "deploy 1.2");
    assert_eq!(note["by"], "token holder at 127.0.0.1");
    read_until(&mut stream, "deploy 1.2").await;
    assert_eq!(rig.get("/api/notes").await, json!([note]));
    let wrong = rig.order("/api/notes", &json!({ "text": "x".repeat(201) }));
    let (status, problem) = rig.problem(wrong).await;
    assert_eq!(status, 400);
    assert_eq!(problem["allowed"], "text: 1 to 200 letters");
    drop(stream);
    rig.finish().await;
}

#[tokio::test]
async fn ops_1_the_command_note_leaves_a_note() {
    let rig = Rig::start(|_| {}).await;
    let url = rig.url("");
    let note = move |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
        command.arg("note").args(arguments).args(["--admin", &url]);
        command.env("BREAKERBOX__ADMIN__TOKEN", TOKEN);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let done = note(&["deploy 1.2"]).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(
        String::from_utf8(done.stdout)
            .unwrap()
            .ends_with("Z  deploy 1.2\n")
    );
    let done = note(&["of dep", "--dependency", "dep"]).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    let refused = note(&["of nobody", "--dependency", "nobody"])
        .await
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("nobody")
    );
    let notes = rig.get("/api/notes").await;
    let told = |at: usize| (notes[at]["text"].as_str(), notes[at]["dependency"].as_str());
    assert_eq!(told(0), (Some("deploy 1.2"), None));
    assert_eq!(told(1), (Some("of dep"), Some("dep")));
    assert_eq!(notes.as_array().unwrap().len(), 2);
    rig.finish().await;
}

const LINKED: &str = r#"
[dependencies.dep]
kind = "http"
url = "https://payments.internal:8443/a/secret/path"
links = { runbook = "https://wiki.internal/payments", trace = "http://127.0.0.1:16686/search?service=payments" }
"#;

#[tokio::test]
async fn item_101_links_and_the_address_of_a_dependency_are_in_its_view() {
    let rig = Rig::start(|_| {}).await;
    assert_eq!(rig.dependency().await["links"], json!({}));
    assert_eq!(rig.dependency().await["upstream"], Value::Null);
    let settings = Settings::loader().bare().toml(LINKED).load().unwrap();
    rig.admin.follow(&settings);
    let dependency = rig.dependency().await;
    assert_eq!(dependency["upstream"], "https://payments.internal:8443");
    assert_eq!(
        dependency["links"],
        json!({
            "runbook": "https://wiki.internal/payments",
            "trace": "http://127.0.0.1:16686/search?service=payments",
        })
    );
    rig.finish().await;
}

#[test]
fn cfg_1_a_link_that_is_no_page_is_refused_with_what_is_allowed() {
    let text = LINKED.replace("https://wiki.internal/payments", "javascript:alert(1)");
    let error = Settings::loader().bare().toml(text).load().unwrap_err();
    let error = error.to_string();
    assert!(error.contains("dependencies.dep.links"), "{error}");
    assert!(error.contains("javascript:alert(1)"), "{error}");
    assert!(
        error.contains("a table of up to 8 pages by name"),
        "{error}"
    );
}
