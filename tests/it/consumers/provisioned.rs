//! What consumers make at the servers, and what they say about what is missing there.

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use breakerbox::config::FleetConfig;
use breakerbox::consume::{NatsQueue, QueueSettings};
use breakerbox::{OutgoingMessage, SourceError};

use super::nats::{NatsServer, PATIENCE, count, publish, stream, until_count};
use super::sidecar::{Service, configure, publish_calls, until_books, until_made};
use super::*;
use crate::gateway::serve::{Sidecar, command};

/// Fetches until the servers have been asked; returns the last error.
async fn asked(
    queue: &NatsQueue,
    wanted: impl Fn(&Result<Vec<QueueMessage>, SourceError>) -> bool,
) {
    let mut last = None;
    let asking = async {
        loop {
            let fetched = queue.fetch(1, Duration::from_millis(20)).await;
            if wanted(&fetched) {
                return;
            }
            last = Some(fetched);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    assert!(asked.is_ok(), "{last:?}");
}

#[tokio::test]
async fn msg_6_subjects_of_dead_letters_with_like_names_have_a_stream_each() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let fleet = FleetConfig::new(nats.url());
    let context = nats.jetstream().await;
    for (name, dead_letters) in [
        ("one", "dead.a_b"),
        ("two", "dead.a.b"),
        ("three", "dead.a.b"),
    ] {
        let mut settings = QueueSettings::new(name, format!("S_{name}"), format!("calls.{name}"));
        settings.dead_letters = dead_letters.to_owned();
        let queue = NatsQueue::connect(&fleet, settings).await.unwrap();
        asked(&queue, Result::is_ok).await;
        publish(&context, dead_letters, &[("Nats-Msg-Id", name)], "a letter").await;
    }
}

#[tokio::test]
async fn msg_7_a_message_is_outstanding_until_it_is_acknowledged() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let context = nats.jetstream().await;
    let fleet = FleetConfig::new(nats.url());
    // Another one keeps what has ended.
    stream(&context, "KEPT", "kept.>").await;
    for (name, subject) in [("CALLS", "calls.a"), ("KEPT", "kept.a")] {
        let settings = QueueSettings::new(name, name, subject);
        let queue = NatsQueue::connect(&fleet, settings).await.unwrap();
        asked(&queue, Result::is_ok).await;
        publish(&context, subject, &[], "a question").await;
        let fetched = queue.fetch(1, Duration::from_secs(5)).await.unwrap();
        assert_eq!(queue.is_outstanding(&fetched[0]).await, Ok(true));
        queue.acknowledge(&fetched[0]).await.unwrap();
        assert_eq!(queue.is_outstanding(&fetched[0]).await, Ok(false));
        // The second one ends first.
        publish(&context, subject, &[], "a question").await;
        publish(&context, subject, &[], "a question").await;
        let mut fetched = Vec::new();
        while fetched.len() < 2 {
            fetched.extend(queue.fetch(2, Duration::from_secs(5)).await.unwrap());
        }
        queue.acknowledge(&fetched[1]).await.unwrap();
        // A stream that keeps what has ended cannot tell.
        let is_known = name == "CALLS";
        assert_eq!(queue.is_outstanding(&fetched[1]).await, Ok(!is_known));
        assert_eq!(queue.is_outstanding(&fetched[0]).await, Ok(true));
        queue.acknowledge(&fetched[0]).await.unwrap();
        for message in &fetched {
            assert_eq!(queue.is_outstanding(message).await, Ok(false));
        }
    }
}

#[tokio::test]
async fn msg_3_a_durable_consumer_that_the_server_refuses_is_named_with_the_cure() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let fleet = FleetConfig::new(nats.url());
    let first = QueueSettings::new("first", "CALLS", "calls.>");
    let first = NatsQueue::connect(&fleet, first).await.unwrap();
    asked(&first, Result::is_ok).await;
    let second = QueueSettings::new("second", "CALLS", "calls.>");
    let second = NatsQueue::connect(&fleet, second).await.unwrap();
    asked(&second, |fetched| {
        let Err(error) = fetched else {
            return false;
        };
        let text = error.to_string();
        text.contains("breakerbox_second of the stream CALLS") && text.contains("set `durable` to")
    })
    .await;
}

#[tokio::test]
async fn msg_3_a_stream_of_other_subjects_is_named_with_the_cure() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    stream(&nats.jetstream().await, "CALLS", "other.>").await;
    let settings = QueueSettings::new("first", "CALLS", "calls.>");
    let fleet = FleetConfig::new(nats.url());
    let queue = NatsQueue::connect(&fleet, settings).await.unwrap();
    asked(&queue, |fetched| {
        let error = fetched.as_ref().err().map(ToString::to_string);
        error.is_some_and(|text| text.contains("add calls.> to them"))
    })
    .await;
}

#[tokio::test]
async fn msg_6_a_subject_that_the_account_may_not_publish_to_is_refused_by_its_name() {
    let denied = "authorization { users: [ { user: u, password: p, permissions: { publish: \
                  { deny: [\"dead.>\"] } } } ] }\nno_auth_user: u\n";
    let Some(nats) = NatsServer::configured(denied).await else {
        return;
    };
    let fleet = FleetConfig::new(nats.url());
    let mut settings = QueueSettings::new("first", "CALLS", "calls.>");
    settings.dead_letters = "dead.first".to_owned();
    let queue = NatsQueue::connect(&fleet, settings).await.unwrap();
    asked(&queue, Result::is_ok).await;
    let letter = OutgoingMessage::new("dead:1", "dead.first", Vec::new(), *b"a letter");
    let published = queue.publish(&letter).await;
    let Err(SourceError::Refused(why)) = &published else {
        panic!("{published:?}");
    };
    assert!(why.contains("may not publish to dead.first"), "{why}");
}

#[tokio::test]
async fn msg_2_answers_wait_for_room_in_a_stream_that_is_full() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "");
    let context = nats.jetstream().await;
    let full = Config {
        name: "ANSWERS".to_owned(),
        subjects: vec!["answers.>".to_owned()],
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let answers = context.create_stream(full).await.unwrap();
    let sidecar = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS").await;
    publish_calls(&context, 0..2, &[]).await;
    until_count(&context, "ANSWERS", 1).await;
    let called = async {
        while service.calls() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, called).await.unwrap();
    answers.purge().await.unwrap();
    until_count(&context, "ANSWERS", 1).await;
    until_count(&context, "CALLS", 0).await;
    assert_eq!(count(&context, "dead_web").await, 0);
    assert_eq!(service.calls(), 2);
    drop(sidecar);
}

#[tokio::test]
async fn msg_6_a_full_stream_of_dead_letters_holds_no_message_in_flight() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (_service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "");
    let context = nats.jetstream().await;
    let full = Config {
        name: "dead_web".to_owned(),
        subjects: vec!["dead.web".to_owned()],
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    context.create_stream(full).await.unwrap();
    stream(&context, "ANSWERS", "answers.>").await;
    let sidecar = Sidecar::start(command(folder.path()), 2);
    until_made(&context, "CALLS").await;
    // Their paths lead out of the dependency's address.
    publish_calls(&context, 0..3, &[("breakerbox-path", "/../x")]).await;
    until_count(&context, "dead_web", 1).await;
    until_books(&sidecar, |books| {
        // `returned` has a number for each reason.
        let returned = books["returned"].as_object().unwrap().values();
        let returned: u64 = returned.filter_map(serde_json::Value::as_u64).sum();
        books["in_flight"] == 0 && returned >= 2
    })
    .await;
    drop(sidecar);
}

#[tokio::test]
async fn msg_7_a_bucket_of_notes_that_was_deleted_is_made_anew() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "");
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    until_made(&context, "CALLS").await;
    publish_calls(&context, 0..1, &[]).await;
    until_count(&context, "ANSWERS", 1).await;
    context
        .delete_stream("KV_breakerbox_messages_default")
        .await
        .unwrap();
    publish_calls(&context, 1..2, &[]).await;
    until_count(&context, "ANSWERS", 2).await;
    assert_eq!(service.calls(), 2);
    drop(sidecar);
}

#[tokio::test]
async fn msg_2_a_missing_stream_for_answers_is_warned_of_without_a_message() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (_service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, "");
    let log = folder.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let sidecar = Sidecar::start_logged(command(folder.path()), 1, file.into());
    let warned = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.contains("no stream at the servers takes answers to answers.web") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, warned).await.unwrap();
    drop(sidecar);
}
