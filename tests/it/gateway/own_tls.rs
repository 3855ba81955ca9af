//! TLS of the gateway's own listener: what callers agree on, who is let in, and new certificates.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::serve::{Sidecar, command, configured, folder};
use super::tls::{Issuer, issuer};
use super::*;

/// A certificate for `localhost`, with its key.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Identity {
    fn by(issuer: &Issuer) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        Self { certificate, key }
    }

    /// Writes both files, and returns the table of the gateway.
    fn write(&self, folder: &Path) -> String {
        let (cert, key) = (folder.join("own.pem"), folder.join("own.key"));
        std::fs::write(&cert, self.certificate.pem()).unwrap();
        std::fs::write(&key, self.key.serialize_pem()).unwrap();
        table(&cert, &key)
    }
}

fn table(cert: &Path, key: &Path) -> String {
    format!("[gateway.tls]\ncert = {cert:?}\nkey = {key:?}\n")
}

/// A caller that trusts one issuer.
struct Caller {
    config: ClientConfig,
}

impl Caller {
    fn new(trusted: &Issuer, own: Option<&Identity>, speaks: &[&str]) -> Self {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(trusted.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key.serialize_der()).unwrap();
                let chain = vec![own.certificate.der().clone()];
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let names = speaks.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = names.collect();
        Self { config }
    }

    async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, stream).await
    }

    /// Sends one request; returns the version and the text of the response.
    async fn ask(&self, address: SocketAddr, path: &str) -> Result<String, String> {
        let stream = self
            .connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let is_second = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        let request = http::Request::get(format!("https://localhost{path}"));
        let told = |error: hyper::Error| error.to_string();
        let response = if is_second {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
            let (mut sender, work) = handshake.await.map_err(told)?;
            tokio::spawn(work);
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            sender.send_request(request).await.map_err(told)?
        } else {
            let (mut sender, work) = hyper::client::conn::http1::handshake(io)
                .await
                .map_err(told)?;
            tokio::spawn(work);
            let request = request.header("host", "localhost");
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            sender.send_request(request).await.map_err(told)?
        };
        let version = response.version();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(told)?
            .to_bytes();
        Ok(format!("{version:?} {}", String::from_utf8_lossy(&body)))
    }
}

/// An upstream that answers with `Forwarded`.
async fn forwarded() -> Upstream {
    Upstream::of(async |request: Request| {
        let told = request.headers().get("forwarded");
        told.map_or("", |told| told.to_str().unwrap()).to_owned()
    })
    .await
}

fn web(upstream: &Upstream) -> String {
    let url = upstream.url();
    format!("[dependencies.web]\nkind = \"http\"\nurl = \"{url}\"\n")
}

#[tokio::test]
async fn edge_5_own_tls_speaks_both_versions_of_http() {
    let (issuer, stranger, folder) = (issuer(), issuer(), folder());
    let upstream = forwarded().await;
    let text = Identity::by(&issuer).write(folder.path()) + &web(&upstream);
    let bed = Bed::of(&text).await;
    let address = bed.gateway.address();
    for (speaks, version) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        (&["http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let told = Caller::new(&issuer, None, speaks)
            .ask(address, "/web/a")
            .await;
        let expected = format!("{version} for=127.0.0.1;host=localhost;proto=https");
        assert_eq!(told.as_deref(), Ok(&*expected), "{speaks:?}");
    }
    let refused = Caller::new(&stranger, None, &[])
        .ask(address, "/web/a")
        .await;
    assert!(refused.is_err(), "{refused:?}");
    bed.end().await;
}

#[tokio::test]
async fn edge_5_own_tls_tells_a_caller_without_tls() {
    let (issuer, folder) = (issuer(), folder());
    let upstream = forwarded().await;
    let own = Identity::by(&issuer).write(folder.path());
    let text = format!(
        "[gateway]\nheader_timeout = \"500ms\"\n{own}{}",
        web(&upstream)
    );
    let bed = Bed::of(&text).await;
    let refused = bed.get("/web/a").await;
    assert_eq!(header(&refused, "connection"), "close");
    let refused = problem(refused, 400, "bad-request").await;
    assert!(
        refused["detail"].as_str().unwrap().contains("https://"),
        "{refused}"
    );
    let mut caller = bed.connect().await;
    caller
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    read_to_end(&mut caller).await;
    // Neither text nor TLS; and nothing at all.
    for bytes in [&b"\x00\x01\x02"[..], b"", b"\x16\x03\x01"] {
        let mut caller = bed.connect().await;
        caller.write_all(bytes).await.unwrap();
        assert_eq!(read_to_end(&mut caller).await, "");
    }
    assert_eq!(upstream.hits(), 0);
    bed.end().await;
}

#[tokio::test]
async fn edge_5_own_tls_callers_that_shake_no_hands_delay_no_others() {
    let (issuer, folder) = (issuer(), folder());
    let upstream = forwarded().await;
    let bed = Bed::of(&(Identity::by(&issuer).write(folder.path()) + &web(&upstream))).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut caller = bed.connect().await;
        caller.write_all(b"\x16\x03\x01\x02").await.unwrap();
        silent.push(caller);
    }
    let caller = Caller::new(&issuer, None, &[]);
    let asked = tokio::time::timeout(PATIENCE, caller.ask(bed.gateway.address(), "/web/a"));
    assert!(asked.await.unwrap().is_ok());
    // They do not delay its end either.
    let ended = tokio::time::timeout(Duration::from_secs(9), bed.end()).await;
    assert!(ended.is_ok(), "it waits for callers without a handshake");
}

#[tokio::test]
async fn edge_5_own_tls_lets_in_who_shows_a_certificate() {
    let (ours, theirs, folder) = (issuer(), issuer(), folder());
    let upstream = forwarded().await;
    let authority = folder.path().join("callers.pem");
    std::fs::write(&authority, ours.pem()).unwrap();
    let text = Identity::by(&ours).write(folder.path());
    let text = format!("{text}client_ca = {authority:?}\n{}", web(&upstream));
    let bed = Bed::of(&text).await;
    let address = bed.gateway.address();
    for (own, is_let_in) in [
        (Some(Identity::by(&ours)), true),
        (Some(Identity::by(&theirs)), false),
        (None, false),
    ] {
        let told = Caller::new(&ours, own.as_ref(), &[])
            .ask(address, "/web/a")
            .await;
        assert_eq!(told.is_ok(), is_let_in, "{told:?}");
    }
    assert_eq!(upstream.hits(), 1);
    bed.end().await;
}

#[tokio::test]
async fn edge_5_own_tls_takes_new_certificates_without_closing_connections() {
    let (first, second, folder) = (issuer(), issuer(), folder());
    let upstream = forwarded().await;
    configured(
        folder.path(),
        &(Identity::by(&first).write(folder.path()) + &web(&upstream)),
    );
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let url = sidecar.url("");
    let address: SocketAddr = url.strip_prefix("https://").unwrap().parse().unwrap();
    let open = Caller::new(&first, None, &["http/1.1"])
        .connect(address)
        .await
        .unwrap();
    let io = TokioIo::new(open);
    let (mut sender, work) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(work);
    let request = || {
        let request = http::Request::get("/web/a").header("host", "localhost");
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let response = sender.send_request(request()).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    // A key that does not fit changes nothing.
    std::fs::write(
        folder.path().join("own.key"),
        KeyPair::generate().unwrap().serialize_pem(),
    )
    .unwrap();
    sidecar.signal("HUP");
    let events = sidecar.admin("/api/events");
    super::serve::until(&events, |_, text| text.contains("gateway.tls.key")).await;
    assert!(
        Caller::new(&first, None, &[])
            .ask(address, "/web/a")
            .await
            .is_ok()
    );
    Identity::by(&second).write(folder.path());
    sidecar.signal("HUP");
    let caller = Caller::new(&second, None, &[]);
    let waiting = async {
        while caller.ask(address, "/web/a").await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok());
    let response = sender.send_request(request()).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[test]
fn edge_5_own_tls_is_checked() {
    let (one, folder) = (issuer(), folder());
    let files = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let identity = Identity::by(&one);
    let cert = files("a.pem", &identity.certificate.pem());
    let key = files("a.key", &identity.key.serialize_pem());
    let other = files("b.key", &Identity::by(&one).key.serialize_pem());
    let text = files("c.pem", "no certificate");
    let nowhere = folder.path().join("nowhere.pem");
    let check = |text: &str| {
        configured(
            folder.path(),
            &format!("[reload]\nallow_empty = true\n{text}"),
        );
        let mut checking = std::process::Command::new(env!("CARGO_BIN_EXE_breakerbox"));
        let checking = checking.arg("check").current_dir(folder.path());
        let output = checking.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    let (code, told) = check(&table(&cert, &key));
    assert_eq!(code, Some(0), "{told}");
    let foreign = format!("{}client_ca = {text:?}\n", table(&cert, &key));
    for (text, expected) in [
        (table(&cert, &other), "gateway.tls.key is not the key"),
        (table(&text, &key), "gateway.tls.cert holds no certificate"),
        (table(&cert, &text), "gateway.tls.key cannot be read"),
        (table(&nowhere, &key), "gateway.tls.cert: given"),
        (
            format!("[gateway.tls]\ncert = {cert:?}\n"),
            "tls.key is missing",
        ),
        (
            "[gateway.tls]\n".to_owned(),
            "tls.cert and tls.key are missing",
        ),
        (foreign, "gateway.tls.client_ca holds no certificate"),
    ] {
        let (code, told) = check(&text);
        assert_eq!(code, Some(2), "{text}: {told}");
        assert!(told.contains(expected), "{told}");
    }
}
