//! Connections: idle ones give way to new ones, busy ones stay, streams have their own limit.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use breakerbox::admin::ServerLimits;
use reqwest::Method;
use serde_json::json;

use super::{LONG, Rig, TOKEN, read_until};
use crate::scripted::ms;

const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";

async fn limited(connections: usize) -> Rig {
    let limits = ServerLimits {
        connections,
        header: LONG,
        request: LONG,
        ..ServerLimits::default()
    };
    Rig::with(|_| {}, Vec::new(), Some(TOKEN), limits).await
}

fn connect(rig: &Rig) -> TcpStream {
    let socket = TcpStream::connect(rig.server.address()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

/// Reads one response without a long body, and returns its text.
fn response(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut piece = [0; 4096];
    while !text.ends_with("ok\n") && !text.ends_with('}') {
        let read = socket.read(&mut piece).unwrap_or_default();
        if read == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    text
}

fn is_live(socket: &mut TcpStream) -> bool {
    socket.write_all(LIVE).is_ok() && response(socket).starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn edge_4_e6e_idle_connections_do_not_lock_out_probes() {
    let rig = limited(8).await;
    let mut idle = Vec::new();
    for turn in 0..100 {
        let mut socket = connect(&rig);
        match turn % 3 {
            // It has never sent anything.
            0 => {}
            // It keeps a connection open after a request.
            1 => assert!(is_live(&mut socket), "connection {turn}"),
            // It never ends its head.
            _ => socket
                .write_all(b"GET /livez HTTP/1.1\r\nx-slow: ")
                .unwrap(),
        }
        idle.push(socket);
        if turn % 10 == 9 {
            assert!(is_live(&mut connect(&rig)), "beside {turn} idle ones");
        }
    }
    assert_eq!(rig.get("/readyz").await["status"], "ready");
    drop(idle);
    rig.finish().await;
}

#[tokio::test]
async fn edge_4_e6e_the_one_that_was_idle_longest_gives_way() {
    let rig = limited(4).await;
    let mut all: Vec<TcpStream> = (0..4).map(|_| connect(&rig)).collect();
    for socket in &mut all {
        assert!(is_live(socket));
    }
    // The first is used again: the second is now the one that has been idle longest.
    assert!(is_live(&mut all[0]));
    all.push(connect(&rig));
    assert!(is_live(&mut all[4]));
    let ended = all[1].read(&mut [0; 16]).unwrap_or_default();
    assert_eq!(ended, 0, "it is closed");
    for number in [0, 2, 3, 4] {
        assert!(is_live(&mut all[number]), "{number}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn edge_4_e6e_no_request_that_has_arrived_is_closed_unanswered() {
    let rig = limited(2).await;
    for _ in 0..10 {
        let mut all: Vec<TcpStream> = (0..40)
            .map(|_| {
                let mut socket = connect(&rig);
                socket.write_all(LIVE).unwrap();
                socket
            })
            .collect();
        for (number, socket) in all.iter_mut().enumerate() {
            let text = response(socket);
            assert!(text.starts_with("HTTP/1.1 200"), "{number}: {text:?}");
        }
    }
    rig.finish().await;
}

#[tokio::test]
async fn edge_4_e6e_busy_connections_stay_and_streams_have_a_limit_of_their_own() {
    let rig = limited(2).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let request = rig.request(Method::GET, "/api/events/stream");
        let mut stream = request.send().await.unwrap();
        read_until(&mut stream, "event: status").await;
        streams.push(stream);
    }
    let body = json!({ "reason": "a drill" }).to_string();
    let mut order = connect(&rig);
    let head = format!(
        "POST /api/dependencies/dep/open HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: {}\r\n\r\n{{",
        body.len()
    );
    order.write_all(head.as_bytes()).unwrap();
    let idle: Vec<TcpStream> = (0..60).map(|_| connect(&rig)).collect();
    assert!(is_live(&mut connect(&rig)));
    order.write_all(&body.as_bytes()[1..]).unwrap();
    let text = response(&mut order);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for stream in &mut streams {
        read_until(stream, "operated").await;
    }
    drop(idle);
    rig.finish().await;
}

#[tokio::test]
async fn edge_4_e6e_while_all_are_busy_a_new_one_waits_for_its_turn() {
    let rig = limited(1).await;
    // More requests in flight than the limit and the reserve together.
    let head = format!(
        "POST /api/dependencies/dep/close HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: 14\r\n\r\n{{"
    );
    let mut busy: Vec<TcpStream> = (0..30)
        .map(|_| {
            let mut socket = connect(&rig);
            socket.write_all(head.as_bytes()).unwrap();
            socket
        })
        .collect();
    let mut probe = connect(&rig);
    probe.write_all(LIVE).unwrap();
    for socket in &mut busy {
        socket.write_all(b"\"reason\":\"r\"}").unwrap();
    }
    let text = response(&mut probe);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for socket in &mut busy {
        let text = response(socket);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn edge_4_e6e_clients_that_read_nothing_do_not_lock_out_probes() {
    let limits = ServerLimits {
        connections: 1,
        header: LONG,
        // Longer than the test waits for an answer.
        write: LONG * 10,
        ..ServerLimits::default()
    };
    let rig = Rig::with(|_| {}, Vec::new(), Some(TOKEN), limits).await;
    let page = b"GET /api/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    // As many as the limit and the reserve; each asks until the server stops reading.
    let stuck: Vec<TcpStream> = (0..17)
        .map(|_| {
            let mut socket = connect(&rig);
            socket.set_write_timeout(Some(ms(200))).unwrap();
            while socket.write_all(&page).is_ok() {}
            socket
        })
        .collect();
    for _ in 0..3 {
        assert!(is_live(&mut connect(&rig)));
    }
    drop(stuck);
    rig.finish().await;
}
