//! A worker that blocks its thread, in real time: its queued calls go to the next worker.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use breakerbox_actors::testing::ScriptedError;
use breakerbox_actors::{CallContext, Dependency, Runtime, RuntimeSettings};
use breakerbox_policy::Placement;

struct Blocking;

impl Dependency for Blocking {
    type Request = Duration;
    type Response = ();
    type Error = ScriptedError;

    async fn call(&self, block: Duration, _: &CallContext) -> Result<(), ScriptedError> {
        std::thread::sleep(block);
        Ok(())
    }
}

#[test]
fn sup_7_calls_behind_one_that_blocks_its_thread_go_to_the_next_worker() {
    actix::System::new().block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let client = runtime
            .dependency("d")
            .configure(|settings| {
                settings.workers.placement = Placement::Dedicated;
                settings.workers.stuck_after = Some(Duration::from_millis(100));
                settings.timeout.attempt = None;
                settings.timeout.total = None;
            })
            .workers(|| Blocking)
            .start()
            .await
            .unwrap();
        let began = runtime.clock().now();
        let stuck = client.ask(Duration::from_secs(3));
        let behind = async {
            let calls = (0..3).map(|_| client.ask(Duration::ZERO));
            let calls = futures_util::future::join_all(calls);
            let ended = tokio::time::timeout(Duration::from_secs(10), calls).await;
            for answer in ended.expect("they are not forgotten") {
                answer.unwrap();
            }
            assert!(
                runtime.clock().now().since(began) < Duration::from_secs(2),
                "they have waited for the stuck one"
            );
        };
        let (stuck, ()) = tokio::join!(stuck, behind);
        stuck.unwrap_err();
        runtime.shutdown().await;
    });
}
