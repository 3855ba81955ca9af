//! The moves of messages into their partitions: each is done once, however late it is repeated.
//!
//! The servers drop a second message of one id within their duplicate window only, and a move may be
//! repeated after that: by the process that has waited for a broker, or by another one after a crash. So
//! the intent of a move is written before it: the message, and the last number of the stream of the
//! order. The move goes through only while that is the last number. Nothing but moves writes to that
//! stream, one after the other, so a later number says that the move was done. The intent of a later
//! message has taken its place once other processes have moved both: then the consumer says whether the
//! earlier one was acknowledged, for none is before its move.

use std::sync::Mutex;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SEQUENCE;
use breakerbox_actors::SourceError;
use bytes::Bytes;

use super::provision::QueueParts;
use super::queue_server::QueueServer;
use super::queue_settings::ID;
use crate::lock::LockExt as _;

/// Version of the format.
const VERSION: &str = "1";

/// Attempts to write an intent, and to carry it out.
const TRIES: usize = 3;

/// The intent of a move, as it stands in the bucket of notes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct MoveIntent {
    /// The stream of the order, told apart from a former one of the same name.
    epoch: i64,
    /// The last number of that stream before the move.
    last: u64,
    /// The id of the message in its partition.
    id: String,
}

impl MoveIntent {
    fn write(&self) -> String {
        let Self { epoch, last, id } = self;
        format!("{VERSION} {epoch} {last} {id}")
    }

    /// Reads an intent. `None`: of another version, or none at all.
    fn read(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.splitn(4, ' ');
        if words.next() != Some(VERSION) {
            return None;
        }
        Some(Self {
            epoch: words.next()?.parse().ok()?,
            last: words.next()?.parse().ok()?,
            id: words.next()?.to_owned(),
        })
    }

    /// Returns the place of its message in the queue's own stream, with which its id begins.
    fn place(&self) -> Option<u64> {
        self.id.split_once(':')?.0.parse().ok()
    }

    /// Returns true if the move was done. `last`: the present last number of the stream; `next`: the id
    /// of the message behind the one that was last before the move, if it stands there still.
    fn is_done(&self, last: u64, next: Option<&str>) -> bool {
        // A stream that has lost messages, as after a power failure, counts from a lower number on.
        last > self.last && next.is_none_or(|next| next == self.id)
    }
}

/// The last intent that this process knows.
#[derive(Debug, Clone, Default)]
struct KnownIntent {
    /// Its number in the bucket of notes; 0 for none.
    note: u64,
    intent: MoveIntent,
    /// The delivery that this process has moved by it, and the last number of the stream after that.
    moved: Option<(u64, u64)>,
}

/// A message on its way into its partition.
pub(super) struct SortedDelivery {
    /// The number of its delivery: those of one consumer follow one another.
    pub(super) number: u64,
    /// The number of the message in the queue's own stream.
    pub(super) place: u64,
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// The moves of one process.
#[derive(Debug, Default)]
pub(super) struct MoveLog {
    known: Mutex<Option<KnownIntent>>,
}

impl MoveLog {
    /// Moves a message, unless an earlier try has moved it.
    ///
    /// # Errors  [`SourceError::Refused`] if no stream will ever take it.
    pub(super) async fn carry_out(
        &self,
        server: &QueueServer,
        parts: &QueueParts,
        message: &SortedDelivery,
    ) -> Result<(), SourceError> {
        for _ in 0..TRIES {
            let Some(mut known) = self.intent(server, parts, message).await? else {
                return Ok(());
            };
            let mut headers = message.headers.clone();
            // MSG-9: a second move would be a second execution, and out of order.
            let last = known.intent.last.to_string();
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, last);
            let moved = server.put_if(&message.subject, headers, message.payload.clone());
            match moved.await? {
                Some(ack) => {
                    known.moved = (!ack.duplicate).then_some((message.number, ack.sequence));
                    *self.known.acquire() = Some(known);
                    return Ok(());
                }
                None if self.was_done(server, parts, &known.intent).await? => return Ok(()),
                None => drop(self.write(server, parts, &known, message).await?),
            }
        }
        let problem = "the stream of the order changes all the time".to_owned();
        Err(SourceError::Unavailable(problem))
    }

    /// Returns the intent of a move: that of an earlier try, or a new one. `None`: others have moved the
    /// message, and later ones after it.
    async fn intent(
        &self,
        server: &QueueServer,
        parts: &QueueParts,
        message: &SortedDelivery,
    ) -> Result<Option<KnownIntent>, SourceError> {
        for _ in 0..TRIES {
            let known = self.known.acquire().clone();
            let known = match known {
                Some(known) => known,
                None => read(server, parts).await?,
            };
            if known.intent.id == message.id && known.intent.epoch == parts.epoch {
                return Ok(Some(known));
            }
            // MSG-9: asked after the reading. An acknowledgement that follows the answer has a move
            // before it, and the intent of that move makes the writing below fail.
            if is_acknowledged(server, parts, &known.intent, message.place).await? {
                return Ok(None);
            }
            if let Some(written) = self.write(server, parts, &known, message).await? {
                return Ok(Some(written));
            }
        }
        let problem = "its intents change all the time".to_owned();
        Err(SourceError::Unavailable(problem))
    }

    /// Writes a new intent in the place of a known one. `None`: another process was faster.
    async fn write(
        &self,
        server: &QueueServer,
        parts: &QueueParts,
        known: &KnownIntent,
        message: &SortedDelivery,
    ) -> Result<Option<KnownIntent>, SourceError> {
        // After a failure it is read again.
        *self.known.acquire() = None;
        // No other process has moved one between two deliveries that follow one another.
        let moved = known.moved.filter(|(number, _)| {
            number + 1 == message.number && known.intent.epoch == parts.epoch
        });
        let last = match moved {
            Some((_, last)) => last,
            None => {
                server
                    .ask(parts.messages.get_info())
                    .await?
                    .state
                    .last_sequence
            }
        };
        let intent = MoveIntent {
            epoch: parts.epoch,
            last,
            id: message.id.clone(),
        };
        let text = Bytes::from(intent.write());
        let subject = server.move_subject();
        let written = server.put_after(known.note, &subject, text);
        let Some(ack) = written.await.map_err(unrefused)? else {
            return Ok(None);
        };
        let written = KnownIntent {
            note: ack.sequence,
            intent,
            moved: None,
        };
        *self.known.acquire() = Some(written.clone());
        Ok(Some(written))
    }

    /// Returns true if an earlier try has moved the message.
    async fn was_done(
        &self,
        server: &QueueServer,
        parts: &QueueParts,
        intent: &MoveIntent,
    ) -> Result<bool, SourceError> {
        let info = server.ask(parts.messages.get_info()).await?;
        if info.created.unix_timestamp() != intent.epoch {
            // MSG-3: the messages of a lost stream say nothing about this one.
            server.forget();
            let problem = "the stream of the order was made again".to_owned();
            return Err(SourceError::Unavailable(problem));
        }
        let next = server.stored(&parts.messages, intent.last + 1).await?;
        let next = next.map(|found| {
            let id = found.headers.get(ID);
            id.map_or_else(String::new, |id| id.as_str().to_owned())
        });
        Ok(intent.is_done(info.state.last_sequence, next.as_deref()))
    }
}

/// Returns true if the message at this place was acknowledged, though this process has a delivery of it.
///
/// One message is outstanding at a time, and none is acknowledged before its move. So the question is
/// put only if the last intent is not of an earlier message, which it is on the usual way.
async fn is_acknowledged(
    server: &QueueServer,
    parts: &QueueParts,
    last: &MoveIntent,
    place: u64,
) -> Result<bool, SourceError> {
    if last.place().is_some_and(|last| last < place) {
        return Ok(false);
    }
    Ok(server.ack_floor(parts).await? >= place)
}

/// Reads the last intent of all processes.
async fn read(server: &QueueServer, parts: &QueueParts) -> Result<KnownIntent, SourceError> {
    let note = server.note(parts, &server.move_subject()).await?;
    Ok(note.map_or_else(KnownIntent::default, |note| KnownIntent {
        note: note.sequence,
        intent: MoveIntent::read(&note.payload).unwrap_or_default(),
        moved: None,
    }))
}

/// Returns the failure to write an intent: it is no reason to give up its message.
fn unrefused(error: SourceError) -> SourceError {
    match error {
        SourceError::Refused(why) => SourceError::Unavailable(why),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent() -> MoveIntent {
        MoveIntent {
            epoch: 1_790_000_000,
            last: 7,
            id: "42:1790000000123456789:order 17".to_owned(),
        }
    }

    #[test]
    fn msg_9_an_intent_is_read_as_it_was_written() {
        let text = intent().write();
        assert_eq!(MoveIntent::read(text.as_bytes()), Some(intent()));
        assert_eq!(intent().place(), Some(42));
        assert_eq!(MoveIntent::default().place(), None);
        for other in ["", "1", "2 1 7 a", "1 x 7 a", "1 1 7"] {
            assert_eq!(MoveIntent::read(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn msg_9_a_later_number_says_that_a_move_was_done() {
        let own = intent();
        assert!(!own.is_done(7, None), "nothing was written");
        assert!(own.is_done(8, Some(&own.id)));
        assert!(own.is_done(9, None), "it has ended already");
        assert!(!own.is_done(8, Some("41:1:a")), "another one stands there");
        assert!(!own.is_done(3, None), "the stream has lost messages");
    }
}
