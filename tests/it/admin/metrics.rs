//! `GET /metrics`, read by a third-party parser: its series, their values, and their bounds.

use std::collections::{BTreeMap, BTreeSet};

use breakerbox::admin::ServerLimits;
use breakerbox_actors::{CallOptions, FallbackRule, Fixed};
use prometheus_parse::{Scrape, Value};
use reqwest::Method;

use super::{Rig, TOKEN};
use crate::scripted::{Do, ms, nonzero, opens_after};

async fn text(rig: &Rig) -> String {
    let response = rig.request(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    response.text().await.unwrap()
}

fn parse(text: &str) -> Scrape {
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

/// Returns the value of a counter or gauge with these labels besides the dependency's.
fn value(scrape: &Scrape, metric: &str, labels: &[(&str, &str)]) -> f64 {
    let mut found = scrape.samples.iter().filter(|sample| {
        let fits = |(name, value): &(&str, &str)| sample.labels.get(name) == Some(*value);
        sample.metric == metric && labels.iter().all(fits)
    });
    let sample = found
        .next()
        .unwrap_or_else(|| panic!("no {metric} {labels:?}"));
    assert!(found.next().is_none(), "more than one {metric} {labels:?}");
    match &sample.value {
        Value::Counter(value) | Value::Gauge(value) => *value,
        other => panic!("{metric} is {other:?}"),
    }
}

#[tokio::test]
async fn item_99_a_scrape_after_a_full_cycle_tells_it() {
    let configure = |settings: &mut _| opens_after(2, ms(60_000))(settings);
    let rules = vec![FallbackRule::new(Fixed(7)).named("spare")];
    let rig = Rig::with(
        |settings| {
            configure(settings);
            settings.retry.max_attempts = nonzero(2);
            settings.retry.backoff.base = ms(1);
        },
        rules,
        Some(TOKEN),
        ServerLimits::default(),
    )
    .await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    rig.bench.ask(Do::Panic).await.unwrap();
    let idempotent = CallOptions {
        idempotent: Some(true),
        ..CallOptions::default()
    };
    // The attempt and its retry fail, which opens the breaker; a fallback answers.
    let answer = rig
        .bench
        .client
        .ask_with(Do::Fail, idempotent)
        .await
        .unwrap();
    assert!(!answer.is_primary());
    let scrape = parse(&text(&rig).await);
    let is = |state| value(&scrape, "breakerbox_breaker_state", &[("state", state)]);
    assert_eq!((is("closed"), is("open"), is("half_open")), (0.0, 1.0, 0.0));
    for _ in 0..3 {
        assert!(!rig.bench.ask(Do::Answer(1)).await.unwrap().is_primary());
    }
    rig.operate("check").await;
    rig.bench.ask(Do::Answer(2)).await.unwrap();
    let status = rig.bench.status();
    let transitions = [("dependency", "dep"), ("kind", "transition")];
    // Events are counted by a listener, which may be a moment behind.
    let scrape = loop {
        let scrape = parse(&text(&rig).await);
        let is_told = scrape.samples.iter().any(|sample| {
            sample.metric == "breakerbox_events_total"
                && sample.labels.get("kind") == Some("transition")
                && matches!(sample.value, Value::Counter(count) if count >= 3.0)
        });
        if is_told {
            break scrape;
        }
        tokio::task::yield_now().await;
    };
    let one = |metric, labels: &[(&str, &str)]| value(&scrape, metric, labels);
    assert_eq!(one("breakerbox_breaker_state", &[("state", "closed")]), 1.0);
    assert_eq!(one("breakerbox_breaker_state", &[("state", "open")]), 0.0);
    assert_eq!(one("breakerbox_breaker_trips_total", &[]), 1.0);
    assert_eq!(one("breakerbox_calls_submitted_total", &[]), 7.0);
    assert_eq!(one("breakerbox_calls_total", &[("result", "primary")]), 2.0);
    assert_eq!(
        one("breakerbox_calls_total", &[("result", "fallback")]),
        5.0
    );
    assert_eq!(one("breakerbox_calls_total", &[("result", "refused")]), 0.0);
    assert_eq!(
        one("breakerbox_attempt_outcomes_total", &[("class", "success")]),
        2.0
    );
    let failures = one("breakerbox_attempt_outcomes_total", &[("class", "failure")]);
    assert_eq!(failures, status.counts.failure as f64);
    assert!(failures >= 2.0, "{failures}");
    assert!(one("breakerbox_refusals_total", &[("reason", "breaker")]) >= 3.0);
    assert_eq!(
        one("breakerbox_refusals_total", &[("reason", "bulkhead")]),
        0.0
    );
    assert_eq!(
        one(
            "breakerbox_fallback_answers_total",
            &[("fallback", "spare")]
        ),
        5.0
    );
    assert_eq!(
        one("breakerbox_retries_total", &[]),
        status.counts.retries as f64
    );
    assert_eq!(
        one("breakerbox_attempts_total", &[]),
        status.totals.attempts as f64
    );
    assert_eq!(one("breakerbox_hedges_total", &[]), 0.0);
    assert_eq!(one("breakerbox_restarts_total", &[]), 1.0);
    assert_eq!(one("breakerbox_queue_depth", &[]), 0.0);
    assert_eq!(one("breakerbox_queue_limit", &[]), 64.0);
    assert_eq!(one("breakerbox_in_flight", &[]), 0.0);
    assert_eq!(one("breakerbox_in_flight_limit", &[]), 32.0);
    assert_eq!(one("breakerbox_workers_running", &[]), 1.0);
    assert_eq!(one("breakerbox_paused", &[("reason", "throttled")]), 0.0);
    assert_eq!(one("breakerbox_events_total", &transitions), 3.0);
    assert_eq!(one("breakerbox_stream_events_dropped_total", &[]), 0.0);
    assert_eq!(one("breakerbox_ready", &[]), 1.0);
    let latency = "breakerbox_attempt_duration_seconds";
    let latency = scrape
        .samples
        .iter()
        .find(|one| one.metric == latency)
        .unwrap();
    let Value::Histogram(buckets) = &latency.value else {
        panic!("{latency:?}");
    };
    assert!(
        buckets.is_sorted_by(|low, high| low.less_than < high.less_than && low.count <= high.count)
    );
    assert_eq!(buckets.last().unwrap().count, failures + 2.0);
    rig.finish().await;
}

#[tokio::test]
async fn item_99_retries_are_counted_with_and_without_a_budget() {
    for unbounded in [false, true] {
        let rig = Rig::start(|settings| {
            settings.breaker.failure_threshold = None;
            settings.retry.max_attempts = nonzero(3);
            settings.retry.backoff.base = ms(1);
            if unbounded {
                settings.retry.budget = None;
            }
        })
        .await;
        let idempotent = CallOptions {
            idempotent: Some(true),
            ..CallOptions::default()
        };
        rig.bench
            .client
            .ask_with(Do::Fail, idempotent)
            .await
            .unwrap_err();
        let scrape = parse(&text(&rig).await);
        assert_eq!(value(&scrape, "breakerbox_retries_total", &[]), 2.0);
        assert_eq!(value(&scrape, "breakerbox_attempts_total", &[]), 3.0);
        assert_eq!(
            value(
                &scrape,
                "breakerbox_attempt_outcomes_total",
                &[("class", "failure")]
            ),
            3.0
        );
        rig.finish().await;
    }
}

/// Returns the label names of all series, with their values.
fn labels(scrape: &Scrape) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for sample in &scrape.samples {
        for (name, value) in sample.labels.iter() {
            all.entry(name.clone()).or_default().insert(value.clone());
        }
    }
    all
}

#[tokio::test]
async fn item_99_label_values_are_bounded_whatever_callers_do() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    let few = parse(&text(&rig).await).samples.len();
    for number in 0..200 {
        let options = CallOptions {
            key: Some(format!("tenant-{number}").into()),
            ..CallOptions::default()
        };
        let message = format!("error of request {number}");
        let error = breakerbox_actors::testing::ScriptedError::failure(message);
        rig.bench
            .client
            .ask_with(Do::Error(error), options)
            .await
            .unwrap_err();
    }
    let scrape = parse(&text(&rig).await);
    assert_eq!(value(&scrape, "breakerbox_keys", &[]), 200.0);
    // Some kinds of events occur for the first time.
    assert!(
        scrape.samples.len() <= few + 5,
        "{} of {few}",
        scrape.samples.len()
    );
    let labels = labels(&scrape);
    let names: Vec<&str> = labels.keys().map(String::as_str).collect();
    let known = [
        "class",
        "dependency",
        "health",
        "kind",
        "mode",
        "reason",
        "result",
        "state",
        "version",
    ];
    assert_eq!(names, known);
    assert_eq!(labels["dependency"], BTreeSet::from(["dep".to_owned()]));
    assert!(
        labels.values().all(|values| values.len() <= 16),
        "{labels:?}"
    );
    rig.finish().await;
}

#[tokio::test]
async fn item_99_names_follow_the_convention_and_are_all_explained() {
    let rules = vec![FallbackRule::new(Fixed(7))];
    let rig = Rig::with(|_| {}, rules, Some(TOKEN), ServerLimits::default()).await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    rig.operate("open").await;
    let text = text(&rig).await;
    let explained = include_str!("../../../docs/operations.md");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut count = 0;
    for (name, kind) in types.filter_map(|line| line.split_once(' ')) {
        if name.starts_with("process_") {
            continue;
        }
        count += 1;
        assert!(name.starts_with("breakerbox_"), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            kind == "counter",
            "{name} is a {kind}"
        );
        assert!(
            explained.contains(&format!("| `{name}` | {kind} |")),
            "{name}, a {kind}, is not explained"
        );
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
    // Tools are those of MCP servers; this runtime has no server, model, consumer or fleet.
    let rows = explained
        .lines()
        .filter(|line| line.starts_with("| `breakerbox_"))
        .filter(|line| !line.starts_with("| `breakerbox_tool_"))
        .filter(|line| !line.starts_with("| `breakerbox_model_"))
        .filter(|line| !line.starts_with("| `breakerbox_token_limit_"))
        .filter(|line| !line.starts_with("| `breakerbox_consumer_"))
        .filter(|line| !line.starts_with("| `breakerbox_fleet_"));
    assert_eq!(
        rows.count(),
        count,
        "something is explained that is not there"
    );
    rig.finish().await;
}
