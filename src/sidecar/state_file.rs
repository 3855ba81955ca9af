//! The file of `admin.state`: what outlives the process (rule HLT-3).
//!
//! One JSON object with a version and a section for each part that keeps something; a section that
//! this version does not know is kept as it is. Each write replaces the whole file: a crash leaves
//! the old one or the new one, never a part of one.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use crate::lock::LockExt as _;

/// Version of the format. A file of a later one is refused, so that nothing in it is lost.
const VERSION: u64 = 1;
/// Key of the version.
const VERSION_KEY: &str = "breakerbox_state";
/// Maximum size of a file that is read, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Values of `admin.state` that can be used.
#[cfg(feature = "cli")]
pub(crate) const ALLOWED: &str = "the path of a new file in a folder that can be written, or of a \
                                  state file; move that file away to start without what it holds";

/// Reason why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFileError {
    /// It cannot be read, or its folder cannot be written.
    #[error("{path} cannot be used: {cause}")]
    Unusable {
        /// The file.
        path: String,
        /// The system's reason.
        cause: io::Error,
    },
    /// It is no state file, or a damaged one.
    #[error("{path} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The first thing that is wrong with it.
        reason: String,
    },
    /// Another process uses it.
    #[error("{path} is in use by another Breakerbox, whose orders would be overwritten")]
    InUse {
        /// The file.
        path: String,
    },
}

/// A state file that this process owns until it ends. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StateFile {
    inner: Arc<OwnedFile>,
}

struct OwnedFile {
    path: PathBuf,
    sections: Mutex<Map<String, Value>>,
    /// Held for as long as the file is ours; the system frees it however the process ends.
    _lock: File,
}

impl StateFile {
    /// Reads the file, if it exists, and keeps other processes away from it.
    ///
    /// # Errors  [`StateFileError`]; the file stays as it is.
    pub(crate) fn open(path: &Path) -> Result<Self, StateFileError> {
        let lock = lock(path)?;
        let sections = read(path)?;
        Ok(Self {
            inner: Arc::new(OwnedFile {
                path: path.to_owned(),
                sections: Mutex::new(sections),
                _lock: lock,
            }),
        })
    }

    /// Returns a section; `None` if the file has none of this name.
    pub(crate) fn section(&self, name: &str) -> Option<Value> {
        self.inner.sections.acquire().get(name).cloned()
    }

    /// Replaces a section, and writes the file. Blocks until it is on the disk.
    ///
    /// # Errors  It could not be written; the next write has the section too.
    pub(crate) fn put(&self, name: &str, section: Value) -> io::Result<()> {
        let mut sections = self.inner.sections.acquire();
        sections.insert(name.to_owned(), section);
        // Under the lock, so that of two writes the later one is the file.
        write(&self.inner.path, &sections)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }
}

impl fmt::Debug for StateFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StateFile")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

/// Checks a file as [`StateFile::open`] does, beside a process that may use it. `sections`: checks
/// what is in it.
///
/// # Errors  [`StateFileError`].
#[cfg(feature = "cli")]
pub(crate) fn check(
    path: &Path,
    sections: impl FnOnce(&Map<String, Value>) -> Result<(), StateFileError>,
) -> Result<(), StateFileError> {
    let folder = folder_of(path);
    let unusable = |cause| unusable(path, cause);
    if !folder.metadata().map_err(unusable)?.is_dir() {
        return Err(unusable(io::ErrorKind::NotADirectory.into()));
    }
    // The file is replaced by a new one at each write, and has its lock beside it.
    crate::config::may_create(folder).map_err(unusable)?;
    sections(&read(path)?)
}

fn unusable(path: &Path, cause: io::Error) -> StateFileError {
    let path = path.display().to_string();
    StateFileError::Unusable { path, cause }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Returns the path with another ending appended to its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Takes the lock of a file: that of another one beside it, since each write replaces the file.
fn lock(path: &Path) -> Result<File, StateFileError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    private(&mut options);
    let own = beside(path, ".lock");
    must_be_file(&own)?;
    let opened = options.open(own);
    let lock = opened.map_err(|cause| unusable(path, cause))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StateFileError::InUse {
            path: path.display().to_string(),
        }),
        Err(TryLockError::Error(cause)) => Err(unusable(path, cause)),
    }
}

/// Fails if something else than a file has the name: opening a pipe would wait for its writer.
fn must_be_file(path: &Path) -> Result<(), StateFileError> {
    match std::fs::symlink_metadata(path).and_then(|_| std::fs::metadata(path)) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(unusable(path, io::Error::other("it is not a file"))),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(path, error)),
        Err(_) if path.is_symlink() => {
            Err(unusable(path, io::Error::other("it is a link to nothing")))
        }
        Err(_) => Ok(()),
    }
}

/// Returns the text of a file; `None` if there is no such file.
///
/// # Errors  [`StateFileError`].
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, StateFileError> {
    // EDGE-8: before it is opened.
    must_be_file(path)?;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(unusable(path, cause)),
    };
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|cause| unusable(path, cause))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(StateFileError::Unreadable {
            path: path.display().to_string(),
            reason: format!("it is longer than {MAX_BYTES} bytes"),
        });
    }
    Ok(Some(text))
}

fn read(path: &Path) -> Result<Map<String, Value>, StateFileError> {
    let Some(text) = read_text(path)? else {
        return Ok(Map::new());
    };
    let unreadable = |reason: String| StateFileError::Unreadable {
        path: path.display().to_string(),
        reason,
    };
    let whole: Result<Map<String, Value>, _> = serde_json::from_str(&text);
    let mut sections = whole.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        unreadable(format!(
            "it is no JSON object (line {line}, column {column})"
        ))
    })?;
    match sections.remove(VERSION_KEY).as_ref().map(Value::as_u64) {
        Some(Some(VERSION)) => Ok(sections),
        Some(Some(later)) if later > VERSION => Err(unreadable(format!(
            "it has version {later}, and this Breakerbox knows version {VERSION}"
        ))),
        _ => Err(unreadable(format!(
            "it has no \"{VERSION_KEY}\": {VERSION}"
        ))),
    }
}

/// Writes all sections, and waits until they are on the disk.
fn write(path: &Path, sections: &Map<String, Value>) -> io::Result<()> {
    let mut whole = Map::new();
    whole.insert(VERSION_KEY.to_owned(), VERSION.into());
    whole.extend(sections.clone());
    let mut text = serde_json::to_vec_pretty(&whole)?;
    text.push(b'\n');
    // HLT-3: on the disk before it has the name, and the name before the answer.
    replace(path, &text, |file| file.sync_all())?;
    if cfg!(unix) {
        File::open(folder_of(path))?.sync_all()?;
    }
    Ok(())
}

/// Writes a new file, which then takes the place of the old one. `finish`: does what must precede that.
///
/// # Errors  The old file is as it was.
pub(crate) fn replace(
    path: &Path,
    text: &[u8],
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let new = beside(path, ".new");
    match std::fs::remove_file(&new) {
        // Left over from a write that was cut off.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    private(&mut options);
    let mut file = options.open(&new)?;
    file.write_all(text)?;
    finish(&file)?;
    std::fs::rename(&new, path)
}

/// Lets only this user read a new file: the reasons of operators may be confidential.
fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = options;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason_of(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        std::fs::write(&path, text).unwrap();
        let refused = StateFile::open(&path).unwrap_err().to_string();
        assert!(refused.contains(&path.display().to_string()), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        refused
    }

    #[test]
    fn hlt_3_a_section_is_read_back_and_unknown_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let file = StateFile::open(&path).unwrap();
        assert_eq!(file.section("orders"), None);
        file.put("a later part", json!([1, 2])).unwrap();
        drop(file);
        let file = StateFile::open(&path).unwrap();
        file.put("orders", json!({"web": 1})).unwrap();
        drop(file);
        let file = StateFile::open(&path).unwrap();
        assert_eq!(file.section("orders"), Some(json!({"web": 1})));
        assert_eq!(file.section("a later part"), Some(json!([1, 2])));
    }

    #[cfg(unix)]
    #[test]
    fn hlt_3_only_its_user_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        // A write that was cut off, and open to all.
        let left = beside(&path, ".new");
        std::fs::write(&left, "{").unwrap();
        std::fs::set_permissions(&left, std::fs::Permissions::from_mode(0o666)).unwrap();
        let file = StateFile::open(&path).unwrap();
        file.put("orders", json!({})).unwrap();
        for path in [&path, &beside(&path, ".lock")] {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{path:?}");
        }
        assert!(!left.exists());
    }

    #[test]
    fn hlt_3_a_file_that_cannot_be_read_is_named_and_stays() {
        assert!(reason_of("{").contains("it is no JSON object (line 1"));
        assert!(reason_of("[]").contains("it is no JSON object"));
        assert!(reason_of("{}").contains("it has no \"breakerbox_state\": 1"));
        let later = reason_of("{\"breakerbox_state\": 2}");
        assert!(later.contains("it has version 2"), "{later}");
    }

    #[cfg(unix)]
    fn make_pipe(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    }

    #[cfg(unix)]
    #[test]
    fn edge_8_f11_a_name_that_is_no_file_is_refused_and_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        make_pipe(&pipe);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        let nothing = folder.path().join("nothing");
        std::os::unix::fs::symlink("/nope/state", &nothing).unwrap();
        for (path, reason) in [
            (pipe.as_path(), "it is not a file"),
            (&link, "it is not a file"),
            (Path::new("/dev/null"), "it is not a file"),
            (folder.path(), "it is not a file"),
            (&nothing, "it is a link to nothing"),
        ] {
            let refused = read(path).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
        let state = folder.path().join("state");
        make_pipe(&beside(&state, ".lock"));
        let refused = StateFile::open(&state).unwrap_err().to_string();
        assert!(
            refused.contains("state.lock cannot be used: it is not a file"),
            "{refused}"
        );
    }

    #[test]
    fn hlt_3_two_processes_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let first = StateFile::open(&path).unwrap();
        let second = StateFile::open(&path).unwrap_err();
        assert!(matches!(second, StateFileError::InUse { .. }), "{second}");
        drop(first);
        StateFile::open(&path).unwrap();
    }
}
