//! A board in memory for tests of fleets, on the clock of the test.
//!
//! It keeps words as a real one does, and is cut off, silent and written to as the test says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::fleet::{BoardTime, ReplicaId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::board::{Board, BoardNews, SwapAnswer};
use super::board_word::{self as word, BoardKey, BoardWord};
use crate::lock::LockExt as _;

/// The board of several replicas of a test, each of them a runtime. Cheap to clone.
///
/// ```
/// use breakerbox::config::FleetConfig;
/// use breakerbox::fleet::{Fleet, ScriptedBoard};
/// use breakerbox::prelude::*;
/// use breakerbox::testing::{TestRuntime, run_paused};
/// use std::time::Duration;
///
/// run_paused(async || {
///     let board = ScriptedBoard::default();
///     let (config, settings) = (FleetConfig::new("nats://unused"), Settings::default());
///     let mut replicas = Vec::new();
///     for number in 0..3 {
///         let runtime = TestRuntime::start().await;
///         let place = (&board, number);
///         let fleet = Fleet::start_scripted(&runtime, place, &config, &settings).await.unwrap();
///         replicas.push((runtime, fleet));
///     }
///     // They know each other after two heartbeats.
///     tokio::time::sleep(Duration::from_secs(5)).await;
///     assert_eq!(replicas[0].1.status().replicas.len(), 3);
///     board.cut_off(2);
///     tokio::time::sleep(Duration::from_secs(10)).await;
///     assert_eq!(replicas[0].1.status().replicas.len(), 2);
///     assert!(!replicas[2].1.status().connected);
///     for (runtime, _) in replicas {
///         runtime.finish().await;
///     }
/// });
/// ```
#[derive(Clone, Default)]
pub struct ScriptedBoard(Arc<Mutex<BoardWords>>);

#[derive(Default)]
struct BoardWords {
    revision: u64,
    words: BTreeMap<String, StoredWord>,
    /// The replicas by their numbers.
    watchers: BTreeMap<usize, BoardWatcher>,
    /// True while no swap is answered.
    hangs: bool,
    /// True while no swap is taken.
    takes_none: bool,
    /// True while no message is told.
    is_mute: bool,
    /// The begin of its clock.
    begin: Option<Instant>,
}

#[derive(Clone)]
struct StoredWord {
    value: Option<Bytes>,
    revision: u64,
    written: Instant,
}

#[derive(Clone)]
struct BoardWatcher {
    news: mpsc::Sender<BoardNews>,
    is_connected: bool,
}

impl BoardWatcher {
    fn tell(&self, news: BoardNews) {
        // A replica that is so far behind has ended.
        let _ = self.news.try_send(news);
    }
}

impl BoardWords {
    fn write(&mut self, key: String, value: Option<Bytes>) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        let at = self.time(Instant::now());
        let word = StoredWord {
            value: value.clone(),
            revision,
            written: Instant::now(),
        };
        self.words.insert(key.clone(), word);
        self.tell(&BoardNews::Word {
            key,
            value,
            revision,
            age: Duration::ZERO,
            written: at,
        });
        revision
    }

    /// Returns a time by its own clock, which is ahead of those of all replicas.
    fn time(&mut self, at: Instant) -> BoardTime {
        let begin = *self.begin.get_or_insert(at);
        let passed = u64::try_from((at - begin).as_nanos()).unwrap_or(u64::MAX);
        BoardTime(1_790_000_000_000_000_000_u64.saturating_add(passed))
    }

    fn tell(&self, news: &BoardNews) {
        for watcher in self.watchers.values().filter(|one| one.is_connected) {
            watcher.tell(news.clone());
        }
    }

    fn is_connected(&self, index: usize) -> bool {
        self.watchers
            .get(&index)
            .is_some_and(|one| one.is_connected)
    }

    fn reach(&mut self, index: usize) {
        let Some(watcher) = self.watchers.get_mut(&index) else {
            return;
        };
        watcher.is_connected = true;
        let news = watcher.clone();
        news.tell(BoardNews::Reached);
        let words: Vec<_> = self
            .words
            .iter()
            .map(|(key, one)| (key.clone(), one.clone()))
            .collect();
        for (key, word) in words {
            let written = self.time(word.written);
            let told = BoardNews::Word {
                key,
                value: word.value,
                revision: word.revision,
                age: word.written.elapsed(),
                written,
            };
            news.tell(told);
        }
        // FLT-15: its own join is the newest one.
        self.write(BoardKey::Join.text(), None);
        news.tell(BoardNews::Current);
    }
}

impl ScriptedBoard {
    /// Returns its present words.
    #[cfg(test)]
    pub(super) fn words(&self) -> Vec<(String, Bytes)> {
        let words = self.0.acquire();
        let words = words.words.iter();
        words
            .filter_map(|(key, word)| Some((key.clone(), word.value.clone()?)))
            .collect()
    }

    /// Opens it for one replica.
    pub(super) fn open(&self, index: usize, news: mpsc::Sender<BoardNews>) -> Box<dyn Board> {
        let mut words = self.0.acquire();
        let watcher = BoardWatcher {
            news,
            is_connected: false,
        };
        words.watchers.insert(index, watcher);
        words.reach(index);
        drop(words);
        Box::new(OfReplica {
            board: self.clone(),
            index,
        })
    }

    /// Cuts a replica off, as a broken connection does.
    pub fn cut_off(&self, replica: usize) {
        let mut words = self.0.acquire();
        if let Some(watcher) = words.watchers.get_mut(&replica) {
            watcher.is_connected = false;
            watcher.tell(BoardNews::Lost("the test cut it off".to_owned()));
        }
    }

    /// Lets a replica reach it again.
    pub fn bring_back(&self, replica: usize) {
        self.0.acquire().reach(replica);
    }

    /// Leaves all questions for a lease without an answer from now on, or no longer.
    pub fn hold_answers(&self, holds: bool) {
        self.0.acquire().hangs = holds;
    }

    /// Takes no question from now on, or again.
    #[cfg(test)]
    pub(super) fn take_none(&self, takes_none: bool) {
        self.0.acquire().takes_none = takes_none;
    }

    /// Tells no message from now on, or again, as a server that hangs.
    #[cfg(test)]
    pub(super) fn mute(&self, is_mute: bool) {
        self.0.acquire().is_mute = is_mute;
    }

    /// Loses all its words, as a server without its files does.
    #[cfg(test)]
    pub(super) fn lose_words(&self) {
        let mut words = self.0.acquire();
        words.words.clear();
        words.revision = 0;
    }

    /// Crashes the child of a replica.
    #[cfg(test)]
    pub(super) fn crash(&self, index: usize) {
        let words = self.0.acquire();
        let news = BoardNews::Lost(super::child::CRASH.to_owned());
        words.watchers[&index].tell(news);
    }

    /// Gives the lease to probe a dependency to a replica that is not there, over any other one.
    pub fn lease_to_another(&self, name: &str) {
        let lease = BoardWord::Lease {
            by: word::id_text(ReplicaId(u64::MAX)),
            name: "another".to_owned(),
        };
        let key = BoardKey::Lease(name.to_owned()).text();
        self.0.acquire().write(key, Some(word::write(&lease)));
    }
}

/// The board as one replica has it.
struct OfReplica {
    board: ScriptedBoard,
    index: usize,
}

impl Board for OfReplica {
    fn put(&self, key: String, value: Bytes) {
        let mut words = self.board.0.acquire();
        if words.is_connected(self.index) {
            words.write(key, Some(value));
        }
    }

    fn take_off(&self, key: String) {
        let mut words = self.board.0.acquire();
        if words.is_connected(self.index) {
            words.write(key, None);
        }
    }

    fn swap(
        &self,
        key: String,
        value: Option<Bytes>,
        expected: Option<u64>,
    ) -> BoxFuture<'static, SwapAnswer> {
        let mut words = self.board.0.acquire();
        if words.hangs {
            return Box::pin(std::future::pending());
        }
        let present = words.words.get(&key).map_or(0, |word| word.revision);
        let answer = if !words.is_connected(self.index) || words.takes_none {
            SwapAnswer::Unknown
        } else if expected.is_some_and(|expected| expected != present) {
            SwapAnswer::Lost
        } else {
            SwapAnswer::Done(words.write(key, value))
        };
        Box::pin(async move { answer })
    }

    fn say(&self, message: Bytes) {
        let words = self.board.0.acquire();
        if words.is_connected(self.index) && !words.is_mute {
            words.tell(&BoardNews::Message(message));
        }
    }

    fn leave(&self, message: Bytes) -> BoxFuture<'static, ()> {
        self.say(message);
        Box::pin(async {})
    }
}

impl fmt::Debug for ScriptedBoard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ScriptedBoard").finish_non_exhaustive()
    }
}
