//! The name of a message, and where it stands once it was moved into its partition.

use async_nats::jetstream;

use super::queue_settings::{ID, QueueSettings};

/// First word of the subjects of all partitions.
const ROOT: &str = "breakerbox_order";

/// The facts about a message that are the message's own, wherever it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SortedMessage {
    /// The subject that it was published to.
    pub(super) subject: String,
    /// Its id: given by its publisher, else by its place in the queue.
    pub(super) id: String,
    /// Nanoseconds since 1970, by the server's clock, at which the server took it.
    pub(super) at: i128,
}

/// Returns the stream that has the partitions of a queue.
pub(super) fn stream_of(settings: &QueueSettings) -> String {
    format!("{}_{}_order", settings.stream, settings.durable)
}

/// Returns the first words of the subjects of a queue's partitions.
pub(super) fn prefix_of(settings: &QueueSettings) -> String {
    format!("{ROOT}.{}.{}", settings.stream, settings.durable)
}

impl SortedMessage {
    /// Reads a message of the queue's own stream.
    pub(super) fn of(message: &jetstream::Message) -> Option<Self> {
        let info = message.info().ok()?;
        let given = header(message, ID);
        // MSG-2: the message's own id, else its place.
        let id = given.unwrap_or_else(|| format!("{}:{}", info.stream, info.stream_sequence));
        Some(Self {
            subject: message.subject.to_string(),
            id,
            at: info.published.unix_timestamp_nanos(),
        })
    }

    /// Reads a message of a partition.
    pub(super) fn read(message: &jetstream::Message) -> Option<Self> {
        Self::parse(&message.subject, &header(message, ID)?)
    }

    fn parse(subject: &str, id: &str) -> Option<Self> {
        let mut words = id.splitn(3, ':').skip(1);
        Some(Self {
            subject: subject.splitn(6, '.').nth(5)?.to_owned(),
            at: words.next()?.parse().ok()?,
            id: words.next()?.to_owned(),
        })
    }

    /// Returns its subject in a partition.
    pub(super) fn subject_in(&self, prefix: &str, partitions: u32, partition: u32) -> String {
        format!("{prefix}.{partitions}.{partition}.{}", self.subject)
    }

    /// Returns its id in a partition: another one, because the first may be used again after the
    /// duplicate window. `place`: in the queue's own stream.
    pub(super) fn sorted_id(&self, place: u64) -> String {
        format!("{place}:{}:{}", self.at, self.id)
    }
}

fn header(message: &jetstream::Message, name: &str) -> Option<String> {
    let value = message.headers.as_ref()?.get(name)?;
    Some(value.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_9_a_sorted_message_is_the_one_that_was_published() {
        let message = SortedMessage {
            subject: "calls.web.find".to_owned(),
            id: "order:17".to_owned(),
            at: 1_700_000_000_123_456_789,
        };
        let settings = QueueSettings::new("jobs", "CALLS", "calls.web.>");
        let prefix = prefix_of(&settings);
        let subject = message.subject_in(&prefix, 8, 3);
        assert_eq!(
            subject,
            "breakerbox_order.CALLS.breakerbox_jobs.8.3.calls.web.find"
        );
        let id = message.sorted_id(42);
        assert_eq!(SortedMessage::parse(&subject, &id), Some(message));
        assert_eq!(SortedMessage::parse("calls.web.find", &id), None);
        assert_eq!(SortedMessage::parse(&subject, "17"), None);
    }
}
