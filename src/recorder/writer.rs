//! Writer thread of a trace, the only one that touches the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use breakerbox_policy::{BreakerSettings, Outcome, Time};

use super::RecorderState;
use super::line::{FORMAT, HeaderLine, OtherLine, OutcomeLine, SettingsLine, append};
use super::trace_file::begin;

use crate::lock::LockExt as _;

/// Time for which the writer lets outcomes accumulate; meanwhile, no sender has to wake it.
const GATHER: Duration = Duration::from_millis(5);
/// Minimum size of a write while there are more entries, in bytes.
const CHUNK: usize = 64 * 1024;

/// A message to the writer.
pub(super) enum WriterEntry {
    Outcome {
        dependency: Arc<str>,
        at: Time,
        outcome: Outcome,
        probe: bool,
    },
    /// New settings can be fetched.
    Look,
    /// Write everything out, then signal the sender.
    Flush(SyncSender<()>),
}

/// Settings of a dependency from a time on.
pub(super) type KnownSettings = (Arc<str>, Time, BreakerSettings);

pub(super) struct Writer {
    path: PathBuf,
    max_bytes: u64,
    started: String,
    books: Arc<RecorderState>,
    file: File,
    /// Bytes in the file, in complete lines only.
    written: u64,
    /// True if the file or the buffer has an outcome.
    used: bool,
    /// Lines not yet in the file.
    buffer: Vec<u8>,
    lines: u64,
    /// The current settings, for the next file.
    known: BTreeMap<Arc<str>, (Time, BreakerSettings)>,
    /// True after the file has become unwritable.
    broken: bool,
    reported: bool,
}

impl Writer {
    /// Creates the file with its header.
    pub(super) fn create(
        path: &Path,
        max_bytes: u64,
        started: String,
        books: Arc<RecorderState>,
    ) -> io::Result<Self> {
        let mut writer = Self {
            path: path.to_owned(),
            max_bytes,
            started,
            books,
            file: begin(path)?,
            written: 0,
            used: false,
            buffer: Vec::with_capacity(2 * CHUNK),
            lines: 0,
            known: BTreeMap::new(),
            broken: false,
            reported: false,
        };
        writer.head();
        writer.try_write_out()?;
        Ok(writer)
    }

    /// Writes until every sender is dropped.
    pub(super) fn run(mut self, receiver: &Receiver<WriterEntry>) {
        while let Ok(first) = receiver.recv() {
            let urgent = !matches!(first, WriterEntry::Outcome { .. });
            self.take(first);
            if !urgent {
                std::thread::park_timeout(GATHER);
            }
            while let Ok(next) = receiver.try_recv() {
                self.take(next);
            }
            self.write_out();
        }
        self.fetch_settings();
        self.write_out();
    }

    fn take(&mut self, entry: WriterEntry) {
        self.books.waiting.fetch_sub(1, Ordering::Relaxed);
        self.fetch_settings();
        match entry {
            WriterEntry::Outcome {
                dependency,
                at,
                outcome,
                probe,
            } => self.outcome(&OutcomeLine {
                at: at.since(Time::ZERO),
                dependency: Cow::Borrowed(&dependency),
                duration: outcome.elapsed,
                class: outcome.class,
                retry_after: outcome.retry_after,
                probe,
            }),
            WriterEntry::Look => {}
            WriterEntry::Flush(done) => {
                self.write_out();
                // The caller of `flush` may be gone.
                let _ = done.send(());
            }
        }
    }

    fn outcome(&mut self, line: &OutcomeLine<'_>) {
        let before = self.buffer.len();
        self.push(line);
        if self.used && self.written + self.buffer.len() as u64 > self.max_bytes {
            let whole = self.buffer.split_off(before);
            self.lines = self.lines.saturating_sub(1);
            self.write_out();
            self.turn_over();
            self.buffer.extend(whole);
            self.lines += 1;
        }
        self.used = true;
        if self.buffer.len() >= CHUNK {
            self.write_out();
        }
    }

    fn fetch_settings(&mut self) {
        let news = std::mem::take(&mut *self.books.settings.acquire());
        for (dependency, at, breaker) in news {
            self.known
                .insert(Arc::clone(&dependency), (at, breaker.clone()));
            self.push_settings(&dependency, at, breaker);
        }
    }

    /// Renames the current file to `<path>.1`, and begins a new one.
    fn turn_over(&mut self) {
        match begin(&self.path) {
            Ok(file) => {
                self.file = file;
                self.written = 0;
                self.used = false;
                self.head();
            }
            Err(error) => {
                // The old file must not exceed its limit.
                self.broken = true;
                self.report(&error);
            }
        }
    }

    /// Appends the first lines of every file.
    fn head(&mut self) {
        let header = OtherLine::Header(HeaderLine {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            started: self.started.clone().into(),
        });
        self.push(&header);
        for (dependency, (at, breaker)) in self.known.clone() {
            self.push_settings(&dependency, at, breaker);
        }
    }

    fn push_settings(&mut self, dependency: &str, at: Time, breaker: BreakerSettings) {
        let line = OtherLine::Settings(Box::new(SettingsLine {
            at: at.since(Time::ZERO),
            dependency: dependency.into(),
            breaker,
        }));
        self.push(&line);
    }

    fn push(&mut self, line: &impl serde::Serialize) {
        match append(&mut self.buffer, line) {
            Ok(()) => self.lines += 1,
            Err(_) => self.lose(1),
        }
    }

    fn write_out(&mut self) {
        if let Err(error) = self.try_write_out() {
            self.report(&error);
        }
    }

    fn try_write_out(&mut self) -> io::Result<()> {
        let lines = std::mem::take(&mut self.lines);
        let result = if self.broken {
            self.lose(lines);
            Ok(())
        } else {
            let result = self.file.write_all(&self.buffer);
            match result {
                Ok(()) => self.written += self.buffer.len() as u64,
                Err(_) => {
                    self.lose(lines);
                    // A partial line in the middle would make the whole trace unreadable.
                    self.broken = self.file.set_len(self.written).is_err();
                }
            }
            result
        };
        self.buffer.clear();
        result
    }

    fn lose(&self, lines: u64) {
        self.books.failed.fetch_add(lines, Ordering::Relaxed);
    }

    fn report(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.reported, true) {
            let path = self.path.display();
            tracing::error!(%path, %error, "outcomes cannot be recorded; further errors are only counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(name: &str) -> (PathBuf, Writer) {
        let name = format!("breakerbox-{name}-{}.jsonl", std::process::id());
        let path = std::env::temp_dir().join(name);
        let books = Arc::new(RecorderState::default());
        let writer = Writer::create(&path, 1 << 20, "today".to_owned(), books).unwrap();
        (path, writer)
    }

    fn outcome() -> WriterEntry {
        WriterEntry::Outcome {
            dependency: Arc::from("dep"),
            at: Time::ZERO,
            outcome: Outcome::new(breakerbox_policy::Class::Success, Duration::ZERO),
            probe: false,
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_ends_nothing() {
        let (path, mut writer) = writer("failing");
        let whole = std::fs::read_to_string(&path).unwrap();
        // The file is read-only: writing and truncating it fail.
        writer.file = File::open(&path).unwrap();
        for _ in 0..2 {
            writer.take(outcome());
            writer.take(outcome());
            writer.write_out();
        }
        assert_eq!(writer.books.failed.load(Ordering::Relaxed), 4);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        assert!(writer.reported && writer.buffer.is_empty());
        std::fs::remove_file(path).unwrap();
    }
}
