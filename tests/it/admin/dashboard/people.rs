//! Accessibility: no mouse, no colours, screen readers, and small screens.

use super::{Stage, TOKEN, nothing, part, state};
use crate::scripted::{Do, ms, opens_after};

const FOCUS: &str = "(document.activeElement.id || document.activeElement.dataset.order || '')";

/// Presses `Tab` until this element has the focus.
async fn tab_to(stage: &Stage, wanted: &str) {
    for _ in 0..60 {
        stage.page.press("Tab").await;
        if stage.page.text(FOCUS).await == wanted {
            let outline = "getComputedStyle(document.activeElement).outlineStyle";
            assert_eq!(
                stage.page.text(outline).await,
                "solid",
                "the focus on {wanted}"
            );
            return;
        }
    }
    panic!("no way to {wanted} by keyboard");
}

#[tokio::test]
async fn item_100_the_page_is_operated_by_keyboard_alone() {
    let Some(stage) = Stage::start(&["search"], opens_after(1, ms(60_000))).await else {
        return;
    };
    let page = &stage.page;
    // The first link skips to the dependencies.
    page.press("Tab").await;
    assert_eq!(
        page.text("document.activeElement.innerText").await,
        "Skip to the dependencies"
    );
    page.press("Enter").await;
    page.until(&format!("{FOCUS} === 'dependencies'")).await;
    tab_to(&stage, "disable").await;
    page.press("Enter").await;
    page.until("document.querySelector('#order').open").await;
    page.until(&format!("{FOCUS} === 'order-reason'")).await;
    // Escape returns the focus to the button that opened the dialog.
    page.press("Escape").await;
    page.until(&format!(
        "!document.querySelector('#order').open && {FOCUS} === 'disable'"
    ))
    .await;
    assert_eq!(stage.clients[0].status().overridden, None);
    page.press("Space").await;
    page.until(&format!("{FOCUS} === 'order-reason'")).await;
    page.write("by keyboard").await;
    tab_to(&stage, "order-for").await;
    page.write("10m").await;
    tab_to(&stage, "order-token").await;
    page.write(TOKEN).await;
    page.press("Enter").await;
    page.until(&format!("{} === 'Breaker disabled'", state("search")))
        .await;
    // The card has changed, and the focus stays on the same button.
    page.until(&format!("{FOCUS} === 'disable'")).await;
    page.until("document.querySelector('#announce').textContent.includes('disabled')")
        .await;
    stage.finish(nothing).await;
}

/// Script that lists each text that has too little contrast to its background.
const FAINT: &str = r"
(() => {
  const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const pixel = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility({ opacityProperty: true })) continue;
    const behind = [];
    for (let at = node; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const [a, b] = [light(pixel(behind)), light(pixel([...behind, getComputedStyle(node).color]))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) bad.push(`${contrast.toFixed(2)}: ${walk.currentNode.data.trim()}`);
  }
  return bad;
})()";

#[tokio::test]
async fn item_100_every_text_can_be_read_and_fits_on_a_phone() {
    let long = "a_dependency_with_a_name_that_is_much_longer_than_any_phone_is_wide";
    let Some(stage) = Stage::start(&["search", long, "graph"], opens_after(1, ms(600_000))).await
    else {
        return;
    };
    let page = &stage.page;
    stage.open(1).await;
    stage.ask(Do::Panic).await;
    let reason = "x".repeat(300);
    let command = breakerbox_policy::BreakerCommand::Shadow {
        reason,
        until: None,
    };
    stage.clients[2].operate(command).await.unwrap();
    page.until(&format!(
        "{} === 'Breaker shadow' && {} === 'Breaker open'",
        state("graph"),
        state(long)
    ))
    .await;
    page.until("document.querySelector('#tree-runs').innerText.includes('actors run')")
        .await;
    page.value("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        .await;
    page.until("document.querySelectorAll('#tree-all li').length > 3")
        .await;
    for scheme in ["light", "dark"] {
        page.scheme(scheme).await;
        for width in [360, 768, 1280] {
            page.size(width, 800).await;
            let wide = page.value("document.documentElement.scrollWidth").await;
            let wide = wide.as_u64().unwrap();
            assert!(wide <= u64::from(width), "{wide} of {width}, {scheme}");
        }
        let faint = page.value(FAINT).await;
        assert_eq!(faint, serde_json::json!([]), "{scheme}");
    }
    stage.finish(nothing).await;
}

#[tokio::test]
async fn item_100_everything_has_a_role_and_a_name_for_a_screen_reader() {
    let Some(stage) = Stage::start(&["search", "graph"], opens_after(1, ms(600_000))).await else {
        return;
    };
    let page = &stage.page;
    stage.open(0).await;
    page.until(&format!("{} === 'Breaker open'", state("search")))
        .await;
    page.until("document.querySelector('#announce').textContent.startsWith('search: open, ')")
        .await;
    page.value(&format!("{}.click()", part("graph", "[data-order=open]")))
        .await;
    page.until("document.querySelector('#order').open").await;
    check(&stage, &["dialog", "textbox", "combobox", "button"]).await;
    page.press("Escape").await;
    let landmarks = [
        "banner", "main", "region", "search", "status", "timer", "meter", "article",
    ];
    check(&stage, &landmarks).await;
    let headings = "[...document.querySelectorAll('h1, h2, h3')].filter((one) => one.checkVisibility()) \
        .map((one) => Number(one.tagName[1]))";
    let levels = page.value(headings).await;
    let levels: Vec<u64> = levels
        .as_array()
        .unwrap()
        .iter()
        .map(|level| level.as_u64().unwrap())
        .collect();
    assert_eq!(levels[0], 1);
    assert!(
        levels.windows(2).all(|two| two[1] <= two[0] + 1),
        "{levels:?}"
    );
    // Every id is unique, so a reference has one target.
    let double = "(() => { const ids = [...document.querySelectorAll('[id]')].map((one) => one.id); \
        return ids.filter((id, at) => ids.indexOf(id) !== at); })()";
    assert_eq!(page.value(double).await, serde_json::json!([]));
    stage.finish(nothing).await;
}

/// Checks the accessibility tree: these roles exist, and every control has a name.
async fn check(stage: &Stage, roles: &[&str]) {
    const NAMED: [&str; 9] = [
        "button",
        "textbox",
        "searchbox",
        "combobox",
        "dialog",
        "meter",
        "article",
        "region",
        "image",
    ];
    let tree = stage
        .page
        .tell("Accessibility.getFullAXTree", serde_json::json!({}))
        .await;
    let nodes = tree["nodes"].as_array().unwrap();
    let seen = nodes.iter().filter(|node| node["ignored"] != true);
    let seen: Vec<(&str, &str)> = seen
        .map(|node| {
            let word = |field: &str| node[field]["value"].as_str().unwrap_or_default();
            (word("role"), word("name"))
        })
        .collect();
    for role in roles {
        assert!(
            seen.iter().any(|(known, _)| known == role),
            "no {role} in {seen:?}"
        );
    }
    let nameless = seen
        .iter()
        .filter(|(role, name)| NAMED.contains(role) && name.is_empty());
    assert_eq!(nameless.collect::<Vec<_>>(), Vec::<&(&str, &str)>::new());
}

#[tokio::test]
async fn edge_7_an_announcement_is_short_and_has_no_control_characters() {
    let Some(stage) = Stage::start(&["search"], opens_after(1, ms(600_000))).await else {
        return;
    };
    let command = breakerbox_policy::BreakerCommand::Disable {
        reason: format!("\u{202e}{}", "a reason ".repeat(50)),
        until: None,
    };
    stage.clients[0].operate(command).await.unwrap();
    let announced = "document.querySelector('#announce').textContent";
    stage
        .page
        .until(&format!("{announced}.includes('\\\\u{{202e}}a reason')"))
        .await;
    let text = stage.page.text(announced).await;
    assert!(!text.contains('\u{202e}'), "{text}");
    assert!(text.ends_with("….") && text.chars().count() < 250, "{text}");
    stage.finish(nothing).await;
}
