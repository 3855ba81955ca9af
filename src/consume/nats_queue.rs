//! A queue of NATS JetStream as a consumer sees it.
//!
//! It fetches messages and tells the servers of their ends. What is said to the servers, and how
//! long it may take, is in `queue_server`.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::{HeaderMap, HeaderValue};
use breakerbox_actors::{
    MessageSource, ORIGIN, OutgoingMessage, QueueMessage, SourceError, SourceFuture,
};
use breakerbox_policy::{MessageNotes, NotedWork};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use super::ended_notes::EndedNotes;
use super::notes;
use super::provision::QUESTION;
use super::queue_server::{QueueServer, headers_of, unavailable};
use super::queue_settings::{ID, QueueSettings};
use super::server_clock::ServerClock;
use super::sorted_message::SortedMessage;
use super::sorter::SorterTask;
use crate::config::FleetConfig;
use crate::nats::{NatsConnection, NatsError};

/// Attempts to claim a message while its notes change.
const CLAIMS: usize = 3;

/// The reason why a queue cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QueueError(String);

impl From<NatsError> for QueueError {
    fn from(error: NatsError) -> Self {
        Self(error.to_string())
    }
}

/// A durable consumer of a stream. Its parts at the servers are made, where they are missing, at the first fetch after
/// each connection.
pub struct NatsQueue {
    server: Arc<QueueServer>,
    sorter: SorterTask,
    /// The name under which this process writes notes.
    holder: String,
    ended: EndedNotes,
}

impl NatsQueue {
    /// Begins to connect to the servers of a fleet, and returns at once: they may come later.
    ///
    /// # Errors  A file of the configuration cannot be used.
    pub async fn connect(
        config: &FleetConfig,
        settings: QueueSettings,
    ) -> Result<Self, QueueError> {
        let name = format!("breakerbox {}", settings.durable);
        let connection = NatsConnection::open(config, &name).await?;
        Ok(Self::over(connection, settings))
    }

    /// A queue by a connection that others use too.
    pub(crate) fn over(connection: NatsConnection, settings: QueueSettings) -> Self {
        Self {
            server: Arc::new(QueueServer::new(connection, settings)),
            sorter: SorterTask::default(),
            holder: format!("{:016x}", RandomState::new().hash_one(0_u8)),
            ended: EndedNotes::default(),
        }
    }

    async fn fetch_some(
        &self,
        most: u32,
        wait: Duration,
    ) -> Result<Vec<QueueMessage>, SourceError> {
        let parts = self.server.parts().await?;
        let consumer = &parts.1.consumer;
        let messages = self.fetch_there(consumer, most).await?;
        match messages.is_empty() {
            true => self.fetch_next(consumer, wait).await,
            false => Ok(messages),
        }
    }

    async fn fetch_ordered(
        &self,
        partition: u32,
        wait: Duration,
    ) -> Result<Vec<QueueMessage>, SourceError> {
        self.sorter.begin(&self.server);
        let parts = self.server.parts().await?;
        let order = parts.1.order.as_ref();
        let (former, own) = order
            .and_then(|order| order.of(partition))
            .ok_or_else(|| SourceError::Refused(format!("there is no partition {partition}")))?;
        // MSG-9: messages of a former number of partitions are older than all others.
        for consumer in former {
            let messages = self.fetch_there(consumer, 1).await?;
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
        match wait.is_zero() {
            true => self.fetch_there(own, 1).await,
            false => self.fetch_next(own, wait).await,
        }
    }

    async fn clock(&self) -> Result<ServerClock, SourceError> {
        let parts = self.server.parts().await?;
        self.server.clock(&parts.1).await
    }

    /// Fetches the messages that are there.
    async fn fetch_there(
        &self,
        consumer: &PullConsumer,
        most: u32,
    ) -> Result<Vec<QueueMessage>, SourceError> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let clock = self.clock().await?;
        let there = consumer.fetch().max_messages(most).messages();
        let mut batch = self.server.ask(there).await?;
        self.collect(&mut batch, QUESTION, clock).await
    }

    /// Fetches the next message, as soon as there is one.
    async fn fetch_next(
        &self,
        consumer: &PullConsumer,
        wait: Duration,
    ) -> Result<Vec<QueueMessage>, SourceError> {
        let clock = self.clock().await?;
        let next = consumer.batch().max_messages(1).expires(wait).messages();
        let mut batch = self.server.ask(next).await?;
        self.collect(&mut batch, wait + QUESTION, clock).await
    }

    /// Reads a batch to its end. Messages that have come are never dropped for an error after them.
    async fn collect(
        &self,
        batch: &mut jetstream::consumer::pull::Batch,
        limit: Duration,
        clock: ServerClock,
    ) -> Result<Vec<QueueMessage>, SourceError> {
        let mut messages = Vec::new();
        let end = Instant::now() + limit;
        loop {
            match tokio::time::timeout_at(end, batch.next()).await {
                Ok(Some(Ok(message))) => match self.read(&message, clock) {
                    Some(read) => messages.push(read),
                    None => end_odd(&message).await,
                },
                Ok(Some(Err(error))) if messages.is_empty() => {
                    self.server.forget();
                    return Err(unavailable(NatsError::of(error)));
                }
                Ok(None | Some(Err(_))) | Err(_) => return Ok(messages),
            }
        }
    }

    /// Reads a delivery. `None`: it is none of JetStream.
    fn read(&self, message: &jetstream::Message, clock: ServerClock) -> Option<QueueMessage> {
        let info = message.info().ok()?;
        let mut read = QueueMessage::new("", &message.payload[..]);
        read.place = info.stream_sequence.to_string();
        read.token = message.reply.as_ref()?.to_string();
        read.deliveries = u32::try_from(info.delivered).unwrap_or(u32::MAX);
        for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
            for value in values {
                read = read.with_header(name.to_string(), value.as_str());
            }
        }
        let original = match self.server.settings.partitions {
            Some(_) => SortedMessage::read(message)?,
            None => SortedMessage::of(message)?,
        };
        read.age = clock.age(original.at);
        read.subject = original.subject;
        read.id = original.id;
        if self.server.settings.partitions.is_some() {
            read.headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case(ID));
        }
        Some(read)
    }

    /// Publishes a message, unless the stream has it already.
    async fn publish_once(
        &self,
        message: &OutgoingMessage,
        mut headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), SourceError> {
        let subject = &message.subject;
        let origin = headers.get(ORIGIN).map(|known| {
            // Another program may have a consumer of the same name.
            format!("{}/{}", self.server.settings.stream, known.as_str())
        });
        if let Some(origin) = &origin {
            headers.insert(ORIGIN, origin.as_str());
        }
        let (sent, body) = self.fitted(subject, headers.clone(), payload.clone());
        let ack = self.server.put(subject.clone(), Some(sent), body);
        let ack = ack.await?;
        let Some(origin) = origin.filter(|_| ack.duplicate) else {
            return Ok(());
        };
        let known = self.server.origin_at(&ack.stream, ack.sequence).await?;
        if known.is_none_or(|known| known == origin) {
            return Ok(());
        }
        // MSG-3: another queue's message has the same id, which is no reason to lose this one.
        let id = format!("{}:{origin}", message.id);
        let id: HeaderValue = id
            .parse()
            .map_err(|_| SourceError::Refused("the id of a message is none of NATS".to_owned()))?;
        headers.insert(ID, id);
        let (headers, payload) = self.fitted(subject, headers, payload);
        self.server
            .put(subject.clone(), Some(headers), payload)
            .await
            .map(drop)
    }

    /// Returns a publication as it is sent: a dead letter is made to fit, an answer is whole.
    fn fitted(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> (HeaderMap, Bytes) {
        match subject == self.server.settings.dead_letters {
            true => self.server.fitted(headers, payload),
            false => (headers, payload),
        }
    }

    async fn read_notes(&self, message: &QueueMessage) -> Result<MessageNotes, SourceError> {
        let parts = self.server.parts().await?;
        let subject = self.server.note_subject(parts.1.epoch, &message.place);
        let note = self.server.note(&parts.1, &subject).await?;
        Ok(note
            .and_then(|note| notes::read(&note.payload))
            .unwrap_or_default())
    }

    /// Returns true if a message stands in its stream and was not acknowledged.
    async fn stands(&self, message: &QueueMessage) -> Result<bool, SourceError> {
        let parts = self.server.parts().await?;
        let Ok(place) = message.place.parse::<u64>() else {
            return Ok(true);
        };
        let stored = self.server.stored(&parts.1.messages, place).await?;
        if stored.is_none() || parts.1.order.is_some() {
            return Ok(stored.is_some());
        }
        // MSG-7: streams that others have made may keep messages that have ended. One that has ended behind
        // an outstanding one counts as outstanding, and its notes stay meanwhile: nothing begins its work.
        Ok(place > self.server.ack_floor(&parts.1).await?)
    }

    async fn claim_notes(
        &self,
        message: &QueueMessage,
        notes: MessageNotes,
    ) -> Result<(), SourceError> {
        let parts = self.server.parts().await?;
        let subject = self.server.note_subject(parts.1.epoch, &message.place);
        let text = Bytes::from(notes::write(notes, &self.holder));
        let mut last = 0;
        for _ in 0..CLAIMS {
            let put = self.server.put_after(last, &subject, text.clone());
            if put.await?.is_some() {
                return Ok(());
            }
            let Some(note) = self.server.note(&parts.1, &subject).await? else {
                last = 0;
                continue;
            };
            let is_free =
                notes::read(&note.payload).is_none_or(|known| known.work == NotedWork::NotBegun);
            match is_free {
                true => last = note.sequence,
                // The answer to an earlier try was lost.
                false if note.payload == text => return Ok(()),
                false => {
                    let problem = "another consumer has begun its work".to_owned();
                    return Err(SourceError::Refused(problem));
                }
            }
        }
        let problem = "its notes change all the time".to_owned();
        Err(SourceError::Unavailable(problem))
    }
}

impl MessageSource for NatsQueue {
    fn fetch(&self, most: u32, wait: Duration) -> SourceFuture<'_, Vec<QueueMessage>> {
        self.ended.begin(&self.server);
        Box::pin(self.fetch_some(most, wait))
    }

    fn partitions(&self) -> u32 {
        let partitions = self.server.settings.partitions;
        partitions.map_or(0, NonZeroU32::get)
    }

    fn fetch_of(&self, partition: u32, wait: Duration) -> SourceFuture<'_, Vec<QueueMessage>> {
        self.ended.begin(&self.server);
        Box::pin(self.fetch_ordered(partition, wait))
    }

    fn close(&self) -> SourceFuture<'_, ()> {
        Box::pin(async {
            self.sorter.end(QUESTION).await;
            Ok(())
        })
    }

    fn acknowledge<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        Box::pin(self.server.tell(message, Bytes::from_static(b"+ACK"), true))
    }

    fn give_back<'a>(&'a self, message: &'a QueueMessage, delay: Duration) -> SourceFuture<'a, ()> {
        // MSG-4: without a delay it would be delivered again at once.
        let word = format!("-NAK {{\"delay\":{}}}", delay.as_nanos().max(1));
        Box::pin(self.server.tell(message, Bytes::from(word), false))
    }

    fn progress<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        Box::pin(
            self.server
                .tell(message, Bytes::from_static(b"+WPI"), false),
        )
    }

    fn notes<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, MessageNotes> {
        Box::pin(self.read_notes(message))
    }

    fn keep_notes<'a>(
        &'a self,
        message: &'a QueueMessage,
        notes: MessageNotes,
    ) -> SourceFuture<'a, ()> {
        Box::pin(async move {
            let parts = self.server.parts().await?;
            let subject = self.server.note_subject(parts.1.epoch, &message.place);
            self.server
                .put(
                    subject,
                    None,
                    Bytes::from(notes::write(notes, &self.holder)),
                )
                .await
                .map(drop)
        })
    }

    fn claim<'a>(&'a self, message: &'a QueueMessage, notes: MessageNotes) -> SourceFuture<'a, ()> {
        Box::pin(self.claim_notes(message, notes))
    }

    fn is_outstanding<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, bool> {
        Box::pin(self.stands(message))
    }

    fn drop_notes<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        Box::pin(async move {
            let parts = self.server.parts().await?;
            let subject = self.server.note_subject(parts.1.epoch, &message.place);
            self.ended.add(subject);
            Ok(())
        })
    }

    fn publish<'a>(&'a self, message: &'a OutgoingMessage) -> SourceFuture<'a, ()> {
        Box::pin(async move {
            let Some(headers) = headers_of(message) else {
                let problem = "a header of it is none of NATS";
                return Err(SourceError::Refused(problem.to_owned()));
            };
            let payload = Bytes::copy_from_slice(&message.payload);
            self.publish_once(message, headers, payload).await
        })
    }

    fn pending(&self) -> SourceFuture<'_, u64> {
        Box::pin(async move {
            let parts = self.server.parts().await?;
            let info = self.server.ask(parts.1.consumer.get_info()).await?;
            let Some(order) = &parts.1.order else {
                return Ok(info.num_pending);
            };
            // One question for all partitions. The messages of the stream would not do: after a crash of
            // the server some that are acknowledged stand there still.
            let partitions = order.stream.consumers().try_collect::<Vec<_>>();
            let partitions = self.server.ask(partitions).await?;
            let waiting = partitions.iter().map(|one| one.num_pending);
            Ok(info.num_pending + waiting.sum::<u64>())
        })
    }
}

/// Ends a message that cannot be read: in its partition, the others would wait behind it for ever.
async fn end_odd(message: &jetstream::Message) {
    tracing::warn!(
        subject = %message.subject,
        "a message that no consumer of Breakerbox has put there is left out"
    );
    // Without a connection it comes again.
    let _ = message.ack_with(jetstream::AckKind::Term).await;
}

impl fmt::Debug for NatsQueue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NatsQueue")
            .field("settings", &self.server.settings)
            .finish_non_exhaustive()
    }
}
