//! A consumer of an actor that its supervisor has given up.

use std::sync::atomic::{AtomicBool, Ordering};

use breakerbox_policy::{GiveUp, Intensity};

use super::*;
use crate::consumer_pause::ConsumerPause;
use crate::event::EventKind;
use crate::supervisor::Child;

/// An actor that panics over each job, as long as it is told to.
struct Fragile {
    client: Client<Scripted<(), ()>>,
    is_broken: Arc<AtomicBool>,
}

impl Actor for Fragile {
    type Context = Context<Self>;
}

impl Handler<Job<PlainJob>> for Fragile {
    type Result = ResponseFuture<Done<()>>;

    fn handle(&mut self, job: Job<PlainJob>, _: &mut Self::Context) -> Self::Result {
        assert!(!self.is_broken.load(Ordering::Relaxed), "told to");
        let client = self.client.clone();
        Box::pin(async move { job.call(&client, |_| ()).await })
    }
}

/// The reasons of the pauses that were told, and an empty one for each end.
fn told(runtime: &Runtime) -> Vec<&'static str> {
    let events = runtime.events_since(0).into_iter();
    let of = |kind| match kind {
        EventKind::ConsumerPaused { reason, .. } => Some(reason.as_str()),
        EventKind::ConsumerResumed { .. } => Some(""),
        _ => None,
    };
    events.filter_map(|event| of(event.kind)).collect()
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[test]
fn msg_1_no_message_is_fetched_for_an_actor_that_its_supervisor_has_given_up() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let script = Script::new(|(), _| Reaction::Answer(()));
        let client = start_caller(&runtime, &script).await.0;
        let is_broken = Arc::new(AtomicBool::new(true));
        let (calls, switch) = (client.clone(), Arc::clone(&is_broken));
        let fragile = Child::permanent("fragile", move || Fragile {
            client: calls.clone(),
            is_broken: Arc::clone(&switch),
        });
        let fragile = fragile.give_up(GiveUp::Park).intensity(Intensity {
            max: 0,
            within: Duration::from_secs(60),
        });
        let fragile = runtime.supervise(fragile).await.expect("it starts");
        let queue = ScriptedQueue::new();
        for number in 0..8 {
            queue.push(QueueMessage::new(format!("m{number}"), *b"work"));
        }
        let jobs = runtime.consume("jobs", queue.clone());
        let jobs = jobs.decode(&client, |_| Ok(PlainJob));
        let to = fragile.addr().recipient();
        let consumer = jobs.to(to).await.expect("it runs");
        seconds(60).await;
        let status = consumer.status();
        // CALL-2: the panic was over the first one, and none of those behind it was begun.
        let tally = status.tally;
        assert_eq!((tally.all_dead(), tally.adds_up()), (1, true), "{tally:?}");
        assert_eq!(queue.waiting(), 7);
        assert_eq!(status.paused, Some(ConsumerPause::Actor));
        assert_eq!(told(&runtime), ["actor"]);
        for number in 8..20 {
            queue.push(QueueMessage::new(format!("m{number}"), *b"work"));
        }
        seconds(600).await;
        let later = consumer.status().tally;
        assert_eq!((later.fetched, queue.waiting()), (tally.fetched, 19));
        is_broken.store(false, Ordering::Relaxed);
        runtime.root().restart("fragile").await.expect("it is back");
        seconds(60).await;
        let status = consumer.status();
        assert_eq!((status.tally.answered, status.paused), (19, None));
        assert_eq!(told(&runtime), ["actor", ""]);
        runtime.finish().await;
    });
}

#[test]
fn msg_1_the_end_of_a_plain_actor_is_told_as_such() {
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
        caller.send(EndActor).await.expect("it hears of it");
        seconds(5).await;
        assert_eq!(consumer.status().paused, Some(ConsumerPause::Actor));
        assert_eq!(told(&runtime), ["actor"]);
        runtime.finish().await;
    });
}
