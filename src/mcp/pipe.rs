//! Messages on a process's pipes, a line each, and never more of one in memory than is allowed.
//!
//! The protocol's own reader drops what is too long and goes on, and so would wait for an answer
//! that it has thrown away. Here that ends the connection: the process is replaced.

use std::io;
use std::sync::Arc;

use rmcp::model::{ErrorData, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::Mutex;

use super::signs::Signs;
use super::words::Words;

/// Lines in a row that are no messages. Some servers greet on their standard output; one that goes
/// on so says nothing else.
const MAX_STRAY: u32 = 16;

/// A connection to a process of ours.
pub(super) struct Pipe<R, W> {
    reader: BufReader<R>,
    line: Vec<u8>,
    max_line: usize,
    stray: u32,
    writer: Arc<Mutex<Option<W>>>,
    signs: Arc<Signs>,
    words: Arc<Words>,
}

impl<R: AsyncRead + Unpin, W> Pipe<R, W> {
    pub(super) fn new(
        (reader, writer): (R, W),
        max_line: usize,
        signs: &Arc<Signs>,
        words: &Arc<Words>,
    ) -> Self {
        Self {
            reader: BufReader::new(reader),
            line: Vec::new(),
            max_line,
            stray: 0,
            writer: Arc::new(Mutex::new(Some(writer))),
            signs: Arc::clone(signs),
            words: Arc::clone(words),
        }
    }

    /// Reads on to the end of the line that was begun.
    ///
    /// # Errors  There is no more, or it is too long.
    /// # Cancel safety   What was read stays in `line`.
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
                return Err(Some(format!("a line of its is longer than {max} bytes")));
            }
            self.line.extend_from_slice(&piece[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// What the line says; `None` where nothing follows from it.
    fn take_line(&mut self) -> Result<Option<ServerJsonRpcMessage>, String> {
        let said = read(self.line.trim_ascii());
        match said {
            Said::Nothing => {}
            Said::Message(_) | Said::Unknown => self.stray = 0,
            Said::Stray => {
                self.words.keep(&[b"stdout: ", &self.line[..]].concat());
                self.stray += 1;
            }
        }
        self.line.clear();
        // What one long message took is not kept for the short ones.
        self.line.shrink_to(64 * 1024);
        if self.stray >= MAX_STRAY {
            return Err(format!("it wrote {MAX_STRAY} lines that are no messages"));
        }
        Ok(match said {
            Said::Message(message) => Some(*message),
            _ => None,
        })
    }
}

/// What a line is.
enum Said {
    Message(Box<ServerJsonRpcMessage>),
    /// A message of a kind that we do not know, and that nobody waits for.
    Unknown,
    /// No message at all.
    Stray,
    Nothing,
}

fn read(line: &[u8]) -> Said {
    if line.is_empty() {
        return Said::Nothing;
    }
    match serde_json::from_slice(line) {
        Ok(message) => return Said::Message(Box::new(message)),
        Err(error) if error.is_syntax() || error.is_eof() => return Said::Stray,
        Err(_) => {}
    }
    let Ok(Value::Object(message)) = serde_json::from_slice(line) else {
        return Said::Stray;
    };
    if !message.contains_key("jsonrpc") {
        return Said::Stray;
    }
    // An answer that cannot be read is an answer all the same: whoever waits for it hears so.
    let id = message.get("id").cloned();
    let id = id.and_then(|id| serde_json::from_value::<RequestId>(id).ok());
    match id {
        Some(id) if !message.contains_key("method") => {
            let unreadable = ErrorData::internal_error("its answer cannot be read", None);
            Said::Message(Box::new(JsonRpcMessage::error(unreadable, Some(id))))
        }
        _ => Said::Unknown,
    }
}

impl<R, W> Transport<RoleClient> for Pipe<R, W>
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
                    self.signs.heard(&message);
                    return Some(message);
                }
                Err(violation) => {
                    self.signs.close(violation);
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

/// The last of a connection: from here on no call of it is answered.
impl<R, W> Drop for Pipe<R, W> {
    fn drop(&mut self) {
        self.signs.close(None);
    }
}
