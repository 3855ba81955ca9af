//! Dependencies behind an HTTP proxy, that a key or the environment names.

use std::sync::Mutex;

use breakerbox::config::{ProxyChoice, Secret};
use tokio::io::copy_bidirectional;

use super::serve::folder;
use super::tls::{issuer, upstream};
use super::*;

/// A proxy that leads every request to one server, and the heads that it got.
struct Proxy {
    server: Upstream,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `answer`: to every CONNECT; the status 200 opens the tunnel.
    async fn new(to: SocketAddr, answer: &'static str) -> Self {
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        let server = Upstream::raw(move |mut caller, _| {
            let seen = Arc::clone(&seen);
            async move {
                let head = read_until(&mut caller, "\r\n\r\n").await;
                let is_tunnel = head.starts_with("CONNECT ");
                seen.lock().unwrap().push(head.clone());
                if !answer.starts_with("HTTP/1.1 200") {
                    caller.write_all(answer.as_bytes()).await.unwrap();
                    return;
                }
                let mut server = TcpStream::connect(to).await.unwrap();
                if is_tunnel {
                    caller.write_all(answer.as_bytes()).await.unwrap();
                } else {
                    server.write_all(head.as_bytes()).await.unwrap();
                }
                // Both end with the test.
                let _ = copy_bidirectional(&mut caller, &mut server).await;
            }
        })
        .await;
        Self { server, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn url(&self) -> String {
        format!("http://me:s%40cret@{}", self.server.address)
    }
}

const OPEN: &str = "HTTP/1.1 200 Connection established\r\n\r\n";
const LOCKED: &str = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
/// `me:s@cret`, as RFC 7617 writes it.
const BASIC: &str = "Basic bWU6c0BjcmV0";

async fn echo() -> Upstream {
    Upstream::of(async |request: Request| {
        let headers = request.headers();
        let has_credentials = headers.contains_key("proxy-authorization");
        format!(
            "{} {} {:?}",
            request.uri(),
            has_credentials,
            headers["host"]
        )
    })
    .await
}

#[tokio::test]
async fn edge_5_a_proxy_gets_requests_in_absolute_form() {
    let upstream = echo().await;
    let proxy = Proxy::new(upstream.address, OPEN).await;
    let more = format!("proxy = \"{}\"\n", proxy.url());
    let bed = Bed::new("http://upstream.test:81/base", &more).await;
    let response = bed.get("/web/a?b").await;
    assert_eq!(header(&response, "breakerbox-source"), "primary");
    response.text().await.unwrap();
    let head = proxy.heads().concat();
    let begin = "GET http://upstream.test:81/base/a?b HTTP/1.1\r\n";
    assert!(head.starts_with(begin), "{head}");
    assert!(head.contains("host: upstream.test:81\r\n"), "{head}");
    assert!(
        head.contains(&format!("proxy-authorization: {BASIC}\r\n")),
        "{head}"
    );
    bed.end().await;
}

#[tokio::test]
async fn edge_5_a_proxy_passes_tls_and_http2_through_a_tunnel() {
    let (trusted, folder) = (issuer(), folder());
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, trusted.pem()).unwrap();
    let upstream = upstream(&trusted, &["h2", "http/1.1"]).await;
    let proxy = Proxy::new(upstream.address, OPEN).await;
    let more = format!("proxy = \"{}\"\ntls = {{ ca = {roots:?} }}\n", proxy.url());
    let bed = Bed::new("https://localhost", &more).await;
    let told = bed.get("/web/a").await.text().await.unwrap();
    assert_eq!(told, "HTTP/2.0 /a");
    let head = proxy.heads().concat();
    assert!(
        head.starts_with("CONNECT localhost:443 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("host: localhost:443\r\n"), "{head}");
    assert!(
        head.contains(&format!("proxy-authorization: {BASIC}\r\n")),
        "{head}"
    );
    bed.end().await;
    // HTTP/2 without TLS has no absolute form.
    let upstream = Upstream::raw(|stream, _| super::h2c::serve_http2(stream)).await;
    let proxy = Proxy::new(upstream.address, OPEN).await;
    let more = format!("proxy = \"{}\"\nhttp_version = \"2\"\n", proxy.url());
    let bed = Bed::new("http://grpc.test", &more).await;
    let told = bed.get("/web/a").await.text().await.unwrap();
    assert!(told.starts_with("HTTP/2.0 http://grpc.test/a"), "{told}");
    assert!(
        proxy
            .heads()
            .concat()
            .starts_with("CONNECT grpc.test:80 HTTP/1.1\r\n")
    );
    bed.end().await;
}

#[tokio::test]
async fn edge_8_a_proxy_that_does_not_connect_is_the_cause() {
    const NO: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
    let (locked, no, mute) = (
        Proxy::new(([127, 0, 0, 1], 1).into(), LOCKED).await,
        Proxy::new(([127, 0, 0, 1], 1).into(), NO).await,
        Proxy::new(([127, 0, 0, 1], 1).into(), "").await,
    );
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let closed = format!("http://me:s%40cret@{closed}");
    let mut text = String::new();
    let cases = [
        (
            "one",
            "http://a.test",
            locked.url(),
            "the proxy refused: 407",
        ),
        (
            "two",
            "https://a.test",
            locked.url(),
            "the proxy refused: 407",
        ),
        (
            "three",
            "https://a.test",
            no.url(),
            "the proxy refused: 403",
        ),
        ("four", "https://a.test", mute.url(), "the proxy: "),
        (
            "five",
            "https://a.test",
            closed.clone(),
            "the proxy: connection refused",
        ),
        (
            "six",
            "http://a.test",
            closed,
            "the proxy: connection refused",
        ),
        (
            "seven",
            "http://a.test",
            "http://me:s%40cret@nowhere.invalid".to_owned(),
            "the proxy: name not found",
        ),
    ];
    for (name, url, proxy, _) in &cases {
        text.push_str(&format!(
            "[dependencies.{name}]\nkind = \"http\"\nurl = \"{url}\"\nproxy = \"{proxy}\"\n"
        ));
    }
    let bed = Bed::of(&text).await;
    for (name, _, _, cause) in &cases {
        let response = bed.post(&format!("/{name}/a"), "hello").await;
        let refused = problem(response, 502, "upstream-failed").await;
        assert_eq!(refused["executed"], "no", "{name}: {refused}");
        let told = refused["cause"].as_str().unwrap();
        assert!(told.starts_with(cause), "{name}: {refused}");
        let text = refused.to_string();
        assert!(!text.contains("cret") && !text.contains("a.test"), "{text}");
        assert_eq!(bed.runtime.status(name).unwrap().totals.failed, 1, "{name}");
    }
    bed.end().await;
}

/// The proxy of one dependency, and the warnings.
fn chosen(url: &str, more: &str, variables: &[(&str, &str)]) -> (ProxyChoice, String) {
    let text = format!("[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n{more}");
    let loader = Settings::loader().bare().toml(text);
    let settings = loader.env_vars(variables.iter().copied()).load().unwrap();
    let warnings = settings.warnings().iter();
    let warnings: String = warnings.map(|warning| format!("{warning}\n")).collect();
    (
        settings.dependencies["web"].upstream.proxy.clone(),
        warnings,
    )
}

#[test]
fn edge_5_the_environment_names_proxies() {
    let through = |url: &str| ProxyChoice::Through(Secret::new(url));
    let (one, two) = ("http://one:1", "http://two:2");
    let nothing = || ProxyChoice::Environment;
    let both = [("HTTP_PROXY", one), ("HTTPS_PROXY", two)];
    for (url, more, variables, expected) in [
        ("http://a.test", "", &both[..], through(one)),
        ("https://a.test", "", &both, through(two)),
        (
            "https://a.test",
            "",
            &[("https_proxy", one), ("HTTPS_PROXY", two)],
            through(one),
        ),
        ("https://a.test", "", &[("HTTP_PROXY", one)], nothing()),
        ("https://a.test", "", &[("all_proxy", one)], through(one)),
        (
            "http://a.test",
            "",
            &[("ALL_PROXY", one), ("http_proxy", two)],
            through(two),
        ),
        (
            "http://a.test",
            "",
            &[("HTTP_PROXY", "one:1")],
            through(one),
        ),
        ("http://a.test", "", &[("HTTP_PROXY", "")], nothing()),
        (
            "http://a.test",
            "",
            &[("HTTP_PROXY", one), ("REQUEST_METHOD", "GET")],
            nothing(),
        ),
        (
            "http://a.test",
            "",
            &[("http_proxy", one), ("REQUEST_METHOD", "GET")],
            through(one),
        ),
        (
            "http://a.test",
            "",
            &[("HTTP_PROXY", one), ("NO_PROXY", "b,a.test")],
            nothing(),
        ),
        (
            "http://x.a.test",
            "",
            &[("HTTP_PROXY", one), ("no_proxy", ".a.test")],
            nothing(),
        ),
        (
            "http://10.1.2.3",
            "",
            &[("HTTP_PROXY", one), ("no_proxy", "10.0.0.0/8")],
            nothing(),
        ),
        (
            "http://x.a.test",
            "",
            &[("HTTP_PROXY", one), ("no_proxy", "b, *.a.test")],
            nothing(),
        ),
        (
            "http://ba.test",
            "",
            &[("HTTP_PROXY", one), ("no_proxy", "a.test")],
            through(one),
        ),
        (
            "http://a.test",
            "",
            &[("HTTP_PROXY", one), ("no_proxy", "*")],
            nothing(),
        ),
        ("http://localhost:1", "", &both, nothing()),
        ("http://127.1.2.3:1", "", &both, nothing()),
        ("https://[::1]:1", "", &both, nothing()),
        ("http://a.localhost", "", &both, nothing()),
        ("unix:///run/a", "", &both, nothing()),
        (
            "http://a.test",
            "proxy = \"off\"\n",
            &both,
            ProxyChoice::Direct,
        ),
        (
            "http://a.test",
            "proxy = \"http://three\"\n",
            &both,
            through("http://three"),
        ),
    ] {
        let (proxy, warnings) = chosen(url, more, variables);
        assert_eq!(proxy, expected, "{url} {more} {variables:?}");
        let is_told = matches!(proxy, ProxyChoice::Through(_)) && more.is_empty();
        let tells = warnings.contains("go through the proxy");
        assert_eq!(tells, is_told, "{url} {variables:?}: {warnings}");
    }
}

#[test]
fn edge_5_no_password_of_a_proxy_is_shown() {
    let variables = [("HTTPS_PROXY", "http://me:s3cret@one:1/")];
    let (_, warnings) = chosen("https://a.test", "", &variables);
    assert!(
        warnings.contains("the proxy one:1, which the variable HTTPS_PROXY"),
        "{warnings}"
    );
    assert!(!warnings.contains("s3cret"), "{warnings}");
    let socks = [("ALL_PROXY", "socks5://me:s3cret@one:1")];
    let (proxy, warnings) = chosen("https://a.test", "", &socks);
    assert_eq!(proxy, ProxyChoice::Environment);
    assert!(
        warnings.contains("ALL_PROXY names no HTTP proxy"),
        "{warnings}"
    );
    assert!(!warnings.contains("s3cret"), "{warnings}");
    let load = |proxy: &str| {
        let text = "[dependencies.web]\nkind = \"http\"\nurl = \"http://a\"\n";
        let text = format!("{text}proxy = \"{proxy}\"\n");
        Settings::loader().bare().toml(text).load()
    };
    let settings = load("http://me:s3cret@one:1").unwrap();
    assert!(!format!("{settings:?}").contains("s3cret"));
    for bad in [
        "socks5://me:s3cret@one:1",
        "http://me:s3cret@one:1/x",
        "me:s3cret@one",
    ] {
        let error = load(bad).unwrap_err().to_string();
        assert!(error.contains("dependencies.web.proxy"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn edge_5_a_proxy_of_the_environment_is_used() {
    let upstream = echo().await;
    let proxy = Proxy::new(upstream.address, OPEN).await;
    let folder = folder();
    let text = "[dependencies.web]\nkind = \"http\"\nurl = \"http://upstream.test\"\n";
    super::serve::configured(folder.path(), text);
    let mut command = super::serve::command(folder.path());
    command.env("HTTP_PROXY", proxy.url());
    let sidecar = super::serve::Sidecar::start(command, 1);
    let response = super::serve::http().get(sidecar.url("/web/a")).send().await;
    assert_eq!(response.unwrap().status(), 200);
    let head = proxy.heads().concat();
    assert!(
        head.starts_with("GET http://upstream.test/a HTTP/1.1\r\n"),
        "{head}"
    );
}
