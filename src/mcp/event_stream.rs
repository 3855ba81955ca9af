//! Events of a stream, one message each, with a limit on their size.
//!
//! An event that is too long is skipped to its end, and searched for the id that it answers.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::id_scanner::{IdScanner, ScannedId};
use super::message::LARGE;

/// An event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamEvent {
    Data(Bytes),
    /// Its type is another one than that of messages.
    Other(Bytes),
    /// It is too long. The requests that it is about.
    TooLong(Vec<ScannedId>),
}

/// Reader of an event stream.
///
/// # Source  HTML Standard, section 9.2.6.
#[derive(Debug)]
pub(super) struct EventReader {
    max: usize,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// True if the event has another type than that of messages.
    is_other: bool,
    /// True after the first line.
    has_begun: bool,
    /// The scanner of an event that is too long.
    skipped: Option<IdScanner>,
    last_was_return: bool,
    events: VecDeque<StreamEvent>,
    /// The id of the last event.
    pub(super) last_id: Option<String>,
    /// The wait before the stream is asked for again.
    pub(super) retry: Option<Duration>,
}

impl EventReader {
    /// Creates a reader. `max`: of an event, in bytes.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            data: None,
            is_other: false,
            has_begun: false,
            skipped: None,
            last_was_return: false,
            events: VecDeque::new(),
            last_id: None,
            retry: None,
        }
    }

    /// Returns the next event that has come whole.
    pub(super) fn next(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// Returns true if the next part may end the keeping of a large event, which is searched then.
    pub(super) fn overflows(&self, part: &[u8]) -> bool {
        let kept = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        self.skipped.is_none() && kept > LARGE && kept + part.len() > self.max
    }

    /// Takes the next part of the stream.
    pub(super) fn feed(&mut self, mut part: &[u8]) {
        if self.last_was_return && part.first() == Some(&b'\n') {
            part = &part[1..];
        }
        self.last_was_return = false;
        while !part.is_empty() {
            let end = line_end(part);
            let Some(end) = end else {
                self.keep(part);
                return;
            };
            self.keep(&part[..end]);
            let is_return = part[end] == b'\r';
            part = &part[end + 1..];
            if is_return {
                match part.first() {
                    Some(b'\n') => part = &part[1..],
                    Some(_) => {}
                    None => self.last_was_return = true,
                }
            }
            self.end_line();
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if let Some(scanner) = &mut self.skipped {
            scanner.feed(part);
            // The beginning of a line tells an empty one.
            if self.line.len() < 8 {
                let left = part.len().min(8);
                self.line.extend_from_slice(&part[..left]);
            }
            return;
        }
        let kept = self.data.as_ref().map_or(0, Vec::len);
        if self.line.len() + part.len() + kept <= self.max + 8 {
            self.line.extend_from_slice(part);
            return;
        }
        let mut scanner = IdScanner::default();
        scanner.feed(&self.data.take().unwrap_or_default());
        let line = self.take_line();
        scanner.feed(value(&line, b"data").unwrap_or_default());
        scanner.feed(part);
        self.line = b"skipped".to_vec();
        self.skipped = Some(scanner);
    }

    /// Takes the present line, without the mark at the beginning of a stream.
    fn take_line(&mut self) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.has_begun, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        line
    }

    fn end_line(&mut self) {
        let line = self.take_line();
        if line.is_empty() {
            let is_other = std::mem::take(&mut self.is_other);
            let event = match (self.skipped.take(), self.data.take()) {
                (Some(scanner), _) => Some(StreamEvent::TooLong(scanner.found())),
                (None, Some(data)) if is_other => Some(StreamEvent::Other(Bytes::from(data))),
                (None, data) => data.map(|data| StreamEvent::Data(Bytes::from(data))),
            };
            self.events.extend(event);
            return;
        }
        if self.skipped.is_some() {
            return;
        }
        if let Some(text) = value(&line, b"data") {
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(text);
                }
                None => {
                    let skipped = line.len() - text.len();
                    let mut data = line;
                    data.drain(..skipped);
                    self.data = Some(data);
                }
            }
        } else if let Some(kind) = value(&line, b"event") {
            self.is_other = !matches!(kind, b"" | b"message");
        } else if let Some(id) = value(&line, b"id") {
            self.last_id = String::from_utf8(id.to_vec()).ok();
        } else if let Some(wait) = value(&line, b"retry") {
            let wait = std::str::from_utf8(wait)
                .ok()
                .and_then(|text| text.parse().ok());
            self.retry = wait.map(Duration::from_millis).or(self.retry);
        }
    }
}

/// Returns the place of the first line end.
fn line_end(part: &[u8]) -> Option<usize> {
    // Most parts have none: `contains` searches by words.
    if !part.contains(&b'\n') && !part.contains(&b'\r') {
        return None;
    }
    part.iter().position(|byte| matches!(byte, b'\n' | b'\r'))
}

/// Returns the value of a field, if the line is one.
fn value<'l>(line: &'l [u8], field: &[u8]) -> Option<&'l [u8]> {
    let rest = line.strip_prefix(field)?;
    match rest {
        [] => Some(rest),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::MessageId;
    use super::*;

    fn events(text: &str, size: usize, max: usize) -> Vec<StreamEvent> {
        let mut reader = EventReader::new(max);
        for part in text.as_bytes().chunks(size) {
            reader.feed(part);
        }
        std::iter::from_fn(|| reader.next()).collect()
    }

    fn data(text: &'static str) -> StreamEvent {
        StreamEvent::Data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn mcp_2_m6_events_are_the_same_however_they_are_cut() {
        let text = ": hello\r\n\r\nevent: message\r\nid: 7\r\ndata: {\"a\":\r\ndata:1}\r\n\r\n\
                    data: x\n\nretry: 30\n\n";
        for size in 1..text.len() {
            let expected = [data("{\"a\":\n1}"), data("x")];
            assert_eq!(events(text, size, 1000), expected, "{size}");
        }
    }

    #[test]
    fn mcp_3_a6_a_mark_is_skipped_and_events_of_other_types_are_told_apart() {
        let text = "\u{feff}data: x\n\nevent: ping\ndata: now\n\ndata: y\n\n";
        for size in 1..text.len() {
            let ping = StreamEvent::Other(Bytes::from_static(b"now"));
            assert_eq!(
                events(text, size, 1000),
                [data("x"), ping, data("y")],
                "{size}"
            );
        }
    }

    #[test]
    fn mcp_3_m6_an_event_that_is_too_long_is_skipped_and_named() {
        let long = "x".repeat(500);
        let text = format!("data: {{\"id\":5,\"result\":\"{long}\"}}\n\ndata: y\n\n");
        for size in [1, 7, 300, 1000] {
            let five = ScannedId::Answer(MessageId::new("5").unwrap());
            let expected = [StreamEvent::TooLong(vec![five]), data("y")];
            assert_eq!(events(&text, size, 100), expected, "{size}");
        }
    }
}
