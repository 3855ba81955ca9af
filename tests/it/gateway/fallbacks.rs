//! Answers by fallbacks, and the headers that say so to the caller.

use std::sync::atomic::AtomicBool;

use breakerbox::{EventKind, Health};

use super::*;

/// An upstream with a switch: it answers with its text, or 500.
async fn switched() -> (Upstream, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&broken);
    let upstream = Upstream::of(move |request: Request| {
        let broken = seen.load(Ordering::SeqCst);
        async move {
            let who = request.headers().get("authorization");
            let who = who.map_or("nobody", |who| who.to_str().unwrap());
            let text = format!("{} for {who}", request.uri());
            let media = [("content-type", "text/plain"), ("x-kept", "1")];
            match (broken, request.uri().path()) {
                (true, _) => answer(500, "broken"),
                (_, "/private") => ([("cache-control", "No-Store")], text).into_response(),
                (_, "/by-agent") => ([("vary", "accept, user-agent")], text).into_response(),
                (_, "/long") => "x".repeat(2000).into_response(),
                (_, "/cookie") => ([("set-cookie", "id=1")], text).into_response(),
                _ => (media, text).into_response(),
            }
        }
    })
    .await;
    (upstream, broken)
}

#[tokio::test]
async fn fbk_3_a_stale_answer_says_so_and_is_its_caller_s_own() {
    let (upstream, broken) = switched().await;
    let text = "breaker = { failure_threshold = 100 }\n\
                fallback = [{ kind = \"stale_cache\", max_body = 1000 }]";
    let bed = Bed::new(&upstream.url(), text).await;
    let ask = |path: &str, who: &'static str| {
        let asked = bed.http.get(bed.url(path)).header("authorization", who);
        async { asked.send().await.unwrap() }
    };
    for path in [
        "/web/a?q=1",
        "/web/private",
        "/web/by-agent",
        "/web/long",
        "/web/cookie",
    ] {
        let response = ask(path, "ann").await;
        assert_eq!(header(&response, "breakerbox-source"), "primary");
        response.text().await.unwrap();
    }
    broken.store(true, Ordering::SeqCst);
    let kept = ask("/web/a?q=1", "ann").await;
    assert_eq!(kept.status(), 200);
    assert_eq!(header(&kept, "breakerbox-source"), "fallback:stale_cache");
    assert_eq!(header(&kept, "breakerbox-attempts"), "1");
    assert!(header(&kept, "age").parse::<u64>().unwrap() < 60);
    assert_eq!(header(&kept, "x-kept"), "1");
    assert_eq!(kept.text().await.unwrap(), "/a?q=1 for ann");
    let varied = ask("/web/by-agent", "ann").await;
    assert_eq!(header(&varied, "breakerbox-source"), "fallback:stale_cache");
    for (path, who) in [
        ("/web/a?q=1", "bob"),
        ("/web/a?q=2", "ann"),
        ("/web/private", "ann"),
        ("/web/cookie", "ann"),
        ("/web/long", "ann"),
    ] {
        let none = ask(path, who).await;
        assert_eq!(none.status(), 500, "{path} for {who}");
        assert_eq!(header(&none, "breakerbox-source"), "primary");
        assert_eq!(none.text().await.unwrap(), "broken");
    }
    bed.end().await;
}

#[tokio::test]
async fn item_39_a_write_is_never_answered_by_a_fallback() {
    let (upstream, broken) = switched().await;
    let text = "breaker = { failure_threshold = 1 }\n\
                fallback = [{ kind = \"fixed\", body = \"stored\" }]";
    let bed = Bed::new(&upstream.url(), text).await;
    broken.store(true, Ordering::SeqCst);
    let read = bed.get("/web/a").await;
    assert_eq!(header(&read, "breakerbox-source"), "fallback:fixed");
    assert_eq!(read.text().await.unwrap(), "stored");
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let method = method.parse().unwrap();
        let write = bed.http.request(method, bed.url("/web/a")).body("x");
        let refused = problem(write.send().await.unwrap(), 503, "breaker-open").await;
        assert_eq!(refused["executed"], "no");
    }
    assert_eq!(upstream.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn item_40_an_outage_is_told_once_and_is_never_healthy() {
    let (upstream, broken) = switched().await;
    let text = "fallback = [{ kind = \"fixed\", status = 203, body = \"{}\" }]";
    let bed = Bed::new(&upstream.url(), text).await;
    assert_eq!(bed.get("/web/a").await.status(), 200);
    assert_eq!(bed.status().health, Health::Ok);
    broken.store(true, Ordering::SeqCst);
    for _ in 0..100 {
        let response = bed.get("/web/a").await;
        assert_eq!(response.status(), 203);
        assert_eq!(header(&response, "content-type"), "application/json");
    }
    let status = bed.status();
    assert!(
        matches!(status.health, Health::Degraded { .. }),
        "{status:?}"
    );
    assert_eq!((status.totals.fallback, status.totals.failed), (100, 0));
    let events = bed.runtime.events_since(0);
    let told: Vec<_> = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::FallbackServing { .. }))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    bed.end().await;
}

#[tokio::test]
async fn item_41_without_a_fallback_the_error_reaches_the_caller() {
    let (upstream, broken) = switched().await;
    let bed = Bed::new(&upstream.url(), "").await;
    bed.get("/web/a").await.text().await.unwrap();
    broken.store(true, Ordering::SeqCst);
    let response = bed.get("/web/a").await;
    assert_eq!(
        (
            response.status().as_u16(),
            header(&response, "breakerbox-source")
        ),
        (500, "primary")
    );
    drop(upstream);
    problem(bed.get("/web/a").await, 502, "upstream-failed").await;
    bed.end().await;
}

#[tokio::test]
async fn item_42_fallback_only_never_calls() {
    let (upstream, _) = switched().await;
    let text = "fallback_only = true\nfallback = [{ kind = \"fixed\", body = '[\"mock\"]' }]";
    let bed = Bed::new(&upstream.url(), text).await;
    let response = bed.get("/web/a").await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "breakerbox-source"), "fallback:fixed");
    assert_eq!(header(&response, "breakerbox-attempts"), "0");
    assert_eq!(response.text().await.unwrap(), "[\"mock\"]");
    let write = problem(bed.post("/web/a", "x").await, 503, "unavailable").await;
    assert_eq!(write["executed"], "no");
    assert_eq!(upstream.hits(), 0);
    bed.end().await;
}

#[tokio::test]
async fn fbk_1_another_dependency_stands_in_under_its_own_breaker() {
    let (first, broken) = switched().await;
    let second = Upstream::of(async |request: Request| {
        let left = request.headers().contains_key("breakerbox-deadline-ms");
        format!("second {} {left}", request.uri())
    })
    .await;
    let text = format!(
        "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n\
         fallback = [{{ kind = \"dependency\", name = \"spare\" }}]\n\
         timeout.total = \"10s\"\n\
         [dependencies.spare]\nkind = \"http\"\nurl = \"{}/base\"\ntimeout.total = \"10s\"\n",
        first.url(),
        second.url()
    );
    let bed = Bed::of(&text).await;
    broken.store(true, Ordering::SeqCst);
    let response = bed.get("/web/a?b").await;
    assert_eq!(header(&response, "breakerbox-source"), "fallback:spare");
    assert_eq!(response.text().await.unwrap(), "second /base/a?b true");
    let spare = bed.runtime.status("spare").unwrap();
    assert_eq!(spare.totals.primary, 1);
    drop(second);
    let both = bed.get("/web/a?b").await;
    assert_eq!(
        both.status(),
        500,
        "the first one's own words are the nearest"
    );
    assert_eq!(both.text().await.unwrap(), "broken");
    bed.end().await;
}

#[tokio::test]
async fn on_narrows_when_a_fallback_serves() {
    let (upstream, broken) = switched().await;
    let text = "breaker = { failure_threshold = 2 }\n\
                fallback = [{ kind = \"fixed\", on = [\"refused\"], body = \"later\" }]";
    let bed = Bed::new(&upstream.url(), text).await;
    broken.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(bed.get("/web/a").await.status(), 500);
    }
    let refused = bed.get("/web/a").await;
    assert_eq!(header(&refused, "breakerbox-source"), "fallback:fixed");
    assert_eq!(refused.text().await.unwrap(), "later");
    bed.end().await;
}

#[tokio::test]
async fn when_all_are_down_one_attempt_goes_past_the_breaker() {
    let (upstream, broken) = switched().await;
    let text =
        "when_all_down = \"try\"\nbreaker = { failure_threshold = 1, recovery_timeout = \"1h\" }";
    let bed = Bed::new(&upstream.url(), text).await;
    broken.store(true, Ordering::SeqCst);
    assert_eq!(bed.get("/web/a").await.status(), 500);
    broken.store(false, Ordering::SeqCst);
    let tried = bed.get("/web/a").await;
    assert_eq!(header(&tried, "breakerbox-source"), "primary");
    assert_eq!(tried.text().await.unwrap(), "/a for nobody");
    assert_eq!(bed.status().totals.primary, 1);
    bed.end().await;
}

#[tokio::test]
async fn fbk_3_an_answer_of_a_fallback_of_a_gateway_beyond_is_told_as_one_and_not_kept() {
    let turn = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::of(move |_| {
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        async move {
            match turn {
                0 => ([("breakerbox-source", "primary")], "real").into_response(),
                1 => ([("breakerbox-source", "fallback:fixed")], "[]").into_response(),
                2 => ([("breakerbox-source", "gateway")], "/web/").into_response(),
                _ => answer(500, "broken"),
            }
        }
    })
    .await;
    let bed = Bed::new(&upstream.url(), "fallback = [{ kind = \"stale_cache\" }]").await;
    for (source, text) in [
        ("primary", "real"),
        ("fallback:fixed", "[]"),
        ("gateway", "/web/"),
    ] {
        let response = bed
            .get(if source == "gateway" {
                "/web/b"
            } else {
                "/web/a"
            })
            .await;
        assert_eq!(header(&response, "breakerbox-source"), source);
        assert_eq!(response.text().await.unwrap(), text);
    }
    let kept = bed.get("/web/a").await;
    assert_eq!(header(&kept, "breakerbox-source"), "fallback:stale_cache");
    assert_eq!(kept.text().await.unwrap(), "real");
    assert_eq!(bed.get("/web/b").await.status(), 500);
    bed.end().await;
}

#[tokio::test]
async fn edge_2_events_are_not_kept() {
    let turn = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::of(move |_| {
        let is_first = turn.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            match is_first {
                true => {
                    let media = [("content-type", "text/event-stream")];
                    (media, "id: 1\ndata: job 1 done\n\n").into_response()
                }
                false => answer(500, "broken"),
            }
        }
    })
    .await;
    let bed = Bed::new(&upstream.url(), "fallback = [{ kind = \"stale_cache\" }]").await;
    let response = bed.get("/web/events").await;
    assert!(response.text().await.unwrap().contains("job 1 done"));
    assert_eq!(bed.get("/web/events").await.status(), 500);
    bed.end().await;
}
