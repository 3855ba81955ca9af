//! The streams and the durable consumer of a queue: made where they are missing.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::context::GetStreamByNameErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use futures_util::TryStreamExt as _;

use super::queue_settings::QueueSettings;
use super::sorted_message::{prefix_of, stream_of};
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
    /// The stream of the messages that are worked on: that of the partitions, with order.
    pub(super) messages: Stream,
    /// The stream of the messages, told apart from a former one of the same name.
    pub(super) epoch: i64,
    /// The partitions, with order.
    pub(super) order: Option<OrderParts>,
}

impl QueueParts {
    /// Returns true if messages that have ended may stand in their stream still: others have made it, and
    /// it is no work queue.
    pub(super) fn keeps_ended(&self) -> bool {
        self.messages.cached_info().config.retention != RetentionPolicy::WorkQueue
    }
}

/// The partitions of a queue at the servers.
#[derive(Debug, Clone)]
pub(super) struct OrderParts {
    pub(super) stream: Stream,
    partitions: Vec<PullConsumer>,
    /// Those of another number of partitions, which may have messages still.
    pub(super) former: Vec<PullConsumer>,
}

impl OrderParts {
    /// Returns the consumers of a partition: former ones that it cares for, and its own.
    pub(super) fn of(
        &self,
        partition: u32,
    ) -> Option<(impl Iterator<Item = &PullConsumer>, &PullConsumer)> {
        let at = usize::try_from(partition).ok()?;
        let own = self.partitions.get(at)?;
        let former = self.former.iter().skip(at).step_by(self.partitions.len());
        Some((former, own))
    }
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
    warn_of_answers(connection, settings).await?;
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
    let outstanding = match settings.partitions {
        // MSG-9: the messages are moved into their partitions one after the other.
        Some(_) => 1,
        None => MAX_ACK_PENDING,
    };
    let config = consumer_config(settings, &settings.durable, &settings.subject, outstanding);
    let consumer = connection
        .within(QUESTION, messages.create_consumer(config))
        .await
        .map_err(|error| of_durable(error, settings))?;
    let order = match settings.partitions {
        Some(partitions) => Some(provide_order(connection, settings, partitions.get()).await?),
        None => None,
    };
    let read = order.as_ref().map_or(&messages, |order| &order.stream);
    Ok(QueueParts {
        consumer,
        notes,
        epoch: read.cached_info().created.unix_timestamp(),
        messages: read.clone(),
        order,
    })
}

/// Names the durable consumer that a server refuses, and the cure.
fn of_durable(error: NatsError, settings: &QueueSettings) -> NatsError {
    let QueueSettings {
        durable,
        stream,
        subject,
        ..
    } = settings;
    let NatsError::Refused(why) = error else {
        return error;
    };
    // The codes stand in the server's errors.json.
    let cure = if why.contains("10093") {
        format!(
            "the stream takes other subjects, so add {subject} to them, or set another `stream`"
        )
    } else if why.contains("10012") {
        format!(
            "one of this name has settings that cannot be changed, so remove it (nats consumer rm \
             {stream} {durable}), or set `durable` to another name"
        )
    } else {
        "a work queue has one consumer for a subject, so set `durable` to the name of the one that is \
         there, or remove that one"
            .to_owned()
    };
    NatsError::Refused(format!(
        "the server refuses the durable consumer {durable} of the stream {stream}: {why}; {cure}"
    ))
}

/// Makes the missing partitions.
async fn provide_order(
    connection: &NatsConnection,
    settings: &QueueSettings,
    partitions: u32,
) -> Result<OrderParts, NatsError> {
    let context = connection.jetstream()?;
    let prefix = prefix_of(settings);
    let config = Config {
        name: stream_of(settings),
        subjects: vec![format!("{prefix}.>")],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        duplicate_window: DUPLICATES,
        num_replicas: settings.copies,
        ..Config::default()
    };
    let stream = stream(connection, &context, config).await?;
    let name = |partition: u32| format!("p{partition}_of_{partitions}");
    let mut order = OrderParts {
        partitions: Vec::new(),
        former: Vec::new(),
        stream,
    };
    for partition in 0..partitions {
        let subject = format!("{prefix}.{partitions}.{partition}.>");
        // MSG-9: one message of a partition is outstanding, over all replicas.
        let config = consumer_config(settings, &name(partition), &subject, 1);
        let made = order.stream.create_consumer(config);
        let made = connection.within(QUESTION, made).await?;
        order.partitions.push(made);
    }
    let own: Vec<String> = (0..partitions).map(name).collect();
    let names = order.stream.consumer_names();
    let names = connection.within(QUESTION, names.try_collect::<Vec<String>>());
    let names = names.await?;
    for (name, subject) in deserted(connection, &order.stream, &prefix).await? {
        if !own.contains(&name) && !names.contains(&name) {
            let config = consumer_config(settings, &name, &subject, 1);
            let made = connection.within(QUESTION, order.stream.create_consumer(config));
            order.former.push(made.await?);
        }
    }
    for other in names {
        if !own.contains(&other) {
            let found = order.stream.get_consumer::<PullConfig>(&other);
            let found = connection.within(QUESTION, found).await?;
            order.former.push(found);
        }
    }
    Ok(order)
}

/// Returns the names and the subjects of the consumers of all partitions that have messages.
///
/// MSG-3: another process with another number of partitions may have moved messages into some after
/// their consumers were removed.
async fn deserted(
    connection: &NatsConnection,
    stream: &Stream,
    prefix: &str,
) -> Result<BTreeSet<(String, String)>, NatsError> {
    let all = format!("{prefix}.>");
    let subjects = connection
        .within(QUESTION, stream.info_with_subjects(all))
        .await?;
    let subjects = subjects.try_collect::<Vec<(String, usize)>>();
    let subjects = connection.within(QUESTION, subjects).await?;
    let consumer = |subject: &str| {
        let mut words = subject.strip_prefix(prefix)?.split('.').skip(1);
        let partitions: u32 = words.next()?.parse().ok()?;
        let partition: u32 = words.next()?.parse().ok()?;
        let name = format!("p{partition}_of_{partitions}");
        Some((name, format!("{prefix}.{partitions}.{partition}.>")))
    };
    let named = subjects.iter().filter_map(|(subject, _)| consumer(subject));
    Ok(named.collect())
}

/// Returns the settings of a durable consumer. `outstanding`: number of its messages that were
/// delivered and have not ended, at most.
fn consumer_config(
    settings: &QueueSettings,
    name: &str,
    subject: &str,
    outstanding: i64,
) -> PullConfig {
    PullConfig {
        durable_name: Some(name.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait,
        // MSG-6: the consumer counts by itself, the server never gives a message up.
        max_deliver: -1,
        filter_subject: subject.to_owned(),
        max_ack_pending: outstanding,
        ..PullConfig::default()
    }
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
    let mut config = Config {
        name: dead_stream(&settings.dead_letters),
        subjects: vec![settings.dead_letters.clone()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        duplicate_window: DUPLICATES,
        num_replicas: settings.copies,
        ..Config::default()
    };
    stream(connection, &context, config.clone()).await?;
    if !takes(connection, &settings.dead_letters).await? {
        // The stream of that name is for another subject: `dead.a_b` beside `dead.a.b`.
        let mark = breakerbox_policy::partition_of(&settings.dead_letters, NonZeroU32::MAX);
        config.name = format!("{}_{mark:08x}", config.name);
        stream(connection, &context, config).await?;
    }
    Ok(())
}

/// Warns of answers that no stream takes: their messages become dead letters after their work.
async fn warn_of_answers(
    connection: &NatsConnection,
    settings: &QueueSettings,
) -> Result<(), NatsError> {
    for subject in &settings.answers {
        if !takes(connection, subject).await? {
            let durable = &settings.durable;
            tracing::warn!(
                "{durable}: no stream at the servers takes answers to {subject}, so their messages become dead \
                 letters after their work; make one, such as: nats stream add ANSWERS --subjects '{subject}'"
            );
        }
    }
    Ok(())
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
