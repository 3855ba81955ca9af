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
    /// `None` while it cannot be created. An older trace is renamed to `<path>.1` when it is.
    file: Option<File>,
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
    /// Creates the file with its header. Without room for them, they are written once there is some.
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
            file: None,
            written: 0,
            used: false,
            buffer: Vec::with_capacity(2 * CHUNK),
            lines: 0,
            known: BTreeMap::new(),
            broken: false,
            reported: false,
        };
        // EDGE-1: our own lack of room keeps no sidecar from its start.
        match writer.begin_file().and_then(|()| writer.try_write_out()) {
            Err(error) if is_lack_of_room(&error) => writer.report(&error),
            begun => begun?,
        }
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

    /// Creates the file if there is none, and begins one without a line with its header.
    fn begin_file(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let file = begin(&self.path)?;
            // Records from a time without a file have no header before them.
            self.write_out();
            self.file = Some(file);
            self.written = 0;
            self.used = false;
            self.broken = false;
        }
        if self.written == 0 && self.buffer.is_empty() {
            self.head();
        }
        Ok(())
    }

    fn take(&mut self, entry: WriterEntry) {
        self.books.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Err(error) = self.begin_file() {
            self.report(&error);
        }
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
            // The old file must not exceed its limit: without a new one, nothing is written.
            self.file = None;
            if let Err(error) = self.begin_file() {
                self.report(&error);
            }
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
        let file = self.file.as_mut().filter(|_| !self.broken);
        let result = file.map(|file| {
            file.write_all(&self.buffer).inspect_err(|_| {
                // A partial line in the middle would make the whole trace unreadable.
                self.broken = file.set_len(self.written).is_err();
            })
        });
        match result {
            Some(Ok(())) => {
                self.written += self.buffer.len() as u64;
                self.reported = false;
            }
            Some(Err(_)) | None => self.lose(lines),
        }
        let result = result.unwrap_or(Ok(()));
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

/// Returns true for an error of a file system that cannot take more at present.
fn is_lack_of_room(error: &io::Error) -> bool {
    /// `EIO` of every Unix; the standard library has no kind for it.
    const BROKEN: i32 = 5;
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) || (cfg!(unix) && error.raw_os_error() == Some(BROKEN))
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
        writer.file = Some(File::open(&path).unwrap());
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

    #[test]
    fn a_turn_over_that_fails_is_tried_again_and_loses_only_what_came_meanwhile() {
        let (path, mut writer) = writer("turning");
        let older = path.with_extension("jsonl.1");
        let lines = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.starts_with("{\"header\""), "{text}");
            text.lines().count()
        };
        writer.take(outcome());
        writer.max_bytes = 1;
        // No file can be renamed to a folder.
        std::fs::create_dir(&older).unwrap();
        writer.take(outcome());
        assert!(writer.reported && writer.file.is_none());
        assert_eq!(lines(&path), 2, "the old file is within its limit");
        std::fs::remove_dir(&older).unwrap();
        writer.take(outcome());
        writer.write_out();
        assert_eq!((lines(&older), lines(&path)), (2, 2));
        assert_eq!(writer.books.failed.load(Ordering::Relaxed), 1);
        assert!(!writer.reported);
        std::fs::remove_file(older).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn edge_1_a_full_disk_keeps_nothing_from_its_start_and_the_trace_begins_later() {
        let (path, mut writer) = writer("full");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        let full = || std::fs::OpenOptions::new().append(true).open("/dev/full");
        let error = full().unwrap().write_all(b"x").unwrap_err();
        assert!(is_lack_of_room(&error), "{error}");
        // As after a start on a full disk: not even the header was written.
        writer.file = Some(full().unwrap());
        writer.written = 0;
        writer.take(outcome());
        writer.write_out();
        assert!(writer.reported && writer.buffer.is_empty());
        writer.file = None;
        writer.broken = false;
        writer.take(outcome());
        writer.write_out();
        let lines = std::fs::read_to_string(&path).unwrap();
        assert!(lines.starts_with(&whole), "{lines}");
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(!writer.reported);
        std::fs::remove_file(path).unwrap();
    }
}
