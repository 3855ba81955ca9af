//! The pipes of a process: one message a line, or over several, with a limit on its size.
//!
//! MCP-3: a message that is too long, or that cannot be read, costs the call that it answers, and no
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
use super::incoming::{IncomingMessage, IncomingText};
use super::json_text::in_one_line;
use super::liveness::Liveness;
use super::message::LARGE;
use super::spread_message::{OutputText, SpreadEnd, SpreadMessage};

/// Maximum number of consecutive lines that are not messages. Some servers print a greeting to
/// standard output; one that prints more does not speak the protocol.
const MAX_STRAY: u32 = 16;
/// Maximum number of messages that wait to be written.
const MAX_WAITING: usize = 32;
/// Time for which the end of a process is awaited after it has read no more.
const EXIT: Duration = Duration::from_millis(200);
/// Time after which a message over several lines that does not go on is over.
const PAUSE: Duration = Duration::from_secs(2);
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
    /// The first part of a line that is too long, or the next one.
    Part {
        text: Bytes,
        is_first: bool,
        is_end: bool,
    },
    /// No line has begun for a while.
    Pause,
}

/// Reader of lines with a limit on their size in memory.
struct LineReader<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// True within a line that is too long.
    is_long: bool,
    max_line: usize,
    /// Number of lines and of bytes since other tasks had a turn.
    turn: (usize, usize),
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    fn new(reader: R, max_line: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(BUFFER, reader),
            line: Vec::new(),
            is_long: false,
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

    /// Reads the next line, or the next part of one that is too long. `is_awaited`: it is told if none
    /// begins.
    ///
    /// # Errors  The output has ended. The reason, if it is not its regular end.
    async fn next(&mut self, is_awaited: bool) -> Result<ReadLine, Option<String>> {
        loop {
            self.take_turns().await;
            let may_pause = is_awaited && !self.is_long && self.line.is_empty();
            let filling = self.reader.fill_buf();
            let filled = match may_pause {
                true => match timeout(PAUSE, filling).await {
                    Ok(filled) => filled,
                    Err(_) => return Ok(ReadLine::Pause),
                },
                false => filling.await,
            };
            let piece = match filled {
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
            if self.is_long || self.line.len() > self.max_line {
                // CALL-6: its memory is free before the rest is read.
                let text = Bytes::from(std::mem::take(&mut self.line));
                let is_first = !std::mem::replace(&mut self.is_long, !is_end);
                return Ok(ReadLine::Part {
                    text,
                    is_first,
                    is_end,
                });
            }
            if is_end {
                let line = std::mem::take(&mut self.line);
                return Ok(ReadLine::Whole(Bytes::from(line)));
            }
        }
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

/// A line that was read.
enum LineContent {
    Text(IncomingText),
    /// A message that goes on in the next lines.
    Begun(Box<SpreadMessage>),
}

impl LineContent {
    fn read(line: &Bytes) -> Self {
        let read = IncomingText::read(line);
        let begun = match read.is_whole() {
            true => None,
            false => SpreadMessage::begun_by(line),
        };
        begun.map_or(Self::Text(read), Self::Begun)
    }
}

/// Reads a text, apart from this thread if it is large; `None` if the runtime ends.
async fn apart<T, F>(text: &Bytes, read: F) -> Option<T>
where
    T: Send + 'static,
    F: FnOnce(&Bytes) -> T + Send + 'static,
{
    if text.len() <= LARGE {
        return Some(read(text));
    }
    // MCP-2: the thread is shared with breakers and supervisors.
    let own = text.clone();
    spawn_blocking(move || read(&own)).await.ok()
}

/// Reads the messages of a process until its output ends.
pub(super) async fn read_lines<R: AsyncRead + Unpin>(reader: R, connection: Arc<Connection>) {
    let mut messages = MessageReader {
        lines: LineReader::new(reader, connection.state.settings.max_line),
        spread: None,
        stray: StrayLines {
            connection: Arc::clone(&connection),
            number: 0,
        },
        connection: Arc::clone(&connection),
    };
    let end = messages.read().await;
    connection.liveness.close(end);
    connection.ended();
    connection.liveness.note_read();
}

/// Reader of the messages of a process.
struct MessageReader<R> {
    lines: LineReader<R>,
    /// The message over several lines that has begun.
    spread: Option<Box<SpreadMessage>>,
    stray: StrayLines,
    connection: Arc<Connection>,
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    /// Reads messages until the output ends. Returns the reason, if it is not its regular end.
    async fn read(&mut self) -> Option<String> {
        loop {
            let line = match self.lines.next(self.spread.is_some()).await {
                Ok(line) => line,
                Err(end) => {
                    let rest = self.spread.take().map(|spread| spread.end());
                    return end.or_else(|| match rest? {
                        SpreadEnd::Text(text) => self.stray.note(text),
                        SpreadEnd::TooLong(_) => None,
                    });
                }
            };
            let end = match line {
                ReadLine::Whole(line) if line.trim_ascii().is_empty() => None,
                ReadLine::Whole(line) => self.take_line(line).await,
                ReadLine::Part {
                    text,
                    is_first,
                    is_end,
                } => self.take_part(text, (is_first, is_end)).await,
                // MCP-3: it cannot be read, and its caller hears at once.
                ReadLine::Pause => self.end_spread().await,
            };
            if end.is_some() {
                return end;
            }
        }
    }

    async fn take_line(&mut self, line: Bytes) -> Option<String> {
        if let Some(mut spread) = self.spread.take() {
            let max = self.lines.max_line;
            let taking = apart(&line, move |line| {
                let goes_on = spread.goes_on_with(line);
                if goes_on {
                    spread.take(line, max);
                }
                (spread, goes_on)
            });
            let (spread, goes_on) = taking.await?;
            let is_over = !goes_on || !spread.is_open();
            self.spread = Some(spread);
            let end = match is_over {
                true => self.end_spread().await,
                false => None,
            };
            if goes_on || end.is_some() {
                return end;
            }
        }
        match apart(&line, LineContent::read).await {
            Some(LineContent::Text(read)) => self.take_text(read, (line, 1)).await,
            Some(LineContent::Begun(begun)) => {
                self.spread = Some(begun);
                None
            }
            None => None,
        }
    }

    /// Takes a part of a line that is too long.
    async fn take_part(&mut self, part: Bytes, (is_first, is_end): (bool, bool)) -> Option<String> {
        let mut spread = self.spread.take();
        if is_first && spread.as_ref().is_some_and(|own| !own.goes_on_at(&part)) {
            self.spread = spread.take();
            let end = self.end_spread().await;
            if end.is_some() {
                return end;
            }
        }
        let mut spread = spread.unwrap_or_default();
        let skipping = apart(&part, move |part| {
            spread.skip(part);
            spread
        });
        let spread = skipping.await.unwrap_or_default();
        if !spread.is_structured() {
            let max = self.lines.max_line;
            return Some(format!("it wrote a line of more than {max} bytes"));
        }
        let is_over = is_end && !spread.is_open();
        self.spread = Some(spread);
        match is_over {
            true => self.end_spread().await,
            false => None,
        }
    }

    /// Takes the message over several lines, whether it is whole or not.
    async fn end_spread(&mut self) -> Option<String> {
        match self.spread.take()?.end() {
            SpreadEnd::Text((text, lines)) => {
                let read = apart(&text, IncomingText::read).await?;
                self.take_text(read, (text, lines)).await
            }
            SpreadEnd::TooLong(found) => {
                tracing::debug!("a message is longer than max_line, and is skipped");
                let max = self.lines.max_line;
                self.take_all(IncomingMessage::too_long(found, max)).await;
                None
            }
        }
    }

    /// Takes a text of the output. Returns the reason to end the connection, if there is one.
    async fn take_text(&mut self, read: IncomingText, text: OutputText) -> Option<String> {
        if self.connection.is_asked() {
            // The tasks that answer come before further questions.
            yield_now().await;
        }
        match read {
            IncomingText::Stray => return self.stray.note(text),
            read => self.take_all(read.into_messages()).await,
        }
        self.stray.number = 0;
        None
    }

    async fn take_all(&mut self, messages: Vec<IncomingMessage>) {
        for (number, message) in messages.into_iter().enumerate() {
            if number > 0 && number.is_multiple_of(TURN_LINES) {
                // CALL-9: a list delays no call of another server.
                yield_now().await;
            }
            self.connection.take(message, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;
    use tokio::sync::oneshot;

    use super::super::audience::CallSide;
    use super::super::call_table::RequestOutcome;
    use super::super::connection::Link;
    use super::super::server_state::ServerState;
    use super::super::settings::McpSettings;
    use super::*;

    /// A reader of this many letters without a line end.
    struct Endless(Arc<AtomicUsize>);

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let length = into.remaining().min(self.0.load(Ordering::Relaxed));
            self.0.fetch_sub(length, Ordering::Relaxed);
            into.put_slice(&vec![b'x'; length]);
            Poll::Ready(Ok(()))
        }
    }

    type AwaitedAnswer = oneshot::Receiver<RequestOutcome>;

    /// A connection with calls of the ids 1 to 3 in flight.
    fn connected(max_line: usize) -> (Arc<Connection>, Vec<AwaitedAnswer>) {
        let mut settings = McpSettings::stdio("none", [""; 0]);
        settings.max_line = max_line;
        let state = Arc::new(ServerState::new(settings));
        let link = Link::Pipe(std::sync::Mutex::new(None));
        let connection = Connection::new(link, Arc::default(), &state, None);
        let begin = |_| {
            let (reply, answer) = oneshot::channel();
            let side = (CallSide::default(), None);
            let id = connection.calls.next_id();
            connection.calls.insert(id, Some(reply), side);
            answer
        };
        let answers = (0..3).map(begin).collect();
        (connection, answers)
    }

    /// The outcomes of the calls 1 to 3 by an output: the result, the fault of the answer, or none.
    async fn outcomes(output: &str, max_line: usize) -> (Vec<String>, Option<String>) {
        let (connection, answers) = connected(max_line);
        read_lines(output.as_bytes(), Arc::clone(&connection)).await;
        let shown = |mut answer: AwaitedAnswer| match answer.try_recv() {
            Ok(Ok(reply)) => reply.text.as_str().to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "none".to_owned(),
        };
        let outcomes = answers.into_iter().map(shown).collect();
        (outcomes, connection.liveness.violation())
    }

    #[tokio::test]
    async fn item_70_a_line_without_end_takes_no_more_memory_than_is_allowed() {
        let (connection, _answers) = connected(100_000);
        let left = Arc::new(AtomicUsize::new(50_000_000));
        read_lines(Endless(Arc::clone(&left)), Arc::clone(&connection)).await;
        let end = connection.liveness.violation().unwrap();
        assert!(end.contains("more than 100000 bytes"), "{end}");
        let read = 50_000_000 - left.load(Ordering::Relaxed);
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

    #[test]
    fn mcp_2_a_long_line_within_a_message_is_searched_on_another_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (free, taken) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let blocked = spawn_blocking(move || taken.recv());
            let (connection, _answers) = connected(8 * LARGE);
            let output = format!("{{\n\"{}\",\n", "x".repeat(4 * LARGE));
            let mut reading = std::pin::pin!(read_lines(output.as_bytes(), connection));
            for _ in 0..100 {
                let polled = futures_util::poll!(&mut reading);
                assert!(polled.is_pending(), "it was searched on this thread");
                yield_now().await;
            }
            free.send(()).unwrap();
            reading.await;
            blocked.await.unwrap().unwrap();
        });
    }

    #[tokio::test]
    async fn mcp_3_m6_a_message_that_is_too_long_costs_its_own_call_in_each_form() {
        let long = "x".repeat(300_000);
        let lines = "\"a line\",\n".repeat(20_000);
        for first in [
            format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{long}\"}}"),
            format!("{{\"result\":\"{long}\",\"id\":1}}"),
            format!("[{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{long}\"}}]"),
            format!("\u{feff}{{\"id\":1,\"result\":\"{long}\"}}"),
            format!("\u{1b}[0m{{\"id\":1,\"result\":\"{long}\"}}\u{1b}[0m"),
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"x\"}}{{\"id\":1,\"result\":\"{long}\"}}"),
            // Over several lines: one of them, or all together.
            format!("{{\n  \"id\": 1,\n  \"result\": [\n    \"{long}\"\n  ]\n}}"),
            format!("{{\"result\":[\"{long}\",\n{lines}1],\n\"id\":1}}"),
            format!("{{\n\"id\": 1,\n\"result\": [\n{lines}1\n]\n}}"),
        ] {
            let second = "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}";
            let notice = format!("{{\"method\":\"{long}\"}}");
            let output = format!("{first}\n{notice}\n{second}\nshort\n");
            let (outcomes, end) = outcomes(&output, 100_000).await;
            let begin = &first[..60];
            assert_eq!(end, None, "{begin}");
            assert!(
                outcomes[0].contains("max_line = 100000"),
                "{begin} {outcomes:?}"
            );
            assert_eq!(outcomes[1..], ["{}", "none"], "{begin}");
        }
    }

    #[tokio::test]
    async fn mcp_3_a_message_over_several_lines_is_understood_and_costs_no_other_call() {
        let answers = |result: &str| {
            let answer = format!("\"jsonrpc\":\"2.0\",\n\"id\": 1,\n\"result\":{result}");
            [
                format!("{{\n{answer}\n}}"),
                format!("{{{answer}}}"),
                format!("[\n{{{answer}}}\n]"),
            ]
        };
        let items = "{\n\"type\": \"text\"\n},\n".repeat(20);
        for first in answers(&format!("[\n{items}1]")) {
            let second = "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}";
            // One that breaks off is answered as soon as something else comes.
            let third = "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"a\":[";
            let output = format!("{first}\n{third}\n{second}\n");
            let (outcomes, end) = outcomes(&output, 100_000).await;
            assert_eq!(end, None, "{first}");
            assert!(
                outcomes[0].starts_with("[ { \"type\": \"text\""),
                "{outcomes:?}"
            );
            assert_eq!(outcomes[1], "{}", "{first}");
            assert!(outcomes[2].contains("no message"), "{outcomes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_3_a_message_that_breaks_off_at_the_end_of_a_line_is_answered_soon() {
        let (connection, mut answers) = connected(100_000);
        let (mut writer, reader) = tokio::io::duplex(1024);
        let reading = tokio::spawn(read_lines(reader, connection));
        let broken = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\n";
        writer.write_all(broken).await.unwrap();
        let answer = timeout(2 * PAUSE, &mut answers[0]).await.unwrap().unwrap();
        assert!(answer.unwrap_err().to_string().contains("no message"));
        // What comes later is read by itself.
        let second = b"{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n";
        writer.write_all(second).await.unwrap();
        answers.remove(1).await.unwrap().unwrap();
        drop(writer);
        reading.await.unwrap();
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
