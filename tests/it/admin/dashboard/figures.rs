//! Page content besides states: workers, the tree, events, limits, and many dependencies.

use breakerbox_policy::{Class, DependencySettings};

use super::{Stage, event_of, nothing, part, state, tile};
use crate::scripted::{self, Do, ms, opens_after};

#[tokio::test]
async fn item_100_workers_the_tree_and_the_filter_of_events_follow_what_happens() {
    let Some(stage) = Stage::start(&["search", "graph"], opens_after(1, ms(600_000))).await else {
        return;
    };
    stage.ask(Do::Panic).await;
    let _ = stage.clients[1].ask(Do::Fail).await;
    let page = &stage.page;
    let workers = part("search", ".body details:nth-of-type(1)");
    page.until(&format!(
        "{workers}.querySelector('summary').innerText === '1 of 1 worker running, 1 restart'"
    ))
    .await;
    page.until(&format!(
        "{workers}.textContent.includes('panicked: told to')"
    ))
    .await;
    // All of them run again: the tree is one line, and the rest is shown on request.
    page.until(
        "/^\\d+ actors run, 1 of them after a restart\\.$/.test(document.querySelector('#tree-runs').innerText)",
    )
    .await;
    page.until("document.querySelector('#tree').hidden").await;
    page.value("document.querySelector('#tree-whole').open = true")
        .await;
    page.until("document.querySelector('#tree-all').textContent.includes('life 2, 1 restart')")
        .await;
    page.until(&event_of("graph", "transition")).await;
    let choose = |id: &str, value: &str| {
        format!(
            "(() => {{ const field = document.getElementById('{id}'); field.value = '{value}'; \
             field.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()"
        )
    };
    let rows = "[...document.querySelectorAll('#events li')]";
    page.value(&choose("filter-kind", "transition")).await;
    page.until(&format!(
        "{rows}.length === 2 && {rows}.every((row) => row.dataset.tone === 'open')"
    ))
    .await;
    page.value(&choose("filter-dependency", "graph")).await;
    page.until(&format!("{rows}.length === 1")).await;
    page.value(&choose("filter-text", "no such words")).await;
    page.until(&format!(
        "{rows}.length === 0 && document.querySelector('#events-none').innerText === 'No event matches.'"
    ))
    .await;
    stage.finish(nothing).await;
}

#[tokio::test]
async fn item_100_fallbacks_pauses_and_limits_of_each_dependency_are_shown() {
    let configure = |settings: &mut DependencySettings| {
        opens_after(1, ms(600_000))(settings);
        settings.bulkhead.max_concurrent = scripted::nonzero(4);
        settings.throttle.backoff.base = ms(600_000);
        settings.throttle.backoff.max = ms(600_000);
    };
    let Some(stage) = Stage::start(&["busy", "covered", "throttled"], configure).await else {
        return;
    };
    let page = &stage.page;
    stage.open(1).await;
    for _ in 0..3 {
        assert_eq!(stage.clients[1].ask(Do::Answer(1)).await.unwrap().value, 7);
    }
    // The call that opened the breaker, and these three.
    let facts = part("covered", ".facts");
    page.until(&format!("{facts}.innerText.includes('fixed 4')"))
        .await;
    let _ = stage.clients[2].ask(Do::End(Class::Throttled)).await;
    let paused = part("throttled", ".left");
    page.until(&format!("/^Paused for \\d+ min/.test({paused}.innerText)"))
        .await;
    assert_eq!(page.text(&state("throttled")).await, "Breaker closed");
    // Hanging calls are in flight, and the count of calls rises.
    let busy = stage.clients[0].clone();
    let hanging = tokio::spawn(async move {
        let three = (0..3).map(|_| busy.ask(Do::Hang));
        futures_util::future::join_all(three).await
    });
    let gauge = part("busy", "[role=meter]");
    page.until(&format!(
        "{gauge}.getAttribute('aria-valuetext') === '3 of 4'"
    ))
    .await;
    hanging.abort();
    page.until(&format!(
        "{gauge}.getAttribute('aria-valuetext') === '0 of 4'"
    ))
    .await;
    let line = part("busy", ".chart .line");
    page.until(&format!("{line}.getAttribute('d').includes('L')"))
        .await;
    stage.finish(nothing).await;
}

#[tokio::test]
async fn item_100_a_hundred_dependencies_are_rows_with_the_sick_ones_first() {
    let names: Vec<String> = (0..100)
        .map(|number| format!("service_{number:02}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(stage) = Stage::start(&names, opens_after(1, ms(600_000))).await else {
        return;
    };
    stage.open(41).await;
    stage.open(97).await;
    let page = &stage.page;
    page.until(&format!(
        "{} === '2' && {} === '98'",
        tile("down"),
        tile("ok")
    ))
    .await;
    page.until(
        "[...document.querySelectorAll('#grid > article')].slice(0, 3).map((row) => row.dataset.name).join() \
         === 'service_41,service_97,service_00'",
    )
    .await;
    let tall = "document.querySelector('[data-name=\"service_50\"]').offsetHeight";
    let height = page.value(tall).await.as_f64().unwrap();
    assert!(height < 60.0, "a row is {height} pixels high");
    assert_eq!(page.value("document.title").await, "2 down – Breakerbox");
    // Filters the list: first the ones that are down, then those of one name.
    page.value("document.querySelector('.tile[data-group=\"down\"]').click()")
        .await;
    page.until("document.querySelectorAll('#grid > article').length === 2")
        .await;
    page.value("document.querySelector('.tile[data-group=\"down\"]').click()")
        .await;
    page.until("document.querySelectorAll('#grid > article').length === 100")
        .await;
    // An expanded row shows the details, and stays expanded.
    let body = part("service_41", ".body");
    assert_eq!(page.value(&format!("{body} === null")).await, true);
    page.value(&format!("{}.click()", part("service_41", ".name")))
        .await;
    page.until(&format!(
        "!{body}.hidden && {body}.innerText.includes('Opens at')"
    ))
    .await;
    page.size(360, 740).await;
    assert_eq!(
        page.value("document.documentElement.scrollWidth").await,
        360
    );
    stage.finish(nothing).await;
}
