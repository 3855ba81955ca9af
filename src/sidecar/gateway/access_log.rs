//! The access log: a JSON line for each request, written by a thread of its own.
//!
//! A line has neither a query nor any header, and no thread of the gateway waits for the file: a line
//! that finds no room is lost, and the log says how many were.

mod writer;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;

use super::call_note::CallNote;
use super::headers::{ATTEMPTS, SOURCE};
use super::path::begin_of;
use crate::config::AccessLogTarget;
use crate::lock::LockExt as _;
use writer::{LineWriter, LogSink};

/// Maximum number of lines that wait to be written.
const MAX_QUEUE: usize = 8192;
/// Time for which the end of the gateway waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum length of a path in a line, in bytes.
const MAX_PATH: usize = 1024;

/// The way of lines to their writer. Cheap to clone.
#[derive(Clone)]
pub(super) struct AccessLog {
    lines: SyncSender<AccessLine>,
    lost: Arc<AtomicU64>,
}

/// The writer, until the last line is written.
pub(super) struct AccessWriter(Mutex<Receiver<()>>);

/// The figures of one request.
#[derive(Debug)]
pub(super) struct AccessLine {
    at: Timestamp,
    method: Option<Method>,
    /// The path, without its query.
    path: String,
    dependency: Option<String>,
    status: Option<u16>,
    source: Option<String>,
    attempts: Option<u64>,
    duration: Duration,
    trace_id: Option<String>,
    /// True if the whole response was taken by the connection.
    is_complete: bool,
    note: Option<CallNote>,
}

impl AccessLog {
    /// Opens the log and starts its writer.
    ///
    /// # Errors  The file cannot be opened, or the thread cannot be started.
    pub(super) fn open(target: &AccessLogTarget) -> io::Result<(Self, AccessWriter)> {
        let sink = LogSink::open(target)?;
        Self::to(sink, MAX_QUEUE)
    }

    fn to(sink: LogSink, max_queue: usize) -> io::Result<(Self, AccessWriter)> {
        let (lines, waiting) = sync_channel(max_queue);
        let (done, is_done) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = LineWriter::new(sink, Arc::clone(&lost));
        let run = move || {
            writer.run(&waiting);
            // The gateway may be gone.
            let _ = done.send(());
        };
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        thread.spawn(run)?;
        Ok((Self { lines, lost }, AccessWriter(Mutex::new(is_done))))
    }

    /// Begins the line of a request. `is_known`: whether a name is that of a dependency.
    pub(super) fn begin<B>(
        &self,
        request: &Request<B>,
        is_known: impl FnOnce(&str) -> bool,
    ) -> AccessEntry {
        let path = request.uri().path();
        let name = path.split('/').nth(1).unwrap_or_default();
        let known = is_known(name);
        let path = begin_of(path, MAX_PATH);
        let parent = request.headers().get("traceparent");
        let parent = parent.and_then(|value| value.to_str().ok());
        AccessEntry(Box::new(AccessEntryInner {
            log: self.clone(),
            began: Instant::now(),
            line: Some(AccessLine {
                at: Timestamp::now(),
                method: Some(request.method().clone()),
                path: path.to_owned(),
                dependency: known.then(|| name.to_owned()),
                status: None,
                source: None,
                attempts: None,
                duration: Duration::ZERO,
                trace_id: parent.and_then(trace_of),
                is_complete: false,
                note: None,
            }),
        }))
    }

    /// Writes the line of a request that was refused while its head was read: it has no method and no
    /// path that are known.
    pub(super) fn refused(&self, status: StatusCode) {
        // OPS-1: a line for every request.
        self.write(AccessLine {
            at: Timestamp::now(),
            method: None,
            path: String::new(),
            dependency: None,
            status: Some(status.as_u16()),
            source: None,
            attempts: None,
            duration: Duration::ZERO,
            trace_id: None,
            is_complete: true,
            note: None,
        });
    }

    fn write(&self, mut line: AccessLine) {
        line.sign();
        // EDGE-4: no call waits for the log.
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl AccessLine {
    /// Adds the source and the attempts of an answer without them in its head: one of an MCP server.
    fn sign(&mut self) {
        if self.source.is_some() || self.status.is_none() {
            return;
        }
        // OPS-1: every answer has a source.
        let signs = self.note.as_ref().map(|note| note.end.signs());
        let (source, attempts) = signs.unwrap_or_else(|| ("gateway".to_owned(), 0));
        (self.source, self.attempts) = (Some(source), Some(attempts));
    }
}

/// Returns the trace of a `traceparent`.
fn trace_of(parent: &str) -> Option<String> {
    let mut parts = parent.trim().split('-');
    let trace = parts.nth(1)?;
    let is_hex = trace.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_some = trace.bytes().any(|byte| byte != b'0');
    (trace.len() == 32 && is_hex && is_some && parts.count() >= 2).then(|| trace.to_owned())
}

impl AccessWriter {
    /// Waits for the last line, for a moment. The gateway's threads have ended by then.
    pub(super) fn wait(&self) {
        // A reader of a pipe that reads no more must not hold the process.
        let _ = self.0.acquire().recv_timeout(PATIENCE);
    }
}

/// The line of a request, until its response was delivered or its caller has left.
pub(super) struct AccessEntry(Box<AccessEntryInner>);

struct AccessEntryInner {
    log: AccessLog,
    began: Instant,
    line: Option<AccessLine>,
}

impl AccessEntry {
    /// Notes the head of the response. `trace_id`: of the request's span, if there is one.
    pub(super) fn answered<B>(&mut self, response: &Response<B>, trace_id: Option<String>) {
        let Some(line) = &mut self.0.line else {
            return;
        };
        let headers = response.headers();
        let word = |name: &HeaderName| {
            let value = headers.get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        line.status = Some(response.status().as_u16());
        line.source = word(&SOURCE);
        line.attempts = word(&ATTEMPTS).and_then(|count| count.parse().ok());
        line.trace_id = trace_id.or(line.trace_id.take());
        line.note = response.extensions().get::<CallNote>().cloned();
        // Nothing of a body is asked for then.
        line.is_complete = line.method == Some(Method::HEAD);
    }

    /// Notes that the whole response was taken by the connection.
    pub(super) fn completed(&mut self) {
        if let Some(line) = &mut self.0.line {
            line.is_complete = true;
        }
    }
}

impl Drop for AccessEntryInner {
    fn drop(&mut self) {
        if let Some(mut line) = self.line.take() {
            line.duration = self.began.elapsed();
            self.log.write(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_1_a_trace_is_read_from_a_valid_parent_only() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(
            trace_of(&format!("00-{id}-b7ad6b7169203331-01")).as_deref(),
            Some(id)
        );
        let zeros = "0".repeat(32);
        for bad in [
            "",
            "00",
            id,
            "00-xyz-1-01",
            &format!("00-{zeros}-b7ad6b7169203331-01"),
        ] {
            assert_eq!(trace_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn ops_1_lines_without_room_are_lost_and_told() {
        let (sender, blocked) = std::sync::mpsc::channel::<()>();
        let (written, lines) = std::sync::mpsc::channel();
        // A reader that takes nothing until it is told to.
        let write = move |bytes: &[u8]| {
            let _ = blocked.recv();
            let _ = written.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(())
        };
        let (log, writer) = AccessLog::to(LogSink::other(write), 4).unwrap();
        let request = Request::builder()
            .uri("/web/x?key=hunter2")
            .body(())
            .unwrap();
        for _ in 0..100 {
            drop(log.begin(&request, |_| true));
        }
        let lost = log.lost.load(Ordering::Relaxed);
        assert!(lost >= 80, "{lost} of 100");
        drop((sender, log));
        writer.wait();
        let text: String = lines.try_iter().collect();
        let count = text
            .lines()
            .filter(|line| line.contains("\"path\":\"/web/x\""))
            .count();
        assert_eq!(u64::try_from(count).unwrap() + lost, 100, "{text}");
        assert!(text.contains("\"lost\":"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
