//! Reads a trace back.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use breakerbox_policy::{BreakerSettings, Outcome, Time};

use super::line::{EXAMPLE, FORMAT, OtherLine, OutcomeLine};

/// No line that we write is nearly as long.
const MAX_LINE: usize = 64 * 1024;
/// How much of a bad line is shown.
const SHOWN: usize = 100;

/// What a [`crate::recorder::Recorder`] wrote.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Trace {
    /// The clock on the wall when it was begun, as RFC 3339.
    pub started: String,
    /// What was recorded of each dependency, in the order in which they appeared.
    pub recordings: Vec<Recording>,
    /// Whether the last line was incomplete and was left out: its writer was killed.
    pub is_cut_off: bool,
}

/// What was recorded of one dependency.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Recording {
    /// The dependency.
    pub name: String,
    /// Its breaker's settings, each with the time from which on they held.
    pub settings: Vec<(Time, BreakerSettings)>,
    /// Its outcomes in the order of their ends.
    pub outcomes: Vec<RecordedOutcome>,
}

/// An attempt that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedOutcome {
    /// When it ended.
    pub ended: Time,
    /// How.
    pub outcome: Outcome,
    /// Whether a half-open breaker had let it through.
    pub probe: bool,
}

impl RecordedOutcome {
    /// When it began.
    #[must_use]
    pub fn started(&self) -> Time {
        Time::ZERO.after(self.ended.since(Time::ZERO.after(self.outcome.elapsed)))
    }
}

/// A trace that cannot be read.
#[derive(Debug)]
pub struct TraceError {
    place: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Io(io::Error),
    Line {
        number: u64,
        found: String,
        reason: String,
        allowed: String,
    },
}

impl TraceError {
    /// The number of the line that cannot be read, from 1; `None` when the file cannot.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        match &self.kind {
            Kind::Io(_) => None,
            Kind::Line { number, .. } => Some(*number),
        }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match &self.kind {
            Kind::Io(error) => write!(out, "{place} cannot be read: {error}"),
            Kind::Line {
                number,
                found,
                reason,
                allowed,
            } => write!(
                out,
                "{place}:{number}: {reason}, given {found:?}, allowed: {allowed}"
            ),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Io(error) => Some(error),
            Kind::Line { .. } => None,
        }
    }
}

impl Trace {
    /// Reads a file. Several files of one recorder may have been put together, the oldest first.
    ///
    /// # Errors  The file cannot be read, or a line of it; a last line that is incomplete is none.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let file = File::open(path).map_err(|error| TraceError {
            place: place.clone(),
            kind: Kind::Io(error),
        })?;
        let reader = BufReader::with_capacity(1 << 16, file);
        Self::from_reader(reader).map_err(|kind| TraceError { place, kind })
    }

    fn from_reader(mut reader: impl BufRead) -> Result<Self, Kind> {
        let mut growing = Growing::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let most = MAX_LINE as u64 + 1;
            let mut limited = reader.by_ref().take(most);
            if limited.read_until(b'\n', &mut line).map_err(Kind::Io)? == 0 {
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

/// What is wrong with a line.
struct Bad {
    reason: String,
    allowed: String,
}

impl Bad {
    fn new(reason: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            allowed: allowed.into(),
        }
    }

    /// serde's words, without the line that it takes every line for.
    fn of(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = match text.strip_suffix(&place) {
            Some(reason) => format!("{reason} (column {})", error.column()),
            None => text,
        };
        Self::new(reason, EXAMPLE)
    }

    fn at(self, number: u64, line: &[u8]) -> Kind {
        let text = String::from_utf8_lossy(line);
        let mut found: String = text.chars().take(SHOWN).collect();
        if found.len() < text.len() {
            found.push('…');
        }
        Kind::Line {
            number,
            found,
            reason: self.reason,
            allowed: self.allowed,
        }
    }
}

/// A trace of which some lines were read.
#[derive(Default)]
struct Growing {
    number: u64,
    started: Option<String>,
    recordings: Vec<Recording>,
    places: HashMap<String, usize>,
    /// Where the latest line belonged: most often the next one belongs there too.
    latest: usize,
    is_cut_off: bool,
}

impl Growing {
    fn take(&mut self, line: &[u8]) -> Result<(), Bad> {
        if line.len() > MAX_LINE {
            let allowed = format!("lines of at most {MAX_LINE} bytes");
            return Err(Bad::new("the line is too long", allowed));
        }
        if self.started.is_some()
            && let Ok(outcome) = serde_json::from_slice::<OutcomeLine<'_>>(line)
        {
            self.outcome(&outcome);
            return Ok(());
        }
        match serde_json::from_slice::<OtherLine<'_>>(line) {
            Ok(OtherLine::Header(header)) => self.header(header.format, &header.started),
            _ if self.started.is_none() => Err(Bad::new(
                "it is not the header of a trace",
                format!(
                    "{{\"header\":{{\"format\":{FORMAT},\"version\":\"…\",\"started\":\"…\"}}}}"
                ),
            )),
            Ok(OtherLine::Settings(settings)) => {
                let at = Time::ZERO.after(settings.at);
                let known = &mut self.recording(&settings.dependency).settings;
                // Each file begins with the settings that hold.
                if known
                    .last()
                    .is_none_or(|(_, last)| *last != settings.breaker)
                {
                    known.push((at, settings.breaker));
                }
                Ok(())
            }
            Err(other) => Err(Bad::of(&wrong(line, other))),
        }
    }

    fn header(&mut self, format: u32, started: &str) -> Result<(), Bad> {
        if format != FORMAT {
            let reason = format!("format {format} is unknown");
            return Err(Bad::new(reason, format!("format {FORMAT}")));
        }
        match &self.started {
            None => self.started = Some(started.to_owned()),
            Some(first) if first != started => {
                return Err(Bad::new(
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

    fn finish(self) -> Result<Trace, Kind> {
        let Some(started) = self.started else {
            let bad = Bad::new("it is empty", "a header at least");
            return Err(bad.at(1, b""));
        };
        let mut recordings = self.recordings;
        for one in &mut recordings {
            // Threads bring theirs in almost this order.
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

/// Why a line cannot be read, in the words for the kind of line that it was meant to be.
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
