//! The dead letters of a consumer, for operators: looked at, put back into the queue, or dropped.

use std::fmt;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use breakerbox_actors::{ORIGIN, OutgoingMessage};
use serde_json::Value;

use super::provision::QUESTION;
use super::queue_server::headers_of;
use crate::config::FleetConfig;
use crate::nats::{NatsConnection, NatsError};

/// Headers that a dead letter has beside those of its message.
pub(super) const SUBJECT: &str = "breakerbox-subject";
pub(super) const PROBLEM: &str = "breakerbox-problem";
/// Says how long the message was, where it was too long to be kept whole.
pub(super) const CUT: &str = "breakerbox-cut";

/// The reason why dead letters cannot be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The servers cannot be reached, or did not answer.
    #[error("{0}")]
    Unavailable(String),
    /// There is no dead letter of this number.
    #[error("there is no dead letter {0}")]
    Unknown(u64),
    /// It does not say which subject its message came from.
    #[error("dead letter {0} does not say which subject it came from")]
    WithoutSubject(u64),
    /// Its message was too long to be kept whole.
    #[error(
        "dead letter {0} is cut off, it was too long for the servers; publish its message again from its source"
    )]
    Cut(u64),
}

impl From<NatsError> for DeadLetterError {
    fn from(error: NatsError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its number in its stream.
    pub number: u64,
    /// Its burial, in milliseconds since 1970 by the server's clock.
    pub at_ms: i128,
    /// The id of its message.
    pub id: String,
    /// The subject that the message was published to.
    pub subject: String,
    /// The headers of the message, sorted.
    pub headers: Vec<(String, String)>,
    /// The payload of the message.
    pub payload: Vec<u8>,
    /// The problem document of its last error.
    pub problem: Value,
}

impl DeadLetter {
    fn of(message: &StreamMessage) -> Self {
        let header = |name: &str| {
            let value = message.headers.get(name);
            value.map(|value| value.as_str().to_owned())
        };
        let own = [SUBJECT, PROBLEM, ORIGIN, "nats-msg-id"];
        let mut headers: Vec<(String, String)> = HeaderMap::iter(&message.headers)
            .flat_map(|(name, values)| {
                let name = name.to_string();
                values
                    .iter()
                    .map(move |value| (name.clone(), value.as_str().to_owned()))
            })
            .filter(|(name, _)| !own.contains(&name.to_ascii_lowercase().as_str()))
            .collect();
        headers.sort();
        let id = header("Nats-Msg-Id").unwrap_or_default();
        let problem = header(PROBLEM).and_then(|text| serde_json::from_str(&text).ok());
        Self {
            number: message.sequence,
            at_ms: message.time.unix_timestamp_nanos() / 1_000_000,
            id: id.strip_prefix("dead:").unwrap_or(&id).to_owned(),
            subject: header(SUBJECT).unwrap_or_default(),
            headers,
            payload: message.payload.to_vec(),
            problem: problem.unwrap_or_default(),
        }
    }

    /// Returns a member of the problem document as a text.
    #[must_use]
    pub fn fact(&self, name: &str) -> String {
        match &self.problem[name] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }
}

/// The dead letters of one subject.
pub struct DeadLetters {
    connection: NatsConnection,
    stream: Stream,
    subject: String,
}

impl DeadLetters {
    /// Connects to the servers of a fleet. `subject`: of the dead letters.
    ///
    /// # Errors  The servers cannot be reached, or no stream takes this subject.
    pub async fn connect(config: &FleetConfig, subject: &str) -> Result<Self, DeadLetterError> {
        let connection = NatsConnection::open(config, "breakerbox dead").await?;
        let mut standing = connection.standing();
        let connected = standing.wait_for(|now| now.is_connected);
        let connected = tokio::time::timeout(QUESTION, connected).await;
        if !matches!(connected, Ok(Ok(_))) {
            return Err(NatsError::NotConnected.into());
        }
        let context = connection.jetstream()?;
        let name = connection
            .within(QUESTION, context.stream_by_subject(subject))
            .await?;
        let stream = connection
            .within(QUESTION, context.get_stream(name))
            .await?;
        Ok(Self {
            connection,
            stream,
            subject: subject.to_owned(),
        })
    }

    /// Returns up to `most` dead letters, the oldest first.
    ///
    /// # Errors  [`DeadLetterError::Unavailable`].
    pub async fn list(&self, most: usize) -> Result<Vec<DeadLetter>, DeadLetterError> {
        let mut letters = Vec::new();
        let mut from = 1;
        while letters.len() < most {
            let Some(message) = self.next(from).await? else {
                break;
            };
            from = message.sequence + 1;
            letters.push(DeadLetter::of(&message));
        }
        Ok(letters)
    }

    /// Returns one dead letter.
    ///
    /// # Errors  [`DeadLetterError`].
    pub async fn get(&self, number: u64) -> Result<DeadLetter, DeadLetterError> {
        let found = self.next(number).await?;
        let found = found.filter(|message| message.sequence == number);
        let found = found.ok_or(DeadLetterError::Unknown(number))?;
        Ok(DeadLetter::of(&found))
    }

    /// Publishes the message of a dead letter to its own subject again, then drops the letter.
    ///
    /// # Errors  [`DeadLetterError`]; the letter is there as long as the message is not.
    pub async fn requeue(&self, number: u64) -> Result<DeadLetter, DeadLetterError> {
        let letter = self.get(number).await?;
        if letter.subject.is_empty() {
            return Err(DeadLetterError::WithoutSubject(number));
        }
        if letter
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(CUT))
        {
            return Err(DeadLetterError::Cut(number));
        }
        let message = OutgoingMessage::new(
            // Its former id may be in the duplicate window still.
            format!("requeue:{number}:{}", letter.id),
            &letter.subject,
            letter.headers.clone(),
            letter.payload.clone(),
        );
        let headers = headers_of(&message).unwrap_or_default();
        let context = self.connection.jetstream()?;
        let payload = letter.payload.clone().into();
        let published = async {
            let sent = context.publish_with_headers(letter.subject.clone(), headers, payload);
            sent.await?.await
        };
        self.connection.within(QUESTION, published).await?;
        self.remove(number).await?;
        Ok(letter)
    }

    /// Drops a dead letter for good.
    ///
    /// # Errors  [`DeadLetterError`].
    pub async fn discard(&self, number: u64) -> Result<DeadLetter, DeadLetterError> {
        let letter = self.get(number).await?;
        self.remove(number).await?;
        Ok(letter)
    }

    async fn remove(&self, number: u64) -> Result<(), DeadLetterError> {
        let removed = self.stream.delete_message(number);
        self.connection.within(QUESTION, removed).await?;
        Ok(())
    }

    /// Returns the first dead letter from a number on.
    async fn next(&self, from: u64) -> Result<Option<StreamMessage>, DeadLetterError> {
        let asked = async {
            let subject = self.subject.as_str();
            match self
                .stream
                .get_first_raw_message_by_subject(subject, from)
                .await
            {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        let limit: Duration = QUESTION;
        Ok(self.connection.within(limit, asked).await?)
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DeadLetters")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}
