//! Writes what calls came to into a file, for `breakerbox replay` (feature `recorder`).
//!
//! A trace is made of lines of JSON: a header; the settings of each dependency's breaker, when it
//! starts and at each change; and an outcome for each attempt. Times are milliseconds since the
//! runtime's start, with a fraction that is exact to the nanosecond. Requests and answers are not
//! recorded.
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

mod writer;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use breakerbox_actors::{Ended, Record};
use breakerbox_policy::{BreakerSettings, Time};

pub use trace::{RecordedOutcome, Recording, Trace, TraceError};

use writer::{Entry, Known, Writer};

/// How much a [`Recorder`] may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecorderOptions {
    /// Outcomes that wait to be written; one more is dropped, and counted.
    pub max_queue: usize,
    /// The longest file in bytes. Then it is kept as `<path>.1`, in place of an older one, and a
    /// new file begins.
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
    /// There until it is dropped.
    sender: Option<SyncSender<Entry>>,
    writer: Option<JoinHandle<()>>,
    books: Arc<Books>,
}

/// What the recorder and its writer share.
#[derive(Debug, Default)]
struct Books {
    dropped: AtomicU64,
    failed: AtomicU64,
    /// Settings on their way. They do not queue with the outcomes: a trace without them would be
    /// replayed wrongly, so none may be dropped.
    settings: Mutex<Vec<Known>>,
}

impl Recorder {
    /// Begins a trace, and the thread that writes it. A file that is there is kept as `<path>.1`.
    ///
    /// # Errors  The file cannot be made, or the thread.
    pub fn create(path: impl AsRef<Path>, options: RecorderOptions) -> io::Result<Self> {
        let books = Arc::new(Books::default());
        let (path, max_bytes) = (path.as_ref(), options.max_bytes);
        let writer = Writer::create(path, max_bytes, wall_clock(), Arc::clone(&books))?;
        let (sender, receiver) = sync_channel(options.max_queue.max(1));
        let writer = std::thread::Builder::new()
            .name("breakerbox-recorder".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self {
            sender: Some(sender),
            writer: Some(writer),
            books,
        })
    }

    /// Outcomes that were dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.books.dropped.load(Ordering::Relaxed)
    }

    /// Lines that could not be written. The first time is logged.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.books.failed.load(Ordering::Relaxed)
    }

    /// Waits until everything that was recorded so far is in the file.
    ///
    /// It blocks for as long as the disk takes: not for the path of a call. Dropping the recorder,
    /// which its runtime and the runtime's clients hold too, does the same.
    pub fn flush(&self) {
        let (done, told) = sync_channel(1);
        if let Some(sender) = &self.sender
            && sender.send(Entry::Flush(done)).is_ok()
        {
            self.hurry();
            // A writer that is gone writes nothing more.
            let _ = told.recv();
        }
    }

    /// Puts one into the queue, if there is room.
    fn offer(&self, entry: Entry) -> bool {
        let Some(sender) = &self.sender else {
            return false;
        };
        match sender.try_send(entry) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Ends the writer's wait for more.
    fn hurry(&self) {
        if let Some(writer) = &self.writer {
            writer.thread().unpark();
        }
    }
}

impl Record for Recorder {
    fn record(&self, ended: Ended<'_>) {
        let kept = self.offer(Entry::Outcome {
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
        self.books
            .settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(known);
        // With a full queue the writer is awake, and looks by itself.
        self.offer(Entry::Look);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.sender.take());
        self.hurry();
        if let Some(writer) = self.writer.take() {
            // One that panicked has nothing more to write.
            let _ = writer.join();
        }
    }
}

#[expect(
    clippy::disallowed_types,
    reason = "the one place where a trace's times meet the clock on the wall"
)]
fn wall_clock() -> String {
    humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string()
}
