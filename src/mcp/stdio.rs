//! The pipes of a process: one message a line, with a limit on its size.
//!
//! MCP-3: a line that is too long, or that cannot be read, costs the call that it answers, and no
//! other. Only output without any structure ends the connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::timeout;

use super::connection::{Connection, LineSender};
use super::id_scanner::{IdScanner, ScannedId};
use super::incoming::{IncomingMessage, IncomingText};
use super::json_text::in_one_line;
use super::liveness::Liveness;
use super::message::LARGE;
use super::spread_message::{OutputText, SpreadMessage};

/// Maximum number of consecutive lines that are not messages. Some servers print a greeting to
/// standard output; one that prints more does not speak the protocol.
const MAX_STRAY: u32 = 16;
/// Maximum number of messages that wait to be written.
const MAX_WAITING: usize = 32;
/// Time for which the end of a process is awaited after it has read no more.
const EXIT: Duration = Duration::from_millis(200);
/// Size of the reading buffer, in bytes: as much as a pipe holds.
const BUFFER: usize = 64 * 1024;

/// Starts the task that writes messages. It ends when the sender is dropped. A process that reads no
/// more ends its connection.
pub(super) fn write_lines<W>(mut writer: W, liveness: Arc<Liveness>) -> LineSender
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut lines) = mpsc::channel::<Vec<Bytes>>(MAX_WAITING);
    drop(tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if write_line(&mut writer, line).await.is_err() {
                return end_unread(&liveness).await;
            }
        }
    }));
    sender
}

/// Ends the connection of a process that reads no more, unless its output tells the end.
async fn end_unread(liveness: &Liveness) {
    // Its exit status says more than its closed input.
    if timeout(EXIT, liveness.ended()).await.is_err() {
        // MCP-4: it can answer no call any more, and callers would wait for theirs.
        liveness.close_input();
    }
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

/// Number of lines after which other tasks have a turn.
const TURN_LINES: usize = 64;
/// Number of bytes after which other tasks have a turn.
const TURN_BYTES: usize = 64 * 1024;

/// A line, as far as it was read.
#[derive(Debug)]
enum ReadLine {
    Whole(Bytes),
    /// It is too long. The request that it is about.
    TooLong(ScannedId),
}

/// Reader of lines with a limit on their size in memory.
struct LineReader<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    max_line: usize,
    /// Number of lines and of bytes since other tasks had a turn.
    turn: (usize, usize),
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    fn new(reader: R, max_line: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(BUFFER, reader),
            line: Vec::new(),
            max_line,
            turn: (0, 0),
        }
    }

    /// Lets other tasks have a turn after a number of lines or bytes.
    async fn take_turns(&mut self) {
        let (lines, bytes) = self.turn;
        if lines >= TURN_LINES || bytes >= TURN_BYTES {
            // CALL-9: a server that writes without a pause delays no call of another one.
            self.turn = (0, 0);
            yield_now().await;
        }
    }

    /// Reads the next line.
    ///
    /// # Errors  The output has ended, or has no structure.
    async fn next(&mut self) -> Result<ReadLine, Option<String>> {
        loop {
            self.take_turns().await;
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
            self.turn.0 += usize::from(is_end);
            self.turn.1 += taken;
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
            self.take_turns().await;
            let piece = match self.reader.fill_buf().await {
                Ok([]) | Err(_) => return Err(None),
                Ok(piece) => piece,
            };
            let end = piece.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(piece.len(), |end| end + 1);
            scanner.feed(&piece[..taken]);
            self.reader.consume(taken);
            self.turn.1 += taken;
            is_end = end.is_some();
        }
        Ok(ReadLine::TooLong(scanner.found()))
    }
}

/// The lines of a process that are no messages, since its last message.
struct StrayLines {
    connection: Arc<Connection>,
    number: u32,
}

impl StrayLines {
    /// Notes a text of the output. Returns the reason to end the connection, if there are too many.
    fn note(&mut self, (text, lines): OutputText) -> Option<String> {
        let tail = &self.connection.state.stderr_tail;
        let shown = &text[..text.len().min(4096)];
        tail.keep(&[b"stdout: ", shown].concat());
        // EDGE-8: it may be the answer that a caller waits for.
        self.connection.calls.note_stray(&tail.shown(shown));
        self.number = self.number.saturating_add(lines);
        let is_over = self.number >= MAX_STRAY;
        is_over.then(|| format!("it wrote {MAX_STRAY} lines that are not messages"))
    }
}

/// Reads the messages of a process until its output ends.
pub(super) async fn read_lines<R: AsyncRead + Unpin>(reader: R, connection: Arc<Connection>) {
    let state = Arc::clone(&connection.state);
    let mut lines = LineReader::new(reader, state.settings.max_line);
    let mut spread = SpreadMessage::default();
    let mut stray = StrayLines {
        connection: Arc::clone(&connection),
        number: 0,
    };
    let end = loop {
        let line = match lines.next().await {
            Ok(ReadLine::Whole(line)) => line,
            Ok(ReadLine::TooLong(scanned)) => {
                let message = IncomingMessage::too_long(scanned, state.settings.max_line);
                connection.take(message, None);
                spread = SpreadMessage::default();
                continue;
            }
            Err(end) => break end,
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let broken = spread.broken_by(&line, state.settings.max_line);
        if let Some(end) = broken.and_then(|lines| stray.note(lines)) {
            break Some(end);
        }
        let Some((text, number)) = spread.take(line) else {
            continue;
        };
        let read = if text.len() > LARGE {
            // MCP-2: the thread is shared with breakers and supervisors.
            let own = text.clone();
            let read = spawn_blocking(move || IncomingText::read(&own)).await;
            read.unwrap_or(IncomingText::Unknown)
        } else {
            IncomingText::read(&text)
        };
        if connection.is_asked() {
            // The tasks that answer come before further questions.
            yield_now().await;
        }
        match read {
            IncomingText::Unknown => stray.number = 0,
            IncomingText::One(message) => {
                stray.number = 0;
                connection.take(message, None);
            }
            IncomingText::Several(messages) => {
                stray.number = 0;
                for message in messages {
                    connection.take(message, None);
                }
            }
            IncomingText::Stray => {
                if let Some(end) = stray.note((text, number)) {
                    break Some(end);
                }
            }
        }
    };
    let end = end.or_else(|| stray.note(spread.rest()?));
    connection.liveness.close(end);
    connection.ended();
    connection.liveness.note_read();
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::super::connection::Link;
    use super::super::server_state::ServerState;
    use super::super::settings::McpSettings;
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
    async fn call_9_a_server_that_writes_without_a_pause_lets_other_tasks_go_on() {
        let state = Arc::new(ServerState::new(McpSettings::stdio("none", [""; 0])));
        let notice = "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n";
        for (line, number) in [("\n", 64_000), (notice, 6_400)] {
            let text = line.repeat(number);
            let link = Link::Pipe(std::sync::Mutex::new(None));
            let connection = Connection::new(link, Arc::default(), &state, None);
            let turns = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&turns);
            let other = tokio::spawn(async move {
                loop {
                    counted.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                }
            });
            read_lines(text.as_bytes(), connection).await;
            other.abort();
            let turns = turns.load(Ordering::Relaxed);
            assert!(turns >= number / TURN_LINES - 1, "{turns} turns: {line}");
        }
    }

    #[tokio::test]
    async fn mcp_3_m6_a_message_that_is_too_long_is_skipped_and_named() {
        let long = "x".repeat(300_000);
        let text = format!(
            "{{\"id\":7,\"result\":\"{long}\"}}\n{{\"result\":\"{long}\",\"id\":8}}\n{{\"method\":\"{long}\"}}\nshort\n"
        );
        let mut lines = LineReader::new(text.as_bytes(), 100_000);
        for number in [Some(7), Some(8), None] {
            let Ok(ReadLine::TooLong(found)) = lines.next().await else {
                panic!("{number:?}");
            };
            let id = match found {
                ScannedId::Answer(id) => id.number(),
                _ => None,
            };
            assert_eq!(id, number);
        }
        let short = lines.next().await;
        assert!(matches!(short, Ok(ReadLine::Whole(line)) if &line[..] == b"short\n"));
        assert!(matches!(lines.next().await, Err(None)));
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_4_a7_a_process_that_reads_no_more_ends_its_connection() {
        let liveness = Arc::new(Liveness::default());
        let (writer, reader) = tokio::io::duplex(64);
        let lines = write_lines(writer, Arc::clone(&liveness));
        drop(reader);
        lines.send(vec![Bytes::from_static(b"{}")]).await.unwrap();
        liveness.ended().await;
        assert!(liveness.has_closed_input());
    }
}
