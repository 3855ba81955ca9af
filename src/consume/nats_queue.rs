//! A queue of NATS JetStream as a consumer sees it.
//!
//! Nothing is sent without a connection, and each question has a time limit of its own: the client
//! would keep all publications, and send them later.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{RequestErrorKind, jetstream};
use breakerbox_actors::{MessageSource, OutgoingMessage, QueueMessage, SourceError, SourceFuture};
use breakerbox_policy::MessageNotes;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::notes;
use super::provision::{self, QUESTION, QueueParts};
use super::server_clock::ServerClock;
use crate::config::FleetConfig;
use crate::lock::LockExt as _;
use crate::nats::{NatsConnection, NatsError};

/// Header by which the servers drop a second message.
const ID: &str = "Nats-Msg-Id";

/// Settings of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSettings {
    /// The stream of the messages; made where it is missing.
    pub stream: String,
    /// The subject of the messages.
    pub subject: String,
    /// The durable consumer, shared by all replicas.
    pub durable: String,
    /// Time after which a message is delivered again of which nothing was heard.
    pub ack_wait: Duration,
    /// The subject of the dead letters; a stream for it is made where it is missing.
    pub dead_letters: String,
    /// The bucket with the notes about messages; made where it is missing.
    pub notes: String,
    /// Number of copies that the servers keep.
    pub copies: usize,
}

impl QueueSettings {
    /// Settings with the defaults of a consumer of this name.
    #[must_use]
    pub fn new(name: &str, stream: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            subject: subject.into(),
            durable: format!("breakerbox_{name}"),
            ack_wait: Duration::from_secs(30),
            dead_letters: format!("dead.{name}"),
            notes: "breakerbox_messages".to_owned(),
            copies: 1,
        }
    }
}

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
    connection: NatsConnection,
    settings: QueueSettings,
    /// The parts at the servers, and the number of the connection by which they were found.
    parts: ArcSwapOption<(u64, QueueParts)>,
    clock: Mutex<Option<ServerClock>>,
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
            connection,
            settings,
            parts: ArcSwapOption::empty(),
            clock: Mutex::default(),
        }
    }

    /// Returns the parts at the servers; makes the missing ones once in each connection.
    async fn parts(&self) -> Result<Arc<(u64, QueueParts)>, SourceError> {
        let connections = self.connection.standing().borrow().connections;
        if let Some(parts) = self.parts.load_full()
            && parts.0 == connections
        {
            return Ok(parts);
        }
        let made = provision::provide(&self.connection, &self.settings).await;
        let parts = Arc::new((connections, made.map_err(unavailable)?));
        self.parts.store(Some(Arc::clone(&parts)));
        Ok(parts)
    }

    /// Forgets the parts, so that they are looked for again.
    fn forget(&self) {
        self.parts.store(None);
    }

    /// Returns the servers' time, measured anew from time to time.
    async fn clock(&self, parts: &QueueParts) -> Result<ServerClock, SourceError> {
        let known = *self.clock.acquire();
        if let Some(known) = known.filter(|known| !known.is_old()) {
            return Ok(known);
        }
        let subject = format!(
            "$KV.{}.clock.{}",
            self.settings.notes, self.settings.durable
        );
        let before = Instant::now();
        self.put(subject.clone(), None, Bytes::from_static(b"1"))
            .await?;
        let written = parts.notes.get_last_raw_message_by_subject(&subject);
        let written = self.connection.within(QUESTION, written).await;
        let written = written.map_err(unavailable)?.time;
        let clock = ServerClock::at(written.unix_timestamp_nanos(), before);
        *self.clock.acquire() = Some(clock);
        Ok(clock)
    }

    /// Returns the subject of the notes of a message.
    fn note_subject(&self, epoch: i64, message: &QueueMessage) -> String {
        let QueueSettings { notes, durable, .. } = &self.settings;
        format!("$KV.{notes}.{durable}.{epoch}.{}", message.place)
    }

    async fn fetch_some(
        &self,
        most: u32,
        wait: Duration,
    ) -> Result<Vec<QueueMessage>, SourceError> {
        let parts = self.parts().await?;
        let clock = self.clock(&parts.1).await?;
        let consumer = &parts.1.consumer;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let there = consumer.fetch().max_messages(most).messages();
        let mut batch = self.ask(there).await?;
        let mut messages = self.collect(&mut batch, QUESTION, clock).await?;
        if messages.is_empty() {
            let next = consumer.batch().max_messages(1).expires(wait).messages();
            let mut batch = self.ask(next).await?;
            messages = self.collect(&mut batch, wait + QUESTION, clock).await?;
        }
        Ok(messages)
    }

    /// Awaits an answer; a failure makes the parts be looked for again.
    async fn ask<T, E: fmt::Display>(
        &self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, SourceError> {
        let answer = self.connection.within(QUESTION, question).await;
        answer.map_err(|error| {
            self.forget();
            unavailable(error)
        })
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
                Ok(Some(Ok(message))) => messages.extend(read(&message, clock)),
                Ok(Some(Err(error))) if messages.is_empty() => {
                    self.forget();
                    return Err(unavailable(NatsError::of(error)));
                }
                Ok(None | Some(Err(_))) | Err(_) => return Ok(messages),
            }
        }
    }

    /// Publishes a message and waits for the word of the stream that took it.
    async fn put(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), SourceError> {
        let context = self.connection.jetstream().map_err(unavailable)?;
        let published = async {
            let sent =
                context.publish_with_headers(subject.clone(), headers.unwrap_or_default(), payload);
            sent.await?.await
        };
        match tokio::time::timeout(QUESTION, published).await {
            Err(_) => Err(unavailable(NatsError::TimedOut(QUESTION))),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => Err(SourceError::Refused(
                    "it is too long for the server".to_owned(),
                )),
                PublishErrorKind::StreamNotFound => {
                    // Without a leader there is no answer either: only a list of streams is certain.
                    match provision::takes(&self.connection, &subject).await {
                        Ok(false) => Err(SourceError::Refused(format!(
                            "no stream takes the subject {subject}"
                        ))),
                        Ok(true) | Err(_) => Err(unavailable(NatsError::of(error))),
                    }
                }
                // The stream's own limits: its size, or that of a message.
                PublishErrorKind::Other if says_limit(&error) => Err(SourceError::Refused(
                    NatsError::of(full_text(&error)).to_string(),
                )),
                _ => Err(unavailable(NatsError::of(full_text(&error)))),
            },
        }
    }

    /// Sends a word about a delivery, and waits for the server to confirm it if asked to.
    async fn tell(
        &self,
        message: &QueueMessage,
        word: Bytes,
        is_confirmed: bool,
    ) -> Result<(), SourceError> {
        if !is_confirmed {
            let token = message.token.clone();
            let sent = self.connection.publish(token, word, QUESTION).await;
            return sent.map_err(unavailable);
        }
        let client = self.connection.client().map_err(unavailable)?;
        let asked = client.request(message.token.clone(), word);
        match tokio::time::timeout(QUESTION, asked).await {
            Err(_) => Err(unavailable(NatsError::TimedOut(QUESTION))),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                // The stream may be gone for good: then there is nothing to acknowledge.
                match provision::takes(&self.connection, &message.subject).await {
                    Ok(false) => Err(SourceError::Refused("the stream is gone".to_owned())),
                    Ok(true) | Err(_) => Err(unavailable(NatsError::of(error))),
                }
            }
            Ok(Err(error)) => Err(unavailable(NatsError::of(error))),
        }
    }

    async fn read_notes(&self, message: &QueueMessage) -> Result<MessageNotes, SourceError> {
        let parts = self.parts().await?;
        let subject = self.note_subject(parts.1.epoch, message);
        let asked = async {
            match parts
                .1
                .notes
                .get_last_raw_message_by_subject(&subject)
                .await
            {
                Ok(note) => Ok(Some(note)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        let note = self.connection.within(QUESTION, asked).await;
        let note = note.map_err(unavailable)?;
        Ok(note
            .and_then(|note| notes::read(&note.payload))
            .unwrap_or_default())
    }

    async fn remove_notes(&self, message: &QueueMessage) -> Result<(), SourceError> {
        let parts = self.parts().await?;
        let subject = self.note_subject(parts.1.epoch, message);
        let purged = async { parts.1.notes.purge().filter(subject).await };
        let purged = self.connection.within(QUESTION, purged).await;
        purged.map(drop).map_err(unavailable)
    }
}

impl MessageSource for NatsQueue {
    fn fetch(&self, most: u32, wait: Duration) -> SourceFuture<'_, Vec<QueueMessage>> {
        Box::pin(self.fetch_some(most, wait))
    }

    fn acknowledge<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        Box::pin(self.tell(message, Bytes::from_static(b"+ACK"), true))
    }

    fn give_back<'a>(&'a self, message: &'a QueueMessage, delay: Duration) -> SourceFuture<'a, ()> {
        // MSG-4: without a delay it would be delivered again at once.
        let word = format!("-NAK {{\"delay\":{}}}", delay.as_nanos().max(1));
        Box::pin(self.tell(message, Bytes::from(word), false))
    }

    fn progress<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        Box::pin(self.tell(message, Bytes::from_static(b"+WPI"), false))
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
            let parts = self.parts().await?;
            let subject = self.note_subject(parts.1.epoch, message);
            self.put(subject, None, Bytes::from(notes::write(notes)))
                .await
        })
    }

    fn drop_notes<'a>(&'a self, message: &'a QueueMessage) -> SourceFuture<'a, ()> {
        Box::pin(self.remove_notes(message))
    }

    fn publish<'a>(&'a self, message: &'a OutgoingMessage) -> SourceFuture<'a, ()> {
        Box::pin(async move {
            let Some(headers) = headers_of(message) else {
                let problem = "a header of it is none of NATS";
                return Err(SourceError::Refused(problem.to_owned()));
            };
            let payload = Bytes::copy_from_slice(&message.payload);
            self.put(message.subject.clone(), Some(headers), payload)
                .await
        })
    }

    fn pending(&self) -> SourceFuture<'_, u64> {
        Box::pin(async move {
            let parts = self.parts().await?;
            let info = self.ask(parts.1.consumer.get_info()).await?;
            Ok(info.num_pending)
        })
    }
}

/// Reads a delivery. `None`: it is none of JetStream.
fn read(message: &jetstream::Message, clock: ServerClock) -> Option<QueueMessage> {
    let info = message.info().ok()?;
    let mut read = QueueMessage::new("", &message.payload[..]);
    read.place = info.stream_sequence.to_string();
    read.token = message.reply.as_ref()?.to_string();
    message.subject.as_str().clone_into(&mut read.subject);
    read.deliveries = u32::try_from(info.delivered).unwrap_or(u32::MAX);
    read.age = clock.age(info.published.unix_timestamp_nanos());
    let headers = message.headers.iter().flat_map(HeaderMap::iter);
    for (name, values) in headers {
        for value in values {
            read = read.with_header(name.to_string(), value.as_str());
        }
    }
    let id = read.header(ID).map(str::to_owned);
    // MSG-2: the message's own id, else its place.
    read.id = id.unwrap_or_else(|| format!("{}:{}", info.stream, info.stream_sequence));
    Some(read)
}

/// Returns the headers of a publication. `None`: one of them cannot be sent.
pub(super) fn headers_of(message: &OutgoingMessage) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &message.headers {
        // Headers of this name are orders to the server.
        if name.to_ascii_lowercase().starts_with("nats-") {
            continue;
        }
        let name: async_nats::HeaderName = name.parse().ok()?;
        let value: async_nats::HeaderValue = value.parse().ok()?;
        headers.append(name, value);
    }
    let id: async_nats::HeaderValue = message.id.parse().ok()?;
    headers.insert(ID, id);
    Some(headers)
}

/// Returns true if the stream itself refuses the message.
fn says_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let text = full_text(error);
    ["maximum", "exceed", "sealed"]
        .iter()
        .any(|word| text.contains(word))
}

/// Returns the text of an error with those of its sources.
fn full_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        source = next.source();
    }
    text
}

fn unavailable(error: NatsError) -> SourceError {
    SourceError::Unavailable(error.to_string())
}

impl fmt::Debug for NatsQueue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NatsQueue")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
