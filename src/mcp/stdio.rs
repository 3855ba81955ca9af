//! The pipes of a process: one message a line, with a limit on its size.
//!
//! MCP-3: a line that is too long, or that cannot be read, costs the call that it answers, and no
//! other. Only output without any structure ends the connection.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::connection::{Connection, IncomingMessage, LineSender};
use super::error::McpError;
use super::id_scanner::IdScanner;
use super::json_text::in_one_line;
use super::message::{LARGE, MessageFault, MessageId, RawMessage};

/// Maximum number of consecutive lines that are not messages. Some servers print a greeting to
/// standard output; one that prints more does not speak the protocol.
const MAX_STRAY: u32 = 16;
/// Maximum number of messages that wait to be written.
const MAX_WAITING: usize = 32;
/// Size of the reading buffer, in bytes: as much as a pipe holds.
const BUFFER: usize = 64 * 1024;

/// Starts the task that writes messages. It ends when the sender is dropped.
pub(super) fn write_lines<W>(mut writer: W) -> LineSender
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut lines) = mpsc::channel::<Vec<Bytes>>(MAX_WAITING);
    // The reader tells when the other side is gone.
    drop(tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if write_line(&mut writer, line).await.is_err() {
                return;
            }
        }
    }));
    sender
}

async fn write_line<W: AsyncWrite + Unpin>(writer: &mut W, line: Vec<Bytes>) -> io::Result<()> {
    let mut small = Vec::new();
    for piece in line {
        let piece = if piece.len() > LARGE {
            let flat = spawn_blocking(move || in_one_line(piece)).await;
            flat.map_err(io::Error::other)?
        } else {
            in_one_line(piece)
        };
        if piece.len() <= LARGE {
            small.extend_from_slice(&piece);
        } else {
            writer.write_all(&std::mem::take(&mut small)).await?;
            writer.write_all(&piece).await?;
        }
    }
    small.push(b'\n');
    writer.write_all(&small).await?;
    writer.flush().await
}

/// A line, as far as it was read.
#[derive(Debug)]
enum ReadLine {
    Whole(Bytes),
    /// It is too long. The id that it answers.
    TooLong(Option<MessageId>),
}

/// Reader of lines with a limit on their size in memory.
struct LineReader<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    max_line: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    fn new(reader: R, max_line: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(BUFFER, reader),
            line: Vec::new(),
            max_line,
        }
    }

    /// Reads the next line.
    ///
    /// # Errors  The output has ended, or has no structure.
    async fn next(&mut self) -> Result<ReadLine, Option<String>> {
        loop {
            let piece = match self.reader.fill_buf().await {
                Ok([]) => return Err(None),
                Ok(piece) => piece,
                Err(error) => return Err(Some(format!("its output cannot be read: {error}"))),
            };
            let mut rest = piece;
            // Reading from memory cannot fail. It searches by words, in every profile.
            let read = io::BufRead::read_until(&mut rest, b'\n', &mut self.line);
            let taken = read.unwrap_or(0);
            let is_end = self.line.last() == Some(&b'\n');
            self.reader.consume(taken);
            if self.line.len() > self.max_line {
                return self.skip(is_end).await;
            }
            if is_end {
                let line = std::mem::take(&mut self.line);
                return Ok(ReadLine::Whole(Bytes::from(line)));
            }
        }
    }

    /// Skips the rest of a line that is too long, and searches it for its id.
    async fn skip(&mut self, mut is_end: bool) -> Result<ReadLine, Option<String>> {
        let mut scanner = IdScanner::default();
        // Its memory is free before the rest is read.
        let line = std::mem::take(&mut self.line);
        let length = line.len();
        scanner = spawn_blocking(move || {
            scanner.feed(&line);
            scanner
        })
        .await
        .map_err(|_| None)?;
        if !scanner.is_object() {
            let max = self.max_line;
            return Err(Some(format!("it wrote a line of more than {max} bytes")));
        }
        tracing::debug!(length, "a line is longer than max_line, and is skipped");
        while !is_end {
            let piece = match self.reader.fill_buf().await {
                Ok([]) | Err(_) => return Err(None),
                Ok(piece) => piece,
            };
            let end = piece.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(piece.len(), |end| end + 1);
            scanner.feed(&piece[..taken]);
            self.reader.consume(taken);
            is_end = end.is_some();
        }
        Ok(ReadLine::TooLong(scanner.answered()))
    }
}

/// Kind of a line.
enum LineKind {
    Message(IncomingMessage),
    /// A message that cannot be read, and that no caller waits for.
    Unknown,
    /// Not a message.
    Stray,
    Nothing,
}

/// Reads a line as a message. A line that answers a call always answers it.
fn read(line: &Bytes) -> LineKind {
    let text = line.slice_ref(line.trim_ascii());
    if text.is_empty() {
        return LineKind::Nothing;
    }
    let unusable = |id| {
        let error = McpError::unusable("it is no message of the protocol");
        LineKind::Message(IncomingMessage::Answer(Some(id), Err(error)))
    };
    match RawMessage::read(&text) {
        Ok(message) => LineKind::Message(message.into()),
        Err(MessageFault::Shape(Some(id))) => unusable(id),
        Err(MessageFault::Request(_)) => LineKind::Unknown,
        // It is JSON: another program's log line may have an id too.
        Err(MessageFault::Shape(None)) => LineKind::Stray,
        Err(MessageFault::Syntax) => {
            let mut scanner = IdScanner::default();
            scanner.feed(&text);
            if !scanner.is_object() {
                return LineKind::Stray;
            }
            scanner.answered().map_or(LineKind::Stray, unusable)
        }
    }
}

/// Reads the messages of a process until its output ends.
pub(super) async fn read_lines<R: AsyncRead + Unpin>(reader: R, connection: Arc<Connection>) {
    let state = Arc::clone(&connection.state);
    let mut lines = LineReader::new(reader, state.settings.max_line);
    let mut stray = 0;
    let end = loop {
        let line = match lines.next().await {
            Ok(ReadLine::Whole(line)) => line,
            Ok(ReadLine::TooLong(id)) => {
                let error = McpError::too_long(state.settings.max_line);
                connection.take(IncomingMessage::Answer(id, Err(error)), None);
                continue;
            }
            Err(end) => break end,
        };
        let kind = if line.len() > LARGE {
            // MCP-2: the thread is shared with breakers and supervisors.
            let own = line.clone();
            let read = spawn_blocking(move || read(&own)).await;
            read.unwrap_or(LineKind::Unknown)
        } else {
            read(&line)
        };
        match kind {
            LineKind::Nothing => {}
            LineKind::Unknown => stray = 0,
            LineKind::Message(message) => {
                stray = 0;
                connection.take(message, None);
            }
            LineKind::Stray => {
                let shown = &line[..line.len().min(4096)];
                state.stderr_tail.keep(&[b"stdout: ", shown].concat());
                stray += 1;
                if stray >= MAX_STRAY {
                    break Some(format!("it wrote {MAX_STRAY} lines that are not messages"));
                }
            }
        }
    };
    connection.liveness.close(end);
    connection.ended();
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    /// A reader of this many letters without a line end.
    struct Endless(usize);

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let length = into.remaining().min(self.0);
            self.0 -= length;
            into.put_slice(&vec![b'x'; length]);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn item_70_a_line_without_end_takes_no_more_memory_than_is_allowed() {
        let mut lines = LineReader::new(Endless(50_000_000), 100_000);
        let end = lines.next().await.unwrap_err().unwrap();
        assert!(end.contains("more than 100000 bytes"), "{end}");
        let read = 50_000_000 - lines.reader.get_ref().0;
        assert!(read <= 100_000 + 2 * BUFFER, "{read} bytes were read");
    }

    #[tokio::test]
    async fn mcp_3_m6_a_message_that_is_too_long_is_skipped_and_named() {
        let long = "x".repeat(300_000);
        let text = format!(
            "{{\"id\":7,\"result\":\"{long}\"}}\n{{\"result\":\"{long}\",\"id\":8}}\n{{\"method\":\"{long}\"}}\nshort\n"
        );
        let mut lines = LineReader::new(text.as_bytes(), 100_000);
        for number in [Some(7), Some(8), None] {
            let Ok(ReadLine::TooLong(id)) = lines.next().await else {
                panic!("{number:?}");
            };
            assert_eq!(id.and_then(|id| id.number()), number);
        }
        let short = lines.next().await;
        assert!(matches!(short, Ok(ReadLine::Whole(line)) if &line[..] == b"short\n"));
        assert!(matches!(lines.next().await, Err(None)));
    }

    #[test]
    fn mcp_3_m6_output_that_cannot_be_read_answers_its_call_if_it_has_one() {
        let id_of = |text: &'static str| match read(&Bytes::from_static(text.as_bytes())) {
            LineKind::Message(IncomingMessage::Answer(id, Err(_))) => id.and_then(|id| id.number()),
            LineKind::Stray => Some(0),
            _ => None,
        };
        for (text, expected) in [
            ("{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":3}", Some(7)),
            (
                "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"a\":}}",
                Some(7),
            ),
            ("{\"jsonrpc\":\"2.0\",\"id\":\"9\"}", Some(9)),
            ("hello", Some(0)),
            // A log line of a program may have an id too.
            ("{\"level\":\"info\",\"id\":7}", Some(0)),
            ("{\"level\":\"info\",\"id\":7", Some(0)),
            ("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":3}", None),
            ("", None),
        ] {
            assert_eq!(id_of(text), expected, "{text}");
        }
    }
}
