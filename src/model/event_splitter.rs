//! The events of a stream, one after another: server-sent events, or the items of a JSON array.
//!
//! It knows no dialect. Its memory is bounded: of an event that is too long it keeps the beginning
//! and the end.

/// Maximum size of an event that is kept whole, in bytes.
const MAX_EVENT: usize = if cfg!(test) { 65_536 } else { 4 << 20 };
/// Size of a line beyond that, which is more than the name of a field.
const MAX_FIELD: usize = 16;
/// Size of the beginning, and of the end, that is kept of a longer one.
const EDGE: usize = 4_096;
/// Size of a buffer that is kept for the next event.
const MAX_KEPT: usize = 65_536;

/// An event.
#[derive(Debug)]
pub(super) enum SplitEvent<'a> {
    /// A comment, or an event without data.
    Comment,
    /// An event with data.
    Data(EventData<'a>),
}

/// The data of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventData<'a> {
    /// The name in its line `event`; empty if there is none.
    pub(super) name: &'a [u8],
    /// The data, or the beginning of it.
    pub(super) text: &'a [u8],
    /// The end of data that was too long to keep.
    pub(super) cut_tail: Option<&'a [u8]>,
}

type Sink<'s> = &'s mut dyn FnMut(SplitEvent<'_>);

/// Splits a stream into events.
#[derive(Debug, Default)]
pub(super) struct EventSplitter {
    framing: EventFraming,
    data: DataBuffer,
    /// Bytes since the last whole event.
    unfinished: u64,
}

#[derive(Debug)]
enum EventFraming {
    Lines(LineState),
    Items(ItemState),
}

impl Default for EventFraming {
    fn default() -> Self {
        Self::Lines(LineState::default())
    }
}

/// State of a stream of server-sent events.
///
/// # Source  HTML Standard, section 9.2.6.
#[derive(Debug, Default)]
struct LineState {
    /// A line without its end so far.
    line: Vec<u8>,
    /// Length of that line; more than is kept of it while its event is skipped.
    line_length: usize,
    name: Vec<u8>,
    has_data: bool,
    last_was_return: bool,
    is_begun: bool,
}

/// State of a JSON array with events as its items.
#[derive(Debug, Default)]
struct ItemState {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
}

/// The data of the event that comes in, whole or by its edges.
#[derive(Debug, Default)]
struct DataBuffer {
    bytes: Vec<u8>,
    /// The last bytes of data that is too long.
    tail: Option<Vec<u8>>,
}

impl DataBuffer {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(tail) = &mut self.tail {
            let keep = bytes.len().min(EDGE);
            tail.extend_from_slice(&bytes[bytes.len() - keep..]);
            let spare = tail.len().saturating_sub(EDGE);
            if spare >= EDGE {
                tail.drain(..spare);
            }
            return;
        }
        if self.bytes.len() + bytes.len() <= MAX_EVENT {
            self.bytes.extend_from_slice(bytes);
            return;
        }
        let head = EDGE.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..head]);
        self.cut();
        self.push(&bytes[head..]);
    }

    /// Keeps no more than the edges from now on.
    fn cut(&mut self) {
        if self.tail.is_none() {
            let rest = self.bytes.split_off(self.bytes.len().min(EDGE));
            self.bytes.shrink_to_fit();
            self.tail = Some(rest[rest.len().saturating_sub(EDGE)..].to_vec());
        }
    }

    fn is_cut(&self) -> bool {
        self.tail.is_some()
    }

    fn event<'a>(&'a self, name: &'a [u8]) -> EventData<'a> {
        let tail = self.tail.as_deref();
        EventData {
            name,
            text: &self.bytes,
            cut_tail: tail.map(|tail| &tail[tail.len().saturating_sub(EDGE)..]),
        }
    }

    fn clear(&mut self) {
        self.tail = None;
        self.bytes.clear();
        self.bytes.shrink_to(MAX_KEPT);
    }
}

impl EventSplitter {
    /// Creates a splitter. `is_array`: the stream is a JSON array, and no server-sent events.
    pub(super) fn new(is_array: bool) -> Self {
        let framing = if is_array {
            EventFraming::Items(ItemState::default())
        } else {
            EventFraming::default()
        };
        Self {
            framing,
            ..Self::default()
        }
    }

    /// Returns the number of bytes since the last whole event.
    pub(super) const fn unfinished(&self) -> u64 {
        self.unfinished
    }

    /// Returns the number of bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        let tail = self.data.tail.as_ref().map_or(0, Vec::len);
        let line = match &self.framing {
            EventFraming::Lines(lines) => lines.line.len() + lines.name.len(),
            EventFraming::Items(_) => 0,
        };
        self.data.bytes.len() + tail + line
    }

    /// Takes the next piece of the stream.
    pub(super) fn feed(&mut self, piece: &[u8], sink: Sink<'_>) {
        self.unfinished += piece.len() as u64;
        let left = match &mut self.framing {
            EventFraming::Lines(lines) => lines.feed(piece, &mut self.data, sink),
            EventFraming::Items(items) => items.feed(piece, &mut self.data, sink),
        };
        if let Some(left) = left {
            self.unfinished = left as u64;
        }
    }

    /// Takes the end of the stream: a last event needs no empty line behind it.
    pub(super) fn finish(&mut self, sink: Sink<'_>) {
        if let EventFraming::Lines(lines) = &mut self.framing {
            lines.end_line(&mut self.data, sink);
            lines.end_line(&mut self.data, sink);
        }
        self.data.clear();
        self.unfinished = 0;
    }
}

impl LineState {
    /// Returns the number of bytes behind the last event that has ended in the piece.
    fn feed(&mut self, piece: &[u8], data: &mut DataBuffer, sink: Sink<'_>) -> Option<usize> {
        let mut rest = piece;
        if self.last_was_return && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        let mut left = (rest.len() < piece.len() && self.is_between(data)).then_some(rest.len());
        self.last_was_return &= piece.is_empty();
        while !rest.is_empty() {
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.keep(rest, data);
                break;
            };
            let line = &rest[..end];
            let is_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if is_return {
                match rest.first() {
                    Some(b'\n') => rest = &rest[1..],
                    Some(_) => {}
                    None => self.last_was_return = true,
                }
            }
            if self.line_length == 0 && !data.is_cut() {
                // The common case: a whole line, read where it stands.
                self.take_line(line, data, sink);
            } else {
                self.keep(line, data);
                self.end_line(data, sink);
            }
            if self.is_between(data) {
                left = Some(rest.len());
            }
        }
        left
    }

    /// Returns true between two events.
    fn is_between(&self, data: &DataBuffer) -> bool {
        !self.has_data && self.name.is_empty() && self.line_length == 0 && !data.is_cut()
    }

    /// Keeps a part of a line.
    fn keep(&mut self, part: &[u8], data: &mut DataBuffer) {
        self.line_length += part.len();
        if data.is_cut() {
            data.push(part);
            return;
        }
        self.line.extend_from_slice(part);
        if self.line.len() + data.bytes.len() <= MAX_EVENT + MAX_FIELD {
            return;
        }
        match field(&self.line, b"data") {
            Some(value) => {
                if std::mem::replace(&mut self.has_data, true) {
                    data.push(b"\n");
                }
                data.push(value);
                data.cut();
                self.line = Vec::new();
            }
            // A comment, or a field that counts for nothing.
            None => self.line.truncate(EDGE),
        }
    }

    /// Ends the kept line.
    fn end_line(&mut self, data: &mut DataBuffer, sink: Sink<'_>) {
        let mut line = std::mem::take(&mut self.line);
        let length = std::mem::take(&mut self.line_length);
        if !data.is_cut() {
            self.take_line(&line, data, sink);
        } else if length == 0 {
            self.dispatch(data, sink);
        }
        if line.capacity() <= MAX_KEPT {
            line.clear();
            self.line = line;
        }
    }

    fn take_line(&mut self, line: &[u8], data: &mut DataBuffer, sink: Sink<'_>) {
        let mut line = line;
        if !std::mem::replace(&mut self.is_begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(data, sink);
        } else if line[0] == b':' {
            sink(SplitEvent::Comment);
        } else if let Some(text) = field(line, b"data") {
            if std::mem::replace(&mut self.has_data, true) {
                data.push(b"\n");
            }
            data.push(text);
        } else if let Some(name) = field(line, b"event") {
            self.name.clear();
            // No name is longer.
            self.name.extend_from_slice(&name[..name.len().min(EDGE)]);
        }
    }

    fn dispatch(&mut self, data: &mut DataBuffer, sink: Sink<'_>) {
        if self.has_data {
            sink(SplitEvent::Data(data.event(&self.name)));
        } else if !self.name.is_empty() {
            sink(SplitEvent::Comment);
        }
        self.has_data = false;
        self.name.clear();
        data.clear();
    }
}

/// Returns the value of a line with this field.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest.split_first() {
        None => Some(rest),
        Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        Some(_) => None,
    }
}

impl ItemState {
    /// Returns the number of bytes behind the last item that has ended in the piece.
    fn feed(&mut self, piece: &[u8], data: &mut DataBuffer, sink: Sink<'_>) -> Option<usize> {
        let mut left = None;
        // The beginning of the part of an item that is not kept yet.
        let mut begin = 0;
        for (at, byte) in piece.iter().enumerate() {
            if self.in_string {
                self.in_string = self.is_escaped || *byte != b'"';
                self.is_escaped = !self.is_escaped && *byte == b'\\';
                continue;
            }
            match byte {
                b'"' => self.in_string = self.depth > 0,
                b'{' | b'[' if self.depth > 0 => self.depth = self.depth.saturating_add(1),
                b'{' => {
                    self.depth = 1;
                    begin = at;
                }
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'}' | b']' if self.depth == 1 => {
                    self.depth = 0;
                    data.push(&piece[begin..=at]);
                    sink(SplitEvent::Data(data.event(b"")));
                    data.clear();
                    left = Some(piece.len() - at - 1);
                }
                _ => {}
            }
        }
        if self.depth > 0 {
            data.push(&piece[begin..]);
        }
        left
    }
}
