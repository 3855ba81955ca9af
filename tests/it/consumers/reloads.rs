//! Consumers in a configuration that changes while they run.

use super::nats::{NatsServer, count, publish, stored, stream, until_count};
use super::sidecar::{Service, configure, publish_calls, until_books, until_made};
use super::*;
use crate::gateway::serve::{Sidecar, command, configured};

/// Returns the consumers as the admin side shows them, once there are these.
async fn until_shown(sidecar: &Sidecar, names: &[&str]) -> serde_json::Value {
    let asked = async {
        loop {
            let shown = reqwest::get(sidecar.admin("/api/consumers")).await.unwrap();
            let shown: serde_json::Value = shown.json().await.unwrap();
            let own = shown.as_array().unwrap().iter();
            let own: Vec<&str> = own.map(|one| one["name"].as_str().unwrap()).collect();
            if own == names {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let shown = tokio::time::timeout(super::nats::PATIENCE, asked).await;
    shown.expect("they are shown")
}

#[tokio::test]
async fn edge_6_a_changed_consumer_takes_over_and_no_message_is_interrupted() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "");
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let sidecar = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    let other = "[consumers.other]\ndependency = \"web\"\nstream = \"OTHER\"\nsubject = \"other.>\"\n\
                 answers = \"answers.other\"";
    let publishing = async {
        for hundred in 1..5 {
            // Without the poison at its end.
            let numbers = hundred * 100..hundred * 100 + 77;
            publish_calls(&context, numbers, &[("idempotency-key", "k")]).await;
        }
    };
    let changing = async {
        for own in [
            "max_in_flight = 4",
            "max_in_flight = 7",
            "ack_wait = \"20s\"",
        ] {
            let before = service.calls();
            let more = async {
                while service.calls() < before + 30 && service.calls() < 300 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let more = tokio::time::timeout(super::nats::PATIENCE, more).await;
            more.expect("the consumer makes calls");
            configure(folder.path(), &nats, &url, &format!("{own}\n{other}"));
            sidecar.signal("HUP");
        }
        until_shown(&sidecar, &["jobs", "other"]).await;
    };
    tokio::join!(publishing, changing);
    until_made(&context, "OTHER").await;
    publish(
        &context,
        "other.one",
        &[("Nats-Msg-Id", "o1")],
        "a question",
    )
    .await;
    until_count(&context, "CALLS", 0).await;
    until_count(&context, "OTHER", 0).await;
    let answers = stored(&context, "ANSWERS").await;
    let mut ids: Vec<&str> = answers
        .iter()
        .map(|one| one.header("nats-msg-id"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((answers.len(), ids.len()), (309, 309));
    assert_eq!(count(&context, "dead_web").await, 0);
    // The books go on.
    let shown = until_books(&sidecar, |one| one["answered"] == 308).await;
    assert_eq!(shown[0]["returned"]["interrupted"], 0, "{shown}");
    assert_eq!(service.calls(), 309, "each was called once");
}

#[tokio::test]
async fn edge_6_a_removed_consumer_leaves_its_messages_and_takes_them_when_it_is_back() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "");
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let sidecar = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    publish_calls(&context, 100..110, &[]).await;
    until_count(&context, "CALLS", 0).await;
    let nats_url = nats.url();
    configured(
        folder.path(),
        &format!(
            "[fleet]\nservers = [\"{nats_url}\"]\n[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n"
        ),
    );
    sidecar.signal("HUP");
    until_shown(&sidecar, &[]).await;
    // It has asked for messages for a second at most.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    publish_calls(&context, 110..115, &[]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((count(&context, "CALLS").await, service.calls()), (5, 10));
    configure(folder.path(), &nats, &url, "");
    sidecar.signal("HUP");
    until_shown(&sidecar, &["jobs"]).await;
    until_count(&context, "CALLS", 0).await;
    assert_eq!(service.calls(), 15);
    // A new one has new books.
    until_books(&sidecar, |one| one["answered"] == 5).await;
    let metrics = reqwest::get(sidecar.admin("/metrics")).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("breakerbox_consumer_answered_total{consumer=\"jobs\"} 5"));
}
