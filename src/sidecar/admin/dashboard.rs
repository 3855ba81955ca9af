//! The dashboard: one page, its style and its scripts, embedded in the binary.
//!
//! The page uses the same API as every other client. It makes no decisions and contains no data.

use axum::Router;
use axum::extract::{OriginalUri, Path};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use super::Admin;
use super::problem::AdminProblem;

const PAGE: &str = include_str!("dashboard/index.html");

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Files that the page loads: name, media type, content.
const FILES: [(&str, &str, &str); 19] = [
    ("style.css", STYLE, include_str!("dashboard/style.css")),
    ("address.js", SCRIPT, include_str!("dashboard/address.js")),
    ("app.js", SCRIPT, include_str!("dashboard/app.js")),
    ("card.js", SCRIPT, include_str!("dashboard/card.js")),
    ("chart.js", SCRIPT, include_str!("dashboard/chart.js")),
    (
        "consumers.js",
        SCRIPT,
        include_str!("dashboard/consumers.js"),
    ),
    ("details.js", SCRIPT, include_str!("dashboard/details.js")),
    ("dom.js", SCRIPT, include_str!("dashboard/dom.js")),
    ("events.js", SCRIPT, include_str!("dashboard/events.js")),
    ("fleet.js", SCRIPT, include_str!("dashboard/fleet.js")),
    ("groups.js", SCRIPT, include_str!("dashboard/groups.js")),
    ("live.js", SCRIPT, include_str!("dashboard/live.js")),
    ("model.js", SCRIPT, include_str!("dashboard/model.js")),
    ("models.js", SCRIPT, include_str!("dashboard/models.js")),
    ("operate.js", SCRIPT, include_str!("dashboard/operate.js")),
    ("outage.js", SCRIPT, include_str!("dashboard/outage.js")),
    ("series.js", SCRIPT, include_str!("dashboard/series.js")),
    ("tree.js", SCRIPT, include_str!("dashboard/tree.js")),
    ("words.js", SCRIPT, include_str!("dashboard/words.js")),
];

/// Content security policy of the page: it may load from this server only, and runs no inline
/// script. A name or a reason that contains a script stays text (rule SEC-1).
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Returns the routes of the page and its files.
pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/", get(front))
        .route(PAGE_PATH, get(page))
        .route("/dashboard/{file}", get(file))
}

/// Path of the page below the place where the router is mounted.
const PAGE_PATH: &str = "/index.html";

/// Returns the page, or leads to it. Mounted by another router at `/breakers`, the page cannot be at
/// `/breakers` itself: its browser would look for `dashboard/app.js` beside that, at `/`.
async fn front(OriginalUri(asked): OriginalUri) -> Response {
    let path = asked.path();
    match path.rsplit_once('/') {
        Some((_, mounted)) if !mounted.is_empty() => {
            // Relative: a proxy may have cut off the beginning of the path.
            Redirect::temporary(&format!("./{mounted}{PAGE_PATH}")).into_response()
        }
        _ => page().await.into_response(),
    }
}

async fn page() -> impl IntoResponse {
    answer("text/html; charset=utf-8", PAGE)
}

async fn file(Path(name): Path<String>) -> Result<impl IntoResponse, AdminProblem> {
    let known = FILES.iter().find(|(known, _, _)| *known == name);
    let found = known.map(|(_, kind, content)| answer(kind, content));
    found.ok_or_else(|| {
        AdminProblem::new(404, "not-found", "the dashboard has no such file").given(name)
    })
}

fn answer(
    kind: &'static str,
    content: &'static str,
) -> ([(HeaderName, &'static str); 2], &'static str) {
    (
        [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY)],
        content,
    )
}
