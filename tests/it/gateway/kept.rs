//! Whose answer a kept one is (rule EDGE-2): which answers are kept, and to which requests they are
//! served while the dependency is down.

use std::sync::atomic::AtomicU16;

use axum::http::{HeaderName, HeaderValue, Method, StatusCode};

use super::*;

/// A request, the head of its answer, a later request, and whether that one is served.
type KeptCase = (&'static str, &'static str, &'static str, bool);

/// Lines of headers; the first word of a request may be its method.
const CASES: &[KeptCase] = &[
    // Requests.
    ("", "", "", true),
    ("x-api-key: a", "", "x-api-key: a", true),
    ("x-api-key: a", "", "x-api-key: b", false),
    ("x-api-key: a", "", "", false),
    ("", "", "x-api-key: a", false),
    ("authorization: a", "", "authorization: a", true),
    ("authorization: a", "", "authorization: b", false),
    (
        "authorization: a",
        "cache-control: public",
        "authorization: b",
        false,
    ),
    (
        "proxy-authorization: a",
        "",
        "proxy-authorization: b",
        false,
    ),
    ("proxy-authorization: a", "", "proxy-authorization: a", true),
    ("cookie: id=a", "", "cookie: id=b", false),
    ("cookie: a=1\ncookie: b=2", "", "cookie: a=1; b=2", true),
    ("x-vault-token: a", "", "x-vault-token: b", false),
    (
        "ocp-apim-subscription-key: a",
        "",
        "ocp-apim-subscription-key: b",
        false,
    ),
    (
        "x-goog-iap-jwt-assertion: a",
        "",
        "x-goog-iap-jwt-assertion: b",
        false,
    ),
    ("remote-user: a", "", "remote-user: b", false),
    ("x-tenant-id: a", "", "x-tenant-id: b", false),
    (
        "x-of-no-known-name: 0123456789abcdef",
        "",
        "x-of-no-known-name: 0123456789abcdeg",
        false,
    ),
    ("x-page: 1", "", "x-page: 2", false),
    ("x-page: 1", "", "x-page: 1", true),
    ("x-scope-orgid: acme", "", "x-scope-orgid: globex", false),
    ("x-original-url: /a", "", "x-original-url: /b", false),
    (
        "x-ssl-client-s-dn: CN=a",
        "",
        "x-ssl-client-s-dn: CN=b",
        false,
    ),
    ("x-sid: 17", "", "x-sid: 18", false),
    ("x-sid: 17", "", "x-sid: 17", true),
    ("x-page: 1", "vary: x-page", "x-page: 2", false),
    ("breakerbox-key: a", "", "breakerbox-key: b", false),
    ("breakerbox-key: a", "", "breakerbox-key: a", true),
    ("idempotency-key: a", "", "idempotency-key: b", false),
    (
        "x-forwarded-for: 10.0.0.1",
        "",
        "x-forwarded-for: 10.0.0.2",
        false,
    ),
    (
        "forwarded: for=10.0.0.1",
        "",
        "forwarded: for=10.0.0.2",
        false,
    ),
    (
        "x-forwarded-email: a@x",
        "",
        "x-forwarded-email: b@x",
        false,
    ),
    ("x-real-ip: 10.0.0.1", "", "x-real-ip: 10.0.0.2", false),
    (
        "connection: x-secret\nx-secret: a",
        "",
        "connection: x-secret\nx-secret: b",
        false,
    ),
    ("host: 127.0.0.2", "", "host: 127.0.0.3", false),
    ("accept: text/plain", "", "accept: text/html", false),
    ("user-agent: a", "", "user-agent: b", true),
    (
        "traceparent: 1\nx-request-id: 1",
        "",
        "traceparent: 2\nx-request-id: 2",
        true,
    ),
    (
        "breakerbox-priority: low",
        "",
        "breakerbox-priority: high",
        true,
    ),
    ("HEAD", "", "", false),
    ("HEAD", "", "HEAD", true),
    ("", "", "HEAD", false),
    ("OPTIONS", "", "OPTIONS", false),
    ("POST", "", "POST", false),
    ("range: bytes=0-1", "", "range: bytes=0-1", false),
    ("", "", "range: bytes=0-1", false),
    ("if-match: \"1\"", "", "if-match: \"1\"", false),
    (
        "x-http-method-override: DELETE",
        "",
        "x-http-method-override: DELETE",
        false,
    ),
    ("cache-control: no-store", "", "", false),
    ("", "", "cache-control: no-store", false),
    ("cache-control: no-cache", "", "", true),
    ("", "", "cache-control: no-cache", false),
    ("", "", "pragma: no-cache", false),
    ("", "", "cache-control: max-age=0", false),
    ("", "", "cache-control: max-age=3600", true),
    (
        "",
        "cache-control: max-age=0",
        "cache-control: max-stale=3600",
        true,
    ),
    (
        "",
        "cache-control: max-age=0",
        "cache-control: max-stale=0",
        false,
    ),
    (
        "",
        "cache-control: max-age=60",
        "cache-control: min-fresh=10",
        true,
    ),
    (
        "",
        "cache-control: max-age=60",
        "cache-control: min-fresh=100",
        false,
    ),
    ("", "", "cache-control: only-if-cached", true),
    // Responses.
    ("", "cache-control: max-age=600", "", true),
    ("", "cache-control: max-age=0", "", true),
    ("", "cache-control: public, immutable", "", true),
    ("", "cache-control: No-Store", "", false),
    ("", "cache-control: private, max-age=600", "", false),
    ("", "cache-control: private=\"x-a, x-b\"", "", false),
    ("", "cache-control: no-cache", "", false),
    ("", "cache-control: no-cache=\"x-a\"", "", false),
    (
        "",
        "cache-control: max-age=0\ncache-control: must-revalidate",
        "",
        false,
    ),
    ("", "cache-control: proxy-revalidate", "", false),
    ("", "cache-control: s-maxage=600", "", false),
    ("", "cache-control: must-understand, no-store", "", false),
    ("", "pragma: no-cache", "", false),
    ("", "cdn-cache-control: no-store", "", false),
    ("", "set-cookie: id=1", "", false),
    ("", "authentication-info: nextnonce=1", "", false),
    ("", "x-csrf-token: 1", "", false),
    ("", "expires: 0", "", true),
    ("", "cache-control: max-age=0, stale-if-error=0", "", false),
    ("", "cache-control: max-age=0, stale-if-error=600", "", true),
    ("", "age: 700\ncache-control: stale-if-error=600", "", false),
    ("", "vary: *", "", false),
    ("", "vary: not a name", "", false),
    (
        "user-agent: a",
        "vary: accept, User-Agent",
        "user-agent: a",
        true,
    ),
    (
        "user-agent: a",
        "vary: accept, User-Agent",
        "user-agent: b",
        false,
    ),
    ("", "x-status: 203", "", false),
    ("", "x-status: 404", "", false),
    ("", "x-status: 302\nlocation: /", "", false),
];

fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(": "))
}

fn method(text: &str) -> Method {
    let word = text.lines().next().unwrap_or_default();
    let is_method = !word.is_empty() && !word.contains(':');
    Method::from_bytes(if is_method { word } else { "GET" }.as_bytes()).unwrap()
}

/// An upstream that answers by the case in the path, or with an error of this status.
async fn scripted(broken: &Arc<AtomicU16>) -> Upstream {
    let broken = Arc::clone(broken);
    Upstream::of(move |request: Request| {
        let status = broken.load(Ordering::SeqCst);
        let number: usize = request.uri().path()[1..].parse().unwrap_or(0);
        async move {
            if status != 0 {
                return answer(status, "down");
            }
            let mut response = format!("kept {number}").into_response();
            for (name, value) in lines(CASES[number].1) {
                if name == "x-status" {
                    *response.status_mut() = StatusCode::from_bytes(value.as_bytes()).unwrap();
                    continue;
                }
                let name = HeaderName::try_from(name).unwrap();
                response
                    .headers_mut()
                    .append(name, HeaderValue::try_from(value).unwrap());
            }
            response
        }
    })
    .await
}

async fn ask(bed: &Bed, path: &str, asked: &str) -> reqwest::Response {
    let mut request = bed.http.request(method(asked), bed.url(path));
    for (name, value) in lines(asked) {
        request = request.header(name, value);
    }
    request.send().await.unwrap()
}

const CACHE: &str =
    "breaker = { failure_threshold = 1000 }\nfallback = [{ kind = \"stale_cache\" }]";

#[tokio::test]
async fn edge_2_e2a_a_kept_answer_reaches_only_requests_that_it_was_meant_for() {
    let broken = Arc::new(AtomicU16::new(0));
    let upstream = scripted(&broken).await;
    let bed = Bed::new(&upstream.url(), CACHE).await;
    let redirects = reqwest::redirect::Policy::none();
    let http = reqwest::Client::builder().no_proxy().redirect(redirects);
    let bed = Bed {
        http: http.build().unwrap(),
        ..bed
    };
    for (number, (asked, ..)) in CASES.iter().enumerate() {
        let first = ask(&bed, &format!("/web/{number}"), asked).await;
        assert_eq!(header(&first, "breakerbox-source"), "primary", "{asked}");
        first.bytes().await.unwrap();
    }
    broken.store(503, Ordering::SeqCst);
    for (number, (asked, said, later, serves)) in CASES.iter().enumerate() {
        let case = format!("{asked:?} got {said:?}; then {later:?}");
        let second = ask(&bed, &format!("/web/{number}"), later).await;
        let is_kept = header(&second, "breakerbox-source") == "fallback:stale_cache";
        let is_right = second.status() == if *serves { 200 } else { 503 };
        let text = second.text().await.unwrap();
        assert_eq!(is_kept, *serves, "{case}: {text}");
        assert!(is_right, "{case}");
        if *serves && method(later) == Method::GET {
            assert_eq!(text, format!("kept {number}"), "{case}");
        }
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_2_e2b_a_search_never_gets_the_hits_of_another() {
    let broken = Arc::new(AtomicU16::new(0));
    let upstream = scripted(&broken).await;
    let text = format!("idempotent = [\"GET\"]\n{CACHE}");
    for text in [CACHE, &text] {
        broken.store(0, Ordering::SeqCst);
        let bed = Bed::new(&upstream.url(), text).await;
        let search = |body: &'static str| {
            let request = bed.http.get(bed.url("/web/0")).body(body);
            async { request.send().await.unwrap() }
        };
        search("cats").await.bytes().await.unwrap();
        broken.store(503, Ordering::SeqCst);
        for body in ["dogs", "cats", ""] {
            assert_eq!(search(body).await.status(), 503, "{body}");
        }
        bed.end().await;
    }
}

#[tokio::test]
async fn edge_2_e2d_an_answer_about_the_caller_is_never_covered() {
    let broken = Arc::new(AtomicU16::new(0));
    let upstream = scripted(&broken).await;
    let text = "breaker = { failure_threshold = 1000 }\n\
                classify = { failure = [\"5xx\", \"4xx\", 401, 403, 407], rejected = [], misconfigured = [] }\n\
                fallback = [{ kind = \"stale_cache\" }, { kind = \"fixed\", body = \"fixed\" }]";
    let bed = Bed::new(&upstream.url(), text).await;
    for status in [400, 401, 402, 403, 407, 409, 422, 451] {
        broken.store(0, Ordering::SeqCst);
        bed.get("/web/0").await.bytes().await.unwrap();
        broken.store(status, Ordering::SeqCst);
        let passed = bed.get("/web/0").await;
        assert_eq!(passed.status(), status);
        assert_eq!(header(&passed, "breakerbox-source"), "primary");
        // What was taken back does not come again in the next outage.
        broken.store(503, Ordering::SeqCst);
        let later = bed.get("/web/0").await;
        assert_eq!(
            header(&later, "breakerbox-source"),
            "fallback:fixed",
            "{status}"
        );
    }
    for status in [500, 502, 503, 504, 404, 429] {
        broken.store(0, Ordering::SeqCst);
        bed.get("/web/0").await.bytes().await.unwrap();
        broken.store(status, Ordering::SeqCst);
        let covered = bed.get("/web/0").await;
        assert_eq!(
            header(&covered, "breakerbox-source"),
            "fallback:stale_cache",
            "{status}"
        );
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_2_e2d_by_default_a_revoked_credential_is_told() {
    let broken = Arc::new(AtomicU16::new(0));
    let upstream = scripted(&broken).await;
    let bed = Bed::new(&upstream.url(), CACHE).await;
    for status in [401, 403, 407] {
        broken.store(0, Ordering::SeqCst);
        ask(&bed, "/web/0", "authorization: a")
            .await
            .bytes()
            .await
            .unwrap();
        broken.store(status, Ordering::SeqCst);
        assert_eq!(
            ask(&bed, "/web/0", "authorization: a").await.status(),
            status
        );
        broken.store(503, Ordering::SeqCst);
        assert_eq!(ask(&bed, "/web/0", "authorization: a").await.status(), 503);
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_2_e2c_the_age_of_a_stale_answer_counts_from_its_origin() {
    let upstream = Upstream::of(async |request: Request| {
        if request.headers().contains_key("x-b3-flags") {
            return answer(503, "down");
        }
        ([("age", "120")], "kept").into_response()
    })
    .await;
    let bed = Bed::new(&upstream.url(), CACHE).await;
    bed.get("/web/0").await.bytes().await.unwrap();
    let stale = ask(&bed, "/web/0", "x-b3-flags: 1").await;
    let age: u64 = header(&stale, "age").parse().unwrap();
    assert!((120..180).contains(&age), "{age}");
    assert_eq!(stale.headers().get_all("age").iter().count(), 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_2_e2c_a_write_takes_back_what_was_kept_of_its_target() {
    let broken = Arc::new(AtomicU16::new(0));
    let upstream = scripted(&broken).await;
    let bed = Bed::new(&upstream.url(), CACHE).await;
    for path in ["/web/0", "/web/1"] {
        bed.get(path).await.bytes().await.unwrap();
    }
    bed.post("/web/0", "x").await.bytes().await.unwrap();
    broken.store(503, Ordering::SeqCst);
    assert_eq!(bed.get("/web/0").await.status(), 503);
    assert_eq!(bed.get("/web/1").await.status(), 200);
    bed.end().await;
}

#[tokio::test]
async fn edge_2_e2a_variants_of_a_target_are_kept_beside_each_other() {
    let upstream = Upstream::of(async |request: Request| {
        if request.headers().contains_key("x-b3-flags") {
            return answer(503, "down");
        }
        let agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
        ([("vary", "user-agent")], agent).into_response()
    })
    .await;
    let bed = Bed::new(&upstream.url(), CACHE).await;
    for agent in ["user-agent: a", "user-agent: b"] {
        ask(&bed, "/web/0", agent).await.bytes().await.unwrap();
    }
    for (agent, text) in [("a", "a"), ("b", "b"), ("c", "down")] {
        let asked = format!("x-b3-flags: 1\nuser-agent: {agent}");
        let got = ask(&bed, "/web/0", &asked).await;
        assert_eq!(got.text().await.unwrap(), text);
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_2_e2a_headers_are_added_and_taken_out_by_name() {
    let broken = Arc::new(AtomicU16::new(0));
    let upstream = scripted(&broken).await;
    let text = "breaker = { failure_threshold = 1000 }\n\
                fallback = [{ kind = \"stale_cache\", headers = [\"user-agent\", \"!x-api-key\"] }]";
    let bed = Bed::new(&upstream.url(), text).await;
    let private = CASES
        .iter()
        .position(|(_, said, ..)| said.starts_with("cache-control: private"));
    let private = format!("/web/{}", private.unwrap());
    let first = "user-agent: a\nx-api-key: 1\nauthorization: a";
    for path in ["/web/0", &private] {
        ask(&bed, path, first).await.bytes().await.unwrap();
    }
    broken.store(503, Ordering::SeqCst);
    for (asked, status) in [
        ("user-agent: a\nx-api-key: 2\nauthorization: a", 200),
        ("user-agent: b\nx-api-key: 1\nauthorization: a", 503),
        ("user-agent: a\nx-api-key: 1\nauthorization: b", 503),
    ] {
        assert_eq!(ask(&bed, "/web/0", asked).await.status(), status, "{asked}");
    }
    assert_eq!(ask(&bed, &private, first).await.status(), 503);
    bed.end().await;
}

#[tokio::test]
async fn edge_2_e2c_obey_false_keeps_what_is_forbidden_but_for_its_caller_only() {
    let broken = Arc::new(AtomicU16::new(0));
    let upstream = scripted(&broken).await;
    let text = "breaker = { failure_threshold = 1000 }\n\
                fallback = [{ kind = \"stale_cache\", obey = false, headers = [\"!x-team\"] }]";
    let bed = Bed::new(&upstream.url(), text).await;
    let forbidden = |word: &str| {
        let found = CASES.iter().position(|(_, said, ..)| said.contains(word));
        format!("/web/{}", found.unwrap())
    };
    let cases = [
        (
            forbidden("No-Store"),
            "authorization: a",
            "authorization: a",
            true,
        ),
        (
            forbidden("private,"),
            "authorization: a",
            "authorization: a",
            true,
        ),
        (
            forbidden("must-revalidate"),
            "authorization: a",
            "authorization: b",
            false,
        ),
        (forbidden("set-cookie"), "", "", true),
        (forbidden("s-maxage"), "", "cache-control: no-cache", true),
        (
            forbidden("proxy-revalidate"),
            "cache-control: no-store",
            "",
            false,
        ),
        (forbidden("private="), "x-team: a", "x-team: a", false),
        (forbidden("vary: *"), "", "", false),
    ];
    for (path, asked, ..) in &cases {
        ask(&bed, path, asked).await.bytes().await.unwrap();
    }
    broken.store(503, Ordering::SeqCst);
    for (path, asked, later, serves) in &cases {
        let got = ask(&bed, path, later).await;
        let status = if *serves { 200 } else { 503 };
        assert_eq!(got.status(), status, "{path} {asked:?} {later:?}");
        assert_eq!(header(&got, "set-cookie"), "");
    }
    bed.end().await;
}

#[tokio::test]
async fn edge_4_e6d_a_cache_is_bounded_by_all_its_bytes() {
    let upstream = Upstream::of(async |request: Request| {
        if request.headers().contains_key("x-b3-flags") {
            return answer(503, "down");
        }
        ([("x-long", "x".repeat(10_000))], "short").into_response()
    })
    .await;
    let text = "breaker = { failure_threshold = 1000 }\n\
                fallback = [{ kind = \"stale_cache\", max_bytes = \"100KB\", max_body = \"1KB\" }]";
    let bed = Bed::new(&upstream.url(), text).await;
    for number in 0..40 {
        bed.get(&format!("/web/{number}"))
            .await
            .bytes()
            .await
            .unwrap();
    }
    let mut kept = 0;
    for number in 0..40 {
        let got = ask(&bed, &format!("/web/{number}"), "x-b3-flags: 1").await;
        kept += usize::from(got.status() == 200);
    }
    assert!((1..10).contains(&kept), "{kept} heads of 10 KB in 100 KB");
    bed.end().await;
}

#[tokio::test]
async fn edge_2_f3_what_was_kept_for_one_token_is_not_given_to_another() {
    let broken = Arc::new(AtomicU16::new(0));
    let upstream = scripted(&broken).await;
    let (one, other) = ("a".repeat(20), "b".repeat(20));
    let auth = format!("auth = {{ tokens = [\"{one}\", \"{other}\"] }}\n{CACHE}");
    let bed = Bed::new(&upstream.url(), &auth).await;
    let ask = async |token: &str| {
        let request = bed.http.get(bed.url("/web/0")).bearer_auth(token);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        response.bytes().await.unwrap();
        status
    };
    assert_eq!(ask(&one).await, 200);
    broken.store(503, Ordering::SeqCst);
    assert_eq!(ask(&other).await, 503);
    assert_eq!(ask(&one).await, 200, "its own is served");
    bed.end().await;
}
