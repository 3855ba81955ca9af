//! Servers that were well and are not: each is well again by itself, or by an order (rule MCP-1).

use std::process::Command;

use super::beside::{Beside, TOKEN, guarded};
use super::*;

/// The only process of the server in this folder.
fn process(bed: &Beside) -> u32 {
    match processes(&bed.own("sick"))[..] {
        [process] => process,
        ref others => panic!("one process is running, not {others:?}"),
    }
}

#[tokio::test]
async fn mcp_1_m2_a_server_that_was_killed_and_down_beyond_its_budget_is_well_by_itself() {
    let soon = "[dependencies.sick.workers]\nbackoff = { base = \"20ms\", max = \"200ms\" }\n";
    let Some(bed) = Beside::start(|folder| guarded(folder, "sick", "", soon)) else {
        return;
    };
    bed.until_well("sick").await;
    bed.allow("sick", false);
    signal(process(&bed), "KILL");
    bed.until("sick", |one| one["parked"] == true).await;
    let reason = |one: &Value| one["reason"].as_str().unwrap_or_default().to_owned();
    bed.until("sick", |one| {
        let is_forced = one["override"]["mode"] == "forced_open";
        is_forced && one["state"] == "open" && reason(one).contains("no licence")
    })
    .await;
    let failed = bed.call("sick", "echo", json!({})).await;
    let message = failed["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("no licence"), "{failed}");
    let alerts = bed.admin("/api/alerts").await;
    let parked = |alert: &&Value| alert["kind"] == "parked" && alert["state"] == "active";
    let count = alerts.as_array().unwrap().iter().filter(parked).count();
    assert_eq!(count, 1, "{alerts}");
    bed.good_is_untouched().await;
    bed.allow("sick", true);
    bed.until_well("sick").await;
    bed.until("sick", |one| {
        one["parked"] == false && one["health"] == "ok"
    })
    .await;
    bed.good_is_untouched().await;
    bed.end().await;
}

#[tokio::test]
async fn mcp_1_m2_a_server_that_was_stopped_is_well_when_it_goes_on() {
    let short = "hang_limit = \"off\"\n[dependencies.sick.timeout]\nattempt = \"300ms\"\n";
    let Some(bed) = Beside::start(|folder| guarded(folder, "sick", "", short)) else {
        return;
    };
    bed.until_well("sick").await;
    let stopped = process(&bed);
    signal(stopped, "STOP");
    assert_eq!(bed.echo("sick").await, None);
    bed.good_is_untouched().await;
    signal(stopped, "CONT");
    bed.until_well("sick").await;
    bed.good_is_untouched().await;
    bed.end().await;
}

#[tokio::test]
async fn mcp_1_m2_an_order_by_api_or_command_starts_a_server_now() {
    // After the first try the next one is an hour away.
    let late = "[dependencies.sick.workers]\nbackoff = { base = \"1h\", max = \"1h\" }\n";
    let Some(bed) = Beside::start(|folder| guarded(folder, "sick", "", late)) else {
        return;
    };
    bed.until_well("sick").await;
    for by_command in [false, true] {
        bed.allow("sick", false);
        signal(process(&bed), "KILL");
        let waits = |one: &Value| one["workers"][0]["back_in_ms"].as_u64() > Some(1_000_000);
        bed.until("sick", waits).await;
        let early = bed.order("sick", "restart").await;
        let note = early["note"].as_str().unwrap_or_default();
        assert!(note.contains("no licence"), "{early}");
        bed.allow("sick", true);
        if by_command {
            let mut order = Command::new(env!("CARGO_BIN_EXE_breakerbox"));
            order.args(["restart", "sick", "--reason", "a test", "--admin"]);
            order
                .arg(bed.sidecar.admin(""))
                .env("BREAKERBOX__ADMIN__TOKEN", TOKEN);
            let ran = order.output().unwrap();
            let said = String::from_utf8_lossy(&ran.stdout);
            assert!(
                ran.status.success() && said.starts_with("restart: done"),
                "{ran:?}"
            );
        } else {
            let done = bed.order("sick", "restart").await;
            assert_eq!(done["done"], "restart");
            assert!(done["note"].is_null(), "{done}");
        }
        assert_eq!(bed.echo("sick").await.as_deref(), Some("hi"));
    }
    let events = bed.admin("/api/events?kind=operated").await;
    let restarts = events["events"].as_array().unwrap().iter();
    let restarts = restarts.filter(|event| event["details"]["command"] == "restart");
    assert_eq!(restarts.count(), 4, "{events}");
    bed.good_is_untouched().await;
    bed.end().await;
}

#[tokio::test]
async fn mcp_1_m2_sup_4_close_and_reset_start_a_parked_server_and_never_hide_it() {
    let parks = "[dependencies.sick.workers]\ngive_up = \"park\"\n\
                 intensity = { max = 1, within = \"1h\" }\n";
    let Some(bed) = Beside::start(|folder| guarded(folder, "sick", "", parks)) else {
        return;
    };
    bed.until_well("sick").await;
    for operation in ["close", "reset"] {
        bed.allow("sick", false);
        signal(process(&bed), "KILL");
        bed.until("sick", |one| one["parked"] == true).await;
        let vain = bed.order("sick", operation).await;
        assert_eq!(
            vain["dependency"]["override"]["mode"], "forced_open",
            "{vain}"
        );
        assert_eq!(vain["dependency"]["state"], "open", "{vain}");
        let note = vain["note"].as_str().unwrap_or_default();
        assert!(note.contains("none runs yet"), "{vain}");
        bed.until("sick", |one| one["override"]["mode"] == "forced_open")
            .await;
        bed.allow("sick", true);
        // SUP-4: its answer comes when the order has had its effect.
        let done = bed.order("sick", operation).await;
        assert_eq!(done["dependency"]["state"], "closed", "{done}");
        assert!(done["note"].is_null(), "{done}");
        bed.until_well("sick").await;
    }
    bed.good_is_untouched().await;
    bed.end().await;
}
