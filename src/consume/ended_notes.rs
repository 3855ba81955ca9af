//! The notes of messages that have ended, until they are dropped.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::time::Instant;

use crate::lock::LockExt as _;

/// Longest list; beyond it the oldest notes are dropped sooner.
const MOST: usize = 10_000;

/// The subjects of notes that are to be dropped, in the order in which their messages ended.
#[derive(Default)]
pub(super) struct EndedNotes(Mutex<VecDeque<(Instant, String)>>);

impl EndedNotes {
    pub(super) fn add(&self, due: Instant, subject: String) {
        self.0.acquire().push_back((due, subject));
    }

    /// Takes the oldest subject if it is due by then. `None`: even if it is not due.
    pub(super) fn take(&self, by: Option<Instant>) -> Option<String> {
        let mut waiting = self.0.acquire();
        let (due, _) = waiting.front()?;
        match waiting.len() > MOST || by.is_none_or(|by| *due <= by) {
            true => waiting.pop_front().map(|(_, subject)| subject),
            false => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn msg_7_notes_are_dropped_once_they_are_old_or_too_many() {
        let notes = EndedNotes::default();
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        notes.add(begin, "a".to_owned());
        notes.add(begin + second, "b".to_owned());
        assert_eq!(notes.take(Some(begin)).as_deref(), Some("a"));
        assert_eq!(notes.take(Some(begin)), None);
        assert_eq!(notes.take(None).as_deref(), Some("b"));
        for number in 0..=MOST {
            notes.add(begin + second, number.to_string());
        }
        assert_eq!(notes.take(Some(begin)).as_deref(), Some("0"));
        assert_eq!(notes.take(Some(begin)), None);
    }
}
