//! Messages on their way from the stream into their partitions, one after the other.
//!
//! Servers choose messages for a consumer by subject alone, and the key of the order is a header. So
//! each message is moved to a subject of its partition: published there, confirmed, then acknowledged;
//! `move_log` does that once. One message is outstanding over all replicas, so messages are moved in the
//! order of the stream. It makes no call, and knows no breaker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{HeaderMap, HeaderValue};
use breakerbox_actors::{QueueMessage, SourceError};
use breakerbox_policy::partition_of;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use super::move_log::{MoveLog, SortedDelivery};
use super::provision::{OrderParts, QUESTION};
use super::queue_server::{QueueServer, unavailable};
use super::queue_settings::ID;
use super::sorted_message::{SortedMessage, prefix_of};
use crate::lock::LockExt as _;
use crate::nats::NatsError;

/// Header with the key of the order.
const KEY: &str = "breakerbox-order";

/// Longest wait of one question for a message.
const POLL: Duration = Duration::from_secs(1);

/// Wait after a failure.
const AGAIN: Duration = Duration::from_millis(250);

/// The task that moves the messages of a queue. It ends, after the message that it has, once it is
/// dropped.
#[derive(Default)]
pub(super) struct SorterTask {
    task: Mutex<Option<JoinHandle<()>>>,
    is_over: Arc<AtomicBool>,
}

impl SorterTask {
    /// Begins, unless it is at work.
    pub(super) fn begin(&self, server: &Arc<QueueServer>) {
        let mut task = self.task.acquire();
        let is_at_work = task.as_ref().is_some_and(|task| !task.is_finished());
        if !is_at_work && !self.is_over.load(Ordering::Relaxed) {
            let (server, is_over) = (Arc::clone(server), Arc::clone(&self.is_over));
            *task = Some(tokio::spawn(sort(server, is_over)));
        }
    }

    /// Ends it, and waits until it has ended, for `limit` at most.
    pub(super) async fn end(&self, limit: Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        let task = self.task.acquire().take();
        if let Some(task) = task {
            // It ends by itself; a message that it has is delivered again otherwise.
            let _ = tokio::time::timeout(limit, task).await;
        }
    }
}

impl Drop for SorterTask {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

async fn sort(server: Arc<QueueServer>, is_over: Arc<AtomicBool>) {
    let mut problem = None;
    let moves = MoveLog::default();
    while !is_over.load(Ordering::Relaxed) {
        match step(&server, &moves).await {
            Ok(()) => problem = None,
            Err(error) => {
                let text = error.to_string();
                if problem.as_ref() != Some(&text) {
                    let durable = &server.settings.durable;
                    tracing::warn!(durable, "messages cannot be put into their order: {text}");
                }
                problem = Some(text);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Moves the next message, if one comes within the time of a question.
async fn step(server: &QueueServer, moves: &MoveLog) -> Result<(), SourceError> {
    let parts = server.parts().await?;
    let order = parts.1.order.as_ref();
    let order = order.ok_or_else(|| SourceError::Refused("it has no order".to_owned()))?;
    if !order.former.is_empty() {
        return finish_former(server, order).await;
    }
    let next = parts.1.consumer.batch();
    let next = next.max_messages(1).expires(POLL).messages();
    let mut batch = server.ask(next).await?;
    let message = tokio::time::timeout(POLL + QUESTION, batch.next()).await;
    match message {
        Ok(Some(Ok(message))) => move_on(server, moves, &message).await,
        Ok(Some(Err(error))) => {
            server.forget();
            Err(unavailable(NatsError::of(error)))
        }
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Waits until the partitions of a former number of them are empty, and removes them: their messages
/// are older than those that have not been moved yet.
async fn finish_former(server: &QueueServer, order: &OrderParts) -> Result<(), SourceError> {
    let mut are_empty = true;
    for consumer in &order.former {
        let info = server.ask(consumer.get_info()).await?;
        if info.num_pending > 0 || info.num_ack_pending > 0 {
            are_empty = false;
            continue;
        }
        server.ask(order.stream.delete_consumer(&info.name)).await?;
    }
    server.forget();
    if !are_empty {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Moves one message into its partition.
async fn move_on(
    server: &QueueServer,
    moves: &MoveLog,
    message: &jetstream::Message,
) -> Result<(), SourceError> {
    let Some(partitions) = server.settings.partitions else {
        return Ok(());
    };
    let Some(((own, info), token)) = SortedMessage::of(message)
        .zip(message.info().ok())
        .zip(message.reply.as_ref())
    else {
        return Ok(());
    };
    let (place, token) = (info.stream_sequence, token.to_string());
    let headers = message.headers.as_ref();
    let key = headers.and_then(|headers| headers.get(KEY));
    let key = key.map_or_else(|| place.to_string(), |key| key.as_str().to_owned());
    let prefix = prefix_of(&server.settings);
    let partition = partition_of(&key, partitions);
    let subject = own.subject_in(&prefix, partitions.get(), partition);
    let sorted_id = own.sorted_id(place);
    let id: HeaderValue = sorted_id
        .parse()
        .map_err(|_| SourceError::Refused("the id of a message is none of NATS".to_owned()))?;
    let mut sorted = HeaderMap::new();
    for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
        // Headers of this name are orders to the server.
        if name.to_string().to_ascii_lowercase().starts_with("nats-") {
            continue;
        }
        for value in values {
            sorted.append(name.clone(), value.clone());
        }
    }
    sorted.insert(ID, id);
    let mut delivery = QueueMessage::new(own.id, &b""[..]);
    delivery.token = token;
    delivery.subject = own.subject;
    let sorted = SortedDelivery {
        number: info.consumer_sequence,
        place,
        id: sorted_id,
        subject,
        headers: sorted,
        payload: message.payload.clone(),
    };
    // MSG-9: until it stands in its partition, no later one is moved.
    let moved = insist(async || {
        // Their stream may have been lost meanwhile.
        let parts = server.parts().await?;
        moves.carry_out(server, &parts.1, &sorted).await
    });
    let moved = moved.await;
    if let Err(SourceError::Refused(why)) = moved {
        // One that no server takes would hold up all others.
        let SortedDelivery {
            headers, payload, ..
        } = sorted;
        send_dead_letter(server, &delivery, headers, (payload, &why)).await?;
    }
    insist(|| server.tell(&delivery, Bytes::from_static(b"+ACK"), true)).await
}

/// Publishes a message as a dead letter that cannot be moved.
async fn send_dead_letter(
    server: &QueueServer,
    message: &QueueMessage,
    mut headers: HeaderMap,
    (payload, why): (Bytes, &str),
) -> Result<(), SourceError> {
    let id = &message.id;
    tracing::warn!(
        id,
        "a message is a dead letter, it cannot be put into its order: {why}"
    );
    let problem = serde_json::json!({
        "type": "urn:breakerbox:dead-letter", "reason": "malformed", "executed": "no", "detail": why,
    });
    headers.insert(ID, format!("dead:{id}"));
    headers.insert("breakerbox-subject", message.subject.as_str());
    headers.insert("breakerbox-problem", problem.to_string());
    let subject = &server.settings.dead_letters;
    let (headers, payload) = server.fitted(headers, payload);
    insist(|| server.put(subject.clone(), Some(headers.clone()), payload.clone()))
        .await
        .map(drop)
}

/// Asks the servers until they have done it, or refuse it.
async fn insist<T, F: Future<Output = Result<T, SourceError>>>(
    ask: impl Fn() -> F,
) -> Result<T, SourceError> {
    loop {
        match ask().await {
            Err(SourceError::Unavailable(_)) => tokio::time::sleep(AGAIN).await,
            ended => return ended,
        }
    }
}
