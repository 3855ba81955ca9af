//! Outages over the API and the command line.

use breakerbox_actors::testing::ScriptedError;
use breakerbox_actors::{CallOptions, Verdict};
use breakerbox_policy::{BreakerCommand, Class, Rate, State, WindowKind};
use serde_json::{Value, json};

use super::Rig;
use super::commands::{run, signed};
use crate::scripted::{Do, ms, nonzero, opens_after};

async fn outages(rig: &Rig, query: &str) -> Vec<Value> {
    let all = rig.get(&format!("/api/outages{query}")).await;
    all.as_array().unwrap().clone()
}

#[tokio::test]
async fn hlt_2_an_outage_is_one_object_of_the_api() {
    let rig = Rig::start(opens_after(3, ms(60_000))).await;
    assert_eq!(rig.dependency().await["outage"], Value::Null);
    assert_eq!(rig.dependency().await["line"], Value::Null);
    rig.bench.fail_until_open().await;
    let began = rig.dependency().await["since"].clone();
    for _ in 0..2 {
        rig.operate("check").await;
        rig.bench.ask(Do::Fail).await.unwrap_err();
    }
    let one = rig.dependency().await;
    let outage = &one["outage"];
    assert_eq!((&outage["since"], &outage["ended"]), (&began, &Value::Null));
    assert_eq!(
        (&outage["probes"], &outage["probes_failed"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(outage["failed"], json!(3));
    let line = one["line"].as_str().unwrap();
    assert!(line.starts_with("down "), "{line}");
    assert!(line.contains("next probe in "), "{line}");
    assert!(line.contains(" calls got errors"), "{line}");
    assert_eq!(outages(&rig, "?standing=true").await[0]["id"], outage["id"]);
    assert_eq!(outages(&rig, "?standing=false").await, Vec::<Value>::new());
    assert_eq!(
        outages(&rig, "?dependency=other").await,
        Vec::<Value>::new()
    );
    rig.operate("check").await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    let ended = &outages(&rig, "").await[0];
    assert!(
        ended["ended"].is_string() && ended["line"].is_null(),
        "{ended}"
    );
    assert_eq!(rig.dependency().await["outage"], Value::Null);
    rig.finish().await;
}

#[tokio::test]
async fn brk_13_an_outage_of_a_key_tells_its_next_probe_and_that_it_waits_for_a_call() {
    let rig = Rig::start(opens_after(5, ms(60_000))).await;
    for _ in 0..5 {
        let of_key = CallOptions {
            key: Some("m".into()),
            ..CallOptions::default()
        };
        let asked = rig.bench.client.ask_with(Do::Fail, of_key).await;
        asked.unwrap_err();
    }
    let one = rig.dependency().await;
    assert_eq!(one["state"], "closed");
    let outage = &one["outage"];
    assert!(outage["next_probe_ms"].as_u64() > Some(0), "{one}");
    assert_eq!(outage["waits_for_call"], false);
    let line = one["line"].as_str().unwrap();
    assert!(line.contains("next probe in "), "{line}");
    // Its open time is over.
    let reason = "now".to_owned();
    let probe = BreakerCommand::Probe { reason };
    let told = rig.bench.client.operate_key("m", probe).await;
    told.expect("a known key").unwrap();
    let one = rig.dependency().await;
    let outage = &one["outage"];
    assert_eq!(
        (&outage["next_probe_ms"], &outage["waits_for_call"]),
        (&Value::Null, &json!(true))
    );
    let line = one["line"].as_str().unwrap();
    assert!(line.contains("it waits for a call to try it"), "{line}");
    rig.finish().await;
}

#[tokio::test]
async fn hlt_2_an_outage_and_its_alert_are_acknowledged_together() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    rig.bench.fail_until_open().await;
    let alert = rig.get("/api/alerts").await[0].clone();
    let id = rig.dependency().await["outage"]["id"].clone();
    assert_eq!((&alert["outage"], &alert["state"]), (&id, &json!("active")));
    let path = format!("/api/outages/{id}/ack");
    let order = rig.order(&path, &json!({ "reason": "on it" }));
    let outage: Value = order.send().await.unwrap().json().await.unwrap();
    let ack = &outage["ack"];
    assert_eq!(ack["note"], "on it");
    assert_eq!(ack["by"], "token holder at 127.0.0.1");
    let alert = rig.get("/api/alerts").await[0].clone();
    assert_eq!(
        (&alert["state"], &alert["note"]),
        (&json!("acknowledged"), &json!("on it"))
    );
    let unknown = rig.order("/api/outages/99/ack", &json!({ "reason": "r" }));
    assert_eq!(rig.problem(unknown).await.0, 404);
    rig.finish().await;
}

#[tokio::test]
async fn hlt_2_the_alert_of_a_used_up_quota_is_that_of_the_outage_behind_it() {
    let rig = Rig::start(|_| {}).await;
    let used_up = Do::Error(ScriptedError::quota_used_up());
    rig.bench.ask(used_up).await.unwrap_err();
    let alert = rig.get("/api/alerts").await[0].clone();
    assert_eq!(
        (&alert["kind"], &alert["outage"]),
        (&json!("quota_used_up"), &Value::Null)
    );
    let ack = rig.order("/api/alerts/1/ack", &json!({ "reason": "I fill it up" }));
    assert_eq!(ack.send().await.unwrap().status(), 200);
    for _ in 0..20 {
        rig.bench.ask(Do::Answer(1)).await.unwrap_err();
    }
    let id = rig.dependency().await["outage"]["id"].clone();
    assert!(id.is_u64(), "{id}");
    let alerts = rig.get("/api/alerts").await;
    assert_eq!(alerts.as_array().unwrap().len(), 1, "{alerts}");
    assert_eq!(alerts[0]["outage"], id);
    assert_eq!(
        rig.dependency().await["outage"]["ack"]["note"],
        "I fill it up"
    );
    rig.finish().await;
}

#[tokio::test]
async fn hlt_2_one_alert_for_an_outage_with_a_share_of_errors_and_a_trip() {
    let rig = Rig::start(opens_after(5, ms(60_000))).await;
    for _ in 0..20 {
        for told in [Do::Answer(1), Do::Answer(1), Do::Fail] {
            // The caller gets what it gets.
            let _ = rig.bench.ask(told).await;
        }
    }
    let one = rig.dependency().await;
    assert_eq!(one["health"], "degraded");
    assert_eq!(one["answers"]["errors"], 20);
    let share = one["answers"]["share"].as_f64().unwrap();
    assert!((0.33..0.34).contains(&share), "{share}");
    let alerts = rig.get("/api/alerts").await;
    assert_eq!(alerts[0]["kind"], "errors");
    rig.bench.fail_until_open().await;
    let alerts = rig.get("/api/alerts").await;
    assert_eq!(alerts.as_array().unwrap().len(), 1, "{alerts}");
    rig.operate("check").await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    rig.dependency().await;
    assert_eq!(rig.get("/api/alerts").await[0]["state"], "resolved");
    rig.finish().await;
}

#[tokio::test]
async fn hlt_2_the_command_alerts_lists_and_acknowledges() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    let none = run(signed(&rig, &["alerts"])).await;
    assert_eq!((none.code, &*none.out), (Some(0), "no alert is active\n"));
    rig.bench.fail_until_open().await;
    let listed = run(signed(&rig, &["alerts"])).await;
    for words in [
        "dep: active, since 20",
        "down ",
        "callers: 1 error, ",
        "next probe in ",
        "to do: ",
    ] {
        assert!(listed.out.contains(words), "{words:?}: {}", listed.out);
    }
    let unknown = run(signed(
        &rig,
        &["alerts", "ack", "unknown", "--note", "on it"],
    ))
    .await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("allowed: dep"), "{}", unknown.err);
    let done = run(signed(&rig, &["alerts", "ack", "dep", "--note", "on it"])).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    let json = run(signed(&rig, &["alerts", "--json"])).await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json[0]["state"], "acknowledged");
    assert_eq!(json[0]["outage"]["ack"]["note"], "on it");
    rig.finish().await;
}

#[tokio::test]
async fn hlt_2_repeated_probes_fold_to_one_line() {
    let rig = Rig::start(opens_after(1, ms(5))).await;
    rig.bench.fail_until_open().await;
    // Real time: each call is refused or is a probe.
    let probes = async || rig.dependency().await["outage"]["probes"].as_u64();
    while probes().await < Some(4) {
        rig.bench.ask(Do::Fail).await.unwrap_err();
    }
    let folded = rig.get("/api/events?kind=transition&fold=true").await;
    let events = folded["events"].as_array().unwrap();
    assert_eq!(events.len(), 2, "{folded}");
    assert_eq!(events[0]["details"]["from"], "closed");
    assert!(events[0].get("folded").is_none(), "{folded}");
    // Half-open and open again, four times or more, without the last of them.
    assert!(events[1]["folded"].as_u64() >= Some(7), "{folded}");
    let listed = run(signed(&rig, &["events"])).await;
    let line = listed
        .out
        .lines()
        .find(|line| line.contains("probe events before it"));
    assert!(line.is_some(), "{}", listed.out);
    assert!(
        !listed.out.contains("running (incarnation 1)"),
        "{}",
        listed.out
    );
    rig.finish().await;
}

#[tokio::test]
async fn brk_14_a_window_is_told_as_a_run_or_by_how_many_of_how_many() {
    let window = async |rig: &Rig| {
        for told in [Do::Answer(1), Do::Fail, Do::Fail] {
            // The caller gets what it gets.
            let _ = rig.bench.ask(told).await;
        }
        rig.dependency().await["window"]["text"].clone()
    };
    let rig = Rig::start(opens_after(5, ms(60_000))).await;
    assert_eq!(window(&rig).await, "failures in a row: 2 of 5");
    rig.finish().await;
    for (minimum, text) in [
        (20, "3 of 20 calls, 2 failed, 0 slow"),
        (3, "3 calls, 2 failed (67 %), 0 slow (0 %)"),
    ] {
        let rig = Rig::start(|settings| {
            settings.breaker.window = WindowKind::Count { size: nonzero(100) };
            settings.breaker.failure_threshold = None;
            settings.breaker.failure_rate = Some(Rate::new(0.9).unwrap());
            settings.breaker.minimum_calls = minimum;
        })
        .await;
        assert_eq!(window(&rig).await, text);
        rig.finish().await;
    }
}

#[tokio::test]
async fn hlt_2_an_outage_that_goes_on_keeps_its_alert_and_acknowledgement() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    rig.bench.fail_until_open().await;
    let id = rig.dependency().await["outage"]["id"].clone();
    let path = format!("/api/outages/{id}/ack");
    let order = rig.order(&path, &json!({ "reason": "on it" }));
    assert_eq!(order.send().await.unwrap().status(), 200);
    // The path that is probed is well, and all calls fail.
    rig.operate("check").await;
    while rig.bench.state() != State::Closed {
        if let Some(probe) = rig.bench.client.begin_active_probe() {
            probe.end(&Verdict::from(Class::Success));
        }
    }
    assert_eq!(rig.get("/api/alerts").await[0]["state"], "resolved");
    rig.bench.fail_until_open().await;
    let outage = rig.dependency().await["outage"].clone();
    assert_eq!(
        (&outage["id"], &outage["ack"]["note"]),
        (&id, &json!("on it"))
    );
    let alerts = rig.get("/api/alerts").await;
    assert_eq!(alerts.as_array().unwrap().len(), 1, "{alerts}");
    assert_eq!(
        (&alerts[0]["state"], &alerts[0]["outage"]),
        (&json!("acknowledged"), &id)
    );
    rig.finish().await;
}
