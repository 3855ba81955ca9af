//! Alerts: one for each episode, handled by operators, resolved by recovery.

use reqwest::Method;
use serde_json::{Value, json};

use super::Rig;
use crate::scripted::{Do, ms, opens_after};

async fn alerts(rig: &Rig) -> Vec<Value> {
    let all = rig.get("/api/alerts").await;
    all.as_array().unwrap().clone()
}

fn states(alerts: &[Value]) -> Vec<&str> {
    alerts
        .iter()
        .map(|one| one["state"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn item_102_an_episode_raises_one_alert_and_the_recovery_resolves_it() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    assert_eq!(alerts(&rig).await, Vec::<Value>::new());
    rig.bench.fail_until_open().await;
    let raised = alerts(&rig).await;
    assert_eq!(states(&raised), ["active"]);
    assert_eq!(
        (&raised[0]["dependency"], &raised[0]["kind"]),
        (&json!("dep"), &json!("breaker_open"))
    );
    // Two failed probes belong to the same episode.
    for _ in 0..2 {
        rig.operate("check").await;
        rig.bench.ask(Do::Fail).await.unwrap_err();
    }
    assert_eq!(states(&alerts(&rig).await), ["active"]);
    let ack = rig.order("/api/alerts/1/ack", &json!({ "reason": "I look" }));
    let acknowledged: Value = ack.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&acknowledged["state"], &acknowledged["note"]),
        (&json!("acknowledged"), &json!("I look"))
    );
    assert_eq!(acknowledged["by"], "token holder at 127.0.0.1");
    rig.operate("check").await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    assert_eq!(states(&alerts(&rig).await), ["resolved"]);
    // The next episode gets a new alert.
    rig.bench.fail_until_open().await;
    let two = alerts(&rig).await;
    assert_eq!(states(&two), ["active", "resolved"]);
    assert_eq!((&two[0]["id"], &two[1]["id"]), (&json!(2), &json!(1)));
    rig.finish().await;
}

#[tokio::test]
async fn item_102_a_cleared_alert_stays_cleared_and_each_step_is_on_record() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    rig.bench.fail_until_open().await;
    let unsigned = rig
        .request(Method::POST, "/api/alerts/1/ack")
        .json(&json!({ "reason": "r" }));
    assert_eq!(rig.problem(unsigned).await.0, 401);
    // HLT-2: an outage that stands does not vanish from the list.
    let early = rig.order("/api/alerts/1/clear", &json!({ "reason": "too early" }));
    let (code, problem) = rig.problem(early).await;
    assert_eq!(code, 409);
    assert!(
        problem["allowed"].as_str().unwrap().contains("ack"),
        "{problem}"
    );
    for step in ["ack", "clear"] {
        if step == "clear" {
            rig.operate("check").await;
            rig.bench.ask(Do::Answer(1)).await.unwrap();
        }
        let order = rig.order(&format!("/api/alerts/1/{step}"), &json!({ "reason": step }));
        assert_eq!(order.send().await.unwrap().status(), 200);
        let again = rig.order(&format!("/api/alerts/1/{step}"), &json!({ "reason": step }));
        assert_eq!(rig.problem(again).await.0, 409);
    }
    assert_eq!(states(&alerts(&rig).await), ["cleared"]);
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    assert_eq!(states(&alerts(&rig).await), ["cleared"]);
    assert_eq!(rig.get("/api/alerts?state=active").await, json!([]));
    let events = rig.get("/api/events?kind=operated").await;
    let commands: Vec<&Value> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["details"]["command"])
        .collect();
    assert_eq!(commands, ["acknowledge", "probe", "clear"]);
    rig.finish().await;
}
