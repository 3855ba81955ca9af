//! Reader of traces.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use breakerbox_actors::printable;
use breakerbox_policy::{BreakerSettings, Outcome, Time};

use super::line::{EXAMPLE, FORMAT, OtherLine, OutcomeLine};

/// Maximum length of a line, in bytes; no written line is nearly as long.
const MAX_LINE: usize = 64 * 1024;
/// Maximum number of characters of a bad line that an error shows.
const SHOWN: usize = 100;

/// A trace that a [`crate::recorder::Recorder`] wrote.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Trace {
    /// Wall-clock time of its start, as RFC 3339.
    pub started: String,
    /// The recording of each dependency, in the order of first appearance.
    pub recordings: Vec<Recording>,
    /// True if the last line was incomplete and left out: its writer was killed.
    pub is_cut_off: bool,
}

/// The recording of one dependency.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Recording {
    /// Name of the dependency.
    pub name: String,
    /// The breaker's settings, each with the time from which it applied.
    pub settings: Vec<(Time, BreakerSettings)>,
    /// The outcomes, sorted by the time of their ends.
    pub outcomes: Vec<RecordedOutcome>,
}

/// A recorded attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedOutcome {
    /// The time of its end.
    pub ended: Time,
    /// The outcome.
    pub outcome: Outcome,
    /// True if a half-open breaker admitted it.
    pub probe: bool,
}

impl RecordedOutcome {
    /// Returns the time of its start.
    #[must_use]
    pub fn started(&self) -> Time {
        Time::ZERO.after(self.ended.since(Time::ZERO.after(self.outcome.elapsed)))
    }
}

/// Error of reading a trace.
#[derive(Debug)]
pub struct TraceError {
    place: String,
    kind: LineTag,
}

#[derive(Debug)]
enum LineTag {
    Io(io::Error),
    Line {
        number: u64,
        found: String,
        reason: String,
        allowed: String,
    },
}

impl TraceError {
    /// Returns the number of the unreadable line, from 1; `None` if the file cannot be read.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        match &self.kind {
            LineTag::Io(_) => None,
            LineTag::Line { number, .. } => Some(*number),
        }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match &self.kind {
            LineTag::Io(error) => write!(out, "{} cannot be read: {error}", printable(place)),
            LineTag::Line {
                number,
                found,
                reason,
                allowed,
            } => {
                // The reason may quote the line, which may hold any character.
                let (place, reason) = (printable(place), printable(reason));
                write!(
                    out,
                    "{place}:{number}: {reason}, given {found:?}, allowed: {allowed}"
                )
            }
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            LineTag::Io(error) => Some(error),
            LineTag::Line { .. } => None,
        }
    }
}

impl Trace {
    /// Reads a file. It may be a concatenation of files of one recorder, the oldest first.
    ///
    /// # Errors  The file or one of its lines cannot be read; an incomplete last line is no error.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let file = File::open(path).map_err(|error| TraceError {
            place: place.clone(),
            kind: LineTag::Io(error),
        })?;
        let reader = BufReader::with_capacity(1 << 16, file);
        Self::from_reader(reader).map_err(|kind| TraceError { place, kind })
    }

    /// Reads the bytes of a file.
    #[cfg(all(any(test, fuzzing), feature = "cli"))]
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, TraceError> {
        Self::from_reader(bytes).map_err(|kind| TraceError {
            place: "the given bytes".to_owned(),
            kind,
        })
    }

    fn from_reader(mut reader: impl BufRead) -> Result<Self, LineTag> {
        let mut growing = RecordingBuilder::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let most = MAX_LINE as u64 + 1;
            let mut limited = reader.by_ref().take(most);
            if limited.read_until(b'\n', &mut line).map_err(LineTag::Io)? == 0 {
                break;
            }
            growing.number += 1;
            let is_whole = line.pop_if(|last| *last == b'\n').is_some();
            if let Err(bad) = growing.take(&line) {
                let is_last = !is_whole && line.len() <= MAX_LINE;
                if is_last && growing.started.is_some() {
                    growing.is_cut_off = true;
                    break;
                }
                return Err(bad.at(growing.number, &line));
            }
        }
        growing.finish()
    }
}

/// Problem of a line.
struct BadLine {
    reason: String,
    allowed: String,
}

impl BadLine {
    fn new(reason: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            allowed: allowed.into(),
        }
    }

    /// Converts serde's error without its line number, which is the same for every line.
    fn of(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = match text.strip_suffix(&place) {
            Some(reason) => format!("{reason} (column {})", error.column()),
            None => text,
        };
        Self::new(reason, EXAMPLE)
    }

    fn at(self, number: u64, line: &[u8]) -> LineTag {
        let text = String::from_utf8_lossy(line);
        let mut found: String = text.chars().take(SHOWN).collect();
        if found.len() < text.len() {
            found.push('…');
        }
        LineTag::Line {
            number,
            found,
            reason: self.reason,
            allowed: self.allowed,
        }
    }
}

/// A trace that is being read.
#[derive(Default)]
struct RecordingBuilder {
    number: u64,
    started: Option<String>,
    recordings: Vec<Recording>,
    places: HashMap<String, usize>,
    /// Index of the latest line's recording: the next line most often belongs there, too.
    latest: usize,
    is_cut_off: bool,
}

impl RecordingBuilder {
    fn take(&mut self, line: &[u8]) -> Result<(), BadLine> {
        if line.len() > MAX_LINE {
            let allowed = format!("lines of at most {MAX_LINE} bytes");
            return Err(BadLine::new("the line is too long", allowed));
        }
        if self.started.is_some()
            && let Ok(outcome) = serde_json::from_slice::<OutcomeLine<'_>>(line)
        {
            self.outcome(&outcome);
            return Ok(());
        }
        match serde_json::from_slice::<OtherLine<'_>>(line) {
            Ok(OtherLine::Header(header)) => self.header(header.format, &header.started),
            _ if self.started.is_none() => Err(BadLine::new(
                "it is not the header of a trace",
                format!(
                    "{{\"header\":{{\"format\":{FORMAT},\"version\":\"…\",\"started\":\"…\"}}}}"
                ),
            )),
            Ok(OtherLine::Settings(settings)) => {
                let at = Time::ZERO.after(settings.at);
                let known = &mut self.recording(&settings.dependency).settings;
                // Each file begins with the current settings.
                if known
                    .last()
                    .is_none_or(|(_, last)| *last != settings.breaker)
                {
                    known.push((at, settings.breaker));
                }
                Ok(())
            }
            Err(other) => Err(BadLine::of(&wrong(line, other))),
        }
    }

    fn header(&mut self, format: u32, started: &str) -> Result<(), BadLine> {
        if format != FORMAT {
            let reason = format!("format {format} is unknown");
            return Err(BadLine::new(reason, format!("format {FORMAT}")));
        }
        match &self.started {
            None => self.started = Some(started.to_owned()),
            Some(first) if first != started => {
                return Err(BadLine::new(
                    format!("another trace begins; this one was started at {first}"),
                    "the files of one recorder, the oldest first",
                ));
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn outcome(&mut self, line: &OutcomeLine<'_>) {
        let recorded = RecordedOutcome {
            ended: Time::ZERO.after(line.at),
            outcome: Outcome {
                class: line.class,
                elapsed: line.duration,
                retry_after: line.retry_after,
                cause: None,
            },
            probe: line.probe,
        };
        self.recording(&line.dependency).outcomes.push(recorded);
    }

    fn recording(&mut self, name: &str) -> &mut Recording {
        let is_latest = |one: &Recording| one.name == name;
        if !self.recordings.get(self.latest).is_some_and(is_latest) {
            self.latest = match self.places.get(name) {
                Some(place) => *place,
                None => {
                    let place = self.recordings.len();
                    self.places.insert(name.to_owned(), place);
                    self.recordings.push(Recording {
                        name: name.to_owned(),
                        ..Recording::default()
                    });
                    place
                }
            };
        }
        &mut self.recordings[self.latest]
    }

    fn finish(self) -> Result<Trace, LineTag> {
        let Some(started) = self.started else {
            let bad = BadLine::new("it is empty", "a header at least");
            return Err(bad.at(1, b""));
        };
        let mut recordings = self.recordings;
        for one in &mut recordings {
            // The outcomes of several threads arrive almost in this order.
            one.outcomes.sort_by_key(|outcome| outcome.ended);
            one.settings.sort_by_key(|(at, _)| *at);
        }
        Ok(Trace {
            started,
            recordings,
            is_cut_off: self.is_cut_off,
        })
    }
}

/// Returns the parse error for the kind of line that this was meant to be.
fn wrong(line: &[u8], other: serde_json::Error) -> serde_json::Error {
    let value: Result<serde_json::Value, _> = serde_json::from_slice(line);
    let named = |key: &str| value.as_ref().is_ok_and(|value| value.get(key).is_some());
    if named("header") || named("settings") {
        return other;
    }
    match serde_json::from_slice::<OutcomeLine<'_>>(line) {
        Err(error) => error,
        Ok(_) => other,
    }
}

#[cfg(test)]
mod tests;
