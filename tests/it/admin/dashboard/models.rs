//! Language models, pools and a fleet on the page: their tables hold on a wide screen and on a phone.

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use axum::routing::post;
use serde_json::json;

use super::{LIVE, Page, Stage, axe, nothing};
use crate::gateway::serve::{Sidecar, command, configured, http};
use crate::scripted::{ms, opens_after};

/// A whole stream of Chat Completions, with its usage.
fn stream() -> String {
    let event = |choices: serde_json::Value, usage: serde_json::Value| {
        let event = json!({"id": "c", "object": "chat.completion.chunk", "model": "m",
            "choices": choices, "usage": usage});
        format!("data: {event}\n\n")
    };
    let delta = |delta: serde_json::Value, end: serde_json::Value| json!([{"index": 0, "delta": delta, "finish_reason": end}]);
    let usage = json!({"prompt_tokens": 1200, "completion_tokens": 340, "total_tokens": 1540,
        "prompt_tokens_details": {"cached_tokens": 800}});
    let text = event(delta(json!({"content": "well"}), json!(null)), json!(null));
    let end = event(delta(json!({}), json!("stop")), usage);
    format!("{text}{end}data: [DONE]\n\n")
}

/// Starts two providers: one whose quota is used up, and one that answers. Returns their addresses.
async fn providers() -> [String; 2] {
    let empty = json!({"error": {"message": "no", "type": "insufficient_quota", "param": null,
        "code": "insufficient_quota"}});
    let refuses = move || async move { (StatusCode::TOO_MANY_REQUESTS, axum::Json(empty)) };
    let answers = || async { ([(CONTENT_TYPE, "text/event-stream")], stream()).into_response() };
    let serve = async |router: Router| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    };
    let path = "/chat/completions";
    [
        serve(Router::new().route(path, post(refuses))).await,
        serve(Router::new().route(path, post(answers))).await,
    ]
}

/// The expression that is true if no head of a table's columns and rows is broken into several lines.
fn unbroken(table: &str) -> String {
    format!(
        "[...document.querySelectorAll('{table} th')].every((head) => {{ const range = \
         document.createRange(); range.selectNodeContents(head); return new \
         Set([...range.getClientRects()].map(({{ top }}) => top)).size === 1; }})"
    )
}

/// The expression for the texts of a table, cell by cell, line by line.
fn cells(table: &str) -> String {
    format!(
        "[...document.querySelectorAll('{table} tr')].map((row) => \
         [...row.children].map((cell) => cell.innerText.trim()).join(' | ')).join('\\n')"
    )
}

const NARROW: &str = "document.documentElement.scrollWidth <= innerWidth";

#[tokio::test]
async fn llm_22_models_and_pools_are_shown_with_their_tokens_and_limits() {
    let Some(page) = Page::start().await else {
        return;
    };
    let [first, second] = providers().await;
    let folder = tempfile::tempdir().unwrap();
    let model = |name: &str, url: &str, more: &str| {
        format!(
            "[dependencies.{name}]\nkind = \"model\"\napi = \"openai\"\nurl = \"{url}\"\n{more}"
        )
    };
    let text = format!(
        "{}{}[dependencies.chat]\nkind = \"pool\"\nmembers = [\"gpt\", \"gemini\"]\n",
        model("gpt", &first, "key = \"sk-a\"\n"),
        model(
            "gemini",
            &second,
            "key = \"sk-b\"\ntoken_limit = { rate = 90000, of = \"input\" }\n"
        ),
    );
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    page.visit(&sidecar.admin("/")).await;
    page.until(LIVE).await;
    let request = http().post(sidecar.url("/chat/v1/chat/completions"));
    let request = request.header("content-type", "application/json");
    let asked =
        json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "?"}]});
    let response = request.body(asked.to_string()).send().await.unwrap();
    assert_eq!(response.headers()["breakerbox-source"], "pool:gemini");
    response.bytes().await.unwrap();

    page.until("!document.querySelector('#models').hidden")
        .await;
    let pools = "document.querySelector('#pools-list').innerText.replace(/\\s+/g, ' ')";
    page.until(&format!(
        "{pools}.startsWith('chat degraded asks gemini gpt down 0 in flight')"
    ))
    .await;
    let note = "document.querySelector('#models-note').innerText";
    assert_eq!(page.text(note).await, "1 pool is without the first choice");
    let grid = cells("#models-grid");
    page.until(&format!(
        "{grid}.includes('gemini: m | 1,200 | 800 | 340 | ')"
    ))
    .await;
    let shown = page.text(&grid).await;
    let row = shown.lines().find(|line| line.starts_with("gemini: m"));
    assert!(row.unwrap().ends_with(" | 1 | 0"), "{shown}");
    let limits = page
        .text("document.querySelector('#limits-list').innerText")
        .await;
    assert!(
        limits.contains("gemini") && limits.contains(" of 90,000 input tokens left, 0 held"),
        "{limits}"
    );
    for (width, scheme) in [(1400, "light"), (390, "dark")] {
        page.size(width, 900).await;
        page.scheme(scheme).await;
        page.until(NARROW).await;
        page.until(&unbroken("#models-grid")).await;
    }
    if let Some(script) = axe::script() {
        page.value(&script).await;
        axe::no_violations(&page, "models").await;
    }
    assert_eq!(page.complaints().await.len(), 0);
    page.close().await;
}

/// The script by which the page gets a fleet of two replicas and a hundred dependencies.
fn fleet() -> String {
    let quiet = json!({"evidence": 0, "lease": null, "verdict": null, "override": null});
    let closed = json!({"state": "closed", "evidence": false});
    let names = || (1..=100).map(|number| format!("service_{number}"));
    let mut known: serde_json::Map<_, _> = names().map(|name| (name, quiet.clone())).collect();
    let calm: serde_json::Map<_, _> = names().map(|name| (name, closed.clone())).collect();
    let mut sick = calm.clone();
    sick["service_7"] = json!({"state": "open", "evidence": true});
    known["service_7"]["evidence"] = json!(1);
    known["service_9"]["override"] = json!("open");
    let told = json!({"name": "shop", "connected": true, "replica": "eu-1", "dependencies": known,
        "replicas": [{"name": "eu-1", "self": true, "dependencies": sick},
            {"name": "eu-2", "self": false, "dependencies": calm}]});
    format!(
        "window.fetch = ((real) => (url, ...more) => url === 'api/fleet' ? \
         Promise.resolve(new Response(JSON.stringify({told}))) : real(url, ...more))(window.fetch)"
    )
}

#[tokio::test]
async fn item_15_a_fleet_of_many_dependencies_shows_those_that_differ() {
    let Some(stage) = Stage::start(&["dep"], opens_after(1, ms(600_000))).await else {
        return;
    };
    let page = &stage.page;
    page.value(&fleet()).await;
    let grid = cells("#fleet-grid");
    let expected = "dependency | eu-1 (this one) | eu-2 | fleet\\n\
        service_7 | open, by its own calls | closed | 1 open by their own calls\\n\
        service_9 | closed | closed | by order: open";
    page.until(&format!("{grid} === '{expected}'")).await;
    assert_eq!(
        page.text("document.querySelector('#fleet-calm').innerText")
            .await,
        "The other 98 dependencies are closed at every replica."
    );
    for width in [1400, 390] {
        page.size(width, 900).await;
        page.until(NARROW).await;
        page.until(&unbroken("#fleet-grid")).await;
    }
    stage.finish(nothing).await;
}
