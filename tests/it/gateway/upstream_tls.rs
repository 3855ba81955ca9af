//! Certificates of one dependency: its authorities, our own certificate, and its name.

use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::serve::{Sidecar, command, configured, folder, http};
use super::tls::{Issuer, issuer, upstream};
use super::*;

/// A server that asks for a certificate of this issuer.
async fn demanding(issuer: &Issuer) -> Upstream {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    Upstream::raw(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut head = [0; 1000];
            if stream.read(&mut head).await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                // The caller sees it if this fails.
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn edge_5_e7f_each_dependency_has_its_own_certificates() {
    let (ours, theirs) = (issuer(), issuer());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["box".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ours).unwrap();
    for (name, text) in [
        ("ours.pem", ours.pem()),
        ("theirs.pem", theirs.pem()),
        ("box.pem", certificate.pem()),
        ("box.key", key.serialize_pem()),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    let (plain, demanding) = (upstream(&ours, &["http/1.1"]).await, demanding(&ours).await);
    let port = |upstream: &Upstream| upstream.address.port();
    let (one, two) = (port(&plain), port(&demanding));
    let (own, other) = (path("ours.pem"), path("theirs.pem"));
    let identity = format!(
        "cert = \"{}\", key = \"{}\"",
        path("box.pem"),
        path("box.key")
    );
    let mut text = String::new();
    for (name, port, host, tls) in [
        ("known", one, "localhost", format!("ca = \"{own}\"")),
        ("unknown", one, "localhost", format!("ca = \"{other}\"")),
        ("misnamed", one, "127.0.0.1", format!("ca = \"{own}\"")),
        (
            "renamed",
            one,
            "127.0.0.1",
            format!("ca = \"{own}\", server_name = \"localhost\""),
        ),
        (
            "shown",
            two,
            "localhost",
            format!("ca = \"{own}\", {identity}"),
        ),
        ("silent", two, "localhost", format!("ca = \"{own}\"")),
    ] {
        text.push_str(&format!(
            "[dependencies.{name}]\nkind = \"http\"\nurl = \"https://{host}:{port}\"\ntls = {{ {tls} }}\n"
        ));
    }
    let bed = Bed::of(&text).await;
    for (name, status) in [
        ("known", 200),
        ("unknown", 502),
        ("misnamed", 502),
        ("renamed", 200),
        ("shown", 200),
        ("silent", 502),
    ] {
        let response = bed.get(&format!("/{name}/a")).await;
        assert_eq!(response.status(), status, "{name}");
    }
    let told = problem(bed.get("/silent/a").await, 502, "upstream-failed").await;
    let cause = "the server demands a certificate, see tls.cert";
    assert_eq!(told["cause"], cause, "edge_8");
    assert_eq!(told["executed"], "no", "call_2");
    bed.end().await;
}

#[tokio::test]
async fn edge_6_a_reload_takes_a_renewed_certificate_of_a_dependency_under_the_same_path() {
    let (ours, theirs, folder) = (issuer(), issuer(), folder());
    let upstream = upstream(&ours, &["http/1.1"]).await;
    let port = upstream.address.port();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("renewed.pem"), theirs.pem()).unwrap();
    std::fs::write(path("same.pem"), ours.pem()).unwrap();
    let table = |name: &str, ca: &str| {
        format!(
            "[dependencies.{name}]\nkind = \"http\"\nurl = \"https://localhost:{port}\"\n\
             tls.ca = {:?}\nbreaker.failure_threshold = \"off\"\n",
            path(ca)
        )
    };
    let text = table("web", "renewed.pem") + &table("other", "same.pem");
    configured(folder.path(), &text);
    let sidecar = Sidecar::start(command(folder.path()), 1);
    let status = async |name: &str| {
        let asked = http().get(sidecar.url(&format!("/{name}/a"))).send();
        asked.await.unwrap().status().as_u16()
    };
    assert_eq!((status("web").await, status("other").await), (502, 200));
    std::fs::write(path("renewed.pem"), ours.pem()).unwrap();
    sidecar.signal("HUP");
    let events = sidecar.admin("/api/events");
    super::serve::until(&events, |_, text| text.contains("other contents of")).await;
    assert_eq!((status("web").await, status("other").await), (200, 200));
}

#[test]
fn edge_5_e7f_certificates_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.pem");
    std::fs::write(&file, "no certificate").unwrap();
    let file = file.to_str().unwrap();
    let load = |kind: &str, url: &str, tls: &str| {
        let text = format!("[dependencies.web]\nkind = \"{kind}\"\nurl = \"{url}\"\ntls = {tls}\n");
        Settings::loader().bare().toml(text).load()
    };
    let here = format!("{{ ca = \"{file}\" }}");
    assert!(load("http", "https://a", &here).is_ok());
    for (kind, url, tls, key) in [
        ("http", "http://a", here.clone(), "tls"),
        ("mcp_http", "https://a", here.clone(), "tls"),
        (
            "http",
            "https://a",
            "{ ca = \"/nowhere.pem\" }".to_owned(),
            "tls.ca",
        ),
        (
            "http",
            "https://a",
            format!("{{ cert = \"{file}\" }}"),
            "tls.cert",
        ),
        (
            "http",
            "https://a",
            format!("{{ key = \"{file}\" }}"),
            "tls.key",
        ),
        (
            "http",
            "https://a",
            "{ server_name = \"a/b\" }".to_owned(),
            "tls.server_name",
        ),
        (
            "http",
            "https://a",
            "{ verify = false }".to_owned(),
            "tls.verify",
        ),
    ] {
        let error = load(kind, url, &tls).unwrap_err().to_string();
        assert!(
            error.contains(&format!("dependencies.web.{key}")),
            "{error}"
        );
    }
}
