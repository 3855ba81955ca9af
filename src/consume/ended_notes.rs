//! The notes of messages that have ended, until they are dropped.
//!
//! MSG-7: a server that was killed may deliver an ended message again, so its notes are kept for a
//! while. One task of a queue drops them, several at once. Those of processes that have ended meanwhile
//! are found by the next one that begins.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_actors::SourceError;
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::provision::DUPLICATES;
use super::queue_server::QueueServer;
use crate::lock::LockExt as _;
use crate::nats::NatsError;

/// Longest list; beyond it the oldest notes are dropped sooner.
const MOST: usize = 10_000;
/// Number of notes that are dropped at once.
const AT_ONCE: usize = 32;

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

    /// Adds the notes of a message that has ended.
    pub(super) fn add(&self, subject: String) {
        self.waiting.add(Instant::now() + DUPLICATES, subject);
    }
}

impl Drop for EndedNotes {
    fn drop(&mut self) {
        if let Some(task) = self.task.acquire().take() {
            task.abort();
        }
    }
}

/// The subjects of notes, in the order in which they are due.
#[derive(Default)]
struct WaitingNotes {
    subjects: Mutex<VecDeque<(Instant, String)>>,
    added: Notify,
}

impl WaitingNotes {
    fn add(&self, due: Instant, subject: String) {
        let mut subjects = self.subjects.acquire();
        if subjects.len() >= 2 * MOST {
            // The next process finds them.
            subjects.pop_front();
        }
        subjects.push_back((due, subject));
        drop(subjects);
        self.added.notify_one();
    }

    /// Takes the notes that are due by then, or too many; a few of them.
    fn take_due(&self, now: Instant) -> Vec<(Instant, String)> {
        let mut subjects = self.subjects.acquire();
        let excess = subjects.len().saturating_sub(MOST);
        let first = subjects.iter().take(AT_ONCE);
        let due = first.take_while(|(due, _)| *due <= now).count();
        let taken = excess.min(AT_ONCE).max(due);
        subjects.drain(..taken).collect()
    }

    fn next_due(&self) -> Option<Instant> {
        self.subjects.acquire().front().map(|(due, _)| *due)
    }

    async fn drop_all(&self, server: &QueueServer) {
        let mut problem = None;
        while let Err(error) = self.find_left(server).await {
            warn_once(&mut problem, server, &error);
            tokio::time::sleep(AGAIN).await;
        }
        loop {
            let added = self.added.notified();
            let due = self.take_due(Instant::now());
            if !due.is_empty() {
                match self.drop_due(server, due).await {
                    Ok(()) => problem = None,
                    Err(error) => {
                        warn_once(&mut problem, server, &error);
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                continue;
            }
            match self.next_due() {
                // Whichever comes first.
                Some(due) => drop(tokio::time::timeout_at(due, added).await),
                None => added.await,
            }
        }
    }

    /// Drops notes. Those that the server has not dropped are kept in the list.
    async fn drop_due(
        &self,
        server: &QueueServer,
        due: Vec<(Instant, String)>,
    ) -> Result<(), SourceError> {
        let parts = server.parts().await;
        let purges = due.into_iter().map(|note| async {
            let dropped = match &parts {
                Ok(parts) => server.purge_notes(&parts.1, &note.1).await,
                Err(error) => Err(error.clone()),
            };
            dropped.map_err(|error| (note, error))
        });
        let mut failed = None;
        for (note, error) in join_all(purges).await.into_iter().filter_map(Result::err) {
            self.subjects.acquire().push_front(note);
            failed = Some(error);
        }
        failed.map_or(Ok(()), Err)
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
            None => server.ack_floor(&parts.1).await?,
            Some(_) => 0,
        };
        let mut left = Vec::new();
        for (subject, _) in listed.into_iter().take(MOST) {
            let Some(place) = subject.strip_prefix(&prefix) else {
                continue;
            };
            let Ok(sequence) = place.parse::<u64>() else {
                continue;
            };
            if sequence <= floor || server.stored(&parts.1.messages, sequence).await?.is_none() {
                left.push(subject);
            }
        }
        let due = Instant::now() + DUPLICATES;
        left.into_iter().for_each(|subject| self.add(due, subject));
        Ok(())
    }
}

/// Warns of a problem, unless the last one was the same.
fn warn_once(last: &mut Option<String>, server: &QueueServer, error: &SourceError) {
    let text = error.to_string();
    if last.as_ref() != Some(&text) {
        let durable = &server.settings.durable;
        tracing::warn!(durable, "notes of ended messages cannot be dropped: {text}");
    }
    *last = Some(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_7_notes_are_dropped_once_they_are_old_or_too_many() {
        let notes = WaitingNotes::default();
        assert_eq!(notes.take_due(Instant::now()), []);
        let due = Instant::now() + DUPLICATES;
        for number in 0..MOST {
            notes.add(due, number.to_string());
        }
        assert_eq!(notes.take_due(Instant::now()), []);
        notes.add(due, "one too many".to_owned());
        assert_eq!(notes.take_due(Instant::now()), [(due, "0".to_owned())]);
        assert_eq!(notes.take_due(due).len(), AT_ONCE);
    }
}
