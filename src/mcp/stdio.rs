//! Transport over a process's pipes: one message per line, with a limit on its size in memory.
//!
//! The protocol library's reader drops a line that is too long and continues, and so would wait for
//! a response that it has dropped. Here, such a line ends the connection: the process is replaced.

use std::io;
use std::sync::Arc;

use rmcp::model::{ErrorData, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::Mutex;

use super::liveness::Liveness;
use super::stderr_tail::StderrTail;

/// Maximum number of consecutive lines that are not messages. Some servers print a greeting to
/// standard output; one that prints more does not speak the protocol.
const MAX_STRAY: u32 = 16;

/// Transport to a child process.
pub(super) struct StdioTransport<R, W> {
    reader: BufReader<R>,
    line: Vec<u8>,
    max_line: usize,
    stray: u32,
    writer: Arc<Mutex<Option<W>>>,
    liveness: Arc<Liveness>,
    stderr_tail: Arc<StderrTail>,
}

impl<R: AsyncRead + Unpin, W> StdioTransport<R, W> {
    pub(super) fn new(
        (reader, writer): (R, W),
        max_line: usize,
        liveness: &Arc<Liveness>,
        stderr_tail: &Arc<StderrTail>,
    ) -> Self {
        Self {
            reader: BufReader::new(reader),
            line: Vec::new(),
            max_line,
            stray: 0,
            writer: Arc::new(Mutex::new(Some(writer))),
            liveness: Arc::clone(liveness),
            stderr_tail: Arc::clone(stderr_tail),
        }
    }

    /// Reads to the end of the current line.
    ///
    /// # Errors  The output has ended, or the line is too long.
    /// # Cancel safety   The bytes already read stay in `line`.
    async fn read_line(&mut self) -> Result<(), Option<String>> {
        loop {
            let piece = match self.reader.fill_buf().await {
                Ok([]) => return Err(None),
                Ok(piece) => piece,
                Err(error) => return Err(Some(format!("its output cannot be read: {error}"))),
            };
            let end = piece.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(piece.len(), |end| end + 1);
            if self.line.len() + taken > self.max_line {
                let max = self.max_line;
                return Err(Some(format!("it wrote a line of more than {max} bytes")));
            }
            self.line.extend_from_slice(&piece[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// Takes the line; returns `None` if it is not a message to handle.
    fn take_line(&mut self) -> Result<Option<ServerJsonRpcMessage>, String> {
        let said = read(self.line.trim_ascii());
        match said {
            LineKind::Nothing => {}
            LineKind::Message(_) | LineKind::Unknown => self.stray = 0,
            LineKind::Stray => {
                self.stderr_tail
                    .keep(&[b"stdout: ", &self.line[..]].concat());
                self.stray += 1;
            }
        }
        self.line.clear();
        // Free the memory of a long message.
        self.line.shrink_to(64 * 1024);
        if self.stray >= MAX_STRAY {
            return Err(format!("it wrote {MAX_STRAY} lines that are not messages"));
        }
        Ok(match said {
            LineKind::Message(message) => Some(*message),
            _ => None,
        })
    }
}

/// Kind of a line.
enum LineKind {
    Message(Box<ServerJsonRpcMessage>),
    /// A message of an unknown kind that no caller waits for.
    Unknown,
    /// Not a message.
    Stray,
    Nothing,
}

fn read(line: &[u8]) -> LineKind {
    if line.is_empty() {
        return LineKind::Nothing;
    }
    match serde_json::from_slice(line) {
        Ok(message) => return LineKind::Message(Box::new(message)),
        Err(error) if error.is_syntax() || error.is_eof() => return LineKind::Stray,
        Err(_) => {}
    }
    let Ok(Value::Object(message)) = serde_json::from_slice(line) else {
        return LineKind::Stray;
    };
    if !message.contains_key("jsonrpc") {
        return LineKind::Stray;
    }
    // An unreadable response is still a response: its caller gets an error.
    let id = message.get("id").cloned();
    let id = id.and_then(|id| serde_json::from_value::<RequestId>(id).ok());
    match id {
        Some(id) if !message.contains_key("method") => {
            let unreadable = ErrorData::internal_error("its answer cannot be read", None);
            LineKind::Message(Box::new(JsonRpcMessage::error(unreadable, Some(id))))
        }
        _ => LineKind::Unknown,
    }
}

impl<R, W> Transport<RoleClient> for StdioTransport<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), io::Error>> + Send + 'static {
        let writer = Arc::clone(&self.writer);
        async move {
            let mut line = serde_json::to_vec(&item)?;
            line.push(b'\n');
            let mut writer = writer.lock().await;
            let Some(writer) = writer.as_mut() else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            writer.write_all(&line).await?;
            writer.flush().await
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let taken = match self.read_line().await {
                Ok(()) => self.take_line().map_err(Some),
                Err(end) => Err(end),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(message)) => {
                    self.liveness.heard(&message);
                    return Some(message);
                }
                Err(violation) => {
                    self.liveness.close(violation);
                    return None;
                }
            }
        }
    }

    async fn close(&mut self) -> Result<(), io::Error> {
        drop(self.writer.lock().await.take());
        Ok(())
    }
}

/// Marks the connection as closed: its calls get no response after this.
impl<R, W> Drop for StdioTransport<R, W> {
    fn drop(&mut self) {
        self.liveness.close(None);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::super::liveness::ConnectionEnd;
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

    fn pipe<R: AsyncRead + Unpin>(
        reader: R,
        max: usize,
    ) -> (StdioTransport<R, tokio::io::Sink>, Arc<Liveness>) {
        let liveness = Arc::new(Liveness::default());
        let stderr_tail = Arc::new(StderrTail::new(9, std::iter::empty()));
        let pipe = StdioTransport::new((reader, tokio::io::sink()), max, &liveness, &stderr_tail);
        (pipe, liveness)
    }

    #[tokio::test]
    async fn item_70_a_line_without_end_takes_no_more_memory_than_is_allowed() {
        let (mut pipe, liveness) = pipe(Endless(50_000_000), 100_000);
        assert!(pipe.receive().await.is_none());
        assert!(pipe.line.capacity() <= 200_000, "{}", pipe.line.capacity());
        let read = 50_000_000 - pipe.reader.get_ref().0;
        assert!(read <= 120_000, "{read} bytes were read");
        assert_eq!(liveness.end(), ConnectionEnd::Closed);
        assert!(
            liveness
                .violation()
                .unwrap()
                .contains("more than 100000 bytes")
        );
    }

    #[tokio::test]
    async fn what_was_read_of_a_line_is_not_lost_when_nobody_waits() {
        let (mut near, far) = tokio::io::duplex(1024);
        let (mut pipe, _) = pipe(far, 1000);
        let message = br#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        for piece in message.chunks(7) {
            near.write_all(piece).await.unwrap();
            let polled = futures_util::FutureExt::now_or_never(pipe.receive());
            assert!(polled.is_none(), "the line is not over");
        }
        near.write_all(b"\r\n").await.unwrap();
        assert!(matches!(
            pipe.receive().await,
            Some(JsonRpcMessage::Response(_))
        ));
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_is_an_answer() {
        let line: &[u8] = b"hello\n\n{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":3}\n";
        let (mut pipe, _) = pipe(line, 1000);
        let Some(JsonRpcMessage::Error(error)) = pipe.receive().await else {
            panic!("an error");
        };
        assert_eq!(error.id, Some(RequestId::Number(7)));
        assert!(pipe.receive().await.is_none());
    }
}
