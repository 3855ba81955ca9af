//! Reloads of the configuration, after a change of its files or a hangup signal.
//!
//! A [`Watcher`] returns each configuration read, valid or not; [`follow`] applies it to a runtime
//! (rule CFG-2).
//!
//! ```no_run
//! use breakerbox::prelude::*;
//! use breakerbox::reload::{Watcher, follow};
//!
//! async fn start() -> Result<Runtime, Box<dyn std::error::Error>> {
//!     let loader = Settings::loader();
//!     let settings = loader.load()?;
//!     let debounce = settings.reload.debounce;
//!     let runtime = Runtime::start(settings.into_runtime()?).await?;
//!     tokio::spawn(follow(runtime.clone(), Watcher::start(loader, debounce)?));
//!     Ok(runtime)
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use notify_debouncer_full::notify::event::{AccessKind, AccessMode};
use notify_debouncer_full::notify::{self, EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{
    DebounceEventResult, DebouncedEvent, Debouncer, RecommendedCache, new_debouncer,
};
use tokio::sync::mpsc;

use crate::Runtime;
use crate::config::{ConfigError, Loader, Settings};
use crate::lock::LockExt as _;

/// Time between two looks at the files themselves.
const LOOK: Duration = Duration::from_secs(1);

/// The reason for a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// This file was changed, created or removed.
    File(PathBuf),
    /// The process received SIGHUP.
    Signal,
}

impl fmt::Display for Trigger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(out, "{}", path.display()),
            Self::Signal => out.write_str("SIGHUP"),
        }
    }
}

/// Errors of watching for changes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The system cannot watch this folder; often a limit on watches is reached.
    #[error("{} cannot be watched: {cause}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's error.
        cause: notify::Error,
    },
    /// Files cannot be watched at all.
    #[error("files cannot be watched: {0}")]
    Unsupported(notify::Error),
    /// The signal cannot be received.
    #[error("hangup signals cannot be received: {0}")]
    Signal(io::Error),
}

/// Watches for reasons to reload the configuration, until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    loader: Loader,
    changes: mpsc::Receiver<PathBuf>,
    hangups: HangupSignal,
    /// Held only for its drop, which stops the watching.
    _files: Option<(
        Debouncer<RecommendedWatcher, RecommendedCache>,
        Sender<std::convert::Infallible>,
    )>,
}

impl Watcher {
    /// Starts watching the loader's files and hangup signals.
    ///
    /// It watches folders, since editors and deployments replace files instead of changing them.
    /// It compares the contents of the files, so that other files in a folder do not count. A
    /// change between an earlier load and this call is noticed with the next change. A change that
    /// the system does not tell (its folder was replaced, or it is a link to a file elsewhere) is
    /// found by a look at the files, within two seconds.
    ///
    /// # Units   `debounce`: minimum delay between a change and the reload; the maximum is twice
    /// as long.
    /// # Errors  [`WatchError`]; the program can go on with [`Watcher::on_signals`].
    /// # Panics  Outside of a tokio runtime.
    pub fn start(loader: Loader, debounce: Duration) -> Result<Self, WatchError> {
        let hangups = HangupSignal::new().map_err(WatchError::Signal)?;
        // One slot is enough: a reload after a change sees the earlier changes, too.
        let (sender, changes) = mpsc::channel(1);
        let folders = folders_of(&loader);
        let comparison = FileComparison {
            loader: loader.clone(),
            seen: Arc::new(Mutex::new(FileHashes::of_contents(&loader))),
            changed: sender,
        };
        let own = comparison.clone();
        let on_events = move |events: DebounceEventResult| {
            // Otherwise, reading the files here would be the next event.
            if events.is_ok_and(|events| events.iter().all(is_reading)) {
                return;
            }
            own.compare();
        };
        let files = new_debouncer(debounce, Some(debounce), on_events);
        let mut files = files.map_err(WatchError::Unsupported)?;
        for folder in folders {
            let watched = files.watch(&folder, RecursiveMode::NonRecursive);
            watched.map_err(|cause| WatchError::Folder { folder, cause })?;
        }
        let (held, stopped) = channel();
        thread::Builder::new()
            .name("breakerbox-files".to_owned())
            .spawn(move || comparison.look(&stopped))
            .map_err(|error| WatchError::Unsupported(error.into()))?;
        Ok(Self {
            loader,
            changes,
            hangups,
            _files: Some((files, held)),
        })
    }

    /// Watches hangup signals only.
    ///
    /// # Errors  [`WatchError::Signal`].
    /// # Panics  Outside of a tokio runtime.
    pub fn on_signals(loader: Loader) -> Result<Self, WatchError> {
        let hangups = HangupSignal::new().map_err(WatchError::Signal)?;
        let (_, changes) = mpsc::channel(1);
        Ok(Self {
            loader,
            changes,
            hangups,
            _files: None,
        })
    }

    /// Waits for the next trigger, then reads the configuration on the calling thread: it is a few
    /// small files. After an error, the watcher continues with the next change.
    ///
    /// # Cancel safety   Nothing is lost: a pending trigger is kept for the next call.
    pub async fn next(&mut self) -> (Trigger, Result<Settings, ConfigError>) {
        let trigger = tokio::select! {
            Some(path) = self.changes.recv() => Trigger::File(path),
            () = self.hangups.next() => Trigger::Signal,
        };
        (trigger, self.loader.load())
    }
}

/// Applies the configuration to a runtime: once at the start, so that no change since it was loaded
/// is missed, and then after each trigger of the watcher. It never returns.
///
/// New settings are applied as by [`Runtime::reload`]. Invalid ones emit an event and change
/// nothing.
///
/// # Cancel safety   After a drop, the runtime keeps its current settings.
pub async fn follow(runtime: Runtime, mut watcher: Watcher) {
    let mut read: (Option<Trigger>, _) = (None, watcher.loader.load());
    loop {
        let (trigger, settings) = read;
        let by = trigger.map_or_else(|| "the start".to_owned(), |trigger| trigger.to_string());
        match settings {
            Ok(settings) => {
                runtime.reload(settings, &by).await;
            }
            // CFG-2: an invalid configuration changes nothing, and is told as an event.
            Err(error) => runtime.refuse_reload(&by, &error.to_string()),
        }
        let (trigger, settings) = watcher.next().await;
        read = (Some(trigger), settings);
    }
}

/// Returns the existing folders of the files.
fn folders_of(loader: &Loader) -> BTreeSet<PathBuf> {
    let files = loader.sources().files.into_iter();
    let folders = files.filter_map(|file| match file.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Some(PathBuf::from(".")),
        folder => folder.map(Path::to_owned),
    });
    folders.filter(|folder| folder.is_dir()).collect()
}

/// Returns true if the event is only a read access to a file.
fn is_reading(event: &DebouncedEvent) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        kind => kind.is_access(),
    }
}

/// Comparison of the files with their former contents.
#[derive(Debug, Clone)]
struct FileComparison {
    loader: Loader,
    seen: Arc<Mutex<FileHashes>>,
    changed: mpsc::Sender<PathBuf>,
}

impl FileComparison {
    /// Reads the files, and sends one that has changed.
    fn compare(&self) {
        // One at a time, so that the latest contents are those that stay.
        let mut seen = self.seen.acquire();
        if let Some(path) = seen.replaced_by(FileHashes::of_contents(&self.loader)) {
            // Full: a reload is already pending.
            let _ = self.changed.try_send(path);
        }
    }

    /// Looks at the files again and again, until the other end of `stopped` is dropped.
    ///
    /// Only the system's events come at once; but a watched folder is a folder on the disk, not its
    /// path, and some file systems tell nothing.
    fn look(&self, stopped: &Receiver<std::convert::Infallible>) {
        let mut last = FileHashes::of_marks(&self.loader);
        let mut is_changing = false;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
            let now = FileHashes::of_marks(&self.loader);
            // CFG-2: a file that is still being written is read once it is the same twice.
            let was_changing = std::mem::replace(&mut is_changing, now != last);
            if was_changing && !is_changing {
                self.compare();
            }
            last = now;
        }
    }
}

/// A hash for each of the files: of its contents, which may hold secrets, or of what tells that they
/// have changed.
#[derive(Debug, PartialEq, Eq)]
struct FileHashes(BTreeMap<PathBuf, u64>);

impl FileHashes {
    fn of_contents(loader: &Loader) -> Self {
        Self::by(loader, |path, hasher| {
            std::fs::read(path).ok()?.hash(hasher);
            Some(())
        })
    }

    /// Hashes the times, lengths and numbers of the files.
    fn of_marks(loader: &Loader) -> Self {
        Self::by(loader, |path, hasher| {
            let about = std::fs::metadata(path).ok()?;
            (about.len(), about.modified().ok()).hash(hasher);
            #[cfg(unix)]
            {
                use std::os::unix::fs::MetadataExt as _;
                (about.dev(), about.ino()).hash(hasher);
            }
            Some(())
        })
    }

    fn by(loader: &Loader, add: impl Fn(&Path, &mut DefaultHasher) -> Option<()>) -> Self {
        let hash = |path: &Path| {
            let mut hasher = DefaultHasher::new();
            add(path, &mut hasher)?;
            Some((path.to_owned(), hasher.finish()))
        };
        Self(loader.sources().found().filter_map(hash).collect())
    }

    /// Stores the new hashes, and returns a file that has changed.
    fn replaced_by(&mut self, now: Self) -> Option<PathBuf> {
        let differs = |path: &&PathBuf| self.0.get(*path) != now.0.get(*path);
        let path = self.0.keys().chain(now.0.keys()).find(differs).cloned();
        *self = now;
        path
    }
}

/// SIGHUP, by which an operator requests a reload.
#[cfg(unix)]
#[derive(Debug)]
struct HangupSignal(tokio::signal::unix::Signal);

#[cfg(unix)]
impl HangupSignal {
    fn new() -> io::Result<Self> {
        let kind = tokio::signal::unix::SignalKind::hangup();
        tokio::signal::unix::signal(kind).map(Self)
    }

    async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

/// No-op on systems without SIGHUP.
#[cfg(not(unix))]
#[derive(Debug)]
struct HangupSignal;

#[cfg(not(unix))]
impl HangupSignal {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}
