//! The list of dependencies: its order, its filter, both in the address, and its cost.

use serde_json::json;

use super::{Stage, nothing, part, tile};
use crate::scripted::{Do, ms, opens_after};

const NAMES: &str =
    "[...document.querySelectorAll('#grid > article')].map((row) => row.dataset.name)";
const HASH: &str = "decodeURIComponent(location.hash)";

fn services(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("service_{number:02}"))
        .collect()
}

#[tokio::test]
async fn item_100_the_state_of_the_list_is_in_the_address() {
    let names = services(20);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(stage) = Stage::start(&names, opens_after(1, ms(600_000))).await else {
        return;
    };
    stage.open(7).await;
    for _ in 0..3 {
        stage.clients[12].ask(Do::Answer(1)).await.unwrap();
    }
    let page = &stage.page;
    page.until(&format!("{} === '1'", tile("down"))).await;
    page.until(&format!("{NAMES}[0] === 'service_07'")).await;
    assert_eq!(page.text(HASH).await, "");
    // The order of a column.
    page.value("document.querySelector('[data-order-by=name]').click()")
        .await;
    page.until(&format!("{NAMES}[0] === 'service_00'")).await;
    assert_eq!(page.text(HASH).await, "#?order=name");
    // The row that is opened, and a filter. The row of the address stays, whatever the filter says.
    page.value(&format!("{}.click()", part("service_12", ".name")))
        .await;
    page.until(&format!("{HASH} === '#service_12?order=name'"))
        .await;
    page.value("document.querySelector('.tile[data-group=\"down\"]').click()")
        .await;
    page.until(&format!("{NAMES}.join() === 'service_07,service_12'"))
        .await;
    assert_eq!(page.text(HASH).await, "#service_12?show=down&order=name");
    // A new page at this address shows the same.
    let address = page.text("location.href").await;
    page.visit("about:blank").await;
    page.visit(&address).await;
    page.until(&format!("{NAMES}.join() === 'service_07,service_12'"))
        .await;
    page.until(&format!(
        "{}.innerText.includes('Opens at')",
        part("service_12", ".body")
    ))
    .await;
    page.until("document.querySelector('.tile[data-group=\"down\"]').ariaPressed === 'true'")
        .await;
    // A link to another row within the page.
    page.value("location.hash = '#service_03'").await;
    page.until(&format!(
        "{NAMES}.length === 20 && !{}.hidden",
        part("service_03", ".body")
    ))
    .await;
    page.until(&format!(
        "((box) => box.top >= 0 && box.top < innerHeight)({}.getBoundingClientRect())",
        part("service_03", ".name")
    ))
    .await;
    // One that does not exist is said, and shows all.
    page.value("location.hash = '#no_such'").await;
    page.until("document.querySelector('#shown').innerText === '20; there is none called no_such'")
        .await;
    stage.finish(nothing).await;
}

#[tokio::test]
async fn item_100_a_hundred_rows_are_cheap() {
    let names = services(100);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(stage) = Stage::start(&names, opens_after(1, ms(600_000))).await else {
        return;
    };
    let page = &stage.page;
    page.until(&format!("{} === '100'", tile("ok"))).await;
    // The details are built when they are shown, and the tree is one line.
    let nodes = page.value("document.querySelectorAll('*').length").await;
    let nodes = nodes.as_u64().unwrap();
    assert!(nodes < 4_000, "{nodes} elements");
    assert_eq!(
        page.value("document.querySelectorAll('.body').length")
            .await,
        0
    );
    page.value(&format!("{}.click()", part("service_50", ".name")))
        .await;
    page.until("document.querySelectorAll('.body').length === 1")
        .await;
    // Two keys lead past the rows to the events.
    page.press("Tab").await;
    page.value("document.activeElement.blur()").await;
    page.value("document.querySelector('[data-skip=events-title]').focus()")
        .await;
    page.press("Enter").await;
    page.until("document.activeElement.id === 'events-title'")
        .await;
    // Times name their zone.
    let zone = page.text("document.querySelector('#zone').innerText").await;
    assert!(zone.starts_with("Times in UTC"), "{zone}");
    stage.finish(nothing).await;
}

#[tokio::test]
async fn item_100_the_tree_shows_only_what_does_not_run() {
    let configure = |settings: &mut breakerbox_policy::DependencySettings| {
        opens_after(100, ms(600_000))(settings);
        settings.workers.intensity.max = 0;
    };
    let Some(stage) = Stage::start(&["search", "graph"], configure).await else {
        return;
    };
    let page = &stage.page;
    page.until("/^\\d+ actors run\\.$/.test(document.querySelector('#tree-runs').innerText)")
        .await;
    assert_eq!(
        page.value("document.querySelector('#tree').hidden").await,
        true
    );
    stage.ask(Do::Panic).await;
    page.until("document.querySelector('#tree').innerText.includes('panicked: told to')")
        .await;
    let listed = "[...document.querySelectorAll('#tree .child')].map((one) => one.innerText)";
    let listed = page.value(listed).await;
    let listed: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one.as_str())
        .collect();
    assert!(
        listed.iter().all(|path| path.contains("search")),
        "{listed:?}"
    );
    assert_ne!(json!(listed), json!([]));
    // Of a parked dependency, the first order is to restart it.
    let first = part("search", ".orders button");
    page.until(&format!("{first}.dataset.order === 'restart'"))
        .await;
    stage.finish(nothing).await;
}
