//! A provider that streams: 20 events at once, or so many a second for a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Starts it on a port that the system picks.
pub(crate) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Its caller may leave at any time.
            tokio::spawn(async move { serve(stream).await });
        }
    });
    Ok(address)
}

fn chunk(delta: &str, reason: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
         \"choices\":[{{\"index\":0,\"delta\":{{{delta}}},\"finish_reason\":{reason}}}]}}\n\n"
    )
}

async fn piece(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let framed = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(framed.as_bytes()).await
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Some((target, is_last)) = request(&mut stream).await? else {
            return Ok(());
        };
        let number = |name: &str| {
            let (_, value) = target.split_once(name)?;
            value.split('&').next()?.parse::<u32>().ok()
        };
        let rate = number("at=");
        let words = rate.map_or(18, |rate| rate * number("for=").unwrap_or(1));
        stream.write_all(HEAD.as_bytes()).await?;
        piece(
            &mut stream,
            &chunk("\"role\":\"assistant\",\"content\":\"\"", "null"),
        )
        .await?;
        let mut ticks = rate.map(|rate| tokio::time::interval(Duration::from_secs(1) / rate));
        for _ in 0..words {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            piece(&mut stream, &chunk("\"content\":\"word \"", "null")).await?;
        }
        let end = chunk("", "\"stop\"") + "data: [DONE]\n\n";
        piece(&mut stream, &end).await?;
        stream.write_all(b"0\r\n\r\n").await?;
        if is_last {
            return Ok(());
        }
    }
}

/// Reads a request with its body. Returns its target, and whether it is the last one of its connection;
/// `None` at the end of the connection.
async fn request(stream: &mut TcpStream) -> io::Result<Option<(String, bool)>> {
    let mut all = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let head = text[..end].to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| {
                let digits = rest.split("\r\n").next()?;
                digits.trim().parse::<usize>().ok()
            });
            if all.len() >= end + 4 + length.unwrap_or(0) {
                let target = text.split(' ').nth(1).unwrap_or("/");
                let is_last = head.contains("connection: close");
                return Ok(Some((target.to_owned(), is_last)));
            }
        }
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(None);
        }
        all.extend_from_slice(&buffer[..read]);
    }
}
