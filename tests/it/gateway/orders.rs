//! Orders of operators over a restart of the real process, and overrides of the configuration.

use serde_json::{Value, json};

use super::serve::{Sidecar, command, configured, folder, http};
use super::*;

const TOKEN: &str = "a token of the tests";

/// A folder with a configuration, and an upstream that counts.
struct House {
    folder: tempfile::TempDir,
    upstream: Upstream,
}

impl House {
    async fn new(more: &str) -> Self {
        let house = Self {
            folder: folder(),
            upstream: Upstream::of(|_| async { answer(200, "fine") }).await,
        };
        house.configure(more);
        house
    }

    fn configure(&self, more: &str) {
        let state = self.state();
        let url = self.upstream.url();
        let text = format!(
            "[admin]\ntoken = \"{TOKEN}\"\nstate = {state:?}\n\
             [dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n{more}"
        );
        configured(self.folder.path(), &text);
    }

    fn state(&self) -> std::path::PathBuf {
        self.folder.path().join("state.json")
    }

    fn start(&self) -> Sidecar {
        Sidecar::start(command(self.folder.path()), 1)
    }
}

async fn kill(sidecar: Sidecar) {
    sidecar.signal("KILL");
    sidecar.ended().await;
}

async fn order(sidecar: &Sidecar, operation: &str, body: Value) -> Value {
    let path = format!("/api/dependencies/web/{operation}");
    let request = http().post(sidecar.admin(&path)).bearer_auth(TOKEN);
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

async fn get(sidecar: &Sidecar, path: &str) -> Value {
    let response = http().get(sidecar.admin(path)).send().await.unwrap();
    response.json().await.unwrap()
}

#[tokio::test]
async fn hlt_3_an_order_holds_after_kill_and_restart() {
    let house = House::new("").await;
    let sidecar = house.start();
    let done = order(&sidecar, "open", json!({"reason": "migration tonight"})).await;
    let holds = done["holds"].as_str().unwrap();
    assert_eq!(holds, "until an operator closes it, after a restart too");
    kill(sidecar).await;

    let sidecar = house.start();
    let one = get(&sidecar, "/api/dependencies/web").await;
    assert_eq!(one["override"]["mode"], "forced_open", "{one}");
    assert_eq!(one["override"]["reason"], "migration tonight");
    let refused = http().get(sidecar.url("/web/x")).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(house.upstream.hits(), 0);
    let events = get(&sidecar, "/api/events?kind=order_restored").await;
    let event = &events["events"][0];
    assert_eq!(event["dependency"], "web", "{events}");
    assert_eq!(event["details"]["command"], "open");
    assert_eq!(event["details"]["by"], "token holder at 127.0.0.1");
    order(&sidecar, "close", json!({"reason": "done"})).await;
    kill(sidecar).await;

    let sidecar = house.start();
    let one = get(&sidecar, "/api/dependencies/web").await;
    assert_eq!(one["override"], Value::Null, "{one}");
    let answered = http().get(sidecar.url("/web/x")).send().await.unwrap();
    assert_eq!(
        (answered.status().as_u16(), house.upstream.hits()),
        (200, 1)
    );
}

#[tokio::test]
async fn hlt_3_an_order_keeps_its_end_and_is_dropped_after_it() {
    let house = House::new("").await;
    let sidecar = house.start();
    let body = json!({"reason": "an hour", "for_ms": 3_600_000});
    let done = order(&sidecar, "disable", body).await;
    let until = done["dependency"]["override"]["until"].clone();
    let holds = format!("until {}, after a restart too", until.as_str().unwrap());
    assert_eq!(done["holds"], holds);
    kill(sidecar).await;
    let sidecar = house.start();
    let again = get(&sidecar, "/api/dependencies/web").await["override"].clone();
    assert_eq!(again["mode"], "disabled");
    let moment = |text: &Value| text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let drift = moment(&until).duration_since(moment(&again["until"])).abs();
    assert!(
        drift < jiff::SignedDuration::from_secs(5),
        "{until} {again}"
    );
    kill(sidecar).await;

    let text = std::fs::read_to_string(house.state()).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    file["orders"]["web"]["until"] = json!("2026-01-01T00:00:00Z");
    std::fs::write(house.state(), file.to_string()).unwrap();
    let sidecar = house.start();
    let one = get(&sidecar, "/api/dependencies/web").await;
    assert_eq!(one["override"], Value::Null);
    // The next write drops it from the file too.
    order(&sidecar, "close", json!({"reason": "any"})).await;
    let text = std::fs::read_to_string(house.state()).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["orders"], json!({}));
}

#[tokio::test]
async fn hlt_3_an_order_waits_for_a_dependency_that_comes_back() {
    let house = House::new("").await;
    let sidecar = house.start();
    order(&sidecar, "open", json!({"reason": "gone for now"})).await;
    kill(sidecar).await;
    let web = std::fs::read_to_string(house.folder.path().join("config/default.toml")).unwrap();
    let other = web.replace("[dependencies.web]", "[dependencies.other]");
    configured(house.folder.path(), &other);
    let sidecar = house.start();
    let one = get(&sidecar, "/api/dependencies/other").await;
    assert_eq!(one["override"], Value::Null);
    configured(house.folder.path(), &web);
    sidecar.signal("HUP");
    super::serve::until(&sidecar.admin("/api/dependencies/web"), |status, text| {
        status == 200 && text.contains("gone for now")
    })
    .await;
    // It has its order before it has its route.
    super::serve::until(&sidecar.url("/web/x"), |status, _| status == 503).await;
    assert_eq!(house.upstream.hits(), 0);
}

#[tokio::test]
async fn hlt_3_a_file_that_cannot_be_read_is_named_and_stops_the_start() {
    let house = House::new("").await;
    std::fs::write(
        house.state(),
        "{\"breakerbox_state\": 1, \"orders\": {\"web\": 7}}",
    )
    .unwrap();
    for word in ["serve", "check"] {
        let mut command = command(house.folder.path());
        if word == "check" {
            command = std::process::Command::new(env!("CARGO_BIN_EXE_breakerbox"));
            command.arg("check").current_dir(house.folder.path());
        }
        let ran = command.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(2), "{word}: {said}");
        for part in [
            "admin.state: given",
            "state.json cannot be read",
            "move that file away",
        ] {
            assert!(said.contains(part), "{word}, {part}: {said}");
        }
    }
    let kept = std::fs::read_to_string(house.state()).unwrap();
    assert!(kept.contains("\"web\": 7"));
}

#[tokio::test]
async fn hlt_3_a_second_process_does_not_take_the_file_of_the_first() {
    let house = House::new("").await;
    let sidecar = house.start();
    let ran = command(house.folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(said.contains("is in use by another Breakerbox"), "{said}");
    // `check` looks, and leaves it alone.
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_breakerbox"));
    let ran = check.arg("check").current_dir(house.folder.path()).output();
    assert_eq!(ran.unwrap().status.code(), Some(0));
    let one = get(&sidecar, "/api/dependencies/web").await;
    assert_eq!(one["name"], "web");
}

#[tokio::test]
async fn hlt_3_an_order_that_cannot_be_written_says_so() {
    let house = House::new("").await;
    let sidecar = house.start();
    // A folder in the place of the file that each write begins with.
    std::fs::create_dir(house.folder.path().join("state.json.new")).unwrap();
    let done = order(&sidecar, "open", json!({"reason": "a test"})).await;
    let (note, holds) = (
        done["note"].as_str().unwrap(),
        done["holds"].as_str().unwrap(),
    );
    assert!(note.contains("state.json cannot be written"), "{note}");
    assert!(holds.starts_with("until this process ends"), "{holds}");
    assert_eq!(done["dependency"]["override"]["mode"], "forced_open");
    std::fs::remove_dir(house.folder.path().join("state.json.new")).unwrap();
    order(&sidecar, "shadow", json!({"reason": "a second one"})).await;
    let text = std::fs::read_to_string(house.state()).unwrap();
    assert!(
        text.contains("a second one") && text.contains("\"shadow\""),
        "{text}"
    );
}

#[tokio::test]
async fn hlt_3_an_override_of_the_configuration_holds_from_the_first_call_on_and_follows_a_reload()
{
    let held = "override = { mode = \"open\", reason = \"not before May\" }\n";
    let house = House::new(held).await;
    let sidecar = house.start();
    let refused = http().get(sidecar.url("/web/x")).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), house.upstream.hits()), (503, 0));
    let one = get(&sidecar, "/api/dependencies/web").await;
    assert_eq!(one["override"]["by"], "configuration", "{one}");
    assert_eq!(one["override"]["reason"], "not before May");
    let closed = order(&sidecar, "close", json!({"reason": "a try"})).await;
    let note = closed["note"].as_str().unwrap();
    assert!(note.contains("dependencies.web.override"), "{note}");
    assert_eq!(closed["dependency"]["override"]["mode"], "forced_open");
    house.configure("");
    sidecar.signal("HUP");
    super::serve::until(&sidecar.admin("/api/dependencies/web"), |_, text| {
        text.contains("\"override\":null")
    })
    .await;
    let answered = http().get(sidecar.url("/web/x")).send().await.unwrap();
    assert_eq!(answered.status(), 200);
    house.configure(&held.replace("open", "shadow"));
    sidecar.signal("HUP");
    super::serve::until(&sidecar.admin("/api/dependencies/web"), |_, text| {
        text.contains("\"mode\":\"shadow\"")
    })
    .await;
}
