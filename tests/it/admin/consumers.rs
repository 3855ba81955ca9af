//! Consumers of messages at the admin side: their alerts, and the outages that hold them up.

use std::sync::Arc;

use breakerbox_actors::testing::ScriptedQueue;
use breakerbox_actors::{
    BrokenMessage, CallOptions, Client, ConsumerSettings, MessageTerms, MessageWork, QueueMessage,
    Readiness, WorkAnswer, WorkEnd, WorkFuture, ask_for_message,
};
use breakerbox_policy::{BackoffSettings, RetrySettings};
use serde_json::{Value, json};

use super::{Duration, Rig};
use crate::scripted::{Dep, Do, ms, opens_after};

/// Work that calls the dependency for each message, but for those that say `broken`; it fails
/// for those that say `fail`.
pub(in crate::admin) struct Calls(pub(in crate::admin) Client<Dep>);

impl MessageWork for Calls {
    fn dependency(&self) -> String {
        self.0.name().to_owned()
    }

    fn readiness(&self) -> Readiness {
        self.0.readiness(None)
    }

    fn retry(&self) -> BackoffSettings {
        RetrySettings::default().backoff
    }

    fn terms(&self, message: &QueueMessage) -> Result<MessageTerms, BrokenMessage> {
        match &message.payload[..] {
            b"broken" => Err(BrokenMessage("it is broken".to_owned())),
            _ => {
                let mut terms = MessageTerms::default();
                terms.is_idempotent = true;
                Ok(terms)
            }
        }
    }

    fn call<'a>(
        &'a self,
        message: &'a QueueMessage,
        _: &'a MessageTerms,
        _: Option<Duration>,
    ) -> WorkFuture<'a> {
        Box::pin(async move {
            let told = match &message.payload[..] {
                b"fail" => Do::Fail,
                _ => Do::Answer(1),
            };
            let call = ask_for_message(&self.0, told, CallOptions::default());
            let (_, ending) = call.await;
            WorkEnd {
                ending,
                answer: WorkAnswer::default(),
                problem: None,
            }
        })
    }
}

/// Starts a consumer with a queue of its own.
async fn consume(rig: &Rig) -> ScriptedQueue {
    let queue = ScriptedQueue::new();
    let work = Arc::new(Calls(rig.bench.client.clone()));
    let mut settings = ConsumerSettings::new("dead.jobs");
    settings.rules.max_delay = ms(10);
    let runtime = &rig.bench.runtime;
    let started = runtime.consume_by("jobs", settings, Arc::new(queue.clone()), work);
    started.await.unwrap();
    queue
}

fn push(queue: &ScriptedQueue, id: &str, text: &str) {
    queue.push(QueueMessage::new(id, text.as_bytes()));
}

/// Returns the first alert for which this holds.
async fn alert(rig: &Rig, holds: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let all = rig.get("/api/alerts").await;
            if let Some(found) = all.as_array().unwrap().iter().find(|one| holds(one)) {
                return found.clone();
            }
            tokio::time::sleep(ms(5)).await;
        }
    };
    let found = tokio::time::timeout(super::LONG, asked).await;
    found.expect("there is such an alert")
}

fn says(alert: &Value, text: &str) -> bool {
    alert["message"].as_str().unwrap().contains(text)
}

#[tokio::test]
async fn msg_6_dead_letters_are_one_alert_until_an_operator_clears_it() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    let queue = consume(&rig).await;
    push(&queue, "m1", "broken");
    let one = alert(&rig, |one| one["kind"] == "dead_letters").await;
    assert_eq!(one["dependency"], "dep");
    assert_eq!(one["subject"], "dep/consumer:jobs");
    assert!(
        says(&one, "consumer jobs buried message m1 (malformed)"),
        "{one}"
    );
    push(&queue, "m2", "broken");
    let two = alert(&rig, |one| says(one, "2 dead letters; the last")).await;
    assert_eq!(two["id"], one["id"]);
    let clear = format!("/api/alerts/{}/clear", one["id"]);
    let clear = rig.order(&clear, &json!({ "reason": "they are back in the queue" }));
    assert_eq!(clear.send().await.unwrap().status(), 200);
    push(&queue, "m3", "broken");
    let next = alert(&rig, |one| one["state"] == "active").await;
    assert!(says(&next, "message m3"), "{next}");
    // An outage has an alert of its own.
    push(&queue, "m4", "work");
    rig.bench.fail_until_open().await;
    alert(&rig, |one| one["kind"] == "breaker_open").await;
    rig.finish().await;
}

#[tokio::test]
async fn msg_1_an_outage_names_the_consumers_that_wait_for_its_end() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    let queue = consume(&rig).await;
    rig.bench.fail_until_open().await;
    // What was asked for before has its answer by then.
    let is_paused = |one: &Value| one["paused_consumers"][0]["reason"] == "breaker";
    alert(&rig, is_paused).await;
    push(&queue, "m1", "work");
    let is_told = |one: &Value| one["paused_consumers"][0]["pending"] == 1;
    let told = alert(&rig, is_told).await;
    let expected = json!([{ "name": "jobs", "reason": "breaker", "pending": 1 }]);
    assert_eq!(told["paused_consumers"], expected);
    let outages = rig.get("/api/outages").await;
    assert_eq!(outages[0]["paused_consumers"], expected);
    rig.operate("check").await;
    alert(&rig, |one| one["state"] == "resolved").await;
    let outages = rig.get("/api/outages").await;
    assert_eq!(outages[0]["paused_consumers"], json!([]));
    rig.finish().await;
}

#[tokio::test]
async fn msg_5_the_alert_of_a_breaker_names_the_message_that_may_keep_it_open() {
    let rig = Rig::start(opens_after(1, ms(20))).await;
    let queue = consume(&rig).await;
    push(&queue, "order-17", "fail");
    let told = alert(&rig, |one| says(one, "may be what keeps the breaker open")).await;
    assert_eq!(told["kind"], "breaker_open");
    assert!(says(&told, "message order-17 of consumer jobs"), "{told}");
    assert_eq!(queue.published("dead.jobs").len(), 0);
    rig.finish().await;
}
