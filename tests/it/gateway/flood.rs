//! More connections than the gateway allows, all of them hostile.

use std::io;
use std::sync::atomic::AtomicBool;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::serve::{Sidecar, command, configured, folder};
use super::*;

const BAD: usize = 10_000;
const PLACES: usize = 2_000;
/// Hostile connections open at once: more than the limit. They also fit into the system's listen
/// queue, since a client may reconnect before the gateway has noticed the end of its last
/// connection.
const AT_ONCE: usize = PLACES + 100;
/// Maximum memory per connection, in bytes: a head at its limit, and the buffers of hyper and the
/// gateway. Without limits a single caller could use more than the sum.
const A_PLACE: usize = 40_000;
/// Maximum wait of a well-behaved, connected caller for an answer. Hostile ones are cut off after a
/// second.
const AT_MOST: Duration = Duration::from_secs(5);

/// Misbehaves until the gateway closes the connection.
async fn misbehave(number: usize, address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    match number % 5 {
        0 => trickle(&mut stream).await?,
        1 => endless_head(&mut stream).await?,
        2 => stream.write_all(&[b'\x16'; 600]).await?,
        3 => {
            let half = b"POST /web/half HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf";
            stream.write_all(half).await?;
        }
        _silent => {}
    }
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.map(drop)
}

/// Sends a head byte by byte, and never finishes it.
async fn trickle(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"GET /web/slow HTTP/1.1\r\nx: ").await?;
    loop {
        // The gateway has to end this.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut end = [0];
        if matches!(stream.try_read(&mut end), Ok(0)) {
            return Ok(());
        }
        stream.write_all(b"x").await?;
    }
}

/// Sends an endless head as fast as it is accepted.
async fn endless_head(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"GET /web/long HTTP/1.1\r\n").await?;
    let line = format!("x: {}\r\n", "x".repeat(4_000));
    loop {
        stream.write_all(line.as_bytes()).await?;
    }
}

/// Runs all hostile connections; returns the number that the gateway did not close in time.
async fn flood(address: SocketAddr) -> usize {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut all = JoinSet::new();
    for number in 0..BAD {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        all.spawn(async move {
            let _place = place;
            // A reset ends the connection too.
            let ended = tokio::time::timeout(PATIENCE, misbehave(number, address)).await;
            ended.is_err()
        });
    }
    let stayed = all.join_all().await;
    stayed.into_iter().filter(|stayed| *stayed).count()
}

/// Calls repeatedly over one connection; returns the number of answers.
async fn behave(url: String, over: Arc<AtomicBool>) -> usize {
    let http = serve::http();
    let mut answered = 0;
    while !over.load(Ordering::SeqCst) {
        let asked = tokio::time::timeout(AT_MOST, http.get(&url).send()).await;
        let response = asked.expect("an answer in time").expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.text().await.unwrap(), "good");
        answered += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    answered
}

/// Calls repeatedly over new connections, each of which has to wait for a free slot.
async fn arrive(url: String, over: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    while !over.load(Ordering::SeqCst) {
        let asking = async {
            // No timeout of its own: the system may drop a connection attempt while its queue is
            // full.
            let response = serve::http().get(&url).send().await.expect("an answer");
            assert_eq!(response.status().as_u16(), 200);
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.expect("a place in time");
        answered += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answered
}

/// The resident memory of a process, in bytes.
fn memory(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_slow_or_malformed_connections_neither_exhaust_memory_nor_stop_good_traffic() {
    // Each connection has one end in this process and one in the sidecar.
    let room = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(room > 2 * AT_ONCE as u64, "only {room} files may be open");
    let upstream = Upstream::of(|_| async { answer(200, "good") }).await;
    let folder = folder();
    let text = format!(
        r#"
        [gateway]
        max_connections = {PLACES}
        max_head = "16KB"
        header_timeout = "1s"
        body_timeout = "1s"
        [dependencies.web]
        kind = "http"
        url = "{}"
        "#,
        upstream.url(),
    );
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let (url, process) = (sidecar.url("/web/"), sidecar.process());
    let address = sidecar.url("")["http://".len()..].parse().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut good: Vec<_> = (0..4)
        .map(|_| tokio::spawn(behave(url.clone(), Arc::clone(&over))))
        .collect();
    good.push(tokio::spawn(arrive(url.clone(), Arc::clone(&over))));
    let (before, ended) = (memory(process), Arc::clone(&over));
    let watching = tokio::spawn(async move {
        let mut most = 0;
        while !ended.load(Ordering::SeqCst) {
            most = most.max(memory(process));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        most
    });
    let stayed = flood(address).await;
    over.store(true, Ordering::SeqCst);
    let most = watching.await.unwrap();
    assert_eq!(stayed, 0, "hostile connections left open");
    for one in good {
        let answered = one.await.expect("good traffic goes on");
        assert!(answered > 1, "{answered}");
    }
    let grown = most.saturating_sub(before);
    assert!(grown < PLACES * A_PLACE, "{before} grew by {grown} bytes");
    assert!(upstream.hits() > 4);
}
