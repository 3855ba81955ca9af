//! What is not idempotent, while the server of the messages is killed in the middle of the work.

use std::collections::BTreeSet;

use breakerbox::config::FleetConfig;
use breakerbox::consume::{NatsQueue, QueueSettings};
use breakerbox::{QueueMessage, SourceError};

use super::nats::{NatsServer, PATIENCE, count, publish, stored, stream};
use super::sidecar::{Service, configure, publish_calls, until_made};
use super::*;
use crate::gateway::serve::{Sidecar, command};

/// Number of messages in a round; each of the two processes may work on all of them at once.
const MESSAGES: u32 = 6;
const ROUNDS: u32 = 2;

#[tokio::test]
async fn msg_7_what_is_not_idempotent_is_never_executed_twice_though_the_server_is_killed() {
    let Some(mut nats) = NatsServer::start().await else {
        return;
    };
    let (service, url) = Service::start().await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let sidecars = folders.each_ref().map(|folder| {
        configure(folder.path(), &nats, &url, "ack_wait = \"1s\"");
        Sidecar::start(command(folder.path()), 1)
    });
    let mut context = nats.jetstream().await;
    stream(&context, "ANSWERS", "answers.>").await;
    until_made(&context, "CALLS").await;
    for round in 1..=ROUNDS {
        let numbers = 100 * round..100 * round + MESSAGES;
        publish_calls(&context, numbers, &[("breakerbox-path", "/slow")]).await;
        let all = (round * MESSAGES) as usize;
        until(|| service.calls() >= all).await;
        nats.restart(Duration::from_secs(2)).await;
        context = nats.jetstream().await;
        let ended = async {
            while count(&context, "CALLS").await > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        assert!(
            ended.is_ok(),
            "{} messages are left",
            count(&context, "CALLS").await
        );
    }
    let calls = service.by_number();
    let twice: Vec<_> = calls.iter().filter(|(_, calls)| **calls > 1).collect();
    assert!(twice.is_empty(), "executed twice: {twice:?}");
    let mut ends: BTreeSet<String> = BTreeSet::new();
    for one in stored(&context, "ANSWERS").await {
        ends.extend(
            one.header("nats-msg-id")
                .strip_prefix("answer:")
                .map(str::to_owned),
        );
    }
    for one in stored(&context, "dead_web").await {
        ends.extend(
            one.header("nats-msg-id")
                .strip_prefix("dead:")
                .map(str::to_owned),
        );
    }
    assert_eq!(ends.len(), calls.len(), "{ends:?}");
    // A message that came again would only be acknowledged.
    let notes = stored(&context, "KV_breakerbox_messages_default").await;
    let answered = notes
        .iter()
        .filter(|one| one.payload.starts_with("1 0 0 2 "));
    assert_eq!(answered.count() as u64, count(&context, "ANSWERS").await);
    drop(sidecars);
}

async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

async fn fetch_one(queue: &NatsQueue) -> QueueMessage {
    let fetching = async {
        loop {
            let messages = queue
                .fetch(1, Duration::from_secs(1))
                .await
                .unwrap_or_default();
            if let Some(message) = messages.into_iter().next() {
                return message;
            }
        }
    };
    tokio::time::timeout(PATIENCE, fetching).await.unwrap()
}

#[tokio::test]
async fn msg_7_only_one_of_two_consumers_may_begin_the_work_of_a_message() {
    for is_of_others in [false, true] {
        work_of_two_consumers(is_of_others).await;
    }
}

/// `is_of_others`: the stream was made by others, and keeps messages that have ended.
async fn work_of_two_consumers(is_of_others: bool) {
    let Some(nats) = NatsServer::start().await else {
        return;
    };
    let mut settings = QueueSettings::new("jobs", "CALLS", "calls.>");
    settings.ack_wait = Duration::from_secs(1);
    let fleet = FleetConfig::new(nats.url());
    let first = NatsQueue::connect(&fleet, settings.clone()).await.unwrap();
    let second = NatsQueue::connect(&fleet, settings.clone()).await.unwrap();
    let context = nats.jetstream().await;
    if is_of_others {
        stream(&context, "CALLS", "calls.>").await;
    } else {
        // It makes the stream once it is connected.
        let made = async {
            while first.fetch(1, Duration::ZERO).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, made).await.unwrap();
    }
    publish(
        &context,
        "calls.find",
        &[("Nats-Msg-Id", "7")],
        "a question",
    )
    .await;
    let at_first = fetch_one(&first).await;
    let at_second = fetch_one(&second).await;
    assert_eq!(
        at_first.place, at_second.place,
        "nothing was heard of it for a second"
    );
    let unmarked = first.notes(&at_first).await.unwrap();
    assert_eq!(unmarked, MessageNotes::default());
    let returned = MessageNotes {
        returns: 1,
        ..unmarked
    };
    first.keep_notes(&at_first, returned).await.unwrap();
    let begun = MessageNotes {
        work: NotedWork::Begun,
        ..returned
    };
    second.claim(&at_second, begun).await.unwrap();
    let refused = first.claim(&at_first, begun).await;
    assert!(
        matches!(refused, Err(SourceError::Refused(_))),
        "{refused:?}"
    );
    // It asks again after the answer to its question was lost.
    second.claim(&at_second, begun).await.unwrap();
    assert_eq!(first.notes(&at_first).await.unwrap(), begun);
    let answered = MessageNotes {
        work: NotedWork::Answered,
        ..returned
    };
    second.keep_notes(&at_second, answered).await.unwrap();
    second.acknowledge(&at_second).await.unwrap();
    second.drop_notes(&at_second).await.unwrap();
    // A server that is killed now may deliver it once more.
    assert_eq!(first.notes(&at_first).await.unwrap(), answered);
    // It ends with notes that it has not dropped yet: whoever begins next does.
    second.close().await.unwrap();
    drop(second);
    assert_eq!(first.notes(&at_first).await.unwrap(), answered);
    drop(first);
    let next = NatsQueue::connect(&fleet, settings).await.unwrap();
    // A jump of the clock fails the questions that are under way and costs the connection, so each round
    // leaves them more time.
    for round in 0..12 {
        // It may not be connected yet.
        let fetched = next.fetch(1, Duration::ZERO).await.unwrap_or_default();
        assert!(fetched.is_empty(), "it has ended");
        let notes = next.notes(&at_first).await;
        if notes.is_ok_and(|notes| notes != answered) {
            return;
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(121)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(20) * (1 << round)).await;
    }
    panic!("the notes of the ended message are still there");
}
