//! The servers of a queue: its parts there, their clock, and what is said to them.
//!
//! Nothing is sent without a connection, and each question has a time limit of its own: the client
//! would keep all publications, and send them later.

use std::fmt;
use std::sync::Arc;

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::{HeaderMap, RequestErrorKind};
use breakerbox_actors::{ORIGIN, OutgoingMessage, QueueMessage, SourceError};
use bytes::Bytes;
use tokio::time::Instant;

use super::dead_letters;
use super::known_parts::KnownParts;
use super::provision::{self, QUESTION, QueueParts};
use super::queue_settings::{ID, QueueSettings};
use super::server_clock::ServerClock;
use super::sorted_message::prefix_of;
use crate::nats::{NatsConnection, NatsError, has_lost_swap};

/// The servers of one queue. Its parts there are made, where they are missing, at the first question after
/// each connection.
pub(super) struct QueueServer {
    pub(super) connection: NatsConnection,
    pub(super) settings: QueueSettings,
    parts: KnownParts<QueueParts>,
    clock: KnownParts<ServerClock>,
}

impl QueueServer {
    pub(super) fn new(connection: NatsConnection, settings: QueueSettings) -> Self {
        Self {
            connection,
            settings,
            parts: KnownParts::default(),
            clock: KnownParts::default(),
        }
    }

    /// Returns the parts at the servers; makes the missing ones once in each connection.
    pub(super) async fn parts(&self) -> Result<Arc<(u64, QueueParts)>, SourceError> {
        let connection = || self.connection.standing().borrow().connections;
        let provided = || async {
            let made = provision::provide(&self.connection, &self.settings).await;
            made.map_err(unavailable)
        };
        self.parts.get(connection, provided).await
    }

    /// Forgets the parts, so that they are looked for again.
    pub(super) fn forget(&self) {
        self.parts.forget();
    }

    /// Returns the servers' time, measured anew in each connection, and from time to time.
    pub(super) async fn clock(&self, parts: &QueueParts) -> Result<ServerClock, SourceError> {
        let connection = || self.connection.standing().borrow().connections;
        let known = self.clock.get(connection, || self.measure(parts)).await?;
        if !known.1.is_old() {
            return Ok(known.1);
        }
        self.clock.forget();
        let measured = self.clock.get(connection, || self.measure(parts));
        Ok(measured.await?.1)
    }

    async fn measure(&self, parts: &QueueParts) -> Result<ServerClock, SourceError> {
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
        Ok(ServerClock::at(written.unix_timestamp_nanos(), before))
    }

    /// Returns the subject of the notes of the message at this place of its stream.
    pub(super) fn note_subject(&self, epoch: i64, place: &str) -> String {
        let QueueSettings { notes, durable, .. } = &self.settings;
        format!("$KV.{notes}.{durable}.{epoch}.{place}")
    }

    /// Returns the subject of the last intent to move a message into its partition.
    pub(super) fn move_subject(&self) -> String {
        let QueueSettings {
            notes,
            stream,
            durable,
            ..
        } = &self.settings;
        format!("$KV.{notes}.moved.{stream}.{durable}")
    }

    /// Removes notes of a message.
    pub(super) async fn purge_notes(
        &self,
        parts: &QueueParts,
        subject: &str,
    ) -> Result<(), SourceError> {
        let purged = async { parts.notes.purge().filter(subject).await };
        let purged = self.connection.within(QUESTION, purged).await;
        purged.map(drop).map_err(unavailable)
    }

    /// Awaits an answer; a failure makes the parts be looked for again.
    pub(super) async fn ask<T, E: fmt::Display>(
        &self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, SourceError> {
        let answer = self.connection.within(QUESTION, question).await;
        answer.map_err(|error| {
            self.forget();
            unavailable(error)
        })
    }

    /// Publishes a message and waits for the word of the stream that took it.
    ///
    /// # Errors  [`SourceError::Refused`] if no stream will ever take it.
    pub(super) async fn put(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<PublishAck, SourceError> {
        let headers = headers.unwrap_or_default();
        let published = self.publish(&subject, headers, payload);
        match published.await? {
            Ok(ack) => Ok(ack),
            Err(error) => Err(self.unpublished(&subject, &error).await),
        }
    }

    /// Publishes a message if the last one of its subject is that with this number, or if there is none
    /// and the number is 0. Returns `None` otherwise.
    pub(super) async fn put_after(
        &self,
        sequence: u64,
        subject: &str,
        payload: Bytes,
    ) -> Result<Option<PublishAck>, SourceError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
        self.put_if(subject, headers, payload).await
    }

    /// Publishes a message if its stream has the last number that the headers expect. Returns `None`
    /// otherwise.
    pub(super) async fn put_if(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Option<PublishAck>, SourceError> {
        match self.publish(subject, headers, payload).await? {
            Ok(ack) => Ok(Some(ack)),
            Err(error) if has_lost_swap(&error) => Ok(None),
            Err(error) => Err(self.unpublished(subject, &error).await),
        }
    }

    /// Returns the number in the queue's own stream up to which all messages are acknowledged.
    pub(super) async fn ack_floor(&self, parts: &QueueParts) -> Result<u64, SourceError> {
        let info = self.ask(parts.consumer.get_info()).await?;
        Ok(info.ack_floor.stream_sequence)
    }

    /// Returns the last note of a subject.
    pub(super) async fn note(
        &self,
        parts: &QueueParts,
        subject: &str,
    ) -> Result<Option<StreamMessage>, SourceError> {
        let asked = async {
            match parts.notes.get_last_raw_message_by_subject(subject).await {
                Ok(note) => Ok(Some(note)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.ask(asked).await
    }

    async fn publish(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Result<PublishAck, PublishError>, SourceError> {
        let context = self.connection.jetstream().map_err(unavailable)?;
        let published = async {
            let sent = context.publish_with_headers(subject.to_owned(), headers, payload);
            sent.await?.await
        };
        let asked = Instant::now();
        let published = tokio::time::timeout(QUESTION, published).await;
        let is_silent = match &published {
            Err(_) => true,
            Ok(Err(error)) => error.kind() == PublishErrorKind::TimedOut,
            Ok(Ok(_)) => false,
        };
        // MSG-6: the server answers nothing to what an account may not say.
        if is_silent && self.connection.is_forbidden(subject, asked) {
            return Err(SourceError::Refused(forbidden(subject)));
        }
        published.map_err(|_| unavailable(NatsError::TimedOut(QUESTION)))
    }

    /// Returns true for a subject of the stream that keeps the messages in their order.
    fn is_of_order(&self, subject: &str) -> bool {
        let of_order = self.settings.partitions.map(|_| prefix_of(&self.settings));
        of_order.is_some_and(|prefix| subject.starts_with(&format!("{prefix}.")))
    }

    /// Tells a stream that will never take a message from one that cannot at present.
    async fn unpublished(&self, subject: &str, error: &PublishError) -> SourceError {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                SourceError::Refused("it is too long for the server".to_owned())
            }
            PublishErrorKind::StreamNotFound => {
                // Without a leader there is no answer either: only a list of streams is certain.
                match provision::takes(&self.connection, subject).await {
                    Ok(false) => {
                        // It may be one of ours that an operator has deleted.
                        self.forget();
                        let why = format!("no stream takes the subject {subject}");
                        match self.is_of_order(subject) {
                            // MSG-3: the stream of the order is made again.
                            true => SourceError::Unavailable(why),
                            false => SourceError::Refused(why),
                        }
                    }
                    Ok(true) | Err(_) => unavailable(NatsError::of(error)),
                }
            }
            PublishErrorKind::Other => {
                let text = full_text(error);
                // MSG-6: dead letters wait for an operator, so their stream stays full.
                let is_of_dead = subject == self.settings.dead_letters;
                match is_for_ever(&text) || is_of_dead && text.contains("exceeded") {
                    true => SourceError::Refused(NatsError::of(text).to_string()),
                    false => unavailable(NatsError::of(text)),
                }
            }
            _ => unavailable(NatsError::of(full_text(error))),
        }
    }

    /// Returns the origin of a message that stands in a stream, empty if it has none; `None` if it does
    /// not stand there any more.
    pub(super) async fn origin_at(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<String>, SourceError> {
        let context = self.connection.jetstream().map_err(unavailable)?;
        let stream = self.ask(context.get_stream_no_info(stream)).await?;
        Ok(self.stored(&stream, sequence).await?.map(|found| {
            let origin = found.headers.get(ORIGIN);
            origin.map_or_else(String::new, |origin| origin.as_str().to_owned())
        }))
    }

    /// Returns the message that stands at this place of a stream.
    pub(super) async fn stored<I>(
        &self,
        stream: &Stream<I>,
        sequence: u64,
    ) -> Result<Option<StreamMessage>, SourceError> {
        let asked = async {
            match stream.get_raw_message(sequence).await {
                Ok(found) => Ok(Some(found)),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        let found = self.connection.within(QUESTION, asked).await;
        found.map_err(unavailable)
    }

    /// Returns a dead letter that the servers take. What makes it too long is left out: first the
    /// headers of the message, then the end of its payload.
    pub(super) fn fitted(&self, headers: HeaderMap, payload: Bytes) -> (HeaderMap, Bytes) {
        let Ok(client) = self.connection.client() else {
            return (headers, payload);
        };
        fitted(headers, payload, client.server_info().max_payload)
    }

    /// Sends a word about a delivery, and waits for the server to confirm it if asked to.
    pub(super) async fn tell(
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
        let began = Instant::now();
        let asked = client.request(message.token.clone(), word);
        let answered = tokio::time::timeout(QUESTION, asked).await;
        if !matches!(answered, Ok(Ok(_))) && self.connection.is_forbidden(&message.token, began) {
            return Err(SourceError::Unavailable(forbidden("$JS.ACK.>")));
        }
        match answered {
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
}

fn forbidden(subject: &str) -> String {
    format!("permissions violation: the account may not publish to {subject}")
}

/// Returns the length of headers on their way.
fn length(headers: &HeaderMap) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| {
        let name = name.to_string().len();
        values
            .iter()
            .map(move |value| name + value.as_str().len() + ": \r\n".len())
    });
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>()
}

fn fitted(mut headers: HeaderMap, mut payload: Bytes, most: usize) -> (HeaderMap, Bytes) {
    if length(&headers) + payload.len() <= most {
        return (headers, payload);
    }
    // MSG-6: a message that cannot be buried whole would be called again for ever.
    let whole = (headers.len(), payload.len());
    let mut kept = HeaderMap::new();
    for name in [ID, ORIGIN, dead_letters::SUBJECT, dead_letters::PROBLEM] {
        if let Some(value) = headers.get(name) {
            kept.insert(name, value.clone());
        }
    }
    headers = kept;
    let cut = format!(
        "{} headers and {} bytes of payload in all",
        whole.0, whole.1
    );
    headers.insert(dead_letters::CUT, cut);
    if length(&headers) > most / 2 {
        headers.insert(dead_letters::PROBLEM, "{\"reason\":\"too long\"}");
    }
    payload.truncate(most.saturating_sub(length(&headers)));
    (headers, payload)
}

/// Returns true if the stream will never take the message. A stream that is full has room again once
/// its messages are read.
fn is_for_ever(text: &str) -> bool {
    ["size exceeds", "sealed"]
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

pub(super) fn unavailable(error: NatsError) -> SourceError {
    SourceError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_6_a_dead_letter_that_is_too_long_is_buried_without_what_makes_it_so() {
        let mut headers = HeaderMap::new();
        headers.insert(ID, "dead:7");
        headers.insert(dead_letters::SUBJECT, "calls.find");
        headers.insert(dead_letters::PROBLEM, "{\"reason\":\"failures\"}");
        let plain = length(&headers);
        let payload = Bytes::from(vec![b'x'; 500]);
        let (same, whole) = fitted(headers.clone(), payload.clone(), plain + 500);
        assert_eq!((&same, whole.len()), (&headers, 500));
        headers.insert("x-trace", "y".repeat(100));
        let (less, whole) = fitted(headers.clone(), payload.clone(), plain + 580);
        assert!(less.get("x-trace").is_none() && less.get(dead_letters::CUT).is_some());
        assert_eq!(whole.len(), 500, "the payload has room");
        for most in [plain + 499, plain + 100, 200] {
            let (less, part) = fitted(headers.clone(), payload.clone(), most);
            assert!(length(&less) + part.len() <= most, "{most}: {less:?}");
            assert_eq!(less.get(ID).unwrap().as_str(), "dead:7");
        }
    }
}
