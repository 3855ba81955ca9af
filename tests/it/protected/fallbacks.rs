//! Fallbacks of functions under the attribute, by the rules of all fallbacks (FBK-1 to FBK-3).

use std::future::pending;

use breakerbox::protected;
use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{CallError, EventKind, Health};
use breakerbox_policy::{Class, Executed};

use super::start;
use crate::scripted::{ms, opens_after, pass};

#[protected("dep", fallback = local, classify = by_text)]
async fn search(query: &str, limit: usize) -> Result<Vec<String>, String> {
    match query {
        "down" | "" => Err("the index is down".to_owned()),
        "wrong" => Err("your fault".to_owned()),
        found => Ok(vec![found.to_owned(); limit]),
    }
}

async fn local(query: &str, limit: usize, why: &CallError<String>) -> Result<Vec<String>, String> {
    if query.is_empty() {
        return Err("nothing to look for".to_owned());
    }
    Ok(vec![format!("{query}, since {why}"); limit])
}

fn by_text(result: &Result<Vec<String>, String>) -> Class {
    match result {
        Ok(_) => Class::Success,
        Err(text) if text == "your fault" => Class::Rejected,
        Err(_) => Class::Failure,
    }
}

#[test]
fn fbk_2_the_attributes_fallback_serves_refusals_and_failures() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", opens_after(1, ms(60_000))).await;
        let _here = runtime.enter();
        assert_eq!(search("a", 1).await, Ok(vec!["a".to_owned()]));
        let answer = search("down", 1).await.unwrap();
        assert_eq!(answer, ["down, since dep failed: the index is down"]);
        let answer = search("a", 1).await.unwrap();
        assert!(answer[0].starts_with("a, since the breaker of dep is open"));
        let health = client.status().health;
        assert!(matches!(health, Health::Degraded { .. }), "{health}");
        pass(60_000).await;
        assert_eq!(search("a", 2).await.unwrap(), ["a", "a"]);
        let totals = client.status().totals;
        assert_eq!((totals.primary, totals.fallback), (2, 2));
        assert_eq!((totals.refused, totals.failed), (0, 0));
        assert_eq!(client.status().health, Health::Ok);
        let events = runtime.events_since(0);
        let told = |wanted: fn(&EventKind) -> bool| {
            events.iter().filter(|event| wanted(&event.kind)).count()
        };
        let serving = |kind: &EventKind| matches!(kind, EventKind::FallbackServing { fallback, .. } if &**fallback == "local");
        assert_eq!(told(serving), 1, "one warning for an outage");
        assert_eq!(
            told(|kind| matches!(kind, EventKind::FallbackOver { served: 2 })),
            1
        );
        runtime.finish().await;
    });
}

#[test]
fn fbk_2_the_attributes_fallback_covers_up_no_mistake_of_the_callers() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", |_| {}).await;
        let _here = runtime.enter();
        let error = search("wrong", 1).await.unwrap_err();
        assert_eq!(error.into_failed(), Some("your fault".to_owned()));
        assert_eq!(client.status().totals.failed, 1);
        runtime.finish().await;
    });
}

#[test]
fn the_attributes_fallback_that_fails_is_told_with_the_cause() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let client = start(&runtime, "dep", |_| {}).await;
        let _here = runtime.enter();
        let error = search("", 1).await.unwrap_err();
        let expected = CallError::FallbackFailed {
            dependency: "dep".into(),
            fallback: "local".into(),
            message: "nothing to look for".to_owned(),
            executed: Executed::Maybe,
            executed_by_fallbacks: Executed::Maybe,
            cause: Box::new(CallError::Failed {
                dependency: "dep".into(),
                error: "the index is down".to_owned(),
                executed: Executed::Maybe,
            }),
        };
        assert_eq!(error, expected);
        assert_eq!(error.executed(), Executed::Maybe);
        assert_eq!(client.status().totals.failed, 1);
        runtime.finish().await;
    });
}

#[protected("dep", timeout = "2s", fallback = |millis| async move {
    pass(millis).await;
    Ok::<_, String>("the fallback")
})]
async fn hangs(_millis: u64) -> Result<&'static str, String> {
    pending().await
}

#[test]
fn the_attributes_fallback_has_the_time_of_an_attempt_after_the_timeout() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let short = |settings: &mut breakerbox_policy::DependencySettings| {
            settings.timeout.attempt = Some(ms(3_000));
        };
        let _client = start(&runtime, "dep", short).await;
        let around = start_around(&runtime).await;
        let _here = runtime.enter();
        let before = runtime.clock().now();
        assert_eq!(hangs(2_999).await, Ok("the fallback"));
        assert_eq!(runtime.clock().now().since(before), ms(4_999));
        let error = hangs(3_001).await.unwrap_err();
        let CallError::FallbackFailed { message, cause, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(message, "it took too long");
        assert!(matches!(*cause, CallError::TimedOut { .. }));
        // The enclosing call has a limit of three seconds.
        let before = runtime.clock().now();
        let error = around.run(async || hangs(2_000).await).await.unwrap_err();
        assert_eq!(runtime.clock().now().since(before), ms(3_000));
        let CallError::FallbackFailed { message, .. } = error.into_failed().unwrap() else {
            panic!("another error");
        };
        assert_eq!(message, "the call's own time was over before it answered");
        runtime.finish().await;
    });
}

async fn start_around(
    runtime: &TestRuntime,
) -> breakerbox_actors::Client<breakerbox_actors::Closures> {
    start(runtime, "around", |settings| {
        settings.timeout.attempt = Some(ms(3_000));
        settings.timeout.total = Some(ms(3_000));
    })
    .await
}

struct Library {
    shelf: &'static str,
}

impl Library {
    #[protected("dep", fallback = Self::kept)]
    async fn book(&self, title: &str) -> Result<String, String> {
        Err(format!("no {title}"))
    }

    async fn kept(&self, title: &str) -> Result<String, String> {
        Ok(format!("{title} on {}", self.shelf))
    }

    #[protected("dep", fallback = |title, why| async move {
        let missing = matches!(why, CallError::Failed { .. });
        Ok::<_, String>(format!("{title} on {}, {missing}", self.shelf))
    })]
    async fn scroll(&self, title: &str) -> Result<String, String> {
        Err(format!("no {title}"))
    }

    #[protected("dep", fallback = offline)]
    async fn index() -> Result<String, String> {
        Err("burnt".to_owned())
    }

    #[protected("dep", fallback = async |title: String| Ok::<_, String>(title))]
    async fn letter(title: String) -> Result<String, String> {
        Err(title)
    }
}

async fn offline() -> Result<String, std::convert::Infallible> {
    Ok("from memory".to_owned())
}

#[test]
fn the_attributes_fallback_may_be_a_method_or_a_closure() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let _client = start(&runtime, "dep", |_| {}).await;
        let _here = runtime.enter();
        let library = Library { shelf: "a shelf" };
        assert_eq!(library.book("b").await.unwrap(), "b on a shelf");
        assert_eq!(library.scroll("s").await.unwrap(), "s on a shelf, true");
        assert_eq!(Library::index().await.unwrap(), "from memory");
        assert_eq!(Library::letter("l".to_owned()).await.unwrap(), "l");
        runtime.finish().await;
    });
}

#[test]
fn a_dependency_that_answers_from_fallbacks_only_has_those_of_the_attribute() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let only = |settings: &mut breakerbox_policy::DependencySettings| {
            settings.fallback_only = true;
        };
        let client = start(&runtime, "dep", only).await;
        let _here = runtime.enter();
        let answer = search("a", 1).await.unwrap();
        assert_eq!(
            answer,
            ["a, since dep was not called: it answers from its fallbacks only"]
        );
        assert_eq!(client.status().totals.fallback, 1);
        runtime.finish().await;
    });
}
