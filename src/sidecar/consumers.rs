//! Consumers of the sidecar: the messages of a NATS stream as requests to an HTTP dependency.
//!
//! What becomes of a message is decided by the consumer in `breakerbox-actors`; this module reads
//! messages as requests, and starts the consumers of the configuration.

mod http_work;

#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;

use std::collections::BTreeMap;
use std::sync::Arc;

use breakerbox_actors::{ConsumerHandle, ConsumerSettings};

use crate::config::{ConsumerConfig, Settings};
use crate::consume::{NatsQueue, QueueSettings};
use crate::nats::{NatsConnection, NatsError};
use crate::sidecar::gateway::Gateway;
use crate::{Runtime, StartError};
use http_work::HttpWork;

/// The running consumers of a sidecar.
#[derive(Default)]
pub(crate) struct Consumers {
    /// One connection for all of them: none of them waits for another one's answer.
    connection: Option<NatsConnection>,
    running: BTreeMap<String, RunningConsumer>,
    /// Those that fetch no more, and have messages in flight perhaps.
    leaving: Vec<ConsumerHandle>,
}

/// A running consumer and the configuration that it runs by.
struct RunningConsumer {
    config: ConsumerConfig,
    handle: ConsumerHandle,
}

/// The reason why the consumers cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsumersError {
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Consumers {
    /// Starts the consumers of the configuration. They wait for their servers: the process is up
    /// without them.
    pub(crate) async fn start(
        settings: &Settings,
        runtime: &Runtime,
        gateway: &Gateway,
    ) -> Result<Self, ConsumersError> {
        let mut consumers = Self::default();
        for (name, config) in &settings.consumers {
            consumers
                .put((name, config), settings, runtime, gateway)
                .await?;
        }
        Ok(consumers)
    }

    /// Follows a new configuration: consumers are added and replaced. One that has changed fetches by
    /// the new configuration while the former one ends its messages. Returns false if one could not be
    /// started; it goes on as it was.
    pub(crate) async fn follow(
        &mut self,
        settings: &Settings,
        runtime: &Runtime,
        gateway: &Gateway,
    ) -> bool {
        let mut is_complete = true;
        for (name, config) in &settings.consumers {
            let running = self.running.get(name);
            if running.is_some_and(|one| one.config == *config) {
                continue;
            }
            // EDGE-6: the new one beside the old one, then the old one is drained.
            let put = self.put((name, config), settings, runtime, gateway);
            if let Err(error) = put.await {
                tracing::warn!(consumer = name, "it cannot be started: {error}");
                is_complete = false;
            }
        }
        is_complete
    }

    /// Removes the consumers that a new configuration does not have: they fetch no more.
    pub(crate) fn remove_others(&mut self, settings: &Settings, runtime: &Runtime) {
        let is_other = |name: &&String| !settings.consumers.contains_key(*name);
        let others: Vec<String> = self.running.keys().filter(is_other).cloned().collect();
        for name in others {
            self.running.remove(&name);
            self.leaving.extend(runtime.remove_consumer(&name));
        }
    }

    /// Starts a consumer, in the place of the one of its name.
    async fn put(
        &mut self,
        (name, config): (&String, &ConsumerConfig),
        settings: &Settings,
        runtime: &Runtime,
        gateway: &Gateway,
    ) -> Result<(), ConsumersError> {
        // No consumer is configured without a fleet.
        let Some(fleet) = settings.fleet.as_ref() else {
            return Ok(());
        };
        let connection = match &self.connection {
            Some(connection) => connection.clone(),
            None => NatsConnection::open(fleet, "breakerbox consumers").await?,
        };
        self.connection = Some(connection.clone());
        let mut queue = QueueSettings::new(name, &config.stream, &config.subject);
        queue.durable.clone_from(&config.durable);
        queue.ack_wait = config.ack_wait;
        queue.dead_letters.clone_from(&config.dead_letters);
        let answers = config.answers.iter().chain(&config.answer_subjects);
        queue.answers = answers.cloned().collect();
        queue.notes = notes_bucket(&fleet.name);
        queue.copies = usize::try_from(fleet.bucket_replicas).unwrap_or(1);
        queue.partitions = config.partitions;
        let queue = NatsQueue::over(connection, queue);
        let mut rules = ConsumerSettings::new(&config.dead_letters);
        rules.rules = config.rules.clone();
        rules.max_in_flight = config.max_in_flight;
        rules.ack_wait = config.ack_wait;
        let work = HttpWork::new(config, gateway.message_calls());
        let (source, work) = (Arc::new(queue), Arc::new(work));
        let handle = runtime.replace_consumer(name, rules, source, work).await?;
        let one = RunningConsumer {
            config: config.clone(),
            handle,
        };
        let former = self.running.insert(name.clone(), one);
        self.leaving.extend(former.map(|one| one.handle));
        self.leaving.retain(|one| !one.is_drained());
        Ok(())
    }

    /// Fetches no more messages, and waits until those in flight have ended.
    pub(crate) async fn drain(&self) {
        let running = self.running.values().map(|one| &one.handle);
        let all: Vec<_> = running.chain(&self.leaving).collect();
        for handle in &all {
            handle.drain();
        }
        for handle in &all {
            handle.drained().await;
        }
    }
}

/// Returns the bucket with the notes about messages of a fleet.
fn notes_bucket(fleet: &str) -> String {
    format!("breakerbox_messages_{fleet}")
}
