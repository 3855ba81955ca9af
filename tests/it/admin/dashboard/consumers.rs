//! The consumers of messages on the page.

use std::sync::Arc;

use breakerbox_actors::testing::ScriptedQueue;
use breakerbox_actors::{ConsumerSettings, QueueMessage};

use super::*;
use crate::admin::consumers::Calls;

/// The expression for the cells of the consumer's row.
const ROW: &str = "[...document.querySelectorAll('[data-consumer=jobs] > *')].map((cell) => cell.innerText.trim()).join(' | ')";

#[tokio::test]
async fn consumers_are_shown_with_their_state_their_messages_and_dead_letters() {
    let Some(stage) = Stage::start(&["dep"], opens_after(1, ms(600_000))).await else {
        return;
    };
    let page = &stage.page;
    page.until("document.querySelector('#consumers').hidden")
        .await;
    let queue = ScriptedQueue::new();
    queue.push(QueueMessage::new("m1", *b"work"));
    queue.push(QueueMessage::new("m2", *b"broken"));
    let work = Arc::new(Calls(stage.clients[0].clone()));
    let settings = ConsumerSettings::new("dead.jobs");
    let started = stage
        .runtime
        .consume_by("jobs", settings, Arc::new(queue.clone()), work);
    started.await.unwrap();
    page.until(&format!(
        "{ROW} === 'jobs | dep | fetches | 0 | 0 | 1 | 0 | 1 (1 malformed)'"
    ))
    .await;
    assert_eq!(
        page.text("document.querySelector('#consumers-note').innerText")
            .await,
        ""
    );
    stage.open(0).await;
    page.until(&format!(
        "{ROW}.includes('waits: the breaker lets no call begin')"
    ))
    .await;
    queue.push(QueueMessage::new("m3", *b"work"));
    page.until(&format!("{ROW}.includes(' | 1 | 0 | 1 | ')"))
        .await;
    page.until("document.querySelector('#consumers-note').innerText === '1 of 1 fetch nothing'")
        .await;
    stage.finish(nothing).await;
}
