//! An outage of the dependency: the messages stay where they are.

use super::*;

#[test]
fn msg_1_in_an_outage_messages_stay_in_their_queue_and_one_probe_goes_out_in_a_period() {
    run_paused(async || {
        let bed = Bed::new().await;
        let consumer = bed.start(bed.jobs(consumer()).idempotent()).await;
        for number in 0..200 {
            bed.push(&format!("m{number}"), "work");
        }
        bed.until("some are answered", || {
            consumer.status().tally.answered >= 40
        })
        .await;
        bed.is_down.store(true, Ordering::SeqCst);
        let (calls, fetched) = (bed.script.calls(), consumer.status().tally.fetched);
        tokio::time::sleep(Duration::from_secs(10)).await;
        // The threshold and what was in flight, then one probe a period.
        let calls = bed.script.calls() - calls;
        assert!(
            (10..=20).contains(&calls),
            "{calls} calls while it was down"
        );
        let fetched = consumer.status().tally.fetched - fetched;
        assert!(fetched <= 24, "{fetched} fetched while it was down");
        let paused = |event: &breakerbox_actors::Event| matches!(&event.kind, EventKind::ConsumerPaused { consumer, .. } if &**consumer == "jobs");
        bed.runtime.event(paused).await;
        bed.is_down.store(false, Ordering::SeqCst);
        bed.until("all are answered", || bed.queue.waiting() == 0)
            .await;
        bed.runtime
            .event(|event| matches!(event.kind, EventKind::ConsumerResumed { .. }))
            .await;
        let tally = consumer.status().tally;
        assert_eq!(tally.answered, 200);
        assert_eq!(tally.all_dead(), 0, "an outage makes no dead letters");
        assert!(tally.adds_up() && tally.in_flight == 0, "{tally:?}");
        assert_eq!(bed.queue.published("answers.jobs").len(), 200);
        assert!(
            bed.queue.kept_notes().is_empty(),
            "no notes are left behind"
        );
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_1_no_more_is_fetched_than_can_begin() {
    run_paused(async || {
        let mut settings = settings();
        settings.bulkhead.max_concurrent = nonzero(3);
        let bed = Bed::with(settings, ScriptedQueue::new()).await;
        for number in 0..10 {
            bed.push(&format!("m{number}"), "hang");
        }
        let mut own = consumer();
        own.max_in_flight = None;
        let consumer = bed.start(bed.jobs(own).idempotent()).await;
        bed.until("the places are taken", || {
            bed.client.status().in_flight == 3
        })
        .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(consumer.status().tally.fetched, 3);
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_4_a_throttle_pauses_the_consumer_until_its_end() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|_: String, number| match number {
            1 => {
                let error = ScriptedError::throttled();
                Reaction::Fail(error.retry_after(Duration::from_secs(20)))
            }
            _ => Reaction::Answer("done".to_owned()),
        });
        let worker = script.clone();
        let client = runtime
            .dependency("dep")
            .settings(settings())
            .workers(move || worker.dependency())
            .start()
            .await
            .unwrap();
        let queue = ScriptedQueue::new();
        queue.push(QueueMessage::new("m1", *b"work"));
        let caller = Caller(client.clone()).start();
        let text = |payload: &[u8]| Ok(Ask(String::from_utf8_lossy(payload).into_owned()));
        let jobs = runtime.consume("jobs", queue.clone()).settings(consumer());
        let jobs = jobs.decode(&client, text);
        let consumer = jobs.to(caller.recipient()).await.unwrap();
        let begun = tokio::time::Instant::now();
        while queue.waiting() > 0 {
            tokio::time::sleep(ms(5)).await;
        }
        assert!(begun.elapsed() >= Duration::from_secs(20));
        let tally = consumer.status().tally;
        assert_eq!(tally.returned(ReturnReason::Throttled), 1);
        assert_eq!((tally.answered, script.calls()), (1, 2));
        let delay = queue.delays()[0];
        assert!(delay >= Duration::from_secs(19), "{delay:?}");
        runtime.finish().await;
    });
}
