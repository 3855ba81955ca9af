//! The past at the opening of the page: what happened before is on it, with its marks.

use reqwest::Client;
use serde_json::json;

use super::browser::Page;
use super::{Stage, TOKEN, nothing, part, run, serve};
use crate::scripted::{Do, ms, opens_after};

#[tokio::test]
async fn item_100_the_page_opens_with_the_incident_in_it() {
    let Some(page) = Page::start().await else {
        return;
    };
    let names: Vec<String> = (0..20)
        .map(|number| format!("service_{number:02}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (runtime, script, clients) = run(&names, opens_after(5, ms(600_000))).await;
    let (admin, server) = serve(&runtime, None);
    let stage = Stage {
        runtime,
        script,
        clients,
        admin,
        server,
        page,
    };
    // All of it happens before the page is opened.
    for _ in 0..20 {
        stage.clients[3].ask(Do::Answer(1)).await.unwrap();
    }
    let url = format!("http://{}/api/notes", stage.server.address());
    let note = json!({ "text": "deploy <b>1.2</b>\u{202e}", "dependency": "service_03" });
    let note = Client::new().post(&url).bearer_auth(TOKEN).json(&note);
    assert_eq!(note.send().await.unwrap().status(), 200);
    stage.open(3).await;
    for _ in 0..20 {
        stage.clients[3].ask(Do::Answer(1)).await.unwrap_err();
    }
    stage.visit().await;
    let page = &stage.page;
    let spark = part("service_03", ".spark .errors");
    page.until(&format!("{spark}.getAttribute('d').includes('L')"))
        .await;
    let quiet = part("service_04", ".spark .errors");
    assert_eq!(
        page.text(&format!("{quiet}.getAttribute('d') ?? ''")).await,
        ""
    );
    page.value(&format!("{}.click()", part("service_03", ".name")))
        .await;
    let label = part("service_03", ".chart");
    page.until(&format!(
        "/^Calls over the last hour: up to .+ each second; errors up to .+ each second; 2 marks$/\
         .test({label}.getAttribute('aria-label'))"
    ))
    .await;
    let marks = part("service_03", ".mark-list");
    // EDGE-7: a mark that would reorder the line is written out.
    page.until(&format!(
        r"{marks}.innerText.includes('deploy <b>1.2</b>\\u{{202e}}')"
    ))
    .await;
    page.until(&format!(
        "{marks}.innerText.includes('5 calls in a row failed')"
    ))
    .await;
    // The day too.
    let day = part("service_03", ".spans button:nth-child(2)");
    page.value(&format!("{day}.click()")).await;
    page.until(&format!(
        "{label}.getAttribute('aria-label').startsWith('Calls over the last day: ')"
    ))
    .await;
    // A note that comes later is shown without a reload.
    let later = json!({ "text": "rolled back" });
    let later = Client::new().post(&url).bearer_auth(TOKEN).json(&later);
    assert_eq!(later.send().await.unwrap().status(), 200);
    page.until(&format!("{marks}.innerText.includes('rolled back')"))
        .await;
    stage.finish(nothing).await;
}
