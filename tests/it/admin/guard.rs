//! Hosts and origins: every request is checked, reads as well as changes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use breakerbox::admin::{Admin, Phase, Server};
use breakerbox::config::Settings;
use reqwest::Method;
use serde_json::{Value, json};

use super::{LONG, Rig, TOKEN};

/// Paths of all sorts: probes, metrics, API, stream, dashboard, unknown, and a wrong method.
const READS: [&str; 9] = [
    "/livez",
    "/readyz",
    "/metrics",
    "/api/dependencies",
    "/api/events/stream",
    "/api/openapi.json",
    "/",
    "/dashboard/app.js",
    "/nowhere",
];

/// Sends a head as it is, and returns the status and the text of the response.
fn ask(server: &Server, head: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), text)
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{fields}connection: close\r\n\r\n")
}

/// Serves the rig's runtime with these further settings.
fn serve(rig: &Rig, address: &str, text: &str) -> Server {
    let own = format!("[admin]\ntoken = \"{TOKEN}\"\n{text}\n");
    let settings = Settings::loader().bare().toml(&own).load().unwrap();
    let admin = Admin::new((*rig.bench.runtime).clone(), &settings);
    admin.set_phase(Phase::Ready);
    admin.serve(TcpListener::bind(address).unwrap()).unwrap()
}

#[tokio::test]
async fn edge_5_e7a_no_read_is_answered_for_another_host() {
    let rig = Rig::start(|_| {}).await;
    for path in READS {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE] {
            let request = rig.request(method.clone(), path);
            let response = request.header("host", "evil.example").send().await.unwrap();
            assert_eq!(response.status(), 421, "{method} {path}");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        }
        let request = rig.request(Method::GET, path);
        let (_, problem) = rig.problem(request.header("host", "evil.example:80")).await;
        assert_eq!(problem["type"], "urn:breakerbox:foreign-host");
        assert_eq!(problem["given"], "evil.example:80");
        let allowed = "one host: an address, localhost, or a name of admin.hosts";
        assert_eq!(problem["allowed"], allowed);
    }
    rig.finish().await;
}

#[tokio::test]
async fn edge_5_e7a_every_way_of_naming_a_host_is_checked() {
    let rig = Rig::start(|_| {}).await;
    let cases = [
        ("/livez", "host: localhost\r\n", 200),
        ("/livez", "host: LOCALHOST.:1\r\n", 200),
        ("/livez", "host: 192.0.2.1\r\n", 200),
        ("/livez", "host: [::1]:7071\r\n", 200),
        ("/livez", "host: evil.example\r\n", 421),
        ("/livez", "host: localhost.evil.example\r\n", 421),
        ("http://localhost/livez", "host: localhost\r\n", 200),
        ("http://evil.example/livez", "host: localhost\r\n", 421),
        ("http://localhost/livez", "host: evil.example\r\n", 421),
        ("http://evil.example/livez", "", 421),
        ("/livez", "", 400),
        ("http://localhost/livez", "", 400),
        ("/livez", "host:\r\n", 400),
        ("/livez", "host: a b\r\n", 400),
        ("/livez", "host: me@localhost\r\n", 400),
        ("/livez", "host: localhost\r\nhost: localhost\r\n", 400),
        ("/livez", "host: localhost\r\nhost: evil.example\r\n", 400),
        ("/livez", "host: evil.example\r\nhost: localhost\r\n", 400),
    ];
    for (target, fields, wanted) in cases {
        let (status, text) = ask(&rig.server, &get(target, fields));
        assert_eq!(status, wanted, "{target} {fields}: {text}");
        if wanted != 200 {
            assert!(text.contains("application/problem+json"), "{text}");
        }
    }
    // A probe of a load balancer that speaks HTTP/1.0.
    let (status, _) = ask(&rig.server, "GET /livez HTTP/1.0\r\n\r\n");
    assert_eq!(status, 200);
    let old = "GET /livez HTTP/1.0\r\nhost: evil.example\r\n\r\n";
    assert_eq!(ask(&rig.server, old).0, 421);
    rig.finish().await;
}

#[tokio::test]
async fn edge_5_e7a_what_a_browser_sends_for_another_site_is_refused() {
    let rig = Rig::start(|_| {}).await;
    let site = "sec-fetch-site";
    let mode = "sec-fetch-mode";
    let cases: [(&[(&str, &str)], u16); 9] = [
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[(site, "cross-site"), (mode, "no-cors")], 403),
        (&[(site, "same-site"), (mode, "cors")], 403),
        (&[(site, "cross-site")], 403),
        (&[(site, "cross-site"), (mode, "navigate")], 200),
        (&[(site, "same-origin"), (mode, "cors")], 200),
        (&[(site, "none"), (mode, "navigate")], 200),
        (&[], 200),
    ];
    for (fields, wanted) in cases {
        let mut request = rig.request(Method::GET, "/api/dependencies");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), wanted, "{fields:?}");
    }
    // A form of another site navigates too, but changes something.
    let order = rig.order("/api/dependencies/dep/open", &json!({ "reason": "r" }));
    let form = order.header(site, "cross-site").header(mode, "navigate");
    let (status, problem) = rig.problem(form).await;
    let kind: &Value = &problem["type"];
    assert_eq!(
        (status, kind),
        (403, &json!("urn:breakerbox:foreign-origin"))
    );
    assert_eq!(rig.bench.status().overridden, None);
    rig.finish().await;
}

#[tokio::test]
async fn edge_5_e7a_names_of_admin_hosts_are_served_also_away_from_loopback() {
    let rig = Rig::start(|_| {}).await;
    let listed = "hosts = [\"box.internal\"]";
    for (address, text, wanted) in [
        ("127.0.0.1:0", "", 421),
        ("127.0.0.1:0", listed, 200),
        ("0.0.0.0:0", "", 421),
        ("0.0.0.0:0", listed, 200),
    ] {
        let server = serve(&rig, address, text);
        let head = get("/livez", "host: Box.Internal:7071\r\n");
        assert_eq!(ask(&server, &head).0, wanted, "{address} {text}");
        // A probe of an orchestrator uses an address.
        let head = get("/readyz", "host: 10.1.2.3:7071\r\n");
        assert_eq!(ask(&server, &head).0, 200, "{address} {text}");
        server.stop();
    }
    rig.finish().await;
}
