//! The writer of the access log: gathers lines, formats them, and writes them in few pieces.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use breakerbox_actors::printable_json;
use http::Method;
use jiff::Timestamp;
use serde::Serialize;

use super::AccessLine;
use crate::config::{AccessLogTarget, is_sensitive, looks_secret};

/// Time for which lines gather; meanwhile, no sender has to wake the writer.
const GATHER: Duration = Duration::from_millis(5);
/// Size from which a piece is written while there are more lines, in bytes.
const CHUNK: usize = 64 * 1024;

#[cfg(test)]
type TestSink = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

/// The place that lines are written to.
pub(super) enum LogSink {
    Stdout,
    File(LogFile),
    #[cfg(test)]
    Other(TestSink),
}

/// An open file. It is opened anew when another one, or none, has its name: tools that rotate logs
/// rename it.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogSink {
    pub(super) fn open(target: &AccessLogTarget) -> io::Result<Self> {
        Ok(match target {
            AccessLogTarget::Stdout => Self::Stdout,
            AccessLogTarget::File(path) => Self::File(LogFile {
                path: path.clone(),
                file: open(path)?,
            }),
        })
    }

    #[cfg(test)]
    pub(super) fn other(write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> Self {
        Self::Other(Box::new(write))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::File(own) => {
                if own.has_moved() {
                    own.file = open(&own.path)?;
                }
                let before = own.file.metadata()?.len();
                own.file.write_all(bytes).inspect_err(|_| {
                    // A line that was written in part would spoil the next one. If it cannot be cut
                    // off either, nothing more can be done.
                    let _ = own.file.set_len(before);
                })
            }
            #[cfg(test)]
            Self::Other(write) => write(bytes),
        }
    }
}

impl LogFile {
    /// Returns true if the name stands for another file by now, or for none.
    #[cfg(unix)]
    fn has_moved(&self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let of = |found: io::Result<std::fs::Metadata>| {
            let found = found.ok()?;
            Some((found.dev(), found.ino()))
        };
        of(std::fs::metadata(&self.path)) != of(self.file.metadata())
    }

    /// Other systems do not let an open file be renamed.
    #[cfg(not(unix))]
    fn has_moved(&self) -> bool {
        false
    }
}

/// Opens a file to append to. A new one is readable for its owner and group only.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    // EDGE-8: a new file has this name itself; a link to nothing is not followed.
    options.create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o640);
    }
    options.open(path)
}

pub(super) struct LineWriter {
    sink: LogSink,
    lost: Arc<AtomicU64>,
    /// Lost lines that the log has told of.
    told: u64,
    /// Lost lines that could not be written.
    unwritten: u64,
    is_losing: bool,
    is_failing: bool,
    buffer: Vec<u8>,
    /// Lines in the buffer.
    lines: u64,
}

impl LineWriter {
    pub(super) fn new(sink: LogSink, lost: Arc<AtomicU64>) -> Self {
        Self {
            sink,
            lost,
            told: 0,
            unwritten: 0,
            is_losing: false,
            is_failing: false,
            buffer: Vec::new(),
            lines: 0,
        }
    }

    /// Writes until every sender is dropped.
    pub(super) fn run(mut self, waiting: &Receiver<AccessLine>) {
        while let Ok(first) = waiting.recv() {
            self.push(&first);
            std::thread::park_timeout(GATHER);
            while let Ok(next) = waiting.try_recv() {
                self.push(&next);
                if self.buffer.len() >= CHUNK {
                    self.write_out();
                }
            }
            self.write_out();
        }
        self.write_out();
    }

    fn push(&mut self, line: &AccessLine) {
        let shown = ShownLine::of(line);
        if serde_json::to_writer(&mut self.buffer, &shown).is_ok() {
            self.buffer.push(b'\n');
            self.lines += 1;
        }
    }

    fn write_out(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        let news = lost - self.told;
        if news > 0 {
            let line = LostLine {
                time: stamp(Timestamp::now()),
                lost: news,
            };
            if serde_json::to_writer(&mut self.buffer, &line).is_ok() {
                self.buffer.push(b'\n');
            }
        }
        let is_slow = news > std::mem::take(&mut self.unwritten);
        // One line an episode.
        if is_slow && !std::mem::replace(&mut self.is_losing, true) {
            tracing::warn!(
                lost,
                "lines of the access log are lost: it is written too slowly"
            );
        }
        self.is_losing = is_slow;
        if self.buffer.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&self.buffer);
        let written = self.sink.write(printable_json(&text).as_bytes());
        match written {
            Ok(()) => {
                self.is_failing = false;
                self.told = lost;
            }
            Err(error) => {
                self.lost.fetch_add(self.lines, Ordering::Relaxed);
                // Those that were not told of stay news.
                self.unwritten = news + self.lines;
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(%error, "the access log cannot be written, its lines are lost");
                }
            }
        }
        self.buffer.clear();
        self.lines = 0;
    }
}

#[derive(Serialize)]
struct LostLine {
    time: String,
    lost: u64,
}

/// A line as it is written.
#[derive(Serialize)]
struct ShownLine<'a> {
    time: String,
    method: &'a str,
    path: String,
    dependency: Option<&'a str>,
    status: Option<u16>,
    source: Option<&'a str>,
    attempts: Option<u64>,
    duration_ms: f64,
    trace_id: Option<&'a str>,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
}

impl<'a> ShownLine<'a> {
    fn of(line: &'a AccessLine) -> Self {
        let note = line.note.as_ref();
        Self {
            time: stamp(line.at),
            method: line.method.as_ref().map_or("-", Method::as_str),
            path: without_secrets(&line.path),
            dependency: line.dependency.as_deref(),
            status: line.status,
            source: line.source.as_deref(),
            attempts: line.attempts,
            duration_ms: crate::rounded::millis(line.duration),
            trace_id: line.trace_id.as_deref(),
            complete: line.is_complete,
            mcp_method: note.map(|note| note.method.as_str()),
            tool: note.and_then(|note| note.tool.as_deref()),
        }
    }
}

/// Separators of a name and a value within a part of a path, with their encoded forms.
const SEPARATORS: [&str; 10] = [";", "=", ":", "&", "?", "%3b", "%3d", "%3a", "%26", "%3f"];

/// Masks the parts of a path that look like a token, or that have the name of a secret.
fn without_secrets(path: &str) -> String {
    let parts = path.split('/').map(without_secret);
    parts.collect::<Vec<_>>().join("/")
}

fn without_secret(part: &str) -> String {
    if looks_secret(part) && !is_uuid(part) {
        return "***".to_owned();
    }
    let lower = part.to_ascii_lowercase();
    let separators = SEPARATORS.iter();
    let first = separators.filter_map(|one| Some((lower.find(one)?, one.len())));
    let Some((at, length)) = first.min() else {
        return part.to_owned();
    };
    let (name, rest) = part.split_at(at);
    let (separator, rest) = rest.split_at(length);
    // `user:password@host`, and `token=…`.
    let is_user = rest.contains('@') || rest.to_ascii_lowercase().contains("%40");
    if is_user || is_sensitive(name) {
        return format!("{name}{separator}***");
    }
    format!("{name}{separator}{}", without_secret(rest))
}

fn is_uuid(part: &str) -> bool {
    let lengths = part.split('-').map(str::len);
    let is_hex = |byte: u8| byte == b'-' || byte.is_ascii_hexdigit();
    lengths.eq([8, 4, 4, 4, 12]) && part.bytes().all(is_hex)
}

fn stamp(at: Timestamp) -> String {
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_1_a_path_shows_ids_and_no_tokens() {
        let id = "/users/123e4567-e89b-12d3-a456-426614174000/7";
        assert_eq!(without_secrets(id), id);
        assert_eq!(
            without_secrets("/bot/ghp_16C7e42F292c6912E7/send"),
            "/bot/***/send"
        );
        for (path, shown) in [
            ("/a;token=SECRET", "/a;token=***"),
            ("/;jsessionid=abc/x", "/;jsessionid=***/x"),
            ("/x%3Ftoken=SECRET", "/x%3Ftoken=***"),
            ("/x%3Bapi_key%3DSECRET", "/x%3Bapi_key%3D***"),
            ("/user:hunter2@x/y", "/user:***/y"),
            (
                "/bot123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/me",
                "/bot123456789:***/me",
            ),
            ("/items;color=red/7", "/items;color=red/7"),
            ("/v1/models:generate", "/v1/models:generate"),
        ] {
            assert_eq!(without_secrets(path), shown);
        }
    }

    #[cfg(unix)]
    #[test]
    fn ops_1_a_file_that_was_renamed_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut sink = LogSink::open(&AccessLogTarget::File(path.clone())).unwrap();
        sink.write(b"one\n").unwrap();
        let old = folder.path().join("access.log.1");
        std::fs::rename(&path, &old).unwrap();
        sink.write(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(old).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "two\n");
    }
}
