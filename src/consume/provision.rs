//! The streams and the durable consumer of a queue: made where they are missing.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::context::GetStreamByNameErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};

use super::nats_queue::QueueSettings;
use crate::nats::{NatsConnection, NatsError};

/// Window in which the servers drop a second message of one id.
pub(super) const DUPLICATES: Duration = Duration::from_secs(120);

/// Limit of messages that were delivered and have not ended: those that were given back with a delay
/// count too, so it is far above the number in flight.
const MAX_ACK_PENDING: i64 = 10_000;

/// Time limit of one question.
pub(super) const QUESTION: Duration = Duration::from_secs(5);

/// The parts of a queue at the servers.
#[derive(Debug, Clone)]
pub(super) struct QueueParts {
    pub(super) consumer: PullConsumer,
    pub(super) notes: Stream,
    /// The stream of the messages, told apart from a former one of the same name.
    pub(super) epoch: i64,
}

/// Makes the missing parts.
pub(super) async fn provide(
    connection: &NatsConnection,
    settings: &QueueSettings,
) -> Result<QueueParts, NatsError> {
    let context = connection.jetstream()?;
    let of_messages = Config {
        name: settings.stream.clone(),
        subjects: vec![settings.subject.clone()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        duplicate_window: DUPLICATES,
        num_replicas: settings.copies,
        ..Config::default()
    };
    let messages = stream(connection, &context, of_messages).await?;
    provide_dead_letters(connection, settings).await?;
    // A bucket as `nats kv` shows it, made by hand: servers before 2.10 take no other settings. Its
    // leader answers each question: no decision may rest on a copy that lags behind.
    let of_notes = Config {
        name: format!("KV_{}", settings.notes),
        subjects: vec![format!("$KV.{}.>", settings.notes)],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        storage: StorageType::File,
        duplicate_window: DUPLICATES,
        num_replicas: settings.copies,
        ..Config::default()
    };
    let notes = stream(connection, &context, of_notes).await?;
    let config = PullConfig {
        durable_name: Some(settings.durable.clone()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait,
        // MSG-6: the consumer counts by itself, the server never gives a message up.
        max_deliver: -1,
        filter_subject: settings.subject.clone(),
        max_ack_pending: MAX_ACK_PENDING,
        ..PullConfig::default()
    };
    let consumer = connection
        .within(QUESTION, messages.create_consumer(config))
        .await?;
    Ok(QueueParts {
        consumer,
        notes,
        epoch: messages.cached_info().created.unix_timestamp(),
    })
}

/// Makes the stream of the dead letters, unless some stream takes their subject.
pub(super) async fn provide_dead_letters(
    connection: &NatsConnection,
    settings: &QueueSettings,
) -> Result<(), NatsError> {
    if takes(connection, &settings.dead_letters).await? {
        return Ok(());
    }
    let context = connection.jetstream()?;
    // Of kind limits: the messages of a work queue cannot be looked at.
    let config = Config {
        name: dead_stream(&settings.dead_letters),
        subjects: vec![settings.dead_letters.clone()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        duplicate_window: DUPLICATES,
        num_replicas: settings.copies,
        ..Config::default()
    };
    stream(connection, &context, config).await.map(drop)
}

/// Returns true if a stream takes this subject.
pub(super) async fn takes(connection: &NatsConnection, subject: &str) -> Result<bool, NatsError> {
    let context = connection.jetstream()?;
    let asked = async {
        match context.stream_by_subject(subject).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    };
    connection.within(QUESTION, asked).await
}

/// Returns the name of the stream that is made for the dead letters of a subject.
pub(super) fn dead_stream(subject: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    let name = subject
        .chars()
        .map(|letter| if plain(letter) { letter } else { '_' });
    name.collect()
}

async fn stream(
    connection: &NatsConnection,
    context: &Context,
    config: Config,
) -> Result<Stream, NatsError> {
    connection
        .within(QUESTION, context.get_or_create_stream(config))
        .await
}
