//! An outage as an operator meets it at night: what is wrong, since when, why, what callers get, and
//! what to do, without a click.

use breakerbox_actors::CallOptions;
use breakerbox_policy::BreakerCommand;

use super::{Stage, nothing, part, state, tile};
use crate::scripted::{Do, ms, opens_after};

#[tokio::test]
async fn hlt_2_an_outage_among_a_hundred_dependencies_answers_five_questions_without_a_click() {
    let names: Vec<String> = (0..100)
        .map(|number| format!("service_{number:02}"))
        .collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names[62] = "payments";
    let Some(stage) = Stage::start(&names, opens_after(3, ms(600_000))).await else {
        return;
    };
    let page = &stage.page;
    page.until(&format!("{} === '100'", tile("ok"))).await;
    for client in &stage.clients {
        client.ask(Do::Answer(1)).await.unwrap();
    }
    // One that fails a little, and one that is gone.
    stage.clients[20].ask(Do::Fail).await.unwrap_err();
    stage.open(62).await;
    for _ in 0..40 {
        stage.clients[62].ask(Do::Answer(1)).await.unwrap_err();
    }
    page.until(&format!("{} === '1'", tile("down"))).await;
    let row = |selector: &str| format!("{}.innerText", part("payments", selector));
    // What: it comes first, and its health is the first word.
    page.until("document.querySelector('#grid > article').dataset.name === 'payments'")
        .await;
    assert_eq!(page.text(&row(".health")).await, "Down");
    assert_eq!(page.text(&state("payments")).await, "Breaker open");
    // Since when, with the first cause.
    page.until(&format!(
        "/^.+, since \\d\\d:\\d\\d:\\d\\d \\(\\d+ (s|min)\\)$/.test({})",
        row(".headline")
    ))
    .await;
    // Why.
    page.until(&format!(
        "{}.includes('3 calls in a row failed')",
        row(".why")
    ))
    .await;
    // What callers get.
    page.until(&format!(
        "/^Callers: errors for \\d+ % of .+ calls\\/s; 4\\d errors since it began$/.test({})",
        row(".callers")
    ))
    .await;
    // What to do, and what happens by itself.
    page.until(&format!("/^Next probe in \\d+ min/.test({})", row(".left")))
        .await;
    assert_ne!(page.text(&row(".advice")).await, "");
    assert_eq!(
        page.text(&format!(
            "{}.innerText.replace(/\\s+/g, ' ')",
            part("payments", ".todo button")
        ))
        .await,
        "Check now payments"
    );
    // All of it is on the first screen, on a phone too.
    for (width, height) in [(1280, 900), (390, 844)] {
        page.size(width, height).await;
        page.value("scrollTo(0, 0)").await;
        for selector in [
            ".health",
            ".headline",
            ".why",
            ".callers",
            ".left",
            ".todo button",
        ] {
            let on_screen = format!(
                "((box) => box.height > 0 && box.bottom <= innerHeight)({}.getBoundingClientRect())",
                part("payments", selector)
            );
            page.until(&on_screen).await;
        }
    }
    page.size(1280, 900).await;
    // It ends: nothing is left of it in the row.
    let reason = "it is repaired".to_owned();
    let close = breakerbox_policy::BreakerCommand::Close { reason };
    stage.clients[62].operate(close).await.unwrap();
    for _ in 0..30 {
        stage.clients[62].ask(Do::Answer(1)).await.unwrap();
    }
    page.until(&format!("{} === 'Healthy'", row(".health")))
        .await;
    page.until(&format!("{}.innerText === ''", part("payments", ".said")))
        .await;
    stage.finish(nothing).await;
}

#[tokio::test]
async fn item_15_a_sick_dependency_with_an_order_is_counted_with_the_overridden_ones_too() {
    let Some(stage) = Stage::start(&["search", "covered"], opens_after(3, ms(600_000))).await
    else {
        return;
    };
    let page = &stage.page;
    let open = BreakerCommand::Open {
        reason: "migration tonight".to_owned(),
        until: None,
    };
    stage.clients[0].operate(open).await.unwrap();
    for _ in 0..40 {
        stage.clients[0].ask(Do::Answer(1)).await.unwrap_err();
    }
    page.until(&format!("{} === '1'", tile("down"))).await;
    assert_eq!(page.text(&tile("override")).await, "1");
    page.value("document.querySelector('.tile[data-group=\"override\"]').click()")
        .await;
    let names =
        "[...document.querySelectorAll('#grid > article')].map((one) => one.dataset.name).join()";
    page.until(&format!("{names} === 'search'")).await;
    page.value("document.querySelector('.tile[data-group=\"override\"]').click()")
        .await;
    // Of calls that are all answered, no share of errors is told.
    for _ in 0..40 {
        stage.clients[1].ask(Do::Fail).await.unwrap();
    }
    page.until(&format!(
        "/^Callers: all are answered, .+ calls\\/s; a fallback's answer for 100 %; no errors since it \
         began, \\d+ answered by fallbacks$/.test({}.innerText)",
        part("covered", ".callers")
    ))
    .await;
    stage.finish(nothing).await;
}

#[tokio::test]
async fn item_15_a_key_whose_breaker_is_open_is_told_beside_the_closed_one() {
    let Some(stage) = Stage::start(&["search"], opens_after(2, ms(600_000))).await else {
        return;
    };
    let of = |key: &str| CallOptions {
        key: Some(key.to_owned().into()),
        ..CallOptions::default()
    };
    for key in ["large", "small"] {
        let shown = match key {
            "large" => "Breaker closed, open for large",
            _ => "Breaker closed, open for 2 keys",
        };
        for _ in 0..3 {
            stage.clients[0]
                .ask_with(Do::Fail, of(key))
                .await
                .unwrap_err();
        }
        stage
            .page
            .until(&format!("{} === '{shown}'", state("search")))
            .await;
    }
    stage.finish(nothing).await;
}
