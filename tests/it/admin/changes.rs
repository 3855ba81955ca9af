//! Changes: permission, validation, and the record of each.

use std::net::TcpListener;

use breakerbox::admin::{Admin, ServeError, ServerLimits};
use breakerbox::config::Settings;
use reqwest::Method;
use serde_json::json;

use super::{Rig, TOKEN};
use crate::scripted::{Do, ms, opens_after};

const OPEN: &str = "/api/dependencies/dep/open";

#[tokio::test]
async fn item_101_a_change_needs_the_token_and_says_so() {
    let rig = Rig::start(|_| {}).await;
    let order = json!({ "reason": "a drill" });
    let unsigned = || rig.request(Method::POST, OPEN).json(&order);
    let wrong = [
        unsigned(),
        unsigned().bearer_auth("another token"),
        unsigned().bearer_auth(&TOKEN[..TOKEN.len() - 1]),
        unsigned().bearer_auth(format!("{TOKEN}x")),
        unsigned().basic_auth("admin", Some(TOKEN)),
        unsigned().header("authorization", TOKEN),
    ];
    for request in wrong {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(
            response.headers()["www-authenticate"],
            "Bearer realm=\"breakerbox\""
        );
        let text = response.text().await.unwrap();
        assert!(!text.contains(TOKEN) && text.contains("urn:breakerbox:unauthorized"));
    }
    assert_eq!(rig.bench.status().overridden, None);
    let done = rig.order(OPEN, &order).send().await.unwrap();
    assert_eq!(done.status(), 200);
    rig.bench
        .ask(Do::Answer(1))
        .await
        .expect_err("it is forced open");
    rig.finish().await;
}

#[tokio::test]
async fn sec_1_without_a_token_nothing_can_be_changed() {
    let rig = Rig::with(|_| {}, Vec::new(), None, ServerLimits::default()).await;
    let order = json!({ "reason": "a drill" });
    for token in ["", TOKEN] {
        let request = rig
            .request(Method::POST, OPEN)
            .bearer_auth(token)
            .json(&order);
        let (status, problem) = rig.problem(request).await;
        assert_eq!(
            (status, &problem["type"]),
            (403, &json!("urn:breakerbox:no-token"))
        );
    }
    rig.finish().await;
}

#[tokio::test]
async fn item_101_every_change_is_kept_on_record_with_who_and_why() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    rig.bench.fail_until_open().await;
    for operation in [
        "check", "open", "disable", "shadow", "close", "reset", "restart",
    ] {
        let before = rig.get("/api/events").await["last_id"].as_u64().unwrap();
        rig.operate(operation).await;
        let events = rig
            .get(&format!("/api/events?since={before}&kind=operated"))
            .await;
        let event = &events["events"][0];
        let command = if operation == "check" {
            "probe"
        } else {
            operation
        };
        assert_eq!(event["details"]["command"], command);
        assert_eq!(event["details"]["by"], "token holder at 127.0.0.1");
        assert_eq!(event["details"]["reason"], "a test");
        assert_eq!(event["dependency"], "dep");
    }
    // A refused command changes nothing and is not an event.
    let before = rig.get("/api/events").await["last_id"].clone();
    let order = rig.order("/api/dependencies/dep/check", &json!({ "reason": "now" }));
    let (status, problem) = rig.problem(order).await;
    assert_eq!(
        (status, &problem["type"]),
        (409, &json!("urn:breakerbox:illegal-transition"))
    );
    assert_eq!(rig.get("/api/events").await["last_id"], before);
    rig.finish().await;
}

#[tokio::test]
async fn brk_10_an_order_shows_with_its_reason_and_its_end() {
    let rig = Rig::start(|_| {}).await;
    let order = json!({ "reason": "a drill", "for_ms": 600_000 });
    rig.order(OPEN, &order).send().await.unwrap();
    let one = rig.dependency().await;
    assert_eq!(
        (&one["state"], &one["health"]),
        (&json!("closed"), &json!("down"))
    );
    let over = &one["override"];
    assert_eq!(
        (&over["mode"], &over["by"]),
        (&json!("forced_open"), &json!("operator"))
    );
    assert_eq!(over["reason"], "a drill");
    assert!(over["until"].is_string());
    let closed = rig.operate("close").await;
    assert_eq!(closed["dependency"]["override"], json!(null));
    rig.finish().await;
}

#[tokio::test]
async fn an_order_that_does_not_last_says_that_its_span_means_nothing() {
    let rig = Rig::start(|_| {}).await;
    let order = json!({ "reason": "r", "for_ms": 5 });
    for (operation, lasts) in [("close", false), ("reset", false), ("shadow", true)] {
        let path = format!("/api/dependencies/dep/{operation}");
        let answer = rig.order(&path, &order).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let done: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(done["note"].is_null(), lasts, "{operation}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn hlt_1_a_close_of_a_sick_dependency_says_that_it_proves_nothing() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    for operation in ["close", "reset"] {
        assert!(rig.operate(operation).await["note"].is_null(), "it is well");
        rig.bench.fail_until_open().await;
        let closed = rig.operate(operation).await;
        let note = closed["note"].as_str().unwrap();
        assert!(note.contains("only the next calls tell"), "{note}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn the_type_that_a_body_declares_does_not_matter() {
    let rig = Rig::start(|_| {}).await;
    let plain = rig.request(Method::POST, OPEN).bearer_auth(TOKEN);
    let plain = plain
        .header("content-type", "application/x-www-form-urlencoded")
        .body("{\"reason\":\"r\"}");
    assert_eq!(plain.send().await.unwrap().status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn sec_1_a_change_that_cannot_be_read_says_what_is_allowed() {
    let rig = Rig::start(|_| {}).await;
    let json = |body: &str| {
        let request = rig.request(Method::POST, OPEN).bearer_auth(TOKEN);
        request
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    let long = format!("{{\"reason\":\"{}\"}}", "x".repeat(501));
    let cases = [
        ("", "(line 1, column 0)"),
        ("{", "is not JSON"),
        ("[]", "not an object"),
        ("{}", "needs a reason"),
        ("{\"reason\":\"  \"}", "needs a reason"),
        ("{\"reason\":7}", "needs a reason"),
        (&long, "needs a reason"),
        ("{\"reason\":\"r\",\"for\":1}", "unknown field"),
        ("{\"reason\":\"r\",\"for_ms\":0}", "for_ms is out of range"),
        ("{\"reason\":\"r\",\"for_ms\":-5}", "for_ms is out of range"),
        (
            "{\"reason\":\"r\",\"for_ms\":1.5}",
            "for_ms is out of range",
        ),
        (
            "{\"reason\":\"r\",\"for_ms\":99999999999999}",
            "for_ms is out of range",
        ),
    ];
    for (body, words) in cases {
        let (status, problem) = rig.problem(json(body)).await;
        assert_eq!((status, &problem["status"]), (400, &json!(400)), "{body}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{body}: {detail}");
        assert!(problem["allowed"].is_string(), "{body}");
    }
    let (status, problem) = rig.problem(json(&"x".repeat(10_000))).await;
    assert_eq!(
        (status, &problem["allowed"]),
        (413, &json!("at most 4096 bytes"))
    );
    let unknown = rig.order("/api/dependencies/dep/explode", &json!({ "reason": "r" }));
    let (status, problem) = rig.problem(unknown).await;
    assert_eq!((status, &problem["given"]), (404, &json!("explode")));
    assert_eq!(rig.bench.status().overridden, None);
    rig.finish().await;
}

#[tokio::test]
async fn sec_1_a_page_of_another_site_changes_nothing() {
    let rig = Rig::start(|_| {}).await;
    let order = || rig.order(OPEN, &json!({ "reason": "from a page" }));
    let port = rig.server.address().port();
    // The attacker's host name resolves to this machine.
    for (host, wanted, code) in [
        ("evil.example", 421, "foreign-host"),
        ("localhost.evil.example", 421, "foreign-host"),
        ("", 400, "bad-host"),
        ("[::1].evil.example", 400, "bad-host"),
    ] {
        let (status, problem) = rig
            .problem(order().header("host", format!("{host}:{port}")))
            .await;
        assert_eq!(
            (status, &problem["type"]),
            (wanted, &json!(format!("urn:breakerbox:{code}"))),
            "{host}"
        );
    }
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1", ""] {
        let (status, problem) = rig.problem(order().header("origin", origin)).await;
        let kind = &problem["type"];
        assert_eq!(
            (status, kind),
            (403, &json!("urn:breakerbox:foreign-origin")),
            "{origin}"
        );
    }
    assert_eq!(rig.bench.status().overridden, None);
    let own = format!("http://localhost:{port}");
    let request = order()
        .header("host", format!("localhost:{port}"))
        .header("origin", own);
    assert_eq!(request.send().await.unwrap().status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn sec_1_no_start_away_from_loopback_without_a_token() {
    let rig = Rig::with(|_| {}, Vec::new(), None, ServerLimits::default()).await;
    let everywhere = || TcpListener::bind("0.0.0.0:0").unwrap();
    let refused = rig.admin.serve(everywhere()).unwrap_err();
    assert!(matches!(refused, ServeError::Exposed(_)), "{refused}");
    let of = |text: &str| Settings::loader().bare().toml(text).load();
    for address in ["0.0.0.0:7071", "[::]:7071", "192.0.2.1:7071"] {
        let bind = format!("[admin]\nbind = \"{address}\"\n");
        let error = of(&bind).unwrap_err().to_string();
        assert!(
            error.contains("allowed: a loopback address, or to set admin.token too"),
            "{error}"
        );
        let settings = of(&format!("{bind}token = \"{TOKEN}\"")).unwrap();
        let admin = Admin::new((*rig.bench.runtime).clone(), &settings);
        admin.serve(everywhere()).unwrap().stop();
    }
    rig.finish().await;
}
