//! The notes of messages that have ended, until they are dropped.
//!
//! MSG-7: a server that was killed may deliver an ended message again, so its notes are kept for a
//! while. One task of a queue drops them. Those of processes that have ended meanwhile are found by
//! the next one that begins.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_actors::SourceError;
use futures_util::TryStreamExt as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::provision::DUPLICATES;
use super::queue_server::QueueServer;
use crate::lock::LockExt as _;
use crate::nats::NatsError;

/// Longest list; beyond it the oldest notes are dropped sooner.
const MOST: usize = 10_000;

/// Wait after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// The notes of a queue that are to be dropped, and the task that drops them. It ends with its drop.
#[derive(Default)]
pub(super) struct EndedNotes {
    waiting: Arc<WaitingNotes>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl EndedNotes {
    /// Begins to look for notes that were left behind and to drop what is due, unless it is at work.
    pub(super) fn begin(&self, server: &Arc<QueueServer>) {
        let mut task = self.task.acquire();
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let (waiting, server) = (Arc::clone(&self.waiting), Arc::clone(server));
            *task = Some(tokio::spawn(async move { waiting.drop_all(&server).await }));
        }
    }

    /// Adds the notes of a message that has ended. `place`: its place in its stream.
    pub(super) fn add(&self, place: String) {
        self.waiting.add(Instant::now() + DUPLICATES, place);
    }
}

impl Drop for EndedNotes {
    fn drop(&mut self) {
        if let Some(task) = self.task.acquire().take() {
            task.abort();
        }
    }
}

/// Places of messages, in the order in which their notes are due.
#[derive(Default)]
struct WaitingNotes {
    places: Mutex<VecDeque<(Instant, String)>>,
    added: Notify,
}

impl WaitingNotes {
    fn add(&self, due: Instant, place: String) {
        self.places.acquire().push_back((due, place));
        self.added.notify_one();
    }

    /// Returns the time at which the next notes are due; `None` if there are none.
    fn next_due(&self) -> Option<Instant> {
        let places = self.places.acquire();
        let due = places.front().map(|(due, _)| *due)?;
        match places.len() > MOST {
            true => Some(due.min(Instant::now())),
            false => Some(due),
        }
    }

    async fn drop_all(&self, server: &QueueServer) {
        while self.find_left(server).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
        loop {
            // Only the first one can become due earlier by an addition, when the list is full.
            let added = self.added.notified();
            match self.next_due() {
                Some(due) if due <= Instant::now() => {
                    if self.drop_first(server).await.is_err() {
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                Some(due) => {
                    // Whichever comes first.
                    let _ = tokio::time::timeout_at(due, added).await;
                }
                None => added.await,
            }
        }
    }

    /// Drops the notes of the first place, which leaves the list once the server has done it.
    async fn drop_first(&self, server: &QueueServer) -> Result<(), SourceError> {
        let first = self.places.acquire().front().cloned();
        let Some((_, place)) = first else {
            return Ok(());
        };
        let parts = server.parts().await?;
        let subject = server.note_subject(parts.1.epoch, &place);
        let purged = async { parts.1.notes.purge().filter(subject).await };
        server.ask(purged).await?;
        self.places.acquire().pop_front();
        Ok(())
    }

    /// Adds the notes of messages that have ended before: a process that was killed left them behind.
    async fn find_left(&self, server: &QueueServer) -> Result<(), SourceError> {
        let parts = server.parts().await?;
        let prefix = server.note_subject(parts.1.epoch, "");
        let listed = async {
            let notes = &parts.1.notes;
            let listed = notes.info_with_subjects(format!("{prefix}>")).await;
            let listed = listed.map_err(NatsError::of)?;
            let listed: Vec<(String, usize)> = listed.try_collect().await.map_err(NatsError::of)?;
            Ok::<_, NatsError>(listed)
        };
        let listed = server.ask(listed).await?;
        let floor = match parts.1.order {
            // Streams that others have made may keep messages that have ended.
            None => {
                server
                    .ask(parts.1.consumer.get_info())
                    .await?
                    .ack_floor
                    .stream_sequence
            }
            Some(_) => 0,
        };
        for (subject, _) in listed.into_iter().take(MOST) {
            let Some(place) = subject.strip_prefix(&prefix) else {
                continue;
            };
            let Ok(sequence) = place.parse::<u64>() else {
                continue;
            };
            if sequence <= floor || server.stored(&parts.1.messages, sequence).await?.is_none() {
                self.add(Instant::now() + DUPLICATES, place.to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_7_notes_are_dropped_once_they_are_old_or_too_many() {
        let notes = WaitingNotes::default();
        assert_eq!(notes.next_due(), None);
        let due = Instant::now() + DUPLICATES;
        for number in 0..MOST {
            notes.add(due, number.to_string());
        }
        assert_eq!(notes.next_due(), Some(due));
        notes.add(due, "one too many".to_owned());
        assert!(notes.next_due().is_some_and(|due| due <= Instant::now()));
    }
}
