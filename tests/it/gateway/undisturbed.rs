//! Faults of the admin side leave the answers of protected calls unchanged.

use std::net::TcpListener as Listener;

use breakerbox::admin::Admin;

use super::serve::{Sidecar, command, configured, folder, http};
use super::*;

/// Calls of one round: a success, an answer from a fallback, a failure.
const PATHS: [&str; 3] = ["/good/a", "/stale/a", "/bad/a"];

/// Three services: one answers; one answers a request with a referer only; one always fails.
async fn services() -> (Upstream, String) {
    let upstream = Upstream::of(async |request: Request| {
        let path = request.uri().path().to_owned();
        let first = request.headers().contains_key("referer");
        match path.starts_with("/good") || first {
            true => path.into_response(),
            false => answer(500, "broken"),
        }
    })
    .await;
    // No breaker opens, so every round gets the same answers.
    let rest = "breaker = { failure_threshold = \"off\" }\n";
    let table = |name: &str| {
        let url = upstream.url();
        format!("[dependencies.{name}]\nkind = \"http\"\nurl = \"{url}/{name}\"\n{rest}")
    };
    let stale = "fallback = [{ kind = \"stale_cache\" }]\n";
    let text = format!("{}{}{}{stale}", table("good"), table("bad"), table("stale"));
    (upstream, text)
}

/// The answers of all calls in so many rounds. The timeout is generous, but fails if calls are held
/// up.
async fn answers(gateway: &str, rounds: usize) -> Vec<(u16, String, String)> {
    let http = http();
    let asking = async {
        let mut all = Vec::new();
        for _ in 0..rounds {
            for path in PATHS {
                let response = http.get(format!("{gateway}{path}")).send().await.unwrap();
                let source = header(&response, "breakerbox-source").to_owned();
                let status = response.status().as_u16();
                all.push((status, source, response.text().await.unwrap()));
            }
        }
        all
    };
    let came = tokio::time::timeout(PATIENCE, asking).await;
    came.expect("calls are held up")
}

/// The answers without any disturbance.
async fn usual(gateway: &str, rounds: usize) -> Vec<(u16, String, String)> {
    let fill = http().get(format!("{gateway}/stale/a"));
    let filled = fill.header("referer", "1").send().await.unwrap();
    assert_eq!(header(&filled, "breakerbox-source"), "primary");
    let usual = answers(gateway, rounds).await;
    let sources: Vec<&str> = usual[..3].iter().map(|(_, source, _)| &**source).collect();
    assert_eq!(sources, ["primary", "fallback:stale_cache", "primary"]);
    usual
}

/// Sends the bytes, and never reads the response.
async fn stuck(address: &str, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The server may close the connection before all is sent, or stop reading.
    let sending = socket.write_all(bytes);
    let _ = tokio::time::timeout(Duration::from_millis(200), sending).await;
    socket
}

#[tokio::test]
async fn item_103_stuck_clients_and_garbage_on_the_admin_side_touch_no_call() {
    const ROUNDS: usize = 50;
    let (_upstream, text) = services().await;
    let folder = folder();
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let gateway = sidecar.url("");
    let usual = usual(&gateway, ROUNDS).await;
    let address = sidecar.admin("").replace("http://", "");

    let dashboard =
        "GET /api/events/stream HTTP/1.1\r\nhost: localhost\r\nlast-event-id: 0\r\n\r\n";
    let scrape = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2_000);
    let mut disturbing = Vec::new();
    for _ in 0..8 {
        disturbing.push(stuck(&address, dashboard.as_bytes()).await);
        disturbing.push(stuck(&address, scrape.as_bytes()).await);
    }
    assert_eq!(answers(&gateway, ROUNDS).await, usual);
    for round in 0..100_u8 {
        let garbage: Vec<u8> = (0..4_096).map(|_| fastrand::u8(..)).collect();
        for bytes in [
            &garbage[..],
            b"\0\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nx: ",
            &[round],
        ] {
            disturbing.push(stuck(&address, bytes).await);
        }
    }
    // The admin side has no free connection left; calls are unaffected.
    assert_eq!(answers(&gateway, ROUNDS).await, usual);
    drop(disturbing);
    let lives = async {
        loop {
            let asked = http().get(sidecar.admin("/livez")).send().await;
            if asked.is_ok_and(|response| response.status() == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let lived = tokio::time::timeout(PATIENCE, lives).await;
    assert!(lived.is_ok(), "the admin side does not come back");
}

#[tokio::test]
async fn item_103_calls_through_the_gateway_go_on_when_the_admin_thread_is_gone() {
    const ROUNDS: usize = 50;
    let (_upstream, text) = services().await;
    let bed = Bed::of(&text).await;
    let gateway = bed.url("");
    let settings = Settings::loader().bare().load().unwrap();
    let admin = Admin::new(bed.runtime.clone(), &settings);
    let server = admin.serve(Listener::bind("127.0.0.1:0").unwrap()).unwrap();
    let address = server.address().to_string();
    let usual = usual(&gateway, ROUNDS).await;
    let mut reader = stuck(
        &address,
        b"GET /api/events/stream HTTP/1.1\r\nhost: localhost\r\n\r\n",
    )
    .await;
    read_until(&mut reader, "event: status").await;
    // The admin side is stopped while calls are in flight.
    let stopped = tokio::task::spawn_blocking(move || server.stop());
    assert_eq!(answers(&gateway, ROUNDS).await, usual);
    stopped.await.unwrap();
    assert!(
        TcpStream::connect(&address).await.is_err(),
        "it still listens"
    );
    read_to_end(&mut reader).await;
    drop(admin);
    assert_eq!(answers(&gateway, ROUNDS).await, usual);
    let books = bed.runtime.statuses();
    for one in books {
        assert_eq!(one.totals.submitted, one.totals.ended(), "{}", one.name);
    }
    bed.end().await;
}
