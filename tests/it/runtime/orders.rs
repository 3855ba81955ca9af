//! The order of events, and settings that a program has made itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox::{Client, Closures, EventKind, Runtime, RuntimeSettings, StartError};
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::{ChaosSettings, DependencySettings, QuotaReset, RateLimitSettings};

async fn started(runtime: &Runtime, name: &str) -> Client<Closures> {
    runtime.dependency(name).start().await.unwrap()
}

/// Waits until the listeners have heard the event of this number of settings.
async fn heard(ids: &Mutex<Vec<(u64, bool)>>, count: usize) -> Vec<(u64, bool)> {
    loop {
        let so_far = ids.lock().unwrap().clone();
        if so_far.len() >= count {
            return so_far;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn ops_1_l11_listeners_hear_events_in_order_and_the_last_one_holds() {
    // All of them may wait for the listener.
    const CHANGES: usize = 1_000;
    let tokio = tokio::runtime::Runtime::new().unwrap();
    tokio.block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let client = started(&runtime, "d").await;
        let ids = Arc::new(Mutex::new(Vec::new()));
        let heard_by = Arc::clone(&ids);
        runtime.on_event(move |event| {
            if let EventKind::Chaos { settings, .. } = &event.kind {
                heard_by
                    .lock()
                    .unwrap()
                    .push((event.id, settings.is_some()));
            }
        });
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                std::thread::spawn(move || {
                    for _ in 0..CHANGES / 2 {
                        client.set_chaos(None, "a");
                        client.set_chaos(Some(ChaosSettings::default()), "b");
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let all = heard(&ids, 4 * CHANGES).await;
        let reversed = all.windows(2).filter(|two| two[1].0 < two[0].0).count();
        assert_eq!((all.len(), reversed), (4 * CHANGES, 0));
        let holds = client.status().chaos.is_some();
        assert_eq!(all.last().unwrap().1, holds);
        runtime.shutdown().await;
    });
}

/// A listener that changes something itself: its event follows, for every listener.
#[test]
fn ops_1_l11_events_of_a_listener_follow_the_one_it_hears() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = started(&runtime, "d").await;
        let ids = Arc::new(Mutex::new(Vec::new()));
        let own = client.clone();
        runtime.on_event(move |event| {
            if matches!(&event.kind, EventKind::Chaos { by, .. } if by == "first") {
                own.set_chaos(None, "second");
            }
        });
        let heard_by = Arc::clone(&ids);
        runtime.on_event(move |event| heard_by.lock().unwrap().push(event.id));
        client.set_chaos(None, "first");
        let ids = ids.lock().unwrap().clone();
        assert_eq!(ids.len(), 2);
        assert!(ids.is_sorted(), "{ids:?}");
        runtime.finish().await;
    });
}

#[test]
fn cfg_1_l16_settings_from_code_are_judged_as_those_of_files() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let limit = |rate| {
            Some(RateLimitSettings {
                rate,
                per: Duration::from_secs(1),
                burst: std::num::NonZeroU32::MIN,
                max_wait: Duration::ZERO,
            })
        };
        for (rate, key) in [
            (f64::NAN, "rate_limit.rate is NaN"),
            (f64::INFINITY, "rate_limit.rate is inf"),
            (0.0, "rate_limit.rate is 0"),
            (-1.0, "rate_limit.rate is -1"),
        ] {
            let new = runtime.dependency("d").configure(|settings| {
                settings.rate_limit = limit(rate);
            });
            let error = new.start().await.unwrap_err();
            assert!(matches!(error, StartError::BadSetting { .. }), "{error}");
            let told = error.to_string();
            assert!(told.contains(key) && told.contains("must be"), "{told}");
        }
        // The name was never taken.
        let client = started(&runtime, "d").await;
        let mut settings = DependencySettings::clone(&client.settings());
        settings.throttle.quota_reset = QuotaReset::Daily {
            hour: 1,
            minute: 0,
            zone: "Mars/Olympus".to_owned(),
        };
        let error = client.reconfigure(settings, "a test").await.unwrap_err();
        assert!(error.to_string().contains("quota_reset.zone"), "{error}");
        let mut settings = DependencySettings::clone(&client.settings());
        settings.breaker.open.factor = f64::NAN;
        let error = client.reconfigure(settings, "a test").await.unwrap_err();
        let told = error.to_string();
        assert!(told.contains("breaker.recovery_backoff.factor"), "{told}");
        assert!((client.settings().breaker.open.factor - 1.0).abs() < f64::EPSILON);
        runtime.finish().await;
    });
}
