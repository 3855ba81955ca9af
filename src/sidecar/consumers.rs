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
    handles: Vec<ConsumerHandle>,
    /// Their configuration at the start.
    config: BTreeMap<String, ConsumerConfig>,
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
        let mut handles = Vec::new();
        let Some(fleet) = settings.fleet.as_ref() else {
            return Ok(Self::default());
        };
        if settings.consumers.is_empty() {
            return Ok(Self::default());
        }
        // One connection for all of them: none of them waits for another one's answer.
        let connection = NatsConnection::open(fleet, "breakerbox consumers").await?;
        let copies = usize::try_from(fleet.bucket_replicas).unwrap_or(1);
        for (name, config) in &settings.consumers {
            let mut queue = QueueSettings::new(name, &config.stream, &config.subject);
            queue.durable.clone_from(&config.durable);
            queue.ack_wait = config.ack_wait;
            queue.dead_letters.clone_from(&config.dead_letters);
            queue.notes = notes_bucket(&fleet.name);
            queue.copies = copies;
            let queue = NatsQueue::over(connection.clone(), queue);
            let mut rules = ConsumerSettings::new(&config.dead_letters);
            rules.rules = config.rules.clone();
            rules.max_in_flight = config.max_in_flight;
            rules.ack_wait = config.ack_wait;
            let work = HttpWork::new(config, gateway.message_calls());
            let (source, work) = (Arc::new(queue), Arc::new(work));
            handles.push(runtime.consume_by(name, rules, source, work).await?);
        }
        Ok(Self {
            handles,
            config: settings.consumers.clone(),
        })
    }

    /// Fetches no more messages, and waits until those in flight have ended.
    pub(crate) async fn drain(&self) {
        for handle in &self.handles {
            handle.drain();
        }
        for handle in &self.handles {
            handle.drained().await;
        }
    }

    /// Tells that changed consumers wait for the next start, if they have changed.
    pub(crate) fn compare(&self, settings: &Settings) {
        if self.config != settings.consumers {
            tracing::warn!("changes of consumers apply only after a restart of this process");
        }
    }
}

/// Returns the bucket with the notes about messages of a fleet.
fn notes_bucket(fleet: &str) -> String {
    format!("breakerbox_messages_{fleet}")
}
