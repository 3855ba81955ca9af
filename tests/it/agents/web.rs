//! Items 56 to 61 and 63: web search, its quotas and throttles, and its fallbacks.

use std::future::ready;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::agents::{
    AgentError, CustomSearch, Hit, ServiceError, WebPort, WebProvider, WebQuery, WebSearch,
};
use breakerbox::config::Secret;
use breakerbox::{CallContext, CallError, Clock, Limit, RuntimeSettings, Verdict};
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_policy::{DependencySettings, Executed, PauseReason, QuotaReset, State};
use futures_util::future::{BoxFuture, join_all};

use super::{ENGINE, KEY, Rig, jump, run, service_error};
use crate::log::Log;
use crate::scripted::nonzero;

const HOUR: Duration = Duration::from_secs(3600);

async fn google_alone(configure: impl Fn(&mut DependencySettings)) -> (Rig, WebSearch) {
    let rig = Rig::start(configure).await;
    let web = rig.web(vec![rig.google()]).await;
    (rig, web)
}

fn opens_at_once(settings: &mut DependencySettings) {
    settings.breaker.failure_threshold = Some(nonzero(1));
}

/// Returns the reason and the remaining time of the pause that an error reports.
fn pause(error: &AgentError) -> (PauseReason, Duration) {
    match error.call() {
        Some(CallError::RateLimited {
            limit: Limit::Pause(reason),
            retry_after: Some(wait),
            ..
        }) => (*reason, *wait),
        _ => panic!("another end: {error}"),
    }
}

#[test]
fn item_56_more_than_ten_results_are_ten_and_a_warning_and_none_is_refused() {
    run(async || {
        let log = Log::capture();
        let (rig, web) = google_alone(|_| {}).await;
        let found = web.search("breakers & actors", 50).await.unwrap();
        assert_eq!(found.value.len(), 2);
        let target = &rig.fakes.seen(Operation::CustomSearch)[0].target;
        assert!(
            target.ends_with("&cx=engine-1&q=breakers%20%26%20actors&num=10"),
            "{target}"
        );
        assert_eq!(log.lines("50 web results were requested").len(), 1);
        // The type excludes negative numbers.
        let error = web.search("breakers", 0).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the number of results: given 0, allowed 1 to 10"
        );
        let error = web.search(" ", 3).await.unwrap_err();
        assert!(matches!(error, AgentError::Invalid(_)));
        assert_eq!(rig.fakes.calls(Operation::CustomSearch), 1);
        rig.finish().await;
    });
}

#[test]
fn item_57_an_answer_without_items_found_nothing() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let web = rig.web(vec![rig.google(), rig.brave()]).await;
        let found = web.search("zebras", 3).await.unwrap();
        assert!(found.is_primary() && found.value.is_empty());
        assert_eq!(rig.fakes.calls(Operation::Brave), 0, "it is an answer");
        rig.fakes
            .set(Operation::CustomSearch, Some(FakeFault::internal()));
        let found = web.search("zebras", 3).await.unwrap();
        assert_eq!(found.source.to_string(), "fallback:web_brave");
        assert!(found.value.is_empty());
        let google = rig.status("web_google");
        assert_eq!((google.counts.success, google.counts.failure), (1, 1));
        rig.finish().await;
    });
}

#[test]
fn item_58_what_is_no_answer_is_never_an_empty_success() {
    run(async || {
        for operation in [Operation::CustomSearch, Operation::Brave] {
            for fault in [
                FakeFault::internal(),
                FakeFault::Html(502),
                FakeFault::Malformed,
                FakeFault::OtherShape,
                FakeFault::CutOff,
                FakeFault::Hang,
            ] {
                let rig = Rig::start(|settings| {
                    settings.timeout.attempt = Some(Duration::from_millis(100));
                })
                .await;
                let brave = operation == Operation::Brave;
                let provider = if brave { rig.brave() } else { rig.google() };
                let web = rig.web(vec![provider]).await;
                rig.fakes.set(operation, Some(fault.clone()));
                let error = web.search("breakers", 3).await.unwrap_err();
                let call = error.call().unwrap();
                assert!(!call.is_refusal(), "{operation:?} {fault:?}: {error}");
                let name = &web.names()[0];
                assert_eq!(
                    rig.status(name).counts.failure,
                    1,
                    "{operation:?} {fault:?}"
                );
                rig.fakes.set(operation, None);
                web.search("breakers", 3).await.unwrap();
                // From here on the cache serves the last good answer, and says so.
                rig.fakes.set(operation, Some(fault));
                let found = web.search("breakers", 3).await.unwrap();
                assert_eq!(found.source.to_string(), "fallback:stale_cache");
                assert_eq!(found.value.len(), 1);
                rig.finish().await;
            }
        }
    });
}

#[test]
fn item_59_a_used_up_quota_is_left_alone_until_midnight_in_california() {
    run(async || {
        for quota in [FakeFault::QuotaOfTheDay, FakeFault::QuotaOfTheDayOlder] {
            let rig = Rig::start(opens_at_once).await;
            let web = rig.web(vec![rig.google(), rig.brave()]).await;
            rig.fakes.set(Operation::CustomSearch, Some(quota));
            let asked = |rig: &Rig| rig.fakes.calls(Operation::CustomSearch);
            for _ in 0..12 {
                let found = web.search("breakers", 3).await.unwrap();
                assert_eq!(found.source.to_string(), "fallback:web_brave");
                let status = rig.status("web_google");
                assert_eq!(
                    status.paused.map(|(reason, _)| reason),
                    Some(PauseReason::QuotaUsedUp)
                );
                jump(HOUR - Duration::from_secs(1)).await;
            }
            assert_eq!(asked(&rig), 1, "zero further calls");
            let status = rig.status("web_google");
            assert_eq!((status.state, status.window.failures), (State::Closed, 0));
            assert!(status.paused.is_some(), "some seconds before midnight");
            rig.fakes.set(Operation::CustomSearch, None);
            jump(Duration::from_secs(12)).await;
            assert!(web.search("breakers", 3).await.unwrap().is_primary());
            assert_eq!(asked(&rig), 2);
            rig.finish().await;
        }
    });
}

#[test]
fn item_60_nobody_asks_before_the_larger_one_of_the_hints_is_over() {
    run(async || {
        for (retry_after, retry_info) in
            [(Some(7), Some(3500)), (None, Some(7000)), (Some(7), None)]
        {
            let (rig, web) = google_alone(opens_at_once).await;
            let throttled = FakeFault::Throttled {
                retry_after,
                retry_info: retry_info.map(Duration::from_millis),
            };
            rig.fakes.once(Operation::CustomSearch, throttled);
            let error = service_error(web.search("breakers", 3).await.unwrap_err());
            assert_eq!(error.verdict().retry_after, Some(Duration::from_secs(7)));
            for wait in [0, 3_600, 3_300] {
                jump(Duration::from_millis(wait)).await;
                let all = join_all((0..20).map(|_| web.search("breakers", 3))).await;
                for end in all {
                    let (reason, _) = pause(&end.unwrap_err());
                    assert_eq!(reason, PauseReason::Throttled);
                }
            }
            assert_eq!(rig.fakes.calls(Operation::CustomSearch), 1);
            // Jitter is added to the hint.
            jump(Duration::from_millis(301)).await;
            assert!(web.search("breakers", 3).await.unwrap().is_primary());
            assert_eq!(rig.status("web_google").state, State::Closed);
            rig.finish().await;
        }
    });
}

#[test]
fn item_61_without_a_hint_the_pauses_grow_and_hold_for_all() {
    run(async || {
        let (rig, web) = google_alone(opens_at_once).await;
        let throttled = FakeFault::Throttled {
            retry_after: None,
            retry_info: None,
        };
        rig.fakes.set(Operation::CustomSearch, Some(throttled));
        for (number, least) in [(1, 1), (2, 2), (3, 4)] {
            service_error(web.search("breakers", 3).await.unwrap_err());
            let all = join_all((0..20).map(|_| web.search("breakers", 3))).await;
            let waits: Vec<Duration> = all
                .iter()
                .map(|end| pause(end.as_ref().unwrap_err()).1)
                .collect();
            let longest = *waits.iter().max().unwrap();
            let least = Duration::from_secs(least);
            assert!(longest > least - Duration::from_millis(200), "{longest:?}");
            assert!(longest <= least + least / 4, "{longest:?}");
            assert_eq!(rig.fakes.calls(Operation::CustomSearch), number);
            jump(longest + Duration::from_millis(5)).await;
        }
        rig.fakes.set(Operation::CustomSearch, None);
        assert!(web.search("breakers", 3).await.unwrap().is_primary());
        assert_eq!(rig.status("web_google").state, State::Closed);
        rig.finish().await;
    });
}

#[test]
fn item_63_the_second_provider_answers_at_once_and_the_first_is_taken_back() {
    run(async || {
        let rig = Rig::start(opens_at_once).await;
        let web = rig.web(vec![rig.google(), rig.brave()]).await;
        let found = web.search("breakers", 3).await.unwrap();
        assert_eq!(
            (found.is_primary(), &*found.value[0].source),
            (true, "web_google")
        );
        assert_eq!(found.value[0].url, "https://example.org/breakers");
        let faults = [
            FakeFault::internal(),
            FakeFault::Throttled {
                retry_after: Some(30),
                retry_info: None,
            },
        ];
        for fault in faults {
            rig.fakes.once(Operation::CustomSearch, fault);
            let before = rig.fakes.calls(Operation::CustomSearch);
            for _ in 0..5 {
                let found = web.search("breakers", 3).await.unwrap();
                assert_eq!(found.source.to_string(), "fallback:web_brave");
                assert_eq!(found.value[0].source, "web_brave");
                assert!(
                    found.elapsed < Duration::from_secs(1),
                    "{:?}",
                    found.elapsed
                );
            }
            assert_eq!(rig.fakes.calls(Operation::CustomSearch), before + 1);
            jump(Duration::from_secs(40)).await;
            let found = web.search("breakers", 3).await.unwrap();
            assert!(found.is_primary(), "taken back");
            assert_eq!(found.value[0].source, "web_google");
        }
        let key = &rig.fakes.seen(Operation::Brave)[0].headers["x-subscription-token"];
        assert_eq!(key, super::BRAVE_KEY);
        rig.finish().await;
    });
}

#[test]
fn a_search_without_providers_does_not_start() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let error = WebSearch::start(&rig.runtime, Vec::new())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no provider"), "{error}");
        let twice = vec![rig.google(), Arc::clone(&rig.google())];
        let error = WebSearch::start(&rig.runtime, twice).await.unwrap_err();
        assert!(error.to_string().contains("already running"), "{error}");
        rig.finish().await;
    });
}

/// Custom provider that returns prepared answers, without a network request.
struct Told {
    answers: Mutex<Vec<Result<Vec<Hit>, ServiceError>>>,
    asked: Arc<AtomicU32>,
}

impl WebProvider for Told {
    fn name(&self) -> &'static str {
        "web_own"
    }

    fn search<'a>(
        &'a self,
        _: &'a WebQuery,
        _: &'a WebPort,
        _: &'a CallContext,
    ) -> BoxFuture<'a, Result<Vec<Hit>, ServiceError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let next = self.answers.lock().unwrap().pop();
        Box::pin(ready(next.unwrap_or_else(|| Ok(Vec::new()))))
    }

    fn quota_reset(&self) -> Option<QuotaReset> {
        Some(QuotaReset::Daily {
            hour: 0,
            minute: 0,
            zone: "America/Los_Angeles".to_owned(),
        })
    }
}

#[test]
fn item_59_a_provider_of_ones_own_is_parked_by_the_same_word() {
    run_paused(async || {
        let runtime = TestRuntime::with(RuntimeSettings {
            clock: Some(Clock::tokio_at(super::NOON.parse().unwrap())),
            ..RuntimeSettings::default()
        })
        .await;
        let asked = Arc::new(AtomicU32::new(0));
        let used_up = ServiceError::new(Verdict::quota_used_up(), "come back tomorrow");
        let told = Told {
            answers: Mutex::new(vec![Err(used_up)]),
            asked: Arc::clone(&asked),
        };
        let web = WebSearch::start(&runtime, vec![Arc::new(told)])
            .await
            .unwrap();
        let error = service_error(web.search("breakers", 3).await.unwrap_err());
        assert_eq!(error.to_string(), "come back tomorrow");
        for hours in (1..=12).rev() {
            let (reason, wait) = pause(&web.search("breakers", 3).await.unwrap_err());
            assert_eq!(reason, PauseReason::QuotaUsedUp);
            assert_eq!(wait, HOUR * hours, "until midnight in California");
            tokio::time::sleep(HOUR).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1, "zero further calls");
        assert!(web.search("breakers", 3).await.unwrap().is_primary());
        runtime.finish().await;
    });
}

/// No connection to the service: no query was executed, so another one may be sent at once.
#[test]
fn call_2_a_service_without_a_listener_has_executed_nothing() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let google = CustomSearch::new(Secret::new(KEY), ENGINE).at(&closed);
        let web = rig.web(vec![Arc::new(google)]).await;
        let error = web.search("breakers", 3).await.unwrap_err();
        let call = error.call().unwrap();
        assert_eq!(call.executed(), Executed::No, "{error}");
        rig.finish().await;
    });
}
