//! Liveness and readiness of the process, independent of its dependencies.

use breakerbox::admin::{Phase, ServerLimits};
use breakerbox_actors::{FallbackRule, Fixed};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Rig, TOKEN};
use crate::scripted::{Do, ms, opens_after};

async fn ready(rig: &Rig) -> (u16, Value) {
    let response = rig.request(Method::GET, "/readyz").send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn item_38_readiness_is_degraded_while_fallbacks_answer() {
    let rules = vec![FallbackRule::new(Fixed(7))];
    let rig = Rig::with(
        opens_after(1, ms(60_000)),
        rules,
        Some(TOKEN),
        ServerLimits::default(),
    )
    .await;
    assert_eq!(
        ready(&rig).await,
        (
            200,
            json!({ "status": "ready", "reasons": [], "dependencies": [] })
        )
    );
    // Each call is answered, but none by the dependency.
    for _ in 0..3 {
        let answer = rig.bench.ask(Do::Fail).await.unwrap();
        assert!(!answer.is_primary());
    }
    let (status, readiness) = ready(&rig).await;
    assert_eq!((status, &readiness["status"]), (200, &json!("degraded")));
    assert_eq!(readiness["dependencies"][0]["name"], "dep");
    assert_eq!(readiness["dependencies"][0]["health"], "degraded");
    assert_eq!(rig.dependency().await["health"], "degraded");
    rig.operate("check").await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    assert_eq!(ready(&rig).await.1["status"], "ready");
    rig.finish().await;
}

#[tokio::test]
async fn item_38_without_a_fallback_a_sick_dependency_is_down_and_the_process_ready() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    rig.bench.fail_until_open().await;
    let (status, readiness) = ready(&rig).await;
    assert_eq!((status, &readiness["status"]), (200, &json!("degraded")));
    assert_eq!(readiness["dependencies"][0]["health"], "down");
    rig.finish().await;
}

#[tokio::test]
async fn ops_1_a_process_that_starts_or_ends_is_not_ready_but_lives() {
    let rig = Rig::start(|_| {}).await;
    for (phase, reason) in [
        (Phase::Starting, "starting"),
        (Phase::ShuttingDown, "shutting down"),
    ] {
        rig.admin.set_phase(phase);
        let (status, readiness) = ready(&rig).await;
        assert_eq!((status, &readiness["status"]), (503, &json!("unready")));
        assert_eq!(readiness["reasons"], json!([reason]));
        let live = rig.request(Method::GET, "/livez").send().await.unwrap();
        assert_eq!(live.status(), 200);
    }
    rig.admin.set_phase(Phase::Ready);
    assert_eq!(ready(&rig).await.0, 200);
    rig.finish().await;
}
