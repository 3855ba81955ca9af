//! A panic over one message, the claim of a message, and the end of a consumer.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, Context, Handler, Message, ResponseFuture};
use breakerbox_policy::{BackoffSettings, BreakerAfter, Executed, MessageCallKind, MessageNotes};
use breakerbox_policy::{DeadReason, NotedWork, Time};

use super::*;
use crate::client::{Client, Readiness};
use crate::error::CallError;
use crate::fallback::{Fallback, FallbackFuture, FallbackOutcome, FallbackRule};
use crate::runtime::{Runtime, RuntimeSettings};
use crate::testing::{
    Reaction, Script, Scripted, ScriptedError, ScriptedQueue, TestRuntime, run_paused,
};

/// Work by the words of the payload.
struct ToldWork(Client<Scripted<(), ()>>);

impl MessageWork for ToldWork {
    fn dependency(&self) -> String {
        self.0.name().to_owned()
    }

    fn readiness(&self) -> Readiness {
        self.0.readiness(None)
    }

    fn retry(&self) -> BackoffSettings {
        BackoffSettings::default()
    }

    fn terms(&self, message: &QueueMessage) -> Result<MessageTerms, BrokenMessage> {
        assert_ne!(&message.payload[..], b"unreadable", "no such format");
        Ok(MessageTerms::default())
    }

    fn call<'a>(
        &'a self,
        message: &'a QueueMessage,
        _: &'a MessageTerms,
        _: Option<Duration>,
    ) -> WorkFuture<'a> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_ne!(&message.payload[..], b"panic", "told to");
            tokio::time::sleep(Duration::from_millis(10)).await;
            let (kind, breaker) = (MessageCallKind::Answered, BreakerAfter::Closed);
            WorkEnd {
                ending: MessageEnding::new(kind, Executed::Yes, None, breaker),
                answer: WorkAnswer::default(),
                problem: None,
            }
        })
    }
}

async fn start(runtime: &Runtime, queue: &ScriptedQueue) -> ConsumerHandle {
    let script = Script::new(|(), _| Reaction::Answer(()));
    let new = runtime.dependency("d").workers(move || script.dependency());
    let work = Arc::new(ToldWork(new.start().await.expect("it starts")));
    let settings = ConsumerSettings::new("dead.jobs");
    let consuming = runtime.consume_by("jobs", settings, Arc::new(queue.clone()), work);
    consuming.await.expect("it consumes")
}

#[test]
fn msg_5_a_panic_over_one_message_interrupts_no_other_and_costs_no_restart() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let queue = ScriptedQueue::new();
        for payload in ["good", "unreadable", "panic", "good"] {
            let id = format!("{payload}-{}", queue.waiting());
            queue.push(QueueMessage::new(id, payload.as_bytes()));
        }
        let consumer = start(&runtime, &queue).await;
        for _ in 0..1_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(queue.waiting(), 0);
        let tally = consumer.status().tally;
        assert_eq!((tally.all_dead(), tally.adds_up()), (2, true));
        let letters = queue.published("dead.jobs");
        let reason = |reason: DeadReason| format!("\"reason\":\"{reason}\"");
        for (letter, reason, text) in [
            (&letters[0], reason(DeadReason::Malformed), "no such format"),
            (&letters[1], reason(DeadReason::Maybe), "ended without"),
        ] {
            let mut headers = letter.headers.iter();
            let problem = headers.find(|(name, _)| name == "breakerbox-problem");
            let problem = &problem.unwrap().1;
            assert!(problem.contains(&reason), "{problem}");
            assert!(problem.contains(text), "{problem}");
        }
        let children = runtime.children().await;
        let child = children.iter().find(|child| child.name == "consumer:jobs");
        let child = child.unwrap();
        assert_eq!((child.incarnation, child.restarts), (1, 0));
        assert!(queue.delays().is_empty(), "no message came again");
        runtime.finish().await;
    });
}

/// A job that says nothing.
#[derive(Debug, Message)]
#[rtype(result = "Done<()>")]
struct PlainJob;

/// The order to an actor to end.
#[derive(Message)]
#[rtype(result = "()")]
struct EndActor;

/// An actor that makes the calls of jobs.
struct Caller(Client<Scripted<(), ()>>);

impl Actor for Caller {
    type Context = Context<Self>;
}

impl Handler<Job<PlainJob>> for Caller {
    type Result = ResponseFuture<Done<()>>;

    fn handle(&mut self, job: Job<PlainJob>, _: &mut Self::Context) -> Self::Result {
        let client = self.0.clone();
        Box::pin(async move { job.call(&client, |_| ()).await })
    }
}

impl Handler<EndActor> for Caller {
    type Result = ();

    fn handle(&mut self, _: EndActor, context: &mut Self::Context) {
        context.stop();
    }
}

/// A fallback that fails, before its work or in the middle of it.
struct BrokenFallback {
    is_begun: bool,
}

impl Fallback<Scripted<(), ()>> for BrokenFallback {
    fn name(&self) -> &str {
        "broken"
    }

    fn answer(&self, (): (), _: &CallError<ScriptedError>, _: Time) -> FallbackFuture<()> {
        let end = match self.is_begun {
            true => FallbackOutcome::failed("it broke"),
            false => FallbackOutcome::not_begun("it is closed"),
        };
        Box::pin(async { end })
    }
}

/// Starts a dependency that answers, and an actor that calls it.
async fn start_caller(runtime: &Runtime, script: &Script<(), ()>) -> Caller {
    let worker = script.clone();
    let new = runtime.dependency("d").workers(move || worker.dependency());
    Caller(new.start().await.expect("it starts"))
}

#[test]
fn msg_7_a_mark_that_comes_after_the_end_of_its_message_begins_no_work() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()));
        let caller = start_caller(&runtime, &script).await;
        let queue = ScriptedQueue::new();
        let lost = queue.clone();
        let jobs = runtime.consume("jobs", queue.clone());
        let jobs = jobs.decode(&caller.0, move |_| {
            // After the delivery, and before the mark.
            lost.set_down(true);
            Ok(PlainJob)
        });
        let consumer = jobs.to(caller.start().recipient()).await.expect("it runs");
        queue.push(QueueMessage::new("m1", *b"work"));
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(consumer.status().tally.in_flight, 1);
        queue.set_down(false);
        // Another consumer does the work, and its mark is dropped after a while.
        let again = queue.fetch(1, Duration::ZERO).await.unwrap();
        let begun = MessageNotes {
            work: NotedWork::Begun,
            ..MessageNotes::default()
        };
        queue.claim(&again[0], begun).await.unwrap();
        queue.acknowledge(&again[0]).await.unwrap();
        queue.drop_notes(&again[0]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let tally = consumer.status().tally;
        assert_eq!((script.calls(), tally.in_flight), (0, 0), "{tally:?}");
        assert!(tally.adds_up() && queue.kept_notes().is_empty());
        runtime.finish().await;
    });
}

#[test]
fn msg_5_no_message_is_a_dead_letter_for_want_of_the_actor_that_calls() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()));
        let caller = start_caller(&runtime, &script).await;
        let client = caller.0.clone();
        let caller = caller.start();
        let queue = ScriptedQueue::new();
        let jobs = runtime.consume("jobs", queue.clone());
        let jobs = jobs.decode(&client, |_| Ok(PlainJob));
        let consumer = jobs.to(caller.clone().recipient()).await.expect("it runs");
        queue.push(QueueMessage::new("m0", *b"work"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(consumer.status().tally.answered, 1);
        caller.send(EndActor).await.expect("it hears of it");
        // An open question brings the first of them, and is the last one.
        for number in 1..=10 {
            queue.push(QueueMessage::new(format!("m{number}"), *b"work"));
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        let tally = consumer.status().tally;
        assert_eq!((tally.answered, tally.all_dead()), (1, 0), "{tally:?}");
        assert!(tally.fetched <= 11 && tally.adds_up(), "{tally:?}");
        assert_eq!((queue.waiting(), script.calls()), (10, 1));
        runtime.finish().await;
    });
}

#[test]
fn msg_7_a_throttled_call_is_not_repeated_where_its_fallback_may_have_done_it() {
    for (is_begun, dead) in [(true, 1), (false, 0)] {
        run_paused(async || {
            let runtime = TestRuntime::start().await;
            let script = Script::new(|(), _| Reaction::Fail(ScriptedError::throttled()));
            let worker = script.clone();
            let rule = FallbackRule::new(BrokenFallback { is_begun }).writes();
            let new = runtime.dependency("d").workers(move || worker.dependency());
            let caller = Caller(new.fallback_rule(rule).start().await.expect("it starts"));
            let client = caller.0.clone();
            let queue = ScriptedQueue::new();
            let jobs = runtime.consume("jobs", queue.clone());
            let jobs = jobs.decode(&client, |_| Ok(PlainJob));
            let consumer = jobs.to(caller.start().recipient()).await.expect("it runs");
            queue.push(QueueMessage::new("m1", *b"work"));
            tokio::time::sleep(Duration::from_millis(100)).await;
            let tally = consumer.status().tally;
            assert_eq!((tally.all_dead(), tally.adds_up()), (dead, true));
            assert_eq!(queue.waiting(), usize::from(dead == 0));
            if let Some(letter) = queue.published("dead.jobs").first() {
                let mut headers = letter.headers.iter();
                let problem = headers.find(|(name, _)| name == "breakerbox-problem");
                let problem = &problem.unwrap().1;
                assert!(problem.contains("\"executed\":\"maybe\""), "{problem}");
            }
            runtime.finish().await;
        });
    }
}

#[test]
fn msg_7_a_scripted_queue_refuses_the_second_claim() {
    run_paused(async || {
        let queue = ScriptedQueue::new();
        queue.push(QueueMessage::new("m1", *b"work"));
        let fetched = queue.fetch(1, Duration::ZERO).await.unwrap();
        let begun = MessageNotes {
            work: NotedWork::Begun,
            ..MessageNotes::default()
        };
        let given_back = MessageNotes {
            returns: 1,
            ..MessageNotes::default()
        };
        queue.keep_notes(&fetched[0], given_back).await.unwrap();
        queue.claim(&fetched[0], begun).await.unwrap();
        let second = queue.clone().claim(&fetched[0], begun).await;
        assert!(matches!(second, Err(SourceError::Refused(_))), "{second:?}");
        queue.drop_notes(&fetched[0]).await.unwrap();
        queue.claim(&fetched[0], begun).await.unwrap();
    });
}

#[test]
fn sup_7_a_consumer_is_removed_from_any_thread() {
    actix::System::new().block_on(async {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        start(&runtime, &ScriptedQueue::new()).await;
        let ended = runtime.watch("consumer:jobs");
        let remover = runtime.clone();
        let removed = std::thread::spawn(move || remover.remove_consumer("jobs"));
        assert!(removed.join().expect("no panic").is_some());
        ended.await;
        runtime.shutdown().await;
    });
}

mod given_up;
