//! The callers: good ones, and one of each misbehavior.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

/// The results of the good callers.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) calls: u64,
    errors: u64,
    latencies: Vec<Duration>,
    last: String,
}

impl Ledger {
    pub(crate) fn add(&mut self, mut other: Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.latencies.append(&mut other.latencies);
        if !other.last.is_empty() {
            self.last = other.last;
        }
    }

    pub(crate) fn error_share(&self) -> f64 {
        self.errors as f64 / self.calls.max(1) as f64
    }

    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = (sorted.len() as f64 * share) as usize;
        sorted.get(index).copied().unwrap_or_default()
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} calls, {} errors{}, p50 {:.1?}, p99 {:.1?}",
            self.calls,
            self.errors,
            if self.last.is_empty() {
                String::new()
            } else {
                format!(" (such as {})", self.last)
            },
            self.percentile(0.5),
            self.percentile(0.99)
        )
    }
}

/// Connects from an address of this machine, which tells callers apart.
async fn connect(gateway: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(gateway).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Calls a fast path again and again, on a kept connection, with a body now and then.
pub(crate) async fn good_caller(gateway: SocketAddr, from: IpAddr, end: Instant) -> Ledger {
    let mut ledger = Ledger::default();
    let mut kept = None;
    while Instant::now() < end {
        let body = if fastrand::u8(..4) == 0 { 20_000 } else { 0 };
        let began = Instant::now();
        ledger.calls += 1;
        match call(gateway, from, &mut kept, body).await {
            Ok(200) => ledger.latencies.push(began.elapsed()),
            Ok(status) => {
                ledger.errors += 1;
                ledger.last = format!("status {status}");
                kept = None;
            }
            Err(error) => {
                ledger.errors += 1;
                ledger.last = error.to_string();
                kept = None;
            }
        }
        sleep(Duration::from_millis(fastrand::u64(10..30))).await;
    }
    ledger
}

async fn call(
    gateway: SocketAddr,
    from: IpAddr,
    kept: &mut Option<TcpStream>,
    body: usize,
) -> io::Result<u16> {
    let stream = match kept {
        Some(stream) => stream,
        None => kept.insert(connect(gateway, from).await?),
    };
    let method = if body == 0 { "GET" } else { "POST" };
    let mut request =
        format!("{method} /a/fast HTTP/1.1\r\nhost: localhost\r\ncontent-length: {body}\r\n\r\n")
            .into_bytes();
    request.resize(request.len() + body, b'b');
    stream.write_all(&request).await?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let status = head.get(9..12).and_then(|status| status.parse().ok());
            let status = status.ok_or(io::ErrorKind::InvalidData)?;
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
            if rest.len() >= length.unwrap_or(usize::MAX) || status != 200 {
                return Ok(status);
            }
        }
    }
}

/// One way of each kind to misbehave; each has a caller of its own.
pub(crate) const MISBEHAVIORS: [&str; 10] = [
    "hurried",
    "dripping",
    "cut",
    "too large",
    "half a head",
    "deaf",
    "denied",
    "vanishing",
    "many keys",
    "hoarding",
];

/// Misbehaves until the end.
pub(crate) async fn misbehave(name: &str, gateway: SocketAddr, from: IpAddr, end: Instant) {
    while Instant::now() < end {
        let round = async {
            // Refusals and closed connections are what it deserves.
            if let Ok(stream) = connect(gateway, from).await {
                let _ = misbehave_once(name, stream).await;
            }
            sleep(Duration::from_millis(20)).await;
        };
        let _ = timeout_at(end, round).await;
    }
}

async fn misbehave_once(name: &str, mut stream: TcpStream) -> io::Result<()> {
    let get = |path: &str, header: &str| {
        format!("GET /a/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n")
    };
    let post = |length: usize| {
        format!("POST /a/sink HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut rest = Vec::new();
    match name {
        "hurried" => {
            let head = get("slow", "breakerbox-deadline-ms: 1\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.read_to_end(&mut rest).await?;
        }
        "dripping" => {
            stream.write_all(post(60_000).as_bytes()).await?;
            loop {
                stream.write_all(b"x").await?;
                sleep(Duration::from_millis(50)).await;
            }
        }
        "cut" => {
            stream.write_all(post(500_000).as_bytes()).await?;
            stream.write_all(&[b'x'; 40_000]).await?;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        "too large" => {
            stream.write_all(post(1 << 30).as_bytes()).await?;
            for _ in 0..64 {
                stream.write_all(&[b'x'; 64_000]).await?;
            }
        }
        "half a head" => {
            stream
                .write_all(b"GET /a/fast HTTP/1.1\r\nhost: lo")
                .await?;
            stream.read_to_end(&mut rest).await?;
        }
        "deaf" => {
            stream.write_all(get("big", "").as_bytes()).await?;
            sleep(Duration::from_secs(3)).await;
        }
        "denied" => {
            let head = get("denied", "authorization: Bearer not-mine\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.read_to_end(&mut rest).await?;
        }
        "vanishing" => {
            stream.write_all(get("slow", "").as_bytes()).await?;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        "many keys" => {
            let key = format!("breakerbox-key: {}\r\n", fastrand::u64(..));
            stream.write_all(get("fast", &key).as_bytes()).await?;
            stream.read_to_end(&mut rest).await?;
        }
        _ => {
            // A body of nearly the size that is kept, which never ends.
            stream.write_all(post(1_000_000).as_bytes()).await?;
            for _ in 0..15 {
                stream.write_all(&[b'x'; 63_000]).await?;
            }
            sleep(Duration::from_secs(3)).await;
        }
    }
    Ok(())
}
