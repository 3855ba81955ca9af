//! The file of a trace: created for its owner only, in place of an older trace and of nothing else.
//!
//! A path from a configuration may name anything. What is there is recognised by its first line,
//! and links are not followed.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::line::OtherLine;

/// Maximum length of the first line of a trace, in bytes.
const MAX_HEAD: u64 = 4096;

/// State of a path.
enum Occupant {
    Nothing,
    /// A file without a byte: left behind by a start that failed.
    Empty(File),
    Trace(File),
}

/// Checks that a trace can begin at this path, as far as that can be seen without writing.
///
/// # Errors  As of [`begin`].
#[cfg(feature = "cli")]
pub(crate) fn check(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(other("its folder does not exist"));
    }
    let found = occupant(path)?;
    occupant(&older(path))?;
    match found {
        Occupant::Empty(_) => Ok(()),
        Occupant::Nothing | Occupant::Trace(_) => crate::config::may_create(folder),
    }
}

/// Creates the file. An existing trace is renamed to `<path>.1`, in place of an older one.
///
/// # Errors  Something else has this name, or that of the older one: a folder, a link, a file that
/// is no trace. Nothing is changed then. Or the file cannot be created.
pub(super) fn begin(path: &Path) -> io::Result<File> {
    // EDGE-7: only our own traces are taken over.
    match occupant(path)? {
        Occupant::Nothing => {}
        Occupant::Empty(file) => {
            keep_private(&file)?;
            return OpenOptions::new().append(true).open(path).and_then(|new| {
                // Not a link that has been put there meanwhile.
                if is_same(&file.metadata()?, &new.metadata()?) {
                    Ok(new)
                } else {
                    Err(other("it was replaced meanwhile"))
                }
            });
        }
        Occupant::Trace(file) => {
            occupant(&older(path))?;
            keep_private(&file)?;
            std::fs::rename(path, older(path))?;
        }
    }
    // A new file: this follows no link.
    let mut new = OpenOptions::new();
    new.create_new(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut new, 0o600);
    new.open(path)
}

/// Returns the name of the trace before this one.
fn older(path: &Path) -> PathBuf {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    PathBuf::from(older)
}

/// Returns what is at a path, if it can be replaced.
fn occupant(path: &Path) -> io::Result<Occupant> {
    let named = |reason: &str| {
        let path = path.display();
        other(&format!("{path} {reason}"))
    };
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Occupant::Nothing),
        Err(error) => return Err(error),
    };
    if found.is_symlink() {
        return Err(named("is a link"));
    }
    if found.is_dir() {
        return Err(named("is a folder"));
    }
    // Before it is opened: opening a pipe would wait for its other end.
    if !found.is_file() {
        return Err(named("is not a file"));
    }
    let file = File::open(path)?;
    if !is_same(&found, &file.metadata()?) {
        return Err(named("was replaced meanwhile"));
    }
    let mut head = Vec::new();
    BufReader::new((&file).take(MAX_HEAD)).read_until(b'\n', &mut head)?;
    match serde_json::from_slice::<OtherLine<'_>>(&head) {
        _ if head.is_empty() => Ok(Occupant::Empty(file)),
        Ok(OtherLine::Header(_)) => Ok(Occupant::Trace(file)),
        _ => Err(named("is a file, but not a trace of a recorder")),
    }
}

#[cfg(unix)]
fn is_same(one: &Metadata, another: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (one.dev(), one.ino()) == (another.dev(), another.ino())
}

/// Other systems have no identity of a file in its metadata.
#[cfg(not(unix))]
fn is_same(one: &Metadata, another: &Metadata) -> bool {
    one.file_type() == another.file_type()
}

/// Lets only the owner read a file that exists already.
#[cfg(unix)]
fn keep_private(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn keep_private(_: &File) -> io::Result<()> {
    Ok(())
}

fn other(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::AlreadyExists, reason.to_owned())
}
