//! Web search over Exa and Serper, which stand in for themselves: services of the test's own.

use std::sync::Arc;

use breakerbox::agents::fakes::{FakeFault, Operation};
use breakerbox::agents::{ExaSearch, Freshness, SerperSearch, WebProvider, WebQuery};
use breakerbox::config::Secret;
use serde_json::{Value, json};

use super::{Rig, run, service_error};

const SECRET: &str = "k3y-Zq81xK-7r";

fn exa(rig: &Rig) -> ExaSearch {
    ExaSearch::new(Secret::new(SECRET)).at(format!("{}/exa", rig.fakes.base()))
}

fn serper(rig: &Rig) -> Arc<dyn WebProvider> {
    let base = format!("{}/serper", rig.fakes.base());
    Arc::new(SerperSearch::new(Secret::new(SECRET)).at(base))
}

fn with_options() -> WebQuery {
    let query = WebQuery::new("breakers", 2);
    query
        .freshness(Freshness::Week)
        .country("DE")
        .domain("example.org")
}

fn exa_results() -> Value {
    json!({ "requestId": "1", "results": [{ "id": "https://a.org/1", "title": "One",
        "url": "https://a.org/1", "publishedDate": "2026-11-01T00:00:00.000Z", "score": 0.25,
        "highlights": ["breakers open", "after failures"] }, { "url": "https://a.org/2",
        "title": null, "text": "x".repeat(400) }] })
}

#[test]
fn agents_exa_answers_with_excerpts_or_with_the_text_of_pages() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        rig.fakes.serve("/exa", |_| (200, exa_results()));
        let web = rig.web(vec![Arc::new(exa(&rig))]).await;
        let found = web.search_with(with_options()).await.unwrap().value;
        let (first, second) = (&found[0], &found[1]);
        assert_eq!((&*first.source, &*first.title), ("web_exa", "One"));
        assert_eq!(first.snippet, "breakers open … after failures");
        assert_eq!(first.score, Some(0.25));
        assert_eq!(first.published.as_deref(), Some("2026-11-01T00:00:00.000Z"));
        assert_eq!((&*second.title, second.snippet.len()), ("", 300));
        assert_eq!(second.content.as_ref().map(String::len), Some(400));
        let asked = &rig.fakes.seen(Operation::Own)[0];
        assert_eq!(asked.target, "/exa/search");
        assert_eq!(asked.headers["x-api-key"], SECRET);
        let mut body = asked.body.clone();
        let since = body.as_object_mut().unwrap().remove("startPublishedDate");
        let since: jiff::Timestamp = since.unwrap().as_str().unwrap().parse().unwrap();
        let age = jiff::Timestamp::now().duration_since(since).as_secs();
        assert!((604_800..608_400).contains(&age), "{age} seconds");
        assert_eq!(
            body,
            json!({ "query": "breakers", "numResults": 2, "contents": { "highlights": true },
                "userLocation": "DE", "includeDomains": ["example.org"] })
        );
        rig.finish().await;

        let rig = Rig::start(|_| {}).await;
        rig.fakes.serve("/exa", |_| (200, exa_results()));
        let web = rig.web(vec![Arc::new(exa(&rig).with_content())]).await;
        web.search("breakers", 2).await.unwrap();
        let asked = &rig.fakes.seen(Operation::Own)[0];
        assert_eq!(asked.body["contents"], json!({ "text": true }));
        rig.finish().await;
    });
}

#[test]
fn agents_serper_answers_with_no_more_than_was_asked_for() {
    run(async || {
        let rig = Rig::start(|_| {}).await;
        rig.fakes.serve("/serper", |seen| {
            let page = |number: u8| {
                json!({ "title": "Page", "snippet": "of breakers",
                "link": format!("https://a.org/{number}"), "date": "Nov 1, 2026" })
            };
            let mut body = json!({ "searchParameters": { "q": seen.body["q"] }, "credits": 1 });
            if seen.body["q"] != "nothing" {
                body["organic"] = json!([page(1), page(2), page(3)]);
            }
            (200, body)
        });
        let web = rig.web(vec![serper(&rig)]).await;
        let found = web.search_with(with_options()).await.unwrap().value;
        assert_eq!(found.len(), 2);
        let second = &found[1];
        assert_eq!(
            (&*second.source, &*second.url),
            ("web_serper", "https://a.org/2")
        );
        assert_eq!(second.published.as_deref(), Some("Nov 1, 2026"));
        let asked = &rig.fakes.seen(Operation::Own)[0];
        assert_eq!(asked.headers["x-api-key"], SECRET);
        assert_eq!(
            asked.body,
            json!({ "q": "breakers site:example.org", "num": 2, "tbs": "qdr:w", "gl": "de" })
        );
        let none = web.search("nothing", 2).await.unwrap().value;
        assert!(none.is_empty(), "{none:?}");
        rig.finish().await;
    });
}

/// Searches once with an answer of this status and body. Returns the error.
async fn refused(
    service: &'static str,
    status: u16,
    body: Value,
) -> breakerbox::agents::ServiceError {
    let rig = Rig::start(|_| {}).await;
    let answer = body.clone();
    rig.fakes.serve("/", move |_| (status, answer.clone()));
    let provider: Arc<dyn WebProvider> = match service {
        "exa" => Arc::new(exa(&rig)),
        _ => serper(&rig),
    };
    let web = rig.web(vec![provider]).await;
    let error = service_error(web.search("breakers", 2).await.unwrap_err());
    rig.finish().await;
    error
}

#[test]
fn agents_exa_and_serper_tell_what_is_used_up_from_what_is_refused() {
    run(async || {
        let error = |tag: &str| json!({ "requestId": "1", "error": "no.", "tag": tag });
        let used_up = refused("exa", 402, error("NO_MORE_CREDITS")).await;
        assert!(used_up.verdict().quota_used_up, "{used_up}");
        assert_eq!(used_up.to_string(), "it answered 402: no.");
        let wrong = refused("exa", 401, error("INVALID_API_KEY")).await;
        assert!(wrong.is_misconfigured(), "{wrong}");
        let text = refused("exa", 403, error("PROHIBITED_CONTENT")).await;
        assert!(!text.is_misconfigured(), "{text}");
        let feature = refused("exa", 403, error("FEATURE_DISABLED")).await;
        assert!(feature.is_misconfigured(), "{feature}");

        let error = |words: &str| json!({ "message": words, "statusCode": 400 });
        let used_up = refused("serper", 400, error("Not enough credits")).await;
        assert!(used_up.verdict().quota_used_up, "{used_up}");
        let text = refused("serper", 400, error("Missing query parameter")).await;
        assert!(!text.verdict().quota_used_up, "{text}");
        let wrong = refused("serper", 403, error("Unauthorized.")).await;
        assert!(wrong.is_misconfigured(), "{wrong}");
        let foreign = refused("serper", 200, json!({ "ok": true })).await;
        assert!(
            foreign.to_string().starts_with("its response is invalid"),
            "{foreign}"
        );
    });
}

#[test]
fn agents_the_keys_of_exa_and_serper_are_not_to_be_seen() {
    run(async || {
        for status in [400, 401, 402, 429, 500] {
            let rig = Rig::start(|_| {}).await;
            rig.fakes.serve("/", |_| (200, Value::Null));
            let web = rig.web(vec![Arc::new(exa(&rig)), serper(&rig)]).await;
            rig.fakes.set(Operation::Own, Some(FakeFault::Echo(status)));
            let error = web.search("breakers", 3).await.unwrap_err();
            let shown = format!("{error} {error:?} {web:?}");
            let mut parts = (0..=SECRET.len() - 5).map(|at| &SECRET[at..at + 5]);
            assert!(!parts.any(|part| shown.contains(part)), "{status}: {shown}");
            rig.finish().await;
        }
    });
}
