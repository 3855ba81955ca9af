//! Reads the configuration again: after a change of its files, or a hangup signal.
//!
//! A [`Watcher`] tells what was read, good or bad; [`follow`] has a runtime keep to it (rule CFG-2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify_debouncer_full::notify::event::{AccessKind, AccessMode};
use notify_debouncer_full::notify::{self, EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{
    DebounceEventResult, DebouncedEvent, Debouncer, RecommendedCache, new_debouncer,
};
use tokio::sync::mpsc;

use crate::Runtime;
use crate::config::{ConfigError, Loader, Settings};

/// Why the configuration was read again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// This file has changed, appeared or gone.
    File(PathBuf),
    /// The process got the signal SIGHUP.
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

/// Why changes cannot be noticed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The system does not watch this folder; often a limit on watches is reached.
    #[error("{} cannot be watched: {cause}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        cause: notify::Error,
    },
    /// No watching at all.
    #[error("files cannot be watched: {0}")]
    Unsupported(notify::Error),
    /// The signal cannot be waited for.
    #[error("hangup signals cannot be received: {0}")]
    Signal(io::Error),
}

/// Waits for reasons to read the configuration again. Dropped, it stops.
#[derive(Debug)]
pub struct Watcher {
    loader: Loader,
    changes: mpsc::Receiver<PathBuf>,
    hangups: Hangups,
    /// Kept only to be dropped with the rest: that ends the watching.
    _files: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
}

impl Watcher {
    /// Begins to watch the loader's files, and to take hangup signals.
    ///
    /// It watches folders, since editors and deployments put a new file in the place of the old
    /// one, and it compares what the files hold, so that nothing else in a folder counts. What has
    /// changed between an earlier load and this call is seen with the next change.
    ///
    /// # Units   `debounce`: how long after a change the files are read, at least; at most twice
    /// as long.
    /// # Errors  [`WatchError`]; the program can go on with [`Watcher::on_signals`].
    /// # Panics  Outside of a tokio runtime.
    pub fn start(loader: Loader, debounce: Duration) -> Result<Self, WatchError> {
        let hangups = Hangups::new().map_err(WatchError::Signal)?;
        // One place is enough: who reads after a change sees those that came before it too.
        let (sender, changes) = mpsc::channel(1);
        let folders = folders_of(&loader);
        let mut seen = Contents::of(&loader);
        let own = loader.clone();
        let on_events = move |events: DebounceEventResult| {
            // Without this, reading the files here would be the next event.
            if events.is_ok_and(|events| events.iter().all(is_reading)) {
                return;
            }
            if let Some(path) = seen.replaced_by(Contents::of(&own)) {
                // Full: somebody is told already and has not read yet.
                let _ = sender.try_send(path);
            }
        };
        let files = new_debouncer(debounce, Some(debounce), on_events);
        let mut files = files.map_err(WatchError::Unsupported)?;
        for folder in folders {
            let watched = files.watch(&folder, RecursiveMode::NonRecursive);
            watched.map_err(|cause| WatchError::Folder { folder, cause })?;
        }
        Ok(Self {
            loader,
            changes,
            hangups,
            _files: Some(files),
        })
    }

    /// Takes hangup signals only.
    ///
    /// # Errors  [`WatchError::Signal`].
    /// # Panics  Outside of a tokio runtime.
    pub fn on_signals(loader: Loader) -> Result<Self, WatchError> {
        let hangups = Hangups::new().map_err(WatchError::Signal)?;
        let (_, changes) = mpsc::channel(1);
        Ok(Self {
            loader,
            changes,
            hangups,
            _files: None,
        })
    }

    /// Waits for the next reason, and reads the configuration then, on the calling thread: a few
    /// small files. An error is no end; the next change is waited for all the same.
    ///
    /// # Cancel safety   Nothing is lost: a reason that nobody took waits for the next call.
    pub async fn next(&mut self) -> (Trigger, Result<Settings, ConfigError>) {
        let trigger = tokio::select! {
            Some(path) = self.changes.recv() => Trigger::File(path),
            () = self.hangups.next() => Trigger::Signal,
        };
        (trigger, self.loader.load())
    }
}

/// Keeps a runtime to its configuration: reads it once more at the start, so that nothing is missed
/// since it was loaded, and then whenever the watcher has a reason to. It never ends by itself.
///
/// New settings are taken over as [`Runtime::reload`] says. Refused ones are told as an event and
/// change nothing.
///
/// # Cancel safety   Dropped, the runtime keeps the settings it has.
pub async fn follow(runtime: Runtime, mut watcher: Watcher) {
    let mut read: (Option<Trigger>, _) = (None, watcher.loader.load());
    loop {
        let (trigger, settings) = read;
        let by = trigger.map_or_else(|| "the start".to_owned(), |trigger| trigger.to_string());
        match settings {
            Ok(settings) => {
                runtime.reload(settings, &by).await;
            }
            Err(error) => runtime.refuse_reload(&by, &error.to_string()),
        }
        let (trigger, settings) = watcher.next().await;
        read = (Some(trigger), settings);
    }
}

/// The folders that hold the files, as far as they are there.
fn folders_of(loader: &Loader) -> BTreeSet<PathBuf> {
    let files = loader.sources().files.into_iter();
    let folders = files.filter_map(|file| match file.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Some(PathBuf::from(".")),
        folder => folder.map(Path::to_owned),
    });
    folders.filter(|folder| folder.is_dir()).collect()
}

/// Whether somebody only looked at a file.
fn is_reading(event: &DebouncedEvent) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        kind => kind.is_access(),
    }
}

/// What the files hold, as a hash of each: they may hold secrets.
#[derive(Debug)]
struct Contents(BTreeMap<PathBuf, u64>);

impl Contents {
    fn of(loader: &Loader) -> Self {
        let hash = |path: &Path| {
            let mut hasher = DefaultHasher::new();
            std::fs::read(path).ok()?.hash(&mut hasher);
            Some((path.to_owned(), hasher.finish()))
        };
        Self(loader.sources().found().filter_map(hash).collect())
    }

    /// Takes over what they hold now, and tells a file that is not as it was.
    fn replaced_by(&mut self, now: Self) -> Option<PathBuf> {
        let differs = |path: &&PathBuf| self.0.get(*path) != now.0.get(*path);
        let path = self.0.keys().chain(now.0.keys()).find(differs).cloned();
        *self = now;
        path
    }
}

/// The signal by which an operator asks for a reload.
#[cfg(unix)]
#[derive(Debug)]
struct Hangups(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Hangups {
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

/// There is no such signal elsewhere.
#[cfg(not(unix))]
#[derive(Debug)]
struct Hangups;

#[cfg(not(unix))]
impl Hangups {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}
