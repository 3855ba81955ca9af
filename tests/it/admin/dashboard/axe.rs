//! Accessibility as axe-core judges it, in every view of the page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::browser::Page;
use super::{Stage, nothing, part};
use crate::scripted::{ms, opens_after};
use crate::tools;

const AXE: &str = "axe-core@4.14.1";

/// Installs axe-core once into the target folder. Returns `None` if that is not possible; the test
/// is then skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(super) fn script() -> Option<String> {
    let npm = tools::find(&["npm"])?;
    let place: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(AXE.replace('@', "-"));
    let file = place.join("node_modules/axe-core/axe.min.js");
    if !file.is_file() {
        fs::create_dir_all(&place).unwrap();
        let mut install = Command::new(npm);
        install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]);
        let output = install.arg("--prefix").arg(&place).arg(AXE).output();
        let output = output.unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let required = std::env::var("BREAKERBOX_TEST_REQUIRE_ALL");
            assert_ne!(required.as_deref(), Ok("1"), "{AXE}: {said}");
            eprintln!("passed by: {AXE} cannot be installed: {said}");
            return None;
        }
    }
    Some(fs::read_to_string(file).unwrap())
}

/// Asserts that axe-core finds nothing in the page as it is.
pub(super) async fn no_violations(page: &Page, view: &str) {
    let run = "axe.run(document).then((found) => found.violations.map(({ id, nodes }) => \
        `${id}: ${nodes.slice(0, 3).map(({ target }) => target.join()).join(' and ')}`))";
    assert_eq!(page.value(run).await, json!([]), "{view}");
}

#[tokio::test]
async fn item_100_axe_finds_nothing_in_any_view() {
    let Some(axe) = script() else {
        return;
    };
    for count in [3, 30] {
        let names: Vec<String> = (0..count)
            .map(|number| format!("service_{number:02}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Some(stage) = Stage::start(&names, opens_after(1, ms(600_000))).await else {
            return;
        };
        stage.open(1).await;
        let page = &stage.page;
        page.until(&format!(
            "{}.innerText === 'Down'",
            part("service_01", ".health")
        ))
        .await;
        // As the inspector adds it: the page's own policy admits no foreign script.
        page.value(&format!("{axe}; true")).await;
        for (scheme, width) in [
            ("light", 1280),
            ("dark", 1280),
            ("light", 390),
            ("dark", 390),
        ] {
            page.scheme(scheme).await;
            page.size(width, 900).await;
            no_violations(page, &format!("{count}, {scheme}, {width}")).await;
        }
        page.size(1280, 900).await;
        page.value("document.querySelectorAll('details').forEach((one) => { one.open = true })")
            .await;
        // Collapses a card, or expands a row.
        page.value(&format!("{}.click()", part("service_01", ".name")))
            .await;
        no_violations(page, &format!("{count}, all of it")).await;
        page.value("document.querySelector('#sign').click()").await;
        page.until("document.querySelector('#order').open").await;
        no_violations(page, &format!("{count}, the dialog")).await;
        stage.finish(nothing).await;
    }
}
