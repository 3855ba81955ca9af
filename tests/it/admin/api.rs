//! Contract of the API: its fields, the document that describes them, and histories.

use breakerbox::agents::fakes::Fakes;
use breakerbox::agents::health::HealthMonitor;
use breakerbox::agents::{ContentStore, VectorSearch};
use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Rig, TOKEN};
use crate::scripted::{Do, ms, opens_after};

#[tokio::test]
async fn ops_1_a_dependency_has_the_fields_of_the_contract() {
    let rig = Rig::start(opens_after(3, ms(60_000))).await;
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    rig.bench.fail_until_open().await;
    let one = rig.dependency().await;
    assert_eq!(one["name"], "dep");
    assert_eq!(one["kind"], "library");
    assert_eq!(one["state"], "open");
    assert_eq!(one["override"], Value::Null);
    assert_eq!(one["generation"], rig.bench.status().generation);
    assert_eq!(
        one["reason"],
        "3 calls in a row failed, at or above 3".to_owned()
    );
    let wait = one["retry_after_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&wait), "{wait}");
    let since: jiff::Timestamp = one["since"].as_str().unwrap().parse().unwrap();
    let next: jiff::Timestamp = one["next_probe_at"].as_str().unwrap().parse().unwrap();
    let open = next.duration_since(since).as_millis();
    assert!((59_990..=60_010).contains(&open), "{open}");
    let window = &one["window"];
    for field in [
        "calls",
        "failures",
        "slow",
        "failure_rate",
        "slow_rate",
        "minimum_calls",
    ] {
        assert!(window.get(field).is_some(), "window.{field}");
    }
    let totals = &one["totals"];
    let ends = ["primary", "fallback", "refused", "failed", "cancelled"];
    let sum: u64 = ends.iter().map(|end| totals[end].as_u64().unwrap()).sum();
    assert_eq!(totals["submitted"], sum);
    assert_eq!(
        (totals["late"].as_u64(), totals["trips"].as_u64()),
        (Some(0), Some(1))
    );
    for share in ["p50", "p90", "p99"] {
        assert!(one["latency_ms"][share].is_number(), "{share}");
    }
    assert_eq!((&one["in_flight"], &one["queued"]), (&json!(0), &json!(0)));
    assert_eq!(one["limits"]["max_concurrent"], 32);
    let worker = json!({
        "id": 1, "state": "running", "incarnation": 1, "restarts": 0, "last_exit": null,
        "back_in_ms": null,
    });
    assert_eq!(one["workers"], json!([worker]));
    assert_eq!(one["fallbacks"], json!([]));
    assert_eq!(rig.get("/api/dependencies").await[0]["name"], "dep");
    rig.finish().await;
}

#[tokio::test]
async fn brk_14_a_rate_is_null_until_the_window_has_its_minimum_of_calls() {
    let rig = Rig::start(|settings| settings.breaker.minimum_calls = 2).await;
    let window = async || {
        let window = rig.dependency().await["window"].clone();
        let rates = [&window["failure_rate"], &window["slow_rate"]].map(Value::as_f64);
        (
            window["calls"].clone(),
            window["minimum_calls"].clone(),
            rates,
        )
    };
    assert_eq!(window().await, (json!(0), json!(2), [None, None]));
    rig.bench.ask(Do::Fail).await.unwrap_err();
    assert_eq!(window().await, (json!(1), json!(2), [None, None]));
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    let (calls, _, rates) = window().await;
    assert_eq!(calls, json!(2));
    assert!(rates.iter().all(Option::is_some), "{rates:?}");
    rig.finish().await;
}

#[tokio::test]
async fn sup_5_a_crashed_worker_shows_its_restart_and_its_last_exit() {
    let rig = Rig::start(|_| {}).await;
    rig.bench.ask(Do::Panic).await.unwrap_err();
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    let worker = &rig.dependency().await["workers"][0];
    assert_eq!(
        (&worker["incarnation"], &worker["restarts"]),
        (&json!(2), &json!(1))
    );
    let exit = worker["last_exit"].as_str().unwrap();
    assert!(exit.starts_with("panicked: told to at "), "{exit}");
    let tree = rig.get("/api/tree").await;
    let group = &tree["children"][0];
    assert_eq!(group["name"], "dep");
    let children = group["children"].as_array().unwrap();
    let names: Vec<&str> = children
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["breaker", "worker-1"]);
    assert_eq!(children[1]["state"], "running");
    assert_eq!(children[1]["restarts"], 1);
    rig.finish().await;
}

#[tokio::test]
async fn item_101_history_of_days_says_what_it_has_forgotten() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    rig.bench.fail_until_open().await;
    let history = rig.get("/api/dependencies/dep/history?days=7").await;
    assert_eq!(
        (&history["kept"], &history["incomplete"]),
        (&json!(1024), &json!(false))
    );
    let kinds: Vec<&Value> = history["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "transition").count(),
        1
    );
    // More events than are kept: the oldest are dropped, and the response says so.
    for _ in 0..700 {
        rig.bench.runtime.reset_all("again").await;
        rig.bench.ask(Do::Fail).await.unwrap_err();
    }
    let history = rig.get("/api/dependencies/dep/history?days=7").await;
    assert_eq!(history["incomplete"], true);
    assert!(history["events"].as_array().unwrap().len() <= 1280);
    for (query, given) in [("days=0", "0"), ("days=-1", "-1"), ("days=99999", "99999")] {
        let request = rig.request(
            Method::GET,
            &format!("/api/dependencies/dep/history?{query}"),
        );
        let (status, problem) = rig.problem(request).await;
        assert_eq!((status, &problem["given"]), (400, &json!(given)));
        assert_eq!(problem["allowed"], "0.001 to 3650");
    }
    rig.finish().await;
}

#[tokio::test]
async fn ops_1_events_are_filtered_and_bounded() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    rig.bench.fail_until_open().await;
    rig.operate("close").await;
    let all = rig.get("/api/events").await;
    let last = all["last_id"].as_u64().unwrap();
    assert_eq!(all["events"].as_array().unwrap().len() as u64, last);
    let moves = rig.get("/api/events?kind=transition&dependency=dep").await;
    let moves = moves["events"].as_array().unwrap();
    let to: Vec<&str> = moves
        .iter()
        .map(|one| one["details"]["to"].as_str().unwrap())
        .collect();
    assert_eq!(to, ["open", "closed"]);
    let newer = rig.get(&format!("/api/events?since={}", last - 1)).await;
    assert_eq!(newer["events"].as_array().unwrap().len(), 1);
    assert_eq!(newer["events"][0]["id"], last);
    assert_eq!(
        rig.get("/api/events?limit=1").await["events"][0]["id"],
        last
    );
    assert_eq!(
        rig.get("/api/events?dependency=other").await["events"],
        json!([])
    );
    for bad in ["limit=0", "limit=5000", "since=-1", "colour=red"] {
        let request = rig.request(Method::GET, &format!("/api/events?{bad}"));
        let (status, problem) = rig.problem(request).await;
        assert_eq!(status, 400, "{bad}: {problem}");
    }
    rig.finish().await;
}

/// Returns the document's description of this response.
fn described(document: &Value, path: &str, method: &str, status: u16) -> Value {
    let answer = &document["paths"][path][method]["responses"][status.to_string()];
    assert!(
        answer.is_object(),
        "{method} {path} may not answer {status}"
    );
    answer["content"].clone()
}

fn validator(document: &Value, schema: &Value) -> Validator {
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&whole)
        .unwrap()
}

/// Returns a request for each documented path: path, method, address, body, token, status.
fn requests() -> Vec<(&'static str, &'static str, String, Value, bool, u16)> {
    let reason = json!({ "reason": "to try it" });
    let mut all = Vec::new();
    let mut get = |path, address: &str, status| {
        all.push((path, "get", address.to_owned(), Value::Null, false, status));
    };
    get("/", "/", 200);
    get("/index.html", "/index.html", 200);
    let file = "/dashboard/{file}";
    get(file, "/dashboard/app.js", 200);
    get(file, "/dashboard/style.css", 200);
    get(file, "/dashboard/other.js", 404);
    get("/livez", "/livez", 200);
    get("/readyz", "/readyz", 200);
    get("/metrics", "/metrics", 200);
    get("/api/openapi.json", "/api/openapi.json", 200);
    get("/api/dependencies", "/api/dependencies", 200);
    get("/api/dependencies/{name}", "/api/dependencies/dep", 200);
    get("/api/dependencies/{name}", "/api/dependencies/nobody", 404);
    let history = "/api/dependencies/{name}/history";
    get(history, "/api/dependencies/dep/history?days=2", 200);
    get(history, "/api/dependencies/dep/history?days=x", 400);
    get(history, "/api/dependencies/nobody/history", 404);
    let series = "/api/dependencies/{name}/series";
    get(series, "/api/dependencies/dep/series", 200);
    get(series, "/api/dependencies/dep/series?step=5s", 200);
    get(series, "/api/dependencies/dep/series?step=1m", 200);
    get(series, "/api/dependencies/dep/series?step=1h", 400);
    get(series, "/api/dependencies/nobody/series", 404);
    get("/api/series", "/api/series", 200);
    get("/api/notes", "/api/notes", 200);
    get("/api/events", "/api/events?since=0&limit=1000", 200);
    get("/api/events", "/api/events?limit=x", 400);
    get("/api/memory", "/api/memory", 200);
    get("/api/groups", "/api/groups", 200);
    get("/api/models", "/api/models", 200);
    get("/api/consumers", "/api/consumers", 200);
    get("/api/fleet", "/api/fleet", 200);
    get("/api/tree", "/api/tree", 200);
    get("/api/health", "/api/health", 200);
    get("/api/health/{name}", "/api/health/checked", 200);
    get("/api/health/{name}", "/api/health/nobody", 404);
    get("/api/alerts", "/api/alerts", 200);
    get("/api/alerts", "/api/alerts?state=odd", 400);
    get("/api/outages", "/api/outages", 200);
    get("/api/outages", "/api/outages?standing=odd", 400);
    let operate = "/api/dependencies/{name}/{operation}";
    let mut post = |path, address: &str, body: &Value, token, status| {
        all.push((
            path,
            "post",
            address.to_owned(),
            body.clone(),
            token,
            status,
        ));
    };
    for operation in [
        "check", "open", "disable", "shadow", "close", "reset", "restart",
    ] {
        let address = format!("/api/dependencies/dep/{operation}");
        post(operate, &address, &reason, true, 200);
        post(operate, &address, &reason, false, 401);
        post(operate, &address, &json!({}), true, 400);
    }
    post(operate, "/api/dependencies/dep/check", &reason, true, 409);
    post(operate, "/api/dependencies/nobody/open", &reason, true, 404);
    let long = json!({ "reason": "x".repeat(5000) });
    post(operate, "/api/dependencies/dep/open", &long, true, 413);
    let notes = "/api/notes";
    let deploy = json!({ "text": "deploy 1.2" });
    let of_dep = json!({ "text": "deploy 1.3", "dependency": "dep" });
    post(notes, notes, &deploy, true, 200);
    post(notes, notes, &of_dep, true, 200);
    post(notes, notes, &deploy, false, 401);
    post(notes, notes, &json!({ "text": " " }), true, 400);
    let of_nobody = json!({ "text": "deploy", "dependency": "nobody" });
    post(notes, notes, &of_nobody, true, 404);
    post(
        notes,
        notes,
        &json!({ "text": "x".repeat(5000) }),
        true,
        413,
    );
    let check = "/api/health/{name}/check";
    post(check, "/api/health/checked/check", &reason, true, 200);
    post(check, "/api/health/checked/check", &reason, false, 401);
    post(check, "/api/health/checked/check", &json!({}), true, 400);
    post(check, "/api/health/nobody/check", &reason, true, 404);
    let (ack, clear) = ("/api/alerts/{id}/ack", "/api/alerts/{id}/clear");
    for (path, address) in [(ack, "/api/alerts/1/ack"), (clear, "/api/alerts/1/clear")] {
        post(path, address, &reason, false, 401);
        post(path, address, &json!([]), true, 400);
    }
    post(ack, "/api/alerts/99/ack", &reason, true, 404);
    // The alert's episode is over at this point.
    post(ack, "/api/alerts/1/ack", &reason, true, 409);
    post(clear, "/api/alerts/1/clear", &reason, true, 200);
    post(clear, "/api/alerts/1/clear", &reason, true, 409);
    let outage = "/api/outages/{id}/ack";
    post(outage, "/api/outages/1/ack", &reason, false, 401);
    post(outage, "/api/outages/1/ack", &json!([]), true, 400);
    post(outage, "/api/outages/99/ack", &reason, true, 404);
    post(outage, "/api/outages/1/ack", &reason, true, 200);
    all
}

#[tokio::test]
async fn item_101_the_server_answers_as_its_document_says() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    rig.bench.ask(Do::Panic).await.unwrap_err();
    let (fakes, monitor) = checked(&rig.bench.runtime).await;
    monitor.check().await.unwrap();
    rig.admin.show_health(monitor);
    let document = rig.get("/api/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut asked = std::collections::BTreeSet::from(["/api/events/stream"]);
    for (path, method, address, body, token, status) in requests() {
        asked.insert(path);
        let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let mut request = rig.request(verb, &address);
        if !body.is_null() {
            request = request.json(&body);
        }
        if token {
            request = request.bearer_auth(TOKEN);
        }
        let response = request.send().await.unwrap();
        let what = format!("{method} {address} {body}");
        assert_eq!(response.status().as_u16(), status, "{what}");
        let kind = response.headers()["content-type"].to_str().unwrap();
        let kind = kind.split(';').next().unwrap().to_owned();
        let content = described(&document, path, method, status);
        let schema = &content[&kind]["schema"];
        assert!(schema.is_object(), "{what} may not be {kind}");
        let text = response.text().await.unwrap();
        let answer = if kind.ends_with("json") {
            serde_json::from_str(&text).unwrap()
        } else {
            Value::from(text)
        };
        let validator = validator(&document, schema);
        let wrong: Vec<String> = validator
            .iter_errors(&answer)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(wrong, Vec::<String>::new(), "{what}");
        if method == "post" && status == 200 {
            let order = &document["paths"][path]["post"]["requestBody"]["content"];
            let order = &order["application/json"]["schema"];
            assert!(self::validator(&document, order).is_valid(&body), "{what}");
        }
    }
    let documented = document["paths"].as_object().unwrap();
    let documented: std::collections::BTreeSet<&str> =
        documented.keys().map(String::as_str).collect();
    assert_eq!(asked, documented);
    drop(fakes);
    rig.finish().await;
}

/// Starts a vector search with a health monitor, and the fakes of its services.
async fn checked(runtime: &breakerbox::Runtime) -> (Fakes, HealthMonitor) {
    let fakes = Fakes::start().await.unwrap();
    let store = ContentStore::default();
    let search = VectorSearch::start(runtime, fakes.vector_config(), store);
    let search = search.await.unwrap();
    let monitor = HealthMonitor::start(runtime, "checked", search, None);
    (fakes, monitor.await.unwrap())
}

#[tokio::test]
async fn item_51_the_admin_side_shows_reports_and_checks_at_a_word() {
    let rig = Rig::start(|_| {}).await;
    assert_eq!(rig.get("/api/health").await, json!([]));
    let (fakes, monitor) = checked(&rig.bench.runtime).await;
    rig.admin.show_health(monitor);
    let health = rig.get("/api/health/checked").await;
    assert_eq!(health, json!({ "name": "checked", "reports": [] }));
    let order = rig.order(
        "/api/health/checked/check",
        &json!({ "reason": "I wonder" }),
    );
    let report: Value = order.send().await.unwrap().json().await.unwrap();
    // The index is empty, and the report says so.
    assert_eq!(
        (&report["overall"], &report["success_rate"]),
        (&json!("warn"), &json!(75))
    );
    assert_eq!(report["advice"][0]["category"], "search");
    let kept = rig.get("/api/health").await;
    assert_eq!(kept[0]["reports"], json!([report]));
    let events = rig
        .get("/api/events?kind=operated&dependency=checked")
        .await;
    assert_eq!(events["events"][0]["details"]["reason"], "I wonder");
    drop(fakes);
    rig.finish().await;
}

#[tokio::test]
async fn item_45_a_refused_set_up_raises_an_alert_until_it_is_taken() {
    let rig = Rig::start(|_| {}).await;
    for _ in 0..3 {
        let end = Do::End(breakerbox_policy::Class::Misconfigured);
        rig.bench.ask(end).await.unwrap_err();
    }
    let alerts = rig.get("/api/alerts").await;
    let all = alerts.as_array().unwrap();
    assert_eq!(all.len(), 1, "{alerts}");
    assert_eq!(
        (&all[0]["kind"], &all[0]["state"]),
        (&json!("misconfigured"), &json!("active"))
    );
    assert_eq!(rig.get("/readyz").await["status"], "degraded");
    rig.bench.ask(Do::Answer(1)).await.unwrap();
    let alerts = rig.get("/api/alerts").await;
    assert_eq!(alerts[0]["state"], "resolved");
    assert_eq!(rig.get("/readyz").await["status"], "ready");
    rig.finish().await;
}

#[tokio::test]
async fn sec_1_every_answer_is_guarded_and_what_is_not_there_is_said() {
    let rig = Rig::start(|_| {}).await;
    for path in ["/livez", "/metrics", "/api/dependencies", "/nowhere"] {
        let response = rig
            .request(Method::GET, path)
            .header("origin", "http://evil.example");
        let response = response.send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}");
        let opens = headers
            .keys()
            .any(|name| name.as_str().starts_with("access-control"));
        assert!(!opens, "{path}: {headers:?}");
    }
    let nowhere = rig.problem(rig.request(Method::GET, "/nowhere")).await;
    assert_eq!(
        (nowhere.0, &nowhere.1["type"]),
        (404, &json!("urn:breakerbox:not-found"))
    );
    let wrong = rig
        .problem(rig.request(Method::DELETE, "/api/events"))
        .await;
    assert_eq!(
        (wrong.0, &wrong.1["type"]),
        (405, &json!("urn:breakerbox:method-not-allowed"))
    );
    rig.finish().await;
}
