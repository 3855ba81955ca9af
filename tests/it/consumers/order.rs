//! Order within the partitions of a queue.

use std::collections::BTreeMap;

use breakerbox_policy::{RetryJitter, partition_of};

use super::*;

const PARTITIONS: u32 = 4;

/// A bed with a queue that keeps the order of its messages.
async fn ordered(settings: DependencySettings) -> Bed {
    Bed::with(settings, ScriptedQueue::ordered(nonzero(PARTITIONS))).await
}

/// Adds a message with a key.
fn push(bed: &Bed, id: &str, key: &str, text: &str) {
    let message = QueueMessage::new(id, text.as_bytes());
    bed.queue.push(message.with_header("breakerbox-order", key));
}

/// Returns a key for each partition.
fn keys() -> Vec<String> {
    let of = |partition: u32| {
        let mut all = (0..).map(|number| format!("tenant-{number}"));
        all.find(|key| partition_of(key, nonzero(PARTITIONS)) == partition)
            .unwrap()
    };
    (0..PARTITIONS).map(of).collect()
}

/// Returns the numbers of the answered messages by their keys, in the order of the answers. An id is
/// a key, a colon, and a number.
fn answered(bed: &Bed) -> BTreeMap<String, Vec<u32>> {
    let mut all: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for answer in bed.queue.published("answers.jobs") {
        let (key, number) = answer.id["answer:".len()..].split_once(':').unwrap();
        let numbers = all.entry(key.to_owned()).or_default();
        numbers.push(number.parse().unwrap());
    }
    all
}

#[test]
fn msg_9_a_message_that_was_given_back_delays_its_own_partition_only() {
    run_paused(async || {
        let mut settings = settings();
        // Short random delays would end the poison before the others are there.
        settings.retry.backoff.jitter = RetryJitter::None;
        let bed = ordered(settings).await;
        let keys = keys();
        push(&bed, &format!("{}:0", keys[0]), &keys[0], "poison");
        let consumer = bed.start(bed.jobs(consumer()).idempotent()).await;
        for number in 1..40 {
            for key in &keys {
                push(&bed, &format!("{key}:{number}"), key, "work");
            }
            tokio::time::sleep(ms(10)).await;
        }
        bed.until("the poison is dead", || {
            consumer.status().tally.dead(DeadReason::Failures) == 1
        })
        .await;
        let before = answered(&bed);
        assert_eq!(before.get(&keys[0]), None, "its own partition waits");
        for key in &keys[1..] {
            assert!(before[key].len() > 10, "{key} did not wait: {before:?}");
        }
        bed.until("all have ended", || bed.queue.waiting() == 0)
            .await;
        let expected: Vec<u32> = (1..40).collect();
        for (key, numbers) in answered(&bed) {
            assert_eq!(numbers, expected, "{key}");
        }
        let tally = consumer.status().tally;
        assert_eq!((tally.answered, tally.all_dead()), (39 * 4, 1));
        assert!(tally.adds_up() && tally.in_flight == 0, "{tally:?}");
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_9_the_order_stands_after_an_outage_in_which_one_message_is_the_probe() {
    run_paused(async || {
        let bed = ordered(settings()).await;
        let consumer = bed.start(bed.jobs(consumer()).idempotent()).await;
        let keys = keys();
        for number in 0..50 {
            for key in &keys {
                push(&bed, &format!("{key}:{number}"), key, "work");
            }
        }
        bed.until("some are answered", || {
            consumer.status().tally.answered >= 20
        })
        .await;
        bed.is_down.store(true, Ordering::SeqCst);
        let calls = bed.script.calls();
        tokio::time::sleep(Duration::from_secs(10)).await;
        // The threshold and one message of each partition, then one probe a period.
        let calls = bed.script.calls() - calls;
        assert!((4..=18).contains(&calls), "{calls} calls while it was down");
        bed.is_down.store(false, Ordering::SeqCst);
        bed.until("all are answered", || bed.queue.waiting() == 0)
            .await;
        let expected: Vec<u32> = (0..50).collect();
        for (key, numbers) in answered(&bed) {
            assert_eq!(numbers, expected, "{key}");
        }
        let tally = consumer.status().tally;
        assert_eq!((tally.answered, tally.all_dead()), (200, 0));
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_9_each_partition_gets_its_turn_where_places_are_fewer() {
    run_paused(async || {
        let mut settings = settings();
        settings.bulkhead.max_concurrent = nonzero(1);
        let bed = ordered(settings).await;
        let consumer = bed.start(bed.jobs(consumer()).idempotent()).await;
        let keys = keys();
        // A partition with much to do, and one with little.
        for number in 0..200 {
            push(&bed, &format!("{}:{number}", keys[0]), &keys[0], "work");
        }
        tokio::time::sleep(ms(100)).await;
        push(&bed, &format!("{}:0", keys[3]), &keys[3], "work");
        let answers = |key: &str| answered(&bed).get(key).map_or(0, Vec::len);
        bed.until("the other one is answered", || answers(&keys[3]) == 1)
            .await;
        assert!(answers(&keys[0]) < 20, "{}", answers(&keys[0]));
        bed.until("all are answered", || bed.queue.waiting() == 0)
            .await;
        assert_eq!(consumer.status().tally.answered, 201);
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_9_messages_without_a_key_have_no_order_and_all_are_answered() {
    run_paused(async || {
        let bed = ordered(settings()).await;
        for number in 0..40 {
            bed.push(&format!("m{number}"), "work");
        }
        let consumer = bed.start(bed.jobs(consumer()).idempotent()).await;
        bed.until("all are answered", || bed.queue.waiting() == 0)
            .await;
        assert_eq!(consumer.status().tally.answered, 40);
        bed.runtime.finish().await;
    });
}
