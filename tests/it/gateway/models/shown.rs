//! Models and pools as operators see them: in the API, in metrics, and on the command line.

use super::*;
use crate::demo::breakerbox;
use crate::gateway::serve::{Sidecar, command, configured, http};

#[tokio::test]
async fn llm_22_llm_24_operators_see_pools_tokens_and_alerts() {
    let credit = json!({"error": {"message": "no", "type": "insufficient_quota", "param": null,
        "code": "insufficient_quota"}});
    let first = Provider::of([Act::error(429, credit)]).await;
    let second = Provider::good("well").await;
    let folder = tempfile::tempdir().unwrap();
    let limit = "key = \"sk-b\"\ntoken_limit = { rate = 9000 }\n";
    let text = format!(
        "{}{}[dependencies.chat]\nkind = \"pool\"\nmembers = [\"a\", \"b\"]\n",
        model("a", &first, "key = \"sk-a\"\n"),
        model("b", &second, limit),
    );
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let request = http().post(sidecar.url("/chat/v1/chat/completions"));
    let request = request.header("content-type", "application/json");
    let response = request.body(asked("m", true)).send().await.unwrap();
    assert_eq!(header(&response, "breakerbox-source"), "pool:b");
    response.bytes().await.unwrap();
    let read = async |path: &str| {
        let answer = http().get(sidecar.admin(path)).send().await.unwrap();
        answer.text().await.unwrap()
    };
    let told: Value = serde_json::from_str(&read("/api/models").await).unwrap();
    let pool = &told["pools"][0];
    assert_eq!(
        (&pool["name"], &pool["health"], &pool["next"]),
        (&json!("chat"), &json!("degraded"), &json!("b")),
        "{told}"
    );
    assert_eq!(pool["health_reason"], "b takes the calls of a");
    assert_eq!(pool["members"][0]["health"], "down");
    let figures = told["models"].as_array().unwrap();
    let good = figures.iter().find(|one| one["dependency"] == "b").unwrap();
    assert_eq!(
        (&good["model"], &good["streams"]["good"]),
        (&json!("m"), &json!(1))
    );
    assert_eq!(told["token_limits"][0]["reserved"], 0);
    let metrics = read("/metrics").await;
    assert!(
        metrics.contains("breakerbox_token_limit_reserved{dependency=\"b\",of=\"total\"} 0"),
        "{metrics}"
    );
    let alerts: Value = serde_json::from_str(&read("/api/alerts").await).unwrap();
    assert_eq!(alerts[0]["kind"], "quota_used_up", "{alerts}");
    assert_eq!(alerts[0]["state"], "active");
    let admin = sidecar.admin("");
    let shown = tokio::task::spawn_blocking(move || {
        let mut command = breakerbox(&["status", "--admin", admin.trim_end_matches('/')]);
        command.output().unwrap()
    });
    let shown = String::from_utf8(shown.await.unwrap().stdout).unwrap();
    assert!(
        shown.contains("asked next") && shown.contains("degraded"),
        "{shown}"
    );
}
