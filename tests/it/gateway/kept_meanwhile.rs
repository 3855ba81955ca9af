//! Kept answers and what happens while they are on their way, or between their keeping and their
//! serving (rule EDGE-2).

use std::sync::atomic::AtomicBool;

use super::*;

const CACHE: &str =
    "breaker = { failure_threshold = 1000 }\nfallback = [{ kind = \"stale_cache\" }]";

#[tokio::test]
async fn edge_2_kept_answers_do_not_outlive_another_credential_of_ours() {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let upstream = Upstream::of(move |_| {
        let is_down = down.load(Ordering::SeqCst);
        async move { answer(if is_down { 503 } else { 200 }, "kept") }
    })
    .await;
    let one = "headers = { authorization = \"Bearer one\" }\n";
    for (before, after, is_kept) in [
        (one, "headers = { authorization = \"Bearer two\" }\n", false),
        (one, "", false),
        ("", "remove_headers = [\"authorization\"]\n", false),
        ("", "forwarded = false\n", false),
        (
            one,
            "headers = { authorization = \"Bearer one\" }\nidempotent = [\"GET\"]\n",
            true,
        ),
    ] {
        is_down.store(false, Ordering::SeqCst);
        let bed = Bed::new(&upstream.url(), &format!("{before}{CACHE}")).await;
        assert_eq!(bed.get("/web/a").await.text().await.unwrap(), "kept");
        let text = format!(
            "[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n{after}{CACHE}",
            upstream.url()
        );
        let settings = Settings::loader().bare().toml(&text).load().unwrap();
        bed.runtime.reload(settings.clone(), "test").await;
        let web = &settings.dependencies["web"];
        bed.gateway
            .put("web", web, &upstream.url(), "test")
            .await
            .unwrap();
        is_down.store(true, Ordering::SeqCst);
        let status = if is_kept { 200 } else { 503 };
        assert_eq!(bed.get("/web/a").await.status(), status, "{before}{after}");
        bed.end().await;
    }
}
