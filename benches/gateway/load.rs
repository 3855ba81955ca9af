//! Both ends of the wire, on one thread: a server that answers at once, and callers that repeat
//! their request as soon as they have the response.
//!
//! They speak just enough HTTP to stay cheap, so that the proxy is the bottleneck.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Length of a response body, in bytes.
const BODY: usize = 200;
/// Warm-up of the callers before requests are counted.
const WARM_UP: Duration = Duration::from_millis(150);
/// Maximum time until a proxy first answers with the expected status.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the server.
pub(crate) async fn upstream() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let head = "HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: application/json\r\n";
    let body = "x".repeat(BODY);
    let answer: Arc<str> = format!("{head}content-length: {BODY}\r\n\r\n{body}").into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, Arc::clone(&answer)));
        }
    });
    Ok(address)
}

/// Answers each request of a connection. Requests have no bodies.
async fn answer_all(mut stream: TcpStream, answer: Arc<str>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 4096];
    let mut read = 0;
    loop {
        match stream.read(&mut buffer[read..]).await {
            Ok(1..) if read == buffer.len() => return,
            Ok(more @ 1..) => read += more,
            Ok(0) | Err(_) => return,
        }
        if buffer[..read].ends_with(b"\r\n\r\n") {
            read = 0;
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// An address to call, and the expected response.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
    pub(crate) status: u16,
}

/// Calls over so many connections for so long. `mark` is called at the begin and at the end of the
/// measurement. Returns the number of requests answered between, and the results of `mark`.
///
/// # Errors  A response with another status, or a connection that ended.
pub(crate) async fn drive<M>(
    target: Target,
    connections: usize,
    sample: Duration,
    mut mark: impl FnMut() -> M,
) -> Result<(u64, M, M), String> {
    let answered = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..connections)
        .map(|_| {
            let (answered, over) = (Arc::clone(&answered), Arc::clone(&over));
            tokio::spawn(async move {
                let mut caller = Caller::connect(target).await?;
                while !over.load(Ordering::Relaxed) {
                    let status = caller.ask().await?;
                    if status != target.status {
                        return Err(format!("{status} instead of {}", target.status));
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    tokio::time::sleep(WARM_UP).await;
    let begin = (answered.load(Ordering::Relaxed), mark());
    tokio::time::sleep(sample).await;
    let end = (answered.load(Ordering::Relaxed), mark());
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.map_err(|error| error.to_string())??;
    }
    Ok((end.0 - begin.0, begin.1, end.1))
}

/// Calls until the response has the expected status: then a proxy is up, or its breaker open.
///
/// # Errors  The expected status did not occur in time.
pub(crate) async fn until_right(target: Target) -> Result<(), String> {
    let asking = async {
        loop {
            let asked = async { Caller::connect(target).await?.ask().await };
            if asked.await == Ok(target.status) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let Target { address, path, .. } = target;
    let right = tokio::time::timeout(PATIENCE, asking).await;
    right.map_err(|_| format!("http://{address}{path} never answered {}", target.status))
}

/// One connection of a caller.
struct Caller {
    stream: TcpStream,
    request: String,
    buffer: Vec<u8>,
}

impl Caller {
    async fn connect(target: Target) -> Result<Self, String> {
        let Target { address, path, .. } = target;
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        Ok(Self {
            stream,
            request: format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n"),
            buffer: vec![0; 8192],
        })
    }

    /// Sends a request and reads the whole response; returns its status.
    async fn ask(&mut self) -> Result<u16, String> {
        let sent = self.stream.write_all(self.request.as_bytes()).await;
        sent.map_err(|error| error.to_string())?;
        let mut read = 0;
        loop {
            let more = self.stream.read(&mut self.buffer[read..]).await;
            match more {
                Ok(0) => return Err("it ended in the middle of an answer".to_owned()),
                Ok(more) => read += more,
                Err(error) => return Err(error.to_string()),
            }
            let answer = &self.buffer[..read];
            let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let text = std::str::from_utf8(&answer[..head]).map_err(|error| error.to_string())?;
            let (status, length) = status_and_length(text).ok_or("an answer without a length")?;
            if read >= head + 4 + length {
                return Ok(status);
            }
        }
    }
}

fn status_and_length(head: &str) -> Option<(u16, usize)> {
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok()).flatten()
    });
    Some((status, length?))
}
