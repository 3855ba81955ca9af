//! The time between the signal to stop and the end of serving, with a real process and signals.

use super::serve::{Sidecar, command, configured, folder, http, until};
use super::*;

/// Starts a sidecar with this delay and one dependency.
fn start(folder: &tempfile::TempDir, delay: &str, upstream: &Upstream) -> Sidecar {
    let text = format!(
        "[gateway]\nshutdown_delay = \"{delay}\"\n[dependencies.web]\nkind = \"http\"\nurl = \"{}\"\n",
        upstream.url()
    );
    configured(folder.path(), &text);
    Sidecar::start(command(folder.path()), 1)
}

#[tokio::test]
async fn edge_6_e4_calls_are_served_after_readiness_has_turned_until_a_second_signal() {
    let upstream = Upstream::of(async |_| "an answer").await;
    let folder = folder();
    let sidecar = start(&folder, "1h", &upstream);
    sidecar.signal("TERM");
    until(&sidecar.admin("/readyz"), |status, text| {
        status == 503 && text.contains("shutting down")
    })
    .await;
    for _ in 0..3 {
        // Each by a connection of its own: the door is open.
        let response = http().get(sidecar.url("/web/a")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.text().await.unwrap(), "an answer");
    }
    let live = http().get(sidecar.admin("/livez")).send().await.unwrap();
    assert_eq!(live.status(), 200);
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn edge_6_e4_the_delay_ends_by_itself() {
    let upstream = Upstream::of(async |_| "an answer").await;
    let folder = folder();
    let sidecar = start(&folder, "50ms", &upstream);
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}
