//! Notifications of the sidecar to a service manager, received as systemd would.

use std::os::unix::net::UnixDatagram;

use super::serve::{Sidecar, command, folder};
use super::*;

/// The unit file that ships.
const UNIT: &str = include_str!("../../../packaging/breakerbox.service");

/// Receives until this message arrives; returns all messages.
fn hear_until(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = [0; 256];
    while all.last().is_none_or(|last| last != wanted) {
        let heard = socket.recv(&mut buffer);
        let heard = heard.unwrap_or_else(|error| panic!("no {wanted}: {error}: {all:?}"));
        let text = std::str::from_utf8(&buffer[..heard]).expect("text");
        all.extend(text.lines().map(str::to_owned));
    }
    all
}

#[tokio::test]
async fn the_service_manager_hears_that_it_is_ready_lives_and_stops() {
    let folder = folder();
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = command(folder.path());
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .env_remove("WATCHDOG_PID");
    let sidecar = Sidecar::start(command, 4);
    assert_eq!(hear_until(&socket, "READY=1"), ["READY=1"]);
    let http = super::serve::http();
    let ready = http.get(sidecar.admin("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    for _ in 0..3 {
        assert_eq!(hear_until(&socket, "WATCHDOG=1"), ["WATCHDOG=1"]);
    }
    sidecar.signal("TERM");
    hear_until(&socket, "STOPPING=1");
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn without_a_watchdog_it_only_says_that_it_is_ready_and_stops() {
    let folder = folder();
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = command(folder.path());
    command.env("NOTIFY_SOCKET", &path);
    command.env_remove("WATCHDOG_USEC");
    let sidecar = Sidecar::start(command, 4);
    hear_until(&socket, "READY=1");
    sidecar.signal("TERM");
    assert_eq!(hear_until(&socket, "STOPPING=1"), ["STOPPING=1"]);
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[test]
fn the_unit_waits_for_what_the_sidecar_says() {
    let lines: Vec<&str> = UNIT.lines().map(str::trim).collect();
    for line in [
        "Type=notify",
        "WatchdogSec=30s",
        "RestartPreventExitStatus=2",
    ] {
        assert!(lines.contains(&line), "{line}");
    }
    assert!(UNIT.contains("breakerbox serve --config "), "{UNIT}");
}
