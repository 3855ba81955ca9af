//! A board in memory, on the clock of the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use breakerbox_policy::fleet::ReplicaId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::board::{Board, BoardNews, SwapAnswer};
use super::super::board_word::{self as word, BoardKey, BoardWord};
use crate::lock::LockExt as _;

/// The board of several replicas.
#[derive(Clone, Default)]
pub(super) struct MemoryBoard(Arc<Mutex<Words>>);

#[derive(Default)]
struct Words {
    revision: u64,
    words: BTreeMap<String, Word>,
    /// The replicas by their numbers.
    watchers: BTreeMap<usize, Watcher>,
    /// True while no swap is answered.
    hangs: bool,
}

struct Word {
    value: Option<Bytes>,
    revision: u64,
    written: Instant,
}

struct Watcher {
    news: mpsc::Sender<BoardNews>,
    is_connected: bool,
}

impl Words {
    fn write(&mut self, key: String, value: Option<Bytes>) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        let word = Word {
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
        });
        revision
    }

    fn tell(&self, news: &BoardNews) {
        for watcher in self.watchers.values().filter(|one| one.is_connected) {
            watcher.news.try_send(news.clone()).unwrap();
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
        watcher.news.try_send(BoardNews::Reached).unwrap();
        for (key, word) in &self.words {
            let news = BoardNews::Word {
                key: key.clone(),
                value: word.value.clone(),
                revision: word.revision,
                age: word.written.elapsed(),
            };
            watcher.news.try_send(news).unwrap();
        }
        watcher.news.try_send(BoardNews::Current).unwrap();
    }
}

impl MemoryBoard {
    /// Opens it for one replica.
    pub(super) fn open(&self, index: usize, news: mpsc::Sender<BoardNews>) -> Box<dyn Board> {
        let mut words = self.0.acquire();
        let watcher = Watcher {
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

    /// Cuts a replica off.
    pub(super) fn lose(&self, index: usize) {
        let mut words = self.0.acquire();
        let watcher = words.watchers.get_mut(&index).unwrap();
        watcher.is_connected = false;
        let lost = BoardNews::Lost("the test cut it off".to_owned());
        watcher.news.try_send(lost).unwrap();
    }

    /// Lets a replica reach it again.
    pub(super) fn bring(&self, index: usize) {
        self.0.acquire().reach(index);
    }

    /// Answers no swap any more, or again.
    pub(super) fn hang(&self, hangs: bool) {
        self.0.acquire().hangs = hangs;
    }

    /// Crashes the child of a replica.
    pub(super) fn crash(&self, index: usize) {
        let words = self.0.acquire();
        let news = BoardNews::Lost(super::super::child::CRASH.to_owned());
        words.watchers[&index].news.try_send(news).unwrap();
    }

    /// Writes the lease of a replica that is not there, over any other one.
    pub(super) fn write_lease_of_another(&self, name: &str) {
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
    board: MemoryBoard,
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
        value: Bytes,
        expected: Option<u64>,
    ) -> BoxFuture<'static, SwapAnswer> {
        let mut words = self.board.0.acquire();
        if words.hangs {
            return Box::pin(std::future::pending());
        }
        let present = words.words.get(&key).map_or(0, |word| word.revision);
        let answer = if !words.is_connected(self.index) {
            SwapAnswer::Unknown
        } else if expected.is_some_and(|expected| expected != present) {
            SwapAnswer::Lost
        } else {
            SwapAnswer::Done(words.write(key, Some(value)))
        };
        Box::pin(async move { answer })
    }

    fn say(&self, message: Bytes) {
        let words = self.board.0.acquire();
        if words.is_connected(self.index) {
            words.tell(&BoardNews::Message(message));
        }
    }

    fn leave(&self, message: Bytes) -> BoxFuture<'static, ()> {
        self.say(message);
        Box::pin(async {})
    }
}
