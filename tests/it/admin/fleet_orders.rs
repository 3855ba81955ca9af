//! Operators' orders for a whole fleet, on virtual time.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use breakerbox::admin::Admin;
use breakerbox::config::{FleetConfig, Settings};
use breakerbox::fleet::{Fleet, ScriptedBoard};
use breakerbox::{CallContext, Dependency};
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::{DependencySettings, GiveUp, Intensity, RetryJitter};
use serde_json::Value;
use tower::ServiceExt as _;

use super::TOKEN;

/// A dependency whose worker never starts.
struct Unlicensed;

impl Dependency for Unlicensed {
    type Request = ();
    type Response = ();
    type Error = Infallible;

    async fn call(&self, (): (), _: &CallContext) -> Result<(), Infallible> {
        Ok(())
    }
}

#[test]
fn flt_12_a_close_is_answered_in_time_though_the_board_hangs_and_no_worker_runs() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let loader = Settings::loader().bare().flag("admin.token", TOKEN);
        let settings = loader.load().unwrap();
        let board = ScriptedBoard::default();
        let config = FleetConfig::new("nats://unused");
        let fleet = Fleet::start_scripted(&runtime, (&board, 0), &config, &settings).await;
        let admin = Admin::new((*runtime).clone(), &settings);
        admin.show_fleet(fleet.unwrap());
        let park = |settings: &mut DependencySettings| {
            settings.workers.give_up = GiveUp::Park;
            settings.workers.backoff.jitter = RetryJitter::None;
            settings.workers.intensity = Intensity {
                max: 2,
                within: Duration::from_secs(30),
            };
        };
        let dependency = runtime.dependency("d").configure(park);
        let client = dependency.workers(|| Err::<Unlicensed, _>("no licence"));
        let client = client.background_start().start().await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(client.status().parked);
        board.hold_answers(true);
        let order = Request::post("/api/dependencies/d/close")
            .header("host", "localhost")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Body::from("{\"reason\":\"a test\"}"))
            .unwrap();
        let begun = runtime.clock().now();
        let answered = tokio::time::timeout(
            // The command waits no longer for an answer.
            Duration::from_secs(10),
            admin.router().oneshot(order),
        );
        let answer = answered.await.expect("in time").unwrap();
        assert_eq!(answer.status(), 200);
        let took = runtime.clock().now().since(begun);
        assert!(took < Duration::from_secs(6), "{took:?}");
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let note = body["note"].as_str().unwrap();
        assert!(note.contains("none runs yet"), "{note}");
        assert!(note.contains("the board of the fleet"), "{note}");
        runtime.finish().await;
    });
}
