//! Item 85: a full dependency takes nothing from its neighbour.

use std::time::Duration;

use breakerbox_actors::testing::run_paused;
use breakerbox_actors::{CallError, Client};
use breakerbox_policy::{DependencySettings, Executed};
use futures_util::future::join_all;

use crate::scripted::{Asked, Bench, Dep, Do, let_others_run, ms, nonzero, start};

/// Makes ten calls at once; returns the result and the duration of each.
async fn ten_calls(client: &Client<Dep>, told: Do) -> Vec<(Asked, Duration)> {
    let calls = (0..10).map(|_| async {
        let began = tokio::time::Instant::now();
        (client.ask(told.clone()).await, began.elapsed())
    });
    join_all(calls).await
}

#[test]
fn item_85_two_run_one_waits_seven_are_refused_and_the_neighbour_does_not_notice() {
    run_paused(async || {
        let narrow = |settings: &mut DependencySettings| {
            settings.bulkhead.max_concurrent = nonzero(2);
            settings.bulkhead.max_queue = 1;
            settings.bulkhead.max_wait = ms(60_000);
            settings.timeout.attempt = None;
            settings.timeout.total = None;
        };
        let blocked = Bench::start(narrow).await;
        let healthy = start(
            &blocked.runtime,
            "healthy",
            &blocked.script,
            |_| {},
            Vec::new(),
        )
        .await;
        let quick = Do::Answer(1).after(20);
        let alone = ten_calls(&healthy, quick.clone()).await;

        let watch = async {
            let_others_run().await;
            let status = blocked.status();
            assert_eq!((status.in_flight, status.queued), (2, 1));
            assert_eq!(status.totals.refused, 7, "at once");
        };
        let (full, beside, ()) = tokio::join!(
            ten_calls(&blocked.client, Do::Answer(1).after(10_000)),
            ten_calls(&healthy, quick),
            watch,
        );
        let mut times = Vec::new();
        for (asked, after) in full {
            if let Err(error) = asked {
                assert!(matches!(error, CallError::Overloaded { .. }), "{error}");
                assert_eq!((error.executed(), after), (Executed::No, ms(0)));
            } else {
                times.push(after);
            }
        }
        assert_eq!(times, [ms(10_000), ms(10_000), ms(20_000)]);
        assert!(beside.iter().all(|(asked, _)| asked.is_ok()));
        let latencies = |calls: Vec<(Asked, Duration)>| -> Vec<Duration> {
            calls.into_iter().map(|(_, after)| after).collect()
        };
        assert_eq!(latencies(beside), latencies(alone));
        blocked.finish().await;
    });
}
