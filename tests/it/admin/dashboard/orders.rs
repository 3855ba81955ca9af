//! Operator actions through the page, and their record.

use serde_json::json;

use super::{LIVE, Stage, TOKEN, network, nothing, part, state};
use crate::scripted::{ms, opens_after};

const PROBLEM: &str = "document.querySelector('#order-problem').innerText";
const DIALOG: &str = "document.querySelector('#order').open";

/// Types into a field as a user does.
async fn fill(stage: &Stage, id: &str, text: &str) {
    let field = format!("document.getElementById('{id}')");
    stage.page.value(&format!("{field}.select()")).await;
    stage.page.write(text).await;
    assert_eq!(stage.page.text(&format!("{field}.value")).await, text);
}

async fn click(stage: &Stage, what: &str) {
    stage.page.value(&format!("{what}.click()")).await;
}

#[tokio::test]
async fn item_101_an_order_through_the_page_is_carried_out_and_kept_on_record() {
    let Some(stage) = Stage::start(&["search", "graph"], opens_after(1, ms(60_000))).await else {
        return;
    };
    let page = &stage.page;
    let go = "document.querySelector('#order-do')";
    click(&stage, &part("search", "[data-order=open]")).await;
    page.until(DIALOG).await;
    assert_eq!(
        page.text("document.querySelector('#order-title').innerText")
            .await,
        "Open search"
    );
    // The page names the missing field and sends nothing.
    click(&stage, go).await;
    page.until(&format!("{PROBLEM} === 'A reason is missing.'"))
        .await;
    let reason = "<img src=x onerror=\"document.title='hit'\"> & a drill";
    fill(&stage, "order-reason", reason).await;
    fill(&stage, "order-for", "soon").await;
    click(&stage, go).await;
    page.until(&format!("{PROBLEM}.startsWith('This is not a duration')"))
        .await;
    fill(&stage, "order-for", "1h 30m").await;
    // With a wrong token, the page shows the server's message and does not keep the token.
    fill(&stage, "order-token", "a wrong token").await;
    click(&stage, go).await;
    page.until(&format!(
        "{PROBLEM}.startsWith('a change needs the admin token')"
    ))
    .await;
    assert_eq!(page.value("sessionStorage.length").await, 0);
    assert_eq!(stage.clients[0].status().overridden, None);
    fill(&stage, "order-token", TOKEN).await;
    click(&stage, go).await;
    page.until(&format!("!{DIALOG}")).await;
    page.until(&format!("{} === 'Breaker forced open'", state("search")))
        .await;
    page.until(&format!(
        "{}.innerText.startsWith('Ends in 1 h 2')",
        part("search", ".left")
    ))
    .await;
    // The reason is shown as text everywhere, and the record has all of it.
    let shown = page
        .text(&format!("{}.innerText", part("search", ".headline")))
        .await;
    assert_eq!(shown, format!("By an operator: {reason}"));
    page.until(&format!(
        "document.querySelector('#events').innerText.includes({})",
        json!(reason)
    ))
    .await;
    assert_eq!(page.value("document.images.length").await, 0);
    assert_ne!(page.value("document.title").await, "hit");
    let events = stage.events("operated").await;
    let details = &events[0]["details"];
    assert_eq!(details["reason"], reason);
    assert_eq!(details["command"], "open");
    assert!(details["until"].is_string());
    // The token stays in this tab, and is removed on request.
    assert_eq!(
        page.value("[...Object.values(sessionStorage)]").await,
        json!([TOKEN])
    );
    assert_eq!(
        page.value("localStorage.length + document.cookie.length")
            .await,
        0
    );
    assert!(!page.text("location.href").await.contains("token"));
    click(&stage, "document.querySelector('#sign')").await;
    page.until("sessionStorage.length === 0").await;
    stage.finish(network).await;
}

#[tokio::test]
async fn item_101_every_order_of_the_page_reaches_the_breaker() {
    let Some(stage) = Stage::start(&["search"], opens_after(1, ms(600_000))).await else {
        return;
    };
    let page = &stage.page;
    page.value(&format!(
        "sessionStorage.setItem('breakerbox.token', {})",
        json!(TOKEN)
    ))
    .await;
    stage.visit().await;
    stage.open(0).await;
    page.until(&format!("{} === 'Breaker open'", state("search")))
        .await;
    let orders = [
        ("check", "Breaker half-open"),
        ("disable", "Breaker disabled"),
        ("shadow", "Breaker shadow"),
        ("open", "Breaker forced open"),
        ("close", "Breaker closed"),
        ("shadow", "Breaker shadow"),
        ("reset", "Breaker closed"),
        ("restart", "Breaker closed"),
    ];
    for (order, after) in orders {
        let button = part("search", &format!("[data-order={order}]"));
        page.until(&format!("!{button}.hidden")).await;
        click(&stage, &button).await;
        page.until(DIALOG).await;
        let ends = page
            .value("!document.querySelector('#order-ends').hidden")
            .await;
        assert_eq!(
            ends,
            matches!(order, "open" | "disable" | "shadow"),
            "{order}"
        );
        fill(&stage, "order-reason", "to try it").await;
        click(&stage, "document.querySelector('#order-do')").await;
        page.until(&format!("!{DIALOG} && {} === '{after}'", state("search")))
            .await;
    }
    assert!(
        page.value(&format!("{}.hidden", part("search", "[data-order=check]")))
            .await
            == true
    );
    let events = stage.events("operated").await;
    assert_eq!(events.as_array().unwrap().len(), orders.len());
    page.until(LIVE).await;
    stage.finish(nothing).await;
}
