//! BRK-12 and CALL-6: the number of a dependency's keys is bounded, and no key that matters is
//! evicted.

use std::num::NonZeroU32;
use std::time::Duration;

use breakerbox_actors::testing::run_paused;
use breakerbox_policy::{BreakerCommand, Class, DependencySettings, State};

use super::{Bench, Do, let_others_run, ms, nonzero, of, opens_after, pass};

const IDLE: Duration = Duration::from_secs(600);

fn at_most(entries: u32) -> impl Fn(&mut DependencySettings) {
    move |settings| {
        opens_after(2, ms(30_000))(settings);
        settings.keys.max_entries = nonzero(entries);
    }
}

impl Bench {
    fn keys(&self) -> Vec<String> {
        let keys = self.status().keys;
        keys.into_iter().map(|one| one.key).collect()
    }

    /// Makes a good call of each of these keys, a millisecond after the other.
    async fn use_all(&self, keys: &[&str]) {
        for key in keys {
            self.ask_of(key, Do::Answer(1)).await.unwrap();
            pass(1).await;
        }
    }
}

#[test]
fn call_6_the_key_that_was_idle_longest_makes_room() {
    run_paused(async || {
        let bench = Bench::start(at_most(3)).await;
        bench.use_all(&["a", "b", "c", "a", "d"]).await;
        assert_eq!(bench.keys(), ["a", "c", "d"]);
        bench.use_all(&["c", "e"]).await;
        assert_eq!(bench.keys(), ["c", "d", "e"]);
        bench.finish().await;
    });
}

#[test]
fn brk_12_who_refuses_or_was_set_is_not_forgotten() {
    run_paused(async || {
        let bench = Bench::start(at_most(3)).await;
        for _ in 0..2 {
            bench.ask_of("open", Do::Fail).await.unwrap_err();
        }
        bench.use_all(&["set"]).await;
        let (reason, until) = ("measure".to_owned(), None);
        let shadow = BreakerCommand::Shadow { reason, until };
        bench
            .client
            .operate_key("set", shadow)
            .await
            .unwrap()
            .unwrap();
        bench.use_all(&["x", "y", "z"]).await;
        assert_eq!(bench.keys(), ["open", "set", "z"]);
        // Its open time is over and no call has come since: a well one makes room before it.
        pass(30_000).await;
        assert_eq!(bench.state_of("open"), State::HalfOpen);
        bench.use_all(&["z", "last"]).await;
        assert_eq!(bench.keys(), ["last", "open", "set"]);
        bench.finish().await;
    });
}

#[test]
fn call_6_without_room_a_call_goes_by_the_dependencys_own_breaker() {
    run_paused(async || {
        let bench = Bench::start(at_most(2)).await;
        for key in ["a", "a", "b", "b"] {
            bench.ask_of(key, Do::Fail).await.unwrap_err();
        }
        bench.ask_of("c", Do::Answer(1)).await.unwrap();
        assert_eq!(bench.keys(), ["a", "b"]);
        assert_eq!(bench.status().tally.successes, 1);
        for _ in 0..2 {
            bench.ask_of("d", Do::Fail).await.unwrap_err();
        }
        assert_eq!(bench.state(), State::Open);
        assert_eq!(bench.refused_by("e").await.as_deref(), Some(""));
        bench.finish().await;
    });
}

#[test]
fn brk_12_a_key_with_a_call_in_flight_is_never_forgotten() {
    run_paused(async || {
        let bench = Bench::start(at_most(4)).await;
        bench.ask_of("busy", Do::Fail).await.unwrap_err();
        let blocked = bench.ask_of("busy", Do::Fail.after(900));
        let in_task = bench.client.run_with(
            of("in-task"),
            |_| Class::Failure.into(),
            async || {
                pass(900).await;
                Err::<(), _>("no")
            },
        );
        let others = async {
            for number in 0..500 {
                let key = format!("other-{number}");
                bench.ask_of(&key, Do::Answer(1)).await.unwrap();
                pass(1).await;
            }
        };
        let (ended, ran, ()) = tokio::join!(blocked, in_task, others);
        assert!(ended.is_err() && ran.is_err());
        assert_eq!(bench.state_of("busy"), State::Open, "the second in a row");
        assert_eq!(bench.key("in-task").unwrap().tally.failures, 1);
        assert_eq!(bench.refused_by("busy").await.as_deref(), Some("busy"));
        bench.finish().await;
    });
}

#[test]
fn call_6_idle_keys_are_forgotten_without_a_new_one() {
    run_paused(async || {
        let bench = Bench::start(at_most(100)).await;
        for _ in 0..2 {
            bench.ask_of("sick", Do::Fail).await.unwrap_err();
        }
        bench.use_all(&["a", "b"]).await;
        let used = bench.runtime.clock().now();
        for _ in 0..5 {
            pass(100_000).await;
            bench.use_all(&["b"]).await;
        }
        assert_eq!(
            bench.keys(),
            ["a", "b", "sick"],
            "no key was idle for so long"
        );
        for _ in 0..100 {
            if bench.keys().len() > 1 {
                pass(10_000).await;
                bench.use_all(&["b"]).await;
            }
        }
        let idle = bench.runtime.clock().now().since(used);
        assert!(
            idle >= IDLE && idle <= IDLE * 3 / 2 + ms(20_000),
            "{idle:?}"
        );
        assert_eq!(bench.keys(), ["b"]);
        pass(1_000_000).await;
        assert_eq!(bench.keys(), Vec::<String>::new());
        bench.finish().await;
    });
}

#[test]
fn call_6_a_call_that_took_long_has_used_its_key_until_it_ended() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            at_most(100)(settings);
            settings.keys.idle = ms(10_000);
            settings.timeout.attempt = None;
            settings.timeout.total = None;
        })
        .await;
        bench.ask_of("a", Do::Fail.after(60_000)).await.unwrap_err();
        pass(9_000).await;
        assert_eq!(bench.keys(), ["a"]);
        pass(10_000).await;
        assert_eq!(bench.keys(), Vec::<String>::new());
        bench.finish().await;
    });
}

#[test]
fn call_6_a_hundred_thousand_keys_take_no_more_room_than_the_cap() {
    run_paused(async || {
        let bench = Bench::start(|settings| {
            at_most(1_000)(settings);
            settings.breaker.failure_threshold = NonZeroU32::new(1);
            settings.breaker.open.base = ms(1);
        })
        .await;
        let fails = |bad: bool| async move { if bad { Err("no") } else { Ok(()) } };
        for number in 0..100_000_u32 {
            let options = of(&format!("key-{number}"));
            // Some of the breakers open, and their timers end with them.
            let bad = number % 50 == 0;
            let by_result = |result: &Result<(), &str>| match result {
                Ok(()) => Class::Success.into(),
                Err(_) => Class::Failure.into(),
            };
            let ran = bench.client.run_with(options, by_result, || fails(bad));
            assert_eq!(ran.await.is_err(), bad);
            if bad {
                pass(1).await;
            }
            if number % 10_000 == 9_999 {
                assert_eq!(bench.keys().len(), 1_000);
            }
        }
        let_others_run().await;
        let counted = bench.status().tally;
        assert_eq!(counted.failures, 0, "there was always room: {counted:?}");
        bench.finish().await;
    });
}
