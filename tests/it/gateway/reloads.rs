//! Reloads under load: no gap for callers, no loss of what is known of a dependency (rule EDGE-6).

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use breakerbox::policy::{BreakerCommand, State};
use serde_json::Value;

use super::serve::{Sidecar, command, configured, folder, http};
use super::*;

/// A process with a folder for its configuration, which is reloaded by a signal.
struct Reloaded {
    folder: tempfile::TempDir,
    sidecar: Sidecar,
    http: reqwest::Client,
    /// Number of the latest event that was waited for.
    seen: u64,
}

impl Reloaded {
    /// `lines`: number of lines that it prints besides the admin side's.
    fn start(text: &str, lines: usize) -> Self {
        let folder = folder();
        configured(folder.path(), &Self::whole(text));
        Self {
            sidecar: Sidecar::start(command(folder.path()), lines),
            folder,
            http: http(),
            seen: 0,
        }
    }

    fn whole(text: &str) -> String {
        format!("[reload]\nwatch = false\n{text}")
    }

    async fn json(&self, path: &str) -> Value {
        let asked = self.http.get(self.sidecar.admin(path)).send().await;
        asked.unwrap().json().await.unwrap()
    }

    /// Reloads a file, and waits for the event of this kind. Returns its details.
    async fn reload(&mut self, text: &str, kind: &str) -> Value {
        configured(self.folder.path(), text);
        self.hang_up(kind).await
    }

    async fn hang_up(&mut self, kind: &str) -> Value {
        self.sidecar.signal("HUP");
        let waiting = async {
            loop {
                let path = format!("/api/events?since={}", self.seen);
                let found = self.json(&path).await;
                let mut all = found["events"].as_array().unwrap().iter();
                // The sidecar reads its files once more after the start, by itself. Then the signal before
                // this one may be what has read this file, or the one before it.
                if let Some(event) = all.find(|event| event["kind"] == kind) {
                    return event.clone();
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let event = tokio::time::timeout(PATIENCE, waiting).await;
        let event = event.unwrap_or_else(|_| panic!("no event {kind}"));
        self.seen = event["id"].as_u64().unwrap();
        event
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let asked = self.http.get(self.sidecar.url(path)).send().await.unwrap();
        (asked.status().as_u16(), asked.text().await.unwrap())
    }
}

fn table(name: &str, url: &str, more: &str) -> String {
    format!("[dependencies.{name}]\nkind = \"http\"\nurl = \"{url}\"\n{more}\n")
}

/// Configurations of `a` that differ in every kind of key. Each of them answers with 200.
fn variants(one: &str, two: &str) -> Vec<String> {
    let fixed = "[[dependencies.a.fallback]]\nkind = \"fixed\"\nbody = \"fixed\"\n";
    let cache = "[[dependencies.a.fallback]]\nkind = \"stale_cache\"\n";
    let to_b = "[[dependencies.a.fallback]]\nkind = \"dependency\"\nname = \"b\"\n";
    let to_a = "[[dependencies.b.fallback]]\nkind = \"dependency\"\nname = \"a\"\n";
    let a = |more: &str| table("a", one, more);
    let b = |more: &str| table("b", two, more);
    vec![
        a(""),
        a("idempotent = [\"GET\", \"PUT\"]"),
        a("timeout = { connect = \"2s\", attempt = \"20s\", total = \"30s\" }"),
        a("retry = { max_attempts = 4 }"),
        a("breaker = { failure_threshold = 7 }"),
        a("breaker = { consecutive_failures = 9 }\nbulkhead = { max_concurrent = 50 }"),
        a("workers = { drain = \"1s\", count = 2 }"),
        a("rate_limit = { rate = 1000000, per = \"1s\", burst = 100000 }"),
        a("keys = { max_entries = 7 }"),
        a(cache),
        a(&format!(
            "{cache}max_age = \"9m\"\nmax_entries = 9\nrefresh = true\n"
        )),
        a(&format!("{cache}{fixed}")),
        a(&format!("fallback_only = true\n{fixed}")),
        a(&format!("idempotent = [\"GET\"]\n{fixed}")),
        table("a", two, "idempotent = [\"GET\"]"),
        table("a", two, cache),
        "[dependencies.a]\nkind = \"simulated\"\n".to_owned(),
        format!("{}{}", a(to_b), b("")),
        format!("{}{}", b(to_a), a("")),
        format!(
            "{}{}",
            a("classify = { failure = [501] }"),
            b("idempotent = [\"POST\"]")
        ),
        format!("[gateway]\nmax_body = \"3MB\"\n{}", a("")),
    ]
}

/// Requests until told to stop. Returns the number of good answers, and each other answer.
async fn hammer(url: String, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let http = http();
    let (mut good, mut bad) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match http.get(&url).send().await {
            Ok(response) if response.status() == 200 => {
                drop(response.bytes().await);
                good += 1;
            }
            Ok(response) => {
                let status = response.status();
                bad.push(format!("{status} {}", response.text().await.unwrap()));
            }
            Err(error) => bad.push(error.to_string()),
        }
    }
    (good, bad)
}

#[tokio::test]
async fn edge_6_e4a_two_hundred_reloads_under_load_refuse_no_caller_and_lose_no_count() {
    let (one, two) = (
        Upstream::of(async |_| "one").await,
        Upstream::of(async |_| "two").await,
    );
    let variants = variants(&one.url(), &two.url());
    let mut box_ = Reloaded::start(&variants[0], 1);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(hammer(box_.sidecar.url("/a/x"), Arc::clone(&stop))))
        .collect();
    let mut before = [0; 4];
    let mut place = 0;
    for round in 0..210 {
        // The steps grow, so that each follows several others in the course of time.
        place += 1 + round / variants.len() % (variants.len() - 1);
        let text = Reloaded::whole(&variants[place % variants.len()]);
        box_.reload(&text, "reload_applied").await;
        let status = box_.json("/api/dependencies/a").await;
        let totals = &status["totals"];
        let now = ["submitted", "primary", "attempts", "fallback"]
            .map(|name| totals[name].as_u64().unwrap_or_default());
        let fell = before.iter().zip(&now).any(|(before, now)| now < before);
        assert!(!fell, "round {round}: {before:?}, then {now:?}");
        before = now;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let (good, bad) = caller.await.unwrap();
        assert!(good > 50, "{good}");
        assert_eq!(bad, Vec::<String>::new());
    }
}

#[tokio::test]
async fn edge_6_e4a_requests_and_streams_of_before_end_whole() {
    let open = Arc::new(tokio::sync::Notify::new());
    let gate = Arc::clone(&open);
    let slow = Upstream::of(move |_| {
        let gate = Arc::clone(&gate);
        async move {
            let (feed, body) = fed();
            tokio::spawn(async move {
                feed.send("begin").await.unwrap();
                gate.notified().await;
                feed.send(" end").await.unwrap();
            });
            Response::new(body)
        }
    })
    .await;
    let other = Upstream::of(async |_| "other").await;
    let mut box_ = Reloaded::start(&table("a", &slow.url(), ""), 1);
    let mut stream = box_
        .http
        .get(box_.sidecar.url("/a/x"))
        .send()
        .await
        .unwrap();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "begin");
    let text = Reloaded::whole(&table("a", &other.url(), "idempotent = [\"GET\"]"));
    let told = box_.reload(&text, "reload_applied").await;
    assert_eq!(told["details"]["kept"], serde_json::json!(["a"]), "{told}");
    assert_eq!(box_.get("/a/x").await, (200, "other".to_owned()));
    // A removed dependency drains behind the reload.
    let text = Reloaded::whole(&table("b", &other.url(), ""));
    let told = box_.reload(&text, "reload_applied").await;
    assert_eq!(told["details"]["removed"], serde_json::json!(["a"]));
    assert_eq!(told["details"]["added"], serde_json::json!(["b"]));
    assert_eq!(box_.get("/a/x").await.0, 404);
    // Its name is free at once.
    let text = Reloaded::whole(&table("a", &other.url(), ""));
    let told = box_.reload(&text, "reload_applied").await;
    assert_eq!(told["details"]["added"], serde_json::json!(["a"]));
    assert_eq!(box_.get("/a/x").await, (200, "other".to_owned()));
    open.notify_one();
    let mut rest = String::new();
    while let Some(piece) = stream.chunk().await.unwrap() {
        rest.push_str(&String::from_utf8_lossy(&piece));
    }
    assert_eq!(rest, " end");
}

#[tokio::test]
async fn edge_6_e4b_state_counters_and_an_operators_word_outlive_every_change() {
    let down = Upstream::of(async |_| answer(500, "down")).await;
    let well = Upstream::of(async |_| "well").await;
    let rules = "breaker = { failure_threshold = 2, recovery_timeout = \"1h\" }\n";
    let bed = Bed::new(&down.url(), rules).await;
    for _ in 0..3 {
        bed.get("/web/x").await;
    }
    let open = BreakerCommand::Open {
        reason: "its database is being restored".to_owned(),
        until: None,
    };
    bed.runtime.operate("web", open).await.unwrap().unwrap();
    let before = bed.status();
    assert_eq!(before.state, State::Open);
    let changes = [
        (well.url(), "idempotent = [\"GET\"]\n"),
        (
            down.url(),
            "[[dependencies.web.fallback]]\nkind = \"fixed\"\n",
        ),
        (
            well.url(),
            "fallback_only = true\n[[dependencies.web.fallback]]\nkind = \"fixed\"\n",
        ),
        (well.url(), ""),
    ];
    for (url, more) in changes {
        let text = table("web", &url, &format!("{rules}{more}"));
        let settings = Settings::loader().bare().toml(&text).load().unwrap();
        bed.runtime.reload(settings.clone(), "test").await;
        let one = &settings.dependencies["web"];
        let put = bed.gateway.put("web", one, &url, "test").await.unwrap();
        assert_eq!(put, breakerbox::gateway::AddOutcome::Kept, "{more}");
        let after = bed.status();
        assert_eq!(after.overridden, before.overridden, "{more}");
        assert_eq!(
            (after.state, after.generation),
            (before.state, before.generation)
        );
        assert_eq!(after.totals.submitted, before.totals.submitted);
        assert_eq!(after.tally, before.tally);
    }
    let (old, new) = (down.hits(), well.hits());
    assert_eq!(bed.get("/web/x").await.status(), 503);
    assert_eq!((down.hits(), well.hits()), (old, new), "nothing goes out");
    bed.end().await;
}

#[tokio::test]
async fn edge_6_kept_answers_outlive_other_limits_and_not_another_server() {
    let body: Arc<Mutex<(u16, &'static str)>> = Arc::new(Mutex::new((200, "kept")));
    let now = Arc::clone(&body);
    let upstream = Upstream::of(move |_| {
        let (status, text) = *now.lock().unwrap();
        async move { answer(status, text) }
    })
    .await;
    let down = Upstream::of(async |_| answer(500, "down")).await;
    let cache =
        |more: &str| format!("[[dependencies.web.fallback]]\nkind = \"stale_cache\"\n{more}");
    let bed = Bed::new(&upstream.url(), &cache("")).await;
    assert_eq!(bed.get("/web/x").await.text().await.unwrap(), "kept");
    *body.lock().unwrap() = (500, "down");
    let put = async |url: &str, more: &str| {
        let text = table("web", url, more);
        let settings = Settings::loader().bare().toml(&text).load().unwrap();
        bed.runtime.reload(settings.clone(), "test").await;
        let one = &settings.dependencies["web"];
        bed.gateway.put("web", one, url, "test").await.unwrap();
    };
    put(
        &upstream.url(),
        &cache("max_age = \"9m\"\nrefresh = true\n"),
    )
    .await;
    let kept = bed.get("/web/x").await;
    assert_eq!(header(&kept, "breakerbox-source"), "fallback:stale_cache");
    put(
        &upstream.url(),
        &format!("idempotent = [\"GET\"]\n{}", cache("max_age = \"9m\"\n")),
    )
    .await;
    assert_eq!(bed.get("/web/x").await.status(), 200);
    let served = |bed: &Bed| bed.status().fallbacks;
    assert_eq!(served(&bed), [("stale_cache".to_owned(), 2)]);
    put(&down.url(), &cache("max_age = \"9m\"\n")).await;
    assert_eq!(
        bed.get("/web/x").await.status(),
        500,
        "another server's answers"
    );
    put(&down.url(), "").await;
    assert_eq!(
        served(&bed),
        [("stale_cache".to_owned(), 2)],
        "counters only go up"
    );
    bed.end().await;
}

#[tokio::test]
async fn edge_6_e4c_a_configuration_that_leaves_nothing_is_refused_and_told() {
    let upstream = Upstream::of(async |_| "ok").await;
    let text = Reloaded::whole(&table("a", &upstream.url(), ""));
    let mut box_ = Reloaded::start(&table("a", &upstream.url(), ""), 1);
    // The sidecar reads the file once more after its start. After this reload it has done so.
    let first = format!("{text}retry = {{ max_attempts = 2 }}\n");
    box_.reload(&first, "reload_applied").await;
    for empty in [
        "",
        "# nothing\n",
        "[gateway]\nmax_body = \"1MB\"\n",
        "[dependencies]\n",
    ] {
        let told = box_.reload(empty, "reload_refused").await;
        let message = told["message"].as_str().unwrap();
        assert!(message.contains("reload.allow_empty = true"), "{message}");
        assert_eq!(box_.get("/a/x").await.0, 200, "{empty:?}");
    }
    // The file itself is gone: the embedded services are not started in its place.
    std::fs::remove_file(box_.folder.path().join("config/default.toml")).unwrap();
    box_.hang_up("reload_refused").await;
    assert_eq!(box_.get("/").await.1, "/a/\n");
    assert_eq!(box_.get("/a/x").await.0, 200);
    let later = format!("{text}idempotent = [\"GET\"]\n");
    box_.reload(&later, "reload_applied").await;
    let wanted = "[reload]\nwatch = false\nallow_empty = true\n";
    let told = box_.reload(wanted, "reload_applied").await;
    assert_eq!(told["details"]["removed"], serde_json::json!(["a"]));
    assert_eq!(box_.get("/a/x").await.0, 404);
}

#[test]
fn edge_6_e4c_check_warns_of_a_configuration_that_serves_nothing() {
    let folder = folder();
    configured(
        folder.path(),
        "[reload]\nwatch = false\nallow_empty = true\n",
    );
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    let checked = check
        .arg("check")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let err = String::from_utf8(checked.stderr).unwrap();
    assert!(
        err.contains("warning: dependencies: there is none"),
        "{err}"
    );
}

#[tokio::test]
async fn edge_6_a_replacement_that_does_not_start_leaves_the_running_one_as_it_was() {
    let upstream = Upstream::of(async |_: Request| "ok").await;
    let text = table("a", &upstream.url(), "timeout.first_byte = \"7s\"");
    let mut running = Reloaded::start(&text, 1);
    let before = running.json("/api/dependencies/a").await["limits"].clone();
    let stdio = "[dependencies.a]\nkind = \"mcp_stdio\"\ncommand = \"no-such-program\"\n";
    let told = running
        .reload(&Reloaded::whole(stdio), "reload_applied")
        .await;
    assert_eq!(
        told["details"]["failed"],
        serde_json::json!(["a"]),
        "{told}"
    );
    let after = running.json("/api/dependencies/a").await;
    assert_eq!(
        (&after["kind"], &after["limits"]),
        (&"http".into(), &before)
    );
    assert_eq!(running.get("/a/x").await, (200, "ok".to_owned()));
    let ready = running.json("/readyz").await;
    let note = ready["configuration"].as_str().unwrap();
    assert!(
        note.contains("did not start") && note.contains("a: "),
        "{note}"
    );
    running
        .reload(&Reloaded::whole(&text), "reload_applied")
        .await;
    assert_eq!(running.json("/readyz").await["configuration"], Value::Null);
}

#[tokio::test]
async fn mcp_6_a_change_that_fails_leaves_the_check_of_callers_as_it_was() {
    let upstream = Upstream::of(async |_: Request| "ok").await;
    let table = |name: &str, more: &str| table(name, &upstream.url(), more);
    let token = "a".repeat(20);
    let own = format!("auth = {{ tokens = [\"{token}\"] }}\n");
    let to = |name: &str, auth: &str| {
        format!("fallback = [{{ kind = \"dependency\", name = \"{name}\" }}]\n{auth}")
    };
    let bed = Bed::of(&(table("web", &own) + &table("other", &to("web", &own)))).await;
    let circle = table("web", &to("other", "auth = \"off\"\n")) + &table("other", "");
    let no_program = "[dependencies.web]\nkind = \"mcp_stdio\"\ncommand = \"no-such-program\"\n\
                      auth = \"off\"\n";
    for text in [&*circle, no_program] {
        let settings = Settings::loader().bare().toml(text).load().unwrap();
        let web = &settings.dependencies["web"];
        let put = bed.gateway.put("web", web, &upstream.url(), "test").await;
        assert!(put.is_err(), "{text}");
        assert_eq!(bed.get("/web/a").await.status(), 401, "{text}");
        let asked = bed.http.get(bed.url("/web/a")).bearer_auth(&token);
        assert_eq!(asked.send().await.unwrap().status(), 200, "{text}");
    }
    assert_eq!(upstream.hits(), 2);
    bed.end().await;
}

#[tokio::test]
async fn cfg_2_what_has_taken_the_place_of_another_follows_the_next_reloads() {
    let upstream = Upstream::of(async |_: Request| "ok").await;
    // It is parked, or on its way there.
    let stdio = "[dependencies.a]\nkind = \"mcp_stdio\"\ncommand = \"false\"\n";
    let mut running = Reloaded::start(stdio, 1);
    for seconds in [10, 20, 25] {
        let own = format!("timeout.attempt = \"{seconds}s\"");
        let text = Reloaded::whole(&table("a", &upstream.url(), &own));
        let told = running.reload(&text, "reloaded").await;
        let told = told["details"]["changed"].to_string();
        assert!(told.contains(&format!("-> {seconds}s")), "{told}");
        let limits = running.json("/api/dependencies/a").await["limits"].clone();
        assert_eq!(limits["attempt_timeout_ms"], seconds * 1000);
        assert_eq!(running.get("/a/x").await, (200, "ok".to_owned()));
    }
}

#[tokio::test]
async fn cfg_2_changes_that_wait_for_a_restart_are_told_by_their_keys() {
    let upstream = Upstream::of(async |_: Request| "ok").await;
    let a = table("a", &upstream.url(), "");
    let mut running = Reloaded::start(&a, 1);
    let new = format!("[gateway]\nmax_body = \"1MB\"\nthreads = 3\n{a}");
    let told = running.reload(&Reloaded::whole(&new), "reloaded").await;
    let text = |list: &Value| list[0].as_str().unwrap().to_owned();
    assert!(
        text(&told["details"]["changed"]).starts_with("gateway.max_body: "),
        "{told}"
    );
    assert!(
        text(&told["details"]["waits"]).starts_with("gateway.threads: "),
        "{told}"
    );
    let waits = running.json("/readyz").await["waits"].clone();
    assert!(text(&waits).starts_with("gateway.threads: "), "{waits}");
    running.reload(&Reloaded::whole(&a), "reloaded").await;
    assert_eq!(running.json("/readyz").await["waits"], Value::Null);
}

#[tokio::test]
async fn cfg_2_refused_files_are_told_until_they_are_good_again() {
    let upstream = Upstream::of(async |_: Request| "ok").await;
    let good = Reloaded::whole(&table("a", &upstream.url(), ""));
    let mut running = Reloaded::start(&table("a", &upstream.url(), ""), 1);
    assert_eq!(running.json("/readyz").await["configuration"], Value::Null);
    running
        .reload(&format!("{good}nonsense\n"), "reload_refused")
        .await;
    let ready = running.json("/readyz").await;
    let note = ready["configuration"].as_str().unwrap();
    assert!(
        note.contains("refused since") && !note.contains('\n'),
        "{note}"
    );
    assert_eq!(ready["status"], "degraded");
    // As before: there is nothing to apply, and it is told all the same.
    let told = running.reload(&good, "reload_applied").await;
    assert!(
        told["message"].as_str().unwrap().ends_with("kept a"),
        "{told}"
    );
    assert_eq!(running.json("/readyz").await["configuration"], Value::Null);
}
