//! Isolation of protected calls: no traffic on the admin side delays them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use breakerbox::admin::ServerLimits;
use reqwest::Method;

use super::{LONG, Rig, TOKEN, read_until};
use crate::scripted::{Do, ms, opens_after};

fn connect(rig: &Rig) -> TcpStream {
    let socket = TcpStream::connect(rig.server.address()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

/// Waits until the peer closes the connection, and returns the text read before.
fn read_to_end(mut socket: TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = socket.read_to_end(&mut bytes);
    // Closing with unread data resets the connection.
    let closed = read.as_ref().map_or_else(
        |error| error.kind() == std::io::ErrorKind::ConnectionReset,
        |_| true,
    );
    assert!(closed, "{read:?}");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn limits(change: impl FnOnce(&mut ServerLimits)) -> ServerLimits {
    let mut limits = ServerLimits::default();
    change(&mut limits);
    limits
}

async fn calls_go_on(rig: &Rig, calls: u32) {
    let made = async {
        for number in 0..calls {
            assert_eq!(
                rig.bench.ask(Do::Answer(number)).await.unwrap().value,
                number
            );
        }
    };
    assert!(
        tokio::time::timeout(LONG, made).await.is_ok(),
        "calls are held up"
    );
}

#[tokio::test]
async fn item_103_calls_go_on_when_the_admin_side_is_killed() {
    let rig = Rig::start(opens_after(1, ms(60_000))).await;
    let mut stream = rig
        .request(Method::GET, "/api/events/stream")
        .send()
        .await
        .unwrap();
    read_until(&mut stream, "event: status").await;
    let Rig {
        bench,
        admin,
        server,
        ..
    } = rig;
    let stopped = tokio::task::spawn_blocking(move || server.stop());
    for number in 0..1_000 {
        assert_eq!(bench.ask(Do::Answer(number)).await.unwrap().value, number);
    }
    stopped.await.unwrap();
    // The stream ends, and the runtime continues without a reader.
    while let Ok(Some(_)) = stream.chunk().await {}
    drop(admin);
    bench.ask(Do::Answer(1)).await.unwrap();
    bench.fail_until_open().await;
    bench.finish().await;
}

#[tokio::test]
async fn item_103_readers_that_read_nothing_hold_no_call_up_and_are_dropped() {
    let limits = limits(|limits| limits.write = Duration::from_millis(300));
    let rig = Rig::with(opens_after(1, ms(60_000)), Vec::new(), Some(TOKEN), limits).await;
    let stuck: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut socket = connect(&rig);
            socket.write_all(b"GET /api/events/stream HTTP/1.1\r\nhost: localhost\r\nlast-event-id: 0\r\n\r\n").unwrap();
            socket
        })
        .collect();
    let mut scraper = connect(&rig);
    // Many pipelined scrapes on one connection, and no response is ever read.
    for _ in 0..2_000 {
        if scraper
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .is_err()
        {
            break;
        }
    }
    // More events than any buffer holds, while calls are made.
    let long = "x".repeat(8_000);
    for turn in 0..1_500 {
        let reason = format!("{turn} {long}");
        rig.bench
            .client
            .operate(breakerbox_policy::BreakerCommand::Reset {
                reason: reason.clone(),
            })
            .await
            .unwrap();
        rig.bench
            .client
            .operate(breakerbox_policy::BreakerCommand::Open {
                reason,
                until: None,
            })
            .await
            .unwrap();
        rig.bench
            .client
            .operate(breakerbox_policy::BreakerCommand::Clear)
            .await
            .unwrap();
        calls_go_on(&rig, 1).await;
    }
    let readers = async {
        // Polled by a client that does read; it is served throughout.
        while !rig
            .get_text("/metrics")
            .await
            .contains("breakerbox_stream_readers 0\n")
        {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(LONG, readers).await.is_ok(),
        "stuck readers are kept"
    );
    drop((stuck, scraper));
    rig.finish().await;
}

#[tokio::test]
async fn sec_1_connections_are_bounded_and_slow_ones_are_closed() {
    let limits = limits(|limits| {
        limits.connections = 4;
        limits.header = Duration::from_millis(200);
        limits.request = Duration::from_millis(200);
    });
    let rig = Rig::with(|_| {}, Vec::new(), Some(TOKEN), limits).await;
    let mut slow: Vec<TcpStream> = (0..4).map(|_| connect(&rig)).collect();
    for socket in &mut slow {
        socket
            .write_all(b"GET /livez HTTP/1.1\r\nx-slow: ")
            .unwrap();
    }
    // A fifth connection is over the limit: one of the slow ones gives way to it.
    let fifth = tokio::task::spawn_blocking({
        let mut fifth = connect(&rig);
        let request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        fifth.write_all(request).unwrap();
        move || read_to_end(fifth)
    });
    assert!(fifth.await.unwrap().starts_with("HTTP/1.1 200"));
    let closed = tokio::task::spawn_blocking(move || {
        let all = slow.into_iter().map(read_to_end);
        all.collect::<Vec<String>>()
    });
    let closed = tokio::time::timeout(LONG, closed).await.unwrap().unwrap();
    assert!(
        closed.iter().all(|text| !text.contains("200 OK")),
        "{closed:?}"
    );
    // A request with a body that never arrives is ended too, with a response.
    let mut body = connect(&rig);
    let head = format!(
        "POST /api/dependencies/dep/open HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    body.write_all(head.as_bytes()).unwrap();
    let answer = tokio::task::spawn_blocking(move || read_to_end(body))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(rig.get("/readyz").await["status"], "ready");
    rig.finish().await;
}

#[tokio::test]
async fn sec_1_what_is_no_http_or_too_much_of_it_is_closed() {
    let rig = Rig::start(|_| {}).await;
    let many = (0..100)
        .map(|number| format!("x-{number}: y\r\n"))
        .collect::<String>();
    let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let cases = [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "hello\r\n\r\n".to_owned(),
        format!("GET /livez HTTP/1.1\r\n{many}\r\n"),
        long,
    ];
    for bytes in cases {
        let mut socket = connect(&rig);
        // The server may close the socket before everything is sent.
        let _ = socket.write_all(bytes.as_bytes());
        let _ = socket.shutdown(Shutdown::Write);
        let answer = tokio::task::spawn_blocking(move || read_to_end(socket))
            .await
            .unwrap();
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    assert_eq!(rig.get("/readyz").await["status"], "ready");
    rig.finish().await;
}
