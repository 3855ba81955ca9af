//! Order within partitions, with a real server and real sidecars.

use std::collections::BTreeMap;

use async_nats::jetstream::Context as JetStream;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, RetentionPolicy, Stream};
use breakerbox::config::FleetConfig;
use breakerbox::consume::{NatsQueue, QueueSettings};
use futures_util::StreamExt as _;

use super::nats::{NatsServer, PATIENCE, count, publish, stored, stream, until_count};
use super::sidecar::{Service, configure, until_books, until_made};
use super::*;
use crate::gateway::serve::{Sidecar, command};

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Publishes messages of all keys, in the order of their numbers.
async fn publish_all(context: &JetStream, numbers: std::ops::Range<u32>, poison: Option<&str>) {
    for number in numbers {
        for key in KEYS {
            let id = format!("{key}:{number}");
            let path = match poison == Some(&*id) {
                true => "/poison",
                false => "/work",
            };
            let headers = [
                ("Nats-Msg-Id", &*id),
                ("x-number", &*id),
                ("x-key", key),
                ("breakerbox-order", key),
                ("breakerbox-path", path),
                ("idempotency-key", &*id),
            ];
            publish(context, "calls.web.find", &headers, "a question").await;
        }
    }
}

/// Returns the numbers of each key in the order in which they were called first.
fn first_calls(service: &Service) -> BTreeMap<String, Vec<u32>> {
    let mut all: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for call in service.numbers() {
        let (key, number) = call.split_once(':').unwrap();
        let numbers = all.entry(key.to_owned()).or_default();
        let number = number.parse().unwrap();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    all
}

fn assert_in_order(service: &Service, count: u32) {
    let expected: Vec<u32> = (0..count).collect();
    for (key, numbers) in first_calls(service) {
        assert_eq!(numbers, expected, "{key}");
    }
    assert_eq!(service.overlaps(), Vec::<String>::new(), "two at once");
}

const OWN: &str = "ack_wait = \"2s\"\nmax_delay = \"1s\"\norder = \"key\"\n";

#[tokio::test]
async fn msg_9_messages_of_a_key_are_called_in_order_though_a_consumer_is_killed() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, &format!("{OWN}partitions = 4"));
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let first = Sidecar::start(command(folder.path()), 1);
    let second = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS_breakerbox_jobs_order").await;
    let publishing = publish_all(&context, 0..30, Some("a:3"));
    let killing = async {
        while service.calls() < 60 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.signal("KILL");
    };
    tokio::join!(publishing, killing);
    until_count(&context, "CALLS", 0).await;
    until_count(&context, "CALLS_breakerbox_jobs_order", 0).await;
    assert_in_order(&service, 30);
    let answers = stored(&context, "ANSWERS").await;
    let mut ids: Vec<&str> = answers
        .iter()
        .map(|one| one.header("nats-msg-id"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((answers.len(), ids.len()), (6 * 30 - 1, 6 * 30 - 1));
    assert!(ids.contains(&"answer:b:7"), "an id is the publisher's own");
    let dead = stored(&context, "dead_web").await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].header("nats-msg-id"), "dead:a:3");
    assert_eq!(dead[0].header("breakerbox-subject"), "calls.web.find");
    until_books(&second, |one| one["in_flight"] == 0 && one["pending"] == 0).await;
}

#[tokio::test]
async fn msg_9_another_number_of_partitions_keeps_the_order_of_what_is_there() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, &format!("{OWN}partitions = 4"));
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let before = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS_breakerbox_jobs_order").await;
    service.set_down(true);
    publish_all(&context, 0..10, None).await;
    until_count(&context, "CALLS", 0).await;
    before.signal("TERM");
    assert!(before.ended().await.success());
    let waiting = count(&context, "CALLS_breakerbox_jobs_order").await;
    assert_eq!(waiting, 60, "an outage ends no message");
    configure(folder.path(), &nats, &url, &format!("{OWN}partitions = 3"));
    service.set_down(false);
    let _after = Sidecar::start(command(folder.path()), 1);
    publish_all(&context, 10..20, None).await;
    until_count(&context, "CALLS", 0).await;
    until_count(&context, "CALLS_breakerbox_jobs_order", 0).await;
    assert_in_order(&service, 20);
    assert_eq!(count(&context, "ANSWERS").await, 120);
}

#[tokio::test]
async fn msg_9_a_lost_stream_of_the_order_is_made_anew_and_no_message_is_a_dead_letter() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &nats, &url, &format!("{OWN}partitions = 2"));
    let context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    let sidecar = Sidecar::start(command(folder.path()), 1);
    until_made(&context, "CALLS_breakerbox_jobs_order").await;
    publish_all(&context, 0..1, None).await;
    let all = KEYS.len() as u64;
    until_count(&context, "ANSWERS", all).await;
    let lost = context.delete_stream("CALLS_breakerbox_jobs_order").await;
    lost.unwrap();
    publish_all(&context, 1..4, None).await;
    until_count(&context, "ANSWERS", 4 * all).await;
    assert_in_order(&service, 4);
    assert_eq!(count(&context, "dead_web").await, 0);
    drop(sidecar);
}

const KEY_A: [(&str, &str); 1] = [("breakerbox-order", "a")];

/// Makes the stream of the order, with a duplicate window that is soon over.
async fn stream_of_order(context: &JetStream) -> Stream {
    let order = Config {
        name: "CALLS_breakerbox_jobs_order".to_owned(),
        subjects: vec!["breakerbox_order.CALLS.breakerbox_jobs.>".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        duplicate_window: Duration::from_millis(100),
        ..Config::default()
    };
    context.create_stream(order).await.unwrap()
}

/// Returns a queue with one partition that has begun to move messages.
async fn begin_to_move(nats: &NatsServer) -> NatsQueue {
    let mut settings = QueueSettings::new("jobs", "CALLS", "calls.>");
    settings.partitions = Some(nonzero(1));
    settings.ack_wait = Duration::from_secs(1);
    let fleet = FleetConfig::new(nats.url());
    let queue = NatsQueue::connect(&fleet, settings).await.unwrap();
    // It moves messages from its first successful question on.
    let begun = async {
        while queue.fetch_of(0, Duration::ZERO).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    queue
}

/// Waits until the consumer of the queue has made this number of deliveries.
async fn until_delivered(context: &JetStream, wanted: u64) {
    let stream = context.get_stream("CALLS").await.unwrap();
    let delivered = async {
        loop {
            let consumer = stream.get_consumer::<pull::Config>("breakerbox_jobs").await;
            if consumer.unwrap().cached_info().delivered.consumer_sequence >= wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, delivered).await.unwrap();
}

#[tokio::test]
async fn msg_9_a_message_is_moved_once_though_its_move_is_repeated_after_the_duplicate_window() {
    // What was moved cannot be acknowledged, so it is delivered again.
    let denied = "authorization { users: [ { user: u, password: p, permissions: { publish: \
                  { deny: [\"$JS.ACK.CALLS.>\", \"$JS.ACK.*.*.CALLS.>\"] } } } ] }\n\
                  no_auth_user: u\n";
    let Some(nats) = NatsServer::configured(denied).await else {
        return;
    };
    let context = nats.jetstream().await;
    let mut order = stream_of_order(&context).await;
    let mut queues = Vec::new();
    for _ in 0..3 {
        queues.push(begin_to_move(&nats).await);
    }
    publish(&context, "calls.a", &KEY_A, "a question").await;
    // Each queue waits for the word on its own delivery, so the third one follows the second move.
    until_delivered(&context, 3).await;
    assert_eq!(order.info().await.unwrap().state.last_sequence, 1);
    drop(queues);
}

#[tokio::test]
async fn msg_9_a_message_is_moved_once_though_a_replica_comes_late_with_it() {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let context = nats.jetstream().await;
    let mut order = stream_of_order(&context).await;
    // The late replica cannot write an intent: the bucket takes nothing that is as long.
    let mut notes = Config {
        name: "KV_breakerbox_messages".to_owned(),
        subjects: vec!["$KV.breakerbox_messages.>".to_owned()],
        max_messages_per_subject: 1,
        allow_rollup: true,
        max_message_size: 32,
        ..Config::default()
    };
    context.create_stream(notes.clone()).await.unwrap();
    let late = begin_to_move(&nats).await;
    publish(&context, "calls.a", &KEY_A, "first").await;
    until_delivered(&context, 1).await;
    publish(&context, "calls.a", &KEY_A, "second").await;
    // Another replica moves both. Without their ids, no duplicate window drops another move of them.
    let stream = context.get_stream("CALLS").await.unwrap();
    let consumer = stream.get_consumer::<pull::Config>("breakerbox_jobs").await;
    let consumer = consumer.unwrap();
    for text in ["first", "second"] {
        let next = consumer.batch().max_messages(1).expires(PATIENCE);
        let mut next = next.messages().await.unwrap();
        let message = next.next().await.unwrap().unwrap();
        assert_eq!(message.payload, text);
        let subject = "breakerbox_order.CALLS.breakerbox_jobs.1.0.calls.a";
        publish(&context, subject, &KEY_A, text).await;
        message.double_ack().await.unwrap();
    }
    notes.max_message_size = -1;
    context.update_stream(notes).await.unwrap();
    publish(&context, "calls.a", &KEY_A, "third").await;
    until_count(&context, "CALLS", 0).await;
    let moved = stored(&context, "CALLS_breakerbox_jobs_order").await;
    let moved: Vec<&str> = moved.iter().map(|one| &*one.payload).collect();
    assert_eq!(moved, ["first", "second", "third"]);
    assert_eq!(order.info().await.unwrap().state.last_sequence, 3);
    drop(late);
}
