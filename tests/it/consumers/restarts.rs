//! Crashes and ends of consumers.

use super::*;
use breakerbox_actors::{OutgoingMessage, SourceFuture};

#[test]
fn msg_7_work_that_may_have_been_done_is_not_done_again() {
    // A server that was killed, or a durable that was made anew, counts from one again.
    for deliveries in [1, 2] {
        run_paused(async move || {
            let bed = Bed::new().await;
            let marked = MessageNotes {
                work: NotedWork::Begun,
                ..MessageNotes::default()
            };
            for (id, key) in [("once", None), ("twice", Some("k"))] {
                let mut message = QueueMessage::new(id, *b"work");
                message.deliveries = deliveries;
                if let Some(key) = key {
                    message = message.with_header("idempotency-key", key);
                }
                bed.queue.keep_notes(&message, marked).await.unwrap();
                bed.queue.push(message);
            }
            let consumer = bed.start(bed.jobs(consumer())).await;
            bed.until("both have ended", || bed.queue.waiting() == 0)
                .await;
            let tally = consumer.status().tally;
            assert_eq!(tally.dead(DeadReason::Maybe), 1);
            assert_eq!((tally.answered, bed.script.calls()), (1, 1));
            assert_eq!(bed.queue.published("dead.jobs")[0].id, "dead:once");
            assert_eq!(tally.redelivered, 2 * u64::from(deliveries - 1));
            bed.runtime.finish().await;
        });
    }
}

#[test]
fn msg_7_work_that_was_answered_is_only_acknowledged_when_its_message_comes_again() {
    run_paused(async || {
        let bed = Bed::new().await;
        let message = QueueMessage::new("m1", *b"work");
        let answered = MessageNotes {
            work: NotedWork::Answered,
            ..MessageNotes::default()
        };
        bed.queue.keep_notes(&message, answered).await.unwrap();
        bed.queue.push(message);
        let consumer = bed.start(bed.jobs(consumer())).await;
        bed.until("it has ended", || bed.queue.waiting() == 0).await;
        let tally = consumer.status().tally;
        assert_eq!((bed.script.calls(), tally.all_dead()), (0, 0));
        assert_eq!((tally.fetched, tally.answered), (1, 1));
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_7_a_mark_is_there_while_work_that_is_not_idempotent_is_under_way() {
    run_paused(async || {
        let bed = Bed::new().await;
        bed.push("m1", "hang");
        bed.start(bed.jobs(consumer())).await;
        bed.until("it is called", || bed.script.calls() == 1).await;
        assert_eq!(bed.queue.kept_notes()["m1"].work, NotedWork::Begun);
        bed.runtime.finish().await;
    });
}

/// A queue that makes the consumer crash at the first answer.
struct CrashingQueue {
    queue: ScriptedQueue,
    has_crashed: AtomicBool,
}

impl MessageSource for CrashingQueue {
    fn fetch(&self, most: u32, wait: Duration) -> SourceFuture<'_, Vec<QueueMessage>> {
        self.queue.fetch(most, wait)
    }

    fn acknowledge<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        self.queue.acknowledge(message)
    }

    fn give_back<'a>(&'a self, message: &'a QueueMessage, delay: Duration) -> SourceFuture<'a, ()> {
        self.queue.give_back(message, delay)
    }

    fn progress<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        self.queue.progress(message)
    }

    fn notes<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, MessageNotes> {
        self.queue.notes(message)
    }

    fn keep_notes<'a>(
        &'a self,
        message: &'a QueueMessage,
        notes: MessageNotes,
    ) -> SourceFuture<'a, ()> {
        self.queue.keep_notes(message, notes)
    }

    fn claim<'a>(&'a self, message: &'a QueueMessage, notes: MessageNotes) -> SourceFuture<'a, ()> {
        self.queue.claim(message, notes)
    }

    fn drop_notes<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        self.queue.drop_notes(message)
    }

    fn publish<'a>(&'a self, message: &'a OutgoingMessage) -> SourceFuture<'a, ()> {
        if !self.has_crashed.swap(true, Ordering::SeqCst) {
            panic!("the first answer crashes it");
        }
        self.queue.publish(message)
    }

    fn pending(&self) -> SourceFuture<'_, u64> {
        self.queue.pending()
    }
}

#[test]
fn msg_3_after_a_crash_of_the_consumer_the_books_add_up_and_nothing_is_lost() {
    run_paused(async || {
        let bed = Bed::new().await;
        for number in 0..20 {
            bed.push(&format!("m{number}"), "work");
        }
        let source = CrashingQueue {
            queue: bed.queue.clone(),
            has_crashed: AtomicBool::new(false),
        };
        let jobs = bed.jobs_of(source, consumer());
        let consumer = bed.start(jobs.idempotent()).await;
        bed.until("all have ended", || bed.queue.waiting() == 0)
            .await;
        let tally = consumer.status().tally;
        assert_eq!(tally.answered, 20);
        let interrupted = tally.returned(ReturnReason::Interrupted);
        assert!((1..=4).contains(&interrupted), "{tally:?}");
        assert_eq!(tally.redelivered, interrupted);
        assert!(tally.adds_up() && tally.in_flight == 0, "{tally:?}");
        assert_eq!(bed.queue.published("answers.jobs").len(), 20);
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_1_a_consumer_that_is_stopped_ends_what_it_has_and_fetches_no_more() {
    run_paused(async || {
        let bed = Bed::new().await;
        for number in 0..100 {
            bed.push(&format!("m{number}"), "work");
        }
        let consumer = bed.start(bed.jobs(consumer())).await;
        bed.until("some are answered", || {
            consumer.status().tally.answered >= 8
        })
        .await;
        bed.runtime.finish().await;
        let tally = consumer.status().tally;
        assert!(tally.adds_up() && tally.in_flight == 0, "{tally:?}");
        assert_eq!(tally.returned(ReturnReason::Interrupted), 0, "{tally:?}");
        assert_eq!(tally.answered as usize, bed.queue.acknowledged().len());
        assert_eq!(bed.queue.waiting(), 100 - bed.queue.acknowledged().len());
        assert!(bed.queue.waiting() > 50, "it did not empty the queue first");
    });
}
