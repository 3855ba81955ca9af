//! SEC-1: a possible secret is never shown.

use breakerbox::admin::ServerLimits;
use breakerbox_actors::testing::{ScriptedError, run_paused};
use breakerbox_actors::{FallbackRule, Fixed};
use breakerbox_policy::Class;
use reqwest::Method;

use super::{Rig, TOKEN, read_until};
use crate::log::Log;
use crate::scripted::{Bench, Do, ms, opens_after};

const KEY: &str = "AIzaSyQx7-Wv3PkZ";

/// Returns an error with the text of an HTTP client.
fn failure(class: Class) -> Do {
    let text =
        format!("error sending request for url (https://search.example/v1?key={KEY}&q=rust)");
    Do::Error(ScriptedError::new(class, text))
}

/// Returns a part of the key, five characters long, that the text contains.
fn leaks(text: &str) -> Option<&'static str> {
    let parts = (0..=KEY.len() - 5).map(|at| &KEY[at..at + 5]);
    parts.into_iter().find(|part| text.contains(part))
}

async fn make_every_error(bench: &Bench) {
    let classes = [
        Class::Failure,
        Class::Throttled,
        Class::Rejected,
        Class::Misconfigured,
    ];
    for class in classes {
        let _ = bench.ask(failure(class)).await;
        bench
            .client
            .operate(breakerbox_policy::BreakerCommand::Reset {
                reason: "next".to_owned(),
            })
            .await
            .unwrap();
    }
    let _ = bench.ask(Do::Panic).await;
    bench.ask(Do::Answer(1)).await.unwrap();
    while bench.state() == breakerbox_policy::State::Closed {
        let _ = bench.ask(failure(Class::Failure)).await;
    }
    let _ = bench.ask(Do::Answer(1)).await;
}

#[tokio::test]
async fn item_62_no_admin_route_shows_a_key_or_the_token() {
    let rules = vec![FallbackRule::new(Fixed(7))];
    let rig = Rig::with(
        opens_after(2, ms(60_000)),
        rules,
        Some(TOKEN),
        ServerLimits::default(),
    )
    .await;
    make_every_error(&rig.bench).await;
    rig.operate("check").await;
    let document = rig.get("/api/openapi.json").await;
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        if operations.get("get").is_none() || path.ends_with("/stream") {
            continue;
        }
        let path = path.replace("{name}", "dep");
        let response = rig.request(Method::GET, &path).send().await.unwrap();
        let text = response.text().await.unwrap();
        assert_eq!(leaks(&text), None, "{path}: {text}");
        assert!(!text.contains(TOKEN), "{path}");
        seen += 1;
    }
    assert!(seen > 8, "{seen}");
    let stream = rig
        .request(Method::GET, "/api/events/stream")
        .header("last-event-id", "0");
    let text = read_until(&mut stream.send().await.unwrap(), "event: status").await;
    // The surrounding words are there, so a secret was masked.
    assert!(text.contains("https://search.example/v1?***"), "{text}");
    assert_eq!(leaks(&text), None, "{text}");
    assert!(!format!("{:?}", rig.admin).contains(TOKEN));
    rig.finish().await;
}

#[test]
fn item_62_no_log_line_shows_a_key() {
    run_paused(async || {
        let log = Log::capture_all();
        let rules = vec![FallbackRule::new(Fixed(7))];
        let bench = Bench::with_fallbacks(opens_after(2, ms(60_000)), rules).await;
        make_every_error(&bench).await;
        let lines = log.lines("");
        let masked = lines
            .iter()
            .any(|line| line.contains("falling back") && line.contains("v1?***"));
        assert!(masked, "{lines:?}");
        assert_eq!(lines.iter().find_map(|line| leaks(line)), None);
        bench.finish().await;
    });
}
