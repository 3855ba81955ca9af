//! Recording of call outcomes to a file, for `breakerbox replay` (feature `recorder`).
//!
//! A trace consists of JSON lines: a header; the settings of each dependency's breaker, when it
//! starts and at each change; and an outcome for each attempt. Times are milliseconds since the
//! runtime's start, with a fraction that is exact to the nanosecond. Requests and responses are
//! never recorded.
//!
//! ```text
//! {"header":{"format":1,"version":"0.1.0","started":"2026-03-01T12:00:00.000Z"}}
//! {"settings":{"at_ms":0.2,"dependency":"web_search","breaker":{"window":{"kind":"consecutive"},…}}}
//! {"at_ms":12.345,"dependency":"web_search","duration_ms":3.2,"class":"success","retry_after_ms":null}
//! {"at_ms":99.1,"dependency":"web_search","duration_ms":8.0,"class":"failure","retry_after_ms":null,"probe":true}
//! ```

mod line;

mod millis;

mod settings;

mod trace;

mod trace_file;

mod writer;

#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use breakerbox_actors::{AttemptRecord, OutcomeRecorder};
use breakerbox_policy::{BreakerSettings, Time};

pub use trace::{RecordedOutcome, Recording, Trace, TraceError};
#[cfg(feature = "cli")]
pub(crate) use trace_file::check;

use writer::{KnownSettings, Writer, WriterEntry};

use crate::lock::LockExt as _;

/// Limits of a [`Recorder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecorderOptions {
    /// Maximum number of outcomes waiting to be written. Further ones are dropped and counted.
    pub max_queue: usize,
    /// Maximum file size in bytes. A full file is renamed to `<path>.1`, in place of an older trace,
    /// and a new file begins.
    pub max_bytes: u64,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self {
            max_queue: 16_384,
            max_bytes: 256 * 1024 * 1024,
        }
    }
}

/// Records the outcomes of one runtime.
///
/// ```
/// use std::sync::Arc;
///
/// use breakerbox::prelude::*;
/// use breakerbox::recorder::{Recorder, RecorderOptions};
///
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("breakerbox-doc-{}.jsonl", std::process::id()));
/// let recorder = Arc::new(Recorder::create(&path, RecorderOptions::default())?);
/// let settings = RuntimeSettings {
///     recorder: Some(recorder.clone()),
///     ..RuntimeSettings::default()
/// };
/// // … Runtime::start(settings), calls …
/// recorder.flush();
/// assert_eq!(recorder.dropped(), 0);
/// # drop((settings, recorder));
/// # std::fs::remove_file(path)
/// # }
/// ```
#[derive(Debug)]
pub struct Recorder {
    /// `Some` until the drop.
    sender: Option<Sender<WriterEntry>>,
    /// Maximum number of entries that wait.
    max_queue: usize,
    writer: Option<JoinHandle<()>>,
    books: Arc<RecorderState>,
}

/// State shared by the recorder and its writer.
#[derive(Debug, Default)]
struct RecorderState {
    /// Entries that wait for the writer. The channel has no bound of its own: a bounded one takes the
    /// memory of all its places at the start.
    waiting: AtomicUsize,
    dropped: AtomicU64,
    failed: AtomicU64,
    /// Settings waiting to be written. They bypass the queue of the outcomes: a trace without them
    /// would be replayed wrongly, so none may be dropped.
    settings: Mutex<Vec<KnownSettings>>,
}

impl Recorder {
    /// Starts a trace and its writer thread. An existing trace is renamed to `<path>.1`; any other
    /// file, folder or link there is left alone. On Unix only its owner may read the new file.
    ///
    /// Without room on its disk the recorder starts too: it logs an error, and begins the trace once
    /// there is room.
    ///
    /// # Errors  The file or the thread cannot be created, or something else has its name.
    pub fn create(path: impl AsRef<Path>, options: RecorderOptions) -> io::Result<Self> {
        let books = Arc::new(RecorderState::default());
        let (path, max_bytes) = (path.as_ref(), options.max_bytes);
        let writer = Writer::create(path, max_bytes, wall_clock(), Arc::clone(&books))?;
        let (sender, receiver) = channel();
        let writer = std::thread::Builder::new()
            .name("breakerbox-recorder".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self {
            sender: Some(sender),
            max_queue: options.max_queue.max(1),
            writer: Some(writer),
            books,
        })
    }

    /// Returns the number of outcomes dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.books.dropped.load(Ordering::Relaxed)
    }

    /// Returns the number of lines that could not be written. The first failure is logged.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.books.failed.load(Ordering::Relaxed)
    }

    /// Waits until everything recorded so far is in the file.
    ///
    /// It blocks on the disk: do not use it in the path of a call. Dropping the recorder, which its
    /// runtime and the runtime's clients hold too, does the same.
    pub fn flush(&self) {
        let (done, told) = sync_channel(1);
        if let Some(sender) = &self.sender
            && self.send(sender, WriterEntry::Flush(done))
        {
            self.hurry();
            // A writer that has ended writes nothing more.
            let _ = told.recv();
        }
    }

    /// Queues an entry if there is room, and returns true if it did.
    fn offer(&self, entry: WriterEntry) -> bool {
        let Some(sender) = &self.sender else {
            return false;
        };
        // EDGE-8: the number is bounded, and memory is taken for those that wait only.
        let is_full = self.books.waiting.load(Ordering::Relaxed) >= self.max_queue;
        !is_full && self.send(sender, entry)
    }

    /// Queues an entry, however many there are. Returns false if the writer has ended.
    fn send(&self, sender: &Sender<WriterEntry>, entry: WriterEntry) -> bool {
        self.books.waiting.fetch_add(1, Ordering::Relaxed);
        sender.send(entry).is_ok()
    }

    /// Wakes the writer from its wait for more entries.
    fn hurry(&self) {
        if let Some(writer) = &self.writer {
            writer.thread().unpark();
        }
    }
}

impl OutcomeRecorder for Recorder {
    fn record(&self, ended: AttemptRecord<'_>) {
        let kept = self.offer(WriterEntry::Outcome {
            dependency: Arc::clone(ended.dependency),
            at: ended.at,
            outcome: ended.outcome,
            probe: matches!(ended.permit, breakerbox_policy::PermitKind::Probe(_)),
        });
        if !kept {
            self.books.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn settings(&self, dependency: &Arc<str>, at: Time, breaker: &BreakerSettings) {
        let known = (Arc::clone(dependency), at, breaker.clone());
        self.books.settings.acquire().push(known);
        // If the queue is full, the writer is awake and fetches the settings by itself.
        self.offer(WriterEntry::Look);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.sender.take());
        self.hurry();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing more to write.
            let _ = writer.join();
        }
    }
}

#[expect(
    clippy::disallowed_types,
    reason = "the only place where a trace reads the wall clock"
)]
fn wall_clock() -> String {
    humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string()
}
