//! The notes of messages that have ended, until they are dropped.
//!
//! MSG-7: a server that was killed may deliver an ended message again, so its notes are kept for a
//! while. One task of a queue drops them, several at once. Those of processes that have ended meanwhile
//! are found by the next one that begins.
//!
//! A stream that keeps what has ended, such as one of the retention `limits`, tells of the end of a message
//! only once all messages before it have ended too. Until then its notes are the only word of its end, and
//! stay.

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

    /// Drops notes. Those that the server has not dropped are kept in the list, and so are those that
    /// alone tell of the end of their message.
    async fn drop_due(
        &self,
        server: &QueueServer,
        due: Vec<(Instant, String)>,
    ) -> Result<(), SourceError> {
        let parts = server.parts().await;
        let floor = match &parts {
            Ok(parts) if parts.1.keeps_ended() => Some(server.ack_floor(&parts.1).await),
            Ok(_) | Err(_) => None,
        };
        let due = match floor.transpose() {
            Ok(floor) => self.hold_back(due, floor, Instant::now()),
            Err(error) => {
                self.put_back(due);
                return Err(error);
            }
        };
        let purges = due.into_iter().map(|note| async {
            let dropped = match &parts {
                Ok(parts) => server.purge_notes(&parts.1, &note.1).await,
                Err(error) => Err(error.clone()),
            };
            dropped.map_err(|error| (note, error))
        });
        let mut failed = None;
        for (note, error) in join_all(purges).await.into_iter().filter_map(Result::err) {
            self.put_back(vec![note]);
            failed = Some(error);
        }
        failed.map_or(Ok(()), Err)
    }

    fn put_back(&self, notes: Vec<(Instant, String)>) {
        let mut subjects = self.subjects.acquire();
        notes
            .into_iter()
            .rev()
            .for_each(|note| subjects.push_front(note));
    }

    /// Returns the notes that may be dropped, and puts the others off. `floor`: the place up to which all
    /// messages have ended, for a stream that keeps them.
    fn hold_back(
        &self,
        due: Vec<(Instant, String)>,
        floor: Option<u64>,
        now: Instant,
    ) -> Vec<(Instant, String)> {
        let Some(floor) = floor else {
            return due;
        };
        let has_ended = |subject: &str| {
            let place = subject
                .rsplit('.')
                .next()
                .and_then(|place| place.parse().ok());
            place.is_none_or(|place: u64| place <= floor)
        };
        let (ended, held): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(_, subject)| has_ended(subject));
        let mut subjects = self.subjects.acquire();
        for (_, subject) in held {
            // MSG-7: a late delivery finds the note. Beyond the longest list the next process finds it.
            if subjects.len() < MOST {
                subjects.push_back((now + DUPLICATES, subject));
            }
        }
        ended
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

    #[test]
    fn msg_7_a_note_that_alone_tells_of_an_end_is_kept() {
        let notes = WaitingNotes::default();
        let now = Instant::now();
        let due = |places: &[u64]| {
            let note = |place: &u64| (now, format!("$KV.notes.jobs.1700000000.{place}"));
            places.iter().map(note).collect::<Vec<_>>()
        };
        // A work queue drops the messages that have ended.
        assert_eq!(notes.hold_back(due(&[9]), None, now), due(&[9]));
        // The message at 6 is outstanding, so 7 and 9 can be told by their notes alone.
        let dropped = notes.hold_back(due(&[4, 7, 5, 9]), Some(5), now);
        assert_eq!(dropped, due(&[4, 5]));
        assert_eq!(notes.take_due(now), []);
        let later = now + DUPLICATES;
        let held = notes.take_due(later);
        let places = held.iter().map(|(_, subject)| subject.rsplit('.').next());
        assert_eq!(places.collect::<Vec<_>>(), [Some("7"), Some("9")]);
        assert_eq!(notes.hold_back(held, Some(9), later).len(), 2);
        assert_eq!(notes.next_due(), None);
    }

    #[test]
    fn msg_7_a_list_that_is_too_long_is_not_asked_about_again_and_again() {
        let notes = WaitingNotes::default();
        let due = Instant::now();
        for number in 0..=MOST {
            notes.add(due + DUPLICATES, format!("notes.{number}"));
        }
        let taken = notes.take_due(due);
        assert_eq!(taken.len(), 1);
        assert_eq!(notes.hold_back(taken, Some(0), due).len(), 1, "place 0");
        notes.add(due + DUPLICATES, format!("notes.{}", MOST + 1));
        let taken = notes.take_due(due);
        assert_eq!(notes.hold_back(taken, Some(0), due), []);
        assert_eq!(notes.take_due(due), [], "it is left to the next process");
    }
}
