//! A caller of a stream: one connection, one request, read to its end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A stream that was read.
pub(crate) struct ReadStream {
    /// Time from the request to its first content.
    pub(crate) first_content: Duration,
    /// True if it ended as its API ends.
    pub(crate) is_whole: bool,
}

const BODY: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"Say something about a breaker."}]}"#;

/// Asks for a stream, and reads it to its end.
pub(crate) async fn ask(address: SocketAddr, path: &str) -> io::Result<ReadStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let began = quanta::Instant::now();
    stream.write_all(request.as_bytes()).await?;
    let mut first_content = None;
    let mut tail = Vec::new();
    let mut buffer = vec![0; 16_384];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        tail.extend_from_slice(&buffer[..read]);
        if first_content.is_none() && contains(&tail, b"\"content\":\"word") {
            first_content = Some(began.elapsed());
        }
        if first_content.is_some() && tail.len() > 512 {
            tail.drain(..tail.len() - 512);
        }
    }
    let Some(first_content) = first_content else {
        let text = String::from_utf8_lossy(&tail).into_owned();
        return Err(io::Error::other(text));
    };
    Ok(ReadStream {
        first_content,
        is_whole: contains(&tail, b"data: [DONE]"),
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
