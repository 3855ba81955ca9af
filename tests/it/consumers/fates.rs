//! The fates of messages: answers, dead letters, and what is given back.

use super::*;

#[test]
fn msg_5_a_poison_message_is_a_dead_letter_after_five_failures_and_no_other_is() {
    run_paused(async || {
        let bed = Bed::new().await;
        let consumer = bed.start(bed.jobs(consumer()).idempotent()).await;
        for number in 0..40 {
            let text = if number == 7 { "poison" } else { "work" };
            bed.push(&format!("m{number}"), text);
            tokio::time::sleep(ms(10)).await;
        }
        bed.until("all have ended", || bed.queue.waiting() == 0)
            .await;
        let tally = consumer.status().tally;
        assert_eq!(tally.answered, 39);
        assert_eq!(tally.dead(DeadReason::Failures), 1);
        assert_eq!(tally.all_dead(), 1);
        assert!(tally.adds_up(), "{tally:?}");
        let letters = bed.queue.published("dead.jobs");
        assert_eq!(letters[0].id, "dead:m7");
        assert_eq!(bed.script.calls(), 39 + 5);
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_2_the_answer_is_confirmed_before_the_acknowledgement() {
    run_paused(async || {
        let bed = Bed::new().await;
        bed.push("m1", "work");
        let consumer = bed.start(bed.jobs(consumer())).await;
        bed.until("it is called", || bed.script.calls() == 1).await;
        bed.queue.set_down(true);
        tokio::time::sleep(Duration::from_secs(5)).await;
        // It was answered by the dependency; neither is confirmed yet.
        assert_eq!(consumer.status().tally.in_flight, 1);
        assert!(consumer.status().problem.is_some());
        assert!(bed.queue.acknowledged().is_empty());
        bed.queue.set_down(false);
        bed.until("it has ended", || bed.queue.waiting() == 0).await;
        let answers = bed.queue.published("answers.jobs");
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].id, "answer:m1");
        assert_eq!(&answers[0].payload[..], b"work done");
        assert_eq!(bed.queue.acknowledged(), ["m1"]);
        assert_eq!(bed.script.calls(), 1);
        bed.until("it is told", || consumer.status().problem.is_none())
            .await;
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_6_a_dead_letter_has_the_message_and_the_problem() {
    run_paused(async || {
        let bed = Bed::new().await;
        let message = QueueMessage::new("m1", *b"panic").with_header("x-tenant", "a");
        bed.queue.push(message);
        bed.queue.push(QueueMessage::new("m2", [0xff, 0xfe]));
        let consumer = bed.start(bed.jobs(consumer())).await;
        bed.until("both have ended", || bed.queue.waiting() == 0)
            .await;
        let letters = bed.queue.published("dead.jobs");
        let letter = |id: &str| letters.iter().find(|one| one.id == id).unwrap();
        let header = |id: &str, name: &str| {
            let mut headers = letter(id).headers.iter();
            headers.find(|(known, _)| known == name).unwrap().1.clone()
        };
        assert_eq!(&letter("dead:m1").payload[..], b"panic");
        assert_eq!(header("dead:m1", "x-tenant"), "a");
        let problem = header("dead:m1", "breakerbox-problem");
        for part in ["\"reason\":\"maybe\"", "\"executed\":\"maybe\"", "told to"] {
            assert!(problem.contains(part), "{problem}");
        }
        let problem = header("dead:m2", "breakerbox-problem");
        for part in ["\"reason\":\"malformed\"", "\"executed\":\"no\""] {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(bed.script.calls(), 1, "what cannot be read is not called");
        assert_eq!(consumer.status().tally.all_dead(), 2);
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_6_a_message_whose_dead_letter_is_refused_is_given_back_and_told() {
    run_paused(async || {
        let bed = Bed::new().await;
        bed.queue.refuse("dead.jobs", "no stream takes it");
        bed.push("m1", "rejected");
        let mut jobs = bed.jobs(consumer());
        jobs = jobs.idempotent();
        // Without a subject for answers a rejection is a dead letter.
        let consumer = bed.start(jobs.without_answers()).await;
        let told = |event: &breakerbox_actors::Event| {
            matches!(
                &event.kind,
                EventKind::DeadLettered { refused: Some(why), .. } if why.contains("no stream")
            )
        };
        bed.runtime.event(told).await;
        bed.until("it is given back", || !bed.queue.delays().is_empty())
            .await;
        assert_eq!(bed.queue.delays()[0], Duration::from_secs(60));
        assert_eq!(bed.queue.waiting(), 1, "it is not lost");
        assert!(consumer.status().tally.adds_up());
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_6_a_dead_letter_that_could_not_be_written_at_first_keeps_its_reason() {
    run_paused(async || {
        let bed = Bed::new().await;
        bed.queue.refuse("dead.jobs", "it is full");
        bed.push("m1", "rejected");
        // Its work may not be done twice.
        let consumer = bed.start(bed.jobs(consumer()).without_answers()).await;
        let is_given_back = || bed.queue.delays().len() == 2;
        bed.until("it is given back again", is_given_back).await;
        bed.queue.refuse("none", "");
        bed.until("it has ended", || bed.queue.waiting() == 0).await;
        let letters = bed.queue.published("dead.jobs");
        let mut headers = letters[0].headers.iter();
        let problem = headers.find(|(name, _)| name == "breakerbox-problem");
        let problem = &problem.unwrap().1;
        for part in ["\"reason\":\"rejected\"", "\"executed\":\"yes\""] {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(bed.script.calls(), 1, "it is called once");
        assert_eq!(consumer.status().tally.dead(DeadReason::Rejected), 1);
        bed.runtime.finish().await;
    });
}

#[test]
fn msg_8_a_message_past_its_deadline_is_not_executed_and_work_reports_progress() {
    run_paused(async || {
        let mut settings = settings();
        settings.timeout.attempt = None;
        settings.timeout.total = None;
        let bed = Bed::with(settings, ScriptedQueue::new()).await;
        let mut late = QueueMessage::new("late", *b"work");
        late = late.with_header("breakerbox-ttl-ms", "0");
        bed.queue.push(late);
        let consumer = bed.start(bed.jobs(consumer()).idempotent()).await;
        bed.until("it has ended", || bed.queue.waiting() == 0).await;
        let tally = consumer.status().tally;
        assert_eq!(tally.dead(DeadReason::Expired), 1);
        assert_eq!(bed.script.calls(), 0);
        bed.push("long", "hang");
        bed.until("it is called", || bed.script.calls() == 1).await;
        let told = bed.queue.progress_told();
        tokio::time::sleep(Duration::from_secs(95)).await;
        assert!(bed.queue.progress_told() >= told + 3);
        assert_eq!(
            consumer.status().tally.fetched,
            2,
            "it is not delivered again"
        );
        bed.runtime.finish().await;
    });
}
