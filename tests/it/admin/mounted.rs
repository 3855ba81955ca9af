//! The routes of the admin side below a path of another router.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use tower::ServiceExt as _;

use super::Rig;

/// Asks as a browser does, and follows a redirect. Returns the path that answered, and its text.
async fn open(router: &Router, path: &str) -> (StatusCode, String, String) {
    let mut path = path.to_owned();
    loop {
        let request = Request::get(&*path).header("host", "localhost");
        let request = request.body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        if status == StatusCode::TEMPORARY_REDIRECT {
            let target = answer.headers()["location"].to_str().unwrap();
            path = beside(&path, target);
            continue;
        }
        let text = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        return (status, path, String::from_utf8(text.to_vec()).unwrap());
    }
}

/// Returns the path of a reference relative to a page.
fn beside(page: &str, reference: &str) -> String {
    let (folder, _) = page.rsplit_once('/').unwrap();
    format!("{folder}/{}", reference.trim_start_matches("./"))
}

#[tokio::test]
async fn ops_1_the_dashboard_works_wherever_its_routes_are_mounted() {
    let rig = Rig::start(|_| {}).await;
    let routes = || rig.admin.router();
    let mounted = [
        (Router::new().nest("/breakers", routes()), "/breakers"),
        (
            Router::new().nest_service("/breakers", routes()),
            "/breakers",
        ),
        (
            Router::new().nest_service("/breakers", routes()),
            "/breakers/",
        ),
        (Router::new().nest("/a/b:c", routes()), "/a/b:c"),
        (
            Router::new().nest("/a", Router::new().nest("/b", routes())),
            "/a/b",
        ),
        (Router::new().merge(routes()), "/"),
    ];
    for (router, path) in mounted {
        let (status, page_path, page) = open(&router, path).await;
        assert_eq!(status, 200, "{path}");
        let references = page
            .split(['"'])
            .filter(|text| text.starts_with("dashboard/"));
        let references: Vec<&str> = references.collect();
        assert!(references.len() >= 2, "style and script: {references:?}");
        for reference in references.into_iter().chain(["api/dependencies"]) {
            let (status, path, _) = open(&router, &beside(&page_path, reference)).await;
            assert_eq!(status, 200, "{path}");
        }
    }
    rig.finish().await;
}
