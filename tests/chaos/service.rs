//! An HTTP service, and a model beside it, that misbehave on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The way in which a service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceMode {
    Well,
    /// It answers with 500.
    Down,
    /// It answers with 429 and a hint.
    Throttled,
    /// It takes longer than any attempt may.
    Slow,
    /// It takes requests and says nothing.
    Stopped,
    /// It resets each connection after a part of the answer.
    Reset,
    /// It ends each connection within the answer.
    CutOff,
    /// Nothing listens.
    Gone,
}

/// A running service.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<ServiceMode>,
    pub(crate) requests: Arc<AtomicU64>,
    /// One clone for each open connection, and one more.
    connections: Arc<()>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, now) = watch::channel(ServiceMode::Well);
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        let connections = Arc::new(());
        let connection = Arc::downgrade(&connections);
        tokio::spawn(async move {
            let mut listener = Some(listener);
            let mut own = now.clone();
            loop {
                if *own.borrow_and_update() == ServiceMode::Gone {
                    listener = None;
                    own.wait_for(|mode| *mode != ServiceMode::Gone)
                        .await
                        .unwrap();
                }
                if listener.is_none() {
                    listener = Some(TcpListener::bind(address).await.unwrap());
                }
                let accepted = listener.as_ref().unwrap();
                tokio::select! {
                    Ok((socket, _)) = accepted.accept() => {
                        let Some(connection) = connection.upgrade() else { return };
                        let serving = serve(socket, now.clone(), Arc::clone(&counted));
                        tokio::spawn(async move {
                            serving.await;
                            drop(connection);
                        });
                    }
                    changed = own.changed() => if changed.is_err() { return },
                }
            }
        });
        Self {
            address,
            mode,
            requests,
            connections,
        }
    }

    /// Returns the number of connections that the service has not closed.
    pub(crate) fn connections(&self) -> usize {
        Arc::strong_count(&self.connections) - 1
    }

    pub(crate) fn set(&self, mode: ServiceMode) {
        self.mode.send_replace(mode);
    }
}

/// Serves one connection, until the service is gone.
async fn serve(
    mut socket: TcpStream,
    mut mode: watch::Receiver<ServiceMode>,
    requests: Arc<AtomicU64>,
) {
    let mut kept = Vec::new();
    loop {
        let request = tokio::select! {
            request = read(&mut socket, &mut kept) => request,
            _ = mode.wait_for(|mode| *mode == ServiceMode::Gone) => return,
        };
        let Some(request) = request else { return };
        requests.fetch_add(1, Ordering::Relaxed);
        let now = *mode.borrow_and_update();
        let is_going_on = tokio::select! {
            is_going_on = answer(&mut socket, &mut kept, &request, now) => is_going_on,
            _ = mode.wait_for(|mode| *mode == ServiceMode::Gone) => return,
        };
        if !is_going_on {
            if now == ServiceMode::Reset {
                // A close without a lingering half is a reset.
                let _ = socket.set_zero_linger();
            }
            return;
        }
    }
}

/// Reads a request with its body; `None` at the end of the connection. Returns its head.
async fn read(socket: &mut TcpStream, kept: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = kept.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&kept[..end]).to_ascii_lowercase();
            let length = head.split("content-length:").nth(1);
            let length = length.and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap_or(0));
            if kept.len() >= end + 4 + length {
                kept.drain(..end + 4 + length);
                return Some(head);
            }
        }
        read_piece(socket, kept).await?;
    }
}

/// Reads what comes next; `None` at the end of the connection.
async fn read_piece(socket: &mut TcpStream, kept: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 4096];
    let count = socket.read(&mut piece).await.ok()?;
    kept.extend_from_slice(&piece[..count]);
    (count > 0).then_some(())
}

/// Returns when the caller has closed the connection.
async fn left(socket: &mut TcpStream, kept: &mut Vec<u8>) {
    while read_piece(socket, kept).await.is_some() {}
}

/// Answers a request. Returns true if the connection goes on.
async fn answer(socket: &mut TcpStream, kept: &mut Vec<u8>, head: &str, mode: ServiceMode) -> bool {
    let is_model = head.contains("/chat/completions");
    let wait = match mode {
        ServiceMode::Slow => Duration::from_secs(2),
        ServiceMode::Stopped => Duration::from_secs(600),
        _ => Duration::ZERO,
    };
    // A caller that gave up leaves a connection behind, which would stay open as long as the wait.
    tokio::select! {
        biased;
        () = tokio::time::sleep(wait) => {}
        () = left(socket, kept) => return false,
    }
    let whole = match mode {
        ServiceMode::Down => short("500 Internal Server Error", "", "{}"),
        ServiceMode::Throttled => short("429 Too Many Requests", "retry-after: 1\r\n", "{}"),
        _ if is_model => streamed(),
        _ => short("200 OK", "", "a good answer"),
    };
    let is_cut = matches!(mode, ServiceMode::Reset | ServiceMode::CutOff);
    let length = if is_cut {
        whole.len() * 2 / 3
    } else {
        whole.len()
    };
    let sent = socket.write_all(&whole.as_bytes()[..length]).await;
    sent.is_ok() && !is_cut
}

fn short(status: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// A stream of a model.
fn streamed() -> String {
    let mut body = String::new();
    for word in ["one", "two", "three"] {
        body.push_str(&format!(
            "data: {{\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}},\
             \"finish_reason\":null}}]}}\n\n"
        ));
    }
    body.push_str(
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\
         \"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n",
    );
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_stopped_service_closes_the_connections_of_callers_that_left() {
    let service = Service::start().await;
    service.set(ServiceMode::Stopped);
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut socket = TcpStream::connect(service.address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        socket.write_all(request).await.unwrap();
        sockets.push(socket);
    }
    let until = async |connections, requests| {
        let reached = async {
            while service.connections() != connections
                || service.requests.load(Ordering::Relaxed) != requests
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await
    };
    until(3, 3).await.expect("three requests are not answered");
    drop(sockets);
    until(0, 3).await.expect("nothing is kept of them");
}
