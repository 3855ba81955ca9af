//! Web search with options and over each of its providers, and the end of Google's.

use std::sync::Arc;

use breakerbox::agents::fakes::{FakeFault, FakeRequest, Operation};
use breakerbox::agents::{
    AgentError, CustomSearch, Freshness, SearxngSearch, TavilySearch, WebProvider, WebQuery,
    WebSearch, WebStartError,
};
use breakerbox::config::Secret;
use breakerbox::{Clock, RuntimeSettings};
use breakerbox_actors::testing::TestRuntime;
use serde_json::json;

use super::{ENGINE, KEY, Rig, run, service_error};
use crate::log::Log;

const TAVILY_KEY: &str = "tvly-Zq81xK-7r";

fn tavily(rig: &Rig) -> TavilySearch {
    TavilySearch::new(Secret::new(TAVILY_KEY)).at(rig.fakes.base())
}

fn with_options(text: &str) -> WebQuery {
    let query = WebQuery::new(text, 3);
    query
        .freshness(Freshness::Week)
        .country("DE")
        .domain("example.org")
}

/// Returns the parameters of a request's query, in their order.
fn parameters(seen: &FakeRequest) -> Vec<&str> {
    let (_, query) = seen.target.split_once('?').unwrap();
    query.split('&').collect()
}

#[test]
fn agents_searxng_and_tavily_answer_with_what_they_know_of_a_page() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let searxng: Arc<dyn WebProvider> = Arc::new(SearxngSearch::new(rig.fakes.base()));
        let whole = Arc::new(tavily(&rig).with_content());
        let web = rig.web(vec![searxng, whole]).await;
        let found = web.search_with(with_options("breakers")).await.unwrap();
        let first = &found.value[0];
        assert_eq!((&*first.source, first.score), ("web_searxng", Some(1.5)));
        assert_eq!(first.published.as_deref(), Some("2026-11-01T00:00:00"));
        assert_eq!(first.content, None);
        let asked = &rig.fakes.seen(Operation::Searxng)[0];
        let text = "q=breakers%20site%3Aexample.org";
        assert_eq!(parameters(asked), [text, "format=json", "time_range=week"]);

        rig.fakes
            .set(Operation::Searxng, Some(FakeFault::internal()));
        let found = web.search_with(with_options("breakers")).await.unwrap();
        assert_eq!(found.source.to_string(), "fallback:web_tavily");
        let first = &found.value[0];
        assert_eq!((&*first.source, first.score), ("web_tavily", Some(0.9)));
        let content = "# circuit breakers open after failures in a row";
        assert_eq!(first.content.as_deref(), Some(content));
        let asked = &rig.fakes.seen(Operation::Tavily)[0];
        assert_eq!(
            asked.headers["authorization"],
            format!("Bearer {TAVILY_KEY}")
        );
        assert_eq!(
            asked.body,
            json!({ "query": "breakers", "max_results": 3, "time_range": "week",
                "country": "germany", "include_domains": ["example.org"],
                "include_raw_content": "markdown" })
        );
        rig.finish().await;
    });
}

#[test]
fn agents_the_key_of_tavily_is_not_to_be_seen() {
    run(async || {
        for status in [400, 401, 429, 432, 500] {
            let rig = Rig::start(|_| {}).await;
            let web = rig.web(vec![Arc::new(tavily(&rig))]).await;
            rig.fakes
                .set(Operation::Tavily, Some(FakeFault::Echo(status)));
            let error = web.search("breakers", 3).await.unwrap_err();
            let shown = format!("{error} {error:?} {web:?}");
            let mut parts = (0..=TAVILY_KEY.len() - 5).map(|at| &TAVILY_KEY[at..at + 5]);
            assert!(!parts.any(|part| shown.contains(part)), "{status}: {shown}");
            rig.finish().await;
        }
    });
}

#[test]
fn agents_google_and_brave_take_the_same_options() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let web = rig.web(vec![rig.google(), rig.brave()]).await;
        web.search_with(with_options("breakers")).await.unwrap();
        let asked = &rig.fakes.seen(Operation::CustomSearch)[0];
        let text = "q=breakers%20site%3Aexample.org";
        assert_eq!(
            parameters(asked)[2..],
            [text, "num=3", "dateRestrict=w1", "gl=de"]
        );
        rig.fakes
            .set(Operation::CustomSearch, Some(FakeFault::internal()));
        web.search_with(with_options("breakers")).await.unwrap();
        let asked = &rig.fakes.seen(Operation::Brave)[0];
        assert_eq!(
            parameters(asked),
            [text, "count=3", "freshness=pw", "country=DE"]
        );
        let error = web
            .search_with(WebQuery::new("a", 3).country("Germany"))
            .await;
        assert!(matches!(error, Err(AgentError::Invalid(_))), "{error:?}");
        rig.finish().await;
    });
}

#[test]
fn agents_an_instance_without_json_or_without_engines_found_nothing_is_no_answer() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        let web = rig
            .web(vec![Arc::new(SearxngSearch::new(rig.fakes.base()))])
            .await;
        rig.fakes.once(Operation::Searxng, FakeFault::Html(403));
        let error = service_error(web.search("breakers", 3).await.unwrap_err());
        assert!(error.is_misconfigured(), "{error}");
        rig.finish().await;

        let rig = Rig::start(|_| {}).await;
        rig.fakes.serve("/search", |_| {
            (
                200,
                json!({ "results": [], "unresponsive_engines": [["google", "timeout"]] }),
            )
        });
        let web = rig
            .web(vec![Arc::new(SearxngSearch::new(rig.fakes.base()))])
            .await;
        let error = service_error(web.search("breakers", 3).await.unwrap_err());
        assert_eq!(error.to_string(), "none of its engines answered");
        assert_eq!(rig.status("web_searxng").counts.failure, 1);
        rig.finish().await;
    });
}

#[test]
fn agents_a_plan_that_is_used_up_is_left_alone() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        rig.fakes.serve("/search", |_| {
            let words = "This request exceeds your plan's set usage limit.";
            (432, json!({ "detail": { "error": words } }))
        });
        let web = rig.web(vec![Arc::new(tavily(&rig))]).await;
        let error = service_error(web.search("breakers", 3).await.unwrap_err());
        assert!(error.verdict().quota_used_up, "{error}");
        assert!(
            error
                .to_string()
                .starts_with("it answered 432: This request exceeds"),
            "{error}"
        );
        web.search("breakers", 3).await.unwrap_err();
        assert_eq!(rig.fakes.calls(Operation::Own), 1);
        rig.finish().await;
    });
}

async fn at(now: &str, providers: Vec<Arc<dyn WebProvider>>) -> Result<Vec<String>, WebStartError> {
    let runtime = TestRuntime::with(RuntimeSettings {
        clock: Some(Clock::tokio_at(now.parse().unwrap())),
        ..RuntimeSettings::default()
    });
    let runtime = runtime.await;
    let started = WebSearch::start(&runtime, providers).await;
    let names = started.map(|web| web.names().iter().map(ToString::to_string).collect());
    runtime.finish().await;
    names
}

#[test]
fn agents_googles_search_warns_of_its_end_and_is_left_out_after_it() {
    run(async || {
        let log = Log::capture();
        let google =
            || -> Arc<dyn WebProvider> { Arc::new(CustomSearch::new(Secret::new(KEY), ENGINE)) };
        let searxng =
            || -> Arc<dyn WebProvider> { Arc::new(SearxngSearch::new("http://127.0.0.1:1")) };
        let before = at("2026-12-31T23:00:00Z", vec![google(), searxng()]).await;
        assert_eq!(before.unwrap(), ["web_google", "web_searxng"]);
        assert_eq!(log.lines("its service ends on 2027-01-01").len(), 1);
        let after = at("2027-01-01T00:00:00Z", vec![google(), searxng()]).await;
        assert_eq!(after.unwrap(), ["web_searxng"]);
        assert_eq!(
            log.lines("its service ended on 2027-01-01; it is left out")
                .len(),
            1
        );
        let alone = at("2027-01-01T00:00:00Z", vec![google()])
            .await
            .unwrap_err();
        assert_eq!(
            alone.to_string(),
            "web search was given providers that have ended: web_google on 2027-01-01"
        );
    });
}
